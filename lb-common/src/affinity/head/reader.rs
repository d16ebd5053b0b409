//! The rounds in which a head is read.

use super::state::{SPACE, State, blank, flag, token};
use super::{Method, Progress};
use crate::abi::{AffinityRules, MAX_COOKIE_NAME};
use crate::affinity::bytes::{Bytes, all, below, low_bytes, lowest, may_hold, zeros};
use crate::packet::get;

/// Bytes that one round of a search looks at.
const CHUNK: u32 = 64;
/// Pieces of 32 bytes that one round looks at in a line of no interest.
const CHUNKS: u32 = 4;

/// A text as a word, zeros behind it.
const fn literal(text: &[u8]) -> u64 {
    let (mut word, mut i) = (0, 0);
    while i < text.len() {
        word |= (text[i] as u64) << (8 * i);
        i += 1;
    }
    word
}

/// The bits that lower letters; other bytes are compared as they are.
const fn letters(text: &[u8]) -> u64 {
    let (mut word, mut i) = (0, 0);
    while i < text.len() {
        if text[i].is_ascii_lowercase() {
            word |= 0x20 << (8 * i);
        }
        i += 1;
    }
    word
}

/// A head under way.
pub(super) struct Reader<'a, B, const RESPONSE: bool> {
    pub(super) bytes: &'a B,
    /// Bytes behind this place are not there yet, or past the limit.
    pub(super) end: u32,
    pub(super) progress: &'a mut Progress,
    pub(super) rules: &'a AffinityRules,
}

impl<B: Bytes, const RESPONSE: bool> Reader<'_, B, RESPONSE> {
    /// One round; `true` when there is no more to do.
    #[inline(always)]
    pub(super) fn round(&mut self) -> bool {
        let Some(next) = self.step(State::from_u8(self.progress.state)) else { return true };
        self.progress.state = next as u8;
        false
    }

    /// The state after as much as one round does; `None` when that takes bytes which are not there, or when
    /// the state is final.
    #[inline(always)]
    fn step(&mut self, mut state: State) -> Option<State> {
        let at_end = self.progress.at >= self.end;
        if at_end && state != State::Trim && state != State::Compare {
            return None;
        }
        // What usually follows one upon the other is done in one round.
        if state == State::LineStart {
            state = self.line_start()?;
            self.progress.state = state as u8;
            if self.progress.at >= self.end {
                return None;
            }
        }
        if state == State::PairStart {
            state = self.pair_start()?;
            self.progress.state = state as u8;
            if self.progress.at >= self.end {
                return None;
            }
        }
        match state {
            State::Line => self.line(),
            State::Skip => self.pair(false),
            State::Value => self.pair(true),
            State::LineStart | State::PairStart => Some(state),
            State::ValueStart => self.value_start(),
            State::Trim => Some(self.trim()),
            State::Compare => Some(self.compare()),
            State::NameEnd => Some(self.name_end()),
            State::Start => self.start(),
            State::Method => Some(self.method()),
            State::Target => Some(self.target()),
            State::Authority => Some(self.authority()),
            State::Path => self.path(true),
            State::Pathless => self.path(false),
            State::Version => self.version(),
            State::VersionEnd => self.version_end(),
            State::Status => self.status(),
            State::Complete | State::NotHttp | State::TooLong => None,
        }
    }

    /// Bytes that are there from where the reader stands.
    #[inline(always)]
    fn available(&self) -> u32 {
        self.end.saturating_sub(self.progress.at)
    }

    #[inline(always)]
    fn here(&self) -> u8 {
        self.bytes.byte(self.progress.at)
    }

    /// Moves on by `n` bytes.
    #[inline(always)]
    fn skip(&mut self, n: u32) {
        self.progress.at = self.progress.at.wrapping_add(n);
    }

    /// Whether the `len` bytes here, their letters lowered, are `text`; `None` while they may still become it.
    #[inline(always)]
    fn is(&self, text: u64, lower: u64, len: u32) -> Option<bool> {
        let available = self.available();
        let word = self.bytes.word(self.progress.at) | lower;
        let mask = low_bytes(available.min(len));
        if (word ^ text) & mask != 0 {
            return Some(false);
        }
        (available >= len).then_some(true)
    }

    /// The first place that is not before a byte for which `hits` answers a bit, as far as one round looks.
    #[inline(always)]
    fn search(&self, hits: impl Fn(u64) -> u64) -> u32 {
        let at = self.progress.at;
        let mut i = 0;
        while i < CHUNK {
            let hit = hits(self.bytes.word(at.wrapping_add(i)));
            if hit != 0 {
                return at.wrapping_add(i).wrapping_add(lowest(hit));
            }
            i += 8;
        }
        at.wrapping_add(CHUNK)
    }

    /// Stands at `place`, or waits at the end of what is there.
    #[inline(always)]
    fn reach(&mut self, place: u32) -> Option<u8> {
        if place >= self.end {
            self.progress.at = self.end;
            return None;
        }
        self.progress.at = place;
        Some(self.here())
    }

    // The first line.

    #[inline(always)]
    fn start(&mut self) -> Option<State> {
        if RESPONSE {
            return Some(State::Version);
        }
        let first = self.here();
        if first == b'\r' || first == b'\n' {
            // RFC 9112, section 2.2: empty lines before a request are ignored.
            self.skip(1);
            return Some(State::Start);
        }
        self.progress.pair_start = self.progress.at as u16;
        if self.is(literal(b"GET "), 0, 4) == Some(true) {
            self.progress.method = Method::Get as u8;
            self.skip(4);
            return Some(State::Target);
        }
        if self.is(literal(b"POST "), 0, 5) == Some(true) {
            self.skip(5);
            return Some(State::Target);
        }
        Some(State::Method)
    }

    #[inline(always)]
    fn method(&mut self) -> State {
        let byte = self.here();
        if token(byte) {
            self.skip(1);
            return State::Method;
        }
        let start = self.progress.pair_start as u32;
        let len = self.progress.at.wrapping_sub(start);
        if byte != SPACE || len == 0 {
            return State::NotHttp;
        }
        let word = self.bytes.word(start) & low_bytes(len);
        self.skip(1);
        if word == literal(b"PRI") {
            self.progress.flags |= flag::HTTP2;
            return State::NotHttp;
        }
        if word == literal(b"GET") {
            self.progress.method = Method::Get as u8;
        }
        if word == literal(b"HEAD") {
            self.progress.method = Method::Head as u8;
        }
        State::Target
    }

    #[inline(always)]
    fn target(&mut self) -> State {
        let byte = self.here();
        if byte <= SPACE {
            return State::NotHttp;
        }
        if byte == b'/' {
            self.progress.path_start = self.progress.at as u16;
            return State::Path;
        }
        self.progress.compared = 0;
        State::Authority
    }

    /// `http://authority` before a path; `compared` counts the slashes.
    #[inline(always)]
    fn authority(&mut self) -> State {
        let byte = self.here();
        if byte == b'?' || byte == b'#' || byte <= SPACE {
            return State::Pathless;
        }
        if byte == b'/' {
            let before = self.bytes.byte(self.progress.at.wrapping_sub(1));
            self.progress.compared += 1;
            match self.progress.compared {
                1 if before == b':' => {}
                2 if before == b'/' => {}
                3 => {
                    self.progress.path_start = self.progress.at as u16;
                    return State::Path;
                }
                _ => return State::Pathless,
            }
        }
        self.skip(1);
        State::Authority
    }

    /// To the end of the target.
    #[inline(always)]
    fn path(&mut self, kept: bool) -> Option<State> {
        let place = self.search(|word| below(word, SPACE + 1));
        let byte = self.reach(place)?;
        if byte > SPACE {
            return Some(if kept { State::Path } else { State::Pathless });
        }
        if byte != SPACE {
            return Some(State::NotHttp);
        }
        if kept {
            self.progress.path_len = place.wrapping_sub(self.progress.path_start as u32) as u16;
        }
        self.skip(1);
        Some(State::Version)
    }

    #[inline(always)]
    fn version(&mut self) -> Option<State> {
        if !self.is(literal(b"HTTP/1."), 0, 7)? {
            return Some(State::NotHttp);
        }
        if self.available() < 8 {
            return None;
        }
        if !self.bytes.byte(self.progress.at.wrapping_add(7)).is_ascii_digit() {
            return Some(State::NotHttp);
        }
        self.skip(8);
        Some(if RESPONSE { State::Status } else { State::VersionEnd })
    }

    #[inline(always)]
    fn version_end(&mut self) -> Option<State> {
        let len = if self.here() == b'\n' {
            1
        } else if self.is(literal(b"\r\n"), 0, 2)? {
            2
        } else {
            return Some(State::NotHttp);
        };
        self.skip(len);
        self.progress.fold = State::Line as u8;
        Some(State::LineStart)
    }

    /// The status: a space and three digits, 1xx (but 101) being interim.
    #[inline(always)]
    fn status(&mut self) -> Option<State> {
        let available = self.available();
        let word = self.bytes.word(self.progress.at);
        if word as u8 != SPACE {
            return Some(State::NotHttp);
        }
        let mut i = 1;
        while i < 4 {
            if available <= i {
                return None;
            }
            if !((word >> (8 * i)) as u8).is_ascii_digit() {
                return Some(State::NotHttp);
            }
            i += 1;
        }
        let digits = word & low_bytes(4);
        if (word >> 8) as u8 == b'1' && digits != literal(b" 101") {
            self.progress.flags |= flag::INTERIM;
        }
        self.skip(4);
        Some(State::Line)
    }

    // Header lines.

    #[inline(always)]
    fn line_start(&mut self) -> Option<State> {
        let first = self.here();
        if first == b'\n' {
            return Some(self.head_end(1));
        }
        if first == b'\r' {
            return Some(if self.is(literal(b"\r\n"), 0, 2)? { self.head_end(2) } else { State::Line });
        }
        if first == SPACE || first == b'\t' {
            self.skip(1);
            return Some(State::from_u8(self.progress.fold));
        }
        if self.rules.name_len == 0 || !self.cookie_field()? {
            return Some(State::Line);
        }
        self.skip(if RESPONSE { 11 } else { 7 });
        Some(State::PairStart)
    }

    /// Whether the line is the field that carries cookies.
    #[inline(always)]
    fn cookie_field(&self) -> Option<bool> {
        if !RESPONSE {
            return self.is(literal(b"cookie:"), letters(b"cookie:"), 7);
        }
        if !self.is(literal(b"set-cook"), letters(b"set-cook"), 8)? {
            return Some(false);
        }
        let available = self.available().wrapping_sub(8);
        let word = self.bytes.word(self.progress.at.wrapping_add(8)) | letters(b"ie:");
        if (word ^ literal(b"ie:")) & low_bytes(available.min(3)) != 0 {
            return Some(false);
        }
        (available >= 3).then_some(true)
    }

    #[inline(always)]
    fn head_end(&mut self, len: u32) -> State {
        self.skip(len);
        if RESPONSE && self.progress.flags & flag::INTERIM != 0 {
            self.progress.flags &= !flag::INTERIM;
            return State::Start;
        }
        State::Complete
    }

    #[inline(always)]
    fn line(&mut self) -> Option<State> {
        let place = self.line_end();
        if self.reach(place)? != b'\n' {
            return Some(State::Line);
        }
        self.skip(1);
        self.progress.fold = State::Line as u8;
        Some(State::LineStart)
    }

    /// As `search` for LF, but steps over what has none 32 bytes at a time.
    #[inline(always)]
    fn line_end(&self) -> u32 {
        let mut at = self.progress.at;
        let mut i = 0;
        while i < CHUNKS {
            let words = self.bytes.words(at);
            if may_hold(&words, b'\n') {
                let mut j = 0;
                while j < 4 {
                    let hit = zeros(words[j as usize] ^ all(b'\n'));
                    if hit != 0 {
                        return at.wrapping_add(8 * j).wrapping_add(lowest(hit));
                    }
                    j += 1;
                }
            }
            at = at.wrapping_add(32);
            i += 1;
        }
        at
    }

    // Cookies.

    /// A pair that is not wanted.
    const OTHER: State = if RESPONSE { State::Line } else { State::Skip };

    #[inline(always)]
    fn pair_start(&mut self) -> Option<State> {
        // The one space that usually stands here.
        if self.here() == SPACE {
            self.skip(1);
        }
        let available = self.available();
        if available == 0 {
            return None;
        }
        let first = self.here();
        if blank(first) {
            self.skip(1);
            return Some(State::PairStart);
        }
        if first == b'\n' {
            self.skip(1);
            self.progress.fold = State::PairStart as u8;
            return Some(State::LineStart);
        }
        let at = self.progress.at;
        let len = (self.rules.name_len as u32).min(MAX_COOKIE_NAME as u32);
        let compared = available.min(len);
        let name = self.rules.name.as_ptr();
        let mut i = 0;
        while i < MAX_COOKIE_NAME as u32 {
            let mask = low_bytes(compared.saturating_sub(i));
            if mask == 0 {
                break;
            }
            // SAFETY: the name has so many bytes.
            let wanted = unsafe { get::<u64>(name.add(i as usize)) };
            if (self.bytes.word(at.wrapping_add(i)) ^ wanted) & mask != 0 {
                return Some(Self::OTHER);
            }
            i += 8;
        }
        if available <= len {
            return None;
        }
        self.skip(len);
        Some(self.name_end())
    }

    #[inline(always)]
    fn name_end(&mut self) -> State {
        let byte = self.here();
        if byte == b'=' {
            self.skip(1);
            State::ValueStart
        } else if byte == SPACE || byte == b'\t' {
            self.skip(1);
            State::NameEnd
        } else {
            Self::OTHER
        }
    }

    #[inline(always)]
    fn value_start(&mut self) -> Option<State> {
        let byte = self.reach(self.progress.at)?;
        if byte == SPACE || byte == b'\t' {
            self.skip(1);
            return Some(State::ValueStart);
        }
        self.progress.pair_start = self.progress.at as u16;
        Some(State::Value)
    }

    /// To the end of a pair.
    #[inline(always)]
    fn pair(&mut self, wanted: bool) -> Option<State> {
        let place = self.search(|word| zeros(word ^ all(b'\n')) | zeros(word ^ all(b';')));
        let byte = self.reach(place)?;
        if byte != b'\n' && byte != b';' {
            return Some(if wanted { State::Value } else { State::Skip });
        }
        if !wanted {
            return Some(self.pair_end());
        }
        self.progress.pair_len = place.wrapping_sub(self.progress.pair_start as u32) as u16;
        Some(State::Trim)
    }

    #[inline(always)]
    fn trim(&mut self) -> State {
        let start = self.progress.pair_start as u32;
        let mut len = self.progress.pair_len as u32;
        let mut i = 0;
        while i < 2 {
            if len != 0 && blank(self.bytes.byte(start.wrapping_add(len).wrapping_sub(1))) {
                len -= 1;
            }
            i += 1;
        }
        let last = self.bytes.byte(start.wrapping_add(len).wrapping_sub(1));
        self.progress.pair_len = len as u16;
        if len != 0 && blank(last) {
            return State::Trim;
        }
        if len >= 2 && last == b'"' && self.bytes.byte(start) == b'"' {
            self.progress.pair_start = start.wrapping_add(1) as u16;
            self.progress.pair_len = (len - 2) as u16;
        }
        self.value()
    }

    /// What a value means beside the ones before it.
    #[inline(always)]
    fn value(&mut self) -> State {
        let p = &mut self.progress;
        if RESPONSE || p.value_len == 0 {
            p.value_start = p.pair_start;
            p.value_len = p.pair_len;
        } else if p.pair_len != 0 && p.flags & flag::SEVERAL == 0 {
            if p.pair_len == p.value_len {
                p.compared = 0;
                return State::Compare;
            }
            p.flags |= flag::SEVERAL;
        }
        self.pair_end()
    }

    #[inline(always)]
    fn compare(&mut self) -> State {
        let p = &mut self.progress;
        let (done, len) = (p.compared as u32, p.value_len as u32);
        let first = self.bytes.word((p.value_start as u32).wrapping_add(done));
        let this = self.bytes.word((p.pair_start as u32).wrapping_add(done));
        if (first ^ this) & low_bytes(len.saturating_sub(done)) != 0 {
            p.flags |= flag::SEVERAL;
        } else if done + 8 < len {
            p.compared = (done + 8) as u16;
            return State::Compare;
        }
        self.pair_end()
    }

    /// Behind the byte that ends a pair.
    #[inline(always)]
    fn pair_end(&mut self) -> State {
        let byte = self.here();
        self.skip(1);
        if byte == b'\n' {
            self.progress.fold = Self::OTHER as u8;
            State::LineStart
        } else if RESPONSE {
            State::Line
        } else {
            State::PairStart
        }
    }
}
