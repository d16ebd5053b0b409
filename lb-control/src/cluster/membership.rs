//! Whether this node is in a cluster, and how it gets into one while it runs.
//!
//! A [`Membership`] is what the daemon and its API hold. It starts the [`Replica`] when the state directory says that the
//! node is a member, or when it becomes one, and says whether the node may take traffic: a node that is alone may at once,
//! a member when it has the bindings. A switch has none, and only [hears](Hearing) what nodes tell of their connections.

use super::authority::Authority;
use super::bindings::{self, Bindings};
use super::error::ClusterError;
use super::hearing::Hearing;
use super::home::Home;
use super::identity::{NodeId, Role};
use super::join::join;
use super::journal::Opening;
use super::keyring::{Keyring, Rotation, SignedKeyring};
use super::mirror::{self, Mirrors};
use super::replica::{Ended, Replica, ReplicaError, Standing};
use super::roster::Member;
use super::token::Token;
use super::transport::Transport;
use super::{PORT, addresses};
use crate::config::SharedSecrets;
use crate::reconcile::Handle;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;

/// What the configuration says of a member.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the others are told to call it; none = what is found out.
    pub advertise: Vec<String>,
    /// Its name in lists.
    pub name: String,
    /// `host:port` that stands for all nodes.
    pub discover: Option<String>,
    /// What this machine can be.
    pub role: Role,
}

/// This node's part in a cluster; clones are cheap.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    home: Home,
    settings: Settings,
    reconciler: Handle,
    running: RwLock<Option<Running>>,
    ready: watch::Sender<bool>,
    secrets: watch::Sender<Option<Arc<SharedSecrets>>>,
}

/// A member that runs.
struct Running {
    transport: Arc<Transport>,
    part: Part,
    tasks: JoinSet<()>,
}

/// What it does in its cluster.
enum Part {
    /// It has the bindings, and goes on with what others leave.
    Node { replica: Replica, bindings: Bindings, mirrors: Mirrors },
    /// It is told of connections.
    Switch(Hearing),
}

/// A cluster that was just made.
#[derive(Clone, Debug)]
pub struct Founded {
    /// This node's id.
    pub id: NodeId,
    /// Lets the second node in.
    pub token: Token,
    /// Where it may call.
    pub addresses: Vec<String>,
}

/// How this node stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its entry in the member list, as far as there is one.
    pub member: Option<Member>,
    /// Whether its data plane has the bindings.
    pub is_ready: bool,
    /// Whether it was removed.
    pub is_removed: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it makes tokens, removes members and changes secrets.
    pub is_authority: bool,
    /// How often the member list was changed.
    pub roster: u64,
    /// Its replica.
    pub standing: Standing,
    /// Connections that it mirrors, and those that it holds.
    pub mirror: mirror::Standing,
}

impl Status {
    /// Whether this is a switch: it asks nobody, and inherits nothing.
    pub fn is_switch(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.role == Role::Switch)
    }
}

/// Why something about the membership was not done.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The cluster's side of it.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The replica did not start.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The replica has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl Membership {
    /// Finds out whether this node is a member, and takes part in its cluster if it is.
    pub async fn open(home: Home, settings: Settings, reconciler: Handle) -> Result<Self, MembershipError> {
        let inner = Inner {
            home,
            settings,
            reconciler,
            running: RwLock::default(),
            ready: watch::Sender::new(true),
            secrets: watch::Sender::new(None),
        };
        let membership = Self(Arc::new(inner));
        if membership.0.home.identity()?.is_some() {
            let mut running = membership.0.running.write().await;
            *running = Some(membership.0.start().await?);
        }
        Ok(membership)
    }

    /// Whether the node may take traffic: a member when its data plane has the bindings.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    /// The cluster's secrets, and whenever they change; `None` = this node's own hold.
    pub fn secrets(&self) -> watch::Receiver<Option<Arc<SharedSecrets>>> {
        self.0.secrets.subscribe()
    }

    /// Makes a cluster of this node, whose secrets become the cluster's, and a token for the second node.
    pub async fn found(
        &self,
        secrets: &SharedSecrets,
        services: &BTreeSet<IpAddr>,
        lifetime: Duration,
    ) -> Result<Founded, MembershipError> {
        let mut running = self.0.running.write().await;
        let Settings { listen, advertise, name, role, .. } = &self.0.settings;
        if *role == Role::Switch {
            return Err(ClusterError::SwitchAlone.into());
        }
        self.0.home.must_be_free()?;
        must_be_bindable(*listen)?;
        let addresses = match advertise.is_empty() {
            true => addresses::all(*listen, services).await?,
            false => advertise.clone(),
        };
        Authority::found(&self.0.home, name, addresses.clone(), Keyring::of(secrets))?;
        let started = running.insert(self.0.start().await?);
        let token = started.transport.token(Role::Node, lifetime)?;
        let id = started.transport.id();
        tracing::info!(%id, "a cluster was made");
        Ok(Founded { id, token, addresses })
    }

    /// Joins the cluster of the node at `address`.
    pub async fn join(&self, token: &Token, address: &str) -> Result<NodeId, MembershipError> {
        let mut running = self.0.running.write().await;
        let Settings { listen, advertise, name, role, .. } = &self.0.settings;
        self.0.home.must_be_free()?;
        must_be_bindable(*listen)?;
        let addresses = match advertise.is_empty() {
            true => addresses::toward(address, *listen).await?,
            false => advertise.clone(),
        };
        let identity = join(&self.0.home, address, token, name, addresses, Some(*role)).await?;
        *running = Some(self.0.start().await?);
        tracing::info!(id = %identity.subject.id, "joined a cluster");
        Ok(identity.subject.id)
    }

    /// Makes a token that lets one machine join.
    pub async fn token(&self, role: Role, lifetime: Duration) -> Result<Token, MembershipError> {
        self.with(|transport| transport.token(role, lifetime)).await
    }

    /// Removes a member.
    pub async fn remove(&self, id: NodeId) -> Result<(), MembershipError> {
        self.with(|transport| transport.remove(id)).await
    }

    /// Makes one of the shared secrets new.
    pub async fn rotate(&self, rotation: Rotation) -> Result<(), MembershipError> {
        self.with(|transport| transport.rotate(rotation)).await
    }

    /// Says what administrators said as far as this node knows, and takes what others have said of that since the last time.
    pub async fn exchange_orders(&self, own: &str) -> Vec<String> {
        let running = self.0.running.read().await;
        running.as_ref().map_or_else(Vec::new, |running| running.transport.exchange_orders(own))
    }

    /// The member whose id or name this is.
    pub async fn member(&self, text: &str) -> Result<NodeId, MembershipError> {
        let named = |member: &&Member| member.name == text || member.id.to_string() == text;
        self.with(|transport| {
            let rosters = transport.roster();
            let roster = rosters.borrow();
            let mut found = roster.roster().members.iter().filter(named);
            match (found.next(), found.next()) {
                (Some(member), None) => Ok(member.id),
                (Some(_), Some(_)) => Err(ClusterError::SeveralMembers { name: text.to_owned() }),
                (None, _) => match text.parse() {
                    Ok(id) => Err(ClusterError::NoMember { id }),
                    Err(_) => Err(ClusterError::NoMemberNamed { name: text.to_owned() }),
                },
            }
        })
        .await
    }

    /// How this node stands; `None` = it is in no cluster.
    pub async fn status(&self) -> Result<Option<Status>, MembershipError> {
        let running = self.0.running.read().await;
        let Some(Running { transport, part, .. }) = &*running else { return Ok(None) };
        let (standing, mirror) = match part {
            Part::Node { replica, mirrors, .. } => (replica.standing().await?, mirrors.standing()),
            Part::Switch(hearing) => (Standing::without_bindings(transport), hearing.standing()),
        };
        let rosters = transport.roster();
        let roster = rosters.borrow();
        Ok(Some(Status {
            member: roster.roster().member(standing.id).cloned(),
            is_ready: *self.0.ready.borrow(),
            is_removed: transport.is_shut_out(),
            listen: self.0.settings.listen,
            is_authority: transport.is_authority(),
            roster: roster.roster().serial,
            standing,
            mirror,
        }))
    }

    /// The bindings of the cluster; `None` = the node is in none, or a switch.
    pub async fn bindings(&self) -> Option<Bindings> {
        match &self.0.running.read().await.as_ref()?.part {
            Part::Node { bindings, .. } => Some(bindings.clone()),
            Part::Switch(_) => None,
        }
    }

    /// The mirroring of connections; `None` = the node is in no cluster, or a switch.
    pub async fn mirrors(&self) -> Option<Mirrors> {
        match &self.0.running.read().await.as_ref()?.part {
            Part::Node { mirrors, .. } => Some(mirrors.clone()),
            Part::Switch(_) => None,
        }
    }

    /// What nodes tell of their connections; `None` = this is no switch, or in no cluster.
    pub async fn hearing(&self) -> Option<Hearing> {
        match &self.0.running.read().await.as_ref()?.part {
            Part::Node { .. } => None,
            Part::Switch(hearing) => Some(hearing.clone()),
        }
    }

    /// Ends it: what was told before is durable when this returns.
    pub async fn stop(&self) {
        if let Some(Running { transport, part, mut tasks }) = self.0.running.write().await.take() {
            tasks.shutdown().await;
            match part {
                Part::Node { replica, .. } => replica.stop().await,
                Part::Switch(_) => transport.stop().await,
            }
        }
    }

    async fn with<T>(
        &self,
        act: impl FnOnce(&Transport) -> Result<T, ClusterError>,
    ) -> Result<T, MembershipError> {
        let running = self.0.running.read().await;
        let Running { transport, .. } = running.as_ref().ok_or(ClusterError::NoCluster)?;
        Ok(act(transport)?)
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("home", &self.0.home).finish_non_exhaustive()
    }
}

impl Inner {
    /// Starts what a member needs.
    async fn start(&self) -> Result<Running, ReplicaError> {
        let Settings { listen, discover, role, .. } = &self.settings;
        let identity = self.home.identity()?.ok_or(ClusterError::NoCluster)?;
        let is_switch = identity.subject.role == Role::Switch;
        if is_switch != (*role == Role::Switch) {
            let path = self.home.directory().to_owned();
            return Err(ClusterError::Changed { path, role: identity.subject.role, now: *role }.into());
        }
        let mut tasks = JoinSet::new();
        if is_switch {
            let (transport, events) = Transport::start(&self.home, *listen, discover.clone())?;
            let transport = Arc::new(transport);
            let hearing = Hearing::start(Arc::clone(&transport), events, &mut tasks);
            return Ok(Running { transport, part: Part::Switch(hearing), tasks });
        }
        let (mut replica, updates, opening) = Replica::start(&self.home, *listen, discover.clone())?;
        match opening {
            Opening::Fresh | Opening::Continued => {}
            Opening::SetAside { path, reason } => tracing::error!(
                aside = %path.display(),
                reason,
                "the journal could not be trusted and was set aside; the bindings come from the peers"
            ),
        }
        self.ready.send_replace(false);
        let bindings = bindings::start(&self.reconciler, &replica, updates, &mut tasks);
        tasks.spawn(follow(bindings.complete(), self.ready.clone(), |ready| *ready));
        let (transport, mirrored) = replica.mirrored().expect("nobody has listened before");
        let mirrors = Mirrors::start(&self.reconciler, Arc::clone(&transport), mirrored, &mut tasks);
        let secrets = |keyring: &Option<Arc<SignedKeyring>>| {
            keyring.as_ref().map(|keyring| Arc::new(keyring.content().secrets()))
        };
        self.secrets.send_replace(secrets(&transport.keyring().borrow()));
        tasks.spawn(follow(transport.keyring(), self.secrets.clone(), secrets));
        Ok(Running { transport, part: Part::Node { replica, bindings, mirrors }, tasks })
    }
}

/// An address as people give it, with the usual port when they give none.
pub fn with_port(address: &str) -> String {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, PORT).to_string(),
        Err(_) if address.contains(':') => address.to_owned(),
        Err(_) => format!("{address}:{PORT}"),
    }
}

/// Passes on what is watched.
async fn follow<T, U: PartialEq>(
    mut from: watch::Receiver<T>,
    to: watch::Sender<U>,
    translate: impl Fn(&T) -> U,
) {
    loop {
        let value = translate(&from.borrow_and_update());
        to.send_if_modified(|known| {
            let is_new = *known != value;
            *known = value;
            is_new
        });
        if from.changed().await.is_err() {
            return;
        }
    }
}

/// An error when nobody can listen there, before anything is kept.
fn must_be_bindable(listen: SocketAddr) -> Result<(), ClusterError> {
    let tried = UdpSocket::bind(listen);
    tried.map(drop).map_err(|source| ClusterError::Listen { address: listen, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_come_without_its_port() {
        for (given, meant) in [
            ("192.0.2.1", "192.0.2.1:7117"),
            ("192.0.2.1:99", "192.0.2.1:99"),
            ("2001:db8::1", "[2001:db8::1]:7117"),
            ("[2001:db8::1]", "[2001:db8::1]:7117"),
            ("[2001:db8::1]:99", "[2001:db8::1]:99"),
            ("lb1.example.net", "lb1.example.net:7117"),
            ("lb1.example.net:99", "lb1.example.net:99"),
        ] {
            assert_eq!(with_port(given), meant);
        }
    }
}
