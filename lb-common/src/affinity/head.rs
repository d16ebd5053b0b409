//! Reading the head of an HTTP/1 message as its segments come in.
//!
//! Everything that is kept between segments, and between the rounds of the loop, stands in [`Progress`], which lives in
//! map memory: there the verifier knows nothing about it, so it walks through one round and is done. A round takes a
//! line or a part of one: eight bytes at a time, or 32, are searched for its end, and only the beginnings of lines and of
//! cookies are compared.
//!
//! What counts as what:
//! - Lines end with LF, a CR before it is white space (RFC 9112, section 2.2). A line that begins with a space or a tab goes on
//!   with the line before it; in a cookie field it ends a value that it interrupts.
//! - The header's name in any case, no space before its colon (RFC 9112, section 5.1); the cookie's name exactly.
//! - White space around a cookie's name and value does not belong to them. A value goes to the next semicolon, even
//!   within quotes, as browsers and RFC 6265, section 5.2, have it. Quotes around the whole value are taken off: section 4.1.1 counts them
//!   as part of the value, but servers write and read the same value with and without them, and it must be one session.
//! - An empty value is none.

mod reader;
mod state;

use super::bytes::{Bytes, Span};
use crate::abi::AffinityRules;
use reader::Reader;
use state::{State, flag};

/// How far a head has been read.
///
/// Without payloads, and the numbers are those of [`Progress`]' last states.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Head {
    /// More bytes are needed.
    Incomplete = 0,
    /// The empty line has come: [`Progress::end`].
    Complete = 1,
    /// These bytes cannot become an HTTP/1 head; decided at the first byte that proves it.
    NotHttp = 2,
    /// The limit is reached and the head still goes on.
    TooLong = 3,
}

/// The methods that matter: whether a request may be sent twice.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// Any other, or not known yet.
    Other = 0,
    /// GET.
    Get = 1,
    /// HEAD.
    Head = 2,
}

/// What has been read of a head so far; zeroed: nothing.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// A `State`.
    state: u8,
    /// The `State` in which a folded line goes on.
    fold: u8,
    /// A [`Method`].
    method: u8,
    /// Bits of `flag`.
    flags: u8,
    /// The next byte to look at; behind the head when it is complete.
    at: u32,
    /// First byte of the path.
    path_start: u16,
    /// Length of path and query.
    path_len: u16,
    /// First byte of the value found.
    value_start: u16,
    /// Length of the value found; 0 = none.
    value_len: u16,
    /// First byte of the value being read, or of the method.
    pair_start: u16,
    /// Length of the value being read, without what has been cut off.
    pair_len: u16,
    /// Bytes compared of the value being read with the one found.
    compared: u16,
    /// Zero.
    pad: u16,
}

const _: () = assert!(size_of::<Progress>() == 24);

impl Progress {
    /// Length of the complete head, with its empty line and with interim responses before it.
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        self.at
    }
    /// The request's method, once its target has begun.
    #[inline(always)]
    pub const fn method(&self) -> Method {
        match self.method {
            1 => Method::Get,
            2 => Method::Head,
            _ => Method::Other,
        }
    }
    /// The request's path with its query, once it has been read; empty for `*`, for CONNECT and for an absolute target
    /// without a path.
    #[inline(always)]
    pub const fn path(&self) -> Span {
        Span::new(self.path_start as u32, self.path_len as u32)
    }
    /// The cookie's value, trimmed and without quotes; length 0 = none so far.
    ///
    /// Of a request's values the first one counts, of a response's the last one, as in a browser.
    #[inline(always)]
    pub const fn value(&self) -> Span {
        Span::new(self.value_start as u32, self.value_len as u32)
    }
    /// Whether a request carries the cookie with different values.
    #[inline(always)]
    pub const fn several(&self) -> bool {
        self.flags & flag::SEVERAL != 0
    }
    /// Whether [`Head::NotHttp`] is HTTP/2 (RFC 9113, section 3.4).
    #[inline(always)]
    pub const fn http2(&self) -> bool {
        self.flags & flag::HTTP2 != 0
    }
}

/// See `request::scan` and `response::scan`.
#[inline(always)]
pub(super) fn scan<B: Bytes, const RESPONSE: bool>(
    bytes: &B,
    len: u32,
    progress: &mut Progress,
    rules: &AffinityRules,
) -> Head {
    let limit = rules.head_limit as u32;
    let end = len.min(limit);
    let mut reader = Reader::<B, RESPONSE> { bytes, end, progress, rules };
    // A byte is looked at once, and once more as white space at a value's end; the others only change the state.
    // Several rounds a call, for a call is dearer than a round.
    // Two rounds a call, for a call is dearer than a round; one where the verifier has enough to do.
    bytes.repeat(4 * end + 64, |_| reader.round() || !RESPONSE && reader.round());
    let progress = reader.progress;
    match State::from_u8(progress.state) {
        State::Complete => Head::Complete,
        State::NotHttp => Head::NotHttp,
        State::TooLong => Head::TooLong,
        _ if len >= limit => {
            progress.state = State::TooLong as u8;
            Head::TooLong
        }
        _ => Head::Incomplete,
    }
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the fuzz targets read the same file")]
mod model;
#[cfg(test)]
mod tests;
