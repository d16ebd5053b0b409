//! What holds for the whole node.

use super::Addr;

/// One entry; written by `lbd` before the program is attached and on reload.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Settings {
    /// [`super::SCHEMA_VERSION`] of the maps.
    pub schema: u32,
    /// Bits of [`SettingsFlags`].
    pub flags: u32,
    /// Bindings the table may hold.
    pub binding_capacity: u32,
    /// Buckets of the binding table.
    pub binding_buckets: u32,
    /// Half-open flow records.
    pub half_open: u32,
    /// Established flow records; they follow the half-open ones.
    pub flows: u32,
    /// Cluster secret of the session-key hash (SipHash key, two words).
    pub session_secret: [u64; 2],
    /// Source of tunnel packets to IPv4 backends.
    pub tunnel_v4: Addr,
    /// Source of tunnel packets to IPv6 backends.
    pub tunnel_v6: Addr,
    /// UDP port of GUE, host order.
    pub gue_port: u32,
    /// ICMP answers and resets a second, for the whole node.
    pub answer_rate: u32,
    /// New bindings that one source prefix (IPv4 /24, IPv6 /48) may make in a service per window; 0 = no limit.
    pub prefix_quota: u32,
    /// Length of the window in seconds.
    pub prefix_window: u32,
    /// Lifetimes without traffic, in nanoseconds: half-open TCP.
    pub tcp_half_open: u64,
    /// Established TCP.
    pub tcp_established: u64,
    /// TCP after a FIN from either side.
    pub tcp_closing: u64,
    /// TCP after a reset.
    pub tcp_reset: u64,
    /// UDP and others until the client goes on after a reply.
    pub udp_new: u64,
    /// UDP and others after that.
    pub udp_established: u64,
    /// Raised after every change of the service map, so that CPUs forget the services they have at hand; 0 = they keep none.
    pub version: u32,
    /// Nanoseconds of a tick of the kernel's coarse clock (its resolution); 0 = ask the clock for every packet.
    pub tick: u32,
    /// Spliced: how long a request head may take to be complete, in nanoseconds.
    pub head_timeout: u64,
    /// Spliced: how long a backend may take to answer, in nanoseconds.
    pub connect_timeout: u64,
    /// Holds in all: one for each CPU first, then those that flows share.
    pub holds: u32,
    /// Holds of CPUs; the first ones.
    pub cpu_holds: u32,
    /// Random, so that nobody can choose clients whose bindings collide; stays as it is for as long as the tables do.
    pub seed: u64,
    /// The secret that the session-key hash had before, or is about to have, if [`SettingsFlags::TWO_SECRETS`] says that there is one.
    pub other_secret: [u64; 2],
}

/// Bits of [`Settings::flags`].
#[derive(Clone, Copy, Debug)]
pub struct SettingsFlags;

impl SettingsFlags {
    /// Send back out of the same interface by redirect: veth drops `XDP_TX` unless its peer runs XDP.
    pub const TX_BY_REDIRECT: u32 = 1 << 0;
    /// Some service uses `nat`, so packets that meet no service are looked up as replies.
    pub const NAT: u32 = 1 << 1;
    /// Some service takes any port, so a second service look-up is worth making.
    pub const ANY_PORT: u32 = 1 << 2;
    /// Tables are being replaced: mid-flow packets that nobody knows are dropped, not reset, and replies of marked
    /// backends that nobody knows are dropped, not passed, see [`super::FlowKey::mark`].
    pub const MIGRATING: u32 = 1 << 3;
    /// There are other nodes, see [`super::Peer`]: what this one does not know one of them may know.
    pub const PEERS: u32 = 1 << 4;
    /// A session that is not bound under its key may be bound under the one that [`Settings::other_secret`] makes.
    pub const TWO_SECRETS: u32 = 1 << 5;
}

super::pod!(Settings: 192);
