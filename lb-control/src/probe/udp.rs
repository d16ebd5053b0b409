//! A datagram and its answer.

use super::connection;
use lb_core::health::Failure;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::UdpSocket;

/// Longest answer that is looked at.
const ANSWER: usize = 2_048;

/// Sends `request`, and waits for an answer that begins with `response`.
pub(super) async fn ask(request: &[u8], response: &[u8], address: SocketAddr) -> Result<(), Failure> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.map_err(connection::own)?;
    // Nobody else's datagrams come in, and "port unreachable" does.
    socket.connect(address).await.map_err(|error| connection::meaning(&error))?;
    socket.send(request).await.map_err(|error| connection::meaning(&error))?;
    let mut answer = [0; ANSWER];
    let length = socket.recv(&mut answer).await.map_err(|error| connection::meaning(&error))?;
    if answer[..length].starts_with(response) { Ok(()) } else { Err(Failure::Body) }
}
