//! Entries of one pool or service that stand together in an array.

use super::arena::{FreeList, Region};

/// Entries that stand together; when one changes, all of them get another place, so that nobody meets half of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch<T> {
    /// Place of the first.
    pub start: u32,
    /// Number of them.
    pub count: u32,
    /// The entries. In a plan: those to be written; none when they stand already.
    pub contents: Vec<T>,
    /// What stands there, known even when nothing is to be written.
    standing: Vec<T>,
}

impl<T> Default for Stretch<T> {
    fn default() -> Self {
        Self { start: 0, count: 0, contents: Vec::new(), standing: Vec::new() }
    }
}

impl<T: Clone + PartialEq> Stretch<T> {
    /// Entries as found in a pinned map.
    pub fn found(start: u32, contents: Vec<T>) -> Self {
        Self { start, count: contents.len() as u32, contents: Vec::new(), standing: contents }
    }

    /// The entries, wherever they are.
    pub fn entries(&self) -> &[T] {
        &self.standing
    }

    /// Where it lies; `None` when it has no entries.
    pub(super) fn region(&self) -> Option<Region> {
        (self.count > 0).then_some(Region { start: self.start, chunks: self.count })
    }

    /// Itself, or nothing when it is not inside a map of that many entries.
    pub(super) fn inside(self, entries: u32) -> Self {
        let end = u64::from(self.start) + u64::from(self.count);
        if end <= u64::from(entries) { self } else { Self::default() }
    }

    /// A place for `wanted`: the old one when it has just these, else a free one; fails with how many do not fit.
    pub(super) fn place(old: Option<&Self>, wanted: Vec<T>, free: &mut FreeList) -> Result<Self, u32> {
        if let Some(old) = old.filter(|old| old.standing == wanted && !wanted.is_empty()) {
            return Ok(Self { contents: Vec::new(), ..old.clone() });
        }
        let count = wanted.len() as u32;
        if count == 0 {
            return Ok(Self::default());
        }
        let region = free.take(count).ok_or(count)?;
        Ok(Self { start: region.start, count, contents: wanted.clone(), standing: wanted })
    }

    /// As it stands when its entries are written.
    pub(super) fn standing(&self) -> Self {
        Self { contents: Vec::new(), ..self.clone() }
    }
}
