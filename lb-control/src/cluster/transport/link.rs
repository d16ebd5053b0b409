//! One connection between two members, from the first words to the last.
//!
//! The caller opens the control stream and both say who they are and which member list they have; afterwards it carries
//! newer lists and secrets. Each side opens one more stream for its messages, so that a removal does not wait behind data.

use super::links::{Close, Entry, Link};
use super::{Event, Orders, Shared, frame};
use crate::cluster::error::ClusterError;
use crate::cluster::identity::{NodeId, Role, Subject};
use crate::cluster::keyring::SignedKeyring;
use crate::cluster::roster::SignedRoster;
use crate::cluster::signed::Document;
use quinn::{Connection, RecvStream, SendStream, Side};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How long a peer may take for its first words.
const GREETING: Duration = Duration::from_secs(5);
/// Messages that wait for a peer before they are refused.
const OUTBOX: usize = 256;

/// The first frame of each side.
#[derive(Serialize, Deserialize)]
struct Hello {
    /// Made anew whenever the node starts, in hexadecimal.
    instance: String,
    /// Its newest member list.
    roster: SignedRoster,
    /// Serial of its shared secrets; 0 = it has none.
    keyring: u64,
    /// Whether it makes certificates new.
    #[serde(default)]
    authority: bool,
    /// Whether it takes what administrators say.
    #[serde(default)]
    orders: bool,
}

/// What the control stream carries after that.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum News {
    /// A newer member list.
    Roster(SignedRoster),
    /// Newer shared secrets, to load balancers only.
    Keyring(SignedKeyring),
    /// A request for a new certificate, in hexadecimal; to the authority only.
    Renew(String),
    /// The new certificate, in hexadecimal.
    Certificate(String),
    /// All that administrators have said of backends; between load balancers only.
    Orders(Orders),
}

/// Serials of what the peer has.
struct Known {
    roster: u64,
    keyring: u64,
    /// Whether it makes certificates new.
    is_authority: bool,
    /// Whether it takes what administrators say.
    takes_orders: bool,
}

/// Why a connection ended.
enum Failure {
    /// This side closes it.
    Close(Close),
    /// The other side did, or the network.
    Error(ClusterError),
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        Self::Error(error)
    }
}

/// Runs a connection whose handshake is complete until it ends.
pub(super) async fn run(shared: Arc<Shared>, connection: Connection) -> Result<(), ClusterError> {
    let result = talk(&shared, &connection).await;
    let (close, result) = match result {
        Ok(()) => (Close::Ended, Ok(())),
        Err(Failure::Close(close)) => {
            (close, Err(ClusterError::Refused { reason: close.reason().to_owned() }))
        }
        Err(Failure::Error(error)) => {
            let close = match error {
                ClusterError::Protocol { .. }
                | ClusterError::Roster { .. }
                | ClusterError::Document { .. } => Close::Protocol,
                _ => Close::Ended,
            };
            if let Some(quinn::ConnectionError::ApplicationClosed(closed)) = connection.close_reason()
                && closed.error_code == quinn::VarInt::from_u32(Close::NoMember as u32)
                && !shared.shut_out.swap(true, Relaxed)
            {
                tracing::error!("the others say that this node is not in their cluster any more");
            }
            // What the other side said about it is worth more than how it was noticed here.
            let reason = connection.close_reason().map(|reason| reason.to_string());
            (close, Err(reason.map_or(error, |reason| ClusterError::Refused { reason })))
        }
    };
    close.close(&connection);
    result
}

async fn talk(shared: &Arc<Shared>, connection: &Connection) -> Result<(), Failure> {
    let subject = subject(connection)?;
    if subject.id == shared.own {
        tracing::error!(
            address = %connection.remote_address(),
            id = %subject.id,
            "another machine has this node's certificate: its files were copied; have it join by itself"
        );
        return Err(Failure::Close(Close::Taken));
    }
    let side = connection.side();
    let greeting = tokio::time::timeout(GREETING, async {
        match side {
            Side::Client => {
                let (mut sender, mut receiver) = connection.open_bi().await.map_err(lost)?;
                frame::write_json(&mut sender, &hello(shared)).await?;
                let peer: Hello = frame::read_json(&mut receiver, frame::CONTROL).await?;
                Ok::<_, ClusterError>((sender, receiver, peer))
            }
            Side::Server => {
                let (sender, mut receiver) = connection.accept_bi().await.map_err(lost)?;
                let peer: Hello = frame::read_json(&mut receiver, frame::CONTROL).await?;
                Ok((sender, receiver, peer))
            }
        }
    });
    let (mut control, heard, peer) = greeting.await.map_err(|_| lost("no greeting in time"))??;
    let instance = u64::from_str_radix(&peer.instance, 16).map_err(lost)?;
    let (keyring, is_authority) = (peer.keyring, peer.authority);
    let takes_orders = peer.orders && subject.role == Role::Node && own_role(shared) == Role::Node;
    let known = Known { roster: shared.adopt(peer.roster)?, keyring, is_authority, takes_orders };
    if !shared.roster.borrow().roster().admits(subject) {
        return Err(Failure::Close(Close::NoMember));
    }
    let (outbox, messages) = mpsc::channel(OUTBOX);
    // Dropped when this function has ended: that is how a successor knows.
    let (_over, over) = watch::channel(());
    let caller = match side {
        Side::Client => shared.own,
        Side::Server => subject.id,
    };
    let link = Link {
        role: subject.role,
        connection: connection.clone(),
        instance,
        is_preferred: caller == shared.own.min(subject.id),
        outbox,
        since: Instant::now(),
        over,
    };
    match shared.links.enter(subject.id, link).await {
        Entry::Entered => {}
        Entry::Refused(close) => {
            if close == Close::Taken {
                tracing::error!(
                    id = %subject.id,
                    address = %connection.remote_address(),
                    "refused: a node with this id is connected already; were its files copied?"
                );
            }
            return Err(Failure::Close(close));
        }
    }
    shared.shut_out.store(false, Relaxed);
    let (renew, renewed) = mpsc::channel(1);
    let seen = Seen { shared, connection, peer: subject.id };
    if side == Side::Server {
        frame::write_json(&mut control, &hello(shared)).await?;
    }
    shared.tell(Event::Up { peer: subject.id, role: subject.role }).await;
    let outcome = tokio::select! {
        outcome = news_out(shared, control, subject, known, renewed) => outcome,
        outcome = news_in(shared, heard, subject, renew) => outcome,
        outcome = messages_out(connection, messages) => outcome,
        outcome = messages_in(shared, connection, subject.id) => outcome,
        error = connection.closed() => Err(Failure::Error(lost(error))),
    };
    drop(seen);
    shared.tell(Event::Down { peer: subject.id }).await;
    outcome
}

/// Takes the peer out of the list of links, however its connection ends.
struct Seen<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    peer: NodeId,
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        self.shared.links.leave(self.peer, self.connection);
    }
}

/// Tells newer member lists and secrets, and shuts out who is not in a list any more.
async fn news_out(
    shared: &Shared,
    mut control: SendStream,
    subject: Subject,
    mut known: Known,
    mut renewed: mpsc::Receiver<String>,
) -> Result<(), Failure> {
    let (mut rosters, mut keyrings) = (shared.roster.subscribe(), shared.keyring.subscribe());
    let mut renewals = shared.renewal_due.subscribe();
    let mut orders = shared.orders.subscribe();
    orders.mark_changed();
    loop {
        let roster = rosters.borrow_and_update().clone();
        if !roster.roster().admits(subject) {
            return Err(Failure::Close(Close::NoMember));
        }
        if roster.roster().serial > known.roster {
            known.roster = roster.roster().serial;
            frame::write_json(&mut control, &News::Roster(SignedRoster::clone(&roster))).await?;
        }
        let keyring = keyrings.borrow_and_update().clone();
        if let Some(keyring) = keyring.filter(|_| subject.role == Role::Node)
            && keyring.content().serial() > known.keyring
        {
            known.keyring = keyring.content().serial();
            frame::write_json(&mut control, &News::Keyring(SignedKeyring::clone(&keyring))).await?;
        }
        if known.takes_orders && orders.has_changed().unwrap_or(false) {
            let all = orders.borrow_and_update().clone();
            if !all.is_empty() {
                frame::write_json(&mut control, &News::Orders(all)).await?;
            }
        }
        if known.is_authority && *renewals.borrow_and_update() {
            frame::write_json(&mut control, &News::Renew(shared.renewal_request()?)).await?;
        }
        let goes_on = tokio::select! {
            changed = rosters.changed() => changed.is_ok(),
            changed = keyrings.changed() => changed.is_ok(),
            changed = renewals.changed() => changed.is_ok(),
            changed = orders.changed(), if known.takes_orders => {
                orders.mark_changed();
                changed.is_ok()
            }
            Some(certificate) = renewed.recv() => {
                frame::write_json(&mut control, &News::Certificate(certificate)).await?;
                true
            }
        };
        if !goes_on {
            return Ok(());
        }
    }
}

async fn news_in(
    shared: &Shared,
    mut heard: RecvStream,
    subject: Subject,
    renew: mpsc::Sender<String>,
) -> Result<(), Failure> {
    while let Some(text) = frame::read(&mut heard, frame::CONTROL).await? {
        match serde_json::from_slice(&text).map_err(lost)? {
            News::Roster(roster) => drop(shared.adopt(roster)?),
            News::Keyring(keyring) => shared.adopt_keyring(keyring)?,
            News::Orders(orders) => {
                if subject.role == Role::Node {
                    shared.heard().insert(subject.id, orders);
                }
            }
            News::Renew(request) => {
                if let Some(certificate) = shared.renew(subject, &request)? {
                    // One that asks again before it was answered gets one answer.
                    drop(renew.try_send(certificate));
                }
            }
            News::Certificate(certificate) => {
                if let Err(error) = shared.take_certificate(&certificate) {
                    tracing::error!(%error, "a new certificate was not taken; the present one stays");
                }
            }
        }
    }
    Ok(())
}

async fn messages_out(connection: &Connection, mut messages: mpsc::Receiver<Vec<u8>>) -> Result<(), Failure> {
    let mut stream = connection.open_uni().await.map_err(lost)?;
    while let Some(message) = messages.recv().await {
        frame::write(&mut stream, &message).await?;
    }
    Ok(())
}

async fn messages_in(shared: &Shared, connection: &Connection, peer: NodeId) -> Result<(), Failure> {
    let mut stream = connection.accept_uni().await.map_err(lost)?;
    while let Some(bytes) = frame::read(&mut stream, frame::MESSAGE).await? {
        shared.tell(Event::Message { peer, bytes }).await;
    }
    Ok(())
}

fn hello(shared: &Shared) -> Hello {
    Hello {
        instance: format!("{:016x}", shared.instance),
        roster: SignedRoster::clone(&shared.roster.borrow()),
        keyring: super::serial(shared.keyring.borrow().as_deref()),
        authority: shared.authority.is_some(),
        orders: true,
    }
}

fn own_role(shared: &Shared) -> Role {
    shared.identity().subject.role
}

/// Whose certificate the other side showed.
pub(super) fn subject(connection: &Connection) -> Result<Subject, ClusterError> {
    let shown = connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'_>>>().ok());
    let shown = shown.and_then(|chain| chain.first().cloned());
    Subject::of(&shown.ok_or_else(|| ClusterError::Certificate { reason: "none was shown".to_owned() })?)
}

fn lost(error: impl ToString) -> ClusterError {
    ClusterError::Protocol { reason: error.to_string() }
}
