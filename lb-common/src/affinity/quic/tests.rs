use super::cid::Decoder;
use super::*;
use proptest::prelude::*;

const KEY: &str = "8f95f09245765f80256934e50c66207f";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn key() -> [u8; 16] {
    hex(KEY).try_into().unwrap()
}

/// An id of the draft's appendix B or section 5.4.2.4: rotation, server id, nonce, id, key.
struct Vector(u8, &'static str, &'static str, &'static str, Option<&'static str>);

const VECTORS: [Vector; 7] = [
    Vector(0, "c4605e", "4504cc4f", "07c4605e4504cc4f", None),
    // The draft prints the nonce without its leading zero, and the id with a zero in the first octet instead.
    Vector(1, "350d28b420", "03487d970b", "2a350d28b42003487d970b", None),
    Vector(0, "ed793a", "ee080dbf", "0720b1d07b359d3c", Some(KEY)),
    Vector(1, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2", Some(KEY)),
    Vector(2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3", Some(KEY)),
    Vector(
        3,
        "ed793a51d49b8f5fab",
        "ee080dbf48c0d1e55d",
        "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc",
        Some(KEY),
    ),
    Vector(0, "31441a", "9c69c275", "0767947d29be054a", Some("fdf726a9893ec05c0632d3956680baf0")),
];

#[test]
fn the_drafts_vectors_come_out() {
    for Vector(rotation, server, nonce, cid, key) in VECTORS {
        let (server, nonce, cid) = (hex(server), hex(nonce), hex(cid));
        let key: Option<[u8; 16]> = key.map(|key| hex(key).try_into().unwrap());
        let layout = Layout::new(server.len() as u8, nonce.len() as u8).unwrap();
        let server = ServerId::new(&server).unwrap();
        let encoder = Encoder::new(rotation, layout, server, key.as_ref(), &[0; 32]).unwrap();
        let made = encoder.with_nonce(&nonce, 0);
        assert_eq!(made.as_bytes()[1..], cid[1..], "{cid:02x?}");
        // One first octet does not agree with its rotation in the draft.
        if cid[0] >> 5 == rotation {
            assert_eq!(made.as_bytes(), cid);
        }
        assert_eq!(Decoder::new(layout, key.as_ref()).server_id(&cid), Some(server));
    }
}

#[test]
fn lengths_beyond_the_drafts_limits_are_refused() {
    for server in 0..=32_u8 {
        for nonce in 0..=32 {
            let valid = (1..=15).contains(&server) && (4..=18).contains(&nonce) && server + nonce <= 19;
            assert_eq!(Layout::new(server, nonce).is_ok(), valid, "{server} + {nonce}");
        }
    }
    assert_eq!(Layout::new(8, 8).unwrap().form(true), Form::SinglePass);
    assert_eq!(Layout::new(8, 8).unwrap().form(false), Form::Plain);
    assert_eq!(Layout::new(8, 9).unwrap().form(true), Form::FourPass);
}

#[test]
fn a_nonce_never_comes_twice() {
    for key in [None, Some(key())] {
        let layout = Layout::new(1, 4).unwrap();
        let server = ServerId::new(&[9]).unwrap();
        // Starts right before the count comes round.
        let seed = [0xff; 32];
        let mut encoder = Encoder::new(5, layout, server, key.as_ref(), &seed).unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..5_000 {
            let cid = encoder.encode().unwrap();
            assert_eq!(cid.rotation(), Some(5));
            assert!(seen.insert(cid.as_bytes().to_vec()), "{cid:?}");
        }
        encoder.used = 0xffff_ffff;
        assert!(encoder.encode().is_ok(), "the last one");
        assert_eq!(encoder.encode(), Err(Exhausted));
    }
}

#[test]
fn plain_nonces_do_not_look_like_a_count() {
    let layout = Layout::new(2, 6).unwrap();
    let mut encoder = Encoder::new(0, layout, ServerId::new(&[1, 2]).unwrap(), None, &[7; 32]).unwrap();
    let nonces: Vec<Vec<u8>> = (0..512).map(|_| encoder.encode().unwrap().as_bytes()[3..].to_vec()).collect();
    for pair in nonces.windows(2) {
        let same = pair[0].iter().zip(&pair[1]).filter(|(a, b)| a == b).count();
        assert!(same < 4, "{pair:02x?}");
    }
}

#[test]
fn what_names_no_server_says_so() {
    let cid = unroutable(12, &[0xaa; MAX_CID]).unwrap();
    assert_eq!((cid.as_bytes().len(), cid.as_bytes()[0], cid.rotation()), (12, 0xeb, Some(UNROUTABLE)));
    assert!(unroutable(7, &[0; MAX_CID]).is_none() && unroutable(21, &[0; MAX_CID]).is_none());
    let layout = Layout::new(1, 4).unwrap();
    assert!(Encoder::new(UNROUTABLE, layout, ServerId::new(&[1]).unwrap(), None, &[0; 32]).is_none());
    assert!(Encoder::new(0, layout, ServerId::new(&[1, 2]).unwrap(), None, &[0; 32]).is_none());
}

#[test]
fn marks_tell_ids_apart() {
    let mut marks = std::collections::HashSet::new();
    for len in 1..=15 {
        for n in 0..=255 {
            let mut bytes = vec![0; len];
            *bytes.last_mut().unwrap() = n;
            assert!(marks.insert(ServerId::new(&bytes).unwrap().mark()), "{len} bytes, {n}");
        }
    }
}

prop_compose! {
    fn layouts()(server in 1..=15_u8)(nonce in 4..=19 - server, server in Just(server)) -> Layout {
        Layout::new(server, nonce).unwrap()
    }
}

proptest! {
    #[test]
    fn the_decoder_finds_what_the_encoder_wrote(
        layout in layouts(),
        id in proptest::array::uniform15(any::<u8>()),
        key in proptest::option::of(any::<[u8; 16]>()),
        seed in any::<[u8; 32]>(),
        rotation in 0..7_u8,
        random_bits in any::<bool>(),
        behind in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        let server = ServerId::new(&id[..layout.server().into()]).unwrap();
        let encoder = Encoder::new(rotation, layout, server, key.as_ref(), &seed).unwrap();
        let mut encoder = if random_bits { encoder.with_random_bits() } else { encoder };
        let decoder = Decoder::new(layout, key.as_ref());
        for _ in 0..4 {
            let cid = encoder.encode().unwrap();
            prop_assert_eq!(cid.rotation(), Some(rotation));
            if !random_bits {
                prop_assert_eq!(usize::from(cid.as_bytes()[0] & 0x1f) + 1, cid.as_bytes().len());
            }
            let longer = [cid.as_bytes(), &behind[..]].concat();
            prop_assert_eq!(decoder.server_id(&longer), Some(server));
            prop_assert_eq!(decoder.server_id(&cid.as_bytes()[..cid.as_bytes().len() - 1]), None);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_fail(
        layout in layouts(),
        key in proptest::option::of(any::<[u8; 16]>()),
        cid in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let id = Decoder::new(layout, key.as_ref()).server_id(&cid);
        prop_assert_eq!(id.is_some(), cid.len() >= layout.cid().into());
        prop_assert!(id.is_none_or(|id| id.len() == layout.server()));
    }
}
