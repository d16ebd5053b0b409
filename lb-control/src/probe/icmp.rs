//! Pings.

use super::path::Target;
use super::{Unusable, connection};
use lb_core::health::Failure;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::unix::AsyncFd;

/// Bytes behind the header of an echo request.
const PAYLOAD: &[u8; 8] = b"sticklbk";
/// Header and payload.
const LENGTH: usize = 16;

/// Tells questions of this process apart, where the kernel does not.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Whether this process may ping; other obstacles may pass.
pub(super) fn allowed() -> Result<(), Unusable> {
    // What holds for IPv4 holds for IPv6.
    match socket(Ipv4Addr::UNSPECIFIED.into()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Unusable::Icmp { reason: error.to_string() })
        }
        Err(_) | Ok(_) => Ok(()),
    }
}

/// Asks an address on no particular way.
pub(crate) async fn ping(address: IpAddr) -> Result<(), Failure> {
    ask(&SocketAddr::new(address, 0).into()).await
}

/// Sends an echo request and waits for its reply.
pub(super) async fn ask(target: &Target) -> Result<(), Failure> {
    let address = target.address.ip();
    let (socket, is_raw) = socket(address).map_err(connection::own)?;
    socket.set_nonblocking(true).map_err(connection::own)?;
    socket.connect(&SocketAddr::new(address, 0).into()).map_err(|error| connection::meaning(&error))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let request = request(address, number);
    target.mark(&socket)?;
    // A ping socket has a number of its own for the first half, as its port.
    let own = if is_raw { None } else { socket.local_addr().ok().and_then(|own| own.as_socket()) };
    let id = own.map_or((number >> 16) as u16, |own| own.port());
    let protocol = if address.is_ipv4() { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
    // SAFETY: the socket owns its descriptor, which stays open and the same for as long as it lives.
    let socket = unsafe { AsyncFd::register(socket) }.map_err(|error| connection::own(error.into()))?;
    loop {
        let mut guard = socket.writable().await.map_err(connection::own)?;
        match guard.try_io(|socket| socket.get_ref().send(&request)) {
            Ok(sent) => {
                sent.map_err(|error| connection::meaning(&error))?;
                break;
            }
            Err(_would_block) => {}
        }
    }
    let mut buffer = [0; 256];
    loop {
        let mut guard = socket.readable().await.map_err(connection::own)?;
        let length = match guard.try_io(|socket| socket.get_ref().read(&mut buffer)) {
            Ok(length) => length.map_err(|error| connection::meaning(&error))?,
            Err(_would_block) => continue,
        };
        if is_reply(address, is_raw, number, &buffer[..length]) {
            return target.confirm(protocol, id, 0);
        }
    }
}

/// A socket for pings, which the kernel may allow to everybody, else a raw one, which takes `CAP_NET_RAW`.
fn socket(address: IpAddr) -> io::Result<(Socket, bool)> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => Ok((socket, false)),
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied) => {
            Socket::new(domain, Type::RAW, Some(protocol)).map(|socket| (socket, true))
        }
        Err(error) => Err(error),
    }
}

fn request(address: IpAddr, number: u32) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = if address.is_ipv4() { 8 } else { 128 };
    packet[4..8].copy_from_slice(&number.to_be_bytes());
    packet[8..].copy_from_slice(PAYLOAD);
    // The kernel makes the checksum of ICMPv6, which covers addresses, and that of ping sockets.
    if address.is_ipv4() {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn checksum(packet: &[u8; LENGTH]) -> u16 {
    let words = packet.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Whether it answers the request with that number. Ping sockets have numbers of their own for the first half of it, and get their own
/// replies only.
fn is_reply(address: IpAddr, is_raw: bool, number: u32, packet: &[u8]) -> bool {
    let begins = match packet.first() {
        Some(first) if is_raw && address.is_ipv4() => usize::from(first & 0x0f) * 4,
        Some(_) | None => 0,
    };
    let Some(message) = packet.get(begins..).filter(|message| message.len() >= LENGTH) else { return false };
    let number = number.to_be_bytes();
    let reply = if address.is_ipv4() { 0 } else { 129 };
    message[0] == reply
        && message[6..8] == number[2..]
        && (!is_raw || message[4..6] == number[..2])
        && message[8..LENGTH] == PAYLOAD[..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_ipv4_sums_up() {
        let packet = request(IpAddr::from([127, 0, 0, 1]), 0x1234_5678);
        let words = packet.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn only_the_reply_to_it_is_one() {
        let four = IpAddr::from([127, 0, 0, 1]);
        let mut reply = request(four, 7);
        assert!(!is_reply(four, false, 7, &reply), "a request");
        reply[0] = 0;
        assert!(is_reply(four, false, 7, &reply) && !is_reply(four, false, 8, &reply));
        assert!(!is_reply(four, false, 7, &reply[..15]) && !is_reply(four, false, 7, &[]));
        let mut raw = vec![0x46; 24];
        raw.extend(reply);
        assert!(is_reply(four, true, 7, &raw) && !is_reply(four, true, 0x0001_0007, &raw));
    }
}
