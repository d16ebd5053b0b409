//! Reading the options of SYN segments (RFC 9293 section 3.2).

use super::super::scratch::Packet;
use super::super::{Env, frame};
use crate::abi::{Be16, Flow};
use crate::packet::{Tcp, get, unknown_zero};

/// Option kinds.
const END: u8 = 0;
const PADDING: u8 = 1;
const MSS: u8 = 2;
const SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
/// Bytes of options at most.
const MAX_OPTIONS: u32 = 40;
/// Larger scales mean this one (RFC 7323 section 2.3).
const MAX_SCALE: u8 = 14;

/// What a SYN says of its sender, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SynSays(u32);

impl SynSays {
    const NOTHING: Self = Self((Flow::NO_SCALE as u32) << 16);
    const SACK: u32 = 1 << 24;

    /// The largest segment it takes; 0 = not said.
    #[inline(always)]
    pub(crate) const fn mss(self) -> u16 {
        self.0 as u16
    }

    /// Its window scale, [`Flow::NO_SCALE`] without.
    #[inline(always)]
    pub(crate) const fn scale(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Whether it takes selective acknowledgements.
    #[inline(always)]
    pub(crate) const fn sack(self) -> bool {
        self.0 & Self::SACK != 0
    }
}

/// The options of a SYN as Linux sends it: segment size, SACK permitted, timestamps, padding, window scale.
const USUAL: usize = 20;

/// Reads the options of the packet, whose TCP header has been checked. The last of several counts.
#[inline(always)]
pub(crate) fn read<E: Env>(env: &E, packet: &Packet) -> SynSays {
    match usual(env, packet) {
        SynSays(0) => walk(env, packet),
        says => says,
    }
}

/// Options that stand as Linux puts them, without a loop; nothing, which no options are, when they do not.
#[inline(always)]
fn usual<E: Env>(env: &E, packet: &Packet) -> SynSays {
    let Some(p) = frame::at(env, packet.l4 as usize, Tcp::LEN + USUAL) else { return SynSays(0) };
    // SAFETY: checked for the fixed header and as many bytes behind it.
    let (header, options) = unsafe { (Tcp::new(p).header_len(), p.add(Tcp::LEN)) };
    // SAFETY: as above.
    let (size, permitted, scale): (u32, u32, u32) =
        unsafe { (get(options), get(options.add(4)), get(options.add(16))) };
    let (size, permitted, scale) = (u32::from_be(size), u32::from_be(permitted), u32::from_be(scale));
    let is_usual = header == Tcp::LEN + USUAL
        && size >> 16 == 0x0204
        && permitted == 0x0402_080a
        && scale >> 8 == 0x01_0303
        && scale as u8 <= MAX_SCALE;
    if is_usual { SynSays(SynSays::SACK | (scale & 0xff) << 16 | size & 0xffff) } else { SynSays(0) }
}

/// The same for any options.
#[inline(never)]
fn walk<E: Env>(env: &E, packet: &Packet) -> SynSays {
    let l4 = packet.l4 as usize;
    let mut says = SynSays::NOTHING.0;
    let Some(p) = frame::at(env, l4, Tcp::LEN) else { return SynSays(says) };
    // SAFETY: checked for the fixed header.
    let end = unsafe { Tcp::new(p) }.header_len();
    let mut at = Tcp::LEN;
    env.repeat(MAX_OPTIONS, |_| {
        if at + 2 > end {
            return true;
        }
        let Some(p) = frame::at(env, l4 + at, 2) else { return true };
        // SAFETY: checked for two bytes.
        let (kind, len): (u8, u8) = unsafe { (get(p), get(p.add(1))) };
        let len = if kind == PADDING { 1 } else { len as usize };
        if kind == END || at + len > end || (len < 2 && kind != PADDING) {
            return true;
        }
        if kind == MSS && len == 4 {
            let Some(p) = frame::at(env, l4 + at, 4) else { return true };
            // SAFETY: checked for four bytes.
            let mss = unsafe { Be16(get(p.add(2))) }.host();
            says = says & !0xffff | mss as u32;
        } else if kind == SCALE && len == 3 {
            let Some(p) = frame::at(env, l4 + at, 3) else { return true };
            // SAFETY: checked for three bytes.
            let scale: u8 = unsafe { get(p.add(2)) };
            let scale = if scale > MAX_SCALE { MAX_SCALE } else { scale };
            says = says & !0xff_0000 | (scale as u32) << 16;
        } else if kind == SACK_PERMITTED && len == 2 {
            says |= SynSays::SACK;
        }
        // Inside the header, so below 64.
        at = (at + len + unknown_zero(kind)) & 0x3f;
        false
    });
    SynSays(says)
}
