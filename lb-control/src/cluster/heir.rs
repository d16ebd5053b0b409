//! Who inherits from a node that died: its addresses, and the connections that it mirrored.

/// Which of those that live inherits from a dead node: each of them finds the same one, and several dead nodes' blocks go
/// to several heirs.
pub(crate) fn heir(dead: u64, live: &[u64]) -> Option<u64> {
    live.iter().copied().max_by_key(|id| rank(dead, *id))
}

/// The first `count` of them that would inherit, one after the other.
pub(crate) fn heirs(dead: u64, mut live: Vec<u64>, count: usize) -> Vec<u64> {
    live.sort_unstable_by_key(|id| std::cmp::Reverse(rank(dead, *id)));
    live.truncate(count);
    live
}

const fn rank(dead: u64, id: u64) -> (u64, u64) {
    (weight(dead, id), id)
}

/// A mixture of two ids (the finalizer of SplitMix64).
const fn weight(dead: u64, id: u64) -> u64 {
    let z = dead.rotate_left(32) ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_is_one_heir_and_all_agree() {
        let nodes: Vec<u64> = (1..=8).map(|n| n * 0x1234_5678_9abc).collect();
        let mut found = BTreeSet::new();
        for dead in &nodes {
            let mut live: Vec<u64> = nodes.iter().copied().filter(|id| id != dead).collect();
            let first = heir(*dead, &live);
            let ranked = heirs(*dead, live.clone(), 2);
            live.reverse();
            assert_eq!(heir(*dead, &live), first, "the order does not matter");
            assert_eq!(ranked.first().copied(), first);
            found.extend(first);
            // Another node's death moves the block only when that node had it, and then to the second.
            for also in live.clone() {
                let rest: Vec<u64> = live.iter().copied().filter(|id| *id != also).collect();
                let next = heir(*dead, &rest);
                assert_eq!(next == first, Some(also) != first);
                assert!(next == first || next == ranked.get(1).copied());
            }
        }
        assert!(found.len() > 2, "not all blocks go to the same node: {found:?}");
        assert_eq!(heir(1, &[]), None);
        assert!(heirs(1, Vec::new(), 2).is_empty());
    }
}
