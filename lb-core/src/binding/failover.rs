//! Failovers: one event for a server that failed, from which every node finds where each of its sessions goes.
//!
//! A [`Mark`] names the server, the how manieth failover of it this is, and the digest of the [`View`] of its pool
//! at that moment: configured servers, weights, who was live, and how often each had failed before. The view itself travels only to who
//! asks for it, because nodes that see the pool alike have it already. A record bound to the server before
//! the mark (its [`Body::failover`](super::Body::failover) is lower) goes to the first live server of its order in that view, again
//! and again if that one is marked later; its generation counts the steps.

use crate::pool::identity::mix;
use crate::pool::table::{Selection, Share};
use lb_common::abi::MAX_BACKENDS_PER_SERVICE;
use lb_common::select;

/// A server of a service failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark {
    /// Service id.
    pub service: u32,
    /// Server number.
    pub server: u64,
    /// The how manieth failover of this server, from 1.
    pub epoch: u32,
    /// Digest of the pool's view by which its sessions move.
    pub digest: u64,
}

/// A server in a view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ViewMember {
    /// Server number.
    pub number: u64,
    /// Configured weight.
    pub weight: u32,
    /// How many failovers of it were known.
    pub failover: u32,
    /// Whether sessions may move to it.
    pub is_live: bool,
}

/// A pool as a node saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    service: u32,
    /// By number, without repetition.
    members: Vec<ViewMember>,
}

impl View {
    /// A view; servers named twice count once, and no more than a pool can hold.
    pub fn new(service: u32, mut members: Vec<ViewMember>) -> Self {
        members.sort_unstable();
        members.dedup_by_key(|member| member.number);
        members.truncate(MAX_BACKENDS_PER_SERVICE as usize);
        Self { service, members }
    }

    /// Whose pool.
    pub const fn service(&self) -> u32 {
        self.service
    }

    /// Its servers by number.
    pub fn members(&self) -> &[ViewMember] {
        &self.members
    }

    /// What stands for it in a mark.
    pub fn digest(&self) -> u64 {
        self.members.iter().fold(mix(u64::from(self.service)), |digest, member| {
            let digest = mix(digest ^ member.number);
            let rest = u64::from(member.weight) << 32 ^ u64::from(member.failover) << 1;
            mix(digest ^ rest ^ u64::from(member.is_live))
        })
    }
}

/// A view with the order of its servers.
pub(super) struct Ordered {
    pub(super) view: View,
    selection: Selection,
}

impl Ordered {
    pub(super) fn new(view: View) -> Option<Self> {
        let shares = view.members.iter().map(|m| Share { number: m.number, weight: m.weight });
        let selection = Selection::new(shares).ok()?;
        Some(Self { view, selection })
    }

    /// The first server of a session's order that is live and may take it.
    pub(super) fn heir(&self, session: u64, mut may: impl FnMut(&ViewMember) -> bool) -> Option<ViewMember> {
        // Members of the selection are by number too.
        let at = |place: u16| self.view.members.get(usize::from(place)).copied();
        let takes = |place| at(place).is_some_and(|member| member.is_live && may(&member));
        select::choose(&self.selection, session, takes).and_then(at)
    }
}
