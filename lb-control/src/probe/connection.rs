//! TCP connections of probes, and what errors on them mean.

use super::path::Target;
use lb_core::health::Failure;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream};

/// Connects. The connection ends with a reset, so that thousands of them leave nothing behind.
pub(super) async fn open(target: &Target) -> Result<TcpStream, Failure> {
    let address = target.address;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(own)?;
    socket.set_zero_linger().map_err(own)?;
    socket.set_nodelay(true).map_err(own)?;
    if target.path.is_none() {
        return socket.connect(address).await.map_err(|error| meaning(&error));
    }
    target.mark(&socket)?;
    // A port that no other probe has, since all backends of a service look alike on their way back.
    socket.bind(any(address)).map_err(own)?;
    let own_port = socket.local_addr().map_err(own)?.port();
    let result = socket.connect(address).await.map_err(|error| meaning(&error));
    if !matches!(result, Err(Failure::Unreachable | Failure::Own(_))) {
        target.confirm(libc::IPPROTO_TCP, own_port, address.port())?;
    }
    result
}

/// Any port of any address of that family.
pub(super) fn any(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
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
