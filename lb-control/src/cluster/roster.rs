//! The list of members: what the authority signs, and the only thing that authorises.
//!
//! Every change has a higher serial. Nodes pass the newest list on to each other, and a node that is not in it is
//! shut out at once, whatever its certificate says.

use super::error::ClusterError;
use super::identity::{NodeId, Role, Subject, hex, unhex};
use rcgen::{KeyPair, SigningKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Members of a cluster.
const MEMBERS: usize = 4_096;
/// Addresses of a member.
const ADDRESSES: usize = 8;
/// Bytes of a name or an address.
const TEXT: usize = 255;
/// Begins what is signed, so that no signature of the authority for something else fits.
const CONTEXT: &[u8] = b"stickleback member list 1\n";

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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedRoster {
    body: String,
    signature: String,
    #[serde(skip)]
    roster: Roster,
}

impl Roster {
    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether somebody with this certificate is let in.
    pub fn admits(&self, subject: Subject) -> bool {
        self.member(subject.id).is_some_and(|member| member.role == subject.role)
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

impl SignedRoster {
    /// Signs a roster with the authority's key.
    pub(super) fn sign(roster: Roster, key: &KeyPair) -> Result<Self, ClusterError> {
        let refused = |reason: String| ClusterError::Roster { reason };
        roster.check().map_err(|reason| refused(reason.to_owned()))?;
        let body = serde_json::to_string(&roster).map_err(|error| refused(error.to_string()))?;
        let signature = hex(&key.sign(&signed(&body))?);
        Ok(Self { body, signature, roster })
    }

    /// Reads what somebody sent, and refuses what the authority did not sign.
    pub fn parse(text: &[u8], authority: &CertificateDer<'_>) -> Result<Self, ClusterError> {
        let refused = |reason: String| ClusterError::Roster { reason };
        let mut list: Self = serde_json::from_slice(text).map_err(|error| refused(error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(authority).map_err(|error| refused(error.to_string()))?;
        let key =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &parsed.public_key().subject_public_key.data);
        let signature = unhex(&list.signature).ok_or_else(|| refused("no signature".to_owned()))?;
        key.verify(&signed(&list.body), &signature)
            .map_err(|_| refused("its signature is not the authority's".to_owned()))?;
        list.roster = serde_json::from_str(&list.body).map_err(|error| refused(error.to_string()))?;
        list.roster.check().map_err(|reason| refused(reason.to_owned()))?;
        Ok(list)
    }

    /// What was signed.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// As it is kept and sent.
    pub fn text(&self) -> Result<Vec<u8>, ClusterError> {
        serde_json::to_vec(self).map_err(|error| ClusterError::Roster { reason: error.to_string() })
    }
}

fn signed(body: &str) -> Vec<u8> {
    [CONTEXT, body.as_bytes()].concat()
}
