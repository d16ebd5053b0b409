//! The layouts that the benchmark shares with the testbed programs.

#[path = "../../../lb-ebpf/src/testbed/template.rs"]
mod shared;

pub use shared::*;

// SAFETY: `#[repr(C)]` of integers and byte arrays without implicit padding.
unsafe impl aya::Pod for Template {}
// SAFETY: as above.
unsafe impl aya::Pod for ReferenceKey {}
// SAFETY: as above.
unsafe impl aya::Pod for ReferenceReal {}
// SAFETY: as above.
unsafe impl aya::Pod for ReferenceFlow {}
// SAFETY: as above.
unsafe impl aya::Pod for Loss {}
// SAFETY: as above.
unsafe impl aya::Pod for Fault {}

const _: () = assert!(size_of::<Template>() == 48 + HEAD);
const _: () = assert!(size_of::<ReferenceReal>() == 24);
const _: () = assert!(size_of::<Loss>() == 24);
const _: () = assert!(size_of::<Fault>() == 64 + 2_048);

/// Offset in a frame of the word that tells IPv4 clients apart.
pub const SOURCE_V4: u32 = 26;
/// The same in packets towards the client.
pub const DESTINATION_V4: u32 = 30;
/// Offset of the second word of an IPv6 source: it stands in the upper 64 bits, so each value is a session.
pub const SOURCE_V6: u32 = 26;
/// The same in packets towards the client.
pub const DESTINATION_V6: u32 = 42;

impl Template {
    /// One flow: the frame as it is.
    pub fn single(frame: &[u8]) -> Self {
        assert!(frame.len() >= 64, "templates are frames of at least 64 bytes");
        let restored = frame.len().min(WORDS) / 32 * 32;
        let last = if frame.len() > restored && frame.len() < WORDS { frame.len() - 32 } else { 0 };
        let mut head = [0; HEAD];
        let copied = frame.len().min(HEAD);
        head[..copied].copy_from_slice(&frame[..copied]);
        Self {
            length: frame.len() as u32,
            restored: restored as u32,
            vary_at: 0,
            vary_base: 0,
            vary_mask: 0,
            random: 0,
            state: 0,
            last: last as u32,
            pad: 0,
            rest: 0,
            tail: 0,
            head,
        }
    }

    /// The same for a program that makes the frame shorter: all of it is restored.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.rest = self.length.saturating_sub(WORDS as u32);
        self
    }

    /// The same for a program that makes the frame longer at its end.
    #[must_use]
    pub fn grows_at_its_end(mut self) -> Self {
        self.tail = 1;
        self
    }

    /// `flows` flows (a power of two) that differ in the word at `at`, visited at random.
    #[must_use]
    pub fn random(mut self, at: u32, flows: u32) -> Self {
        assert!(flows.is_power_of_two() && at <= 60 && at.is_multiple_of(2));
        let word = &self.head[at as usize..at as usize + 4];
        self.vary_base = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
        self.vary_at = at;
        self.vary_mask = flows - 1;
        self.random = 1;
        self.state = 0x5eed;
        self
    }

    /// The same one after the other: after `flows` runs each has been visited once.
    #[must_use]
    pub fn in_turn(self, at: u32, flows: u32) -> Self {
        Self { random: 0, state: 0, ..self.random(at, flows) }
    }

    /// Starts `by` flows further on.
    #[must_use]
    pub fn from_flow(mut self, by: u32) -> Self {
        self.vary_base = self.vary_base.wrapping_add(by);
        self
    }
}
