//! The wire format of mirrored connections; `docs/replication.md` describes it.
//!
//! Frames are those of [`crate::sync::wire`], with kinds and tags of their own: programs that do not mirror ignore them.

use super::record::{Record, Splice};
use crate::sync::wire::{Malformed, Reader, VERSION, Writer};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

/// Flows that began, changed, or ended.
const FLOWS: u8 = 32;
/// A message was missed: tell everything once more.
const AGAIN: u8 = 33;

/// Tags of fields.
mod tag {
    pub(super) const WALK: u8 = 1;
    pub(super) const RECORDS: u8 = 2;
    pub(super) const ENDS: u8 = 3;
}

/// The longest record, its length included.
pub const MAX_RECORD: usize = 124;
/// Bits of a walk.
const FIRST: u8 = 1;
const LAST: u8 = 2;
const HEIR: u8 = 4;
/// Bits of a record's state.
const CLOSING: u8 = 0x80;
const OWN: u8 = 0x40;
const TAGS: u8 = 0x20;
const KNOWN_FLAGS: u8 = 0x0f;
const SPLICED: u8 = 0x08;

/// Which message of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Walk {
    /// Chosen by the owner; another one for each walk through all flows.
    pub number: u64,
    /// Number of the message in it, from 0.
    pub sequence: u64,
    /// Everything that was told before counts only if it is told again.
    pub is_first: bool,
    /// All that there is has been told.
    pub is_last: bool,
    /// The receiver was dead, and what it would have got came to the sender.
    pub is_heir: bool,
}

/// A message, checked to its last byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Flows of the sender.
    Flows {
        /// Where it stands among others.
        walk: Walk,
        /// Flows as they are now.
        records: Vec<Record>,
        /// Flows that are over.
        ends: Vec<u64>,
    },
    /// A message was missed.
    Again,
}

/// Whether a message is about mirrored connections.
pub fn is_about(bytes: &[u8]) -> bool {
    matches!(bytes.get(1), Some(&(FLOWS | AGAIN)))
}

/// Whether a message only asks for everything once more.
pub fn is_again(bytes: &[u8]) -> bool {
    bytes == again()
}

/// Reads a message.
pub fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
    let mut reader = Reader::new(bytes, "header");
    let version = reader.u8()?;
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    match reader.u8()? {
        FLOWS => {}
        AGAIN => return Ok(Message::Again),
        _ => return Err(Malformed::Range("kind")),
    }
    let (mut walk, mut records, mut ends) = (None, Vec::new(), Vec::new());
    while !reader.is_empty() {
        let (tag, content) = reader.field()?;
        match tag {
            tag::WALK => walk = Some(read_walk(content)?),
            tag::RECORDS => records = read_records(content)?,
            tag::ENDS => {
                let (all, rest) = content.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(Malformed::Short("ends"));
                }
                ends = all.iter().map(|id| u64::from_le_bytes(*id)).collect();
            }
            // Of a version to come.
            _ => {}
        }
    }
    Ok(Message::Flows { walk: walk.ok_or(Malformed::Missing("walk"))?, records, ends })
}

/// Writes a message about flows; `records` are what [`put_record`] wrote.
pub(super) fn flows(walk: &Walk, records: &[u8], ends: &[u64]) -> Vec<u8> {
    let mut bytes = vec![VERSION, FLOWS];
    let mut writer = Writer(&mut bytes);
    writer.field(tag::WALK, |field| {
        field.u64(walk.number);
        field.u64(walk.sequence);
        let bits = [(walk.is_first, FIRST), (walk.is_last, LAST), (walk.is_heir, HEIR)];
        field.u8(set(&bits));
    });
    if !records.is_empty() {
        writer.field(tag::RECORDS, |field| field.0.extend_from_slice(records));
    }
    if !ends.is_empty() {
        writer.field(tag::ENDS, |field| ends.iter().for_each(|id| field.u64(*id)));
    }
    bytes
}

/// Writes a message that asks for everything once more.
pub(super) fn again() -> Vec<u8> {
    vec![VERSION, AGAIN]
}

/// Appends a record.
pub(super) fn put_record(record: &Record, bytes: &mut Vec<u8>) {
    let at = bytes.len();
    let mut writer = Writer(bytes);
    writer.u8(0);
    writer.u64(record.id);
    writer.u32(record.service);
    writer.u64(record.server);
    writer.u64(record.session);
    let bits = [(record.is_closing, CLOSING), (record.is_own, OWN), (record.has_tags, TAGS)];
    writer.u8(record.flags & KNOWN_FLAGS | set(&bits));
    writer.u32(u32::try_from(record.idle.as_millis()).unwrap_or(u32::MAX));
    writer.u8(if record.client.0.is_ipv4() { 4 } else { 6 });
    for (address, port) in [record.client, record.service_address, record.backend, record.source] {
        match address {
            IpAddr::V4(address) => writer.0.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => writer.0.extend_from_slice(&address.octets()),
        }
        writer.0.extend_from_slice(&port.to_le_bytes());
    }
    if let Some(splice) = &record.splice {
        writer.u32(splice.answer);
        writer.u32(splice.isn);
        writer.u32(splice.start);
        writer.u8(splice.client_scale);
        writer.u8(splice.server_scale);
        writer.0.extend_from_slice(&splice.readers.to_le_bytes());
    }
    bytes[at] = u8::try_from(bytes.len() - at - 1).expect("a record has at most 123 bytes");
}

/// Those bits that are set.
fn set(bits: &[(bool, u8)]) -> u8 {
    bits.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, bit)| all | bit)
}

fn read_walk(content: &[u8]) -> Result<Walk, Malformed> {
    let mut reader = Reader::new(content, "walk");
    let (number, sequence, bits) = (reader.u64()?, reader.u64()?, reader.u8()?);
    let has = |bit: u8| bits & bit != 0;
    Ok(Walk { number, sequence, is_first: has(FIRST), is_last: has(LAST), is_heir: has(HEIR) })
}

fn read_records(content: &[u8]) -> Result<Vec<Record>, Malformed> {
    let mut reader = Reader::new(content, "records");
    let mut records = Vec::new();
    while !reader.is_empty() {
        let len = usize::from(reader.u8()?);
        records.push(read_record(reader.take(len)?)?);
    }
    Ok(records)
}

/// What is behind what is known of a record is of a version to come.
fn read_record(content: &[u8]) -> Result<Record, Malformed> {
    let mut reader = Reader::new(content, "record");
    let (id, service, server, session) = (reader.u64()?, reader.u32()?, reader.u64()?, reader.u64()?);
    let (state, idle, family) = (reader.u8()?, reader.u32()?, reader.u8()?);
    let is_v4 = match family {
        4 => true,
        6 => false,
        _ => return Err(Malformed::Range("family")),
    };
    let mut ends = [(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0); 4];
    for end in &mut ends {
        let address = match is_v4 {
            true => IpAddr::from(Ipv4Addr::from(reader.array::<4>()?)),
            // A mapped one would be taken for an IPv4 address in the tables.
            false => match Ipv6Addr::from(reader.array::<16>()?) {
                mapped if mapped.to_ipv4_mapped().is_some() => return Err(Malformed::Range("address")),
                address => address.into(),
            },
        };
        *end = (address, u16::from_le_bytes(reader.array()?));
    }
    let [client, service_address, backend, source] = ends;
    let splice = match state & SPLICED != 0 {
        false => None,
        true => Some(Splice {
            answer: reader.u32()?,
            isn: reader.u32()?,
            start: reader.u32()?,
            client_scale: scale(reader.u8()?)?,
            server_scale: scale(reader.u8()?)?,
            readers: u16::from_le_bytes(reader.array()?),
        }),
    };
    Ok(Record {
        id,
        service,
        server,
        session,
        is_closing: state & CLOSING != 0,
        flags: state & KNOWN_FLAGS,
        is_own: state & OWN != 0,
        has_tags: state & TAGS != 0,
        idle: Duration::from_millis(idle.into()),
        client,
        service_address,
        backend,
        source,
        splice,
    })
}

/// A window scale: at most 14 (RFC 7323), or 15 for none.
fn scale(byte: u8) -> Result<u8, Malformed> {
    if byte <= lb_common::abi::Flow::NO_SCALE { Ok(byte) } else { Err(Malformed::Range("scale")) }
}

/// Reads a message and, if it is one, writes it and reads it once more: the entry of fuzzing.
pub fn examine(bytes: &[u8]) {
    let Ok(Message::Flows { walk, records, ends }) = parse(bytes) else { return };
    let mut written = Vec::new();
    for record in &records {
        let before = written.len();
        put_record(record, &mut written);
        assert!(written.len() - before <= MAX_RECORD, "a record is longer than it may be");
    }
    let again = parse(&flows(&walk, &written, &ends));
    assert_eq!(again, Ok(Message::Flows { walk, records, ends }), "what is written is read otherwise");
}
