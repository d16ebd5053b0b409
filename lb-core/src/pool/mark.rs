//! The marks by which the data plane finds the server that a cookie or a connection id names.

use super::layout::BackendPlan;
use super::{AffinitySpec, BackendSpec, PoolSpec, secret};
use lb_common::abi::{Reading, Server};
use lb_common::affinity::{Slice, Span, quic::ServerId, route};
use thiserror::Error;

/// Most marks of a pool under one secret: half of what a search looks at.
pub const MARKS: usize = route::SERVERS as usize / 2;

/// Why a pool has no marks.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum MarkError {
    /// Two servers that cannot be told apart.
    #[error("backends {first:?} and {second:?} have the same {what}; give one of them another")]
    Same {
        /// The one.
        first: String,
        /// The other.
        second: String,
        /// What they share.
        what: &'static str,
    },
    /// A server id that is shorter than a configuration of connection ids needs.
    #[error(
        "the server id of backend {backend:?} has {bytes} bytes, its service's connection ids have {needed}"
    )]
    Short {
        /// The backend.
        backend: String,
        /// Bytes it has.
        bytes: usize,
        /// Bytes it needs.
        needed: u8,
    },
    /// More marks than a search looks at.
    #[error(
        "the pool has {configured} marks of servers, at most {MARKS} are possible; use fewer backends or fewer lengths of server ids"
    )]
    TooMany {
        /// Marks it would have.
        configured: usize,
    },
}

/// The mark of a route's text.
pub fn route_mark(text: &str, session_secret: &[u8; 16]) -> u64 {
    let bytes = text.as_bytes();
    route::mark(&Slice(bytes), Span::new(0, bytes.len() as u32), &secret::words(session_secret))
}

/// The text that names a server in cookies.
pub fn route_text(backend: &BackendSpec) -> &str {
    backend.route.as_deref().unwrap_or(&backend.name)
}

/// The id of a server in connection ids with ids of `len` bytes: the last bytes of its own, or of its number, big-endian.
pub fn server_id(backend: &BackendSpec, len: u8) -> Option<ServerId> {
    let wanted = usize::from(len);
    match &backend.server_id {
        Some(given) => given.len().checked_sub(wanted).and_then(|from| ServerId::new(&given[from..])),
        None => {
            let mut padded = [0; 15];
            padded[7..].copy_from_slice(&backend.number.to_be_bytes());
            padded.len().checked_sub(wanted).and_then(|from| ServerId::new(&padded[from..]))
        }
    }
}

/// The marks of a pool's servers, sorted; none for affinities that name no server.
///
/// Routes have marks under the other secret, too: a sealed route may be older than the one in use.
pub fn of(
    pool: &PoolSpec,
    places: &[BackendPlan],
    session_secret: &[u8; 16],
    other_secret: Option<&[u8; 16]>,
) -> Result<Vec<Server>, MarkError> {
    let backends = || pool.service.backends.iter().zip(places);
    let other_secret = other_secret.filter(|other| *other != session_secret);
    let mut secrets = 1;
    let (what, mut marks): (_, Vec<(u64, &BackendSpec, &BackendPlan)>) = match &pool.service.affinity {
        AffinitySpec::None | AffinitySpec::SourceIp { .. } | AffinitySpec::Payload(_) => ("", Vec::new()),
        AffinitySpec::HttpCookie(cookie) => match cookie.reading {
            Reading::Bind => ("", Vec::new()),
            Reading::Route | Reading::SealedRoute => {
                secrets = 1 + usize::from(other_secret.is_some());
                let each = std::iter::once(session_secret).chain(other_secret);
                let marks = each.flat_map(|secret| {
                    backends().map(move |(b, at)| (route_mark(route_text(b), secret), b, at))
                });
                ("route", marks.collect())
            }
            Reading::Pair => ("server number", backends().map(|(b, at)| (b.number, b, at)).collect()),
        },
        AffinitySpec::QuicCid(quic) => {
            let mut lengths: Vec<u8> = quic.configurations.iter().map(|c| c.layout.server()).collect();
            lengths.sort_unstable();
            lengths.dedup();
            let mut marks = Vec::new();
            for len in lengths {
                for (backend, place) in backends() {
                    let id = server_id(backend, len).ok_or_else(|| MarkError::Short {
                        backend: backend.name.clone(),
                        bytes: backend.server_id.as_ref().map_or(8, Vec::len),
                        needed: len,
                    })?;
                    marks.push((id.mark(), backend, place));
                }
            }
            ("server id", marks)
        }
    };
    if marks.len() > MARKS * secrets {
        return Err(MarkError::TooMany { configured: marks.len() / secrets });
    }
    marks.sort_by_key(|(mark, ..)| *mark);
    if let Some(twins) = marks.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let (first, second) = (twins[0].1.name.clone(), twins[1].1.name.clone());
        return Err(MarkError::Same { first, second, what });
    }
    let server = |(mark, _, place): (u64, &BackendSpec, &BackendPlan)| Server {
        mark,
        backend: place.slot,
        generation: place.generation,
        pad: 0,
    };
    Ok(marks.into_iter().map(server).collect())
}
