//! What happens to a packet, from the first byte to the verdict.
//!
//! Written once for kernel and host over [`Env`]. The work is cut into programs that tail-call each other
//! ([`Verdict::Tail`]), so that the path of an established session stays short:
//!
//! ```text
//! entry ── bound session, direct mode ──────────────> out
//!   ├─ bind       make or move a binding ──────────> out
//!   ├─ nat        packet of a known flow ───────────> out
//!   │    ├─ open       first packet of a flow ──────> out
//!   │    │    └─ pick       whose backend hangs on load > open
//!   │    └─ establish  both sides proved themselves > out
//!   ├─ quic       datagrams that name their server or session > out, bind, nat
//!   ├─ icmp       ping, errors about our packets ──> out
//!   ├─ fragment   first fragments and the rest ────> out
//!   ├─ ask, visit what this node does not know, and what another one does not ───> out, nat, icmp, reply
//!   ├─ inquire, reply  sessions that this node does not know, or another one ────> out, connect
//!   └─ answer     resets and ICMP errors of our own > out
//! ```
//!
//! What each step does to the bytes is in `docs/datapath.md`.

mod adopt;
mod answer;
mod bind;
mod binding;

mod choice;
mod count;
mod entry;
mod env;
mod flow;
mod forward;
mod fragment;
mod frame;
mod fresh;
mod icmp;
mod limits;
mod link;
mod maintenance;
#[cfg(test)]
mod model;
mod mss;
mod nat;
mod parse;
mod peer;
mod quic;
mod rebind;
mod scratch;
mod splice;
mod vitals;

pub use adopt::adopt;
pub use env::{Env, Insert, Verdict};
pub use maintenance::{apply, sweep};
pub use rebind::rebind;
pub use scratch::Scratch;
pub use splice::filled;

use crate::abi::program;

/// Runs the entry program.
#[inline(always)]
pub fn entry<E: Env>(env: &E) -> Verdict {
    entry::run(env)
}

/// Runs a tail-called program by its number in [`program::TAIL_CALLS`].
///
/// With a constant number only that program's code remains.
#[inline(always)]
pub fn tail<E: Env>(env: &E, number: u32) -> Verdict {
    match number {
        program::BIND => bind::run(env),
        program::NAT => nat::run(env),
        program::OPEN => nat::open(env),
        program::ESTABLISH => nat::establish(env),
        program::ICMP => icmp::run(env),
        program::FRAGMENT => fragment::run(env),
        program::GREET => splice::greet(env),
        program::COLLECT => splice::collect(env),
        program::READ => splice::read(env),
        program::WAIT => splice::wait(env),
        program::CONNECT => splice::connect(env),
        program::TURN => splice::turn(env),
        program::LEARN => splice::learn(env),
        program::INSPECT => splice::inspect(env),
        program::QUIC => quic::run(env),
        program::ASK => peer::ask(env),
        program::VISIT => peer::visit(env),
        program::PICK => fresh::run(env),
        program::INQUIRE => peer::inquire(env),
        program::REPLY => peer::reply(env),
        _ => answer::run(env),
    }
}
