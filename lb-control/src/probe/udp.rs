//! A datagram and its answer.

use super::connection;
use super::path::Target;
use lb_core::health::Failure;
use tokio::net::UdpSocket;

/// Longest answer that is looked at.
const ANSWER: usize = 2_048;

/// Sends `request`, and waits for an answer that begins with `response`.
pub(super) async fn ask(request: &[u8], response: &[u8], target: &Target) -> Result<(), Failure> {
    let address = target.address;
    let socket = UdpSocket::bind(connection::any(address)).await.map_err(connection::own)?;
    target.mark(&socket)?;
    let own_port = socket.local_addr().map_err(connection::own)?.port();
    // Nobody else's datagrams come in, and "port unreachable" does.
    socket.connect(address).await.map_err(|error| connection::meaning(&error))?;
    socket.send(request).await.map_err(|error| connection::meaning(&error))?;
    let mut answer = [0; ANSWER];
    let length = socket.recv(&mut answer).await.map_err(|error| connection::meaning(&error))?;
    target.confirm(libc::IPPROTO_UDP, own_port, address.port())?;
    if answer[..length].starts_with(response) { Ok(()) } else { Err(Failure::Body) }
}
