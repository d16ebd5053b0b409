//! What the data plane notes of single backends while it forwards.

/// Signs of life and load of a backend, by backend slot; on a cache line of its own.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Vitals {
    /// When it last answered a SYN of the balancer's own, be it with a refusal; nanoseconds of the monotonic clock.
    pub answered: u64,
    /// When it last took a connection, the balancer's or a client's, as far as the balancer sees answers.
    pub accepted: u64,
    /// How long it takes to answer a SYN, in nanoseconds, smoothed; 0 = not known.
    pub response: u64,
    /// Flows to it that have not ended. CPUs add to it and take from it, so below 0 is as good as 0.
    pub connections: u64,
    /// SYNs of the balancer's own that it refused.
    pub refused: u64,
    /// SYNs of the balancer's own that it left without an answer.
    pub silent: u64,
    /// What clients may have caused: their SYNs that it refused, or that they had to send again.
    pub suspected: u64,
    /// New sessions that went elsewhere since it had as many connections as its limit says.
    pub overflowed: u64,
}

impl Vitals {
    /// Connections at this moment.
    #[inline(always)]
    pub const fn load(&self) -> u64 {
        if (self.connections as i64) < 0 { 0 } else { self.connections }
    }
}

/// Places in the map of choices, by a hash of the session; a power of two.
pub const CHOICE_ENTRIES: u32 = 65_536;

super::pod!(Vitals: 64);
