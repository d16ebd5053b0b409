//! Tables that only a switch has: what XDP keeps in one map, or need not keep.

/// Services that take any port, by address and protocol.
pub const ANY_PORT: &str = "ANY_PORT";
/// Services that are the only ones of an address and protocol, for fragments without ports.
pub const ALONE: &str = "ALONE";
/// Addresses that have any service.
pub const VIPS: &str = "VIPS";
/// Backends of `nat` services, by what their replies come from.
pub const REPLIES: &str = "REPLIES";
/// Services of other modes, by what their backends' own replies come from.
pub const RETURNS: &str = "RETURNS";
/// The wall clock, for backends' timestamps.
pub const CLOCK: &str = "CLOCK";
/// What is added to the timestamps of a backend, by backend slot.
pub const STAMPS: &str = "STAMPS";
/// Backends by the number that their timestamps carry, and what to take off again.
pub const MARKS: &str = "MARKS";
/// Ways to clients, by prefix of their addresses.
pub const ROUTES: &str = "ROUTES";

/// Connections of XDP nodes that the switch goes on with by itself, two entries for each.
pub const OFFLOADED: &str = "OFFLOADED";
/// Whose turn it is in each of those connections.
pub const TURNS: &str = "TURNS";

/// Most connections that the switch goes on with by itself.
pub const TURN_ENTRIES: u32 = 1 << 16;
/// Entries of [`OFFLOADED`].
pub const OFFLOADED_ENTRIES: u32 = 2 * TURN_ENTRIES;
/// Entries of [`ANY_PORT`].
pub const ANY_PORT_ENTRIES: u32 = 512;
/// Entries of [`ROUTES`].
pub const ROUTE_ENTRIES: u32 = 1_024;
/// Entries of a switch's arena of selection tables: each is the owner of one slot.
pub const ARENA_ENTRIES: u32 = 1 << 20;

/// Register: the wall clock that was written last, and when that was by the switch's own.
pub const WALL: &str = "WALL";

/// Packets and bytes towards backends, by service slot.
pub const SERVICE_PACKETS: &str = "SERVICE_PACKETS";
/// Packets and bytes of replies, by service slot.
pub const SERVICE_REPLIES: &str = "SERVICE_REPLIES";
/// Connections, by service slot.
pub const SERVICE_CONNECTIONS: &str = "SERVICE_CONNECTIONS";
/// Packets and bytes towards it, by backend slot.
pub const BACKEND_PACKETS: &str = "BACKEND_PACKETS";
/// Packets and bytes of its replies, by backend slot.
pub const BACKEND_REPLIES: &str = "BACKEND_REPLIES";
/// Connections, by backend slot.
pub const BACKEND_CONNECTIONS: &str = "BACKEND_CONNECTIONS";
/// Packets and bytes of connections that the switch goes on with by itself, by service slot.
pub const EXPRESS: &str = "EXPRESS";

/// Milliseconds by which a timestamp that comes back may be behind the clock: three and a half hours. It may be ahead by what is left of
/// 2^24, which is more than an hour.
pub const STAMP_AGE: u32 = 12 << 20;
/// Bytes of a UDP payload that a switch looks at.
pub const WINDOW: u32 = 24;
/// The CPU port that stands for none: what would go there is dropped.
pub const NO_CPU_PORT: u32 = 0x1ff;
