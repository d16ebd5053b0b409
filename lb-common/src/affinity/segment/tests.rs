use super::*;
use crate::affinity::Slice;
use proptest::prelude::*;

fn of(value: &[u8], delimiter: u8, index: u8) -> Vec<u8> {
    // Other bytes around it, delimiters among them, that must not be seen.
    let bytes = [b"!.x!".as_slice(), value, b"!.!..!!"].concat();
    let span = part(&Slice(&bytes), Span::new(4, value.len() as u32), delimiter, index);
    bytes[span.start as usize..span.end() as usize].to_vec()
}

#[test]
fn parts_are_counted_from_0() {
    let value = b"0123456789abcdefghijklmnopqrstuvwxyz!-1406854532!1098765432";
    assert_eq!(of(value, b'!', 0), b"0123456789abcdefghijklmnopqrstuvwxyz");
    assert_eq!(of(value, b'!', 1), b"-1406854532");
    assert_eq!(of(value, b'!', 2), b"1098765432");
    assert_eq!(of(value, b'!', 3), b"");
    assert_eq!(of(value, 0, 7), value);
    assert_eq!(of(b"ID.route", b'.', 1), b"route");
    assert_eq!(of(b"ID", b'.', 0), b"ID");
    assert_eq!(of(b"ID", b'.', 1), b"");
    assert_eq!(of(b"ID.", b'.', 1), b"");
    assert_eq!(of(b"", b'.', 0), b"");
}

proptest! {
    #[test]
    fn parts_are_those_of_a_split(value in prop::collection::vec(prop::sample::select(b"ab!.".to_vec()), 0..120), index in 0..8_u8) {
        let expected = value.split(|b| *b == b'!').nth(index as usize).unwrap_or(&[]);
        prop_assert_eq!(of(&value, b'!', index), expected);
    }

    #[test]
    fn any_span_is_read(bytes: Vec<u8>, start: u32, len in 0..20_000_u32, delimiter: u8, index: u8) {
        let value = Span::new(start, len);
        let span = part(&Slice(&bytes), value, delimiter, index);
        prop_assert!(span.len <= len);
    }
}
