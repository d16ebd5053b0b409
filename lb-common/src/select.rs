//! The order of backends for a session key.
//!
//! Probe `i` of a session key is slot `CRC-32(key as 8 bytes big-endian, i as one byte) & mask` of the
//! service's table (CRC-32 as in IEEE 802.3, which a switch computes too). The order is the sequence of
//! distinct backends that probes 0 to 15 meet; behind it stand the members in list order, from the one
//! at `CRC-32(key, 16) mod count` on. Who is alive decides only how far one reads, never the order.

mod crc;

pub use crc::Probes;

/// Table probes before the walk over the member list.
pub const PROBES: u32 = 16;

/// A service's selection table and member list, wherever they are kept.
pub trait Table {
    /// Backend slot that owns a table slot.
    fn owner(&self, slot: u32) -> Option<u16>;
    /// Backend slot at a place of the member list.
    fn member(&self, place: u32) -> Option<u16>;
    /// Table size - 1.
    fn mask(&self) -> u32;
    /// Length of the member list.
    fn member_count(&self) -> u32;
}

/// The first backend in the session's order that `takes` it.
///
/// On the host; the kernel's twin walks the member list with `bpf_loop`.
pub fn choose<T: Table>(table: &T, session: u64, mut takes: impl FnMut(u16) -> bool) -> Option<u16> {
    order(table, session).find(|&backend| takes(backend))
}

/// The backends in the order in which the session tries them; the probed part may repeat a backend.
pub fn order<T: Table>(table: &T, session: u64) -> impl Iterator<Item = u16> {
    let probes = Probes::new(session);
    let count = table.member_count();
    let start = if count == 0 { 0 } else { probes.value(PROBES) % count };
    // Without members there is no table either.
    let made = if count == 0 { 0 } else { PROBES };
    let probed = (0..made).filter_map(move |i| table.owner(probes.value(i) & table.mask()));
    let walked = (0..count).filter_map(move |i| table.member((start + i) % count));
    probed.chain(walked)
}

#[cfg(test)]
mod tests;
