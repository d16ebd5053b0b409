//! SYN cookies beside a plain reading of what stands in them, and SYNs with any options.

use crate::segments::{World, frame};
use lb_common::abi::{Addr, EPOCH_SHIFT, Flow, SYN_KEYS, Secrets};
use lb_common::splice::{Offer, Proof, SynCookie, epoch};
use std::net::{IpAddr, Ipv6Addr};
use stickleback_tests::corpus::{check, dissect};

/// A handshake, then what is made of its cookie: moved to another time, with other bits, from another sequence number.
/// The rest are options of a SYN.
pub fn syn_cookie(data: &[u8]) {
    let Some((head, options)) = data.split_first_chunk::<82>() else { return };
    let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let v4 = head[0] & 1 != 0;
    let address = |at: usize| -> IpAddr {
        let bytes: [u8; 16] = head[at..at + 16].try_into().expect("sixteen bytes");
        if v4 { [bytes[0], bytes[1], bytes[2], bytes[3]].into() } else { Ipv6Addr::from(bytes).into() }
    };
    let (source, destination, ports) = (address(1), address(17), word(33));
    let (isn, mss, now) = (word(37), u16::from_be_bytes([head[41], head[42]]), long(43));
    let scale = if head[51] & 1 == 0 { Flow::NO_SCALE } else { head[52] % 15 };
    let (later, flipped, moved) = (long(53), word(61), word(65));
    let mut secrets = Secrets {
        since_1970: long(69) >> (head[77] % 64),
        first_epoch: 0,
        last_epoch: u32::MAX,
        ..Secrets::default()
    };
    for (n, key) in (0_u64..).zip(&mut secrets.syn) {
        *key = [long(69) ^ n, long(69).rotate_left(29).wrapping_mul(2 * n + 1)];
    }
    let made_in = epoch(&secrets, now);
    // Two days' epochs around the time of the handshake, or less.
    secrets.first_epoch = made_in.saturating_sub(u32::from(head[78] % 32));
    secrets.last_epoch = made_in.saturating_add(u32::from(head[79] % 32));
    let (from, to) = (Addr::from(source), Addr::from(destination));
    let tuple = (&from, &to, ports);
    let offer = Offer::new(from.is_v4(), mss, scale, head[80] & 1 != 0);
    let cookie = SynCookie::new(&secrets, made_in, tuple, offer, isn);
    assert_eq!(cookie.offer(), offer);
    assert_eq!(cookie.judge(&secrets, now, tuple, isn), Proof::First, "at once");
    // An epoch more or less, a few, or any number.
    let then = match head[81] % 4 {
        0 => now.wrapping_add(later >> 22),
        1 => now.wrapping_add(later >> 18),
        2 => now.wrapping_sub(later >> 20),
        _ => later,
    };
    for other in [cookie, SynCookie(cookie.0 ^ flipped), SynCookie(cookie.0 ^ 1 << (flipped % 32))] {
        for number in [isn, isn.wrapping_add(moved), isn.wrapping_add(moved % 2_000)] {
            let judged = other.judge(&secrets, then, tuple, number);
            assert_eq!(judged, plainly(&secrets, other.0, then, tuple, number), "{other:x?}");
        }
    }
    // A whole data plane takes longer.
    if !options.is_empty() {
        greeted(v4, isn, options);
    }
}

/// What a cookie proves, from the description of its bits.
fn plainly(
    secrets: &Secrets,
    cookie: u32,
    now: u64,
    (from, to, ports): (&Addr, &Addr, u32),
    isn: u32,
) -> Proof {
    let current = now.wrapping_add(secrets.since_1970) >> EPOCH_SHIFT;
    // Of five epochs no two have the same three bits.
    let near = (current.saturating_sub(2)..=current + 2).find(|epoch| epoch & 7 == u64::from(cookie >> 29));
    let Some(epoch) = near else { return Proof::Wrong };
    if epoch < u64::from(secrets.first_epoch) || epoch > u64::from(secrets.last_epoch) {
        return Proof::Wrong;
    }
    let mut said = Vec::new();
    for address in [from, to] {
        let bytes = address.octets();
        said.extend(if from.is_v4() { &bytes[12..] } else { &bytes[..] });
    }
    said.extend(ports.to_ne_bytes());
    said.extend(((cookie >> 22) as u16).to_le_bytes());
    let hash = siphash(secrets.syn[epoch as usize % SYN_KEYS], &said);
    let expected = (u64::from(isn) * (hash >> 13 & 0xffff_ffff | 1) + hash % 8_192) % 8_192;
    if u64::from(cookie >> 13 & 0x1ff) != hash >> 55 {
        Proof::Wrong
    } else if u64::from(cookie & 0x1fff) != expected {
        Proof::Early
    } else {
        Proof::First
    }
}

#[expect(deprecated, reason = "a SipHash-2-4 that is not ours, and needs no other crate")]
fn siphash(key: [u64; 2], bytes: &[u8]) -> u64 {
    use std::hash::{Hasher as _, SipHasher};
    let mut hasher = SipHasher::new_with_keys(key[0], key[1]);
    hasher.write(bytes);
    hasher.finish()
}

/// A SYN with these options, padded, is answered by what was understood of them.
fn greeted(v4: bool, isn: u32, options: &[u8]) {
    let mut options = options[..options.len().min(40)].to_vec();
    options.resize(options.len().next_multiple_of(4), 1);
    let case = if v4 { "offer-all-v4" } else { "offer-all-v6" };
    World::untouched("greet", case, |world| answered(world, v4, isn, &options));
}

/// Sends the SYN, of which nothing is kept.
fn answered(world: &mut World, v4: bool, isn: u32, options: &[u8]) {
    let syn = frame(&world.client, isn, 0, 0x02, 64_240, options, &[]);
    let answer = world.sent(&syn, true);
    let problems = check(&answer);
    assert!(problems.is_empty(), "{problems:?}: {}", dissect(&answer));
    let tcp = &answer[if v4 { 34 } else { 54 }..];
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((tcp[13], word(8)), (0x12, isn.wrapping_add(1)), "{}", dissect(&answer));
    let read = read(options);
    let offer = SynCookie(word(4)).offer();
    let expected = Offer::new(v4, read.mss, read.scale, read.sack);
    assert_eq!(offer, expected, "{read:?} in {}", dissect(&syn));
    // What the client did not offer, it does not get.
    let got = self::read(&tcp[20..usize::from(tcp[12] >> 4) * 4]);
    assert_eq!((got.scale == Flow::NO_SCALE, got.sack), (read.scale == Flow::NO_SCALE, read.sack));
}

/// What the options of a SYN say.
#[derive(Debug)]
struct Options {
    mss: u16,
    scale: u8,
    sack: bool,
}

fn read(mut options: &[u8]) -> Options {
    let mut read = Options { mss: 0, scale: Flow::NO_SCALE, sack: false };
    loop {
        match options {
            [] | [0, ..] => return read,
            [1, rest @ ..] => options = rest,
            [2, 4, high, low, rest @ ..] => {
                (read.mss, options) = (u16::from_be_bytes([*high, *low]), rest);
            }
            [3, 3, scale, rest @ ..] => (read.scale, options) = ((*scale).min(14), rest),
            [4, 2, rest @ ..] => (read.sack, options) = (true, rest),
            [_, len, ..] if *len >= 2 && usize::from(*len) <= options.len() => {
                options = &options[usize::from(*len)..];
            }
            _ => return read,
        }
    }
}
