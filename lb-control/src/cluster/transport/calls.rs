//! Calls to the members that are not connected.

use super::{Shared, link};
use crate::cluster::error::ClusterError;
use crate::cluster::identity::{NodeId, Role, Subject};
use crate::cluster::roster::Member;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// First and last pause between two calls.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long the node with the higher id leaves the calling to the other one.
const COURTESY: Duration = Duration::from_secs(2);

/// Keeps a caller for each member that can be called.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut rosters = shared.roster.subscribe();
    let mut tasks = JoinSet::new();
    let mut callers: BTreeMap<NodeId, (Member, AbortHandle)> = BTreeMap::new();
    loop {
        let roster = Arc::clone(&rosters.borrow_and_update());
        let wanted = |member: &&Member| {
            let is_somewhere = !member.addresses.is_empty() || shared.discover.is_some();
            member.id != shared.own && member.role == Role::Node && is_somewhere
        };
        callers.retain(|id, (known, task)| {
            let is_same = roster.roster().member(*id) == Some(known);
            if !is_same {
                task.abort();
            }
            is_same
        });
        for member in roster.roster().members.iter().filter(wanted) {
            callers.entry(member.id).or_insert_with(|| {
                let task = tasks.spawn(call(Arc::clone(&shared), member.clone()));
                (member.clone(), task)
            });
        }
        if rosters.changed().await.is_err() {
            return;
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// Calls a member again and again, whenever it is not connected.
async fn call(shared: Arc<Shared>, member: Member) {
    let mut pause = PAUSE.0;
    if shared.own > member.id {
        sleep(COURTESY).await;
    }
    loop {
        if shared.links.has(member.id) {
            pause = PAUSE.0;
        } else {
            // Behind the name that stands for all of them, only this one shows its certificate.
            for address in member.addresses.iter().chain(&shared.discover) {
                if shared.links.has(member.id) {
                    break;
                }
                let failure = match attempt(&shared, &member, address).await {
                    // Not within this task, which ends when the member's addresses change.
                    Ok(connection) => match tokio::spawn(link::run(Arc::clone(&shared), connection)).await {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(error.to_string()),
                        Err(error) => Some(error.to_string()),
                    },
                    Err(error) => Some(error.to_string()),
                };
                shared.note_failure(member.id, failure);
            }
            pause = (pause * 2).min(PAUSE.1);
        }
        sleep(pause).await;
    }
}

async fn attempt(shared: &Shared, member: &Member, address: &str) -> Result<quinn::Connection, ClusterError> {
    let name = Subject { id: member.id, role: member.role }.dns_name();
    let client = shared.client.borrow().clone();
    connect(&shared.endpoint, client, address, &name).await
}

/// Calls an address, the first of its resolved ones that fits the endpoint's own and answers.
pub(super) async fn connect(
    endpoint: &quinn::Endpoint,
    client: quinn::ClientConfig,
    address: &str,
    name: &str,
) -> Result<quinn::Connection, ClusterError> {
    let failed = |reason: String| ClusterError::Unreachable { address: address.to_owned(), reason };
    let own = endpoint.local_addr().map_err(|error| failed(error.to_string()))?;
    let resolved = tokio::net::lookup_host(address).await.map_err(|error| failed(error.to_string()))?;
    let mut reason = "no address of this family".to_owned();
    for target in resolved.filter_map(|target| reachable(own, target)) {
        let attempt = match endpoint.connect_with(client.clone(), target, name) {
            Ok(connecting) => connecting.await,
            Err(error) => {
                reason = error.to_string();
                continue;
            }
        };
        match attempt {
            Ok(connection) => return Ok(connection),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(failed(reason))
}

/// The target as a socket with this address can reach it.
fn reachable(own: SocketAddr, target: SocketAddr) -> Option<SocketAddr> {
    match (own.ip(), target.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Some(target),
        (IpAddr::V6(own), IpAddr::V4(ip)) if own.is_unspecified() => {
            Some(SocketAddr::new(ip.to_ipv6_mapped().into(), target.port()))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}
