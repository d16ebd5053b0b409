//! The program that answers a client's SYN with a SYN cookie (RFC 4987 section 3.6). Nothing is kept.

use super::super::answer::{ip_len, is_answerable, resize, send_back, turn_round, write_ip_at};
use super::super::scratch::{Packet, part};
use super::super::{Env, Verdict, count, flow, frame};
use super::options;
use crate::abi::{AffinityRules, FlowState, FlowWord, Outcome};
use crate::packet::{Sum, Tcp, TcpHeader, flag, protocol, put};
use crate::splice::{Offer, SCALE, SynCookie, epoch, option, wanted};

/// Words of options at most.
const MAX_WORDS: usize = 10;

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let (packet, service_slot) = unsafe { (&(*scratch).packet, (*scratch).service_slot) };
    let Some(rules) = env.affinity_rules(service_slot) else { return count::end(env, Outcome::NoBackend) };
    if packet.part != part::WHOLE {
        return count::end(env, Outcome::Fragment);
    }
    if !is_answerable(env, &packet.source) {
        return count::end(env, Outcome::Malformed);
    }
    match answer(env, packet, rules) {
        Some(()) => send_back(env, settings, packet, Outcome::SynAnswered),
        None => count::end(env, Outcome::NoRoom),
    }
}

/// Notes in the flow of the same 5-tuple that its client may be about to begin anew.
///
/// Anybody can send a SYN, so nothing else changes: a segment that follows it and proves the new handshake does that.
#[inline(always)]
fn reopen<E: Env>(env: &E, packet: &Packet, isn: u32, now: u64) {
    if let Some(live) = flow::find(env, &packet.flow_key(), now)
        && live.word.state() != FlowState::Claimed
        && !live.reference.is_reply()
    {
        // SAFETY: from the environment. In a recycled record it means nothing: new flows have no such flag.
        unsafe { (&raw mut (*live.record).syn).write_volatile(isn) };
        live.change(env, live.word.with(FlowWord::REOPENED));
    }
}

/// The segment size that clients are told.
#[inline(always)]
pub(crate) const fn announced(rules: &AffinityRules, v4: bool) -> u16 {
    if v4 { rules.mss_v4 } else { rules.mss_v6 }
}

/// Turns the SYN into its SYN-ACK: as long a TCP header, no data, no IP options.
#[inline(always)]
fn answer<E: Env>(env: &E, packet: &Packet, rules: &AffinityRules) -> Option<()> {
    let secrets = env.secrets()?;
    let v4 = packet.is_v4();
    let says = options::read(env, packet);
    let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
    // SAFETY: checked for the fixed header.
    let tcp = unsafe { Tcp::new(p) };
    let (isn, header) = (tcp.sequence(), tcp.header_len());
    let now = env.now();
    reopen(env, packet, isn, now);
    let offer = Offer::new(v4, says.mss(), says.scale(), says.sack());
    let cookie = SynCookie::new(secrets, epoch(secrets, now), super::tuple(packet), offer, isn);
    let mss = announced(rules, v4);
    // Each option that the client sent took enough room for the word of ours.
    let mut words = [option::PADDING.to_be(); 3];
    if offer.scales() {
        words[0] = option::scale(SCALE).to_be();
    }
    if says.sack() {
        words[2] = words[1];
        words[1] = words[0];
        words[0] = option::SACK_PERMITTED.to_be();
    }
    if says.mss() != 0 {
        words[2] = words[1];
        words[1] = words[0];
        words[0] = option::mss(mss).to_be();
    }
    turn_round(env)?;
    let l3 = packet.l3 as usize;
    let l4 = l3 + ip_len(v4);
    resize(env, l4 + header)?;
    let pseudo = write_ip_at(env, l3, (&packet.destination, &packet.source), header as u16, protocol::TCP)?;
    let sum = write_options(env, l4 + Tcp::LEN, (header - Tcp::LEN) / 4, &words)?;
    let p = frame::at(env, l4, Tcp::LEN)?;
    let written = TcpHeader {
        source_port: packet.destination_port,
        destination_port: packet.source_port,
        sequence: cookie.0,
        acknowledgement: isn.wrapping_add(1),
        window: wanted(mss, false),
        flags: flag::SYN | flag::ACK,
        len: header as u8,
    };
    // SAFETY: checked for the fixed header.
    unsafe { Tcp::new(p) }.write_header(&written, pseudo.plus(sum));
    Some(())
}

/// Writes `count` words of options: the first three, then padding. Answers their sum.
#[inline(always)]
fn write_options<E: Env>(env: &E, at: usize, count: usize, words: &[u32; 3]) -> Option<Sum> {
    let mut sum = Sum::ZERO;
    let mut i = 0;
    while i < MAX_WORDS {
        if i >= count {
            break;
        }
        let word = if i < 3 { words[i] } else { option::PADDING.to_be() };
        let p = frame::at(env, at + 4 * i, 4)?;
        // SAFETY: checked for four bytes.
        unsafe { put(p, word) };
        sum = sum.add32(word);
        i += 1;
    }
    Some(sum)
}
