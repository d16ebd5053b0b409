//! Copies what older maps hold into new ones, before and after the programs change places.
//!
//! Before: everything, while traffic runs on the old maps. After: the bindings and flows that the old
//! programs made meanwhile. Until then [`SettingsFlags::MIGRATING`](lb_common::abi::SettingsFlags) keeps
//! programs from resetting connections that they do not know yet, and from passing their replies on.

mod bindings;
mod flows;
mod marks;

pub(super) use bindings::copy_bindings;
pub(super) use flows::{FlowCopy, Lost};
pub(super) use marks::Marks;

use super::{
    source::Source,
    tables::{Tables, at, device_error, io_error},
};
use crate::dataplane::{Operation, Result};
use aya::maps::{Array, MapData};
use lb_common::abi::{Hand, hand, map};

/// Nonces that programs may give out on the old maps while the new ones are being filled.
const NONCE_GAP: u64 = 1 << 24;

/// Which maps were made anew.
pub(super) struct Fresh<'a>(pub(super) &'a dyn Fn(&'static str) -> bool);

impl Fresh<'_> {
    /// Whether that map was made anew.
    pub(super) fn is(&self, name: &'static str) -> bool {
        (self.0)(name)
    }
}

/// Copies services, backends, statuses, tables, devices and the source of nonces.
pub(super) fn copy_tables(source: &Source, target: &mut Tables, fresh: &Fresh<'_>) -> Result<()> {
    let schema = source.schema;
    if fresh.is(map::ARENA) {
        let room = target.arena.len();
        source.map(map::ARENA)?.walk(|key, value| {
            let (Some(chunk), Some(content)) = (index(key), (schema.arena)(value)) else { return Ok(()) };
            if chunk >= room {
                return Ok(());
            }
            let fail = at(Operation::PutArena, map::ARENA, chunk);
            target.arena.set(chunk, content, 0).map_err(|error| fail(io_error(error)))
        })?;
    }
    if fresh.is(map::BACKENDS) {
        source.map(map::BACKENDS)?.walk(|key, value| {
            let (Some(slot), Some(backend)) = (index(key), (schema.backend)(value)) else { return Ok(()) };
            let fail = at(Operation::PutBackend, map::BACKENDS, slot);
            target.backends.set(slot, backend, 0).map_err(|error| fail(io_error(error)))
        })?;
    }
    if fresh.is(map::STATUS) {
        source.map(map::STATUS)?.walk(|key, value| {
            let (Some(word), Some(bits)) = (index(key), (schema.status)(value)) else { return Ok(()) };
            let fail = at(Operation::PutStatus, map::STATUS, word);
            target.statuses.set(word, bits, 0).map_err(|error| fail(io_error(error)))
        })?;
    }
    copy_array(source, fresh, map::AFFINITIES, schema.affinity, &mut target.affinities)?;
    copy_array(source, fresh, map::SERVERS, schema.server, &mut target.servers)?;
    copy_array(source, fresh, map::PATHS, schema.path, &mut target.paths)?;
    copy_array(source, fresh, map::QUIC, schema.quic, &mut target.quic)?;
    copy_array(source, fresh, map::SECRETS, schema.secrets, &mut target.secrets)?;
    if fresh.is(map::SERVICES) {
        source.map(map::SERVICES)?.walk(|key, value| {
            let Some((key, service)) = (schema.service)(key, value) else { return Ok(()) };
            let fail = at(Operation::PutService, map::SERVICES, key);
            target.services.insert(key, service, 0).map_err(|error| fail(io_error(error)))
        })?;
    }
    if fresh.is(map::DEVICES) {
        for ifindex in source.devices()? {
            let fail = at(Operation::PutDevice, map::DEVICES, ifindex);
            target.devices.insert(ifindex, ifindex, None, 0).map_err(|error| fail(device_error(error)))?;
        }
    }
    // Nobody owns a fresh hold.
    if fresh.is(map::HOLDS) && !fresh.is(map::HANDS) {
        put_hand(target, hand::HOLDS_LIVE, 0)?;
    }
    if fresh.is(map::HANDS) {
        for (place, hand) in hands(source)? {
            let value = match place {
                hand::NONCE => hand.value + NONCE_GAP,
                // A hand that jumped back would meet places that are all in use.
                hand::HALF_OPEN | hand::FLOW => hand.value,
                hand::BINDINGS_LIVE if !fresh.is(map::BINDINGS) => hand.value,
                hand::HOLDS_LIVE if !fresh.is(map::HOLDS) => hand.value,
                _ => continue,
            };
            put_hand(target, place, value)?;
        }
    }
    Ok(())
}

/// Copies an array with fixed size, where it was made anew.
fn copy_array<T: aya::Pod + Default + PartialEq>(
    source: &Source,
    fresh: &Fresh<'_>,
    name: &'static str,
    entry: fn(&[u8]) -> Option<T>,
    target: &mut Array<MapData, T>,
) -> Result<()> {
    // Older versions have not all of them.
    if !fresh.is(name) || !source.has(name) {
        return Ok(());
    }
    source.map(name)?.walk(|key, value| {
        let (Some(index), Some(value)) = (index(key), entry(value)) else { return Ok(()) };
        if value == T::default() {
            return Ok(());
        }
        super::entry::put(target, (Operation::Resize, name), index, &value)
    })
}

/// Adds the bindings that old programs made or reclaimed in a table that goes on, after their hands were copied.
pub(super) fn count_late_bindings(source: &Source, before: u64, target: &mut Tables) -> Result<()> {
    let late = bindings_live(source)?.wrapping_sub(before);
    if late == 0 {
        return Ok(());
    }
    let fail = at(Operation::Read, map::HANDS, hand::BINDINGS_LIVE);
    let now = target.hands.get(&hand::BINDINGS_LIVE, 0).map_err(|error| fail(io_error(error)))?;
    put_hand(target, hand::BINDINGS_LIVE, now.value.wrapping_add(late))
}

/// How many bindings live, by the hands of a directory of maps.
pub(super) fn bindings_live(source: &Source) -> Result<u64> {
    let live = hands(source)?.into_iter().find(|(place, _)| *place == hand::BINDINGS_LIVE);
    Ok(live.map_or(0, |(_, hand)| hand.value))
}

fn hands(source: &Source) -> Result<Vec<(u32, Hand)>> {
    let mut hands = Vec::new();
    source.map(map::HANDS)?.walk(|key, value| {
        hands.extend(index(key).zip((source.schema.hand)(value)));
        Ok(())
    })?;
    Ok(hands)
}

fn put_hand(target: &mut Tables, place: u32, value: u64) -> Result<()> {
    let fail = at(Operation::Resize, map::HANDS, place);
    let hand = Hand { value, ..Hand::default() };
    target.hands.set(place, hand, 0).map_err(|error| fail(io_error(error)))
}

/// The key of an array map.
fn index(key: &[u8]) -> Option<u32> {
    super::syscall::decode(key)
}
