//! SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).

/// Hashes `words` (eight bytes each, little-endian) and then the low bytes of `tail`, `len` bytes in all.
///
/// `tail` holds the `len % 8` bytes behind the words, its upper bytes zero. The secret is the 16-byte key
/// as two little-endian words.
#[inline(always)]
pub fn siphash<const N: usize>(secret: &[u64; 2], words: &[u64; N], tail: u64, len: u8) -> u64 {
    let mut state = State::new(secret);
    let mut i = 0;
    while i < N {
        state.absorb(words[i]);
        i += 1;
    }
    state.finish(tail, len)
}

/// A hash under way, for messages whose length the compiler does not know.
pub(super) struct State([u64; 4]);

impl State {
    /// Before the first word.
    #[inline(always)]
    pub(super) const fn new(secret: &[u64; 2]) -> Self {
        Self([
            secret[0] ^ 0x736f_6d65_7073_6575,
            secret[1] ^ 0x646f_7261_6e64_6f6d,
            secret[0] ^ 0x6c79_6765_6e65_7261,
            secret[1] ^ 0x7465_6462_7974_6573,
        ])
    }
    /// Takes eight bytes of the message in.
    #[inline(always)]
    pub(super) fn absorb(&mut self, word: u64) {
        absorb(&mut self.0, word);
    }
    /// The hash of a message of `len` bytes (modulo 256) whose last `len % 8` are in `tail`.
    #[inline(always)]
    pub(super) fn finish(mut self, tail: u64, len: u8) -> u64 {
        let v = &mut self.0;
        absorb(v, tail | (len as u64) << 56);
        v[2] ^= 0xff;
        round(v);
        round(v);
        round(v);
        round(v);
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

#[inline(always)]
fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}
