//! Texts that packets are compared with, and bytes in hexadecimal.

use super::Text;
use lb_common::abi::{MAX_COOKIE_NAME, MAX_PATH_PREFIX, MAX_PAYLOAD_SEGMENT};

/// The name of a cookie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct CookieName(pub(in super::super) String);

impl Text for CookieName {
    const EXPECTED: &'static str = "the name of a cookie: 1 to 64 letters, digits and !#$%&'*+-.^_`|~";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$");

    fn from_text(text: &str) -> Option<Self> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let fits = (1..=MAX_COOKIE_NAME).contains(&text.len());
        (fits && text.bytes().all(token)).then(|| Self(text.to_owned()))
    }
}

/// A character that may stand in a cookie's value (RFC 6265 section 4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Delimiter(pub(in super::super) u8);

/// Whether a byte may stand in a cookie's value.
const fn stands_in_cookie(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b';' | b'\\')
}

impl Text for Delimiter {
    const EXPECTED: &'static str = "one character that may stand in a cookie, such as \"!\" or \".\", but no quote, comma, semicolon or backslash";
    const PATTERN: Option<&'static str> = Some("^[!#-+\\--:<-\\[\\]-~]$");

    fn from_text(text: &str) -> Option<Self> {
        match text.as_bytes() {
            [byte] if stands_in_cookie(*byte) => Some(Self(*byte)),
            _ => None,
        }
    }
}

/// The text that names a backend in cookies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct RouteText(pub(in super::super) String);

impl Text for RouteText {
    const EXPECTED: &'static str = "1 to 64 characters that may stand in a cookie: no spaces, quotes, commas, semicolons and backslashes";
    const PATTERN: Option<&'static str> = Some("^[!#-+\\--:<-\\[\\]-~]{1,64}$");

    fn from_text(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len());
        (fits && text.bytes().all(stands_in_cookie)).then(|| Self(text.to_owned()))
    }
}

/// What the path of a request begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct PathPrefix(pub(in super::super) String);

impl Text for PathPrefix {
    const EXPECTED: &'static str = "the beginning of a path: `/` and up to 119 characters as clients send them, without spaces, `?` and `#`";
    const PATTERN: Option<&'static str> = Some("^/[!\"$->@-~]{0,119}$");

    fn from_text(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#');
        let fits = text.starts_with('/') && text.len() <= MAX_PATH_PREFIX;
        (fits && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }
}

/// A server's id in QUIC connection ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct ServerIdText(pub(in super::super) Vec<u8>);

impl Text for ServerIdText {
    const EXPECTED: &'static str = "1 to 15 bytes in hexadecimal, two digits each, such as \"0a01\"";
    const PATTERN: Option<&'static str> = Some("^([0-9A-Fa-f]{2}){1,15}$");

    fn from_text(text: &str) -> Option<Self> {
        bytes(text).filter(|bytes| (1..=15).contains(&bytes.len())).map(Self)
    }
}

/// What is kept of the bytes of a payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Mask(pub(in super::super) Vec<u8>);

impl Text for Mask {
    const EXPECTED: &'static str =
        "1 to 64 bytes in hexadecimal, two digits each, not all zero, such as \"ffff00ff\"";
    const PATTERN: Option<&'static str> = Some("^([0-9A-Fa-f]{2}){1,64}$");

    fn from_text(text: &str) -> Option<Self> {
        let mask = bytes(text).filter(|bytes| (1..=MAX_PAYLOAD_SEGMENT).contains(&bytes.len()))?;
        mask.iter().any(|byte| *byte != 0).then_some(Self(mask))
    }
}

/// Bytes from hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_in_a_cookie_is_taken() {
        for good in ["!", ".", "-", "~", "A", ":"] {
            assert!(Delimiter::from_text(good).is_some(), "{good}");
        }
        for bad in ["", "!!", " ", ";", ",", "\"", "\\", "\u{e4}", "\n"] {
            assert!(Delimiter::from_text(bad).is_none(), "{bad:?}");
            assert!(
                RouteText::from_text(&format!("a{bad}b")).is_none() || matches!(bad, "" | "!!"),
                "{bad:?}"
            );
        }
        assert!(CookieName::from_text("JSESSIONID").is_some());
        for bad in ["", "a b", "a=b", "a;b", &"x".repeat(65)] {
            assert!(CookieName::from_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn prefixes_are_beginnings_of_paths() {
        assert!(PathPrefix::from_text("/").is_some());
        assert!(PathPrefix::from_text(&format!("/{}", "x".repeat(119))).is_some());
        for bad in ["", "static/", "/a b", "/a?b", "/a#b", "/\u{e4}", &format!("/{}", "x".repeat(120))] {
            assert!(PathPrefix::from_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn hexadecimal_has_two_digits_a_byte() {
        assert_eq!(ServerIdText::from_text("0aFF"), Some(ServerIdText(vec![10, 255])));
        for bad in ["", "0", "0g", "+1", &"00".repeat(16)] {
            assert_eq!(ServerIdText::from_text(bad), None, "{bad}");
        }
        assert_eq!(Mask::from_text("0000"), None);
        assert_eq!(Mask::from_text("f0"), Some(Mask(vec![0xf0])));
    }
}
