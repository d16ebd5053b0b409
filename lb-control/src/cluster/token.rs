//! One-time tokens: who has one may join, and knows whom to trust.

use super::error::ClusterError;
use super::identity::{Role, hex, random, unhex};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Begins the text of every token.
const PREFIX: &str = "sb1-";
/// Bytes of the secret.
const SECRET: usize = 16;
/// Bytes of a digest.
const DIGEST: usize = 32;
/// Tokens that may be open at a time.
const OPEN: usize = 64;

/// What the joining side is given: the digest of the authority's certificate, and a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    authority: [u8; DIGEST],
    secret: [u8; SECRET],
}

/// Tokens that nobody has used yet; secrets are kept as digests.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct OpenTokens(Vec<OpenToken>);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct OpenToken {
    digest: String,
    role: Role,
    /// Seconds since 1970.
    expires: u64,
}

impl Token {
    /// A new token of an authority.
    pub(super) fn make(authority: &CertificateDer<'_>) -> Result<Self, ClusterError> {
        Ok(Self { authority: fingerprint(authority), secret: random()? })
    }

    /// Whether this is the authority that made the token.
    pub fn names(&self, authority: &CertificateDer<'_>) -> bool {
        self.authority == fingerprint(authority)
    }

    /// What proves to the authority that the bearer was given the token.
    pub(super) fn secret(&self) -> String {
        hex(&self.secret)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}{}", hex(&self.authority), hex(&self.secret))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

impl FromStr for Token {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, ClusterError> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(unhex).ok_or(ClusterError::TokenText)?;
        let (authority, secret) = bytes.split_at_checked(DIGEST).ok_or(ClusterError::TokenText)?;
        match (authority.try_into(), secret.try_into()) {
            (Ok(authority), Ok(secret)) => Ok(Self { authority, secret }),
            (Err(_), _) | (_, Err(_)) => Err(ClusterError::TokenText),
        }
    }
}

impl OpenTokens {
    /// Adds a token; the oldest goes when there are too many.
    pub(super) fn add(&mut self, token: &Token, role: Role, now: u64, expires: u64) {
        self.forget(now);
        if self.0.len() >= OPEN {
            self.0.remove(0);
        }
        self.0.push(OpenToken { digest: hash(&token.secret()), role, expires });
    }

    /// Uses a token up, unless it is for another role than `wanted`.
    pub(super) fn take(
        &mut self,
        secret: &str,
        wanted: Option<Role>,
        now: u64,
    ) -> Result<Role, ClusterError> {
        self.forget(now);
        let digest = hash(secret);
        // How far two digests agree says nothing about the secret.
        let found = self.0.iter().position(|open| open.digest == digest).ok_or(ClusterError::Token)?;
        match (self.0[found].role, wanted) {
            (role, Some(wanted)) if role != wanted => Err(ClusterError::OtherRole { role, wanted }),
            (role, _) => {
                self.0.remove(found);
                Ok(role)
            }
        }
    }

    /// When the last one expires; `None` = there is none.
    pub(super) fn until(&self, now: u64) -> Option<u64> {
        self.0.iter().map(|open| open.expires).filter(|expires| *expires > now).max()
    }

    fn forget(&mut self, now: u64) {
        self.0.retain(|open| open.expires > now);
    }
}

fn hash(secret: &str) -> String {
    hex(digest(&SHA256, secret.as_bytes()).as_ref())
}

fn fingerprint(authority: &CertificateDer<'_>) -> [u8; DIGEST] {
    let mut bytes = [0; DIGEST];
    bytes.copy_from_slice(digest(&SHA256, authority).as_ref());
    bytes
}
