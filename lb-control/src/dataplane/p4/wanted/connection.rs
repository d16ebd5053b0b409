//! Server ids of QUIC connection ids, from the marks that the tables have them by.

/// What `mix` of the marks multiplies by, and its inverse modulo 2^64.
const INVERSE: u64 = inverse(0xd6e8_feb8_6659_fd93);

/// Newton's iteration doubles the correct low bits of an odd number's inverse.
const fn inverse(of: u64) -> u64 {
    let mut found = of;
    let mut round = 0;
    while round < 6 {
        found = found.wrapping_mul(2_u64.wrapping_sub(of.wrapping_mul(found)));
        round += 1;
    }
    found
}

const fn unmix(n: u64) -> u64 {
    let n = (n ^ n >> 32).wrapping_mul(INVERSE);
    let n = (n ^ n >> 32).wrapping_mul(INVERSE);
    n ^ n >> 32
}

const fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let n = (n ^ n >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    n ^ n >> 32
}

/// The server id of at most eight bytes that has this mark, behind the first octet of 120 bits.
pub(super) fn server_id(mark: u64, len: u8) -> u128 {
    // The mark is mix(mix(second word | length << 56) ^ first word), a bijection of each word.
    let first = unmix(mark) ^ mix(u64::from(len) << 56);
    // The words are in the order of memory.
    u128::from(first.swap_bytes()) << 48
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::affinity::quic::ServerId;

    #[test]
    fn server_ids_come_back_from_their_marks() {
        for bytes in [&[7_u8][..], &[1, 2, 3], &[0, 0, 0, 9], &[255; 8], &[0xde, 0xad, 0xbe, 0xef, 1, 2]] {
            let id = ServerId::new(bytes).expect("1 to 15 bytes");
            let mut wide = [0; 16];
            wide[2..2 + bytes.len()].copy_from_slice(bytes);
            assert_eq!(server_id(id.mark(), id.len()), u128::from_be_bytes(wide), "{bytes:?}");
        }
    }
}
