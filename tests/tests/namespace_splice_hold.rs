//! Delayed binding: requests that come in pieces, with bodies, one behind the other, or not at all as they should.
//!
//! Nothing may wait for a retransmission time-out, which is made long here, so that a busy machine cannot be taken for one.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use stickleback_tests::topology::{Arms, Balancer, Namespace, Site, server, server::in_url};

const COOKIE: &str = r#"affinity = { kind = "http-cookie", cookie = "SESS" }"#;
const PIECES: &str = include_str!("pieces.py");
/// Longest a request may take, in milliseconds; half of a retransmission time-out.
const PROMPT: u64 = 1_000;
/// Makes the shortest retransmission time-out of a host's connections 2 s.
const LONG_TIMEOUT: &str =
    "ip -4 route show default | while read -r route; do ip -4 route change $route rto_min 2s; done
    ip -6 route show default | while read -r route; do ip -6 route change $route rto_min 2s; done";

/// A site with a service that reads the cookie SESS.
struct Spliced {
    balancer: Balancer,
    site: Site,
    vip: SocketAddr,
}

/// What a client got.
struct Got {
    answer: String,
    error: String,
    ms: u64,
}

impl Spliced {
    fn new(arms: Arms, v6: bool, lines: &str) -> Result<Self> {
        Self::on(arms, v6, lines, 80)
    }

    fn on(arms: Arms, v6: bool, lines: &str, port: u16) -> Result<Self> {
        let site = Site::new(arms, 3)?;
        for host in site.backends.iter().map(|backend| &backend.namespace).chain([&site.client]) {
            host.sh(LONG_TIMEOUT)?;
        }
        let vip: IpAddr = if v6 { "fd99::1".parse()? } else { "10.99.0.1".parse()? };
        let vip = SocketAddr::new(vip, port);
        let balancer = site.balance(&[site.service("web", vip, "nat", v6).with(lines)])?;
        std::fs::write(site.directory().join("pieces.py"), PIECES)?;
        let spliced = Self { balancer, site, vip };
        // Neighbours are resolved, and no test waits for that.
        for n in 0..12 {
            if lines.contains("http-cookie") {
                spliced.curl(&format!("-H 'Cookie: SESS=first{n}'"), "whoami")?;
            }
        }
        Ok(spliced)
    }

    fn curl(&self, options: &str, path: &str) -> Result<String> {
        let host = in_url(self.vip.ip());
        self.site.client.sh(&format!(
            "curl -sf --noproxy '*' --max-time 5 {options} http://{host}:{}/{path}",
            self.vip.port()
        ))
    }

    /// The backend of a session, as curl meets it.
    fn owner(&self, session: &str) -> Result<String> {
        backend(&self.curl(&format!("-H 'Cookie: SESS={session}'"), "whoami")?)
    }

    fn pieces(&self, options: &str, pieces: &[&str]) -> Result<Got> {
        let script = self.site.directory().join("pieces.py");
        let quoted: Vec<String> = pieces.iter().map(|piece| format!("'{piece}'")).collect();
        let line = format!(
            "python3 {} {} {} '{options}' {}",
            script.display(),
            self.vip.ip(),
            self.vip.port(),
            quoted.join(" ")
        );
        let printed = self.site.client.sh(&line)?;
        let got: Value = serde_json::from_str(&printed).with_context(|| printed.clone())?;
        let text = |name: &str| got[name].as_str().unwrap_or_default().to_owned();
        Ok(Got { answer: text("answer"), error: text("error"), ms: got["ms"].as_u64().unwrap_or(u64::MAX) })
    }

    /// What has been lost so far, if anything had to be sent again.
    fn losses(&self) -> Result<Losses> {
        let lost = ["not-held", "raced", "swallowed"].map(|name| self.outcome(name));
        let lost = lost.into_iter().sum::<Result<u64>>()?;
        Ok(Losses { again: retransmitted(&self.site.client)?, lost })
    }

    fn outcome(&self, name: &str) -> Result<u64> {
        let status = self.balancer.ask(&["status"])?;
        let outcomes = status["outcomes"].as_array().context("no outcomes")?;
        let found = outcomes.iter().find(|outcome| outcome["name"] == name);
        Ok(found.and_then(|outcome| outcome["count"].as_u64()).unwrap_or(0))
    }
}

/// Segments that clients sent again, and segments that the balancer let fall.
///
/// A client also sends again what it takes for lost: where a busy machine stalls, or one CPU's packets overtake another's.
struct Losses {
    again: u64,
    lost: u64,
}

impl Losses {
    /// Fails if something was sent again since then because the balancer had let it fall.
    fn none_since(&self, before: &Self) -> Result<()> {
        let (again, lost) = (self.again - before.again, self.lost - before.lost);
        ensure!(again == 0 || lost == 0, "{again} segments were sent again, {lost} were let fall");
        Ok(())
    }
}

impl Got {
    /// It came whole, from the session's backend, and at once.
    fn is_from(&self, owner: &str) -> Result<()> {
        ensure!(self.error.is_empty(), "{}", self.error);
        ensure!(self.answer.starts_with("HTTP/1.1 200"), "{}", self.answer);
        ensure!(backend(&self.answer)? == owner, "not {owner}: {}", self.answer);
        self.is_prompt()
    }

    fn is_prompt(&self) -> Result<()> {
        ensure!(self.ms < PROMPT, "it took {} ms", self.ms);
        Ok(())
    }
}

/// The backend's name in an answer.
fn backend(answer: &str) -> Result<String> {
    let (_, rest) = answer.split_once(r#""backend":""#).with_context(|| format!("no backend in {answer}"))?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

fn retransmitted(namespace: &Namespace) -> Result<u64> {
    let table = namespace.sh("cat /proc/net/snmp")?;
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "RetransSegs").context("no RetransSegs")?;
    Ok(value.parse()?)
}

/// Heads in pieces, with and without Nagle's algorithm, and what follows a request.
fn in_pieces(spliced: &Spliced) -> Result<()> {
    let owner = spliced.owner("pieces")?;
    let before = spliced.losses()?;
    let end = r#"b"\r\nHost: x\r\nConnection: close\r\n\r\n""#;
    let whole = spliced.pieces("", &[r#"b"GET /whoami HTTP/1.1\r\nCookie: SESS=pieces""#, end])?;
    whole.is_from(&owner).context("two pieces")?;
    let three = [r#"b"GET /whoami HT""#, r#"b"TP/1.1\r\nCookie: SESS=pie""#, r#"b"ces""#, end];
    spliced.pieces("", &three)?.is_from(&owner).context("pieces that Nagle's algorithm holds back")?;
    let text = "GET /whoami HTTP/1.1\r\nCookie: SESS=pieces\r\nHost: x\r\nConnection: close\r\n\r\n";
    let bytes: Vec<String> = text.bytes().map(|byte| format!("b\"\\x{byte:02x}\"")).collect();
    let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
    spliced.pieces("nodelay", &bytes)?.is_from(&owner).with_context(|| {
        let table = spliced.site.client.sh("nstat -a | grep -i tcp").unwrap_or_default();
        format!(
            "byte by byte\n{}\n{table}",
            spliced.balancer.ask(&["status"]).unwrap_or_default()["outcomes"]
        )
    })?;
    let twice = [
        r#"b"GET /whoami HTTP/1.1\r\nCookie: SESS=pieces\r\nHost: x\r\n\r\n""#,
        r#"b"GET /whoami HTTP/1.1\r\nCookie: SESS=pieces\r\nHost: x\r\nConnection: close\r\n\r\n""#,
    ];
    for options in ["", "nodelay"] {
        let got = spliced.pieces(options, &twice)?;
        got.is_from(&owner).context("pipelined")?;
        ensure!(got.answer.matches(&format!("\"backend\":\"{owner}\"")).count() == 2, "{}", got.answer);
    }
    let shut = [r#"b"GET /whoami HTTP/1.1\r\nCookie: SESS=pieces\r\nHost: x\r\nConnection: close\r\n\r\n""#];
    spliced.pieces("shut", &shut)?.is_from(&owner).context("FIN behind the request")?;
    spliced.losses()?.none_since(&before)
}

/// Bodies of many sizes arrive whole and at once.
fn bodies(spliced: &Spliced) -> Result<()> {
    let owner = spliced.owner("body")?;
    for bytes in [1_u64 << 3, 1_448, 2_920, 8_192, 65_536, 1 << 20] {
        let sent = spliced.site.directory().join("sent");
        server::file(&sent, bytes)?;
        let name = format!("body{bytes}");
        let options = format!(
            "-H 'Cookie: SESS=body' -H 'Expect:' -o /dev/null -w '%{{time_total}}' -T {}",
            sent.display()
        );
        let took: f64 = spliced.curl(&options, &format!("put/{name}"))?.parse()?;
        let received = spliced.site.received(&owner, &name);
        ensure!(std::fs::read(&received)? == std::fs::read(&sent)?, "{bytes} bytes came as others");
        ensure!(took < PROMPT as f64 / 1000.0, "{bytes} bytes took {took} s");
    }
    Ok(())
}

/// The same, and the balancer lets none of them fall.
fn loses_no_body(spliced: &Spliced) -> Result<()> {
    let before = spliced.losses()?;
    bodies(spliced)?;
    spliced.losses()?.none_since(&before)
}

#[test]
fn namespace_splice_pieces_v4() -> Result<()> {
    in_pieces(&Spliced::new(Arms::Two, false, COOKIE)?)
}

#[test]
fn namespace_splice_pieces_v6() -> Result<()> {
    in_pieces(&Spliced::new(Arms::One, true, COOKIE)?)
}

#[test]
fn namespace_splice_bodies_v4() -> Result<()> {
    loses_no_body(&Spliced::new(Arms::Two, false, COOKIE)?)
}

#[test]
fn namespace_splice_bodies_v6() -> Result<()> {
    loses_no_body(&Spliced::new(Arms::Two, true, COOKIE)?)
}

/// What appends held bytes stays on its interfaces when the daemon dies, and leaves them with the data plane.
#[test]
fn namespace_splice_without_daemon() -> Result<()> {
    let mut spliced = Spliced::new(Arms::Two, false, COOKIE)?;
    let fills = spliced.balancer.pins().join("fills");
    ensure!(std::fs::read_dir(&fills)?.count() == 4, "not on every interface");
    let before = spliced.losses()?;
    spliced.balancer.kill();
    bodies(&spliced)?;
    // What is counted outlives the daemon.
    spliced.balancer.restart()?;
    spliced.losses()?.none_since(&before)
}

/// What is no request, or no head that is looked at to its end, follows the fallback: it is served, and counted.
#[test]
fn namespace_splice_unreadable() -> Result<()> {
    let spliced = Spliced::new(Arms::Two, false, COOKIE)?;
    let counted = |name: &str| spliced.outcome(name);
    let before = counted("head-too-long")?;
    let long = [r#"b"GET /whoami HTTP/1.1\r\nHost: x\r\nX: ""#, r#"b"x"*1000000"#, r#"b"\r\n\r\n""#];
    let got = spliced.pieces("", &long)?;
    ensure!(got.answer.starts_with("HTTP/1.1 400"), "{} {}", got.error, got.answer);
    ensure!(counted("head-too-long")? > before, "it was not counted");
    let before = counted("not-http")?;
    let got = spliced.pieces("", &[r#"b"\x16\x03\x01\x00\xff binary""#, r#"b"\n\n""#])?;
    ensure!(got.answer.starts_with("HTTP/1.1 400"), "{} {}", got.error, got.answer);
    got.is_prompt()?;
    ensure!(counted("not-http")? > before, "it was not counted");
    // Half a head and no more: the backend decides what to say.
    let got = spliced.pieces("shut", &[r#"b"GET /whoami HTTP/1.1\r\nHo""#])?;
    got.is_prompt().context("half a head")?;
    Ok(())
}

/// Values that backends give out are bound to them before their clients have them.
fn learns(spliced: &Spliced) -> Result<()> {
    let mut used = std::collections::BTreeSet::new();
    for session in 0..12 {
        for (place, login) in ["set", "long-set"].into_iter().enumerate() {
            let name = format!("new{place}{session}");
            let by = backend(&spliced.curl("", &format!("{login}?session={name}"))?)?;
            ensure!(spliced.owner(&name)? == by, "{login}: session {name} is {by}'s, and went elsewhere");
            used.insert(by);
        }
        // The second response on a connection.
        let name = format!("later{session}");
        let host = in_url(spliced.vip.ip());
        let two = spliced
            .curl(&format!("http://{host}:{}/whoami", spliced.vip.port()), &format!("set?session={name}"))?;
        let by = backend(&two)?;
        ensure!(spliced.owner(&name)? == by, "session {name} is {by}'s, and went elsewhere");
    }
    ensure!(used.len() > 1, "only {used:?} served");
    let learnt = spliced.outcome("learnt")?;
    ensure!(learnt >= 24, "{learnt} were learnt");
    ensure!(spliced.outcome("learn-missed")? == 0, "some were missed");
    Ok(())
}

#[test]
fn namespace_splice_learn_v4() -> Result<()> {
    learns(&Spliced::new(Arms::Two, false, COOKIE)?)
}

#[test]
fn namespace_splice_learn_v6() -> Result<()> {
    learns(&Spliced::new(Arms::One, true, COOKIE)?)
}

/// Requests of two sessions on one connection, which belong to different backends.
fn mixed(spliced: &Spliced) -> Result<Got> {
    let owner = spliced.owner("mine")?;
    let mut other = String::new();
    for n in 0.. {
        other = format!("other{n}");
        if spliced.owner(&other)? != owner {
            break;
        }
    }
    let request =
        |session: &str| format!(r#"b"GET /whoami HTTP/1.1\r\nHost: x\r\nCookie: SESS={session}\r\n"#);
    let first = format!(r#"{}\r\n""#, request("mine"));
    let second = format!(r#"{}Connection: close\r\n\r\n""#, request(&other));
    // The second one is written when the first one has been answered.
    spliced.pieces("nodelay,pause=50", &[&first, &first, &second])
}

#[test]
fn namespace_splice_mismatch() -> Result<()> {
    let spliced = Spliced::new(Arms::Two, false, COOKIE)?;
    let got = mixed(&spliced)?;
    ensure!(
        got.error.is_empty() && got.answer.matches("200 OK").count() == 3,
        "{} {}",
        got.error,
        got.answer
    );
    ensure!(spliced.outcome("mismatch")? == 1, "{} were counted", spliced.outcome("mismatch")?);
    drop(spliced);
    let lines = r#"affinity = { kind = "http-cookie", cookie = "SESS", on-mismatch = "reset" }"#;
    let got = mixed(&Spliced::new(Arms::Two, false, lines)?)?;
    ensure!(got.error == "ConnectionResetError", "{} {}", got.error, got.answer);
    Ok(())
}

/// Backends behind source NAT are told by the PROXY protocol who their client is; requests in pieces, too.
fn tells_the_client(v6: bool) -> Result<()> {
    let (source, client) = if v6 { ("fd02:1::1", "fd01::2") } else { ("10.2.1.1", "10.1.0.2") };
    let lines = format!("{COOKIE}\nsource-nat = \"{source}\"\nproxy-protocol = true\n");
    let spliced = Spliced::on(Arms::One, v6, &lines, 8083)?;
    let owner = spliced.owner("told")?;
    let before = spliced.losses()?;
    let whole = r#"b"GET /whoami HTTP/1.1\r\nHost: x\r\nCookie: SESS=told\r\nConnection: close\r\n\r\n""#;
    let parts = [
        r#"b"GET /who""#,
        r#"b"ami HTTP/1.1\r\nHost: x\r\nCookie: SESS=to""#,
        r#"b"ld\r\nConnection: close\r\n\r\n""#,
    ];
    for pieces in [&[whole][..], &parts[..]] {
        let got = spliced.pieces("", pieces)?;
        got.is_from(&owner)?;
        ensure!(got.answer.contains(&format!("\"client\":\"{client} ")), "{}", got.answer);
        ensure!(got.answer.contains(&format!(" {source}\"")), "{}", got.answer);
    }
    spliced.losses()?.none_since(&before)
}

#[test]
fn namespace_splice_proxy_v4() -> Result<()> {
    tells_the_client(false)
}

#[test]
fn namespace_splice_proxy_v6() -> Result<()> {
    tells_the_client(true)
}

/// A session key at a fixed place of what the client says, in one piece or several.
#[test]
fn namespace_splice_payload() -> Result<()> {
    let lines = r#"affinity = { kind = "payload", offset = 16, length = 8 }"#;
    let spliced = Spliced::new(Arms::Two, false, lines)?;
    let rest = r#"b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n""#;
    let mut used = std::collections::BTreeSet::new();
    for session in 0..8 {
        let whole =
            format!(r#"b"GET /whoami?key={session:08} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n""#);
        let owner = backend(&spliced.pieces("", &[&whole])?.answer)?;
        let parts =
            [r#"b"GET /whoami?k""#.to_owned(), r#"b"ey=000000""#.to_owned(), format!(r#"b"{session:02}""#)];
        let got = spliced.pieces("nodelay,pause=5", &[&parts[0], &parts[1], &parts[2], rest])?;
        got.is_from(&owner)?;
        used.insert(owner);
    }
    ensure!(used.len() > 1, "only {used:?} served");
    Ok(())
}
