//! Frames in words, for people who read why a case failed.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// One line a header, from the outside in.
pub fn dissect(frame: &[u8]) -> String {
    let mut out = String::new();
    let mut at = 12;
    let _ = write!(out, "{} bytes: {} <- {}", frame.len(), hex(frame, 0, 6), hex(frame, 6, 6));
    while let Some(tag @ (0x8100 | 0x88a8)) = word(frame, at) {
        let _ = write!(out, ", tag {tag:#06x}/{:#06x}", word(frame, at + 2).unwrap_or(0));
        at += 4;
    }
    let kind = word(frame, at).unwrap_or(0);
    let _ = write!(out, ", type {kind:#06x}");
    let rest = frame.get(at + 2..).unwrap_or(&[]);
    match kind {
        0x0800 => ipv4(rest, &mut out),
        0x86dd => ipv6(rest, &mut out),
        _ => {}
    }
    out
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn long(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

fn hex(bytes: &[u8], at: usize, length: usize) -> String {
    bytes.iter().skip(at).take(length).map(|b| format!("{b:02x}")).collect()
}

fn ipv4(packet: &[u8], out: &mut String) {
    if packet.len() < 20 {
        let _ = write!(out, "\n    IPv4 cut short: {}", hex(packet, 0, packet.len()));
        return;
    }
    let address = |at: usize| Ipv4Addr::from(long(packet, at));
    let header = usize::from(packet[0] & 15) * 4;
    let (total, fragment) = (word(packet, 2).unwrap_or(0), word(packet, 6).unwrap_or(0));
    let _ = write!(
        out,
        "\n    IPv4 {} -> {}: header {header}, total {total}, tos {:#04x}, id {:#06x}, fragment {fragment:#06x}, ttl {}, protocol {}, sum {:#06x}",
        address(12),
        address(16),
        packet[1],
        word(packet, 4).unwrap_or(0),
        packet[8],
        packet[9],
        word(packet, 10).unwrap_or(0),
    );
    if fragment & 0x1fff == 0 {
        transport(packet[9], packet.get(header..).unwrap_or(&[]), out);
    }
}

fn ipv6(packet: &[u8], out: &mut String) {
    if packet.len() < 40 {
        let _ = write!(out, "\n    IPv6 cut short: {}", hex(packet, 0, packet.len()));
        return;
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&packet[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    let first = long(packet, 0);
    let _ = write!(
        out,
        "\n    IPv6 {} -> {}: class {:#04x}, label {:#07x}, payload {}, next {}, hop limit {}",
        address(8),
        address(24),
        first >> 20 & 0xff,
        first & 0xf_ffff,
        word(packet, 4).unwrap_or(0),
        packet[6],
        packet[7],
    );
    let (mut protocol, mut at) = (packet[6], 40);
    while let 0 | 43 | 44 | 60 = protocol {
        let Some(next) = packet.get(at).copied() else { return };
        let size =
            if protocol == 44 { 8 } else { 8 + 8 * usize::from(packet.get(at + 1).copied().unwrap_or(0)) };
        let _ = write!(out, "\n      extension {protocol}: {}", hex(packet, at, size.min(24)));
        if protocol == 44 && word(packet, at + 2).unwrap_or(0) >> 3 != 0 {
            return;
        }
        (protocol, at) = (next, at + size);
    }
    transport(protocol, packet.get(at..).unwrap_or(&[]), out);
}

fn transport(protocol: u8, body: &[u8], out: &mut String) {
    let ports = || (word(body, 0).unwrap_or(0), word(body, 2).unwrap_or(0));
    match protocol {
        6 => {
            let (source, destination) = ports();
            let _ = write!(
                out,
                "\n      TCP {source} -> {destination}: seq {}, ack {}, offset/flags {:#06x}, window {}, sum {:#06x}, then {}",
                long(body, 4),
                long(body, 8),
                word(body, 12).unwrap_or(0),
                word(body, 14).unwrap_or(0),
                word(body, 16).unwrap_or(0),
                hex(body, 20, 24),
            );
        }
        17 => {
            let (source, destination) = ports();
            let _ = write!(
                out,
                "\n      UDP {source} -> {destination}: length {}, sum {:#06x}, then {}",
                word(body, 4).unwrap_or(0),
                word(body, 6).unwrap_or(0),
                hex(body, 8, 24),
            );
            if word(body, 6) == Some(0) && body.get(8) == Some(&0x45) {
                ipv4(&body[8..], out);
            } else if word(body, 6) == Some(0) && body.get(8).is_some_and(|b| b >> 4 == 6) {
                ipv6(&body[8..], out);
            }
        }
        1 | 58 => {
            let _ = write!(
                out,
                "\n      ICMP {}/{}: sum {:#06x}, word {:#010x}",
                body.first().unwrap_or(&0),
                body.get(1).unwrap_or(&0),
                word(body, 2).unwrap_or(0),
                long(body, 4),
            );
            match body.get(8).map(|b| b >> 4) {
                Some(4) if protocol == 1 => ipv4(&body[8..], out),
                Some(6) if protocol == 58 => ipv6(&body[8..], out),
                _ => {}
            }
        }
        4 => ipv4(body, out),
        41 => ipv6(body, out),
        _ => {
            let _ = write!(out, "\n      {}", hex(body, 0, 32));
        }
    }
}
