//! Selection tables as a switch has them: for each slot the backend that takes the sessions which begin there.
//!
//! CRC-32 is linear, so probe `i` of a session whose first one meets slot `s` meets `s ^ c(i)`, whatever the session. That makes the first
//! backend of its order that takes new sessions a function of `s`, and one look-up on the switch is enough. Where all
//! sixteen probes meet backends that take none, the order goes on with the member list from a place that the whole hash
//! decides; the switch begins at the one that the slot decides.

use super::Rows;
use crate::dataplane::p4::numbers::Tag;
use crate::dataplane::p4::row::{Content, Key, Table};
use crate::dataplane::{DataPlane as _, Result, memory::Memory};
use lb_common::abi::{ARENA_CHUNK, Service};
use lb_common::select::{PROBES, Probes};

/// What a selection asks of a backend.
#[derive(Clone, Copy)]
pub(super) struct State {
    /// It takes new sessions.
    pub(super) accepts: bool,
    /// It takes bound ones.
    pub(super) serves: bool,
    /// What the switch calls it.
    pub(super) tag: Option<Tag>,
}

/// Adds the slots of a service's table; the place of a slot is the table's size plus the slot.
pub(super) fn fill(
    rows: &mut Rows,
    image: &mut Memory,
    service: &Service,
    there: u128,
    state: impl Fn(u16) -> State,
) -> Result<()> {
    if service.member_count == 0 {
        return Ok(());
    }
    let table = stretch(image, service.table, service.table_mask + 1)?;
    let members = stretch(image, service.members, service.member_count)?;
    let zero = Probes::new(0);
    let steps: Vec<u32> = (0..PROBES).map(|i| (zero.value(i) ^ zero.value(0)) & service.table_mask).collect();
    for slot in 0..=service.table_mask {
        let probed = steps.iter().filter_map(|step| table.get((slot ^ step) as usize).copied());
        let start = slot as usize % members.len();
        let walked = members[start..].iter().chain(&members[..start]).copied();
        let mut order = probed.chain(walked);
        let mut again = order.clone();
        let owner = order.find(|backend| state(*backend).accepts);
        if let Some(backend) = owner.or_else(|| again.find(|backend| state(*backend).serves)) {
            let Some(tag) = state(backend).tag else { continue };
            let place = u128::from(service.table_mask) + 1 + u128::from(slot);
            rows.insert(Key::exact(Table::Arena, [there, place]), Content::of(tag.values()));
        }
    }
    Ok(())
}

/// So many slots of the arena from that one on.
fn stretch(image: &mut Memory, start: u32, count: u32) -> Result<Vec<u16>> {
    let (chunk, skip) = (start / ARENA_CHUNK as u32, start as usize % ARENA_CHUNK);
    let chunks = (skip as u32 + count).div_ceil(ARENA_CHUNK as u32);
    let slots = image.arena(chunk, chunks)?.into_iter().flat_map(|chunk| chunk.0);
    Ok(slots.skip(skip).take(count as usize).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Sizes;
    use lb_common::abi::ArenaChunk;
    use lb_common::select::{Table as Slots, choose};

    /// Table and members at the places that `fill` is told.
    struct Pool(Vec<u16>, Vec<u16>);

    impl Slots for Pool {
        fn owner(&self, slot: u32) -> Option<u16> {
            self.0.get(slot as usize).copied()
        }
        fn member(&self, place: u32) -> Option<u16> {
            self.1.get(place as usize).copied()
        }
        fn mask(&self) -> u32 {
            self.0.len() as u32 - 1
        }
        fn member_count(&self) -> u32 {
            self.1.len() as u32
        }
    }

    #[test]
    fn one_look_up_finds_what_the_order_says() {
        let sizes = Sizes { bindings: 64, flows: 64, arena: 8, holds: 1 };
        let mut image = Memory::new(sizes);
        let table: Vec<u16> =
            (0..1_024_u32).map(|slot| (slot.wrapping_mul(0x9e37_79b1) >> 20) as u16 % 7).collect();
        let chunks: Vec<ArenaChunk> =
            table.chunks(ARENA_CHUNK).map(|part| ArenaChunk(part.try_into().expect("whole"))).collect();
        image.put_arena(0, &chunks).expect("fits");
        let mut members = [0; ARENA_CHUNK];
        members[..7].copy_from_slice(&[0, 1, 2, 3, 4, 5, 6]);
        image.put_arena(4, &[ArenaChunk(members)]).expect("fits");
        let service = Service { table_mask: 1_023, members: 1_024, member_count: 7, ..Service::default() };
        let pool = Pool(table, (0..7).collect());
        for down in [vec![], vec![3], vec![0, 1, 2, 6], vec![0, 1, 2, 3, 4, 5]] {
            let takes = |backend: u16| !down.contains(&backend);
            let mut rows = Rows::new();
            fill(&mut rows, &mut image, &service, 5, |backend| State {
                accepts: takes(backend),
                serves: true,
                tag: Some(Tag { slot: backend + 100, generation: 9 }),
            })
            .expect("filled");
            assert_eq!(rows.len(), 1_024);
            for session in 0..2_000_u64 {
                let session = session.wrapping_mul(0x0123_4567_89ab_cdef);
                let place = Probes::new(session).value(0) & 1_023;
                let row = &rows[&Key::exact(Table::Arena, [5, 1_024 + u128::from(place)])];
                let chosen = choose(&pool, session, takes).expect("one is up");
                assert_eq!(row.values, [u128::from(chosen) + 100, 9], "session {session:#x}, down {down:?}");
            }
        }
    }
}
