//! The program that chooses a backend and makes or moves the binding, for the direct modes.

use super::binding::Client;
use super::scratch::{Packet, part};
use super::{Env, Verdict, answer, binding, choice, count, forward, fragment, limits};
use crate::abi::{BindingKey, FlowRef, Outcome};
use crate::packet::{flag, protocol};

#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    let (Some(scratch), Some(settings)) = (env.scratch(), env.settings()) else { return Verdict::Drop };
    // SAFETY: this CPU's own scratch.
    let scratch = unsafe { &*scratch };
    let packet = &scratch.packet;
    let Some(service) = choice::service_of(env, settings, packet) else {
        return count::end(env, Outcome::NotOurs);
    };
    let session = choice::session_left(service, settings, scratch);
    let key = BindingKey::new(service.id, choice::carry(env, service, settings, packet, session));
    let now = env.now();
    let (may_bind, opens) = standing(env, packet);
    let found = binding::find_again(env, &key, now);
    let bound = found.and_then(|found| {
        let chosen = binding::backend(env, found.word)?;
        binding::touch(&found, now, service.lifetime);
        Some(chosen)
    });
    let chosen = match bound {
        Some(chosen) => chosen,
        None => {
            let Some(chosen) = choice::choose(env, service, session) else {
                return answer::no_backend(env, packet);
            };
            if may_bind {
                let client = Client { address: &packet.source, proved: false, learnt: false };
                binding::bind(env, service, &key, chosen, client, now);
            }
            chosen
        }
    };
    if packet.part == part::FIRST {
        fragment::keep(env, packet, FlowRef::default(), chosen);
    }
    forward::direct(env, settings, service, packet, session, chosen, opens)
}

/// Whether a TCP segment comes after the handshake's first packet, so that its sender is likely real.
#[inline(always)]
pub(crate) const fn may_bind_tcp(flags: u8) -> bool {
    flags & (flag::SYN | flag::RST) == 0
}

/// Whether a TCP segment opens a connection; a reset is a reset, whatever else it claims.
#[inline(always)]
pub(crate) const fn opens_tcp(flags: u8) -> bool {
    flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN
}

/// Whether the packet may bind its session, and whether it opens a connection.
#[inline(always)]
fn standing<E: Env>(env: &E, packet: &Packet) -> (bool, bool) {
    if packet.protocol == protocol::TCP {
        (may_bind_tcp(packet.tcp_flags), opens_tcp(packet.tcp_flags))
    } else {
        let seen = limits::seen_before(env, packet);
        (seen, !seen)
    }
}
