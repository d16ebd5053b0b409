//! What the data plane needs from around it: the frame, the maps, the time.

use super::Scratch;
use crate::abi::{
    AffinityRules, Backend, BindingBucket, BindingEvent, Counters, Filling, Flow, FlowKey, FlowRef,
    FragmentKey, FragmentRef, Hold, Outcome, PathRule, Peer, QuicConfig, Secrets, Server, Service,
    ServiceKey, Settings, Vitals,
};
use crate::packet::{Sum, get};

/// What to do with the packet.
///
/// Without payloads: an enum whose variants leave bytes undefined makes the compiler move garbage between
/// registers, which the verifier refuses.
/// The numbers are the kernel's return codes, so a verdict and what another program returned are the same thing.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// On to another program: the one last given to [`Env::tail`]. The kernel never comes back with this one
    /// (its number is `XDP_ABORTED`).
    Tail = 0,
    /// Lost (`XDP_DROP`).
    Drop = 1,
    /// To the stack, untouched (`XDP_PASS`).
    Pass = 2,
    /// Out of the interface that it came in on (`XDP_TX`).
    Tx = 3,
    /// Out of another interface: the one last given to [`Env::redirect`] (`XDP_REDIRECT`).
    Redirect = 4,
}

/// Result of an insert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insert {
    /// It is in.
    Done,
    /// The key is taken.
    Taken,
    /// The map is full.
    Full,
}

/// The frame, the maps and the time, as the kernel or a test provides them.
///
/// Pointers into maps stay readable for as long as the program runs, but other CPUs change what they
/// point to, and the kernel may hand a deleted entry's memory to another key at once.
///
/// # Safety
/// `data..data_end` is the frame, readable and writable; every pointer answered is valid and aligned for its type
/// until the program ends, frame pointers until the next adjustment.
pub unsafe trait Env {
    /// First byte of the frame.
    fn data(&self) -> *mut u8;
    /// Behind the last byte of the frame.
    fn data_end(&self) -> *mut u8;
    /// Moves the start of the frame; negative makes room. Whether it could.
    fn adjust_head(&self, delta: i32) -> bool;
    /// Moves the end of the frame. Whether it could.
    fn adjust_tail(&self, delta: i32) -> bool;
    /// Copies `len` bytes of the frame from `offset` on to `to`; whether the frame had them.
    ///
    /// # Safety
    /// `to` points to `len` writable bytes of a map.
    unsafe fn load(&self, offset: u32, to: *mut u8, len: u32) -> bool;
    /// Copies `len` bytes from `from` into the frame at `offset`; whether the frame had room.
    ///
    /// # Safety
    /// `from` points to `len` readable bytes of a map.
    unsafe fn store(&self, offset: u32, from: *const u8, len: u32) -> bool;
    /// One's-complement sum of the words of four bytes from `from` on, `len` bytes of them: a multiple of four, at most 512.
    ///
    /// # Safety
    /// `from` points to `len` readable bytes of a map.
    unsafe fn sum(&self, from: *const u8, len: u32) -> u32 {
        let mut total = Sum::ZERO;
        let mut i = 0;
        while i < len {
            // SAFETY: the caller's bytes.
            total = total.add32(unsafe { get(from.add(i as usize)) });
            i += 4;
        }
        total.folded() as u32
    }
    /// Leaves the frame to the program that appends held bytes and sends; whether it could.
    fn leave_to_fill(&self, filling: &Filling) -> bool;
    /// Number of the CPU that the program runs on.
    fn cpu(&self) -> u32;
    /// Interface that the packet came in on.
    fn ingress(&self) -> u32;
    /// MTU of the interface that the packet came in on; 0 = not known.
    fn ingress_mtu(&self) -> u32;
    /// Sends the frame out of an interface, or counts [`Outcome::RedirectFailed`].
    fn redirect(&self, ifindex: u32) -> Verdict;
    /// Goes on with a program of [`crate::abi::program::TAIL_CALLS`], or counts [`Outcome::TailCall`].
    fn tail(&self, number: u32) -> Verdict;
    /// Nanoseconds of the monotonic clock, to a few milliseconds.
    fn now(&self) -> u64;
    /// Sets the clock that [`Self::now`] reads, where it has one of its own.
    fn set_clock(&self) {}

    /// Replaces `old` by `new`; whether it was `old`.
    ///
    /// # Safety
    /// `cell` came from this environment.
    unsafe fn exchange(&self, cell: *mut u64, old: u64, new: u64) -> bool;
    /// Adds and answers the value before.
    ///
    /// # Safety
    /// `cell` came from this environment.
    unsafe fn add(&self, cell: *mut u64, n: u64) -> u64;
    /// Calls `step` with 0, 1, … below `count` until it answers `true`.
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, step: F);

    /// What holds for the whole node.
    fn settings(&self) -> Option<&Settings>;
    /// The service with that key.
    fn service(&self, key: &ServiceKey) -> Option<&Service>;
    /// The same, if it is known without a look-up.
    fn service_at_hand(&self, key: &ServiceKey) -> Option<&Service> {
        self.service(key)
    }
    /// The backend in a slot.
    fn backend(&self, slot: u16) -> Option<&Backend>;
    /// A word of the status map.
    fn status(&self, word: u32) -> Option<u64>;
    /// A slot of the arena.
    fn arena(&self, slot: u32) -> Option<u16>;

    /// What a service takes its session keys by.
    fn affinity_rules(&self, service_slot: u16) -> Option<&AffinityRules>;
    /// An entry of the servers' marks.
    fn server(&self, index: u32) -> Option<&Server>;
    /// A path rule.
    fn path_rule(&self, index: u32) -> Option<&PathRule>;
    /// A configuration of QUIC connection ids, by [`crate::abi::QUIC_ENTRIES`].
    fn quic_config(&self, index: u32) -> Option<&QuicConfig>;
    /// Keys that packets are checked with.
    fn secrets(&self) -> Option<&Secrets>;
    /// Another node of the cluster, by its row.
    fn peer(&self, row: u32) -> Option<&Peer>;
    /// What is noted of a backend.
    fn vitals(&self, slot: u16) -> Option<*mut Vitals>;
    /// Where a new session went, see [`crate::abi::CHOICE_ENTRIES`].
    fn choice(&self, index: u32) -> Option<*mut u64>;
    /// A hold.
    fn hold(&self, index: u32) -> Option<*mut Hold>;

    /// A bucket of the binding table.
    fn binding_bucket(&self, bucket: u32) -> Option<*mut BindingBucket>;
    /// A hand of [`crate::abi::hand`].
    fn hand(&self, hand: u32) -> Option<*mut u64>;

    /// The cell of a [`FlowRef`].
    fn flow_ref(&self, key: &FlowKey) -> Option<*mut u64>;
    /// Inserts a reference that is not there.
    fn insert_flow_ref(&self, key: &FlowKey, flow: FlowRef) -> Insert;
    /// Deletes a reference.
    fn delete_flow_ref(&self, key: &FlowKey);
    /// Since when the other nodes have not answered a question about a session.
    fn silence(&self) -> Option<*mut u64>;
    /// A flow record.
    fn flow(&self, index: u32) -> Option<*mut Flow>;
    /// What the first fragment decided.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRef>;
    /// Keeps what the first fragment decided.
    fn keep_fragment(&self, key: &FragmentKey, decision: &FragmentRef);

    /// This CPU's counters of a service.
    fn service_counters(&self, slot: u16) -> Option<*mut Counters>;
    /// This CPU's counters of a backend.
    fn backend_counters(&self, slot: u16) -> Option<*mut Counters>;
    /// Counts an outcome.
    fn count(&self, outcome: Outcome);
    /// Rate cell of a service.
    fn rate(&self, slot: u16) -> Option<*mut u64>;
    /// Rate cell of the node's own answers.
    fn answer_rate(&self) -> Option<*mut u64>;
    /// Quota cell.
    fn quota(&self, index: u32) -> Option<*mut u64>;
    /// Doorkeeper cell.
    fn doorkeeper(&self, index: u32) -> Option<*mut u64>;
    /// Tells `lbd`; whether there was room.
    fn tell(&self, event: &BindingEvent) -> bool;
    /// What one program leaves for the next.
    fn scratch(&self) -> Option<*mut Scratch>;
}
