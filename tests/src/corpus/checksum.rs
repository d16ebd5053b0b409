//! Every checksum of a frame, recomputed from the bytes alone.

use std::fmt;

/// A checksum that is not what the bytes say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Which checksum.
    pub what: &'static str,
    /// What stands there.
    pub found: u16,
    /// What the sum over everything came to; 0 or 0xffff would be right.
    pub sum: u16,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrong {} checksum {:#06x} (sum {:#06x})", self.what, self.found, self.sum)
    }
}

/// Checks the checksums of an Ethernet frame: IPv4, TCP, UDP, ICMP and ICMPv6, in tunnels too.
///
/// What cannot be checked (fragments, cut packets, other protocols) is not a problem.
pub fn check(frame: &[u8]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut at = 12;
    while let Some(0x8100 | 0x88a8) = word(frame, at) {
        at += 4;
    }
    match word(frame, at) {
        Some(0x0800) => ipv4(&frame[at + 2..], &mut problems),
        Some(0x86dd) => ipv6(&frame[at + 2..], &mut problems),
        _ => {}
    }
    problems
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// One's complement sum, not inverted.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    u16::try_from(total).unwrap_or(u16::MAX)
}

fn expect(what: &'static str, found: Option<u16>, parts: &[&[u8]], problems: &mut Vec<Problem>) {
    let Some(found) = found else { return };
    let sum = sum(parts);
    if sum != 0xffff {
        problems.push(Problem { what, found, sum });
    }
}

fn ipv4(packet: &[u8], problems: &mut Vec<Problem>) {
    let Some(first) = packet.first() else { return };
    let header = usize::from(first & 15) * 4;
    let total = usize::from(word(packet, 2).unwrap_or(0));
    if first >> 4 != 4 || header < 20 || total < header || total > packet.len() {
        return;
    }
    expect("IPv4", word(packet, 10), &[&packet[..header]], problems);
    if word(packet, 6).unwrap_or(0) & 0x3fff != 0 {
        return;
    }
    let protocol = packet[9];
    transport(protocol, &packet[12..20], &packet[header..total], false, problems);
}

fn ipv6(packet: &[u8], problems: &mut Vec<Problem>) {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return;
    }
    let end = 40 + usize::from(word(packet, 4).unwrap_or(0));
    if end > packet.len() {
        return;
    }
    let (mut protocol, mut at) = (packet[6], 40);
    loop {
        let Some(next) = packet[..end].get(at).copied() else { return };
        let size = match protocol {
            0 | 43 | 60 => 8 + 8 * usize::from(packet[..end].get(at + 1).copied().unwrap_or(0)),
            44 if word(&packet[..end], at + 2).is_some_and(|word| word & 0xfff9 == 0) => 8,
            44 => return,
            _ => break,
        };
        (protocol, at) = (next, at + size);
    }
    if at <= end {
        transport(protocol, &packet[8..40], &packet[at..end], true, problems);
    }
}

fn transport(protocol: u8, addresses: &[u8], body: &[u8], v6: bool, problems: &mut Vec<Problem>) {
    let pseudo = |length: usize| {
        let [_, _, high, low] = u32::try_from(length).unwrap_or(0).to_be_bytes();
        [0, 0, high, low, 0, protocol]
    };
    match protocol {
        6 if body.len() >= 20 => {
            expect("TCP", word(body, 16), &[addresses, &pseudo(body.len()), body], problems);
        }
        17 if body.len() >= 8 => {
            let length = usize::from(word(body, 4).unwrap_or(0));
            if word(body, 6) == Some(0) {
                tunnelled(&body[8..], problems);
            } else if (8..=body.len()).contains(&length) {
                expect("UDP", word(body, 6), &[addresses, &pseudo(length), &body[..length]], problems);
            }
        }
        1 if !v6 && body.len() >= 8 => expect("ICMP", word(body, 2), &[body], problems),
        58 if v6 && body.len() >= 8 => {
            expect("ICMPv6", word(body, 2), &[addresses, &pseudo(body.len()), body], problems);
        }
        4 => ipv4(body, problems),
        41 => ipv6(body, problems),
        _ => {}
    }
}

/// What looks like an IP packet behind a UDP header without checksum.
fn tunnelled(body: &[u8], problems: &mut Vec<Problem>) {
    match body.first().map(|first| first >> 4) {
        Some(4) => ipv4(body, problems),
        Some(6) => ipv6(body, problems),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header as RFC 791 describes it, with a checksum computed by hand.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x14, 0x00, 0x00, 0x40, 0x00, 0x40, 0xfd, 0xb8, 0x3c, 0xc0, 0x00, 0x02, 0x01, 0xc0,
        0x00, 0x02, 0x02,
    ];

    fn frame(ip: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend(ip);
        frame
    }

    #[test]
    fn a_flipped_bit_is_a_problem() {
        let mut header = HEADER;
        let value = !sum(&[&header[..10], &header[12..]]);
        header[10..12].copy_from_slice(&value.to_be_bytes());
        assert_eq!(check(&frame(&header)), []);
        header[15] ^= 1;
        assert_eq!(check(&frame(&header)).len(), 1);
    }

    #[test]
    fn what_is_no_packet_is_no_problem() {
        for length in 0..60 {
            assert_eq!(check(&vec![0x45; length]), []);
        }
    }
}
