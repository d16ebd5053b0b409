//! Records by the second in which they must be looked at.
//!
//! A ring of lists, one for each second of 68 minutes; a record that is due later than that comes round and goes
//! back. A list is singly linked through the records, which leave it only when their second comes, so moving an expiry costs
//! nothing.

use super::time::Time;

/// End of a list.
pub(super) const NONE: u32 = u32::MAX;
/// Seconds in the ring.
const SECONDS: u64 = 4096;

/// The ring: the first record of each second.
pub(super) struct Wheel {
    heads: Box<[u32]>,
    /// The next second to be looked at.
    second: u64,
}

impl Wheel {
    pub(super) fn new(now: Time) -> Self {
        Self { heads: vec![NONE; SECONDS as usize].into(), second: now.0 / 1000 }
    }

    /// The list for a deadline, to put a record in: the record's link takes the old head.
    pub(super) fn list(&mut self, due: Time) -> &mut u32 {
        // One that is due already is looked at when the present second is over.
        let second = (due.0 / 1000).clamp(self.second, self.second + SECONDS - 1);
        &mut self.heads[(second % SECONDS) as usize]
    }

    /// Takes the next list whose second is over.
    pub(super) fn take(&mut self, now: Time) -> Option<u32> {
        let present = now.0 / 1000;
        // After a long sleep one round looks at every list.
        self.second = self.second.max(present.saturating_sub(SECONDS));
        if self.second >= present {
            return None;
        }
        let list = core::mem::replace(&mut self.heads[(self.second % SECONDS) as usize], NONE);
        self.second += 1;
        Some(list)
    }

    /// When the next list is due.
    pub(super) fn deadline(&self) -> Time {
        Time((self.second + 1) * 1000)
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.heads.len() * size_of::<u32>()
    }
}
