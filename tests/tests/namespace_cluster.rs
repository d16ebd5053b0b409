//! Two balancers as one, behind a router that spreads connections over them: real clients, real servers, a node that dies.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;
use stickleback_tests::topology::crossing::{NODES, agrees, bindings, join, unite};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{
    Balancer, Crossing, Load, LoadPlan, LoadReport, SOON, ServiceConfig, load,
};

const COOKIE: &str = r#"affinity = { kind = "http-cookie", cookie = "SESS" }"#;
/// How long the nodes are without each other.
const CUT: Duration = Duration::from_secs(30);
/// The same where it is only looked at whether they come together again.
const SHORT_CUT: Duration = Duration::from_secs(8);
/// A new secret of session keys is used 15 s after the order.
const CHANGED: Duration = Duration::from_secs(60);
/// Sessions.
const CLIENTS: u16 = 60;

fn direct() -> SocketAddr {
    "10.99.0.1:80".parse().expect("an address")
}

fn cookies() -> SocketAddr {
    "10.99.0.2:8080".parse().expect("an address")
}

/// By the client's address with direct return, and by cookie.
fn services(crossing: &Crossing, node: usize) -> Vec<ServiceConfig> {
    let direct = crossing.service(node, "direct", direct(), "l2").with("affinity = \"source-ip\"");
    vec![direct, crossing.service(node, "shop", cookies(), "nat").with(COOKIE)]
}

/// Two nodes in a cluster; connections go to both.
fn pair(crossing: &Crossing, cluster: &str) -> Result<Vec<Balancer>> {
    let start = |node| crossing.balance(node, &crossing.config(node, cluster, &services(crossing, node)));
    let nodes = (0..NODES).map(start).collect::<Result<Vec<_>>>()?;
    unite(&nodes[0], &nodes[1])?;
    Ok(nodes)
}

fn plans(crossing: &Crossing) -> [LoadPlan; 2] {
    let clients = crossing.clients(CLIENTS);
    let by_address = LoadPlan { threads: 2, ..LoadPlan::new(direct(), clients.clone()) };
    let by_cookie = LoadPlan { threads: 2, ..LoadPlan::new(cookies(), clients).with_cookie("SESS") };
    [by_address, by_cookie]
}

/// The backend of each session, when all of them were made while one backend took none; then it takes some again.
///
/// So the order does not say where they belong: only who has their bindings knows.
fn bound_elsewhere(crossing: &Crossing, nodes: &[Balancer]) -> Result<[BTreeMap<IpAddr, String>; 2]> {
    for node in nodes {
        for service in ["direct", "shop"] {
            node.ctl(&["drain", service, "be3"])?;
        }
    }
    let mut sessions = [const { BTreeMap::new() }; 2];
    for (plan, sessions) in plans(crossing).iter().zip(&mut sessions) {
        let load = Load::start(&crossing.client, plan)?;
        load.go_round()?;
        let report = load.finish()?;
        report.flawless(u64::from(CLIENTS))?;
        ensure!(!report.backends.contains_key("be3"), "a drained backend was used");
        ensure!(report.sessions.len() == usize::from(CLIENTS), "{} sessions", report.sessions.len());
        *sessions = report.sessions;
    }
    for node in nodes {
        for service in ["direct", "shop"] {
            node.ctl(&["undrain", service, "be3"])?;
        }
        agrees(node)?;
    }
    Ok(sessions)
}

/// Sessions that are elsewhere than they were.
fn moved(before: &BTreeMap<IpAddr, String>, report: &LoadReport) -> Vec<String> {
    let other = report.sessions.iter().filter_map(|(client, now)| {
        let then = before.get(client)?;
        (then != now).then(|| format!("{client}: {then}, then {now}"))
    });
    other.collect()
}

#[test]
fn namespace_cluster_survives_the_death_of_a_node() -> Result<()> {
    let crossing = Crossing::new(3)?;
    crossing.spread(&[0, 1])?;
    let mut nodes = pair(&crossing, "")?;
    let before = bound_elsewhere(&crossing, &nodes)?;
    let both = u64::from(CLIENTS) * 2;
    for node in &nodes {
        eventually(SOON, || {
            let held = bindings(node)?;
            ensure!(held >= both, "{held} of {both} bindings are there");
            Ok(())
        })?;
    }

    let plans = plans(&crossing);
    let running = plans.iter().map(|plan| Load::start(&crossing.client, plan)).collect::<Result<Vec<_>>>()?;
    running.iter().try_for_each(|load| load.reach(200))?;
    // The machine dies, and the router notices.
    crossing.kill(0, &mut nodes[0])?;
    crossing.spread(&[1])?;
    running.iter().try_for_each(|load| load.go_on(400))?;
    // It comes back with its disk alone, and gets what it has missed before the router sends it anything.
    crossing.revive(0, &mut nodes[0])?;
    agrees(&nodes[0])?;
    eventually(SOON, || {
        let held = bindings(&nodes[0])?;
        ensure!(held >= both, "{held} of {both} bindings are there again");
        Ok(())
    })?;
    crossing.spread(&[0, 1])?;
    running.iter().try_for_each(|load| load.go_on(600))?;
    // Nothing but the node that came back.
    crossing.spread(&[0])?;
    running.iter().try_for_each(|load| load.go_on(300))?;

    for ((load, plan), before) in running.into_iter().zip(&plans).zip(&before) {
        let report = load.finish()?;
        let moved = moved(before, &report);
        ensure!(
            report.moved == 0 && moved.is_empty(),
            "{} sessions moved: {}",
            report.moved,
            moved.join("; ")
        );
        // What was on its way through the node when it died: a connection of each thread at most.
        let most = plan.threads as u64;
        let failures = report.failures.join("; ");
        ensure!(report.failed <= most, "{} of {} failed: {failures}", report.failed, report.requests);
    }
    Ok(())
}

/// A SYN that one node answers and a request that goes to the other one: both make and know the same cookies.
#[test]
fn namespace_cluster_shares_syn_cookies() -> Result<()> {
    let crossing = Crossing::new(2)?;
    crossing.spread(&[0])?;
    let _nodes = pair(&crossing, "")?;
    let clients = crossing.clients(8);
    crossing.client.inside(|| {
        let open: Vec<TcpStream> = clients
            .iter()
            .map(|_| TcpStream::connect_timeout(&cookies(), Duration::from_secs(5)).context("the handshake"))
            .collect::<Result<_>>()?;
        crossing.spread(&[1])?;
        // Resilient groups move what has been idle for a second.
        std::thread::sleep(Duration::from_secs(3));
        for mut stream in open {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(
                b"GET /whoami HTTP/1.1\r\nHost: t\r\nCookie: SESS=abc\r\nConnection: close\r\n\r\n",
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        Ok(())
    })
}

/// A client comes back from the same port: one node answers its SYN, and its request goes to another one, which remembers the
/// connection before.
#[test]
fn namespace_cluster_tells_a_new_connection_from_the_last_of_its_port() -> Result<()> {
    /// Whence it comes.
    const PORT: u16 = 40_000;
    let crossing = Crossing::new(2)?;
    crossing.reshuffle(&[1])?;
    let _nodes = pair(&crossing, "")?;
    let client = SocketAddr::new(crossing.clients(1)[0], PORT);
    crossing.client.inside(|| {
        load::once_from(cookies(), client, || Ok(()))?;
        crossing.reshuffle(&[0])?;
        load::once_from(cookies(), client, || crossing.reshuffle(&[1]))
            .context("the request at the other node")
            .map(drop)
    })
}

/// What one node binds, the other one lists, and what an administrator deletes on one goes from both.
#[test]
fn namespace_cluster_sessions_are_the_same_on_any_node() -> Result<()> {
    let crossing = Crossing::new(2)?;
    crossing.spread(&[0])?;
    let nodes = pair(&crossing, "")?;
    let client = crossing.clients(1)[0];
    load::once(&crossing.client, direct(), client)?;
    load::once(&crossing.client, direct(), client)?;
    let name = client.to_string();
    let shown = eventually(SOON, || nodes[1].ask(&["sessions", "show", "direct", &name]))?;
    let here = nodes[0].ask(&["sessions", "show", "direct", &name])?;
    ensure!(shown["backend"] == here["backend"], "{here:#} {shown:#}");
    nodes[1].ctl(&["sessions", "delete", "direct", &name])?;
    for node in &nodes {
        eventually(SOON, || {
            ensure!(node.ask(&["sessions", "show", "direct", &name]).is_err(), "it is still there");
            Ok(())
        })?;
    }
    Ok(())
}

/// The secret of the session-key hash changes under load: every session stays, whichever node it comes to, and whether it is used
/// meanwhile or not.
#[test]
fn namespace_cluster_changes_the_secret_of_session_keys() -> Result<()> {
    let crossing = Crossing::new(3)?;
    crossing.spread(&[0, 1])?;
    let nodes = pair(&crossing, "")?;
    let [_, before] = bound_elsewhere(&crossing, &nodes)?;
    let all = crossing.clients(CLIENTS);
    let busy = all[..all.len() / 2].to_vec();
    let plan = |clients| LoadPlan { threads: 2, ..LoadPlan::new(cookies(), clients).with_cookie("SESS") };
    let held = nodes.iter().map(bindings).collect::<Result<Vec<_>>>()?;
    let new_connections = Load::start(&crossing.client, &plan(busy.clone()))?;
    let kept = Load::start(&crossing.client, &plan(busy.clone()).kept_alive())?;
    let running = [new_connections, kept];
    running.iter().try_for_each(|load| load.reach(100))?;
    nodes[0].ctl(&["cluster", "rotate", "session-key"])?;
    // Both nodes bind the sessions that are used under their new keys.
    for (node, held) in nodes.iter().zip(&held) {
        eventually(CHANGED, || {
            let now = bindings(node)?;
            ensure!(now >= held + busy.len() as u64, "{now} bindings, {held} before");
            Ok(())
        })?;
    }
    // Those that were idle come to one node, and then to the other.
    let mut reports = Vec::new();
    for node in [0, 1] {
        crossing.spread(&[node])?;
        let load = Load::start(&crossing.client, &plan(all.clone()))?;
        load.go_round()?;
        reports.push(load.finish()?);
    }
    running.iter().try_for_each(|load| load.go_on(200))?;
    for load in running {
        reports.push(load.finish()?);
    }
    for report in reports {
        report.flawless(100)?;
        let moved = moved(&before, &report);
        ensure!(moved.is_empty(), "sessions moved: {}", moved.join("; "));
    }
    // A session that is deleted is gone under both its keys.
    let session = format!("cookie=s{}", all[0]);
    for node in &nodes {
        node.ask(&["sessions", "show", "shop", &session])?;
    }
    nodes[1].ctl(&["sessions", "delete", "shop", &session])?;
    for node in &nodes {
        eventually(SOON, || {
            ensure!(node.ask(&["sessions", "show", "shop", &session]).is_err(), "it is still there");
            Ok(())
        })?;
    }
    Ok(())
}

/// The way between the nodes is cut and heals; meanwhile both go on, and bind.
#[test]
fn namespace_cluster_heals_after_a_cut() -> Result<()> {
    let crossing = Crossing::new(3)?;
    crossing.spread(&[0, 1])?;
    let nodes = pair(&crossing, "")?;
    let before = bound_elsewhere(&crossing, &nodes)?;
    let plans = plans(&crossing);
    let running = plans.iter().map(|plan| Load::start(&crossing.client, plan)).collect::<Result<Vec<_>>>()?;
    running.iter().try_for_each(|load| load.reach(100))?;
    crossing.cut(0)?;
    let is_cut = |node: &Balancer| {
        let status = node.ask(&["cluster", "status"])?;
        ensure!(status["peers"][0]["connected"].is_null(), "{status:#}");
        ensure!(status["state"] == "ready", "a node without its peer goes on: {status:#}");
        Ok(())
    };
    nodes.iter().try_for_each(|node| eventually(SOON, || is_cut(node)))?;
    // Sessions that are new on one side.
    let fresh = crossing.clients_from(CLIENTS + 1, 20);
    for client in &fresh {
        load::once(&crossing.client, direct(), *client)?;
        load::once(&crossing.client, direct(), *client)?;
    }
    std::thread::sleep(CUT);
    running.iter().try_for_each(|load| load.go_on(200))?;
    crossing.heal(0)?;
    nodes.iter().try_for_each(agrees)?;
    running.iter().try_for_each(|load| load.go_on(200))?;
    for (load, before) in running.into_iter().zip(&before) {
        let report = load.finish()?;
        report.flawless(500)?;
        let moved = moved(before, &report);
        ensure!(moved.is_empty(), "sessions moved: {}", moved.join("; "));
    }
    for client in fresh {
        let shown = |node: &Balancer| node.ask(&["sessions", "show", "direct", &client.to_string()]);
        let (a, b) = (eventually(SOON, || shown(&nodes[0]))?, eventually(SOON, || shown(&nodes[1]))?);
        ensure!(a["backend"] == b["backend"], "{a:#} {b:#}");
    }
    Ok(())
}

/// Of three nodes one is cut off from the others, and comes back; meanwhile the router goes on sending connections to all of them.
#[test]
fn namespace_cluster_of_three_heals_after_one_was_cut_off() -> Result<()> {
    let crossing = Crossing::of(3, 3)?;
    crossing.spread(&[0, 1, 2])?;
    let start = |node| crossing.balance(node, &crossing.config(node, "", &services(&crossing, node)));
    let nodes = (0..3).map(start).collect::<Result<Vec<_>>>()?;
    unite(&nodes[0], &nodes[1])?;
    join(&nodes[0], &nodes[2])?;
    nodes.iter().try_for_each(agrees)?;
    let before = bound_elsewhere(&crossing, &nodes)?;
    let plans = plans(&crossing);
    let running = plans.iter().map(|plan| Load::start(&crossing.client, plan)).collect::<Result<Vec<_>>>()?;
    running.iter().try_for_each(|load| load.reach(100))?;
    crossing.cut(2)?;
    let alone = |node: &Balancer, others: usize| {
        let status = node.ask(&["cluster", "status"])?;
        let peers = status["peers"].as_array().context("no peers")?;
        let connected = peers.iter().filter(|peer| peer["connected"].is_object()).count();
        ensure!(connected == others && status["state"] == "ready", "{status:#}");
        Ok(())
    };
    for (node, others) in nodes.iter().zip([1, 1, 0]) {
        eventually(SOON, || alone(node, others))?;
    }
    // Sessions that are new on either side.
    let fresh = crossing.clients_from(CLIENTS + 1, 20);
    for client in &fresh {
        load::once(&crossing.client, direct(), *client)?;
        load::once(&crossing.client, direct(), *client)?;
    }
    let is_long = std::env::var_os("STICKLEBACK_LONG").is_some();
    std::thread::sleep(if is_long { CUT } else { SHORT_CUT });
    running.iter().try_for_each(|load| load.go_on(200))?;
    crossing.heal(2)?;
    nodes.iter().try_for_each(agrees)?;
    running.iter().try_for_each(|load| load.go_on(200))?;
    for (load, before) in running.into_iter().zip(&before) {
        let report = load.finish()?;
        report.flawless(500)?;
        let moved = moved(before, &report);
        ensure!(moved.is_empty(), "sessions moved: {}", moved.join("; "));
    }
    // The sides agree upon those that were new.
    for client in fresh {
        let shown = |node: &Balancer| {
            eventually(SOON, || node.ask(&["sessions", "show", "direct", &client.to_string()]))
        };
        let shown = nodes.iter().map(shown).collect::<Result<Vec<_>>>()?;
        ensure!(shown.iter().all(|one| one["backend"] == shown[0]["backend"]), "{shown:#?}");
    }
    Ok(())
}

/// Backend and number of moves of each session of the shop, by key.
type Places = BTreeMap<String, (String, u64)>;

fn places(node: &Balancer) -> Result<Places> {
    let page = node.ask(&["sessions", "list", "--service", "shop", "--limit", "1000"])?;
    let rows = page["sessions"].as_array().context("no sessions")?.iter().map(|row| {
        let text = |key: &str| row[key].as_str().map(str::to_owned).context("a name");
        Ok((text("key")?, (text("backend")?, row["generation"].as_u64().context("a number")?)))
    });
    rows.collect()
}

/// Waits until both nodes have the same, and it is so.
fn both_have(nodes: &[Balancer], what: &str, is_so: impl Fn(&Places) -> bool) -> Result<Places> {
    eventually(Duration::from_secs(60), || {
        let (a, b) = (places(&nodes[0])?, places(&nodes[1])?);
        ensure!(a == b && is_so(&a), "{what}: {a:?} and {b:?}");
        Ok(a)
    })
}

/// A backend is drained on all nodes by a word to one, its sessions leave it one by one at the deadline, and come back by command.
#[test]
fn namespace_cluster_drains_and_sends_back_under_load() -> Result<()> {
    /// Sessions that are moved a second.
    const RATE: usize = 10;
    let crossing = Crossing::new(3)?;
    crossing.spread(&[0, 1])?;
    let start = |node| {
        let text = crossing.config(node, "", &services(&crossing, node));
        let limits = format!("limits = {{ drain-rate = {RATE} }}\nname = \"lb");
        crossing.balance(node, &text.replacen("name = \"lb", &limits, 1))
    };
    let nodes = (0..NODES).map(start).collect::<Result<Vec<_>>>()?;
    unite(&nodes[0], &nodes[1])?;
    // The first of a session's order often is another one than who has it.
    let [_, answers] = bound_elsewhere(&crossing, &nodes)?;
    let before = both_have(&nodes, "bound", |all| all.len() == usize::from(CLIENTS))?;
    let of = |all: &Places, backend: &str| all.values().filter(|place| place.0 == backend).count();
    let leave = of(&before, "be2");
    ensure!(leave > 10 && of(&before, "be3") == 0, "{before:?}");

    let [_, by_cookie] = plans(&crossing);
    let load = Load::start(&crossing.client, &by_cookie)?;
    load.reach(100)?;
    let begun = std::time::Instant::now();
    nodes[1].ctl(&["drain", "shop", "be2", "--deadline", "1"])?;
    let away = both_have(&nodes, "moved", |all| of(all, "be2") == 0)?;
    // A tenth of a second's worth may be saved up.
    let least = Duration::from_secs(1) + Duration::from_secs_f64((leave - RATE / 10) as f64 / RATE as f64);
    ensure!(begun.elapsed() + Duration::from_millis(200) >= least, "{leave} left in {:?}", begun.elapsed());
    for (key, (backend, moves)) in &before {
        let expected = u64::from(backend == "be2");
        ensure!(*moves == 0 && away[key].1 == expected, "{key}: {} moves, {expected} expected", away[key].1);
        ensure!(backend == "be2" || away[key].0 == *backend, "{key} was with {backend}: {away:?}");
    }
    ensure!(of(&away, "be3") > 0, "some of them are be3's by their order: {away:?}");
    // Until both nodes have heard of a move, one of them may lead by the old binding.
    load.stays()?;

    nodes[0].ctl(&["undrain", "shop", "be2"])?;
    let wanted = |node: &Balancer| {
        let rows = node.ask(&["backends", "--service", "shop"])?;
        let rows = rows.as_array().context("no backends")?;
        ensure!(rows.iter().all(|row| row["admin"] == "enabled"), "{rows:#?}");
        Ok(())
    };
    nodes.iter().try_for_each(|node| eventually(SOON, || wanted(node)))?;
    ensure!(both_have(&nodes, "unchanged", |_| true)? == away, "somebody went back by himself");
    nodes[1].ctl(&["failback", "shop"])?;
    let back = both_have(&nodes, "back", |all| of(all, "be2") == leave)?;
    for (key, (backend, _)) in &before {
        let expected = (backend.clone(), if backend == "be2" { 2 } else { 0 });
        ensure!(back[key] == expected, "{key}: {:?}, {expected:?} expected", back[key]);
    }
    load.stays()?;
    let report = load.finish()?;
    report.answered(500)?;
    let elsewhere = moved(&answers, &report);
    ensure!(elsewhere.is_empty(), "not where they began: {elsewhere:#?}");
    Ok(())
}
