//! Delayed binding with real clients and real web servers.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use stickleback_tests::topology::config;
use stickleback_tests::topology::server::{self, in_url};
use stickleback_tests::topology::{Arms, Balancer, Namespace, Site};

const COOKIE: &str = r#"affinity = { kind = "http-cookie", cookie = "SESS" }"#;

fn vip(v6: bool) -> SocketAddr {
    if v6 { "[fd99::1]:80".parse() } else { "10.99.0.1:80".parse() }.expect("an address")
}

/// The backend that a request with this cookie reaches.
fn ask(client: &Namespace, vip: SocketAddr, options: &str) -> Result<String> {
    let host = in_url(vip.ip());
    client.sh(&format!("curl -sf --noproxy '*' --max-time 5 {options} http://{host}:{}/whoami", vip.port()))
}

/// A session's requests go where its first one went.
fn sticks(arms: Arms, v6: bool) -> Result<()> {
    let site = Site::new(arms, 3)?;
    let service = site.service("web", vip(v6), "nat", v6).with(COOKIE);
    let _balancer = site.balance(&[service])?;
    let mut used = std::collections::BTreeSet::new();
    for session in 0..12 {
        let cookie = format!("-H 'Cookie: SESS=abc{session}'");
        let first = ask(&site.client, vip(v6), &cookie)?;
        for _ in 0..4 {
            let again = ask(&site.client, vip(v6), &cookie)?;
            ensure!(again == first, "session {session} moved: {first}, then {again}");
        }
        let (_, rest) = first.split_once(r#""backend":""#).with_context(|| first.clone())?;
        used.insert(rest.split('"').next().unwrap_or_default().to_owned());
    }
    ensure!(used.len() > 1, "only {used:?} served");
    Ok(())
}

#[test]
fn namespace_splice_v4_two_arms() -> Result<()> {
    sticks(Arms::Two, false)
}

#[test]
fn namespace_splice_v6_one_arm() -> Result<()> {
    sticks(Arms::One, true)
}

/// A backend that refuses connections: its sessions go to the next one, without a retransmission.
#[test]
fn namespace_splice_refused() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let mut service = site.service("web", vip(false), "nat", false).with(COOKIE);
    service.backends[0].lines = "port = 9\n".to_owned();
    let balancer = site.balance(&[service])?;
    for session in 0..20 {
        let begun = Instant::now();
        let answer = ask(&site.client, vip(false), &format!("-H 'Cookie: SESS=x{session}'"))?;
        ensure!(answer.contains("be2"), "session {session} was answered by {answer}");
        ensure!(begun.elapsed() < Duration::from_secs(3), "session {session} took {:?}", begun.elapsed());
    }
    let refused = outcome(&balancer, "backend-refused")?;
    ensure!((4..=16).contains(&refused), "{refused} of 20 sessions were refused first");
    // Nobody is left: the client is told at once.
    let mut service = site.service("web", vip(false), "nat", false).with(COOKIE);
    for backend in &mut service.backends {
        backend.lines = "port = 9\n".to_owned();
    }
    balancer.reload(&config::text(&site.node(), &[service]))?;
    let begun = Instant::now();
    let told = ask(&site.client, vip(false), "-H 'Cookie: SESS=y'").err().context("somebody answered")?;
    ensure!(begun.elapsed() < Duration::from_secs(3), "it took {:?}: {told:#}", begun.elapsed());
    Ok(())
}

/// A backend that does not answer at all: its sessions go to the next one with the client's second retransmission.
#[test]
fn namespace_splice_silent() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let service = site.service("web", vip(false), "nat", false).with(COOKIE);
    let balancer = site.balance(&[service])?;
    site.backends[0].namespace.sh("ip route add blackhole 10.1.0.0/16")?;
    for session in 0..6 {
        let answer = ask(&site.client, vip(false), &format!("-H 'Cookie: SESS=x{session}'"))?;
        ensure!(answer.contains("be2"), "session {session} was answered by {answer}");
    }
    ensure!(outcome(&balancer, "backend-silent")? > 0, "no backend was silent");
    Ok(())
}

/// Bytes of both directions arrive as they were sent.
#[test]
fn namespace_splice_transfer() -> Result<()> {
    const BYTES: u64 = 20_000_000;
    let site = Site::new(Arms::Two, 2)?;
    let service = site.service("web", vip(false), "nat", false).with(COOKIE);
    let _balancer = site.balance(&[service])?;
    server::file(&site.files().join("large"), BYTES)?;
    let files = site.files();
    let sums = site.client.sh(&format!(
        "curl -sf --noproxy '*' --max-time 20 -H 'Cookie: SESS=a' http://10.99.0.1/files/large | cmp - {0}/large
         curl -sf --noproxy '*' --max-time 20 -H 'Cookie: SESS=a' -T {0}/large http://10.99.0.1/put/up",
        files.display()
    ))?;
    ensure!(sums.is_empty(), "{sums}");
    let received = ["be1", "be2"].map(|backend| site.received(backend, "up"));
    let received = received.iter().find(|path| path.exists()).context("no backend got the file")?;
    ensure!(std::fs::read(received)? == std::fs::read(files.join("large"))?, "the file changed on its way");
    Ok(())
}

/// A connection from a port whose earlier connection nobody ended.
#[test]
fn namespace_splice_port_used_again() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let service = site.service("web", vip(false), "nat", false).with(COOKIE);
    let _balancer = site.balance(&[service])?;
    let script = site.directory().join("again.py");
    std::fs::write(&script, AGAIN)?;
    let said = site.client.sh(&format!("python3 {} 10.99.0.1", script.display()))?;
    ensure!(said.trim() == "5", "{said} of 5 connections from one port were answered");
    Ok(())
}

/// Five connections from one port; each is given up without a word to the other side.
const AGAIN: &str = r#"
import socket, sys
answered = 0
for n in range(5):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(5)
    s.bind(("", 34567))
    s.connect((sys.argv[1], 80))
    s.sendall(b"GET /whoami HTTP/1.1\r\nHost: x\r\nCookie: SESS=%d\r\n\r\n" % n)
    answered += s.recv(4096).startswith(b"HTTP/1.1 200")
    # TCP_REPAIR: closed without FIN or RST.
    s.setsockopt(socket.SOL_TCP, 19, 1)
    s.close()
print(answered)
"#;

/// How often something was counted.
fn outcome(balancer: &Balancer, name: &str) -> Result<u64> {
    let status = balancer.ask(&["status"])?;
    let text = status.to_string();
    let rows = status["outcomes"].as_array().with_context(|| format!("no outcomes in {text}"))?;
    let row = rows.iter().find(|row| row["name"] == name || row["outcome"] == name);
    Ok(row.and_then(|row| row["packets"].as_u64().or(row["count"].as_u64())).unwrap_or(0))
}
