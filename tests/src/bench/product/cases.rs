//! The product's cases: frames, and what must have happened before they mean what their names say.

use super::{Product, quic, splice};
use crate::bench::case::{Case, Subject};
use crate::bench::frame::{echo, flag, tcp};
use crate::bench::rig::{Rig, Verdict};
use crate::bench::template::{DESTINATION_V4, SOURCE_V4, SOURCE_V6, Template};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};

/// Names of all cases of a full run.
pub const NAMES: [&str; 45] = [
    "ipip/established/1-flow",
    "ipip/syn/1-flow",
    "ipip/established/128k-flows",
    "ipip/established/1m-bindings",
    "ipip/syn/1m-clients",
    "ipip-6in6/established/1-flow",
    "ipip-6in6/syn/1-flow",
    "ipip-6in6/established/128k-flows",
    "ipip-6in4/established/1-flow",
    "ipip-4in6/established/1-flow",
    "ipip-5-tuple/established/1-flow",
    "gue/established/1-flow",
    "gue/syn/1-flow",
    "gue-v6/established/1-flow",
    "l2/established/1-flow",
    "l2/syn/1-flow",
    "l2-v6/established/1-flow",
    "nat/established/1-flow",
    "nat/reply/1-flow",
    "nat/syn/1-flow",
    "nat/syn/1m-clients",
    "nat/established/1m-flows",
    "nat/reply/1m-flows",
    "nat-v6/established/1-flow",
    "nat-v6/reply/1-flow",
    "quic/short-plain/1-flow",
    "quic/short-single-pass/1-flow",
    "quic/short-four-pass/1-flow",
    "quic/initial/1-flow",
    "quic-nat/short-four-pass/1-flow",
    "payload/established/1-flow",
    "splice/syn/1-flow",
    "splice/bare-ack/1-flow",
    "splice/request-400/1-flow",
    "splice/request-1300/1-flow",
    "splice/syn-ack/1-flow",
    "splice/established/1-flow",
    "splice/established-back/1-flow",
    "splice/established/32k-flows",
    "splice/established-back/32k-flows",
    "splice/established/1m-flows",
    "splice/established-back/1m-flows",
    "pass/not-ours",
    "icmp/echo",
    "icmp/echo-v6",
];

/// `XDP_PASS`.
const PASS: u32 = 2;
/// `XDP_TX`.
pub(super) const TX: u32 = 3;
/// Payload of established packets.
pub(super) const PAYLOAD: usize = 64;

/// Makes the wanted cases; binds sessions, opens flows and checks that packets go where they should.
pub fn cases(rig: &mut Rig, product: &mut Product, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Case>> {
    let mut cases = Vec::with_capacity(NAMES.len());
    for name in NAMES {
        if wanted(name) {
            let case = make(rig, product, name).with_context(|| format!("preparing {name}"))?;
            cases.push(case);
        }
    }
    Ok(cases)
}

fn make(rig: &mut Rig, product: &Product, name: &str) -> Result<Case> {
    let mut parts = name.split('/');
    let (service, what, many) = (parts.next(), parts.next(), parts.next());
    let service = service.context("no service")?;
    let case = |template| Case::new(name, Subject::Product, template);
    Ok(match (service, what.unwrap_or_default(), many.unwrap_or_default()) {
        ("pass", ..) => {
            let frame = tcp(rig.link(), client(false), "10.98.0.1:80".parse()?, flag::DATA, PAYLOAD);
            expect(product, &product.send(rig, &frame)?, PASS)?;
            case(Template::single(&frame))
        }
        ("icmp", what, _) => {
            let v6 = what.ends_with("v6");
            let vip = address(product, if v6 { "ipip-6in6" } else { "ipip" })?;
            let frame = echo(rig.link(), client(v6).ip(), vip.ip());
            expect(product, &product.send(rig, &frame)?, TX)?;
            case(Template::single(&frame))
        }
        (service @ ("quic" | "quic-nat" | "payload"), what, _) => {
            let vip = address(product, service)?;
            let frame = quic::datagram(rig.link(), client(false), vip, what)?;
            let mode = if service == "quic-nat" { "nat" } else { "ipip" };
            // What is new is opened and bound first.
            for _ in 0..3 {
                tunnelled(product, mode, &product.send(rig, &frame)?, &frame)?;
            }
            case(Template::single(&frame))
        }
        ("splice", what, many) => case(splice::template(rig, product, what, many)?),
        (service @ ("nat" | "nat-v6"), what, "1-flow") => {
            let flow = NatFlow::open(rig, product, service)?;
            case(Template::single(match what {
                "established" => &flow.from_client,
                "reply" => &flow.from_backend,
                _ => &flow.syn,
            }))
        }
        ("nat", "syn", _) => {
            let vip = address(product, "nat")?;
            let frame = tcp(rig.link(), "10.128.0.0:40000".parse()?, vip, flag::SYN, 0);
            case(Template::single(&frame).random(SOURCE_V4, flows(product)))
        }
        ("nat", what, _) => {
            let crowd = Crowd::open(rig, product)?;
            case(if what == "reply" {
                Template::single(&crowd.from_backend).random(DESTINATION_V4, crowd.flows)
            } else {
                Template::single(&crowd.from_client).random(SOURCE_V4, crowd.flows)
            })
        }
        (service, "syn", many) => {
            // A client that has no binding: a SYN makes none.
            let vip = address(product, service)?;
            let from = if vip.is_ipv6() { client(true) } else { "10.200.0.0:40000".parse()? };
            let frame = tcp(rig.link(), from, vip, flag::SYN, 0);
            tunnelled(product, service, &product.send(rig, &frame)?, &frame)?;
            let template = Template::single(&frame);
            let target = if service == "ipip" && many == "1-flow" { Some(95.0) } else { None };
            let template =
                if many == "1-flow" { template } else { template.random(SOURCE_V4, flows(product)) };
            Case { target, ..case(template) }
        }
        (service, _, many) => {
            let vip = address(product, service)?;
            let frame = tcp(rig.link(), client(vip.is_ipv6()), vip, flag::DATA, PAYLOAD);
            tunnelled(product, service, &product.send(rig, &frame)?, &frame)?;
            let single = Template::single(&frame);
            let at = if vip.is_ipv6() { SOURCE_V6 } else { SOURCE_V4 };
            match many {
                "1-flow" if service == "ipip" => case(single).at_most(70.0),
                "1-flow" => case(single),
                many => {
                    let count =
                        if many.starts_with("1m") { flows(product) } else { flows(product).min(1 << 17) };
                    bind(rig, product, service, single.in_turn(at, count), count)?;
                    let case = case(single.random(at, count));
                    if many.starts_with("1m") { case.at_most(300.0) } else { case }
                }
            }
        }
    })
}

/// Number of distinct flows that the tables hold in this run.
pub(super) fn flows(product: &Product) -> u32 {
    let settings = product.settings();
    let least = settings.flows.min(settings.binding_capacity);
    1 << least.ilog2()
}

/// The client of the single-flow cases; its IPv4 address is flow 0 of the many.
pub(super) fn client(v6: bool) -> SocketAddr {
    if v6 {
        SocketAddr::from(([0xfd64, 0, 0, 0, 0, 0, 0, 1], 40_000))
    } else {
        SocketAddr::from(([10, 64, 0, 0], 40_000))
    }
}

pub(super) fn address(product: &Product, service: &str) -> Result<SocketAddr> {
    Ok(product.plan().service(service).with_context(|| format!("no service {service}"))?.address)
}

pub(super) fn expect(product: &Product, verdict: &Verdict, action: u32) -> Result<()> {
    ensure!(
        verdict.action == action,
        "verdict {} instead of {action}; outcomes so far: {}",
        verdict.action,
        product.outcomes()?
    );
    Ok(())
}

/// Checks that a direct mode sent the frame to one of its backends with the bytes it should add.
fn tunnelled(product: &Product, service: &str, verdict: &Verdict, frame: &[u8]) -> Result<()> {
    expect(product, verdict, TX)?;
    let added = match service {
        "ipip" | "ipip-6in4" | "ipip-5-tuple" => 20,
        "ipip-6in6" | "ipip-4in6" => 40,
        "gue" => 28,
        "gue-v6" => 48,
        _ => 0,
    };
    ensure!(
        verdict.frame.len() == frame.len() + added,
        "{service} made {} bytes of {}, not {added} more",
        verdict.frame.len(),
        frame.len()
    );
    Ok(())
}

/// Visits every client once, so that each has a binding.
fn bind(rig: &mut Rig, product: &Product, service: &str, template: Template, count: u32) -> Result<()> {
    let slot = product.plan().service(service).context("no such service")?.service.slot;
    rig.measure(&product.entry()?, template, count)?;
    let bound = product.service_counters(slot)?.bindings;
    ensure!(
        bound >= u64::from(count) * 99 / 100,
        "{bound} bindings were made for {count} clients; outcomes: {}",
        product.outcomes()?
    );
    Ok(())
}

/// An established NAT connection, seen from both sides.
struct NatFlow {
    syn: Vec<u8>,
    from_client: Vec<u8>,
    from_backend: Vec<u8>,
}

impl NatFlow {
    fn open(rig: &Rig, product: &Product, service: &str) -> Result<Self> {
        let vip = address(product, service)?;
        let client = client(vip.is_ipv6());
        let link = rig.link();
        let syn = tcp(link, client, vip, flag::SYN, 0);
        let opened = product.send(rig, &syn)?;
        expect(product, &opened, TX)?;
        let backend = destination(&opened.frame)?;
        ensure!(backend != vip, "the SYN still goes to {vip}");
        let answer = product.send(rig, &tcp(link, backend, client, flag::SYN | flag::ACK, 0))?;
        expect(product, &answer, TX)?;
        let from_client = tcp(link, client, vip, flag::DATA, PAYLOAD);
        let established = product.send(rig, &from_client)?;
        expect(product, &established, TX)?;
        let now = destination(&established.frame)?;
        ensure!(now == backend, "the connection moved from {backend} to {now}");
        Ok(Self { syn, from_client, from_backend: tcp(link, backend, client, flag::DATA, PAYLOAD) })
    }
}

/// As many established NAT connections as the table holds.
struct Crowd {
    flows: u32,
    from_client: Vec<u8>,
    from_backend: Vec<u8>,
}

impl Crowd {
    fn open(rig: &mut Rig, product: &Product) -> Result<Self> {
        let planned = product.plan().service("nat-crowd").context("no service nat-crowd")?;
        let (vip, slot) = (planned.address, planned.service.slot);
        let link = rig.link();
        let client = client(false);
        let syn = tcp(link, client, vip, flag::SYN, 0);
        let opened = product.send(rig, &syn)?;
        expect(product, &opened, TX)?;
        let backend = destination(&opened.frame)?;
        let crowd = Self {
            flows: flows(product),
            from_client: tcp(link, client, vip, flag::DATA, PAYLOAD),
            from_backend: tcp(link, backend, client, flag::DATA, PAYLOAD),
        };
        let already = product.service_counters(slot)?.connections;
        if already < u64::from(crowd.flows) {
            let answer = tcp(link, backend, client, flag::SYN | flag::ACK, 0);
            let entry = product.entry()?;
            // Half-open flows live in a ring of their own: no more of them at a time than it holds.
            let chunk = (1 << product.settings().half_open.ilog2()) / 4;
            for start in (0..crowd.flows).step_by(chunk as usize) {
                for (frame, at) in
                    [(&syn, SOURCE_V4), (&answer, DESTINATION_V4), (&crowd.from_client, SOURCE_V4)]
                {
                    let template = Template::single(frame).in_turn(at, chunk).from_flow(start);
                    rig.measure(&entry, template, chunk)?;
                }
            }
        }
        let before = product.service_counters(slot)?;
        let sample = crowd.flows / 16;
        let replies = Template::single(&crowd.from_backend).random(DESTINATION_V4, crowd.flows);
        rig.measure(&product.entry()?, replies, sample)?;
        let answered = product.service_counters(slot)?.reply_packets - before.reply_packets;
        ensure!(
            answered >= u64::from(sample) * 95 / 100,
            "of {sample} replies only {answered} met their flow; outcomes: {}",
            product.outcomes()?
        );
        Ok(crowd)
    }
}

/// Destination of a TCP packet without IP options or extension headers.
fn destination(frame: &[u8]) -> Result<SocketAddr> {
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    ensure!(frame.len() >= 58, "a frame of {} bytes is too short", frame.len());
    Ok(match [frame[12], frame[13]] {
        [8, 0] => {
            let octets: [u8; 4] = frame[30..34].try_into()?;
            SocketAddr::from((IpAddr::from(octets), port(36)))
        }
        _ => {
            let octets: [u8; 16] = frame[38..54].try_into()?;
            SocketAddr::from((IpAddr::from(octets), port(56)))
        }
    })
}
