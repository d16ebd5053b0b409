//! Delayed binding with real clients and real web servers.

use anyhow::{Result, ensure};
use std::net::SocketAddr;
use stickleback_tests::topology::{Arms, Namespace, Site, server::in_url};

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
    let balancer = site.balance(&[service])?;
    if std::env::var("SPLICE_DEBUG").is_ok() {
        let cap = site.lb.try_sh(
            "timeout 4 tcpdump -Sni any -s0 -U -w /tmp/splice.pcap >/dev/null 2>&1 &",
            std::time::Duration::from_secs(1),
        );
        let cap2 = site.client.try_sh("(timeout 6 tcpdump -Sni eth0 > /tmp/splice-client.txt 2>&1) & sleep 0.5; curl -sv --noproxy '*' --max-time 3 -H 'Cookie: SESS=abc' http://10.99.0.1/whoami > /tmp/splice-curl.txt 2>&1", std::time::Duration::from_secs(8));
        eprintln!("{cap:?} {cap2:?}");
        eprintln!("{}", balancer.ctl(&["stats"]).unwrap_or_else(|e| format!("{e:#}")));
        eprintln!("{}", balancer.log());
        eprintln!("{}", std::fs::read_to_string("/tmp/splice-client.txt")?);
        eprintln!("{}", std::fs::read_to_string("/tmp/splice-curl.txt")?);
    }
    let mut used = std::collections::BTreeSet::new();
    for session in 0..12 {
        let cookie = format!("-H 'Cookie: SESS=abc{session}'");
        let first = ask(&site.client, vip(v6), &cookie)?;
        for _ in 0..4 {
            let again = ask(&site.client, vip(v6), &cookie)?;
            ensure!(again == first, "session {session} moved: {first}, then {again}");
        }
        used.insert(first);
    }
    ensure!(used.len() == 3, "only {used:?} served");
    Ok(())
}

#[test]
fn namespace_splice_v4_two_arms() -> Result<()> {
    sticks(Arms::Two, false)
}
