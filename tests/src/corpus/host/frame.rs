//! A frame with room before and behind it, as the kernel's test run gives it.

use anyhow::{Result, ensure};
use std::cell::{Cell, UnsafeCell};

/// A page.
const SIZE: usize = 4096;
/// Bytes before the frame.
const HEADROOM: usize = 256;
/// The kernel keeps its own record of the frame at the start of the headroom.
const KEPT_BEFORE: usize = 40;
/// `struct skb_shared_info` at the end of the page.
const KEPT_BEHIND: usize = 320;
/// The kernel lets no frame become shorter than an Ethernet header.
const SHORTEST: usize = 14;

/// The frame and where it begins and ends.
pub(super) struct Frame {
    buffer: UnsafeCell<Box<[u8; SIZE]>>,
    start: Cell<usize>,
    end: Cell<usize>,
    /// How much longer it may become.
    growth: usize,
}

impl Frame {
    /// A frame with these bytes.
    pub(super) fn new(bytes: &[u8], growth: usize) -> Result<Self> {
        let most = SIZE - HEADROOM - KEPT_BEHIND;
        ensure!(bytes.len() <= most, "a frame of {} bytes, at most {most} fit", bytes.len());
        // Not zero, so that reading beyond the frame shows.
        let mut buffer = Box::new([0xa5; SIZE]);
        let end = HEADROOM + bytes.len();
        buffer[HEADROOM..end].copy_from_slice(bytes);
        Ok(Self { buffer: UnsafeCell::new(buffer), start: Cell::new(HEADROOM), end: Cell::new(end), growth })
    }

    fn base(&self) -> *mut u8 {
        // SAFETY: only the address is taken; no reference to the bytes lives while pointers are used.
        unsafe { (*self.buffer.get()).as_mut_ptr() }
    }

    /// First byte.
    pub(super) fn start(&self) -> *mut u8 {
        // SAFETY: within the buffer.
        unsafe { self.base().add(self.start.get()) }
    }

    /// Behind the last byte.
    pub(super) fn end(&self) -> *mut u8 {
        // SAFETY: within the buffer or just behind it.
        unsafe { self.base().add(self.end.get()) }
    }

    /// Moves the start, as `bpf_xdp_adjust_head` does.
    pub(super) fn adjust_head(&self, delta: i32) -> bool {
        match self.start.get().checked_add_signed(delta as isize) {
            Some(start) if start >= KEPT_BEFORE && start + SHORTEST <= self.end.get() => {
                self.start.set(start);
                true
            }
            _ => false,
        }
    }

    /// Moves the end, as `bpf_xdp_adjust_tail` does; new bytes are zero.
    pub(super) fn adjust_tail(&self, delta: i32) -> bool {
        let old = self.end.get();
        match old.checked_add_signed(delta as isize) {
            Some(end)
                if end <= (SIZE - KEPT_BEHIND).min(old + self.growth)
                    && end >= self.start.get() + SHORTEST =>
            {
                if end > old {
                    // SAFETY: old..end is within the buffer.
                    unsafe { self.end().write_bytes(0, end - old) };
                }
                self.end.set(end);
                true
            }
            _ => false,
        }
    }

    /// The bytes now.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let length = self.end.get() - self.start.get();
        // SAFETY: start..end is within the buffer, and nobody writes meanwhile.
        unsafe { std::slice::from_raw_parts(self.start(), length) }.to_vec()
    }
}
