//! Who comes to this node: members, and machines that join; and the way to another node's door.

use super::links::Close;
use super::{PATIENCE, Shared, calls, frame, link, tls};
use crate::cluster::error::ClusterError;
use crate::cluster::identity::unhex;
use crate::cluster::join::{JoinAnswer, JoinRequest};
use crate::cluster::token::Token;
use quinn::crypto::rustls::HandshakeData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Handshakes at a time; more are not answered.
const HANDSHAKES: usize = 64;
/// Handshakes from which on an address has to prove itself first.
const PROOF_FROM: usize = 8;
/// Characters of a member's name, as long as Linux lets a host's be.
pub(super) const NAME: usize = 64;

/// Takes calls until the endpoint is closed.
pub(super) async fn accept(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    while let Some(incoming) = shared.endpoint.accept().await {
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        if !incoming.remote_address_validated() && handshakes.available_permits() < HANDSHAKES - PROOF_FROM {
            // It answers by itself when a retry is not possible.
            let _ = incoming.retry();
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let from = incoming.remote_address();
            let result = async {
                let connecting = incoming.accept().map_err(|error| unreachable(from, &error))?;
                let connection = connecting.await.map_err(|error| unreachable(from, &error))?;
                greet(shared, connection, permit).await
            };
            if let Err(error) = result.await {
                tracing::debug!(%from, %error, "a connection ended");
            }
        });
    }
}

/// Tells members from machines that join.
async fn greet(
    shared: Arc<Shared>,
    connection: quinn::Connection,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> Result<(), ClusterError> {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = data.and_then(|data| data.protocol);
    if protocol.as_deref() == Some(tls::MEMBER) {
        if connection.peer_identity().is_none() {
            Close::NoMember.close(&connection);
            return Err(ClusterError::Certificate { reason: "none was shown".to_owned() });
        }
        drop(permit);
        return link::run(shared, connection).await;
    }
    let answered = tokio::time::timeout(PATIENCE, admit(&shared, &connection)).await;
    Close::Ended.close(&connection);
    answered.map_err(|_| ClusterError::Protocol { reason: "no request in time".to_owned() })?
}

/// Answers a request to join.
async fn admit(shared: &Shared, connection: &quinn::Connection) -> Result<(), ClusterError> {
    let lost = |error: &dyn std::error::Error| ClusterError::Protocol { reason: error.to_string() };
    let (mut sender, mut receiver) = connection.accept_bi().await.map_err(|error| lost(&error))?;
    let request: JoinRequest = frame::read_json(&mut receiver, frame::STRANGER).await?;
    let der = unhex(&request.request)
        .ok_or_else(|| ClusterError::Protocol { reason: "the request is not hexadecimal".to_owned() })?;
    let decision = (|| {
        let length = request.name.chars().count();
        if length > NAME {
            return Err(ClusterError::LongName { length, most: NAME });
        }
        let mut authority = shared.authority()?;
        let JoinRequest { secret, name, addresses, role, .. } = &request;
        let admission = authority.admit(secret, &der, name, addresses.clone(), *role)?;
        shared.roster.send_replace(Arc::new(authority.roster().clone()));
        Ok(admission)
    })();
    let name: String = request.name.chars().take(NAME).collect();
    let from = connection.remote_address();
    match &decision {
        Ok(_) => tracing::info!(name, %from, "a member joined"),
        Err(error) => tracing::warn!(name, %from, %error, "a machine was refused"),
    }
    frame::write_json(&mut sender, &JoinAnswer::of(decision)).await?;
    sender.finish().map_err(|error| lost(&error))?;
    // Closing earlier would throw away what is on its way.
    let _ = sender.stopped().await;
    shared.set_door()
}

/// Sends a request to join and waits for the answer.
pub(in crate::cluster) async fn ask_to_join(
    address: &str,
    token: &Token,
    request: &JoinRequest,
) -> Result<JoinAnswer, ClusterError> {
    let local = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0));
    let any = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 0));
    let endpoint = quinn::Endpoint::client(local)
        .or_else(|_| quinn::Endpoint::client(any))
        .map_err(|source| ClusterError::Listen { address: local, source })?;
    // Whoever answers is known by the token and not by a name.
    let name = "join.stickleback.internal";
    let connection = calls::connect(&endpoint, tls::joiner(token.clone())?, address, name).await?;
    let lost = |error: &dyn std::error::Error| ClusterError::Unreachable {
        address: address.to_owned(),
        reason: error.to_string(),
    };
    let (mut sender, mut receiver) = connection.open_bi().await.map_err(|error| lost(&error))?;
    frame::write_json(&mut sender, request).await?;
    sender.finish().map_err(|error| lost(&error))?;
    let answer = frame::read_json(&mut receiver, frame::CONTROL).await?;
    Close::Ended.close(&connection);
    endpoint.wait_idle().await;
    Ok(answer)
}

/// Closes the door when the last token has expired.
pub(super) async fn close_after_tokens(shared: Arc<Shared>) {
    let mut was_open = true;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Ok(is_open) = shared.authority().map(|authority| authority.open_until().is_some()) else {
            return;
        };
        if was_open
            && !is_open
            && let Err(error) = shared.set_door()
        {
            tracing::error!(%error, "strangers may still begin a handshake");
        }
        was_open = is_open;
    }
}

fn unreachable(address: SocketAddr, error: &quinn::ConnectionError) -> ClusterError {
    ClusterError::Unreachable { address: address.to_string(), reason: error.to_string() }
}
