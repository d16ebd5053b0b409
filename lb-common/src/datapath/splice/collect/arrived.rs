//! A segment of the client, and what it brings.

use crate::abi::Hold;
use crate::datapath::scratch::Packet;
use crate::datapath::{Env, frame};
use crate::packet::{Tcp, flag};

/// A client's segment.
#[derive(Clone, Copy)]
pub(in super::super) struct Arrived {
    /// Its sequence number.
    pub(in super::super) sequence: u32,
    /// Its acknowledgement.
    pub(in super::super) acknowledgement: u32,
    /// Its window, as it stands there.
    pub(in super::super) window: u16,
    /// Its flags.
    pub(in super::super) flags: u8,
    /// Where its payload begins in the frame.
    pub(in super::super) at: u32,
    /// Length of the payload.
    pub(in super::super) len: u32,
}

impl Arrived {
    #[inline(always)]
    pub(in super::super) fn read<E: Env>(env: &E, packet: &Packet) -> Option<Self> {
        let p = frame::at(env, packet.l4 as usize, Tcp::LEN)?;
        // SAFETY: checked for the fixed header.
        let tcp = unsafe { Tcp::new(p) };
        let header = tcp.header_len() as u32;
        Some(Self {
            sequence: tcp.sequence(),
            acknowledgement: tcp.acknowledgement(),
            window: tcp.window(),
            flags: packet.tcp_flags,
            at: (packet.l4 as u32).wrapping_add(header),
            len: (packet.l4_len() as u32).saturating_sub(header),
        })
    }

    #[inline(always)]
    pub(in super::super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it carries the FIN that follows the last byte held.
    #[inline(always)]
    pub(in super::super) const fn ends(&self, hold: &Hold) -> bool {
        let end = hold.start.wrapping_add(hold.len);
        self.has(flag::FIN) && self.sequence.wrapping_add(self.len) == end
    }
}

/// What a segment brings to the bytes that are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Place {
    /// What comes next, perhaps behind bytes that were there before.
    Next,
    /// No byte that is not there.
    Before,
    /// Something behind a gap.
    Ahead,
}

impl Place {
    #[inline(always)]
    pub(in super::super) const fn of(hold: &Hold, segment: &Arrived) -> Self {
        let end = hold.start.wrapping_add(hold.len);
        let ahead = segment.sequence.wrapping_sub(end) as i32;
        if ahead > 0 {
            Self::Ahead
        } else if ahead.wrapping_add(segment.len as i32) > 0 {
            Self::Next
        } else {
            Self::Before
        }
    }
}
