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

/// A binding; 24 bytes, because there may be millions.
///
/// `word` changes by compare-exchange only; `expires` is also written in place by every packet that moves
/// it noticeably. The kernel recycles hash elements while a reader holds them, so `tag` says whose it is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Binding {
    /// A [`BindingWord`].
    pub word: u64,
    /// When it ends, in nanoseconds of the monotonic clock; past = absent.
    pub expires: u64,
    /// Its slot in the binding ring.
    pub ring: u32,
    /// [`BindingKey::tag`] of its key.
    pub tag: u32,
}

impl BindingKey {
    /// A key.
    #[inline(always)]
    pub const fn new(service: u32, session: u64) -> Self {
        Self { session, service, pad: 0 }
    }

    /// A short mark of the key, kept in the value.
    #[inline(always)]
    pub const fn tag(&self) -> u32 {
        let mixed = (self.session ^ ((self.service as u64) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32
    }
}

/// Backend slot, slot generation, binding generation and flags in one exchangeable word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct BindingWord(pub u64);

impl BindingWord {
    /// `lbd` has not acknowledged this state yet.
    pub const UNSYNCED: u64 = 1 << 56;
    /// Being deleted: absent to every reader.
    pub const DEAD: u64 = 1 << 57;
    /// Set by an administrator: not moved while its backend serves.
    pub const PINNED: u64 = 1 << 58;
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

super::pod!(BindingKey: 16, Binding: 24);
