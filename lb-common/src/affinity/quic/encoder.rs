//! Makes connection ids for a server.

use super::aes::{self, RoundKeys};
use super::cid::{Cid, FIRST_OCTET, MAX_CID, ServerId, UNROUTABLE};
use super::feistel::{Halves, half};
use super::layout::{Form, Layout};
use super::words;

/// All nonces of a configuration have been used: another configuration is due, and until then [`unroutable`] ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted;

impl core::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(
            "every nonce of this configuration has been used: change to a configuration with another key",
        )
    }
}

impl core::error::Error for Exhausted {}

/// Makes connection ids that all differ.
///
/// Under a key the nonce counts up from a random number and never comes round (section 9.6 of the draft). Without
/// one, nonces must not look related: they are the same count, encrypted under a key that nobody else knows.
#[derive(Clone)]
pub struct Encoder {
    rotation: u8,
    layout: Layout,
    server: ServerId,
    form: Form,
    keys: RoundKeys,
    own_keys: RoundKeys,
    describes_length: bool,
    start: u128,
    pub(super) used: u128,
}

impl Encoder {
    /// An encoder for a server's ids under one configuration.
    ///
    /// `None` when the rotation is above 6 or the server id has another length than the layout says. `seed` are 32
    /// random bytes that no other encoder has: two with the same seed make the same ids.
    pub fn new(
        rotation: u8,
        layout: Layout,
        server: ServerId,
        key: Option<&[u8; 16]>,
        seed: &[u8; 32],
    ) -> Option<Self> {
        if rotation >= UNROUTABLE || server.len() != layout.server() {
            return None;
        }
        let (start, own) = seed.split_first_chunk()?;
        Some(Self {
            rotation,
            layout,
            server,
            form: layout.form(key.is_some()),
            keys: key.map_or([0; _], aes::expand),
            own_keys: aes::expand(own.first_chunk()?),
            describes_length: true,
            start: u128::from_le_bytes(*start),
            used: 0,
        })
    }

    /// The same with random bits in place of the length in the first octet (section 3.3).
    #[must_use]
    pub const fn with_random_bits(mut self) -> Self {
        self.describes_length = false;
        self
    }

    /// Another connection id.
    pub fn encode(&mut self) -> Result<Cid, Exhausted> {
        let bits = u32::from(self.layout.nonce()) * 8;
        let last = if bits < 128 { (1 << bits) - 1 } else { u128::MAX };
        if self.used > last || self.used == u128::MAX {
            return Err(Exhausted);
        }
        let count = self.start.wrapping_add(self.used) & last;
        self.used += 1;
        let mut nonce = [0; 18];
        nonce[..16].copy_from_slice(&count.to_le_bytes());
        let nonce = &mut nonce[..self.layout.nonce().into()];
        if self.form == Form::Plain {
            seal(&self.own_keys, nonce);
        }
        Ok(self.with_nonce(nonce, count))
    }

    /// The connection id of a nonce of the layout's length.
    pub(super) fn with_nonce(&self, nonce: &[u8], count: u128) -> Cid {
        let (server, len) = (usize::from(self.layout.server()), usize::from(self.layout.block()));
        let mut bytes = [0; MAX_CID];
        let described = if self.describes_length { self.layout.block() } else { self.random_bits(count) };
        bytes[0] = self.rotation << 5 | described & 0x1f;
        let block = &mut bytes[FIRST_OCTET..FIRST_OCTET + len];
        block[..server].copy_from_slice(&self.server.bytes()[..server]);
        block[server..].copy_from_slice(nonce);
        match self.form {
            Form::Plain => {}
            Form::SinglePass => {
                if let Some(block) = block.first_chunk_mut::<16>() {
                    *block = words::to_bytes(aes::encrypt(&self.keys, words::from_bytes(block)));
                }
            }
            Form::FourPass => seal(&self.keys, block),
        }
        Cid::new(&bytes[..FIRST_OCTET + len]).expect("a layout has at most twenty bytes")
    }

    fn random_bits(&self, count: u128) -> u8 {
        aes::encrypt(&self.own_keys, [count as u64, !(count >> 64) as u64])[0] as u8
    }
}

/// A connection id of 8 to 20 bytes that names no server (section 3.2), of random bytes.
pub fn unroutable(len: u8, random: &[u8; MAX_CID]) -> Option<Cid> {
    if !(8..=MAX_CID as u8).contains(&len) {
        return None;
    }
    let mut bytes = *random;
    bytes[0] = UNROUTABLE << 5 | (len - 1);
    Cid::new(&bytes[..len.into()])
}

/// Encrypts 4 to 19 bytes in place, the four-pass way.
fn seal(keys: &RoundKeys, block: &mut [u8]) {
    let len = block.len();
    let half = half(len as u32) as usize;
    let ending = |end: usize| {
        let mut bytes = [0; 16];
        let from = end - half;
        bytes[16 - half..].copy_from_slice(&block[from..end]);
        words::from_bytes(&bytes)
    };
    let sealed = Halves::ending(len as u32, ending(half), ending(len)).seal(keys, len as u32);
    let (left, right) = (words::to_bytes(sealed.left), words::to_bytes(sealed.right));
    block.fill(0);
    for (i, byte) in left[..half].iter().enumerate() {
        block[i] |= byte;
    }
    for (i, byte) in right[..half].iter().enumerate() {
        block[len - half + i] |= byte;
    }
}
