use super::*;
use crate::affinity::Slice;
use proptest::prelude::*;

const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
const KEYS_IN_USE: [SegmentKey; 2] =
    [SegmentKey { key: SECRET, id: 9, valid: 1 }, SegmentKey { key: [1, 2], id: 127, valid: 1 }];

fn checked(text: &[u8], kind: Kind, service: u32, keys: &[SegmentKey; 2]) -> (Check, Ticket) {
    let mut ticket = Ticket::default();
    let bytes = [b"AAA".as_slice(), text, b"AAAAAAAAAAAAAAAA"].concat();
    let check =
        super::check(&Slice(&bytes), Span::new(3, text.len() as u32), kind, service, keys, &mut ticket);
    (check, ticket)
}

/// The bytes of base64url, by the book.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for character in text {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits.extend((0..6).rev().map(|i| value >> i & 1));
    }
    Some(bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |n, bit| n << 1 | bit)).collect())
}

#[test]
fn a_ticket_is_laid_out_as_its_table_says() {
    let text = issue(Kind::Pair, 0x1122_3344_5566_7788, true, 77, 9, &SECRET);
    let bytes = decoded(&text).unwrap();
    assert_eq!(bytes[..10], [1, 9 << 1 | 1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
    use core::hash::Hasher;
    #[expect(deprecated, reason = "the standard library's SipHash-2-4, as an independent reference")]
    let mut hasher = core::hash::SipHasher::new_with_keys(SECRET[0], SECRET[1]);
    hasher.write(&77_u32.to_le_bytes());
    hasher.write(&[1, 9 << 1 | 1, 0, 0]);
    hasher.write(&0x1122_3344_5566_7788_u64.to_le_bytes());
    assert_eq!(bytes[10..18], hasher.finish().to_be_bytes());
}

#[test]
fn a_ticket_is_the_one_that_another_encoder_makes() {
    // Made from the module's table in another language, SipHash included.
    let sum = 0x9e37_79b9_7f4a_7c15_u64.wrapping_add(0xfedc_ba98_7654_3210);
    assert_eq!(&issue(Kind::Pair, sum, false, 7, 3, &[1, 2]), b"AQadFDRR9Z6uJfyijmu0JUIz");
}

#[test]
fn either_key_is_accepted_and_no_other() {
    let [first, second] = KEYS_IN_USE;
    let by = |key: SegmentKey| issue(Kind::Route, 5, false, 1, key.id as u8, &key.key);
    let gone = SegmentKey::default();
    for (text, keys, expected) in [
        (by(first), [first, second], Check::Genuine),
        (by(second), [first, second], Check::Genuine),
        (by(second), [second, first], Check::Genuine),
        (by(second), [first, gone], Check::Forged),
        (by(first), [gone, first], Check::Genuine),
        (by(first), [SegmentKey { valid: 0, ..first }, second], Check::Forged),
        (by(first), [SegmentKey { key: [0, 0], ..first }, second], Check::Forged),
        (by(SegmentKey { id: 0, key: [0, 0], valid: 1 }), [gone, gone], Check::Forged),
    ] {
        assert_eq!(checked(&text, Kind::Route, 1, &keys).0, expected);
    }
}

#[test]
fn what_has_not_the_form_is_absent_and_what_has_it_is_forged() {
    let text = issue(Kind::Pair, 5, false, 1, 9, &SECRET);
    assert_eq!(checked(&text, Kind::Pair, 1, &KEYS_IN_USE).0, Check::Genuine);
    assert_eq!(checked(&text, Kind::Pair, 2, &KEYS_IN_USE).0, Check::Forged);
    assert_eq!(checked(&text, Kind::Route, 1, &KEYS_IN_USE).0, Check::Absent);
    for other in [b"".as_slice(), &text[1..], &[text.as_slice(), b"A"].concat(), b"JSESSIONID.route-number1"]
    {
        assert_eq!(checked(other, Kind::Pair, 1, &KEYS_IN_USE).0, Check::Absent, "{other:?}");
    }
}

proptest! {
    #[test]
    fn what_is_issued_is_read(number: u64, larger_first: bool, service: u32, second: bool, pair: bool) {
        let key = KEYS_IN_USE[second as usize];
        let kind = if pair { Kind::Pair } else { Kind::Route };
        let text = issue(kind, number, larger_first, service, key.id as u8, &key.key);
        let (check, ticket) = checked(&text, kind, service, &KEYS_IN_USE);
        prop_assert_eq!(check, Check::Genuine);
        prop_assert_eq!((ticket.number, ticket.larger_first()), (number, larger_first));
        prop_assert_eq!(ticket.key() as u32, key.id);
    }

    #[test]
    fn a_changed_ticket_is_not_genuine(number: u64, place in 0..LENGTH, byte: u8) {
        let mut text = issue(Kind::Pair, number, true, 1, 9, &SECRET);
        prop_assume!(text[place] != byte);
        text[place] = byte;
        prop_assert_ne!(checked(&text, Kind::Pair, 1, &KEYS_IN_USE).0, Check::Genuine);
    }

    #[test]
    fn characters_are_decoded_by_the_book(text: [u8; LENGTH]) {
        let mut ticket = Ticket::default();
        let formed = ticket.read(&Slice(&text), Span::new(0, LENGTH as u32));
        let expected = decoded(&text);
        prop_assert_eq!(formed, expected.is_some());
        if let Some(bytes) = expected {
            prop_assert_eq!((ticket.kind, ticket.tag), (bytes[0], bytes[1]));
            prop_assert_eq!(ticket.number.to_be_bytes().to_vec(), bytes[2..10].to_vec());
            prop_assert_eq!(ticket.mac.to_be_bytes().to_vec(), bytes[10..].to_vec());
        }
    }
}

#[test]
fn every_byte_is_in_the_alphabet_or_not() {
    for byte in 0..=255 {
        for place in 0..LENGTH {
            let mut text = [b'A'; LENGTH];
            text[place] = byte;
            let mut ticket = Ticket::default();
            let formed = ticket.read(&Slice(&text), Span::new(0, LENGTH as u32));
            assert_eq!(formed, decoded(&text).is_some(), "{byte:#x} at {place}");
        }
    }
}
