//! Counting a packet that goes on.

use super::{Env, Verdict};
use crate::abi::{Counters, Outcome};

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Towards the backend.
    Forward,
    /// Back to the client.
    Reply,
}

/// Counts an outcome that ends the packet's way here.
#[inline(always)]
pub(crate) fn end<E: Env>(env: &E, outcome: Outcome) -> Verdict {
    env.count(outcome);
    if outcome.is_drop() { Verdict::Drop } else { Verdict::Pass }
}

/// Counts a packet that left under its service and backend; one that could not has been counted already.
#[inline(always)]
pub(crate) fn forwarded<E: Env>(
    env: &E,
    verdict: Verdict,
    (service, backend): (u16, u16),
    bytes: u16,
    opens: bool,
    way: Way,
) {
    if verdict == Verdict::Drop {
        return;
    }
    add(env.service_counters(service), bytes, opens, way);
    add(env.backend_counters(backend), bytes, opens, way);
}

/// Counts a binding made under its service and backend.
#[inline(always)]
pub(crate) fn bound<E: Env>(env: &E, service: u16, backend: u16) {
    for counters in [env.service_counters(service), env.backend_counters(backend)].into_iter().flatten() {
        // SAFETY: this CPU's own counters.
        unsafe { (*counters).bindings += 1 }
    }
}

#[inline(always)]
fn add(counters: Option<*mut Counters>, bytes: u16, opens: bool, way: Way) {
    let Some(counters) = counters else { return };
    // SAFETY: this CPU's own counters.
    let counters = unsafe { &mut *counters };
    match way {
        Way::Forward => {
            counters.packets += 1;
            counters.bytes += bytes as u64;
            counters.connections += opens as u64;
        }
        Way::Reply => {
            counters.reply_packets += 1;
            counters.reply_bytes += bytes as u64;
        }
    }
}
