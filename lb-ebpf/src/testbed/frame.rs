//! Bounds-checked access to the frame.

use aya_ebpf::programs::XdpContext;

/// Length of an Ethernet header.
pub const ETH: usize = 14;
/// EtherType of IPv4 as it lies in memory.
pub const IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6 as it lies in memory.
pub const IPV6: u16 = 0x86dd_u16.to_be();

/// A pointer to a `T` at `offset`, when all of it is in the frame.
#[inline(always)]
pub fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some(start as *mut T)
}

/// The value at `offset`; `T` of at most eight bytes, aligned to two.
#[inline(always)]
pub fn read<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    // SAFETY: `at` has checked the bounds; packet memory may be read at any even address.
    at::<T>(ctx, offset).map(|p| unsafe { *p })
}

/// Writes a value at `offset`; false when it is not in the frame.
#[inline(always)]
pub fn write<T: Copy>(ctx: &XdpContext, offset: usize, value: T) -> bool {
    match at::<T>(ctx, offset) {
        Some(p) => {
            // SAFETY: `at` has checked the bounds.
            unsafe { *p = value };
            true
        }
        None => false,
    }
}

/// The Internet checksum of words already summed up.
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Sum of the five words of an IPv4 header without options.
#[inline(always)]
pub fn sum_header(header: *const [u32; 5]) -> u64 {
    // SAFETY: the caller got the pointer from `at`.
    let words = unsafe { &*header };
    words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64 + words[4] as u64
}
