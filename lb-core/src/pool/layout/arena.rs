//! Regions of the arena and the search for free ones.

use lb_common::abi::ARENA_CHUNK;

/// A run of chunks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Region {
    /// First chunk.
    pub start: u32,
    /// Number of chunks, above 0.
    pub chunks: u32,
}

impl Region {
    /// First arena slot.
    pub const fn slot(self) -> u32 {
        self.start * ARENA_CHUNK as u32
    }

    /// Chunk behind the last.
    pub const fn end(self) -> u64 {
        self.start as u64 + self.chunks as u64
    }

    /// The region of a table and the member list behind it; `None` when that is not how they lie.
    pub(super) fn spanning(table: u32, members: u32, count: u32) -> Option<Self> {
        let length = members.checked_sub(table)?.checked_add(count)?;
        let start = table / ARENA_CHUNK as u32;
        (table.is_multiple_of(ARENA_CHUNK as u32) && length > 0)
            .then(|| Self { start, chunks: length.div_ceil(ARENA_CHUNK as u32) })
    }
}

/// Free regions of an arena, in order.
#[derive(Debug)]
pub(super) struct FreeList(Vec<Region>);

impl FreeList {
    /// What is free beside these regions, which may come in any order and (in damaged maps) overlap.
    pub(super) fn beside(standing: impl IntoIterator<Item = Region>, chunks: u32) -> Self {
        let mut standing: Vec<Region> = standing.into_iter().collect();
        standing.sort_unstable();
        let mut free = Vec::with_capacity(standing.len() + 1);
        let mut next = 0;
        for region in standing {
            if region.start > next {
                free.push(Region { start: next, chunks: region.start - next });
            }
            next = next.max(u32::try_from(region.end()).unwrap_or(u32::MAX));
        }
        if chunks > next {
            free.push(Region { start: next, chunks: chunks - next });
        }
        Self(free)
    }

    /// First fit.
    pub(super) fn take(&mut self, chunks: u32) -> Option<Region> {
        let index = self.0.iter().position(|free| free.chunks >= chunks)?;
        let free = &mut self.0[index];
        let taken = Region { start: free.start, chunks };
        if free.chunks == chunks {
            self.0.remove(index);
        } else {
            *free = Region { start: free.start + chunks, chunks: free.chunks - chunks };
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::{FreeList, Region};

    fn region(start: u32, chunks: u32) -> Region {
        Region { start, chunks }
    }

    #[test]
    fn the_first_gap_that_fits_is_taken() {
        let mut free = FreeList::beside([region(6, 2), region(0, 2), region(3, 1)], 10);
        assert_eq!(free.take(2), Some(region(4, 2)));
        assert_eq!(free.take(2), Some(region(8, 2)));
        assert_eq!(free.take(2), None);
        assert_eq!(free.take(1), Some(region(2, 1)));
        assert_eq!(free.take(1), None);
    }

    #[test]
    fn overlapping_and_overlong_regions_leave_only_what_is_free() {
        let mut free = FreeList::beside([region(1, 5), region(2, 1), region(8, 9)], 10);
        assert_eq!(free.take(1), Some(region(0, 1)));
        assert_eq!(free.take(2), Some(region(6, 2)));
        assert_eq!(free.take(1), None);
    }

    #[test]
    fn a_region_spans_table_and_members() {
        assert_eq!(Region::spanning(512, 768, 1), Some(region(2, 2)));
        assert_eq!(Region::spanning(512, 768, 257), Some(region(2, 3)));
        assert_eq!(Region::spanning(513, 768, 1), None);
        assert_eq!(Region::spanning(768, 512, 1), None);
        assert_eq!(Region::spanning(256, u32::MAX, 1_000), None);
    }
}
