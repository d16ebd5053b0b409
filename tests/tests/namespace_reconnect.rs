//! A client that reconnects at once through another node: it meets the backend that it met before.
//!
//! A session that one node has just learnt or bound is known elsewhere only when the journal holds it and the news arrived. The
//! client here does not wait for that: the answer's last byte is read, and the next connection begins.

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use stickleback_tests::topology::crossing::{NODES, unite};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Balancer, Crossing, SOON, ServiceConfig};

/// Sessions of each kind.
const SESSIONS: u32 = 2_000;
/// Sessions that say something about one in a thousand.
const ENOUGH: u32 = 1_000;
/// No more than these are begun after this time.
const TIME: Duration = Duration::from_secs(20);
/// None at all are begun after this one.
const LONGEST: Duration = Duration::from_secs(80);
/// Longest that one request may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Clients at a time.
const CLIENTS: u32 = 2;

fn vip(service: &str) -> SocketAddr {
    let text = if service == "learns" { "10.99.0.2:8080" } else { "10.99.0.3:8080" };
    text.parse().expect("an address")
}

/// By a cookie that a backend sets, and by one that clients bring along, where the order of backends does not say who gets it.
fn services(crossing: &Crossing, node: usize) -> Vec<ServiceConfig> {
    let cookie = r#"affinity = { kind = "http-cookie", cookie = "SESS" }"#;
    let service = |name: &str, lines: &str| {
        crossing.service(node, name, vip(name), "nat").with(&format!("{cookie}\n{lines}"))
    };
    vec![service("learns", ""), service("binds", "method = \"least-connections\"")]
}

/// Nodes in a cluster that can ask each other; what node n's clients send goes through it.
fn cluster(crossing: &Crossing) -> Result<Vec<Balancer>> {
    let start = |node| crossing.balance(node, &crossing.config(node, "", &services(crossing, node)));
    let nodes = (0..NODES).map(start).collect::<Result<Vec<_>>>()?;
    unite(&nodes[0], &nodes[1])?;
    for (node, balancer) in nodes.iter().enumerate() {
        let n = node + 1;
        crossing.router.sh(&format!(
            "ip route add 10.99.0.0/24 via 10.3.{n}.2 dev r{n} table 10{n}; ip rule add from 10.4.{n}.0/24 table 10{n}"
        ))?;
        eventually(SOON, || {
            let status = balancer.ask(&["cluster", "status"])?;
            ensure!(status["peers"][0]["asked"] == true, "it cannot ask: {status:#}");
            Ok(())
        })?;
    }
    Ok(nodes)
}

/// A client, by whose address the router chooses the node.
fn client(node: u32, number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a04_0000 + ((node + 1) << 8) + 1 + number % 250).into()
}

/// One request on a connection of its own: the answer's body.
fn request(vip: SocketAddr, from: IpAddr, path: &str, cookie: &str) -> Result<BTreeMap<String, String>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&vip.into(), PATIENCE).context("connecting")?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{cookie}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let (mut answer, mut piece) = (Vec::with_capacity(512), [0; 2_048]);
    // Nothing follows the body's brace: whoever waited for the end of the connection would reconnect later.
    while answer.last() != Some(&b'\n') || !answer.ends_with(b"}\n") {
        match stream.read(&mut piece).context("reading the answer")? {
            0 => bail!("the connection ended after {:?}", String::from_utf8_lossy(&answer)),
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
    let text = std::str::from_utf8(&answer)?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let body = text.split_once("\r\n\r\n").context("no body")?.1;
    Ok(serde_json::from_str(body)?)
}

/// What became of the sessions.
#[derive(Default, Debug)]
struct Tally {
    sessions: u32,
    /// A later request was answered by another backend than the first.
    elsewhere: u32,
    /// How long connections took from their beginning to the answer: where the session began, through the other node, and there
    /// once more.
    times: [Vec<Duration>; 3],
    backends: BTreeMap<String, u32>,
}

/// Begins sessions one after the other, each through one node, and reconnects through the other one.
fn reconnect(worker: u32, learns: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    let begun = Instant::now();
    for n in 0..SESSIONS / CLIENTS {
        let elapsed = begun.elapsed();
        if elapsed > LONGEST || elapsed > TIME && tally.sessions >= ENOUGH / CLIENTS {
            break;
        }
        let number = worker + n * CLIENTS;
        let started = Instant::now();
        let (here, there) = (client(n % 2, number), client((n + 1) % 2, number));
        let (first, value, vip) = if learns {
            let first = request(vip("learns"), here, "/login", "")?;
            let value = first["session"].clone();
            (first, value, vip("learns"))
        } else {
            let value = format!("v{number}");
            (
                request(vip("binds"), here, "/whoami", &format!("Cookie: SESS={value}\r\n"))?,
                value,
                vip("binds"),
            )
        };
        let reached = Instant::now();
        let cookie = format!("Cookie: SESS={value}\r\n");
        let second = request(vip, there, "/whoami", &cookie)?;
        let met = Instant::now();
        let third = request(vip, there, "/whoami", &cookie)?;
        for (times, time) in tally.times.iter_mut().zip([reached - started, met - reached, met.elapsed()]) {
            times.push(time);
        }
        tally.sessions += 1;
        let moved = first["backend"] != second["backend"] || first["backend"] != third["backend"];
        tally.elsewhere += u32::from(moved);
        *tally.backends.entry(first["backend"].clone()).or_default() += 1;
    }
    Ok(tally)
}

/// How often something was counted by all nodes.
fn outcome(nodes: &[Balancer], name: &str) -> Result<u64> {
    let counted = nodes.iter().map(|node| {
        let status = node.ask(&["status"])?;
        let rows = status["outcomes"].as_array().context("no outcomes")?;
        let row = rows.iter().find(|row| row["outcome"] == name || row["name"] == name);
        Ok(row.and_then(|row| row["packets"].as_u64().or(row["count"].as_u64())).unwrap_or(0))
    });
    counted.sum()
}

/// At least 999 of 1,000 sessions meet the same backend, and the sessions are spread over all of them.
fn meets_the_same_backend(learns: bool) -> Result<()> {
    let crossing = Crossing::new(3)?;
    let nodes = cluster(&crossing)?;
    let tallies = crossing.client.inside(|| {
        let workers: Vec<_> =
            (0..CLIENTS).map(|n| std::thread::spawn(move || reconnect(n, learns))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<Tally>>>()
    })?;
    let mut sum = Tally::default();
    for tally in tallies {
        sum.sessions += tally.sessions;
        sum.elsewhere += tally.elsewhere;
        for (all, times) in sum.times.iter_mut().zip(tally.times) {
            all.extend(times);
        }
        for (backend, sessions) in tally.backends {
            *sum.backends.entry(backend).or_default() += sessions;
        }
    }
    println!(
        "{}: {} sessions, {} elsewhere; first met {:?}",
        if learns { "learnt" } else { "bound" },
        sum.sessions,
        sum.elsewhere,
        sum.backends
    );
    for (which, times) in ["begins", "through the other node", "there again"].iter().zip(&mut sum.times) {
        times.sort_unstable();
        let time = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
        println!("{which}: {:?} (median), {:?} (of 99 in 100)", time(50), time(99));
    }
    for name in ["session-asked", "session-told", "session-answered", "visit-passed", "learn-missed"] {
        println!("{name}: {}", outcome(&nodes, name)?);
    }
    let told = outcome(&nodes, "session-told")?;
    ensure!(told > 0, "no node told a session: the clients are slower than the news");
    ensure!(sum.sessions >= ENOUGH, "only {} sessions in {LONGEST:?}", sum.sessions);
    ensure!(sum.backends.len() == 3, "not all backends began sessions: {:?}", sum.backends);
    let most = sum.sessions / 1_000;
    ensure!(sum.elsewhere <= most, "{} of {} sessions moved, more than {most}", sum.elsewhere, sum.sessions);
    Ok(())
}

#[test]
fn namespace_reconnect_with_what_was_learnt() -> Result<()> {
    meets_the_same_backend(true)
}

#[test]
fn namespace_reconnect_with_what_was_bound() -> Result<()> {
    meets_the_same_backend(false)
}
