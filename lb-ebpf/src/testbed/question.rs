//! What the reading programs read and what they make of it: shared by the programs and the tests.

use lb_common::abi::{AffinityRules, PathRule, SegmentKey};

/// Bytes of a stream and behind it.
pub const ROOM: usize = 8_192 + 2_048;
/// Marks or server numbers.
pub const MARKS: usize = 4_096;
/// Path rules.
pub const PATHS: usize = 16;

/// Application bytes, and what is asked about them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Question {
    /// The bytes.
    pub bytes: [u8; ROOM],
    /// How to read them.
    pub rules: AffinityRules,
    /// Path rules.
    pub paths: [PathRule; PATHS],
    /// Keys of tickets.
    pub keys: [SegmentKey; 2],
    /// Marks or server numbers, sorted.
    pub marks: [u64; MARKS],
    /// The cluster's secret.
    pub secret: [u64; 2],
    /// How many of the bytes are there.
    pub len: u32,
    /// Number of path rules.
    pub path_count: u32,
    /// Number of marks.
    pub mark_count: u32,
    /// The service's id.
    pub service: u32,
    /// 1: reading goes on where the last run stopped.
    pub resume: u32,
    /// Zero.
    pub pad: u32,
    /// How far a head has been read.
    pub progress: [u64; 3],
    /// What came out.
    pub answer: Answer,
}

/// What a reading program found.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Answer {
    /// A `Head`, a `Check`, or 1 for a key.
    pub state: u32,
    /// Place of the value's segment.
    pub start: u32,
    /// Its length.
    pub len: u32,
    /// Length of the head.
    pub end: u32,
    /// The session key, or the mark.
    pub key: u64,
    /// Places of a route's server, or of a pair's, or of a path's rule, counted from 1; 0 = none.
    pub places: [u32; 2],
}
