//! Sixteen bytes as two words, the first byte lowest.

/// Sixteen bytes.
pub(crate) type Words = [u64; 2];

/// Moves the bytes up by `n` places, at most 15; zeros come in below.
#[inline(always)]
pub(super) const fn up(w: Words, n: u32) -> Words {
    let bits = n * 8;
    if bits >= 64 {
        [0, w[0] << (bits & 63)]
    } else if bits == 0 {
        w
    } else {
        [w[0] << bits, w[1] << bits | w[0] >> ((64 - bits) & 63)]
    }
}

/// Moves the bytes down by `n` places, at most 15; zeros come in above.
#[inline(always)]
pub(super) const fn down(w: Words, n: u32) -> Words {
    let bits = n * 8;
    if bits >= 64 {
        [w[1] >> (bits & 63), 0]
    } else if bits == 0 {
        w
    } else {
        [w[0] >> bits | w[1] << ((64 - bits) & 63), w[1] >> bits]
    }
}

/// Only the first `n` bytes, at most 15.
#[inline(always)]
pub(super) const fn first(w: Words, n: u32) -> Words {
    and(w, mask(n))
}

/// Ones in the first `n` bytes, at most 15.
#[inline(always)]
pub(super) const fn mask(n: u32) -> Words {
    let bits = n * 8;
    if bits >= 64 { [u64::MAX, (1 << (bits & 63)) - 1] } else { [(1 << bits) - 1, 0] }
}

#[inline(always)]
pub(super) const fn and(a: Words, b: Words) -> Words {
    [a[0] & b[0], a[1] & b[1]]
}

#[inline(always)]
pub(super) const fn xor(a: Words, b: Words) -> Words {
    [a[0] ^ b[0], a[1] ^ b[1]]
}

#[inline(always)]
pub(super) const fn or(a: Words, b: Words) -> Words {
    [a[0] | b[0], a[1] | b[1]]
}

/// Sixteen bytes as words.
#[inline(always)]
pub(super) fn from_bytes(bytes: &[u8; 16]) -> Words {
    let n = u128::from_le_bytes(*bytes);
    [n as u64, (n >> 64) as u64]
}

/// Words as sixteen bytes.
#[inline(always)]
pub(super) fn to_bytes(w: Words) -> [u8; 16] {
    (w[0] as u128 | (w[1] as u128) << 64).to_le_bytes()
}
