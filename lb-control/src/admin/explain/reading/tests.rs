use super::*;
use lb_common::abi::{Mode, OnMismatch, SegmentKey};
use lb_common::affinity::quic::{Encoder, Layout, ServerId};
use lb_core::pool::{Fallback, PathSpec, PayloadSpec, Protocol, QuicConfiguration};
use std::time::Duration;

const SECRET: [u64; 2] = [1, 2];

fn service(protocol: Protocol, affinity: AffinitySpec) -> ServiceSpec {
    let path = |prefix: &str, name: &str| PathSpec {
        prefix: prefix.into(),
        name: name.into(),
        id: name.len() as u32,
        backends: vec![],
    };
    ServiceSpec {
        name: "shop".into(),
        id: 7,
        address: "10.99.0.1".parse().unwrap(),
        port: 80,
        protocol,
        mode: Mode::Nat,
        affinity,
        lifetime: Duration::from_secs(60),
        binding_rate: 1,
        source: None,
        mss: None,
        proxy_protocol: false,
        method: lb_common::abi::Method::Order,
        slow_start: core::time::Duration::ZERO,
        mirror: None,
        consistency: lb_core::pool::Consistency::Tables,
        health: None,
        paths: vec![path("/", "all"), path("/static/", "files")],
        backends: vec![],
    }
}

fn by_cookie(reading: Reading, part: Option<(u8, u8)>) -> ServiceSpec {
    let cookie = CookieSpec {
        name: "SESS".into(),
        reading,
        part,
        learn: false,
        fallback: Fallback::SourceIp { v4: 24, v6: 64 },
        on_mismatch: OnMismatch::Count,
        head_limit: 4_096,
    };
    service(Protocol::Tcp, AffinitySpec::HttpCookie(cookie))
}

fn packet() -> Packet {
    Packet {
        source: "10.0.0.7:51312".parse().unwrap(),
        destination: "10.99.0.1:80".parse().unwrap(),
        protocol: Protocol::Tcp,
    }
}

fn server(mark: u64, slot: u16) -> Server {
    Server { mark, backend: slot, generation: 3, pad: 0 }
}

/// What is read when those servers stand.
fn seen(service: &ServiceSpec, content: &Content, servers: &[Server], rules: &AffinityRules) -> Read {
    let mut secrets = Secrets::default();
    secrets.segment[0] = SegmentKey { key: [8, 9], id: 5, valid: 1 };
    let marks = Marks { rules, servers, secrets: &secrets, session_secret: &SECRET, service_id: 7 };
    read(&packet(), service, content, marks).unwrap()
}

fn cookie(value: &str) -> Content {
    Content { cookie: Some(value.into()), ..Content::default() }
}

fn told(read: &Read) -> String {
    read.steps.iter().map(|step| format!("{}: {}\n", step.found, step.because)).collect()
}

#[test]
fn a_bound_cookie_is_hashed_and_one_without_the_segment_falls_back() {
    let (service, none) = (by_cookie(Reading::Bind, Some((b'!', 1))), AffinityRules::default());
    let bound = seen(&service, &cookie("id!b"), &[], &none);
    assert_eq!(bound.session, text::key(&Slice(b"b"), Span::new(0, 1), &SECRET));
    for content in [cookie("id"), cookie("id!"), Content::default()] {
        let read = seen(&service, &content, &[], &none);
        assert_eq!(read.session, 0x0a00_0000, "the client's /24");
        assert!(told(&read).contains("no-cookie"), "{}", told(&read));
    }
}

#[test]
fn a_route_names_the_backend_and_an_unknown_one_none() {
    let service = by_cookie(Reading::Route, None);
    let mark = |text: &str| route::mark(&Slice(text.as_bytes()), Span::new(0, text.len() as u32), &SECRET);
    let mut servers = vec![server(mark("be1"), 4), server(mark("be2"), 5)];
    servers.sort_by_key(|server| server.mark);
    let none = AffinityRules::default();
    assert_eq!(seen(&service, &cookie("be2"), &servers, &none).named, [(5, 3)]);
    let unknown = seen(&service, &cookie("be3"), &servers, &none);
    assert!(unknown.named.is_empty() && told(&unknown).contains("no backend"), "{}", told(&unknown));
}

#[test]
fn only_tickets_under_a_known_key_are_believed() {
    let none = AffinityRules::default();
    let service = by_cookie(Reading::SealedRoute, None);
    let issue = |key, secret: &[u64; 2]| {
        String::from_utf8(ticket::issue(Kind::Route, 99, false, 7, key, secret).to_vec()).unwrap()
    };
    let servers = [server(99, 6)];
    assert_eq!(seen(&service, &cookie(&issue(5, &[8, 9])), &servers, &none).named, [(6, 3)]);
    for forged in [issue(5, &[8, 8]), issue(6, &[8, 9]), "be1".to_owned()] {
        let read = seen(&service, &cookie(&forged), &servers, &none);
        assert!(read.named.is_empty() && told(&read).contains("segment-forged"), "{}", told(&read));
    }
    let service = by_cookie(Reading::Pair, None);
    let numbers = [10, 20, 40];
    let servers = [server(10, 1), server(20, 2), server(40, 3)];
    let text = pair::issue(&numbers, [40, 10], 7, 5, &[8, 9]).unwrap();
    let read = seen(&service, &cookie(std::str::from_utf8(&text).unwrap()), &servers, &none);
    assert_eq!(read.named, [(3, 3), (1, 3)], "primary first");
}

#[test]
fn a_connection_id_names_its_server() {
    let (layout, key) = (Layout::new(4, 6).unwrap(), [7; 16]);
    let configuration = QuicConfiguration { rotation: 2, layout, key: Some(key) };
    let quic = QuicSpec { configurations: vec![configuration], fallback: Fallback::None };
    let service = service(Protocol::Udp, AffinitySpec::QuicCid(quic));
    let id = ServerId::new(&[1, 2, 3, 4]).unwrap();
    let mut encoder = Encoder::new(2, layout, id, Some(&key), &[5; 32]).unwrap();
    let cid = encoder.encode().unwrap().as_bytes().to_vec();
    let (servers, none) = ([server(id.mark(), 8)], AffinityRules::default());
    let of =
        |cid: Vec<u8>| seen(&service, &Content { cid: Some(cid), ..Content::default() }, &servers, &none);
    assert_eq!(of(cid.clone()).named, [(8, 3)]);
    let mut other = cid.clone();
    other[0] |= 7 << 5;
    for cid in [other, vec![], cid[..4].to_vec(), vec![0; 11]] {
        let read = of(cid);
        assert!(read.named.is_empty() && told(&read).contains("quic-unroutable"), "{}", told(&read));
    }
}

#[test]
fn a_payload_is_masked_and_a_short_one_falls_back() {
    let spec = PayloadSpec { offset: 1, mask: vec![0xff, 0xf0], fallback: Fallback::None };
    let service = service(Protocol::Udp, AffinitySpec::Payload(spec));
    let mut rules = AffinityRules { offset: 1, length: 2, ..AffinityRules::default() };
    rules.mask[..2].copy_from_slice(&[0xff, 0xf0]);
    let of = |bytes: &[u8]| {
        seen(&service, &Content { payload: Some(bytes.to_vec()), ..Content::default() }, &[], &rules)
    };
    assert_eq!(of(&[1, 2, 0x37]).session, 0x0230);
    assert!(told(&of(&[1, 2])).contains("payload-short"));
}

#[test]
fn the_longest_prefix_chooses_the_pool() {
    let service = by_cookie(Reading::Bind, None);
    let of = |path: &str| Content { path: Some(path.into()), ..Content::default() }.pool(&service).0;
    assert_eq!(of("/static/a.png").as_deref(), Some("files"));
    assert_eq!(of("/statics").as_deref(), Some("all"));
    assert_eq!(Content::default().pool(&service).0, None);
}
