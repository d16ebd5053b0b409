//! Reading and writing packet bytes, which are rarely aligned.

/// Reads a value at any alignment.
///
/// # Safety
/// `p` points to `size_of::<T>()` readable bytes, and any bytes are a valid `T`.
#[inline(always)]
pub(crate) unsafe fn get<T: Copy>(p: *const u8) -> T {
    // The kernel's packet memory takes wide accesses at any address; `read_unaligned` would become a byte loop there.
    #[cfg(target_arch = "bpf")]
    unsafe {
        *p.cast::<T>()
    }
    #[cfg(not(target_arch = "bpf"))]
    unsafe {
        p.cast::<T>().read_unaligned()
    }
}

/// Writes a value at any alignment.
///
/// # Safety
/// `p` points to `size_of::<T>()` writable bytes.
#[inline(always)]
pub(crate) unsafe fn put<T: Copy>(p: *mut u8, value: T) {
    #[cfg(target_arch = "bpf")]
    unsafe {
        *p.cast::<T>() = value;
    }
    #[cfg(not(target_arch = "bpf"))]
    unsafe {
        p.cast::<T>().write_unaligned(value);
    }
}

/// Hides where a pointer came from.
///
/// The compiler then uses the very register that was compared with the end of the frame, which is the
/// one the verifier knows to be in bounds.
#[inline(always)]
pub(crate) fn opaque(p: *mut u8) -> *mut u8 {
    #[cfg(target_arch = "bpf")]
    {
        let mut p = p;
        // SAFETY: moves a register to itself.
        unsafe { core::arch::asm!("{0} = {0}", inlateout(reg) p, options(nomem, nostack, preserves_flags)) };
        p
    }
    #[cfg(not(target_arch = "bpf"))]
    p
}

/// The same for an offset.
#[inline(always)]
pub(crate) fn opaque_offset(offset: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut offset = offset;
        // SAFETY: moves a register to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inlateout(reg) offset, options(nomem, nostack, preserves_flags))
        };
        offset
    }
    #[cfg(not(target_arch = "bpf"))]
    offset
}

/// A zero that the verifier cannot tell: what it is added to stops being a constant, so that the rounds of a loop
/// look alike and are walked through once.
#[inline(always)]
pub(crate) fn unknown_zero(unknown: u8) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let zero: usize;
        // SAFETY: arithmetic on two registers.
        unsafe {
            core::arch::asm!(
                "{zero} = {x}",
                "{zero} -= {x}",
                zero = out(reg) zero,
                x = in(reg) unknown as usize,
                options(nomem, nostack, preserves_flags)
            )
        };
        zero
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = unknown;
        0
    }
}
