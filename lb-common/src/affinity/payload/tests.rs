use super::*;
use crate::affinity::Slice;
use core::hash::Hasher;
use proptest::prelude::*;

const SECRET: [u64; 2] = [3, 5];

fn rules(offset: u16, mask: &[u8]) -> AffinityRules {
    let mut rules = AffinityRules { offset, length: mask.len() as u16, ..AffinityRules::default() };
    rules.mask[..mask.len()].copy_from_slice(mask);
    rules
}

fn of(bytes: &[u8], rules: &AffinityRules) -> Option<u64> {
    key(&Slice(bytes), bytes.len() as u32, rules, &SECRET)
}

#[test]
fn short_segments_are_big_endian_numbers() {
    let bytes = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99];
    assert_eq!(of(&bytes, &rules(0, &[0xff])), Some(0x11));
    assert_eq!(of(&bytes, &rules(1, &[0xff; 3])), Some(0x22_33_44));
    assert_eq!(of(&bytes, &rules(1, &[0xff; 8])), Some(0x2233_4455_6677_8899));
    assert_eq!(of(&bytes, &rules(1, &[0x0f, 0, 0xf0])), Some(0x02_00_40));
}

#[test]
fn a_payload_that_ends_too_soon_has_no_key() {
    assert_eq!(of(&[1, 2, 3], &rules(0, &[0xff; 4])), None);
    assert_eq!(of(&[1, 2, 3], &rules(3, &[0xff])), None);
    assert_eq!(of(&[1, 2, 3], &rules(2, &[0xff])), Some(3));
    assert_eq!(of(&[], &rules(u16::MAX, &[0xff; 64])), None);
    assert_eq!(of(&[1, 2, 3], &rules(0, &[])), None);
    let too_long = AffinityRules { length: 65, ..AffinityRules::default() };
    assert_eq!(of(&[0; 100], &too_long), None);
}

proptest! {
    #[test]
    fn long_segments_are_hashed_as_they_are_masked(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        offset in 0..60_u16,
        mask in prop::collection::vec(any::<u8>(), 9..=64),
    ) {
        let expected = bytes.get(offset as usize..offset as usize + mask.len()).map(|segment| {
            let masked: Vec<u8> = segment.iter().zip(&mask).map(|(a, b)| a & b).collect();
            #[expect(deprecated, reason = "the standard library's SipHash-2-4, as an independent reference")]
            let mut hasher = core::hash::SipHasher::new_with_keys(SECRET[0], SECRET[1]);
            hasher.write(&masked);
            hasher.finish()
        });
        prop_assert_eq!(of(&bytes, &rules(offset, &mask)), expected);
    }
}
