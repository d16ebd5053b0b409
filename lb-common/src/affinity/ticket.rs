//! Cookie segments that the product issues itself, and that nobody else can make.
//!
//! A ticket is 24 characters of base64url (RFC 4648, section 5) without padding, which are 18 bytes:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | kind: 1 a pair, 2 a route |
//! | 1 | bits 7..1: key id; bit 0: of a pair, the larger number stands first |
//! | 2..10 | the sum of two server numbers, or the mark of a route; big-endian |
//! | 10..18 | MAC, big-endian |
//!
//! The MAC is SipHash-2-4 under the segment secret with that key id over 16 bytes: the service's id (4 bytes,
//! little-endian), bytes 0 and 1, two zeros, and the number (8 bytes, little-endian). It is not bound to what else
//! the cookie carries: applications change their session id while the servers that hold the session stay (after a login
//! they must), and a client that has two sessions may use either whole, so binding would keep nobody from anything.

use super::bytes::{Bytes, Span, TOPS, all};
use super::siphash::siphash;
use crate::abi::SegmentKey;

/// Characters of a ticket.
pub const LENGTH: usize = 24;
/// Key ids are below this.
pub const KEYS: u32 = 128;

/// What a ticket is about.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The sum of two server numbers.
    Pair = 1,
    /// The mark of a route.
    Route = 2,
}

/// A ticket as it was read, its MAC not checked yet.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ticket {
    /// The sum or the mark.
    pub number: u64,
    /// The MAC.
    pub mac: u64,
    /// Byte 0: a [`Kind`], or anything.
    pub kind: u8,
    /// Byte 1: key id and order.
    pub tag: u8,
    /// Zero.
    pub pad: [u8; 6],
}

/// What became of a segment that should have been a ticket.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Check {
    /// It has not the form of a ticket of that kind.
    Absent = 0,
    /// It has the form, but no key that is known made it.
    Forged = 1,
    /// The product made it.
    Genuine = 2,
}

impl Ticket {
    /// Key id of its MAC.
    #[inline(always)]
    pub const fn key(&self) -> u8 {
        self.tag >> 1
    }
    /// Whether the larger of the two numbers stands first.
    #[inline(always)]
    pub const fn larger_first(&self) -> bool {
        self.tag & 1 != 0
    }

    /// Reads a text that has the form of a ticket, and says whether it has.
    #[inline(always)]
    pub fn read<B: Bytes>(&mut self, bytes: &B, text: Span) -> bool {
        if text.len != LENGTH as u32 {
            return false;
        }
        let mut valid = TOPS;
        let mut part = |i: u32| {
            let (values, known) = sextets(bytes.word(text.start.wrapping_add(8 * i)));
            valid &= known;
            packed(values)
        };
        let (first, middle, last) = (part(0), part(1), part(2));
        self.kind = (first >> 40) as u8;
        self.tag = (first >> 32) as u8;
        self.number = first << 32 | middle >> 16;
        self.mac = middle << 48 | last;
        self.pad = [0; 6];
        valid == TOPS
    }

    /// The MAC that it should have.
    #[inline(always)]
    fn seal(&self, service: u32, secret: &[u64; 2]) -> u64 {
        let head = service as u64 | (self.kind as u64) << 32 | (self.tag as u64) << 40;
        siphash(secret, &[head, self.number], 0, 16)
    }
}

/// Reads `text` as a ticket of that kind for a service (its id) and checks the MAC.
///
/// What `ticket` says may be believed when the answer is [`Check::Genuine`].
#[inline(always)]
pub fn check<B: Bytes>(
    bytes: &B,
    text: Span,
    kind: Kind,
    service: u32,
    keys: &[SegmentKey; 2],
    ticket: &mut Ticket,
) -> Check {
    if !ticket.read(bytes, text) || ticket.kind != kind as u8 {
        return Check::Absent;
    }
    let id = ticket.key() as u32;
    let key = if keys[0].valid != 0 && keys[0].id == id {
        &keys[0].key
    } else if keys[1].valid != 0 && keys[1].id == id {
        &keys[1].key
    } else {
        return Check::Forged;
    };
    // The difference as a whole, so that the time does not tell how many bytes were right.
    if ticket.seal(service, key) ^ ticket.mac == 0 { Check::Genuine } else { Check::Forged }
}

/// Makes a ticket for a service (its id) under a key; of the key id only seven bits count.
///
/// `larger_first` is the order of a pair, and false for routes.
pub fn issue(
    kind: Kind,
    number: u64,
    larger_first: bool,
    service: u32,
    key: u8,
    secret: &[u64; 2],
) -> [u8; LENGTH] {
    let tag = key << 1 | larger_first as u8;
    let mut ticket = Ticket { number, mac: 0, kind: kind as u8, tag, pad: [0; 6] };
    ticket.mac = ticket.seal(service, secret);
    let parts = [
        (ticket.kind as u64) << 40 | (tag as u64) << 32 | number >> 32,
        (number & 0xffff_ffff) << 16 | ticket.mac >> 48,
        ticket.mac & 0xffff_ffff_ffff,
    ];
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = [0; LENGTH];
    for (i, character) in text.iter_mut().enumerate() {
        *character = ALPHABET[(parts[i / 8] >> (42 - 6 * (i % 8))) as usize & 63];
    }
    text
}

/// The values of eight characters at once, and the top bits of those that are in the alphabet.
#[inline(always)]
fn sextets(word: u64) -> (u64, u64) {
    // With the top bit set nothing is borrowed from the byte above.
    let from = |least: u8| (word | TOPS) - all(least);
    let between = |least: u8, last: u8| from(least) & !from(last + 1) & !word & TOPS;
    let spread = |tops: u64| (tops >> 7) * 0xff;
    let (upper, lower, digit) = (between(b'A', b'Z'), between(b'a', b'z'), between(b'0', b'9'));
    let (minus, line) = (between(b'-', b'-'), between(b'_', b'_'));
    let shifted = |tops: u64, by: u64| (word & spread(tops)).wrapping_add(by & spread(tops));
    let down = |tops: u64, by: u8| (word & spread(tops)) - (all(by) & spread(tops));
    let values = down(upper, b'A')
        | down(lower, b'a' - 26)
        | shifted(digit, all(52 - b'0'))
        | all(62) & spread(minus)
        | all(63) & spread(line);
    (values, upper | lower | digit | minus | line)
}

/// Eight values of six bits as one number, the lowest byte foremost.
#[inline(always)]
const fn packed(values: u64) -> u64 {
    let mut number = 0;
    let mut i = 0;
    while i < 8 {
        number = number << 6 | (values >> (8 * i)) & 63;
        i += 1;
    }
    number
}

#[cfg(test)]
mod tests;
