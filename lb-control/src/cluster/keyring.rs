//! The secrets that all nodes of a cluster share, and how each is changed without losing a session.
//!
//! The first node's secrets become the cluster's; who joins gets them with its certificate. The authority changes one and signs
//! the result, and the nodes pass it on like the member list.

use super::error::ClusterError;
use super::identity::{hex, random, unhex};
use super::signed::{Document, Signed};
use crate::config::SharedSecrets;
use lb_common::abi::EPOCH_SHIFT;
use lb_core::pool::secret::{PAST_EPOCHS, SegmentSecret, SessionSecret, SynCookieSecret};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Epochs between the order to change SYN cookies and the first cookie under the new secret, so that every node has heard of it.
const NOTICE: u32 = 2;
/// Time between the order to change the session-key hash and the first key under the new secret, for the same reason.
pub const SESSION_NOTICE: Duration = Duration::from_secs(15);
/// Secrets of SYN cookies at a time.
const SYN_COOKIES: usize = 8;
/// Keys of sealed segments: the one in use and one that is still accepted.
const SEGMENTS: usize = 2;
/// Ids of segment keys.
const SEGMENT_IDS: u8 = 128;

/// Shared secrets, signed.
pub type SignedKeyring = Signed<Keyring>;

/// A secret of 16 bytes; its debug form does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(pub [u8; 16]);

/// A secret of SYN cookies, and the first epoch that it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct SynCookie {
    from: u32,
    secret: Secret,
}

/// A secret of the session-key hash, and the time from which it is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Session {
    /// Seconds since 1970.
    from: u64,
    secret: Secret,
}

/// A key of sealed segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Segment {
    id: u8,
    key: Secret,
}

/// The shared secrets at one time.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Keyring {
    serial: u64,
    session: Secret,
    /// What follows it; from then on it is the other one, whose sessions are found, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_next: Option<Session>,
    /// By epoch, the first one from the beginning of time.
    syn_cookie: Vec<SynCookie>,
    /// The one in use first.
    segment: Vec<Segment>,
}

/// A secret that can be changed by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rotation {
    /// The keys of sealed cookie segments.
    Segment,
    /// The secret of SYN cookies.
    SynCookie,
    /// The secret of the session-key hash.
    Session {
        /// How long sessions live that nobody uses: for so long the former secret is needed after a change.
        lifetime: Duration,
    },
}

impl Keyring {
    /// The first keyring of a cluster: what its first node has.
    pub fn of(secrets: &SharedSecrets) -> Self {
        let base = SynCookie { from: 0, secret: Secret(secrets.syn_cookie) };
        let later = secrets.syn_cookie_later.iter();
        let later = later.map(|later| SynCookie { from: later.from, secret: Secret(later.secret) });
        let segment = secrets.segment.iter().map(|one| Segment { id: one.id, key: Secret(one.key) });
        Self {
            serial: 1,
            session: Secret(secrets.session),
            session_next: secrets
                .session_next
                .map(|next| Session { from: next.from, secret: Secret(next.secret) }),
            syn_cookie: std::iter::once(base).chain(later).collect(),
            segment: segment.collect(),
        }
    }

    /// As the configuration takes them.
    pub fn secrets(&self) -> SharedSecrets {
        let later = |one: &SynCookie| SynCookieSecret { from: one.from, secret: one.secret.0 };
        SharedSecrets {
            session: self.session.0,
            session_next: self
                .session_next
                .map(|next| SessionSecret { from: next.from, secret: next.secret.0 }),
            syn_cookie: self.syn_cookie.first().map_or([0; 16], |one| one.secret.0),
            syn_cookie_later: self.syn_cookie.iter().skip(1).map(later).collect(),
            segment: self.segment.iter().map(|one| SegmentSecret { id: one.id, key: one.key.0 }).collect(),
        }
    }

    /// Makes one secret new, at a time since 1970.
    pub(super) fn rotate(&mut self, rotation: Rotation, now: Duration) -> Result<(), ClusterError> {
        let fresh = Secret(random()?);
        match rotation {
            Rotation::Session { lifetime } => {
                if let Some(next) = self.session_next {
                    let over = next.from.saturating_add(lifetime.as_secs());
                    if let Some(seconds) = over.checked_sub(now.as_secs()).filter(|seconds| *seconds > 0) {
                        return Err(ClusterError::TooSoon { seconds });
                    }
                    self.session = next.secret;
                }
                let from = now.saturating_add(SESSION_NOTICE).as_secs();
                self.session_next = Some(Session { from, secret: fresh });
            }
            Rotation::Segment => {
                let newest = self.segment.first().copied();
                let id = newest.map_or(0, |one| (one.id + 1) % SEGMENT_IDS);
                self.segment = std::iter::once(Segment { id, key: fresh }).chain(newest).collect();
            }
            Rotation::SynCookie => {
                let epoch = u32::try_from(now.as_nanos() >> EPOCH_SHIFT).unwrap_or(u32::MAX);
                let from = epoch.saturating_add(NOTICE);
                self.syn_cookie.retain(|one| one.from < from);
                self.syn_cookie.push(SynCookie { from, secret: fresh });
                // The last one from before the oldest epoch that counts is the first that is needed.
                let oldest = epoch.saturating_sub(PAST_EPOCHS);
                let first = self.syn_cookie.iter().rposition(|one| one.from <= oldest).unwrap_or(0);
                self.syn_cookie.drain(..first);
            }
        }
        self.serial += 1;
        Ok(())
    }
}

impl Document for Keyring {
    const NAME: &'static str = "list of shared secrets";
    const CONTEXT: &'static [u8] = b"stickleback shared secrets 1\n";

    fn serial(&self) -> u64 {
        self.serial
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.syn_cookie.is_empty() || self.syn_cookie.len() > SYN_COOKIES {
            Err("it has no secret of SYN cookies, or more than 8")
        } else if !self.syn_cookie.is_sorted_by(|a, b| a.from < b.from) {
            Err("its secrets of SYN cookies are not in order")
        } else if self.segment.len() > SEGMENTS {
            Err("it has more than 2 segment keys")
        } else if self.segment.iter().any(|one| one.id >= SEGMENT_IDS) {
            Err("a segment key's id is above 127")
        } else {
            Ok(())
        }
    }
}

impl Rotation {
    /// Its name in the API and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment-mac",
            Self::SynCookie => "syn-cookie",
            Self::Session { .. } => "session-key",
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        unhex(&text).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or("32 hexadecimal digits expected")
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        hex(&secret.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    /// The first second of an epoch of SYN cookies.
    fn epoch_begins(epoch: u32) -> Duration {
        Duration::from_secs((u64::from(epoch) << EPOCH_SHIFT).div_ceil(1_000_000_000))
    }

    fn keyring() -> Keyring {
        let segment = vec![SegmentSecret { id: 127, key: [3; 16] }];
        Keyring::of(&SharedSecrets {
            session: [1; 16],
            session_next: None,
            syn_cookie: [2; 16],
            syn_cookie_later: Vec::new(),
            segment,
        })
    }

    #[test]
    fn a_segment_key_stays_accepted_until_the_next_but_one() {
        let mut keys = keyring();
        keys.rotate(Rotation::Segment, NOW).unwrap();
        let segment = keys.secrets().segment;
        assert_eq!(segment.iter().map(|one| one.id).collect::<Vec<_>>(), [0, 127], "ids go round");
        assert_eq!(segment[1].key, [3; 16]);
        keys.rotate(Rotation::Segment, NOW).unwrap();
        assert_eq!(keys.secrets().segment[1], segment[0]);
        assert_eq!((keys.check(), keys.serial()), (Ok(()), 3));
        assert_eq!(keys.secrets().session, [1; 16], "the others stay");
    }

    #[test]
    fn syn_cookies_change_with_an_epoch_that_every_node_hears_of_in_time() {
        let mut keys = keyring();
        keys.rotate(Rotation::SynCookie, epoch_begins(1_000)).unwrap();
        let once = keys.secrets();
        assert_eq!(once.syn_cookie, [2; 16]);
        assert_eq!(once.syn_cookie_later.iter().map(|later| later.from).collect::<Vec<_>>(), [1_002]);
        keys.rotate(Rotation::SynCookie, epoch_begins(1_000)).unwrap();
        assert_eq!(keys.secrets().syn_cookie_later.len(), 1, "one that is not in use yet is replaced");
        assert_ne!(keys.secrets().syn_cookie_later, once.syn_cookie_later);
        for epoch in 1_003..1_030 {
            keys.rotate(Rotation::SynCookie, epoch_begins(epoch)).unwrap();
            assert_eq!(keys.check(), Ok(()), "at {epoch}");
        }
        assert_ne!(keys.secrets().syn_cookie, [2; 16], "what no cookie can be made with any more is gone");
    }

    #[test]
    fn session_keys_change_in_a_while_and_the_former_secret_is_kept_for_as_long_as_sessions_live() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let rotation = Rotation::Session { lifetime: HOUR };
        let mut keys = keyring();
        assert_eq!(keys.secrets().session_at(NOW), ([1; 16], None));
        keys.rotate(rotation, NOW).unwrap();
        let once = keys.secrets();
        let (in_use, next) = once.session_at(NOW);
        let next = next.expect("known before it is used");
        assert_eq!((in_use, once.change(NOW)), ([1; 16], Some(SESSION_NOTICE)));
        let begins = NOW + SESSION_NOTICE;
        assert_eq!(once.session_at(begins), (next, Some([1; 16])));
        assert_eq!((once.change(begins), once.syn_cookie), (None, [2; 16]));
        for soon in [NOW, begins, begins + HOUR - Duration::from_secs(1)] {
            let refused = keys.rotate(rotation, soon).unwrap_err();
            assert!(matches!(refused, ClusterError::TooSoon { seconds: 1.. }), "{refused}");
            assert_eq!((&keys.secrets(), keys.serial()), (&once, 2), "nothing happened");
        }
        assert!(keys.rotate(Rotation::Session { lifetime: Duration::ZERO }, begins).is_ok(), "forced");
        let mut keys = Keyring::of(&once);
        keys.rotate(rotation, begins + HOUR).unwrap();
        let (in_use, third) = keys.secrets().session_at(begins + HOUR);
        assert_eq!(in_use, next, "the first one is gone");
        assert!(third.is_some_and(|third| third != next && third != [1; 16]));
        let text = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<Keyring>(&text).unwrap(), keys);
        let older = serde_json::to_string(&keyring()).unwrap();
        assert!(!older.contains("session_next"), "as older programs write it: {older}");
    }

    #[test]
    fn secrets_are_not_shown_and_come_back_from_text() {
        let keys = keyring();
        assert!(!format!("{keys:?}").contains("01"), "{keys:?}");
        let text = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<Keyring>(&text).unwrap(), keys);
        assert!(serde_json::from_str::<Keyring>(&text.replace("0202", "02")).is_err());
    }
}
