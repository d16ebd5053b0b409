//! The clock that expiries in the tables are written in.

use lb_core::pool::secret::Clocks;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds of a tick of the kernel's coarse clock; 0 when it does not say.
pub(crate) fn tick_ns() -> u32 {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `resolution` is a valid timespec; the clock exists on every Linux.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    u32::try_from(resolution.tv_nsec).unwrap_or_default()
}

/// What both clocks say now.
pub(crate) fn clocks() -> Clocks {
    Clocks::new(monotonic_ns(), u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX))
}

/// The wall clock.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Nanoseconds of the monotonic clock, as `bpf_ktime_get_ns` gives them.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
