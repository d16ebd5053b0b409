//! What `lbd` asks of the maintenance programs, through the data of `BPF_PROG_TEST_RUN`.

/// Which table the sweep walks.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SweepTarget {
    /// Bindings.
    Bindings = 1,
    /// Flows, half-open ones first.
    Flows = 2,
    /// No table: `count` flows of the backend in slot `start`, of the generation in `pad`, ended where no program saw it, and
    /// are not its connections any more.
    Ended = 3,
}

/// A stretch of a table to sweep; the program's input.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SweepRequest {
    /// A [`SweepTarget`].
    pub target: u32,
    /// First slot.
    pub start: u32,
    /// Number of slots, at most 65,536 a run.
    pub count: u32,
    /// Zero, but with [`SweepTarget::Ended`].
    pub pad: u32,
}

/// What a sweep did; the program's output, in place of the request.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SweepReport {
    /// Entries deleted.
    pub reclaimed: u32,
    /// Entries that live on.
    pub live: u32,
    /// Bindings that were unsynced and told again.
    pub unsynced: u32,
    /// Zero.
    pub pad: u32,
}

/// What to do with a binding.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BindingOp {
    /// Insert, or replace when the record's generation is newer.
    Put = 1,
    /// Delete when the generation is not newer than the record's.
    Delete = 2,
    /// Clear the unsynced flag when the word is still the record's.
    Acknowledge = 3,
    /// Insert when absent: migration of a table.
    Copy = 4,
    /// Insert, or replace whatever the generation: what the cluster says. What the data plane changed and `lbd` has not
    /// acknowledged stays, since `lbd` will hear of it; of two ends the later one holds.
    Settle = 5,
    /// Delete whatever the generation, but not what `lbd` has not acknowledged.
    Clear = 6,
}

/// One binding for the `apply` program; the input is an array of them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BindingRecord {
    /// The session key.
    pub session: u64,
    /// The [`super::BindingWord`].
    pub word: u64,
    /// Remaining lifetime in nanoseconds.
    pub lifetime: u64,
    /// [`super::Service::id`].
    pub service: u32,
    /// A [`BindingOp`]; the program replaces it by a [`RecordResult`].
    pub op: u8,
    /// Zero.
    pub pad: u8,
    /// Of [`BindingOp::Copy`]: [`super::BindingSlot::home`].
    pub home: u16,
}

/// What `apply` did with a record.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RecordResult {
    /// Not an operation.
    Invalid = 0,
    /// Done.
    Applied = 16,
    /// The table holds something newer, or something else by now.
    Superseded = 17,
    /// No room.
    Full = 18,
    /// Nothing there to delete or acknowledge.
    Absent = 19,
    /// Somebody was changing it at that moment: try again.
    Busy = 20,
}

/// Records in one run of `apply`.
pub const RECORDS_PER_RUN: usize = 64;

super::pod!(SweepRequest: 16, SweepReport: 16, BindingRecord: 32);
