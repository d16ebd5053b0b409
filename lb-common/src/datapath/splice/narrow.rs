//! Ways to backends that take less than their first hop does.

use super::hold;
use crate::abi::Outcome;
use crate::datapath::flow::Live;
use crate::datapath::scratch::Packet;
use crate::datapath::{Env, Verdict, count, frame};
use crate::packet::{Icmp, Ipv4, Ipv6, Tcp, get, icmp4, icmp6};

/// Every way takes segments of this size (RFC 9293 section 3.7.1).
const LEAST_V4: u32 = 536;
/// The same over IPv6 (RFC 8200 section 5).
const LEAST_V6: u32 = 1_220;

/// A router's error about a segment to a backend that has yet to get what is held.
///
/// Nobody but the balancer can send those bytes in smaller segments. Other errors concern nobody.
#[inline(never)]
pub(crate) fn run<E: Env>(env: &E, packet: &Packet, quoted: &Packet, live: &Live) -> Verdict {
    let outcome = match limit(env, packet) {
        0 => Outcome::IcmpIgnored,
        mss if lower(env, quoted, live, mss as u16) => Outcome::Swallowed,
        _ => Outcome::IcmpIgnored,
    };
    count::end(env, outcome)
}

/// The size of segments that fits the way; 0 = the error is another.
#[inline(always)]
fn limit<E: Env>(env: &E, packet: &Packet) -> u32 {
    let Some(p) = frame::at(env, packet.l4 as usize, Icmp::LEN) else { return 0 };
    // SAFETY: checked for the header.
    let (kind, code, word): (u8, u8, u32) = unsafe { (get(p), get(p.add(1)), get(p.add(4))) };
    let word = u32::from_be(word);
    let v4 = packet.is_v4();
    let (mtu, header, least) = if v4 && kind == icmp4::UNREACHABLE && code == icmp4::FRAGMENTATION_NEEDED {
        (word & 0xffff, Ipv4::LEN, LEAST_V4)
    } else if !v4 && kind == icmp6::TOO_BIG {
        (word, Ipv6::LEN, LEAST_V6)
    } else {
        return 0;
    };
    let mss = mtu.saturating_sub((header + Tcp::LEN) as u32);
    if mss < least {
        least
    } else if mss > 0xffff {
        0xffff
    } else {
        mss
    }
}

/// Makes the hold's segments no larger than that, if the quoted one carried bytes of it.
#[inline(always)]
fn lower<E: Env>(env: &E, quoted: &Packet, live: &Live, mss: u16) -> bool {
    let Some(p) = frame::at(env, quoted.l4 as usize, 8) else { return false };
    // SAFETY: checked for eight bytes.
    let sequence = u32::from_be(unsafe { get(p.add(4)) });
    let flow = live.flow();
    let Some(mut held) = hold::lock(env, flow.hold, live.reference) else { return false };
    let hold = held.get_mut();
    let position = sequence.wrapping_sub(flow.start).wrapping_add(hold.front);
    let is_ours = position < hold.sent;
    if is_ours && mss < hold.mss {
        hold.mss = mss;
        // What was too large is sent anew, bit by bit.
        hold.sent = hold.acknowledged;
    }
    held.unlock(env);
    is_ours
}
