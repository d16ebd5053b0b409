//! An event in at most 40 bytes.

use super::Malformed;
use super::field::{Reader, Writer};
use crate::binding::{Body, Content, Flags, Key, Mark, time};
use core::time::Duration;

/// Bytes of an event at most, its own length included.
pub const MAX_EVENT: usize = 40;
/// A failover, in the byte of the flags.
const MARK: u8 = 0x80;
/// The vector that comes with it does not cover it.
const UNCOVERED: u8 = 0x40;
/// Lives are cut to 139 years, six bytes.
const MAX_LEFT: u64 = (1 << 42) - 1;

/// An event as it travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// What it says.
    pub(crate) content: Content,
    /// Milliseconds that were left of its life when it was sent.
    pub(crate) left: u64,
    /// Whether the vector that comes with it covers it; only in a snapshot or a checkpoint it may not.
    pub(crate) is_covered: bool,
}

/// Writes an event with what is left of its life, and whether the vector that goes with it covers it.
pub fn put_event(buffer: &mut Vec<u8>, content: &Content, left: Duration, is_covered: bool) {
    let told = Told { content: *content, left: time::milliseconds(left), is_covered };
    put(&mut Writer(buffer), &told);
}

pub(super) fn put(out: &mut Writer<'_>, told: &Told) {
    let at = out.0.len();
    out.u8(0);
    let (flags, service, word, server, generation, failover) = match told.content {
        Content::Binding(body) => {
            (body.flags.0, body.key.service, body.key.session, body.server, body.generation, body.failover)
        }
        Content::Failover(mark) => (MARK, mark.service, mark.digest, mark.server, 0, mark.epoch),
    };
    out.u8(if told.is_covered { flags } else { flags | UNCOVERED });
    out.u32(service);
    out.u64(word);
    out.u64(server);
    out.varint(u64::from(generation));
    out.varint(u64::from(failover));
    out.varint(told.left.min(MAX_LEFT));
    out.0[at] = (out.0.len() - at - 1) as u8;
}

/// Reads an event, what is left of its life, and whether its vector covers it; bytes behind it are an error.
pub fn event(bytes: &[u8]) -> Result<(Content, Duration, bool), Malformed> {
    let mut events = Events::new(bytes);
    let told = events.next().ok_or(Malformed::Missing("event"))??;
    match events.next() {
        None => Ok((told.content, Duration::from_millis(told.left), told.is_covered)),
        Some(_) => Err(Malformed::Range("event")),
    }
}

/// Events behind each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Events<'a>(Reader<'a>);

impl<'a> Events<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes, "event"))
    }

    fn read(&mut self) -> Result<Told, Malformed> {
        let len = self.0.u8()?;
        let mut event = Reader::new(self.0.take(usize::from(len))?, "event");
        let flags = event.u8()?;
        let service = event.u32()?;
        let word = event.u64()?;
        let server = event.u64()?;
        let generation = event.varint32()?;
        let failover = event.varint32()?;
        let left = event.varint()?;
        let content = if flags & MARK == 0 {
            let key = Key { service, session: word };
            Content::Binding(Body { key, server, generation, flags: Flags(flags), failover }.sane())
        } else {
            Content::Failover(Mark { service, server, epoch: failover, digest: word })
        };
        Ok(Told { content, left: left.min(MAX_LEFT), is_covered: flags & UNCOVERED == 0 })
    }
}

impl Iterator for Events<'_> {
    type Item = Result<Told, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.0 = Reader::new(&[], "event");
        }
        Some(read)
    }
}
