//! A datagram and its answer.

use super::connection;
use super::path::Target;
use lb_core::health::Failure;
use std::io;
use std::os::fd::AsRawFd as _;
use tokio::net::UdpSocket;

/// Longest answer that is looked at.
const ANSWER: usize = 2_048;

/// Sends `request`, and waits for an answer that begins with `response`.
pub(super) async fn ask(request: &[u8], response: &[u8], target: &Target) -> Result<(), Failure> {
    let address = target.address;
    let socket = UdpSocket::bind(connection::any(address)).await.map_err(connection::own)?;
    target.mark(&socket)?;
    if target.path.is_some() && address.is_ipv6() {
        // An answer that was of IPv4 on its way may come without one.
        take_without_checksum(&socket).map_err(connection::own)?;
    }
    let own_port = socket.local_addr().map_err(connection::own)?.port();
    // Nobody else's datagrams come in, and "port unreachable" does.
    socket.connect(address).await.map_err(|error| connection::meaning(&error))?;
    socket.send(request).await.map_err(|error| connection::meaning(&error))?;
    let mut answer = [0; ANSWER];
    let length = socket.recv(&mut answer).await.map_err(|error| connection::meaning(&error))?;
    target.confirm(libc::IPPROTO_UDP, own_port, address.port())?;
    if answer[..length].starts_with(response) { Ok(()) } else { Err(Failure::Body) }
}

/// Lets a socket of IPv6 take datagrams without a checksum.
fn take_without_checksum(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and as much is read as is there.
    let done = unsafe {
        let (value, length) = ((&raw const on).cast(), size_of::<libc::c_int>() as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, value, length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
