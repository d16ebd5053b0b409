//! Bindings: (service, session key) -> backend.

/// What a binding is found by.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct BindingKey {
    /// The session key within the service.
    pub session: u64,
    /// [`super::Service::id`].
    pub service: u32,
    /// Zero.
    pub pad: u32,
}

/// A binding as it is listed and copied.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Binding {
    /// A [`BindingWord`], its [content](BindingWord::content) only.
    pub word: u64,
    /// When it ends, in nanoseconds of the monotonic clock; past = absent.
    pub expires: u64,
    /// [`BindingSlot::home`].
    pub home: u16,
    /// Zero.
    pub pad: [u8; 6],
}

/// One slot of the table.
///
/// `word` says whether a binding is in it, and changes by compare-exchange only. Who claimed a slot writes the other
/// fields; `expires` is also written in place by every packet that moves it noticeably. A reader compares session and
/// service again after it read the word.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BindingSlot {
    /// [`BindingKey::session`].
    pub session: u64,
    /// A [`BindingWord`].
    pub word: u64,
    /// When it ends, in nanoseconds of the monotonic clock; past = absent.
    pub expires: u64,
    /// [`BindingKey::service`].
    pub service: u32,
    /// In a bucket's first slot: bindings whose path passed this bucket before they found room. Changed by additions to
    /// the eight bytes that begin with `service`; far from 65,536, since a bucket is passed by those whose path begins near it.
    pub passed: u16,
    /// Where the session was before it had to move, see [`BindingWord::place`]; 0 = it never had to, or nobody knows. Written
    /// after the word, by whoever changed that. (Older programs wrote zero here.)
    pub home: u16,
}

/// Slots that are read together: two cache lines.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BindingBucket(pub [BindingSlot; BINDING_SLOTS as usize]);

/// Slots of a bucket.
pub const BINDING_SLOTS: u32 = 4;
/// Buckets that a binding may be in.
pub const BINDING_PROBES: u32 = 16;
/// A new binding lives no longer than this (ns) when nothing proves that its client is real; its next packet makes it
/// a whole lifetime. Forged packets that come once thus take no room for long.
pub const UNPROVED_LIFETIME: u64 = 30_000_000_000;

/// What stands for a backend in 16 bits: slots of one generation have different ones, and slots are given to another backend so
/// seldom that those of different generations are far apart. Never 0.
#[inline(always)]
pub const fn place(slot: u16, generation: u16) -> u16 {
    // The golden section's part of all numbers (Knuth 6.4).
    let place = slot.wrapping_add(generation.wrapping_mul(0x9e37));
    if place == 0 { 1 } else { place }
}

impl BindingKey {
    /// A key.
    #[inline(always)]
    pub const fn new(service: u32, session: u64) -> Self {
        Self { session, service, pad: 0 }
    }
}

/// The buckets that a binding may be in, one after the other.
///
/// It is in the first one that had room when it was made; all before that have counted it in [`BindingSlot::passed`].
/// Fibonacci hashing (Knuth 6.4): steps of about the golden section's part of the table meet no bucket again soon.
#[derive(Clone, Copy, Debug)]
pub struct BindingPath {
    start: u32,
    step: u32,
    buckets: u32,
}

impl BindingPath {
    /// The path of a key in a table of so many buckets.
    #[inline(always)]
    pub const fn new(key: &BindingKey, seed: u64, buckets: u32) -> Self {
        let mut hash = key.session ^ (key.service as u64).rotate_left(32) ^ seed;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { start: (hash >> 32) as u32, step: 0x9e37_79b9 ^ (hash as u32 & 0x00ff_ffff), buckets }
    }
    /// Its `n`th bucket.
    #[inline(always)]
    pub const fn bucket(&self, n: u32) -> u32 {
        let at = self.start.wrapping_add(self.step.wrapping_mul(n));
        ((at as u64 * self.buckets as u64) >> 32) as u32
    }
}

impl BindingSlot {
    /// Whose the slot is, or was.
    pub const fn key(&self) -> BindingKey {
        BindingKey::new(self.service, self.session)
    }

    /// The binding in it.
    pub fn binding(&self) -> Option<(BindingKey, Binding)> {
        let word = BindingWord(self.word);
        match word.slot_state() {
            SlotState::Live => {
                let (word, expires, home) = (word.content().0, self.expires, self.home);
                Some((self.key(), Binding { word, expires, home, pad: [0; 6] }))
            }
            SlotState::Free | SlotState::Claimed | SlotState::Pending => None,
        }
    }
}

/// What a slot's word says about the slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotState {
    /// Nothing is in it.
    Free,
    /// A binding, expired or not.
    Live,
    /// A CPU claimed it and is changing the other fields.
    Claimed,
    /// They are written, and the CPU is looking whether another one makes the same binding.
    Pending,
}

/// Backend slot, slot generation, binding generation and flags in one exchangeable word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct BindingWord(pub u64);

impl BindingWord {
    /// `lbd` has not acknowledged this state yet.
    pub const UNSYNCED: u64 = 1 << 56;
    /// The slot is claimed: absent to every reader.
    pub const DEAD: u64 = 1 << 57;
    /// Set by an administrator: not moved while its backend serves.
    pub const PINNED: u64 = 1 << 58;
    /// A binding is in the slot; together with `DEAD`: is about to be.
    const LIVE: u64 = 1 << 59;
    /// Changes with each binding that a slot is given to, so that no exchange that was meant for one succeeds for another.
    const NONCE: u64 = 0xf << 60;
    /// Generations are 24 bits and wrap.
    pub const GENERATION_MASK: u32 = 0x00ff_ffff;

    /// A word without flags.
    #[inline(always)]
    pub const fn new(backend: u16, slot_generation: u16, generation: u32) -> Self {
        Self(
            backend as u64
                | (slot_generation as u64) << 16
                | ((generation & Self::GENERATION_MASK) as u64) << 32,
        )
    }
    /// The backend slot.
    #[inline(always)]
    pub const fn backend(self) -> u16 {
        self.0 as u16
    }
    /// [`super::Backend::generation`] when the binding was made.
    #[inline(always)]
    pub const fn slot_generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
    /// What stands for its backend in [`BindingSlot::home`].
    #[inline(always)]
    pub const fn place(self) -> u16 {
        place(self.backend(), self.slot_generation())
    }
    /// How often the session moved.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & Self::GENERATION_MASK
    }
    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
    /// With a flag set.
    #[inline(always)]
    pub const fn with(self, flag: u64) -> Self {
        Self(self.0 | flag)
    }
    /// With a flag cleared.
    #[inline(always)]
    pub const fn without(self, flag: u64) -> Self {
        Self(self.0 & !flag)
    }
    /// What it says about the binding, without what it says about the slot.
    #[inline(always)]
    pub const fn content(self) -> Self {
        Self(self.0 & !(Self::DEAD | Self::LIVE | Self::NONCE))
    }
    /// What it says about the slot.
    #[inline(always)]
    pub const fn slot_state(self) -> SlotState {
        match (self.has(Self::LIVE), self.has(Self::DEAD)) {
            (false, false) => SlotState::Free,
            (true, false) => SlotState::Live,
            (false, true) => SlotState::Claimed,
            (true, true) => SlotState::Pending,
        }
    }
    /// The word of the same slot with this content.
    #[inline(always)]
    pub const fn with_content(self, content: Self) -> Self {
        Self(content.content().0 | Self::LIVE | self.0 & Self::NONCE)
    }
    /// The word of the same slot when it is free.
    #[inline(always)]
    pub const fn freed(self) -> Self {
        Self(self.0 & Self::NONCE)
    }
    /// The word of the same slot when it is claimed for another binding.
    #[inline(always)]
    pub const fn claimed(self) -> Self {
        Self((self.0 & Self::NONCE).wrapping_add(1 << 60) | Self::DEAD)
    }
    /// The word of the same slot when the fields of the binding that it was claimed for are written.
    #[inline(always)]
    pub const fn pending(self) -> Self {
        Self(self.freed().0 | Self::DEAD | Self::LIVE)
    }
}

impl core::fmt::Debug for BindingWord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BindingWord")
            .field("backend", &self.backend())
            .field("slot_generation", &self.slot_generation())
            .field("generation", &self.generation())
            .field("unsynced", &self.has(Self::UNSYNCED))
            .field("dead", &self.has(Self::DEAD))
            .field("pinned", &self.has(Self::PINNED))
            .finish()
    }
}

super::pod!(BindingKey: 16, Binding: 24, BindingSlot: 32, BindingBucket: 128);
