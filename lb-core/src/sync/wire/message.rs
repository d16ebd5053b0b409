//! Messages.

use super::event::{Events, Told, put};
use super::field::{Reader, Writer};
use super::{Malformed, VERSION};
use crate::binding::{Content, NodeId, StreamId, Vector, View, ViewMember};
use std::collections::BTreeMap;

/// What a message is for.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The sender's vector, from time to time.
    Vector = 1,
    /// Consecutive events of one stream.
    Events = 2,
    /// Asks for a range of a stream.
    Request = 3,
    /// The range asked for is not held any more.
    Unavailable = 4,
    /// Asks for chunks of a snapshot.
    SnapshotRequest = 5,
    /// Records of a snapshot.
    SnapshotChunk = 6,
    /// Asks for a view.
    ViewRequest = 7,
    /// A view.
    View = 8,
}

impl Kind {
    const fn new(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Vector,
            2 => Self::Events,
            3 => Self::Request,
            4 => Self::Unavailable,
            5 => Self::SnapshotRequest,
            6 => Self::SnapshotChunk,
            7 => Self::ViewRequest,
            8 => Self::View,
            _ => return None,
        })
    }
}

/// Tags of fields.
mod tag {
    pub(super) const CLOCK: u8 = 1;
    pub(super) const VECTOR: u8 = 2;
    pub(super) const QUESTION: u8 = 3;
    pub(super) const RANGE: u8 = 4;
    pub(super) const EVENTS: u8 = 5;
    pub(super) const CURSOR: u8 = 6;
    pub(super) const DIGEST: u8 = 7;
    pub(super) const VIEW: u8 = 8;
    pub(super) const STANDINGS: u8 = 9;
    pub(super) const HELLO: u8 = 10;
    pub(super) const LIVES: u8 = 11;
}

/// Bits of the field that asks.
pub(crate) const ANSWER: u8 = 1;
pub(crate) const STARTING: u8 = 2;
pub(crate) const ANSWERING: u8 = 4;
/// It asks nothing: the sender has the database.
pub(crate) const READY: u8 = 8;

/// Events `first..=last` of a stream; what `last` means depends on the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Which.
    pub stream: StreamId,
    /// From here.
    pub first: u64,
    /// To here.
    pub last: u64,
}

/// Where in a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotCursor {
    /// Which fetching of a snapshot; chosen by who asks.
    pub id: u32,
    /// First place of the chunk, or the place to go on from.
    pub from: u32,
    /// Place behind the chunk; in a request, how many chunks.
    pub next: u32,
    /// Whether the chunk is the last one.
    pub is_last: bool,
}

/// What a node says of a server in its statement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// It serves nobody here.
    Failed,
    /// Somebody else says that it failed; here nobody knows it.
    Unknown,
}

/// Servers that do not serve at the sender; what is not in it does.
pub type Statement = BTreeMap<(u32, u64), Standing>;

/// How a node proves that a message is of its present life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What the sender wants to hear back before it takes another life of the receiver for the present one; never 0.
    pub challenge: u32,
    /// The challenge that the sender last had from the receiver; 0 = none.
    pub response: u32,
}

/// Members and the lives in which they are; 0 = none is known.
pub type Lives = BTreeMap<NodeId, u32>;

/// A message, checked to its last byte.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// `None`: a kind that this program does not know.
    pub kind: Option<Kind>,
    /// The sender's life.
    pub incarnation: u32,
    /// The sender's clock when it sent it.
    pub sent: u64,
    /// The sender's vector; in a chunk, what the snapshot is up to.
    pub vector: Option<Vector>,
    /// What the sender asks for or answers to: bits.
    pub question: u8,
    /// The range that it is about.
    pub range: Option<Range>,
    /// The place that it is about.
    pub cursor: Option<SnapshotCursor>,
    /// The view asked for.
    pub digest: Option<u64>,
    /// The view.
    pub view: Option<View>,
    /// What the sender says of servers; `None` = nothing.
    pub statement: Option<Statement>,
    /// The proof of the sender's life; `None`: of a version that gives none.
    pub hello: Option<Hello>,
    /// In which lives the sender sees the other members; `None` = it does not say.
    pub lives: Option<Lives>,
    events: Events<'a>,
    /// How many events it has.
    pub count: u64,
}

impl<'a> Message<'a> {
    /// Reads a message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "header");
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let kind = Kind::new(reader.u8()?);
        let mut message = Self {
            kind,
            incarnation: 0,
            sent: 0,
            vector: None,
            question: 0,
            range: None,
            cursor: None,
            digest: None,
            view: None,
            statement: None,
            hello: None,
            lives: None,
            events: Events::new(&[]),
            count: 0,
        };
        let mut has_clock = false;
        while !reader.is_empty() {
            let (tag, content) = reader.field()?;
            match tag {
                tag::CLOCK => {
                    let mut clock = Reader::new(content, "clock");
                    (message.incarnation, message.sent) = (clock.u32()?, clock.u64()?);
                    has_clock = true;
                }
                tag::VECTOR => message.vector = Some(vector(content)?),
                tag::QUESTION => message.question = Reader::new(content, "question").u8()?,
                tag::RANGE => message.range = Some(range(content)?),
                tag::EVENTS => {
                    message.events = Events::new(content);
                    message.count = 0;
                    for event in message.events {
                        event?;
                        message.count += 1;
                    }
                }
                tag::CURSOR => {
                    let mut cursor = Reader::new(content, "cursor");
                    message.cursor = Some(SnapshotCursor {
                        id: cursor.u32()?,
                        from: cursor.u32()?,
                        next: cursor.u32()?,
                        is_last: cursor.u8()? != 0,
                    });
                }
                tag::DIGEST => message.digest = Some(Reader::new(content, "digest").u64()?),
                tag::VIEW => message.view = Some(view(content)?),
                tag::STANDINGS => message.statement = Some(statement(content)?),
                tag::HELLO => {
                    let mut hello = Reader::new(content, "hello");
                    message.hello = Some(Hello { challenge: hello.u32()?, response: hello.u32()? });
                }
                tag::LIVES => message.lives = Some(lives(content)?),
                _ => {}
            }
        }
        if kind.is_some() && !has_clock {
            return Err(Malformed::Missing("clock"));
        }
        Ok(message)
    }

    /// Its events, each with the milliseconds that were left of it when it was sent.
    pub fn events(&self) -> impl Iterator<Item = (Content, u64)> + use<'a> {
        self.told().map(|told| (told.content, told.left))
    }

    /// Its events with all that it says of them.
    pub(crate) fn told(&self) -> impl Iterator<Item = Told> + use<'a> {
        // They were read once already.
        self.events.map_while(Result::ok)
    }
}

fn vector(content: &[u8]) -> Result<Vector, Malformed> {
    let mut entries = Reader::new(content, "vector");
    let mut vector = Vector::default();
    while !entries.is_empty() {
        let len = entries.u8()?;
        let mut entry = Reader::new(entries.take(usize::from(len))?, "vector");
        let stream = StreamId { node: NodeId(entry.u64()?), epoch: entry.u64()? };
        vector.raise(stream, entry.u64()?);
    }
    Ok(vector)
}

fn range(content: &[u8]) -> Result<Range, Malformed> {
    let mut reader = Reader::new(content, "range");
    let stream = StreamId { node: NodeId(reader.u64()?), epoch: reader.u64()? };
    Ok(Range { stream, first: reader.u64()?, last: reader.u64()? })
}

fn view(content: &[u8]) -> Result<View, Malformed> {
    let mut reader = Reader::new(content, "view");
    let service = reader.u32()?;
    let mut members = Vec::new();
    while !reader.is_empty() {
        let len = reader.u8()?;
        let mut member = Reader::new(reader.take(usize::from(len))?, "view");
        members.push(ViewMember {
            number: member.u64()?,
            weight: member.u32()?,
            failover: member.u32()?,
            is_live: member.u8()? != 0,
        });
    }
    Ok(View::new(service, members))
}

fn statement(content: &[u8]) -> Result<Statement, Malformed> {
    let mut reader = Reader::new(content, "statement");
    let mut all = Statement::new();
    while !reader.is_empty() {
        let len = reader.u8()?;
        let mut entry = Reader::new(reader.take(usize::from(len))?, "statement");
        let server = (entry.u32()?, entry.u64()?);
        let standing = match entry.u8()? {
            0 => Standing::Failed,
            1 => Standing::Unknown,
            // Whatever a later version means by it, it is no consent.
            _ => continue,
        };
        all.insert(server, standing);
    }
    Ok(all)
}

fn lives(content: &[u8]) -> Result<Lives, Malformed> {
    let mut reader = Reader::new(content, "lives");
    let mut all = Lives::new();
    while !reader.is_empty() {
        let len = reader.u8()?;
        let mut entry = Reader::new(reader.take(usize::from(len))?, "lives");
        all.insert(NodeId(entry.u64()?), entry.u32()?);
    }
    Ok(all)
}

/// Begins a message in an empty buffer.
pub(crate) fn begin(buffer: &mut Vec<u8>, kind: Kind, incarnation: u32, sent: u64) -> Writer<'_> {
    buffer.clear();
    let mut out = Writer(buffer);
    out.u8(VERSION);
    out.u8(kind as u8);
    out.field(tag::CLOCK, |out| {
        out.u32(incarnation);
        out.u64(sent);
    });
    out
}

impl Writer<'_> {
    pub(crate) fn vector(&mut self, vector: &Vector) {
        self.field(tag::VECTOR, |out| {
            for (stream, event) in vector.iter() {
                out.u8(24);
                out.u64(stream.node.0);
                out.u64(stream.epoch);
                out.u64(event);
            }
        });
    }

    pub(crate) fn question(&mut self, bits: u8) {
        self.field(tag::QUESTION, |out| out.u8(bits));
    }

    pub(crate) fn range(&mut self, range: &Range) {
        self.field(tag::RANGE, |out| {
            out.u64(range.stream.node.0);
            out.u64(range.stream.epoch);
            out.u64(range.first);
            out.u64(range.last);
        });
    }

    pub(crate) fn cursor(&mut self, cursor: &SnapshotCursor) {
        self.field(tag::CURSOR, |out| {
            out.u32(cursor.id);
            out.u32(cursor.from);
            out.u32(cursor.next);
            out.u8(u8::from(cursor.is_last));
        });
    }

    pub(crate) fn digest(&mut self, digest: u64) {
        self.field(tag::DIGEST, |out| out.u64(digest));
    }

    pub(crate) fn view(&mut self, view: &View) {
        self.field(tag::VIEW, |out| {
            out.u32(view.service());
            for member in view.members() {
                out.u8(17);
                out.u64(member.number);
                out.u32(member.weight);
                out.u32(member.failover);
                out.u8(u8::from(member.is_live));
            }
        });
    }

    pub(crate) fn statement<'s>(
        &mut self,
        statement: impl IntoIterator<Item = (&'s (u32, u64), &'s Standing)>,
    ) {
        self.field(tag::STANDINGS, |out| {
            for (&(service, server), standing) in statement {
                out.u8(13);
                out.u32(service);
                out.u64(server);
                out.u8(match standing {
                    Standing::Failed => 0,
                    Standing::Unknown => 1,
                });
            }
        });
    }

    pub(crate) fn hello(&mut self, hello: Hello) {
        self.field(tag::HELLO, |out| {
            out.u32(hello.challenge);
            out.u32(hello.response);
        });
    }

    pub(crate) fn lives(&mut self, lives: &Lives) {
        self.field(tag::LIVES, |out| {
            for (node, &life) in lives {
                out.u8(12);
                out.u64(node.0);
                out.u32(life);
            }
        });
    }

    /// A field of events; the closure writes them one by one, and is told how long the message is already.
    pub(crate) fn events(&mut self, mut next: impl FnMut(usize) -> Option<(Content, u64)>) {
        self.told(|len| next(len).map(|(content, left)| Told { content, left, is_covered: true }));
    }

    /// The same of events that the vector may not cover.
    pub(crate) fn told(&mut self, mut next: impl FnMut(usize) -> Option<Told>) {
        self.field(tag::EVENTS, |out| {
            while let Some(told) = next(out.0.len()) {
                put(out, &told);
            }
        });
    }
}

/// Reads bytes as a message and everything in it: the entry of fuzzing.
pub fn examine(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        let count = message.events().count() as u64;
        assert_eq!(count, message.count, "events change between two readings");
    }
    let _ = super::event(bytes);
}
