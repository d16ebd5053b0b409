//! What clients ask, what backends are like and what the network does, all drawn from the seed.

use super::chance::Chance;
use super::endpoint::Abilities;
use serde_json::{Value, json};

const MILLISECOND: u64 = 1_000_000;
/// Backends of the service.
pub(super) const BACKENDS: u16 = 3;

/// What the network does to frames, on each of its links; shares in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Lost.
    pub lost: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Held up, so that later ones overtake them.
    pub late: u64,
    /// How long at most, in nanoseconds.
    pub by: u64,
    /// Every frame's way, in nanoseconds.
    pub delay: u64,
}

impl Weather {
    /// A network that loses `lost` in a thousand, and half of that doubles and reorders.
    pub const fn losing(lost: u64) -> Self {
        Self { lost, doubled: lost / 2, late: lost, by: 40 * MILLISECOND, delay: MILLISECOND }
    }
}

/// What a backend does with a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    Answers,
    Refuses,
    Silent,
}

/// One backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) manner: Manner,
    pub(super) can: Abilities,
}

/// One request and the length of its answer.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) bytes: Vec<u8>,
    /// Where the application's writes end, and how long it waits after each.
    pub(super) writes: Vec<(usize, u64)>,
    pub(super) answer: usize,
}

/// One connection of a client.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) start: u64,
    pub(super) can: Abilities,
    pub(super) session: Option<u64>,
    pub(super) requests: Vec<Request>,
    /// The client leaves its answer unread for so long.
    pub(super) lazy: u64,
    /// The client closes its side as soon as its last request is written.
    pub(super) closes_early: bool,
}

/// All of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Without it the balancer only translates addresses.
    pub(super) spliced: bool,
    pub(super) v6: bool,
    pub(super) tag: Option<u16>,
    pub(super) flags: Vec<&'static str>,
    pub(super) servers: Vec<Server>,
    pub(super) connections: Vec<Connection>,
    pub(super) source_nat: bool,
    /// The balancer's frames cannot grow, as on veth.
    pub(super) tight: bool,
}

impl Plan {
    pub(super) fn draw(chance: &mut Chance, spliced: bool) -> Self {
        let v6 = chance.permille(400);
        let tag = chance.permille(250).then(|| u16::try_from(chance.below(4000) + 1).unwrap_or(1));
        let mut flags = Vec::new();
        if spliced && chance.permille(400) {
            flags.push("learn");
        }
        let proxied = spliced && chance.permille(150);
        if proxied {
            flags.push("proxy");
        }
        let servers = (0..BACKENDS).map(|number| server(chance, !spliced || number == 0)).collect();
        let connections = (0..1 + chance.below(4)).map(|_| connection(chance, v6)).collect();
        let source_nat = proxied || chance.permille(150);
        Self { spliced, v6, tag, flags, servers, connections, source_nat, tight: chance.permille(500) }
    }

    /// The case whose tables these are.
    pub(super) fn case(&self) -> Value {
        let vip = if self.v6 { "fd99::1" } else { "10.99.0.1" };
        let slots: Vec<u16> = (1..=BACKENDS).collect();
        let table: Vec<u16> = (0..16).map(|i| 1 + i % BACKENDS).collect();
        let backend = |slot: &u16| {
            json!({
                "slot": slot, "service": 1, "number": 100 + slot,
                "address": if self.v6 { format!("fd10::{slot}") } else { format!("10.1.0.{slot}") },
                "port": 8080, "generation": 1, "vlan": "none", "status": "up",
                "hop": {
                    "destination": format!("02:00:00:00:be:{slot:02x}"), "source": "02:00:00:00:01:12",
                    "ifindex": 12, "mtu": 1500
                }
            })
        };
        let source = if self.v6 { "fd98::1" } else { "10.98.0.1" };
        json!({
            "name": "model", "description": "", "settings": settings(), "bindings": [], "steps": [],
            "services": [{
                "id": 1, "slot": 0, "address": vip, "port": 80, "protocol": 6, "mode": "nat",
                "affinity": if self.spliced { "http-cookie" } else { "source-ip" }, "prefix_v4": 32, "prefix_v6": 64,
                "source": self.source_nat.then_some(source), "mss": 0,
                "binding_rate": 100_000, "lifetime": 3600, "table": table, "members": slots,
                "rules": {
                    "reading": "bind", "delimiter": "", "index": 0, "fallback": "source-ip",
                    "on_mismatch": "count", "name": "SESS", "flags": self.flags, "head_limit": 4096,
                    "offset": 0, "length": 0, "mss_v4": 1460, "mss_v6": 1440, "mask": "",
                    "servers": [], "paths": []
                }
            }],
            "backends": slots.iter().map(backend).collect::<Vec<_>>()
        })
    }
}

fn settings() -> Value {
    let keys: Vec<String> =
        (0..32_u128).map(|i| format!("{:032x}", (i + 1) * 0x0123_4567_89ab_cdef)).collect();
    json!({
        "flags": ["nat"], "secret": "000102030405060708090a0b0c0d0e0f",
        "tunnel_v4": "10.0.0.254", "tunnel_v6": "fd00::fe", "gue_port": 6080, "answer_rate": 100_000,
        "prefix_quota": 0, "prefix_window": 60, "binding_capacity": 1024, "flows": 256, "half_open": 64,
        "tcp_half_open": 600, "tcp_established": 3600, "tcp_closing": 3600, "tcp_reset": 3600,
        "udp_new": 10, "udp_established": 60, "head_timeout": 600, "connect_timeout": 600, "holds": 16,
        "secrets": {
            "clock": (400_001_u64 << 42) + (1 << 41), "syn_keys": keys,
            "first_epoch": 399_995, "last_epoch": 400_010, "segment_keys": []
        }
    })
}

fn abilities(chance: &mut Chance, v6: bool) -> Abilities {
    let largest = if v6 { 1440 } else { 1460 };
    Abilities {
        mss: chance.pick(&[largest, largest, largest, 1300, 1220, 536]),
        scale: chance.pick(&[Some(7), Some(7), Some(0), Some(14), Some(2), None]),
        sack: chance.permille(750),
        room: chance.pick(&[65_535, 65_535, 200_000, 20_000]),
        nagle: chance.permille(400),
        burst: chance.pick(&[2, 10, 30]),
    }
}

fn server(chance: &mut Chance, sure: bool) -> Server {
    let manner = if sure || chance.permille(850) {
        Manner::Answers
    } else {
        chance.pick(&[Manner::Refuses, Manner::Silent])
    };
    Server { manner, can: abilities(chance, false) }
}

fn connection(chance: &mut Chance, v6: bool) -> Connection {
    let session = chance.permille(800).then(|| chance.below(3));
    let requests = (0..1 + chance.below(3)).map(|_| request(chance, session)).collect();
    Connection {
        start: chance.below(200) * MILLISECOND,
        can: abilities(chance, v6),
        session,
        requests,
        lazy: if chance.permille(150) { chance.below(2_000) * MILLISECOND } else { 0 },
        closes_early: chance.permille(150),
    }
}

fn request(chance: &mut Chance, session: Option<u64>) -> Request {
    let body = match chance.below(10) {
        0 => chance.index(66_000),
        1 | 2 => chance.index(4_000),
        _ => 0,
    };
    let method = if body > 0 { "POST" } else { chance.pick(&["GET", "HEAD", "PUT"]) };
    let mut head = format!("{method} /some/path HTTP/1.1\r\nHost: www.example\r\n");
    pad(chance, &mut head);
    if let Some(session) = session {
        let other = chance.pick(&["", "a=b; ", "XSESS=no; SESSX=no; "]);
        let name = chance.pick(&["Cookie", "cookie", "COOKIE"]);
        head += &format!("{name}: {other}SESS=session-{session}\r\n");
    }
    pad(chance, &mut head);
    head += &format!("Content-Length: {body}\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend((0..body).map(|i| (i % 251) as u8));
    let mut writes = Vec::new();
    for _ in 0..chance.pick(&[0, 0, 0, 1, 2, 5]) {
        writes.push((1 + chance.index(bytes.len()), chance.pick(&[0, 1, 5, 50, 400]) * MILLISECOND));
    }
    writes.push((bytes.len(), 0));
    writes.sort_unstable();
    let answer = match chance.below(10) {
        0 => chance.index(100_000),
        1 | 2 => chance.index(5_000),
        _ => chance.index(200),
    };
    Request { bytes, writes, answer }
}

fn pad(chance: &mut Chance, head: &mut String) {
    let lines = chance.pick(&[0, 0, 1, 3, 12, 30]);
    for i in 0..lines {
        let length = chance.index(80);
        *head += &format!("X-Header-{i}: {}\r\n", "v".repeat(length));
    }
}
