//! A connection id, what it is read by, and the server that it names.

use super::aes::{self, RoundKeys};
use super::feistel::{Halves, half};
use super::layout::{Form, Layout};
use super::words::{self, Words, down, first};

/// Longest connection id of QUIC versions 1 and 2.
pub const MAX_CID: usize = 20;
/// Bytes in front of server id and nonce.
pub const FIRST_OCTET: usize = 1;
/// The rotation of connection ids that name no server (section 3.2).
pub const UNROUTABLE: u8 = 7;

/// A connection id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cid {
    bytes: [u8; MAX_CID],
    len: u8,
}

impl Cid {
    /// The connection id of these bytes; at most 20.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut cid = Self { bytes: [0; MAX_CID], len: bytes.len() as u8 };
        cid.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(cid)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(MAX_CID)]
    }

    /// The configuration that it was made by; [`UNROUTABLE`] = none.
    pub fn rotation(&self) -> Option<u8> {
        self.as_bytes().first().map(|octet| octet >> 5)
    }
}

impl core::fmt::Debug for Cid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A server's name in connection ids: 1 to 15 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerId {
    words: Words,
    len: u8,
}

impl ServerId {
    /// The id of these bytes; 1 to 15 of them.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > 15 {
            return None;
        }
        let mut all = [0; 16];
        all[..bytes.len()].copy_from_slice(bytes);
        Some(Self { words: words::from_bytes(&all), len: bytes.len() as u8 })
    }

    /// The first `len` of sixteen bytes.
    #[inline(always)]
    const fn cut(block: Words, len: u8) -> Self {
        Self { words: first(block, len as u32), len }
    }

    /// Number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "there is no empty one")]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// Its bytes, zeros behind them.
    pub fn bytes(&self) -> [u8; 15] {
        let all = words::to_bytes(self.words);
        core::array::from_fn(|i| all[i])
    }

    /// Its mark among the servers of a service ([`crate::abi::map`]), and the session key of its packets when it is down.
    ///
    /// Ids of up to eight bytes never share a mark; of longer ones, two of a pool do with a chance of one in 2^64.
    #[inline(always)]
    pub const fn mark(&self) -> u64 {
        mix(mix(self.words[1] | (self.len as u64) << 56) ^ self.words[0])
    }
}

impl core::fmt::Debug for ServerId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.bytes().iter().take(self.len.into()).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A bijection that spreads numbers over all bits.
#[inline(always)]
const fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let n = (n ^ n >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    n ^ n >> 32
}

/// The server id in a connection id, whose bytes `ending` answers sixteen at a time by the offset behind the last.
///
/// Offsets count from the connection id's first byte, and may reach up to fifteen bytes in front of it: in a packet
/// there are headers.
#[inline(always)]
pub(crate) fn server_of(
    layout: Layout,
    form: Form,
    keys: &RoundKeys,
    ending: impl Fn(usize) -> Option<Words>,
) -> Option<ServerId> {
    let (server, len) = (layout.server() as u32, layout.block() as u32);
    let block = match form {
        Form::Plain => down(ending(FIRST_OCTET + server as usize)?, 16 - server),
        Form::SinglePass => aes::decrypt(keys, ending(FIRST_OCTET + 16)?),
        Form::FourPass => {
            let left = ending(FIRST_OCTET + half(len) as usize)?;
            let right = ending(FIRST_OCTET + len as usize)?;
            Halves::ending(len, left, right).open(keys, len, server > len / 2).block(len)
        }
    };
    Some(ServerId::cut(block, layout.server()))
}

/// Reads connection ids of one configuration.
#[derive(Clone)]
pub struct Decoder {
    layout: Layout,
    form: Form,
    keys: RoundKeys,
}

impl Decoder {
    /// A decoder for these lengths; without a key the ids are plain.
    pub fn new(layout: Layout, key: Option<&[u8; 16]>) -> Self {
        let form = layout.form(key.is_some());
        let keys = key.map_or([0; _], aes::expand);
        let keys = if form == Form::SinglePass { aes::inverse(&keys) } else { keys };
        Self { layout, form, keys }
    }

    /// The server id in a connection id, when that is long enough; its rotation is the caller's matter.
    pub fn server_id(&self, cid: &[u8]) -> Option<ServerId> {
        let cid = cid.get(..self.layout.cid().into())?;
        let mut room = [0; 16 + MAX_CID];
        room[16..16 + cid.len()].copy_from_slice(cid);
        server_of(self.layout, self.form, &self.keys, |end| {
            Some(words::from_bytes(room.get(end..end + 16)?.first_chunk()?))
        })
    }
}
