//! AES-128 (FIPS 197) by tables, for the kernel target as for the host.
//!
//! A column is a word whose lowest byte is row 0. Each table entry holds its column twice, so that the rotation
//! for another row is one shift: the target has no rotate instruction.
//!
//! Table look-ups take a time that depends on what is in the cache, and so on the key, for whoever shares the core
//! (Bernstein, "Cache-timing attacks on AES", 2005). What these keys hide is which server has a connection, not what
//! is said on it; `docs/quic.md` weighs it.

use super::words::Words;

/// Rounds of AES-128.
const ROUNDS: usize = 10;
/// Words of all round keys.
const KEY_WORDS: usize = 4 * (ROUNDS + 1);

/// What a cipher needs of a key, for one direction: eleven round keys, each word in memory order.
pub type RoundKeys = [u32; KEY_WORDS];

/// Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (section 4.2).
const fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    sum
}

/// The S-box (section 5.1.1): the inverse, which is the 254th power, and an affine map.
const fn substitute(x: u8) -> u8 {
    let mut power = 1;
    let mut i = 0;
    while i < 254 {
        power = product(power, x);
        i += 1;
    }
    let y = power;
    y ^ y.rotate_left(1) ^ y.rotate_left(2) ^ y.rotate_left(3) ^ y.rotate_left(4) ^ 0x63
}

const SUBSTITUTED: [u8; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[x] = substitute(x as u8);
        x += 1;
    }
    table
};

/// The inverse S-box (section 5.3.2).
static RESTORED: [u8; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[SUBSTITUTED[x] as usize] = x as u8;
        x += 1;
    }
    table
};

/// A byte times a column, twice in one word.
const fn twice(byte: u8, column: [u8; 4]) -> u64 {
    let word = u32::from_le_bytes([
        product(byte, column[0]),
        product(byte, column[1]),
        product(byte, column[2]),
        product(byte, column[3]),
    ]) as u64;
    word | word << 32
}

/// S-box and `MixColumns` of a byte of row 0.
static FORWARD: [u64; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[x] = twice(SUBSTITUTED[x], [2, 1, 1, 3]);
        x += 1;
    }
    table
};

/// Inverse S-box and `InvMixColumns` of a byte of row 0.
static BACKWARD: [u64; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[SUBSTITUTED[x] as usize] = twice(x as u8, [14, 9, 13, 11]);
        x += 1;
    }
    table
};

/// The entry for the byte of a column at `shift`.
#[inline(always)]
fn entry(table: &'static [u64; 256], column: u64, shift: u32) -> u64 {
    table[(column >> shift) as u8 as usize]
}

/// A word of the round keys.
#[inline(always)]
fn key(keys: &RoundKeys, word: usize) -> u64 {
    // SAFETY: rounds go up to 10, and a round has four words.
    u32::from_le(unsafe { *keys.get_unchecked(word) }) as u64
}

/// One inner round for one column; the bits above the column are of no meaning.
#[inline(always)]
fn mix(table: &'static [u64; 256], rows: [u64; 4], key: u64) -> u64 {
    entry(table, rows[0], 0)
        ^ entry(table, rows[1], 8) >> 24
        ^ entry(table, rows[2], 16) >> 16
        ^ entry(table, rows[3], 24) >> 8
        ^ key
}

/// The last round's column of four substituted bytes.
#[inline(always)]
fn last(rows: [u64; 4], key: u64) -> u64 {
    (rows[0] | rows[1] << 8 | rows[2] << 16 | rows[3] << 24) ^ key
}

/// Columns of a block with the first round key added.
#[inline(always)]
fn begin(keys: &RoundKeys, block: Words) -> [u64; 4] {
    [
        block[0] as u32 as u64 ^ key(keys, 0),
        block[0] >> 32 ^ key(keys, 1),
        block[1] as u32 as u64 ^ key(keys, 2),
        block[1] >> 32 ^ key(keys, 3),
    ]
}

#[inline(always)]
fn end(c: [u64; 4]) -> Words {
    [c[0] | c[1] << 32, c[2] | c[3] << 32]
}

/// Encrypts a block under the keys of [`expand`].
#[inline(always)]
pub(crate) fn encrypt(keys: &RoundKeys, block: Words) -> Words {
    let mut c = begin(keys, block);
    let mut round = 1;
    while round < ROUNDS {
        let k = |j| key(keys, 4 * round + j);
        c = [
            mix(&FORWARD, [c[0], c[1], c[2], c[3]], k(0)),
            mix(&FORWARD, [c[1], c[2], c[3], c[0]], k(1)),
            mix(&FORWARD, [c[2], c[3], c[0], c[1]], k(2)),
            mix(&FORWARD, [c[3], c[0], c[1], c[2]], k(3)),
        ];
        round += 1;
    }
    // The S-box's value stands in the table with factor one as its second byte.
    let s = |column: u64, shift| entry(&FORWARD, column, shift) >> 8 & 0xff;
    let k = |j| key(keys, 4 * ROUNDS + j);
    end([
        last([s(c[0], 0), s(c[1], 8), s(c[2], 16), s(c[3], 24)], k(0)),
        last([s(c[1], 0), s(c[2], 8), s(c[3], 16), s(c[0], 24)], k(1)),
        last([s(c[2], 0), s(c[3], 8), s(c[0], 16), s(c[1], 24)], k(2)),
        last([s(c[3], 0), s(c[0], 8), s(c[1], 16), s(c[2], 24)], k(3)),
    ])
}

/// Decrypts a block under the keys of [`inverse`] (the equivalent inverse cipher, section 5.3.5).
#[inline(always)]
pub(crate) fn decrypt(keys: &RoundKeys, block: Words) -> Words {
    let mut c = begin(keys, block);
    let mut round = 1;
    while round < ROUNDS {
        let k = |j| key(keys, 4 * round + j);
        c = [
            mix(&BACKWARD, [c[0], c[3], c[2], c[1]], k(0)),
            mix(&BACKWARD, [c[1], c[0], c[3], c[2]], k(1)),
            mix(&BACKWARD, [c[2], c[1], c[0], c[3]], k(2)),
            mix(&BACKWARD, [c[3], c[2], c[1], c[0]], k(3)),
        ];
        round += 1;
    }
    let s = |column: u64, shift: u32| RESTORED[(column >> shift) as u8 as usize] as u64;
    let k = |j| key(keys, 4 * ROUNDS + j);
    end([
        last([s(c[0], 0), s(c[3], 8), s(c[2], 16), s(c[1], 24)], k(0)),
        last([s(c[1], 0), s(c[0], 8), s(c[3], 16), s(c[2], 24)], k(1)),
        last([s(c[2], 0), s(c[1], 8), s(c[0], 16), s(c[3], 24)], k(2)),
        last([s(c[3], 0), s(c[2], 8), s(c[1], 16), s(c[0], 24)], k(3)),
    ])
}

/// The round keys for [`encrypt`] (section 5.2), the first being the key itself.
pub(super) fn expand(key: &[u8; 16]) -> RoundKeys {
    let substituted = |word: u32| word.to_le_bytes().map(|b| SUBSTITUTED[b as usize]);
    let mut keys = [0; KEY_WORDS];
    let mut constant = 1;
    for i in 0..KEY_WORDS {
        keys[i] = if i < 4 {
            u32::from_le_bytes([key[4 * i], key[4 * i + 1], key[4 * i + 2], key[4 * i + 3]])
        } else if i % 4 == 0 {
            let word = u32::from_le_bytes(substituted(keys[i - 1].rotate_right(8))) ^ constant as u32;
            constant = product(constant, 2);
            keys[i - 4] ^ word
        } else {
            keys[i - 4] ^ keys[i - 1]
        };
    }
    keys.map(u32::to_le)
}

/// The round keys for [`decrypt`], of those for [`encrypt`].
pub(super) fn inverse(keys: &RoundKeys) -> RoundKeys {
    let mut inverse = [0; KEY_WORDS];
    for (i, word) in inverse.iter_mut().enumerate() {
        let (round, column) = (i / 4, i % 4);
        let key = u32::from_le(keys[4 * (ROUNDS - round) + column]);
        *word = if round == 0 || round == ROUNDS { key } else { unmixed(key) }.to_le();
    }
    inverse
}

/// `InvMixColumns` of one column.
fn unmixed(column: u32) -> u32 {
    column
        .to_le_bytes()
        .iter()
        .enumerate()
        .map(|(row, &byte)| (twice(byte, [14, 9, 13, 11]) as u32).rotate_left(8 * row as u32))
        .fold(0, |sum, part| sum ^ part)
}

#[cfg(test)]
mod tests {
    use super::super::words::{from_bytes, to_bytes};
    use super::*;

    fn bytes(hex: &str) -> [u8; 16] {
        core::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn the_standards_examples_come_out() {
        // FIPS 197, appendix A.1: last word of the key schedule; appendices B and C.1: blocks.
        let keys = expand(&bytes("2b7e151628aed2a6abf7158809cf4f3c"));
        assert_eq!(keys[43].to_ne_bytes(), [0xb6, 0x63, 0x0c, 0xa6]);
        for (key, plain, cipher) in [
            (
                "2b7e151628aed2a6abf7158809cf4f3c",
                "3243f6a8885a308d313198a2e0370734",
                "3925841d02dc09fbdc118597196a0b32",
            ),
            (
                "000102030405060708090a0b0c0d0e0f",
                "00112233445566778899aabbccddeeff",
                "69c4e0d86a7b0430d8cdb78070b4c55a",
            ),
        ] {
            let keys = expand(&bytes(key));
            let sealed = encrypt(&keys, from_bytes(&bytes(plain)));
            assert_eq!(to_bytes(sealed), bytes(cipher));
            assert_eq!(to_bytes(decrypt(&inverse(&keys), sealed)), bytes(plain));
        }
    }
}
