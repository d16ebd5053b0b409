//! Copies bindings by generation, through the program that knows how.

use crate::dataplane::{
    Result,
    clock::monotonic_ns,
    xdp::{object::Generation, source::Source},
};
use lb_common::abi::{Binding, BindingKey, BindingOp, BindingRecord, BindingWord, RecordResult, map};

/// Records put together before they are applied.
const RECORDS: usize = 4_096;

/// Copies every binding that lives; returns how many had no room.
///
/// [`BindingOp::Copy`] fills a new table; [`BindingOp::Put`] brings one up to date that was filled before.
pub(in crate::dataplane::xdp) fn copy_bindings(
    source: &Source,
    target: &Generation,
    op: BindingOp,
) -> Result<u64> {
    let (mut records, mut left_out) = (Vec::with_capacity(RECORDS), 0);
    let mut apply = |records: &mut Vec<BindingRecord>| -> Result<()> {
        let results = target.apply(records)?;
        left_out += results.iter().filter(|&&result| result == RecordResult::Full).count() as u64;
        records.clear();
        Ok(())
    };
    let now = monotonic_ns();
    source.map(map::BINDINGS)?.walk(|key, value| {
        let bindings = (source.schema.bindings)(key, value).into_iter();
        records.extend(bindings.filter_map(|binding| record(binding, op, now)));
        if records.len() >= RECORDS { apply(&mut records) } else { Ok(()) }
    })?;
    apply(&mut records)?;
    Ok(left_out)
}

/// The record that makes a binding; `None` when it does not live.
fn record((key, binding): (BindingKey, Binding), op: BindingOp, now: u64) -> Option<BindingRecord> {
    let lifetime = binding.expires.saturating_sub(now);
    if lifetime == 0 || BindingWord(binding.word).has(BindingWord::DEAD) {
        return None;
    }
    Some(BindingRecord {
        session: key.session,
        word: binding.word,
        lifetime,
        service: key.service,
        op: op as u8,
        pad: 0,
        home: binding.home,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_living_bindings_are_copied_with_what_is_left_of_them() {
        let key = BindingKey::new(7, 0x0a00_0001);
        let word = BindingWord::new(3, 1, 5).with(BindingWord::UNSYNCED);
        let binding = Binding { word: word.0, expires: 1_500, home: 9, pad: [0; 6] };
        let copied = record((key, binding), BindingOp::Copy, 1_000).expect("it lives");
        assert_eq!((copied.service, copied.session, copied.word), (7, 0x0a00_0001, word.0));
        assert_eq!((copied.lifetime, copied.op, copied.home), (500, BindingOp::Copy as u8, 9));
        assert_eq!(record((key, binding), BindingOp::Copy, 1_500), None);
        let dead = Binding { word: word.with(BindingWord::DEAD).0, ..binding };
        assert_eq!(record((key, dead), BindingOp::Copy, 1_000), None);
    }
}
