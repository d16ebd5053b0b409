//! Keys that packets are checked with, apart from the session secret in [`super::Settings`].

/// Epochs whose SYN cookie keys are at hand: more than a day's; a power of two.
pub const SYN_KEYS: usize = 32;
/// An epoch of SYN cookies is 2^42 ns long, about 73 minutes.
pub const EPOCH_SHIFT: u32 = 42;

/// A key with its id.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SegmentKey {
    /// SipHash key.
    pub key: [u64; 2],
    /// Its id, as it stands in what was sealed with it.
    pub id: u32,
    /// 1 = in use, 0 = this place is empty.
    pub valid: u32,
}

/// One entry; `lbd` renews it long before it runs out.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Secrets {
    /// SipHash keys of SYN cookies: that of epoch `e` is at `e % SYN_KEYS`. Epochs count from 1970, so that nodes whose
    /// clocks are less than an epoch apart accept each other's cookies.
    pub syn: [[u64; 2]; SYN_KEYS],
    /// Keys of sealed cookie segments: the one in use, and one that is still (or already) accepted.
    pub segment: [SegmentKey; 2],
    /// What is added to the monotonic clock to get nanoseconds since 1970.
    pub since_1970: u64,
    /// First epoch whose key is there.
    pub first_epoch: u32,
    /// Last one.
    pub last_epoch: u32,
}

super::pod!(SegmentKey: 24, Secrets: 576);
