//! How much longer than usual a message was on its way, with no clock agreeing with another.

use crate::binding::Time;

/// Halves of the memory: the least difference of the present and the former one count.
const SPAN: u64 = 300_000;

/// The least difference between own and sender's clock seen lately: the difference of the clocks and the shortest way.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Ways {
    former: Option<i64>,
    present: Option<(i64, Time)>,
}

impl Ways {
    /// Milliseconds that a message took beyond the shortest way known.
    pub(super) fn excess(&mut self, sent: u64, now: Time) -> u64 {
        // Clocks may show anything; the difference of two wraps back into range.
        let difference = now.0.wrapping_sub(sent).cast_signed();
        let (least, since) = self.present.unwrap_or((difference, now));
        let least = least.min(difference);
        if now.0 > since.0.saturating_add(SPAN) {
            self.former = Some(least);
            self.present = Some((difference, now));
        } else {
            self.present = Some((least, since));
        }
        let floor = self.former.map_or(least, |former| former.min(least));
        difference.saturating_sub(floor).max(0).cast_unsigned()
    }
}
