//! A stretch of one stream's events: the change log of the own stream, the cache of another's.

use super::body::{Body, Flags, Key};
use super::failover::Mark;
use super::time::{Tick, Time};
use std::collections::VecDeque;

/// What an event says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A binding was made, moved, pinned, used again or deleted.
    Binding(Body),
    /// A server failed.
    Failover(Mark),
}

impl Content {
    /// The session that it is about, if it is about one.
    pub const fn key(&self) -> Option<Key> {
        match self {
            Self::Binding(body) => Some(body.key),
            Self::Failover(_) => None,
        }
    }
}

/// An event with its end, in the clock of the node that holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it says.
    pub content: Content,
    /// When it means nothing any more.
    pub expires: Tick,
}

/// An event in 32 bytes.
#[derive(Clone, Copy)]
struct Packed {
    /// The session, or a mark's digest.
    word: u64,
    server: u64,
    service: u32,
    failover: u32,
    expires: u32,
    /// Generation and, in the upper byte, flags.
    generation: u32,
}

/// Marks in a packed event's flags.
const MARK: u8 = 0x80;

impl Packed {
    fn new(entry: &Entry) -> Self {
        match entry.content {
            Content::Binding(body) => Self {
                word: body.key.session,
                server: body.server,
                service: body.key.service,
                failover: body.failover,
                expires: entry.expires.0,
                generation: body.generation | u32::from(body.flags.0) << 24,
            },
            Content::Failover(mark) => Self {
                word: mark.digest,
                server: mark.server,
                service: mark.service,
                failover: mark.epoch,
                expires: entry.expires.0,
                generation: u32::from(MARK) << 24,
            },
        }
    }

    fn entry(&self) -> Entry {
        let flags = (self.generation >> 24) as u8;
        let content = if flags & MARK == 0 {
            Content::Binding(Body {
                key: Key { service: self.service, session: self.word },
                server: self.server,
                generation: self.generation & 0x00ff_ffff,
                flags: Flags(flags),
                failover: self.failover,
            })
        } else {
            Content::Failover(Mark {
                service: self.service,
                server: self.server,
                epoch: self.failover,
                digest: self.word,
            })
        };
        Entry { content, expires: Tick(self.expires) }
    }
}

/// Consecutive events of one stream, the oldest ones forgotten.
#[derive(Default)]
pub struct Log {
    /// Number of the event before the first one held.
    before: u64,
    events: VecDeque<Packed>,
}

impl Log {
    /// Without events, behind number `last`.
    pub fn after(last: u64) -> Self {
        Self { before: last, events: VecDeque::new() }
    }

    /// Number of the latest event, held or not.
    pub fn last(&self) -> u64 {
        self.before + self.events.len() as u64
    }

    /// Number of the first event that is held, or would be.
    pub fn first(&self) -> u64 {
        self.before + 1
    }

    /// Events held.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether no event is held.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds the next event; its number.
    pub fn push(&mut self, entry: &Entry) -> u64 {
        self.events.push_back(Packed::new(entry));
        self.last()
    }

    /// An event by its number.
    pub fn event(&self, number: u64) -> Option<Entry> {
        let place = usize::try_from(number.checked_sub(self.before + 1)?).ok()?;
        self.events.get(place).map(Packed::entry)
    }

    /// Forgets all events up to a number.
    pub fn trim(&mut self, through: u64) {
        let count = through.saturating_sub(self.before).min(self.events.len() as u64);
        self.events.drain(..count as usize);
        self.before += count;
        if self.events.capacity() > 4096 && self.events.len() < self.events.capacity() / 8 {
            self.events.shrink_to(self.events.capacity() / 4);
        }
    }

    /// Forgets the oldest so that at most so many are held.
    pub fn keep(&mut self, most: usize) {
        let over = self.events.len().saturating_sub(most);
        self.trim(self.before + over as u64);
    }

    /// Goes on behind a later number: what lies between came as a snapshot.
    pub fn skip_to(&mut self, last: u64) {
        if last > self.last() {
            *self = Self::after(last);
        }
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.events.capacity() * size_of::<Packed>()
    }

    /// How long an event still means something, in milliseconds.
    pub fn left(entry: &Entry, now: Time) -> u64 {
        entry.expires.left(now)
    }
}
