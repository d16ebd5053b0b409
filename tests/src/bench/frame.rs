//! Frames for measuring, with right lengths and checksums.

use std::net::{IpAddr, SocketAddr};

/// Both MAC addresses of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Where the frame goes.
    pub destination: [u8; 6],
    /// Where it comes from.
    pub source: [u8; 6],
}

/// TCP flags.
pub mod flag {
    /// FIN and ACK.
    pub const FIN: u8 = 0x11;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// ACK and PSH.
    pub const DATA: u8 = 0x18;
}

/// Options of a SYN as Linux sends it: MSS 1460, SACK permitted, timestamps, no-op, window scale 7.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

/// A TCP segment; with SYN it carries the usual options, else `payload` zero bytes.
pub fn tcp(link: Link, from: SocketAddr, to: SocketAddr, flags: u8, payload: usize) -> Vec<u8> {
    let options: &[u8] = if flags & flag::SYN != 0 { &SYN_OPTIONS } else { &[] };
    let mut segment = Vec::with_capacity(64 + payload);
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    // Both sides begin at 1000, and acknowledge each other's SYN.
    let sequence: u32 = if flags & flag::SYN != 0 { 1_000 } else { 1_001 };
    let acknowledged: u32 = if flags & flag::ACK != 0 { 1_001 } else { 0 };
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.push(((20 + options.len()) as u8 / 4) << 4);
    segment.push(flags);
    segment.extend(64_240_u16.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.resize(segment.len() + payload, 0);
    ip(link, from.ip(), to.ip(), 6, segment, Some(16))
}

/// A UDP datagram of `payload` zero bytes.
pub fn udp(link: Link, from: SocketAddr, to: SocketAddr, payload: usize) -> Vec<u8> {
    udp_with(link, from, to, &vec![0; payload])
}

/// A UDP datagram.
pub fn udp_with(link: Link, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend([0; 2]);
    datagram.extend(payload);
    ip(link, from.ip(), to.ip(), 17, datagram, Some(6))
}

/// An echo request with 56 bytes of payload, as `ping` sends it.
pub fn echo(link: Link, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let v4 = from.is_ipv4();
    let mut message = vec![if v4 { 8 } else { 128 }, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.resize(64, 0);
    if v4 {
        let sum = checksum(&message, 0);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        ip(link, from, to, 1, message, None)
    } else {
        ip(link, from, to, 58, message, Some(2))
    }
}

/// Puts Ethernet and IP headers in front; `sum_at` is where the transport checksum stands.
fn ip(
    link: Link,
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    mut transport: Vec<u8>,
    sum_at: Option<usize>,
) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(32);
    for address in [from, to] {
        match address {
            IpAddr::V4(a) => addresses.extend(a.octets()),
            IpAddr::V6(a) => addresses.extend(a.octets()),
        }
    }
    if let Some(at) = sum_at {
        let pseudo = addresses.chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum::<u32>();
        let sum = checksum(&transport, pseudo + u32::from(protocol) + transport.len() as u32);
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = Vec::with_capacity(54 + transport.len());
    frame.extend(link.destination);
    frame.extend(link.source);
    if from.is_ipv4() {
        frame.extend([8, 0]);
        let mut header = vec![0x45, 0];
        header.extend((20 + transport.len() as u16).to_be_bytes());
        header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        header.extend(&addresses);
        let sum = checksum(&header, 0);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((transport.len() as u16).to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(&addresses);
    }
    frame.extend(transport);
    frame
}

/// The Internet checksum over `bytes`, on top of a sum already made.
pub fn checksum(bytes: &[u8], sum: u32) -> u16 {
    let words = bytes.chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], *b.get(1).unwrap_or(&0)])));
    let mut sum = words.fold(sum, |sum, word| sum + word);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { destination: [2; 6], source: [4; 6] };

    #[test]
    fn checksums_add_up_to_zero() {
        let frame =
            tcp(LINK, "10.0.0.1:4000".parse().unwrap(), "10.99.0.1:80".parse().unwrap(), flag::DATA, 64);
        assert_eq!(frame.len(), 14 + 20 + 20 + 64);
        assert_eq!(checksum(&frame[14..34], 0), 0);
        let pseudo: u32 = frame[26..34].chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum();
        assert_eq!(checksum(&frame[34..], pseudo + 6 + (frame.len() - 34) as u32), 0);
    }
}
