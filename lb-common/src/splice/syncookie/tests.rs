use super::*;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

const HOUR: u64 = 3_600_000_000_000;

/// Keys of every epoch, in the middle of epoch 400,000.
fn secrets() -> Secrets {
    let mut secrets = Secrets {
        since_1970: 400_000_u64 << EPOCH_SHIFT,
        first_epoch: 1,
        last_epoch: u32::MAX,
        ..Secrets::default()
    };
    for (i, key) in (1_u64..).zip(&mut secrets.syn) {
        *key = [i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i.wrapping_mul(0xd1b5_4a32_d192_ed03)];
    }
    secrets
}

const NOW: u64 = 1 << (EPOCH_SHIFT - 1);

fn v4(n: u32) -> (Addr, Addr, u32) {
    (Ipv4Addr::from(0x0a00_0000 | n).into(), Ipv4Addr::new(10, 99, 0, 1).into(), 0x5000_9c40)
}

fn tuple((source, destination, ports): &(Addr, Addr, u32)) -> (&Addr, &Addr, u32) {
    (source, destination, *ports)
}

fn v6(n: u16) -> (Addr, Addr, u32) {
    let (s, d) = (Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, n), Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1));
    (s.into(), d.into(), 0x5000_9c40)
}

proptest! {
    #[test]
    fn a_cookie_proves_its_own_handshake(n: u16, isn: u32, offer in 0_u8..128, is_v4: bool) {
        let secrets = secrets();
        let of = if is_v4 { v4(n.into()) } else { v6(n) };
        let cookie = SynCookie::new(&secrets, epoch(&secrets, NOW), tuple(&of), Offer(offer), isn);
        prop_assert_eq!(cookie.offer(), Offer(offer));
        prop_assert_eq!(cookie.judge(&secrets, NOW, tuple(&of), isn), Proof::First);
    }

    #[test]
    fn another_client_proves_nothing(n in 1_u32..1 << 24, isn: u32, offer in 0_u8..128) {
        let secrets = secrets();
        let cookie = SynCookie::new(&secrets, epoch(&secrets, NOW), tuple(&v4(0)), Offer(offer), isn);
        prop_assert_ne!(cookie.judge(&secrets, NOW, tuple(&v4(n)), isn), Proof::First);
    }
}

#[test]
fn a_cookie_of_a_neighbouring_epoch_is_taken_and_one_from_farther_is_not() {
    let secrets = secrets();
    let of = v4(7);
    let now = epoch(&secrets, NOW);
    // Keys are renewed before an epoch meets its number again.
    for away in -29_i32..=29 {
        let cookie =
            SynCookie::new(&secrets, now.wrapping_add_signed(away), tuple(&of), Offer(0x6f), 0x1234_5678);
        let proof = cookie.judge(&secrets, NOW, tuple(&of), 0x1234_5678);
        assert_eq!(proof == Proof::First, away.abs() <= 2, "{away} epochs away: {proof:?}");
    }
}

#[test]
fn nodes_with_clocks_an_hour_apart_take_each_others_cookies() {
    let secrets = secrets();
    let (of, isn) = (v4(9), 99);
    for minutes in 0..24 * 60 {
        let now = minutes * 60_000_000_000;
        let cookie = SynCookie::new(&secrets, epoch(&secrets, now), tuple(&of), Offer(1), isn);
        for other in [now.wrapping_sub(HOUR), now, now + HOUR] {
            let other =
                Secrets { since_1970: secrets.since_1970.wrapping_add(other.wrapping_sub(now)), ..secrets };
            assert_eq!(cookie.judge(&other, now, tuple(&of), isn), Proof::First, "minute {minutes}");
        }
    }
}

#[test]
fn an_epoch_without_a_key_is_not_taken() {
    let mut secrets = secrets();
    let now = epoch(&secrets, NOW);
    let of = v4(3);
    for (first, last, taken) in [(now, now, true), (now + 1, now + 3, false), (now - 3, now - 1, false)] {
        (secrets.first_epoch, secrets.last_epoch) = (first, last);
        let cookie = SynCookie::new(&secrets, now, tuple(&of), Offer(0), 5);
        assert_eq!(cookie.judge(&secrets, NOW, tuple(&of), 5) == Proof::First, taken, "{first}..={last}");
    }
}

/// Numbers that are not quite random, for counting hits.
fn numbers(mut x: u64) -> impl Iterator<Item = u32> {
    core::iter::repeat_with(move || {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (x >> 32) as u32
    })
}

#[test]
fn who_guesses_hits_one_of_four_million() {
    let secrets = secrets();
    let tries = 10_000_000_u32;
    let mut hits = 0;
    for (i, guess) in (0..tries).zip(numbers(1)) {
        // Epoch and offer as an attacker would choose them: valid.
        let epoch = epoch(&secrets, NOW) & 7;
        let cookie = SynCookie(epoch << EPOCH | 0x6f << OFFER | guess >> 10);
        hits += (cookie.judge(&secrets, NOW, tuple(&v4(i)), guess) == Proof::First) as u32;
    }
    // 2.4 are to be expected.
    assert!((1..=9).contains(&hits), "{hits} of {tries}");
}

#[test]
fn no_segment_of_the_first_window_passes_for_the_first() {
    let secrets = secrets();
    let now = epoch(&secrets, NOW);
    // The largest that fits frames of one page, with the step of the window's scale.
    let window = u32::from(crate::splice::wanted(3_458, false)) + (1 << 7);
    for (n, isn) in (0..200).zip(numbers(2)) {
        let of = v4(n);
        let cookie = SynCookie::new(&secrets, now, tuple(&of), Offer(0x6f), isn);
        for ahead in 1..window {
            let proof = cookie.judge(&secrets, NOW, tuple(&of), isn.wrapping_add(ahead));
            assert_eq!(proof, Proof::Early, "{ahead} ahead of {isn}");
        }
    }
}

#[test]
fn what_follows_an_answer_seldom_passes_for_the_first() {
    let secrets = secrets();
    let now = epoch(&secrets, NOW);
    let mut taken = 0;
    for (n, isn) in (0..200_000).zip(numbers(3)) {
        let of = v4(n);
        let cookie = SynCookie::new(&secrets, now, tuple(&of), Offer(0x6f), isn).0;
        // As many bytes were answered as asked, a FIN each.
        let proof = SynCookie(cookie.wrapping_add(1)).judge(&secrets, NOW, tuple(&of), isn.wrapping_add(1));
        taken += u32::from(proof == Proof::First);
    }
    // 50 are to be expected, since the factors are odd.
    assert!(taken < 100, "{taken} of 200,000 pass for the first segment");
}

#[test]
fn both_tags_are_spread_evenly() {
    let secrets = secrets();
    let now = epoch(&secrets, NOW);
    let mut isns = vec![0_u32; 1 << TAG];
    let mut tuples = vec![0_u32; 1 << TUPLE_TAG];
    for n in 0..1 << 20 {
        // Numbers of clients that count by ones, which a weak tag would show.
        let cookie = SynCookie::new(&secrets, now, tuple(&v4(n)), Offer(0x6f), n).0 as usize;
        isns[cookie & ((1 << TAG) - 1)] += 1;
        tuples[cookie >> TAG & ((1 << TUPLE_TAG) - 1)] += 1;
    }
    for count in isns {
        assert!((64..=204).contains(&count), "{count} of 128 expected");
    }
    for count in tuples {
        assert!((1_700..=2_400).contains(&count), "{count} of 2,048 expected");
    }
}
