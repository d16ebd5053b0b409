//! What holds for the whole node.

use super::Addr;
use crate::packet::opaque_offset;

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
    /// A cluster secret of the session-key hash (SipHash key, two words); see [`Settings::session_secret`].
    pub first_secret: [u64; 2],
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
    /// Another one; see [`Settings::other_secret`].
    pub second_secret: [u64; 2],
}

impl Settings {
    /// The secret of the session-key hash that is in use.
    #[inline(always)]
    pub fn session_secret(&self) -> &[u64; 2] {
        self.secret(self.flags & SettingsFlags::SECOND_IN_USE)
    }

    /// The one that it had before, or is about to have, if [`SettingsFlags::TWO_SECRETS`] says that there is one.
    #[inline(always)]
    pub fn other_secret(&self) -> &[u64; 2] {
        self.secret(!self.flags & SettingsFlags::SECOND_IN_USE)
    }

    /// The second one if a bit is set, else the first; without a branch, which would double what the verifier follows.
    #[inline(always)]
    fn secret(&self, second: u32) -> &[u64; 2] {
        const FIRST: usize = core::mem::offset_of!(Settings, first_secret);
        const SECOND: usize = core::mem::offset_of!(Settings, second_secret);
        let second = opaque_offset(second as usize) >> SettingsFlags::SECOND_IN_USE.trailing_zeros();
        let at = FIRST + second * (SECOND - FIRST);
        // SAFETY: it is the offset of one of the two, which are aligned as the whole is.
        unsafe { &*core::ptr::from_ref(self).cast::<u8>().add(at).cast() }
    }

    /// The same settings with each secret in the place in which `standing` has it.
    ///
    /// What the programs read while an entry is written may be of the old and the new one. So the secrets do not change places when
    /// the other one comes into use: nothing but a flag changes, and either both keys of a session are found or it has but one.
    #[must_use]
    pub fn placed_like(mut self, standing: &Self) -> Self {
        let (in_use, other) = (*self.session_secret(), *self.other_secret());
        let has_other = self.flags & SettingsFlags::TWO_SECRETS != 0;
        let is_second = standing.first_secret != in_use
            && (standing.second_secret == in_use || has_other && standing.first_secret == other);
        (self.first_secret, self.second_secret) = if is_second { (other, in_use) } else { (in_use, other) };
        self.flags &= !SettingsFlags::SECOND_IN_USE;
        self.flags |= if is_second { SettingsFlags::SECOND_IN_USE } else { 0 };
        self
    }

    /// What is written before settings that are [placed](Self::placed_like) like these: their secrets, and how these use them.
    #[must_use]
    pub const fn before(mut self, next: &Self) -> Self {
        (self.first_secret, self.second_secret) = (next.first_secret, next.second_secret);
        self
    }

    /// The same settings with the secret in use in the first place.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        (self.first_secret, self.second_secret) = (*self.session_secret(), *self.other_secret());
        self.flags &= !SettingsFlags::SECOND_IN_USE;
        self
    }
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
    /// [`Settings::second_secret`] is the one in use.
    pub const SECOND_IN_USE: u32 = 1 << 6;
}

super::pod!(Settings: 192);

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u64; 2] = [0x0a0a_0a0a_0a0a_0a0a, 0xa0a0_a0a0_a0a0_a0a0];
    const B: [u64; 2] = [0x0b0b_0b0b_0b0b_0b0b, 0xb0b0_b0b0_b0b0_b0b0];
    const C: [u64; 2] = [0x0c0c_0c0c_0c0c_0c0c, 0xc0c0_c0c0_c0c0_c0c0];

    fn of(in_use: [u64; 2], other: Option<[u64; 2]>) -> Settings {
        let flags = if other.is_some() { SettingsFlags::TWO_SECRETS } else { 0 };
        Settings {
            flags,
            first_secret: in_use,
            second_secret: other.unwrap_or_default(),
            ..Settings::default()
        }
    }

    fn says(settings: &Settings) -> ([u64; 2], Option<[u64; 2]>) {
        let has_other = settings.flags & SettingsFlags::TWO_SECRETS != 0;
        (*settings.session_secret(), has_other.then_some(*settings.other_secret()))
    }

    /// All that a reader may see while one entry is written over another: any bytes of the one and the rest of the other, in order.
    fn torn(old: &Settings, new: &Settings) -> impl Iterator<Item = Settings> {
        const LEN: usize = size_of::<Settings>();
        // SAFETY: without padding, see `pod!`.
        let bytes = |settings: &Settings| unsafe { core::mem::transmute_copy::<_, [u8; LEN]>(settings) };
        let (old, new) = (bytes(old), bytes(new));
        (0..=LEN).map(move |done| {
            let mut seen = old;
            seen[..done].copy_from_slice(&new[..done]);
            // SAFETY: any bytes are settings.
            unsafe { core::mem::transmute(seen) }
        })
    }

    #[test]
    fn while_the_secret_changes_no_packet_goes_by_one_that_is_neither() {
        // The second way is that of a node which hears of it late.
        let ways = [
            [(A, B), (B, A), (B, C), (C, B), (C, A), (A, C)],
            [(B, A), (B, C), (B, A), (A, B), (C, A), (C, B)],
        ];
        for way in ways {
            let mut stands = of(A, None);
            for (in_use, other) in way {
                let next = of(in_use, Some(other));
                let placed = next.placed_like(&stands);
                assert_eq!(says(&placed), says(&next));
                assert_eq!(placed.in_order(), next);
                let (was, will) = (says(&stands), says(&next));
                let between = stands.before(&placed);
                for seen in torn(&stands, &between).chain(torn(&between, &placed)) {
                    let (in_use, other) = says(&seen);
                    assert!([was.0, will.0].contains(&in_use), "{was:x?} -> {will:x?}: {in_use:x?}");
                    if in_use == will.0 && in_use != was.0 {
                        assert_eq!(other, will.1, "{was:x?} -> {will:x?}");
                    }
                }
                stands = placed;
            }
        }
    }

    #[test]
    fn secrets_that_nobody_knew_take_the_places_that_there_are() {
        let stands = of(A, Some(B));
        for next in [of(C, None), of(C, Some([1, 2]))] {
            let placed = next.placed_like(&stands);
            assert_eq!((says(&placed), placed.flags & SettingsFlags::SECOND_IN_USE), (says(&next), 0));
        }
        assert_eq!(of(A, None).placed_like(&Settings::default()), of(A, None));
    }
}
