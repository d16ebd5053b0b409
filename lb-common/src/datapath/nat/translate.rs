//! Rewriting addresses and ports of a packet that goes on.

use super::super::scratch::{Packet, part};
use super::super::{Env, frame};
use crate::abi::{Addr, Be16};
use crate::packet::{Ipv4, Ipv6, Sum, Tcp, Udp, protocol};

/// Replaces source and destination, and takes one from the TTL or hop limit, which is at least 2; later fragments have no ports.
///
/// `change` is what else has changed of a TCP segment, so that its checksum is mended once.
#[inline(always)]
pub(super) fn run<E: Env>(
    env: &E,
    packet: &Packet,
    change: Sum,
    (source, source_port): (&Addr, Be16),
    (destination, destination_port): (&Addr, Be16),
) -> Option<()> {
    let l3 = packet.l3 as usize;
    let addresses = if packet.is_v4() {
        let p = frame::at(env, l3, Ipv4::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Ipv4::new(p) }.pass_on(source.v4_word(), destination.v4_word())
    } else {
        let p = frame::at(env, l3, Ipv6::LEN)?;
        // SAFETY: checked for the fixed header.
        let ip = unsafe { Ipv6::new(p) };
        ip.set_hop_limit(packet.hop_limit.wrapping_sub(1));
        ip.set_addresses(source, destination)
    };
    if packet.part == part::LATER {
        return Some(());
    }
    if packet.protocol == protocol::TCP {
        let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
        // SAFETY: checked for the fixed header.
        unsafe { Tcp::new(p) }.set_ports(source_port, destination_port, addresses.plus(change));
    } else {
        let p = frame::at(env, packet.l4 as usize, Udp::LEN)?;
        // SAFETY: checked for the header.
        unsafe { Udp::new(p) }.set_ports(source_port, destination_port, addresses);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::super::model::{Dice, Model, ones_sum};
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn address(dice: &mut Dice, v4: bool) -> Addr {
        // All-zero and all-one words are where sums go wrong.
        let word = |dice: &mut Dice| [0, u32::MAX, dice.roll() as u32][dice.below(3)];
        if v4 {
            return Ipv4Addr::from(word(dice)).into();
        }
        let words = [0x2001_0db8, word(dice), word(dice), word(dice)].map(u128::from);
        Ipv6Addr::from(words[0] << 96 | words[1] << 64 | words[2] << 32 | words[3]).into()
    }

    fn packet(dice: &mut Dice) -> (Packet, Vec<u8>) {
        let (v4, tcp) = (dice.below(2) == 0, dice.below(2) == 0);
        let (header, l4_len) =
            (if v4 { Ipv4::LEN } else { Ipv6::LEN }, if tcp { Tcp::LEN } else { Udp::LEN });
        let (source, destination) = (address(dice, v4), address(dice, v4));
        let mut bytes = dice.bytes(14 + header + l4_len + 5);
        let ip = &mut bytes[14..];
        for (i, address) in [&source, &destination].into_iter().enumerate() {
            let raw: Vec<u8> = address.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let (at, raw) = if v4 { (12 + 4 * i, &raw[12..]) } else { (8 + 16 * i, &raw[..]) };
            ip[at..at + raw.len()].copy_from_slice(raw);
        }
        let ttl = if v4 { 8 } else { 7 };
        ip[ttl] = ip[ttl].max(3);
        if v4 {
            ip[0] = 0x45;
            ip[10..12].fill(0);
            let sum = 0xffff - ones_sum(&ip[..header]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        if dice.below(4) == 0 {
            let at = header + if tcp { Tcp::CHECKSUM } else { Udp::CHECKSUM };
            ip[at..at + 2].fill(0);
        }
        let packet = Packet {
            source,
            destination,
            source_port: Be16(u16::from_ne_bytes([ip[header], ip[header + 1]])),
            destination_port: Be16(u16::from_ne_bytes([ip[header + 2], ip[header + 3]])),
            l3: 14,
            l4: (14 + header) as u16,
            protocol: if tcp { protocol::TCP } else { protocol::UDP },
            hop_limit: ip[ttl],
            ..Packet::default()
        };
        (packet, bytes)
    }

    #[test]
    fn there_and_back_only_the_hop_limit_has_changed() {
        let mut dice = Dice(11);
        let model = Model::new(0, 0);
        for _ in 0..50_000 {
            let (packet, before) = packet(&mut dice);
            let v4 = packet.is_v4();
            model.set_frame(&before);
            let (source, destination) = (address(&mut dice, v4), address(&mut dice, v4));
            let ports = (Be16(dice.roll() as u16), Be16(dice.roll() as u16));
            run(&model, &packet, Sum::ZERO, (&source, ports.0), (&destination, ports.1)).unwrap();
            let back = Packet { source, destination, hop_limit: packet.hop_limit - 1, ..packet };
            let to = (&packet.destination, packet.destination_port);
            run(&model, &back, Sum::ZERO, (&packet.source, packet.source_port), to).unwrap();
            let mut after = model.frame();
            let (ttl, l4) = (14 + if v4 { 8 } else { 7 }, packet.l4 as usize);
            assert_eq!(after[ttl], before[ttl] - 2);
            after[ttl] = before[ttl];
            if v4 {
                assert_eq!(ones_sum(&model.frame()[14..l4]), 0, "the header's checksum is right");
                after[24..26].copy_from_slice(&before[24..26]);
            }
            // 0 and 0xffff are the same sum, but to UDP 0 says that there is none.
            let udp = packet.protocol == protocol::UDP;
            let at = l4 + if udp { Udp::CHECKSUM } else { Tcp::CHECKSUM };
            let (old, new) = (&before[at..at + 2], after[at..at + 2].to_vec());
            assert_eq!(ones_sum(old), ones_sum(&new), "{packet:?}");
            assert!(!udp || (old == [0, 0]) == (new == [0, 0]), "{packet:?}");
            after[at..at + 2].copy_from_slice(&before[at..at + 2]);
            assert_eq!(after, before);
        }
    }
}
