//! What a record says, and which of two says more.

use crate::pool::identity::mix;
use core::cmp::Ordering;

/// What a binding is found by: the service and the session within it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Key {
    /// Service id, from the service's name or given (`lb_common::abi::Service::id`).
    pub service: u32,
    /// Session key (for DNS: of the resolver; the service then is the domain name, the server the site).
    pub session: u64,
}

/// Generations above it are taken for it: the kernel compares 24 bits that wrap.
pub const MAX_GENERATION: u32 = (1 << 23) - 1;

/// What else a body says; one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Flags(pub u8);

impl Flags {
    /// The session was deleted, by logout or by an administrator: absent to every reader.
    pub const TOMBSTONE: Self = Self(1);
    /// An administrator said where; the data plane does not move it while that server serves.
    pub const PINNED: Self = Self(2);

    /// Whether all of these are set.
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Those this program knows.
    #[must_use]
    pub const fn known(self) -> Self {
        Self(self.0 & (Self::TOMBSTONE.0 | Self::PINNED.0))
    }
}

/// A record without its expiry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Body {
    /// Whose.
    pub key: Key,
    /// Server number; 0 in a tombstone.
    pub server: u64,
    /// How often the session was moved or pinned; at most [`MAX_GENERATION`].
    pub generation: u32,
    /// What else.
    pub flags: Flags,
    /// How many failovers of that server its binder knew: later ones move the session on.
    pub failover: u32,
}

/// The place of a body among those of its key; the highest holds.
///
/// Generation first; a deletion beats what it deleted; else a hash of session and server decides, so that no server
/// wins all ties. Bodies of equal rank are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank {
    generation: u32,
    is_tombstone: bool,
    lot: u64,
    is_pinned: bool,
    failover: u32,
}

impl Body {
    /// Its place among the bodies of its key.
    pub fn rank(&self) -> Rank {
        Rank {
            generation: self.generation,
            is_tombstone: self.is_tombstone(),
            lot: mix(self.server ^ mix(self.key.session)),
            is_pinned: self.flags.has(Flags::PINNED),
            failover: self.failover,
        }
    }

    /// Compares places; generations usually decide.
    pub fn cmp_rank(&self, other: &Self) -> Ordering {
        self.generation.cmp(&other.generation).then_with(|| self.rank().cmp(&other.rank()))
    }

    /// Whether it says that there is no binding.
    pub const fn is_tombstone(&self) -> bool {
        self.flags.has(Flags::TOMBSTONE)
    }

    /// With what the program cannot represent brought into range; every body from outside passes through here.
    #[must_use]
    pub fn sane(mut self) -> Self {
        self.generation = self.generation.min(MAX_GENERATION);
        self.flags = self.flags.known();
        if self.is_tombstone() {
            self.flags = Flags::TOMBSTONE;
            self.server = 0;
            self.failover = 0;
        }
        self
    }

    /// The generation after this one.
    pub fn next_generation(&self) -> u32 {
        (self.generation + 1).min(MAX_GENERATION)
    }
}
