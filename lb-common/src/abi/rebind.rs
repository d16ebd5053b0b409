//! What `lbd` asks of the program that moves sessions.

/// Which bindings of a pool move.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RebindWhom {
    /// Those whose backend serves nobody any more, pinned ones too.
    Stranded = 1,
    /// Those whose backend takes no new sessions.
    Drained = 2,
    /// Those that moved once, are idle, and not with the first backend of their order that takes sessions.
    Idle = 3,
    /// Those that had to move, are idle, and not where they were before ([`super::BindingSlot::home`]), if that backend takes
    /// sessions.
    Homeless = 4,
}

/// A stretch of the table of bindings and a pool; the program's input.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RebindRequest {
    /// First slot.
    pub start: u32,
    /// Number of slots, at most 65,536 a run.
    pub count: u32,
    /// A [`RebindWhom`].
    pub whom: u32,
    /// Most bindings that move.
    pub limit: u32,
    /// Bindings that end later than so many nanoseconds from now are not idle.
    pub idle: u64,
    /// [`super::Service::id`].
    pub service: u32,
    /// [`super::Service::table`].
    pub table: u32,
    /// [`super::Service::table_mask`].
    pub table_mask: u32,
    /// [`super::Service::members`].
    pub members: u32,
    /// [`super::Service::member_count`].
    pub member_count: u32,
    /// Of [`RebindWhom::Drained`]: only bindings of the backend in the slot below this one; 0 = of any.
    pub backend: u32,
}

/// What a run did; the program's output, in place of the request.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RebindReport {
    /// Slots that were looked at; fewer than asked for when the limit was reached.
    pub looked_at: u32,
    /// Bindings that moved.
    pub moved: u32,
    /// Bindings that should have moved, and had nowhere to go or changed at that moment.
    pub left: u32,
    /// Zero.
    pub pad: u32,
}

/// Most slots in one run.
pub const REBIND_MAX: u32 = 65_536;

super::pod!(RebindRequest: 48, RebindReport: 16);
