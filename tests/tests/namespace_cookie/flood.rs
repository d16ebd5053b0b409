//! A flood of forged SYNs at a service that reads cookies.

use super::{COOKIE, Shop, went};
use anyhow::{Context, Result, ensure};
use lb_common::abi::hand;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use stickleback_tests::bench::frame::{Link, flag, tcp};
use stickleback_tests::topology::{Arms, Load, LoadPlan, Namespace};

/// SYNs that have to be answered.
const FLOOD: u64 = 1_000_000;
/// Frames that one system call sends.
const BATCH: usize = 64;
/// Forged clients.
const FORGED: u32 = 1 << 15;

/// The link address of an interface.
fn link_address(namespace: &Namespace, interface: &str) -> Result<[u8; 6]> {
    let text = namespace.sh(&format!("ip -br link show {interface}"))?;
    let text = text.split_whitespace().nth(2).with_context(|| format!("no address in {text}"))?;
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().with_context(|| format!("{text} is no link address"))
}

/// Sends frames out of an interface as they are.
struct Sender {
    socket: socket2::Socket,
    address: libc::sockaddr_ll,
}

impl Sender {
    fn new(namespace: &Namespace, interface: &str) -> Result<Self> {
        let shown = namespace.sh(&format!("ip -o link show {interface}"))?;
        let index: u32 = shown.split(':').next().context("no index")?.trim().parse()?;
        let socket = namespace.inside(|| {
            Ok(socket2::Socket::new(libc::AF_PACKET.into(), socket2::Type::RAW, Some(0.into()))?)
        })?;
        // SAFETY: a structure of integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index as i32;
        address.sll_halen = 6;
        Ok(Self { socket, address })
    }

    /// Sends them all; how many were taken.
    fn send(&mut self, frames: &[Vec<u8>]) -> Result<usize> {
        use std::os::fd::AsRawFd as _;
        let mut parts: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: a structure of integers and pointers, for which zero is a value.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_name = (&raw mut self.address).cast();
                message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        // SAFETY: every pointer leads to memory that lives until the call is over.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0)
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            ensure!(error.raw_os_error() == Some(libc::ENOBUFS), "sending the flood: {error}");
            return Ok(0);
        }
        Ok(sent as usize)
    }
}

/// A million forged SYNs: no flow, no binding, no hold is made, and real clients are served all the while.
#[test]
fn namespace_cookie_flood() -> Result<()> {
    let shop = Shop::new(Arms::Two, false, COOKIE)?;
    let plan = LoadPlan::new(shop.vip, shop.site.clients(false, 40)).with_cookie("SESS");
    let plan = LoadPlan { threads: 2, pause: Duration::from_millis(5), ..plan };
    let quiet = Load::start(&shop.site.client, &plan)?;
    quiet.reach(100)?;
    let quiet = quiet.finish()?;
    quiet.flawless(100)?;

    let link = Link {
        destination: link_address(&shop.site.lb, "l0")?,
        source: link_address(&shop.site.client, "eth0")?,
    };
    // RFC 2544's addresses: nobody has them, and answers to them end at the client.
    let frames: Vec<Vec<u8>> = (0..FORGED)
        .map(|n| {
            let [_, a, b, c] = n.to_be_bytes();
            let from = SocketAddr::from(([198, 18 + a, b, c], 1_024 + (n % 60_000) as u16));
            tcp(link, from, shop.vip, flag::SYN, 0)
        })
        .collect();
    let mut sender = Sender::new(&shop.site.client, "eth0")?;
    let answered = |shop: &Shop| shop.outcome("syn-answered");
    let state = || -> Result<[u64; 3]> {
        Ok([shop.used("BINDINGS")?, went(&shop, hand::NONCE)?, went(&shop, hand::HOLD)?])
    };
    let (before, [bindings, flows, holds]) = (answered(&shop)?, state()?);
    let load = Load::start(&shop.site.client, &plan.clone().kept_alive())?;
    let short = Load::start(&shop.site.client, &plan)?;
    let begun = Instant::now();
    let mut sent = 0;
    while answered(&shop)? - before < FLOOD {
        ensure!(begun.elapsed() < Duration::from_secs(60), "{sent} SYNs sent, not all answered in a minute");
        for _ in 0..4 {
            for batch in frames.chunks(BATCH) {
                sent += sender.send(batch)? as u64;
            }
        }
    }
    let took = begun.elapsed();
    let counted = answered(&shop)? - before;
    short.go_on(50)?;
    let (load, short) = (load.finish()?, short.finish()?);
    load.flawless(50).context("connections that stay")?;
    short.flawless(100).context("new connections")?;
    println!(
        "{sent} SYNs, {counted} answered in {took:?} ({:.0} a second); longest request {:?} before, {:?} during it \
         on new connections, {:?} on those that stayed; {} and {} requests",
        counted as f64 / took.as_secs_f64(),
        quiet.longest,
        short.longest,
        load.longest,
        short.requests,
        load.requests
    );
    ensure!(short.longest < Duration::from_secs(5), "a request took {:?}", short.longest);
    let [bindings_after, flows_after, holds_after] = state()?;
    ensure!(bindings_after <= bindings + 1, "{bindings} bindings before, {bindings_after} after it");
    let sessions = shop.balancer.ask(&["sessions", "list", "--limit", "100000"])?.to_string();
    ensure!(!sessions.contains("198.1"), "a forged client has a session: {sessions}");
    // A flow and a hold for each connection that asked for something, and for nobody else.
    let connections = short.requests + plan.clients.len() as u64;
    let (made, held) = (flows_after - flows, holds_after - holds);
    println!("{connections} connections: {made} flows, {held} holds looked at");
    ensure!(made <= 3 * connections + 100, "{made} flows for {connections} connections");
    ensure!(held <= 3 * connections + 100, "{held} holds for {connections} connections");
    ensure!(went(&shop, hand::HOLDS_LIVE)? == 0, "holds were not given back");
    for name in ["holds-full", "flows-full", "half-open-evicted", "bindings-full"] {
        ensure!(shop.outcome(name)? == 0, "{name} was counted");
    }
    Ok(())
}
