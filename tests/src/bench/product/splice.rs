//! Delayed binding: handshakes, requests, and connections that are joined.

use super::cases::{PAYLOAD, TX, address, expect, flows};
use super::{PlannedService, Product};
use crate::bench::frame::{checksum, flag, tcp};
use crate::bench::rig::Rig;
use crate::bench::template::{DESTINATION_V4, SOURCE_V4, Template};
use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use lb_common::abi::{
    Affinity, AffinityRules, Be16, Flow, FlowKey, FlowRef, FlowState, FlowWord, HOME_LEN, Hold, Mac, Secrets,
    ServiceFlags, SpliceFlags, VlanTags, flow_home, map,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

/// Nonces of the flows that are made here; the programs' own are far below.
const NONCES: u32 = 0x4000_0000;
/// The client of connection 0; the others' addresses follow.
const FIRST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 0), 40_000);

/// Gives the planned service its affinity.
pub(super) fn arrange(planned: &mut PlannedService) {
    if planned.name == "splice" {
        planned.service.affinity = Affinity::HttpCookie as u8;
        planned.service.flags |= ServiceFlags::SPLICE;
    }
}

/// Fills in what the service's sessions are read by, and the keys.
pub(super) fn fill(product: &mut Product) -> Result<()> {
    let slot = product.plan.service("splice").context("no service splice")?.service.slot;
    let mut rules = AffinityRules {
        fallback: Affinity::SourceIp as u8,
        name_len: 4,
        head_limit: 4_096,
        mss_v4: 1_460,
        mss_v6: 1_440,
        ..AffinityRules::default()
    };
    rules.name[..4].copy_from_slice(b"SESS");
    product.array::<AffinityRules>(map::AFFINITIES)?.set(slot.into(), rules, 0)?;
    let mut secrets = Secrets { since_1970: 1 << 60, last_epoch: u32::MAX, ..Secrets::default() };
    for (n, key) in (1_u64..).zip(&mut secrets.syn) {
        *key = [n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n];
    }
    product.array::<Secrets>(map::SECRETS)?.set(0, secrets, 0)?;
    Ok(())
}

/// The frame of a case, after what has to go before it.
pub(super) fn template(rig: &mut Rig, product: &Product, what: &str, many: &str) -> Result<Template> {
    let (link, vip) = (rig.link(), address(product, "splice")?);
    // Other clients than the joined connections', whose flows a SYN would mark.
    let client: SocketAddr =
        if what == "syn-ack" { "10.200.0.1:40000" } else { "10.200.0.0:40000" }.parse()?;
    if what.starts_with("established") {
        return joined(rig, product, what, many);
    }
    let syn = tcp(link, client, vip, flag::SYN, 0);
    let answered = product.send(rig, &syn)?;
    expect(product, &answered, TX)?;
    let cookie: [u8; 4] = answered.frame.get(38..42).context("the SYN-ACK is too short")?.try_into()?;
    let follows = |mut frame: Vec<u8>| {
        frame[42..46].copy_from_slice(&(u32::from_be_bytes(cookie).wrapping_add(1)).to_be_bytes());
        frame
    };
    match what {
        "syn" => Ok(Template::single(&syn).whole()),
        "bare-ack" => {
            let mut frame = follows(tcp(link, client, vip, flag::ACK, 0));
            frame.resize(64, 0);
            Ok(Template::single(&frame))
        }
        "request-400" | "request-1300" => {
            let at = if what == "request-400" { 400 } else { 1_300 };
            let frame = data(follows(tcp(link, client, vip, flag::DATA, 0)), 0, &request(at));
            let sent = product.send(rig, &frame)?;
            expect(product, &sent, TX)?;
            ensure!(sent.frame.len() == 66, "the request became {} bytes, not a SYN", sent.frame.len());
            Ok(Template::single(&frame).whole())
        }
        "syn-ack" => {
            let bare = follows(tcp(link, client, vip, flag::DATA, 0));
            waiting(rig, product, client, vip, &bare)
        }
        _ => bail!("no case splice/{what}"),
    }
}

/// The frame of a segment without data, with data from `at` on.
fn data(mut bare: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    bare.truncate(54);
    bare.extend(bytes);
    let number = u32::from_be_bytes([bare[38], bare[39], bare[40], bare[41]]).wrapping_add(at as u32);
    bare[38..42].copy_from_slice(&number.to_be_bytes());
    let length = bare.len() - 34;
    bare[16..18].copy_from_slice(&(20 + length as u16).to_be_bytes());
    bare[24..26].fill(0);
    let sum = checksum(&bare[14..34], 0);
    bare[24..26].copy_from_slice(&sum.to_be_bytes());
    // Held bytes are the balancer's to answer for, so it looks.
    bare[50..52].fill(0);
    let sum = checksum(&bare[26..], 6 + length as u32);
    bare[50..52].copy_from_slice(&sum.to_be_bytes());
    bare
}

/// The SYN-ACK of a backend that a held request waits for. The request came in two segments, of which the first was
/// acknowledged, so it stays held: the SYN-ACK may come again, and is turned round with all of it again.
fn waiting(
    rig: &Rig,
    product: &Product,
    client: SocketAddr,
    vip: SocketAddr,
    bare: &[u8],
) -> Result<Template> {
    let request = request(400);
    for (at, part) in [(0, &request[..200]), (200, &request[200..])] {
        expect(product, &product.send(rig, &data(bare.to_vec(), at, part))?, TX)?;
    }
    let key = FlowKey::new(
        &client.ip().into(),
        &vip.ip().into(),
        Be16::new(client.port()),
        Be16::new(vip.port()),
        6,
    );
    let index = HashMap::<_, FlowKey, FlowRef>::try_from(again(product, map::FLOW_INDEX)?)?;
    let mut records = Array::<_, Flow>::try_from(again(product, map::FLOWS)?)?;
    let mut holds = Array::<_, Hold>::try_from(again(product, map::HOLDS)?)?;
    let place = index.get(&key, 0)?.index();
    // Requests of other cases are over at once, and their holds after a while; this one stays.
    let mut flow = records.get(&place, 0)?;
    flow.last_seen = monotonic()? + 3_600_000_000_000;
    let mut hold = holds.get(&(flow.hold - 1), 0)?;
    hold.until = u64::MAX;
    holds.set(flow.hold - 1, hold, 0)?;
    records.set(place, flow, 0)?;
    let backend = SocketAddr::new(IpAddr::from(flow.server.source), flow.server.source_port.host());
    let frame = tcp(rig.link(), backend, client, flag::SYN | flag::ACK, 0);
    for _ in 0..2 {
        let sent = product.send(rig, &frame)?;
        expect(product, &sent, TX)?;
        ensure!(sent.frame.ends_with(&request), "the request is not in {} bytes", sent.frame.len());
    }
    Ok(Template::single(&frame).grows_at_its_end())
}

/// A segment of one of many joined connections.
fn joined(rig: &Rig, product: &Product, what: &str, many: &str) -> Result<Template> {
    let (link, vip, client) = (rig.link(), address(product, "splice")?, SocketAddr::V4(FIRST));
    let count = match many {
        "1-flow" => 1,
        "32k-flows" => flows(product).min(1 << 15),
        _ => flows(product),
    };
    let backend = join(rig, product, count)?;
    let (frame, at) = if what == "established-back" {
        (tcp(link, backend, client, flag::DATA, PAYLOAD), DESTINATION_V4)
    } else {
        (tcp(link, client, vip, flag::DATA, PAYLOAD), SOURCE_V4)
    };
    let sent = product.send(rig, &frame)?;
    expect(product, &sent, TX)?;
    let template = Template::single(&frame);
    Ok(if count == 1 { template } else { template.random(at, count) })
}

/// A request whose cookie begins at that offset.
fn request(at: usize) -> Vec<u8> {
    let mut text = b"GET /some/page.html HTTP/1.1\r\nHost: www.example.org\r\n".to_vec();
    // Lines of a usual length.
    while at - text.len() > 90 {
        text.extend(b"X-Some-Header: a value of some length that a browser might send, or not\r\n");
    }
    text.extend(b"X: ");
    text.resize(at - "\r\nCookie: ".len(), b'x');
    text.extend(b"\r\nCookie: SESS=0123456789abcdef\r\n\r\n");
    text
}

/// Puts so many joined connections into the tables, where the programs would have put them; answers the address of their
/// backend.
fn join(rig: &Rig, product: &Product, count: u32) -> Result<SocketAddr> {
    let planned = product.plan.service("splice").context("no service splice")?;
    let backend = product.plan.backends.iter().position(|b| b.service == planned.service.id);
    let slot = backend.context("the service has no backend")?;
    let backend = product.plan.backends[slot];
    let link = rig.link();
    let settings = product.settings;
    let mut elsewhere = settings.half_open..settings.half_open + settings.flows;
    let now = monotonic()?;
    let mut index = HashMap::<_, FlowKey, FlowRef>::try_from(again(product, map::FLOW_INDEX)?)?;
    let mut records = Array::<_, Flow>::try_from(again(product, map::FLOWS)?)?;
    for n in 0..count {
        let source = Ipv4Addr::from(u32::from(*FIRST.ip()).wrapping_add(n));
        let port = Be16::new(FIRST.port());
        let protocol = 6;
        let client = FlowKey::new(
            &source.into(),
            &planned.address.ip().into(),
            port,
            Be16::new(planned.address.port()),
            protocol,
        );
        if index.get(&client, 0).is_ok() {
            continue;
        }
        let server = FlowKey::new(&backend.address, &source.into(), backend.port, port, protocol);
        let is_free =
            |at: &u32| records.get(at, 0).is_ok_and(|flow| FlowWord(flow.word).state() == FlowState::Free);
        let home = flow_home(&settings, &source.into(), port);
        let at = (home..home + HOME_LEN).find(is_free).or_else(|| elsewhere.find(is_free));
        let at = at.context("the flow table is full")?;
        let nonce = NONCES + n;
        let flow = Flow {
            word: FlowWord::new(nonce, FlowState::Established).with(FlowWord::SPLICED).0,
            last_seen: now,
            client,
            server,
            service: planned.service.id,
            service_slot: planned.service.slot,
            backend: slot as u16,
            backend_generation: backend.generation,
            client_mac: Mac(link.source),
            local_mac: Mac(link.destination),
            ifindex: rig.ifindex(),
            tags: VlanTags::default(),
            answer: 77_000 + n,
            isn: 1_000,
            start: 1_001,
            client_scale: 7,
            server_scale: 7,
            splice: SpliceFlags::SACK,
            ..Flow::default()
        };
        records.set(at, flow, 0)?;
        index.insert(client, FlowRef::new(at, nonce, false), 0)?;
        index.insert(server, FlowRef::new(at, nonce, true), 0)?;
    }
    Ok(SocketAddr::new(IpAddr::from(backend.address), backend.port.host()))
}

/// A map by name, opened once more, to write to.
fn again(product: &Product, name: &str) -> Result<Map> {
    let map = product.object.map(name).with_context(|| format!("the product has no map {name}"))?;
    Ok(match map {
        Map::HashMap(data) => Map::HashMap(MapData::from_id(data.info()?.id())?),
        Map::Array(data) => Map::Array(MapData::from_id(data.info()?.id())?),
        _ => bail!("{name} is of another kind"),
    })
}

/// The clock that flows are dated by.
fn monotonic() -> Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    ensure!(result == 0, "no clock: {}", std::io::Error::last_os_error());
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
