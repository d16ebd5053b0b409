//! What makes a session, and whether service and backends can do it.

use super::backend::LocatedBackend;
use super::secrets::{self, QuicKeyFile};
use super::unique::Unique;
use crate::config::defaults;
use crate::config::field::{Field, Owner};
use crate::config::file::{self, Service};
use crate::config::problem::Finding;
use crate::config::value::{
    AffinityChoice, AffinityKind, AffinityTable, FallbackWord, MismatchWord, ReadingWord,
};
use core::ops::Range;
use lb_common::abi::{HOLD_LEN, Mode, OnMismatch, Reading};
use lb_common::affinity::quic::{Layout, LayoutError};
use lb_core::pool::{
    AffinitySpec, BackendSpec, CookieSpec, Fallback, PayloadSpec, Protocol, QuicConfiguration, QuicSpec, mark,
};
use std::collections::HashMap;

/// An affinity, its place, and files with keys that it needs.
pub(super) struct Checked {
    pub(super) spec: AffinitySpec,
    /// Place of the key `affinity`, else of the service.
    pub(super) span: Range<usize>,
    pub(super) key_files: Vec<QuicKeyFile>,
}

/// Reads the affinity of a service and its QUIC configurations.
pub(super) fn check(service: &Service, owner: &Owner<'_>) -> Checked {
    let absent = AffinityTable::default();
    let (kind, table, span) = match service.affinity.located() {
        None => (Some(AffinityKind::SourceIp), &absent, owner.span.clone()),
        Some((AffinityChoice::Kind(kind), span)) => (Some(*kind), &absent, span),
        Some((AffinityChoice::Table(table), span)) => {
            let owner = Owner { span: span.clone(), ..*owner };
            let kind = table.kind.required("kind", "\"source-ip\"", &owner).map(|(kind, _)| *kind);
            (kind, &**table, span)
        }
    };
    let owner = Owner { span: span.clone(), ..*owner };
    if let Some(kind) = kind {
        misplaced(kind, table, &owner);
    }
    let mut key_files = Vec::new();
    let spec = match kind {
        None | Some(AffinityKind::SourceIp) => {
            let (v4, v6) = prefixes(table);
            AffinitySpec::SourceIp { v4, v6 }
        }
        Some(AffinityKind::None) => AffinitySpec::None,
        Some(AffinityKind::HttpCookie) => AffinitySpec::HttpCookie(cookie(table, &owner)),
        Some(AffinityKind::QuicCid) => {
            let (configurations, files) = quic(service, &owner);
            key_files = files;
            AffinitySpec::QuicCid(QuicSpec { configurations, fallback: fallback(table) })
        }
        Some(AffinityKind::Payload) => AffinitySpec::Payload(payload(table, service, &owner)),
    };
    if let Some(span) = service.quic.span()
        && !matches!(kind, None | Some(AffinityKind::QuicCid))
        && !service.quic.is_vacant()
    {
        owner.report(
            Finding::error(span, "[[service.quic]] works only with `affinity = \"quic-cid\"`")
                .suggest("write `affinity = \"quic-cid\"`, or remove the configurations of connection ids"),
        );
    }
    Checked { spec, span, key_files }
}

/// Keys that mean nothing with that kind of affinity.
fn misplaced(kind: AffinityKind, table: &AffinityTable, owner: &Owner<'_>) {
    use AffinityKind::{HttpCookie, Payload, QuicCid, SourceIp};
    type Key<'a> = (&'a str, Option<Range<usize>>, &'a [AffinityKind]);
    let by_address = matches!(table.fallback.get(), Some(FallbackWord::SourceIp));
    let keys: [Key<'_>; 13] = [
        ("prefix-v4", table.prefix_v4.span(), &[SourceIp]),
        ("prefix-v6", table.prefix_v6.span(), &[SourceIp]),
        ("cookie", table.cookie.span(), &[HttpCookie]),
        ("read", table.read.span(), &[HttpCookie]),
        ("delimiter", table.delimiter.span(), &[HttpCookie]),
        ("segment", table.segment.span(), &[HttpCookie]),
        ("learn", table.learn.span(), &[HttpCookie]),
        ("fallback", table.fallback.span(), &[HttpCookie, QuicCid, Payload]),
        ("on-mismatch", table.on_mismatch.span(), &[HttpCookie]),
        ("head-limit", table.head_limit.span(), &[HttpCookie]),
        ("offset", table.offset.span(), &[Payload]),
        ("length", table.length.span(), &[Payload]),
        ("mask", table.mask.span(), &[Payload]),
    ];
    for (key, span, kinds) in keys {
        let Some(span) = span.filter(|_| !kinds.contains(&kind)) else { continue };
        let prefix = kinds == [SourceIp];
        if prefix && by_address && !matches!(kind, AffinityKind::None) {
            continue;
        }
        let finding = match (kind, prefix) {
            (AffinityKind::None, true) => Finding::error(span, "affinity \"none\" has no prefix")
                .suggest("remove the prefix, or write `kind = \"source-ip\"`"),
            (_, true) => {
                Finding::error(span, format!("`{key}` has no meaning for affinity \"{}\"", kind.word()))
                    .suggest("remove it, or write `fallback = \"source-ip\"`, which it then belongs to")
            }
            _ => {
                let words: Vec<_> = kinds.iter().map(|kind| format!("\"{}\"", kind.word())).collect();
                let text = format!("`{key}` has no meaning for affinity \"{}\"", kind.word());
                Finding::error(span, text)
                    .suggest(format!("remove it, or write `kind = {}`", words.join(" or ")))
            }
        };
        owner.report(finding);
    }
}

fn prefixes(table: &AffinityTable) -> (u8, u8) {
    (
        table.prefix_v4.get().map_or(defaults::PREFIX_V4, |n| n.narrow()),
        table.prefix_v6.get().map_or(defaults::PREFIX_V6, |n| n.narrow()),
    )
}

fn fallback(table: &AffinityTable) -> Fallback {
    match table.fallback.get() {
        Some(FallbackWord::SourceIp) => {
            let (v4, v6) = prefixes(table);
            Fallback::SourceIp { v4, v6 }
        }
        Some(FallbackWord::None) | None => Fallback::None,
    }
}

fn cookie(table: &AffinityTable, owner: &Owner<'_>) -> CookieSpec {
    let name = table.cookie.required("cookie", "\"SESS\"", owner).map(|(name, _)| name.0.clone());
    let reading = match table.read.get() {
        Some(ReadingWord::Bind) | None => Reading::Bind,
        Some(ReadingWord::Route) => Reading::Route,
        Some(ReadingWord::Pair) => Reading::Pair,
        Some(ReadingWord::SealedRoute) => Reading::SealedRoute,
    };
    let part = match (table.delimiter.located(), table.segment.located()) {
        (Some((delimiter, _)), Some((segment, _))) => Some((delimiter.0, (segment.0 - 1) as u8)),
        (Some((_, span)), None) => {
            if table.segment.span().is_none() {
                owner.report(
                    Finding::error(span, "there is a `delimiter`, but no `segment` says which part counts")
                        .suggest("add `segment = 1` (the first part), or remove `delimiter`"),
                );
            }
            None
        }
        (None, Some((_, span))) => {
            if table.delimiter.span().is_none() {
                owner.report(
                    Finding::error(
                        span,
                        "there is a `segment`, but no `delimiter` says what parts the value",
                    )
                    .suggest("add `delimiter = \"!\"`, or remove `segment`"),
                );
            }
            None
        }
        (None, None) => None,
    };
    let learn = match table.learn.located() {
        None => reading == Reading::Bind,
        Some((true, span)) if reading != Reading::Bind => {
            owner.report(
                Finding::error(span, "`learn` works only with `read = \"bind\"`")
                    .suggest("remove it: with the other readings the cookie itself names the backend"),
            );
            false
        }
        Some((learn, _)) => *learn,
    };
    CookieSpec {
        name: name.unwrap_or_default(),
        reading,
        part,
        learn,
        fallback: fallback(table),
        on_mismatch: match table.on_mismatch.get() {
            Some(MismatchWord::Count) | None => OnMismatch::Count,
            Some(MismatchWord::Reset) => OnMismatch::Reset,
        },
        head_limit: table.head_limit.get().map_or(defaults::HEAD_LIMIT, |n| n.narrow()),
    }
}

fn payload(table: &AffinityTable, service: &Service, owner: &Owner<'_>) -> PayloadSpec {
    let offset: u16 = table.offset.get().map_or(0, |n| n.narrow());
    let mask = match (table.length.located(), table.mask.located()) {
        (None, None) => {
            if table.mask.span().is_none() {
                table.length.required("length", "4", owner);
            }
            vec![0xff]
        }
        (Some((length, _)), None) => vec![0xff; length.0 as usize],
        (None, Some((mask, _))) => mask.0.clone(),
        (Some((length, first)), Some((mask, span))) => {
            if mask.0.len() as u64 != length.0 {
                owner.report(
                    Finding::error(
                        span,
                        format!("`mask` has {} bytes, `length` is {}", mask.0.len(), length.0),
                    )
                    .expected(format!("{} hexadecimal digits, or no `length`", 2 * length.0))
                    .related(first, "`length` is"),
                );
            }
            mask.0.clone()
        }
    };
    // The scan of a stream ends with its hold; a datagram ends by itself.
    if matches!(service.protocol.get(), Some(file::Protocol::Tcp) | None)
        && usize::from(offset) + mask.len() > HOLD_LEN
        && let Some(span) = table.offset.span()
    {
        owner.report(
            Finding::error(span, "the segment ends too far behind")
                .expected(format!("`offset` and `length` together at most {HOLD_LEN}")),
        );
    }
    PayloadSpec { offset, mask, fallback: fallback(table) }
}

/// Configurations of connection ids, and the files that hold their keys.
fn quic(service: &Service, owner: &Owner<'_>) -> (Vec<QuicConfiguration>, Vec<QuicKeyFile>) {
    if service.quic.is_vacant() {
        owner.report(
            Finding::error(
                owner.span.clone(),
                "affinity \"quic-cid\" needs a configuration of connection ids",
            )
            .suggest(
                "add [[service.quic]] with `rotation = 0`, `server-id-length = 4` and `nonce-length = 6`",
            ),
        );
    }
    let (mut configurations, mut files) = (Vec::new(), Vec::new());
    let mut rotations = Unique::default();
    for (entry, span) in service.quic.get().into_iter().flatten().filter_map(Field::located) {
        let object = format!("{}, [[service.quic]]", owner.object);
        let owner = Owner { span, object: &object, findings: owner.findings };
        let rotation = entry.rotation.required("rotation", "0", &owner);
        let server = entry.server_id_length.required("server-id-length", "4", &owner);
        let nonce = entry.nonce_length.required("nonce-length", "6", &owner);
        let key = secrets::one(&entry.key, &entry.key_file, "key", &owner);
        let (Some((rotation, at)), Some((server, _)), Some((nonce, nonce_at))) = (rotation, server, nonce)
        else {
            continue;
        };
        if let Some(first) = rotations.insert(rotation.0, &at) {
            owner.report(
                Finding::error(at, format!("there are two configurations with rotation {}", rotation.0))
                    .related(first, "the first is"),
            );
            continue;
        }
        let layout = match Layout::new(server.narrow(), nonce.narrow()) {
            Ok(layout) => layout,
            Err(LayoutError::ServerId(_) | LayoutError::Nonce(_) | LayoutError::Sum(_)) => {
                owner.report(
                    Finding::error(
                        nonce_at,
                        format!("server id and nonce have {} bytes", server.0 + nonce.0),
                    )
                    .expected("at most 19 together: a connection id has 20 bytes"),
                );
                continue;
            }
        };
        let (key, file) = match key {
            secrets::Source::Absent => (None, None),
            secrets::Source::Given(key) => (Some(key), None),
            secrets::Source::File(path) => (None, Some(path)),
        };
        files.extend(file.map(|path| QuicKeyFile { service: 0, configuration: configurations.len(), path }));
        configurations.push(QuicConfiguration { rotation: rotation.narrow(), layout, key });
    }
    (configurations, files)
}

/// Whether mode and protocol can carry the affinity.
pub(super) fn fits(
    affinity: &AffinitySpec,
    span: &Range<usize>,
    (protocol, protocol_at): (Protocol, Option<Range<usize>>),
    (mode, mode_at): (Mode, Range<usize>),
    owner: &Owner<'_>,
) {
    let kind = affinity.kind();
    let needs = |what: &str, why: &str, related: Option<Range<usize>>, name: &str| {
        let finding =
            Finding::error(span.clone(), format!("affinity \"{kind}\" works only with {what}")).suggest(why);
        owner.report(match related {
            Some(at) => finding.related(at, name),
            None => finding,
        });
    };
    let nat = "use `mode = \"nat\"`: the balancer answers the handshake itself, so replies must come back through it";
    match affinity {
        AffinitySpec::None | AffinitySpec::SourceIp { .. } => {}
        AffinitySpec::HttpCookie(_) => {
            if protocol != Protocol::Tcp {
                let why = "use `protocol = \"tcp\"`, or another affinity: cookies are in HTTP/1 requests";
                needs("`protocol = \"tcp\"`", why, protocol_at, "the protocol is");
            } else if mode != Mode::Nat {
                needs("`mode = \"nat\"`", nat, Some(mode_at), "the mode is");
            }
        }
        AffinitySpec::QuicCid(_) => {
            if protocol != Protocol::Udp {
                let why = "use `protocol = \"udp\"`, which QUIC runs over";
                needs("`protocol = \"udp\"`", why, protocol_at, "the protocol is");
            }
        }
        AffinitySpec::Payload(_) => {
            if protocol == Protocol::Tcp && mode != Mode::Nat {
                needs("`mode = \"nat\"` over TCP", nat, Some(mode_at), "the mode is");
            }
        }
    }
}

/// Whether what packets say tells the servers of a pool apart.
pub(super) fn tells_apart(affinity: &AffinitySpec, backends: &[LocatedBackend], owner: &Owner<'_>) {
    match affinity {
        AffinitySpec::None | AffinitySpec::SourceIp { .. } | AffinitySpec::Payload(_) => {}
        AffinitySpec::HttpCookie(cookie) => match cookie.reading {
            Reading::Bind | Reading::Pair => {}
            Reading::Route | Reading::SealedRoute => routes(cookie, backends, owner),
        },
        AffinitySpec::QuicCid(quic) => server_ids(quic, backends, owner),
    }
}

fn routes(cookie: &CookieSpec, backends: &[LocatedBackend], owner: &Owner<'_>) {
    let mut texts = Unique::default();
    for backend in backends {
        let at = backend.route.clone().unwrap_or_else(|| backend.name.clone());
        let text = mark::route_text(&backend.spec);
        let own = Owner { span: at.clone(), object: &backend.object, findings: owner.findings };
        if let Some(first) = texts.insert(text, &at) {
            own.report(
                Finding::error(at.clone(), format!("another backend has the route `{text}`, too"))
                    .related(first, "the other is")
                    .suggest("give one of them another `route`"),
            );
        }
        if let Some((delimiter, _)) = cookie.part
            && cookie.reading == Reading::Route
            && text.as_bytes().contains(&delimiter)
        {
            let sign = char::from(delimiter);
            own.report(
                Finding::error(at, format!("the route `{text}` has the delimiter `{sign}` in it"))
                    .expected(format!("a route without `{sign}`: it would end there"))
                    .suggest("give the backend a `route` of its own, or use another `delimiter`"),
            );
        }
    }
}

fn server_ids(quic: &QuicSpec, backends: &[LocatedBackend], owner: &Owner<'_>) {
    let mut lengths: Vec<u8> = quic.configurations.iter().map(|entry| entry.layout.server()).collect();
    lengths.sort_unstable();
    lengths.dedup();
    for len in lengths {
        let mut ids: HashMap<[u8; 15], (&BackendSpec, Range<usize>)> = HashMap::new();
        for backend in backends {
            let at = backend.server_id.clone().unwrap_or_else(|| backend.name.clone());
            let own = Owner { span: at.clone(), object: &backend.object, findings: owner.findings };
            let Some(id) = mark::server_id(&backend.spec, len) else {
                own.report(
                    Finding::error(at, "the server id is too short")
                        .expected(format!("at least {len} bytes, as `server-id-length` says")),
                );
                continue;
            };
            if let Some((other, first)) = ids.get(&id.bytes()) {
                let shown: String =
                    id.bytes()[..usize::from(len)].iter().map(|b| format!("{b:02x}")).collect();
                own.report(
                    Finding::error(at, format!("backend `{}` has the server id {shown}, too", other.name))
                        .expected(match len {
                            1 => "ids that differ in their last byte".to_owned(),
                            len => format!("ids that differ in their last {len} bytes"),
                        })
                        .related(first.clone(), "the other is")
                        .suggest("give one of them another `server-id`, or use a greater `server-id-length`"),
                );
                continue;
            }
            ids.insert(id.bytes(), (&backend.spec, at));
        }
    }
}
