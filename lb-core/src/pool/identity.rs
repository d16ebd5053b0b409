//! Numbers that stand for names: of servers and of services.
//!
//! Both are FNV-1a (64 bits, draft-eastlake-fnv) over the bytes of the name, mixed once more, because
//! FNV-1a alone leaves the upper bits of short names nearly alike. Every node and every application server computes
//! the same number from the same name; `docs/order.md` has the definition and test vectors.

/// Server number of a backend without a given one.
pub const fn server_number(name: &str) -> u64 {
    mix(fnv1a(name.as_bytes()))
}

/// Id of a service without a given one: the upper half of the 64-bit number of its name, 1 instead of 0
/// (0 is what an empty map entry holds).
pub const fn service_id(name: &str) -> u32 {
    match (mix(fnv1a(name.as_bytes())) >> 32) as u32 {
        0 => 1,
        id => id,
    }
}

/// SplitMix64's output function of one step from `x`: a bijection in which every bit depends on all others.
pub const fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::{fnv1a, mix, server_number, service_id};
    use std::collections::HashSet;

    #[test]
    fn fnv1a_meets_the_vectors_of_the_draft() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn mix_is_the_first_output_of_splitmix64() {
        // The generator's known first outputs from the seeds 0 and 1234567.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn names_that_differ_little_get_far_numbers() {
        let mut numbers = HashSet::new();
        let mut ids = HashSet::new();
        for i in 0..10_000 {
            let name = format!("web-{i}");
            numbers.insert(server_number(&name));
            ids.insert(service_id(&name));
        }
        assert_eq!((numbers.len(), ids.len()), (10_000, 10_000));
        let apart = (server_number("web-1") ^ server_number("web-2")).count_ones();
        assert!((16..=48).contains(&apart), "{apart} of 64 bits differ");
    }
}
