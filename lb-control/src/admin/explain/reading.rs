//! What of a request or datagram says whose it is, read as the data plane reads it.

use super::{Packet, step};
use crate::admin::error::ApiError;
use crate::admin::row::{ExplainBody, Step, StepKind};
use crate::admin::sessionkey;
use lb_common::abi::{AffinityRules, Outcome, Reading, Secrets, Server};
use lb_common::affinity::quic::{Decoder, UNROUTABLE};
use lb_common::affinity::ticket::{self, Check, Kind, Ticket};
use lb_common::affinity::{Slice, Span, pair, payload, route, segment, text};
use lb_core::pool::{AffinitySpec, CookieSpec, QuicSpec, ServiceSpec};

/// What the packet carries, as far as the question says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Value of the service's cookie.
    pub cookie: Option<String>,
    /// Path of the request.
    pub path: Option<String>,
    /// Destination connection id.
    pub cid: Option<Vec<u8>>,
    /// Payload from its first byte on.
    pub payload: Option<Vec<u8>>,
}

/// What the data plane knows of a pool beside its table.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'a> {
    /// The service's rules.
    pub rules: &'a AffinityRules,
    /// The pool's servers, sorted by mark.
    pub servers: &'a [Server],
    /// Keys of sealed segments.
    pub secrets: &'a Secrets,
    /// Secret of the session-key hash.
    pub session_secret: &'a [u64; 2],
    /// Id of the service, which sealed segments are bound to.
    pub service_id: u32,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// How.
    pub steps: Vec<Step>,
    /// The session key.
    pub session: u64,
    /// Why it is that.
    pub because: String,
    /// Servers that it names, in the order they are tried.
    pub named: Vec<(u16, u16)>,
}

impl Content {
    /// What a question says of the packet's content.
    pub fn of(body: &ExplainBody) -> Result<Self, ApiError> {
        let bytes = |name: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| {
                    unhex(text).ok_or_else(|| {
                        ApiError::bad_input(
                            format!("{name} {text}"),
                            "bytes in hexadecimal, two digits each, such as 0a01ff",
                        )
                    })
                })
                .transpose()
        };
        if let Some(path) = body.path.as_deref().filter(|path| !path.starts_with('/')) {
            return Err(ApiError::bad_input(
                format!("path {path}"),
                "the path of a request, such as /static/a.png",
            ));
        }
        Ok(Self {
            cookie: body.cookie.clone(),
            path: body.path.clone(),
            cid: bytes("cid", &body.cid)?,
            payload: bytes("payload", &body.payload)?,
        })
    }

    /// The pool that the path chooses: the place among the service's paths, longest prefix first, and the step.
    pub fn pool(&self, service: &ServiceSpec) -> (Option<String>, Option<Step>) {
        if service.paths.is_empty() {
            return (None, None);
        }
        let Some(path) = &self.path else {
            let because = "the question names no --path; requests of paths with pools of their own go there";
            return (None, Some(step(StepKind::Path, format!("pool {}", service.name), because)));
        };
        let chosen = service.paths.iter().filter(|rule| path.starts_with(&rule.prefix));
        match chosen.max_by_key(|rule| rule.prefix.len()) {
            Some(rule) => {
                let because = format!("{} is the longest prefix of {path}", rule.prefix);
                (Some(rule.name.clone()), Some(step(StepKind::Path, format!("pool {}", rule.name), because)))
            }
            None => {
                let because = format!("no prefix of a path fits {path}");
                (None, Some(step(StepKind::Path, format!("pool {}", service.name), because)))
            }
        }
    }
}

/// Reads the content as the service's affinity says; `None` when the affinity reads addresses only.
pub fn read(packet: &Packet, service: &ServiceSpec, content: &Content, marks: Marks<'_>) -> Option<Read> {
    let reader = Reader { packet, service, marks };
    match &service.affinity {
        AffinitySpec::None | AffinitySpec::SourceIp { .. } => None,
        AffinitySpec::HttpCookie(cookie) => Some(reader.cookie(cookie, content.cookie.as_deref())),
        AffinitySpec::QuicCid(quic) => Some(reader.quic(quic, content.cid.as_deref())),
        AffinitySpec::Payload(_) => Some(reader.payload(content.payload.as_deref())),
    }
}

struct Reader<'a> {
    packet: &'a Packet,
    service: &'a ServiceSpec,
    marks: Marks<'a>,
}

impl Reader<'_> {
    /// Nothing that can be used: the session is that of the address or the connection.
    fn fallback(&self, found: impl Into<String>, because: impl Into<String>) -> Read {
        Read { steps: vec![step(StepKind::Segment, found.into(), because)], ..self.unread() }
    }

    /// What the fallback says.
    fn unread(&self) -> Read {
        Read {
            steps: Vec::new(),
            session: sessionkey::of_packet(self.packet, self.service, self.marks.session_secret),
            because: super::fallback_words(self.packet, self.service),
            named: Vec::new(),
        }
    }

    fn server(&self, place: u32) -> Option<(u16, u16)> {
        self.marks.servers.get(place as usize).map(|server| (server.backend, server.generation))
    }

    fn mark(&self, place: u32) -> Option<u64> {
        self.marks.servers.get(place as usize).map(|server| server.mark)
    }

    fn cookie(&self, spec: &CookieSpec, value: Option<&str>) -> Read {
        let name = &spec.name;
        let Some(value) = value else {
            let because = format!(
                "the question gives no value of {name} (--cookie); counted {}",
                Outcome::NoCookie.name()
            );
            return self.fallback("no cookie", because);
        };
        let bytes = Slice(value.as_bytes());
        let (delimiter, index) = spec.part.unwrap_or_default();
        let part = segment::part(&bytes, Span::new(0, value.len() as u32), delimiter, index);
        let Some(text) = value.get(part.start as usize..part.end() as usize).filter(|text| !text.is_empty())
        else {
            let because = format!(
                "part {} of {value:?} by `{}` is empty or missing; counted {}",
                u16::from(index) + 1,
                char::from(delimiter),
                Outcome::NoCookie.name()
            );
            return self.fallback("no segment", because);
        };
        let took = match spec.part {
            Some((delimiter, index)) => {
                format!(
                    "part {} of the value of {name}, parted by `{}`",
                    u16::from(index) + 1,
                    char::from(delimiter)
                )
            }
            None => format!("the whole value of {name}"),
        };
        let seen = step(StepKind::Segment, format!("{text:?}"), took);
        let named = match spec.reading {
            Reading::Bind => {
                return Read {
                    steps: vec![seen],
                    session: text::key(&bytes, part, self.marks.session_secret),
                    because: format!("the hash of {text:?}"),
                    named: Vec::new(),
                };
            }
            Reading::Route => {
                let mark = route::mark(&bytes, part, self.marks.session_secret);
                self.route(mark).ok_or_else(|| format!("no backend of the pool has the route {text:?}"))
            }
            Reading::SealedRoute => self.ticket(&bytes, part, Kind::Route).and_then(|ticket| {
                self.route(ticket.number).ok_or_else(|| "no backend of the pool has that route".to_owned())
            }),
            Reading::Pair => self.ticket(&bytes, part, Kind::Pair).and_then(|ticket| self.pair(&ticket)),
        };
        let mut read = self.unread();
        read.steps.push(seen);
        match named {
            Ok(named) => read.named = named,
            Err(because) => read.steps.push(step(StepKind::Server, "none named".into(), because)),
        }
        read
    }

    fn route(&self, mark: u64) -> Option<Vec<(u16, u16)>> {
        let count = self.marks.servers.len() as u32;
        let place = route::find(&Slice(&[]), mark, count, |i| self.mark(i))?;
        self.server(place).map(|server| vec![server])
    }

    fn ticket(&self, bytes: &Slice<'_>, part: Span, kind: Kind) -> Result<Ticket, String> {
        let mut ticket = Ticket::default();
        let (id, keys) = (self.marks.service_id, &self.marks.secrets.segment);
        match ticket::check(bytes, part, kind, id, keys, &mut ticket) {
            Check::Genuine => Ok(ticket),
            Check::Forged => {
                Err(format!("its MAC is wrong or its key unknown; counted {}", Outcome::SegmentForged.name()))
            }
            Check::Absent => {
                Err(format!("it is not what the product issues; counted {}", Outcome::SegmentForged.name()))
            }
        }
    }

    fn pair(&self, ticket: &Ticket) -> Result<Vec<(u16, u16)>, String> {
        let count = self.marks.servers.len() as u32;
        let pair = pair::find(&Slice(&[]), ticket.number, count, |i| self.mark(i));
        if pair.matches != 1 {
            let why = if pair.matches == 0 { "no" } else { "more than one" };
            return Err(format!(
                "{why} pair of servers has that sum; counted {}",
                Outcome::SegmentUnknown.name()
            ));
        }
        let (primary, secondary) = pair.ordered(ticket.larger_first());
        Ok([primary, secondary].into_iter().filter_map(|place| self.server(place)).collect())
    }

    fn quic(&self, spec: &QuicSpec, cid: Option<&[u8]>) -> Read {
        let counted = Outcome::QuicUnroutable.name();
        let Some(cid) = cid else {
            return self
                .fallback("no connection id", format!("the question gives none (--cid); counted {counted}"));
        };
        let Some(rotation) = cid.first().map(|octet| octet >> 5) else {
            return self.fallback("an empty connection id", format!("it names no server; counted {counted}"));
        };
        if rotation == UNROUTABLE {
            let because = format!("rotation 7 means that it names no server; counted {counted}");
            return self.fallback("an unroutable connection id", because);
        }
        let Some(entry) = spec.configurations.iter().find(|entry| entry.rotation == rotation) else {
            let because = format!("no [[service.quic]] has rotation {rotation}; counted {counted}");
            return self.fallback(format!("rotation {rotation}"), because);
        };
        let decoder = Decoder::new(entry.layout, entry.key.as_ref());
        let Some(id) = decoder.server_id(cid) else {
            let because = format!("{} bytes are needed; counted {counted}", entry.layout.cid());
            return self.fallback(format!("{} bytes of connection id", cid.len()), because);
        };
        let form = if entry.key.is_some() { "decrypted" } else { "plaintext" };
        let seen =
            step(StepKind::Segment, format!("server id {id:?}"), format!("rotation {rotation}, {form}"));
        match self.route(id.mark()) {
            Some(named) => Read {
                steps: vec![seen],
                session: id.mark(),
                because: "connections to one server share it; it counts while the server is down".to_owned(),
                named,
            },
            None => {
                let mut read = self.unread();
                let because = format!("no backend has that server id; counted {counted}");
                read.steps.extend([seen, step(StepKind::Server, "none named".into(), because)]);
                read
            }
        }
    }

    fn payload(&self, bytes: Option<&[u8]>) -> Read {
        let counted = Outcome::PayloadShort.name();
        let Some(bytes) = bytes else {
            return self
                .fallback("no payload", format!("the question gives none (--payload); counted {counted}"));
        };
        let rules = self.marks.rules;
        match payload::key(&Slice(bytes), bytes.len() as u32, rules, self.marks.session_secret) {
            Some(session) => {
                let end = usize::from(rules.offset) + usize::from(rules.length);
                let part = bytes.get(usize::from(rules.offset)..end).unwrap_or_default();
                let because =
                    if rules.length <= 8 { "its bytes, as the mask leaves them" } else { "their hash" };
                Read {
                    steps: vec![step(
                        StepKind::Segment,
                        part.iter().map(|byte| format!("{byte:02x}")).collect(),
                        format!("{} bytes behind the first {}", rules.length, rules.offset),
                    )],
                    session,
                    because: because.to_owned(),
                    named: Vec::new(),
                }
            }
            None => {
                let because = format!("{} bytes are needed; counted {counted}", rules.offset + rules.length);
                self.fallback(format!("{} bytes of payload", bytes.len()), because)
            }
        }
    }
}

/// Bytes from hexadecimal digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests;
