//! TCP connections of probes, and what errors on them mean.

use lb_core::health::Failure;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};

/// Connects. The connection ends with a reset, so that thousands of them leave nothing behind.
pub(super) async fn open(address: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(own)?;
    socket.set_zero_linger().map_err(own)?;
    socket.set_nodelay(true).map_err(own)?;
    socket.connect(address).await.map_err(|error| meaning(&error))
}

/// What this host could not do says nothing of the backend.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
pub(super) fn own(error: io::Error) -> Failure {
    Failure::Own(error.to_string())
}

/// What an error of a socket says of its other end.
pub(super) fn meaning(error: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => Failure::Refused,
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
            Failure::Cut
        }
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Failure::Unreachable,
        Kind::TimedOut => Failure::Unreachable,
        _ => Failure::Own(error.to_string()),
    }
}
