use super::*;
use crate::affinity::Slice;
use core::hash::Hasher;
use proptest::prelude::*;

const SECRET: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

fn reference(bytes: &[u8]) -> u64 {
    #[expect(deprecated, reason = "the standard library's SipHash-2-4, as an independent reference")]
    let mut hasher = core::hash::SipHasher::new_with_keys(SECRET[0], SECRET[1]);
    hasher.write(bytes);
    hasher.finish()
}

#[test]
fn keys_are_the_siphash_of_the_text() {
    let bytes: Vec<u8> = (0..2_000_u32).map(|i| (i * 7) as u8).collect();
    for start in [0, 1, 5, 8] {
        for len in 0..=LONGEST {
            let text = &bytes[start as usize..(start + len) as usize];
            assert_eq!(key(&Slice(&bytes), Span::new(start, len), &SECRET), reference(text), "{len} bytes");
        }
    }
}

#[test]
fn of_longer_texts_the_bound_and_the_length_count() {
    let mut bytes = vec![b'a'; 4_000];
    for len in [LONGEST + 1, LONGEST + 7, LONGEST + 8, 4_000] {
        let mut message = bytes[..LONGEST as usize].to_vec();
        message.extend(u64::from(len).to_le_bytes());
        assert_eq!(key(&Slice(&bytes), Span::new(0, len), &SECRET), reference(&message));
    }
    let before = key(&Slice(&bytes), Span::new(0, 2_000), &SECRET);
    bytes[LONGEST as usize] = b'b';
    assert_eq!(key(&Slice(&bytes), Span::new(0, 2_000), &SECRET), before);
    bytes[LONGEST as usize - 1] = b'b';
    assert_ne!(key(&Slice(&bytes), Span::new(0, 2_000), &SECRET), before);
}

proptest! {
    #[test]
    fn any_text_is_hashed(bytes in prop::collection::vec(any::<u8>(), 0..300), start: u32, len: u32) {
        key(&Slice(&bytes), Span::new(start, len), &SECRET);
        let whole = key(&Slice(&bytes), Span::new(0, bytes.len() as u32), &SECRET);
        prop_assert_eq!(whole, reference(&bytes));
    }
}
