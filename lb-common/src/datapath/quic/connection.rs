//! The server that a datagram's QUIC connection id names.

use super::super::scratch::Packet;
use super::super::{Env, frame};
use super::payload;
use crate::abi::{AffinityRules, QuicConfig, Service};
use crate::affinity::quic::{Form, Layout, ServerId, server_of};
use crate::packet::quic::{Destination, LENGTH, is_long};
use crate::packet::{get, unknown_zero};

/// Halvings that bring 65,536 servers down to one.
const HALVINGS: u32 = 16;

/// Mark and backend slot of the server that the packet is for.
#[inline(always)]
pub(super) fn server<E: Env>(
    env: &E,
    service: &Service,
    rules: &AffinityRules,
    packet: &Packet,
) -> Option<(u64, u16)> {
    let mark = server_id(env, service, packet)?.mark();
    let slot = by_mark(env, rules, mark)?;
    Some((mark, slot))
}

#[inline(always)]
fn server_id<E: Env>(env: &E, service: &Service, packet: &Packet) -> Option<ServerId> {
    let (start, len) = payload(env, packet)?;
    let byte = |offset: usize| {
        let p = frame::at(env, start + offset, 1)?;
        // SAFETY: checked for one byte.
        Some(unsafe { get::<u8>(p) })
    };
    let destination = if len != 0 && is_long(byte(0)?) {
        if len <= LENGTH {
            return None;
        }
        Destination::in_long(len, byte(LENGTH)?)?
    } else {
        Destination::in_short(len)?
    };
    if destination.room == 0 {
        return None;
    }
    let rotation = byte(destination.offset)? >> 5;
    let config = env.quic_config(QuicConfig::place(service.slot, rotation)?)?;
    if config.valid == 0 {
        return None;
    }
    let layout = Layout::new(config.server_id_len, config.nonce_len).ok()?;
    if destination.room < layout.cid() as usize {
        return None;
    }
    let form = layout.form(config.encrypted != 0);
    // There are at least 42 bytes of headers in front of the connection id.
    let cid = start + destination.offset;
    server_of(layout, form, keys(config, form), |end| {
        let p = frame::at(env, cid + end - 16, 16)?;
        // SAFETY: checked for sixteen bytes.
        Some(unsafe { [u64::from_le(get(p)), u64::from_le(get(p.add(8)))] })
    })
}

/// The round keys that a form is decrypted with: the Feistel network only ever encrypts.
#[inline(always)]
fn keys(config: &QuicConfig, form: Form) -> &crate::affinity::quic::RoundKeys {
    match form {
        Form::SinglePass => &config.inverse_round_keys,
        Form::Plain | Form::FourPass => &config.round_keys,
    }
}

/// Backend slot of the server with a mark, by bisection.
#[inline(always)]
fn by_mark<E: Env>(env: &E, rules: &AffinityRules, mark: u64) -> Option<u16> {
    if rules.server_count == 0 {
        return None;
    }
    let mut place = rules.servers;
    let mut left = rules.server_count;
    let mut i = 0;
    while i < HALVINGS {
        if left <= 1 {
            break;
        }
        let half = left / 2;
        let middle = place.wrapping_add(half);
        if env.server(middle)?.mark <= mark {
            place = middle;
        }
        left = left.wrapping_sub(half).wrapping_add(unknown_zero(mark as u8) as u32);
        i += 1;
    }
    let server = env.server(place)?;
    if server.mark != mark {
        return None;
    }
    let backend = env.backend(server.backend)?;
    if backend.generation == server.generation { Some(server.backend) } else { None }
}
