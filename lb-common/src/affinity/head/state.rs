//! Where the reader stands, and which bytes matter to it.

/// Bits of [`super::Progress`]' flags.
pub(super) mod flag {
    /// The cookie has come with different values.
    pub(in super::super) const SEVERAL: u8 = 1 << 0;
    /// HTTP/2's preface.
    pub(in super::super) const HTTP2: u8 = 1 << 1;
    /// The response being read is an interim one.
    pub(in super::super) const INTERIM: u8 = 1 << 2;
}

/// Where the reader stands. The last three are final.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Before the first line.
    Start = 0,
    /// In the method.
    Method,
    /// Before the target.
    Target,
    /// In what stands before the path of an absolute target.
    Authority,
    /// In the path or the query.
    Path,
    /// In a target that has no path.
    Pathless,
    /// At the protocol's name.
    Version,
    /// Behind the protocol's version in a request.
    VersionEnd,
    /// Behind the protocol's version in a response.
    Status,
    /// At the first byte of a header line, or of the empty one.
    LineStart,
    /// In a line of which nothing is wanted any more.
    Line,
    /// In a cookie field, before a name.
    PairStart,
    /// In a cookie field, behind the wanted name.
    NameEnd,
    /// Behind the wanted name's equals sign.
    ValueStart,
    /// In the wanted cookie's value.
    Value,
    /// At the value's end, taking white space off.
    Trim,
    /// At the value's end, comparing it with the first one.
    Compare,
    /// In a cookie field, in a pair that is not the wanted one.
    Skip,
    /// The head is complete.
    Complete,
    /// Not HTTP/1.
    NotHttp,
    /// Longer than allowed.
    TooLong,
}

impl State {
    /// The state with that number; a number that nobody wrote is final.
    #[inline(always)]
    pub(super) const fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Start,
            1 => Self::Method,
            2 => Self::Target,
            3 => Self::Authority,
            4 => Self::Path,
            5 => Self::Pathless,
            6 => Self::Version,
            7 => Self::VersionEnd,
            8 => Self::Status,
            9 => Self::LineStart,
            10 => Self::Line,
            11 => Self::PairStart,
            12 => Self::NameEnd,
            13 => Self::ValueStart,
            14 => Self::Value,
            15 => Self::Trim,
            16 => Self::Compare,
            17 => Self::Skip,
            18 => Self::Complete,
            20 => Self::TooLong,
            _ => Self::NotHttp,
        }
    }
}

/// Method, target and version end with it.
pub(super) const SPACE: u8 = b' ';

/// Whether a byte is white space within a line.
#[inline(always)]
pub(super) const fn blank(byte: u8) -> bool {
    byte == SPACE || byte == b'\t' || byte == b'\r'
}

/// Whether a byte may stand in a method (a token of RFC 9110, section 5.6.2).
#[inline(always)]
pub(super) const fn token(byte: u8) -> bool {
    const UPPER: u64 = set(64);
    const LOWER: u64 = set(0);
    if byte >= 128 {
        return false;
    }
    let bits = if byte >= 64 { UPPER } else { LOWER };
    bits >> (byte & 63) & 1 != 0
}

/// The bytes from `base` on that may stand in a token, as bits.
const fn set(base: u8) -> u64 {
    let text = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (mut bits, mut i) = (0, 0);
    while i < text.len() {
        if text[i] & 64 == base {
            bits |= 1 << (text[i] & 63);
        }
        i += 1;
    }
    bits
}
