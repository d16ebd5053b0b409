//! The list of members: what the authority signs, and the only thing that authorises.
//!
//! A node that is not in the newest list is shut out at once, whatever its certificate says.

use super::identity::{NodeId, Role, Subject};
use super::signed::{Document, Signed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Members of a cluster.
const MEMBERS: usize = 4_096;
/// Addresses of a member.
const ADDRESSES: usize = 8;
/// Bytes of a name or an address.
const TEXT: usize = 255;

/// A member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// What it may do.
    pub role: Role,
    /// Its name, for people.
    pub name: String,
    /// Where it listens: `host:port`, where the host may be a DNS name; none = it only calls.
    pub addresses: Vec<String>,
}

/// The members at one time.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Roster {
    /// Rises with every change.
    pub serial: u64,
    /// Who is in.
    pub members: Vec<Member>,
    /// Who was removed; such an id is never given again.
    pub removed: BTreeSet<NodeId>,
}

/// A roster with the authority's signature.
pub type SignedRoster = Signed<Roster>;

impl Roster {
    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether somebody with this certificate is let in.
    pub fn admits(&self, subject: Subject) -> bool {
        self.member(subject.id).is_some_and(|member| member.role == subject.role)
    }
}

impl Document for Roster {
    const NAME: &'static str = "member list";
    const CONTEXT: &'static [u8] = b"stickleback member list 1\n";

    fn serial(&self) -> u64 {
        self.serial
    }

    fn check(&self) -> Result<(), &'static str> {
        let ids: BTreeSet<_> = self.members.iter().map(|member| member.id).collect();
        let texts = |member: &Member| {
            member.name.len() <= TEXT
                && member.addresses.len() <= ADDRESSES
                && member.addresses.iter().all(|address| address.len() <= TEXT)
        };
        if self.members.len() > MEMBERS {
            Err("more than 4,096 members")
        } else if ids.len() != self.members.len() {
            Err("an id is there twice")
        } else if !ids.is_disjoint(&self.removed) {
            Err("a member is removed")
        } else if !self.members.iter().all(texts) {
            Err("more than 8 addresses, or a name or address of more than 255 bytes")
        } else {
            Ok(())
        }
    }
}

impl Signed<Roster> {
    /// What was signed.
    pub fn roster(&self) -> &Roster {
        self.content()
    }
}
