//! Who is served by whom.

use super::{COOKIE, Shop, is_long, vip};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::time::Duration;
use stickleback_tests::topology::server::{self, in_url};
use stickleback_tests::topology::{Arms, Load, LoadPlan, Site};

/// Many sessions at once, each request on a connection of its own; tells sessions that moved.
const WRK: &str = include_str!("wrk.lua");

/// Hundreds of connections: each session has one backend, whoever asks and however.
fn sticks(arms: Arms, v6: bool) -> Result<()> {
    let shop = Shop::new(arms, v6, COOKIE)?;
    let clients = shop.site.clients(v6, 100);
    // As browsers do: a hundred connections that stay.
    let plan = LoadPlan::new(shop.vip, clients.clone()).with_cookie("SESS");
    let browsers = Load::start(&shop.site.client, &plan.clone().kept_alive())?;
    browsers.reach(400)?;
    let browsers = browsers.finish()?;
    browsers.flawless(400)?;
    ensure!(browsers.sessions.len() == 100 && browsers.backends.len() == 3, "{browsers:?}");
    let short = Load::start(&shop.site.client, &plan)?;
    short.reach(300)?;
    let short = short.finish()?;
    short.flawless(300)?;
    ensure!(short.sessions == browsers.sessions, "sessions moved between connections");
    // The same sessions from another address.
    for (client, owner) in browsers.sessions.iter().take(10) {
        let again = shop.backend(&format!("-H 'Cookie: a=b; SESS=s{client}; c=d'"), "whoami")?;
        ensure!(again == *owner, "{client}'s session moved from {owner} to {again}");
    }

    let script = shop.site.directory().join("wrk.lua");
    std::fs::write(&script, WRK)?;
    let line = format!(
        "wrk -t2 -c20 -d1s --timeout 10s -s {} http://{}/whoami",
        script.display(),
        in_url(shop.vip.ip())
    );
    let said = shop.site.client.sh_within(&line, Duration::from_secs(30))?;
    let sum = said.lines().find(|line| line.starts_with("sessions ")).with_context(|| said.clone())?;
    ensure!(sum == "sessions 80 moved 0 foreign 0 failed 0", "{said}");
    ensure!(!said.contains("Socket errors"), "{said}");

    // Without a cookie everybody is served, and counted.
    let before = shop.outcome("no-cookie")?;
    for _ in 0..6 {
        shop.backend("-H 'Cookie: XSESS=1; SESSX=2'", "whoami")?;
    }
    let counted = shop.outcome("no-cookie")? - before;
    ensure!(counted == 6, "of 6 requests without the cookie {counted} were counted");
    Ok(())
}

#[test]
fn namespace_cookie_sticks_v4() -> Result<()> {
    sticks(Arms::Two, false)
}

#[test]
fn namespace_cookie_sticks_v6() -> Result<()> {
    sticks(Arms::One, true)
}

/// The backend that sets the cookie serves the session from then on.
#[test]
fn namespace_cookie_learns() -> Result<()> {
    let shop = Shop::new(Arms::Two, false, COOKIE)?;
    let jar = shop.site.directory().join("jar");
    let mut owners = BTreeSet::new();
    for n in 0..12 {
        let _ = std::fs::remove_file(&jar);
        let owner = shop.backend(&format!("-c {}", jar.display()), "login")?;
        for _ in 0..3 {
            let again = shop.backend(&format!("-b {}", jar.display()), "whoami")?;
            ensure!(again == owner, "session {n} was set by {owner} and served by {again}");
        }
        owners.insert(owner);
    }
    ensure!(owners.len() > 1, "all were sent to {owners:?}");
    let learnt = shop.outcome("learnt")?;
    ensure!(learnt >= 12, "12 sessions began, {learnt} were learnt");
    Ok(())
}

/// A cookie that names its backend.
#[test]
fn namespace_cookie_routes() -> Result<()> {
    let lines = r#"affinity = { kind = "http-cookie", cookie = "JSESSIONID", delimiter = "!", segment = 2, read = "route" }"#;
    let shop = Shop::new(Arms::Two, false, lines)?;
    for n in 0..9 {
        let route = format!("be{}", n % 3 + 1);
        let served =
            shop.backend(&format!("-H 'Cookie: JSESSIONID=0123456789ABCDEF{n}!{route}'"), "whoami")?;
        ensure!(served == route, "{route} was named, {served} answered");
    }
    let before = shop.outcome("segment-unknown")?;
    for unknown in ["ID!be9", "ID!be2x", "ID!"] {
        shop.backend(&format!("-H 'Cookie: JSESSIONID={unknown}'"), "whoami")?;
    }
    shop.backend("-H 'Cookie: JSESSIONID=be2'", "whoami")?;
    let counted = shop.outcome("segment-unknown")? - before;
    ensure!(counted >= 2, "unknown routes were counted {counted} times");
    Ok(())
}

/// The path chooses the pool, the cookie the backend in it.
#[test]
fn namespace_cookie_paths() -> Result<()> {
    let site = Site::new(Arms::Two, 4)?;
    let mut service = site.service("web", vip(false), "nat", false).with(COOKIE);
    let others = service.backends.split_off(2);
    service.lines.push_str("[[service.path]]\nprefix = \"/static/\"\n");
    for other in others {
        let (name, address) = (other.name, other.address);
        service.lines.push_str(&format!(
            "[[service.path.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nport = 8080\n"
        ));
    }
    let balancer = site.balance(&[service])?;
    let shop = Shop { balancer, site, vip: vip(false), v6: false };
    let mut used = BTreeSet::new();
    for session in 0..16 {
        let cookie = format!("-H 'Cookie: SESS=p{session}'");
        for (path, pool) in [("whoami", ["be1", "be2"]), ("static/whoami", ["be3", "be4"])] {
            let first = shop.backend(&cookie, path)?;
            ensure!(pool.contains(&first.as_str()), "{path} was served by {first}");
            let again = shop.backend(&cookie, path)?;
            ensure!(again == first, "{path} moved from {first} to {again}");
            used.insert(first);
        }
    }
    ensure!(used.len() == 4, "only {used:?} served");
    Ok(())
}

/// A hundred megabytes each way arrive as they were sent.
fn transfers(v6: bool) -> Result<()> {
    const BYTES: u64 = 100_000_000;
    let shop = Shop::new(Arms::Two, v6, COOKIE)?;
    let file = shop.site.files().join("large");
    server::file(&file, BYTES)?;
    let owner = shop.backend("-H 'Cookie: SESS=large'", "whoami")?;
    let host = in_url(shop.vip.ip());
    let curl = format!("curl -sS --fail --noproxy '*' --max-time 60 -H 'Cookie: SESS=large' http://{host}");
    let file = file.display();
    let said = shop.site.client.sh_within(
        &format!("{curl}/files/large | cmp - {file}\n{curl}/put/up -T {file}"),
        Duration::from_secs(130),
    )?;
    ensure!(said.is_empty(), "{said}");
    let received = shop.site.received(&owner, "up");
    let compare = format!("cmp {file} {}", received.display());
    shop.site.client.sh_within(&compare, Duration::from_secs(60)).map(drop)
}

#[test]
fn namespace_cookie_transfers_v6() -> Result<()> {
    transfers(true)
}

#[test]
fn namespace_cookie_transfers_v4() -> Result<()> {
    if is_long() { transfers(false) } else { Ok(()) }
}

/// HTTP/2 without TLS goes through by the fallback, and is counted.
#[test]
fn namespace_cookie_http2() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let mut service = site.service("web", vip(false), "nat", false).with(COOKIE);
    for backend in &mut service.backends {
        backend.lines = "port = 8082\n".to_owned();
    }
    let balancer = site.balance(&[service])?;
    let shop = Shop { balancer, site, vip: vip(false), v6: false };
    let sent = shop.site.files().join("sent");
    server::file(&sent, 200_000)?;
    for n in 0..4 {
        let options = format!("--http2-prior-knowledge -H 'Cookie: SESS=h{n}'");
        shop.backend(&options, "whoami")?;
        let got = shop.site.directory().join("got");
        shop.curl(&format!("{options} -o {}", got.display()), "files/sent")?;
        ensure!(std::fs::read(&got)? == std::fs::read(&sent)?, "the file changed on its way");
    }
    let counted = shop.outcome("not-http")?;
    ensure!(counted == 8, "8 connections, {counted} counted");
    Ok(())
}
