use super::*;
use crate::abi::Be16;
use core::hash::Hasher;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

const SECRET: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

#[test]
fn siphash_meets_the_vectors_of_its_paper() {
    // Appendix A: key 00..0f, message 00..0e (15 bytes).
    assert_eq!(siphash(&SECRET, &[0x0706_0504_0302_0100], 0x000e_0d0c_0b0a_0908, 15), 0xa129_ca61_49be_45e5);
    // From the reference implementation's table: the empty message.
    assert_eq!(siphash(&SECRET, &[], 0, 0), 0x726f_db47_dd0e_0e31);
}

#[test]
fn short_prefixes_stand_as_they_are() {
    let v4 = Addr::from(Ipv4Addr::new(192, 0, 2, 77));
    assert_eq!(source(&v4, 32, 64, &SECRET), 0xc000_024d);
    assert_eq!(source(&v4, 24, 64, &SECRET), 0xc000_0200);
    assert_eq!(source(&v4, 1, 64, &SECRET), 0x8000_0000);
    let v6 = Addr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6));
    assert_eq!(source(&v6, 32, 64, &SECRET), 0x2001_0db8_0001_0002);
    assert_eq!(source(&v6, 32, 48, &SECRET), 0x2001_0db8_0001_0000);
}

#[test]
fn long_prefixes_are_hashed_without_the_bits_behind_them() {
    let one = Addr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6));
    let other = Addr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 7));
    assert_eq!(source(&one, 32, 127, &SECRET), source(&other, 32, 127, &SECRET));
    assert_ne!(source(&one, 32, 128, &SECRET), source(&other, 32, 128, &SECRET));
    #[expect(deprecated, reason = "the standard library's SipHash-2-4, as an independent reference")]
    let mut reference = core::hash::SipHasher::new_with_keys(SECRET[0], SECRET[1]);
    reference.write(&one.octets());
    assert_eq!(source(&one, 32, 128, &SECRET), reference.finish());
}

proptest! {
    #[test]
    fn connections_hash_their_37_bytes(s: [u8; 16], d: [u8; 16], sp: u16, dp: u16, protocol: u8) {
        let key = FlowKey {
            source: Ipv6Addr::from(s).into(),
            destination: Ipv6Addr::from(d).into(),
            source_port: Be16::new(sp),
            destination_port: Be16::new(dp),
            protocol,
            pad: [0; 3],
        };
        let mut bytes = s.to_vec();
        bytes.extend(d);
        bytes.extend(sp.to_be_bytes());
        bytes.extend(dp.to_be_bytes());
        bytes.push(protocol);
        #[expect(deprecated, reason = "the standard library's SipHash-2-4, as an independent reference")]
        let mut reference = core::hash::SipHasher::new_with_keys(SECRET[0], SECRET[1]);
        reference.write(&bytes);
        prop_assert_eq!(connection(&key, &SECRET), reference.finish());
    }
}
