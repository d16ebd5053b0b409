//! Looks at the clocks of backends whose timestamps carry numbers ([`lb_core::stamp`]), by connections of its own.
//!
//! No call tells what the other end's timestamps say, so a raw socket sees the SYN-ACK that the kernel gets. By default Linux adds an offset of
//! its own for each client (newer ones for each connection), and such a clock is none: two connections from two addresses of this host must see the same.

use super::connection::{any, meaning, own};
use crate::net::addresses;
use lb_core::health::Failure;
use lb_core::stamp::{Clock, Reading, agree};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpSocket;

/// Other addresses of this host that are tried.
const OTHERS: usize = 4;
/// Packets of one backend that are looked through for the SYN-ACK.
const PACKETS: usize = 256;
/// SYN and ACK.
const SYN_ACK: u8 = 0x12;

/// Clocks of backends as probes saw them, by the address that packets go to.
#[derive(Clone, Default, Debug)]
pub struct Clocks(Arc<Mutex<HashMap<SocketAddr, Clock>>>);

impl Clocks {
    /// By how many milliseconds, modulo 2^32, the clock there is ahead of the wall clock; `None` while that is not known.
    pub fn ahead(&self, address: SocketAddr) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address)?.ahead()
    }

    /// Looks at the clock there; one that cannot carry a number is a failure.
    pub(super) async fn look(&self, address: SocketAddr, timeout: Duration) -> Result<(), Failure> {
        let seen = tokio::time::timeout(timeout, twice(address, timeout / 2)).await;
        let ahead = seen.unwrap_or(Err(Failure::Silent(timeout)))?;
        match self.see(address, ahead, wall()) {
            Reading::Steady => Ok(()),
            Reading::Moved => Err(Failure::Timestamps(
                "its clock does not stand where it should by now: it was set, its host has started again, or it does not count milliseconds",
            )),
        }
    }

    fn see(&self, address: SocketAddr, ahead: u32, at: Duration) -> Reading {
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match clocks.get_mut(&address) {
            Some(clock) => clock.see(ahead, at),
            None => {
                clocks.insert(address, Clock::new(ahead, at));
                Reading::Steady
            }
        }
    }
}

/// What two addresses of this host see, if it is the same.
async fn twice(address: SocketAddr, patience: Duration) -> Result<u32, Failure> {
    let (from, ahead) = look_from(address, None).await?;
    let all = addresses::global().await.map_err(|error| Failure::Own(error.to_string()))?;
    let others = all.into_iter().map(|own| own.address);
    let others = others.filter(|other| *other != from && other.is_ipv4() == address.is_ipv4());
    for other in others.take(OTHERS) {
        // Not every address of this host need be one that the backend finds back to.
        match tokio::time::timeout(patience, look_from(address, Some(other))).await {
            Ok(Ok((_, again))) if agree(ahead, again) => return Ok(ahead),
            Ok(Ok(_)) => {
                return Err(Failure::Timestamps(
                    "every client sees another clock: set the sysctl net.ipv4.tcp_timestamps=2 there",
                ));
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(Failure::Own(format!(
        "whether each client of {} sees another clock is told by a second address of this host that it answers to: give it one",
        address.ip()
    )))
}

/// The address of this host that asks, and by how much the clock there is ahead of the wall clock.
async fn look_from(address: SocketAddr, from: Option<IpAddr>) -> Result<(IpAddr, u32), Failure> {
    let here = from.map_or_else(|| any(address), |from| SocketAddr::new(from, 0));
    let mut seen = tap(here, address).map_err(own)?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(own)?;
    socket.set_zero_linger().map_err(own)?;
    socket.bind(here).map_err(own)?;
    let stream = socket.connect(address).await.map_err(|error| meaning(&error))?;
    let here = stream.local_addr().map_err(own)?;
    let now = wall().as_millis() as u32;
    let mut packet = [0; 256];
    for _ in 0..PACKETS {
        // What the kernel has taken the raw socket had before.
        let Ok(length) = seen.read(&mut packet) else { break };
        if let Some(value) = greeting(address, here.port(), &packet[..length]) {
            let value = value.ok_or(Failure::Timestamps(
                "it sends none: set the sysctl net.ipv4.tcp_timestamps=2 there",
            ))?;
            return Ok((here.ip(), value.wrapping_sub(now)));
        }
    }
    Err(Failure::Own(format!("the answer of {address} was not seen")))
}

/// Sees every TCP segment that comes from an address to one of ours.
fn tap(here: SocketAddr, address: SocketAddr) -> io::Result<Socket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Else a raw socket that is connected hears what comes to the address that it would ask from.
    socket.bind(&here.into())?;
    socket.connect(&SocketAddr::new(address.ip(), 0).into())?;
    Ok(socket)
}

/// The timestamp of a SYN-ACK to that port, as a raw socket gives it: behind the header of IPv4, that of IPv6 is left out. `None` = it is another packet.
fn greeting(from: SocketAddr, port: u16, packet: &[u8]) -> Option<Option<u32>> {
    let begins = if from.is_ipv4() { usize::from(packet.first()? & 0x0f) * 4 } else { 0 };
    let segment = packet.get(begins..)?;
    let length = usize::from(segment.get(12)? >> 4) * 4;
    let ports = [from.port().to_be_bytes(), port.to_be_bytes()].concat();
    if segment[..4] != ports[..] || segment.get(13)? & SYN_ACK != SYN_ACK {
        return None;
    }
    Some(timestamp(segment.get(20..length)?))
}

/// The value of the timestamps among TCP options.
fn timestamp(mut options: &[u8]) -> Option<u32> {
    loop {
        options = match *options {
            [] | [0, ..] => return None,
            [1, ref rest @ ..] => rest,
            [8, 10, a, b, c, d, ..] => return Some(u32::from_be_bytes([a, b, c, d])),
            [_, length, ..] if length >= 2 => options.get(length.into()..)?,
            [..] => return None,
        };
    }
}

/// The wall clock.
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_found_among_other_options() {
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7];
        let mac = [2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 4, 2, 0, 0];
        assert_eq!(timestamp(&linux), Some(0x0102_0304));
        assert_eq!(timestamp(&mac), Some(0x0102_0304));
        for none in [
            &[][..],
            &[0, 8, 10, 1, 2, 3, 4],
            &[2, 0, 8, 10, 1, 2, 3, 4],
            &[8, 9, 1, 2, 3, 4],
            &[3, 30],
            &[5],
        ] {
            assert_eq!(timestamp(none), None, "{none:?}");
        }
    }

    #[test]
    fn only_a_syn_ack_of_that_connection_is_one() {
        let from = SocketAddr::from(([10, 0, 0, 2], 80));
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet.extend([0, 80, 0x30, 0x39, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, SYN_ACK, 0, 0, 0, 0, 0, 0]);
        packet.extend([1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0]);
        assert_eq!(greeting(from, 12_345, &packet), Some(Some(9)));
        assert_eq!(greeting(from, 12_346, &packet), None);
        let six = SocketAddr::new("fd00::2".parse().expect("an address"), 80);
        assert_eq!(greeting(six, 12_345, &packet[20..]), Some(Some(9)), "without a header of IPv6");
        for end in 0..packet.len() {
            assert_eq!(greeting(from, 12_345, &packet[..end]), None, "cut at {end}");
        }
        packet[33] = 0x10;
        assert_eq!(greeting(from, 12_345, &packet), None, "no SYN");
    }

    #[tokio::test]
    async fn the_clock_of_a_server_that_answers_is_seen_from_every_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (from, _) = look_from(address, None).await.expect("root may look");
        assert_eq!(from, address.ip());
        let other = IpAddr::from([127, 0, 0, 9]);
        let (from, _) = look_from(address, Some(other)).await.expect("root may look");
        assert_eq!(from, other);
    }
}
