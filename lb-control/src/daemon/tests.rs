//! The API, the command line and the reconciler together, over a real socket; only the packets are missing.

use super::configuration::{Applied, Loaded, Source, note_loaded};
use super::inherit::Inheritance;
use super::supervisor::{Signals, Supervisor};
use super::{member, orders, quorum};
use crate::admin::client::{Client, ClientError};
use crate::admin::row::{BackendRow, ReloadState, StatusRow};
use crate::admin::{self, Context, EventLog, Facts, Listener, Order, openapi, row};
use crate::cli::args::Lbctl;
use crate::cli::table::Look;
use crate::dataplane::chaos::{Chaos, Faults};
use crate::dataplane::clock::monotonic_ns;
use crate::dataplane::memory::Memory;
use crate::dataplane::{Operation, Sizes};
use crate::reconcile::{self, Handle, HopChange, ResolvedHop};
use crate::webhook::Webhook;
use clap::Parser;
use lb_common::abi::{BindingEvent, BindingEventKind, BindingKey, BindingWord, Hop, Mac};
use lb_core::pool::layout::arena_chunks;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

mod cluster;
mod drain;
mod steering;

const CONFIG: &str = r#"
[node]
bindings = 4096
flows = 1024
session-secret = "000102030405060708090a0b0c0d0e0f"

[[service]]
name = "web"
id = 7
address = "10.99.0.1"
port = 80
mode = "nat"
affinity = "source-ip"

[[service.backend]]
name = "be1"
address = "10.1.0.11"
port = 8080

[[service.backend]]
name = "be2"
address = "10.1.0.12"
port = 8080
weight = 3

[[service]]
name = "dns"
id = 8
address = "fd99::53"
port = 53
protocol = "udp"
mode = "l2"
affinity = "none"

[[service.backend]]
name = "ns1"
address = "fd01::1"
"#;

/// A daemon without a kernel: everything but the data plane, the network and the signals is real.
struct Rig {
    dir: TempDir,
    reconciler: Handle,
    client: Client,
    events: Arc<EventLog>,
    _tasks: JoinSet<()>,
}

impl Rig {
    async fn start() -> Self {
        Self::over(&[], Faults::default()).await
    }

    /// A daemon that finds these sessions of service `web`: client, backend slot and its generation.
    async fn over(sessions: &[(u32, u16, u16)], faults: Faults) -> Self {
        Self::with(CONFIG, sessions, faults).await
    }

    /// The same with a configuration.
    async fn with(config: &str, sessions: &[(u32, u16, u16)], faults: Faults) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lb.toml");
        std::fs::write(&file, config).unwrap();
        let state_dir = Some(dir.path().join("state"));
        let applied = Applied::default();
        let source = Source { file: file.clone(), interfaces: vec![], state_dir, preparation: None, applied };
        let Loaded { desired, daemon, read } = source.load().unwrap();

        let sizes = Sizes { bindings: 4096, flows: 1024, arena: arena_chunks(&desired).unwrap(), holds: 64 };
        let mut memory = Memory::new(sizes);
        for (client, slot, generation) in sessions {
            let word = BindingWord::new(*slot, *generation, 0);
            memory.bind(BindingKey::new(7, u64::from(*client)), word, monotonic_ns() + 3_600_000_000_000);
        }
        let mut plane = Chaos::new(memory);
        plane.set_faults(faults);
        let (reconciler, _thread) = reconcile::spawn(Box::new(plane), None).unwrap();

        let events = Arc::new(EventLog::default());
        reconciler.apply(desired).await.unwrap();
        source.applied.set(read);
        let cluster = member::open(&daemon, &reconciler).await.unwrap();
        let mut tasks = JoinSet::new();
        quorum::start(&reconciler, &cluster, &mut tasks);
        orders::start(&reconciler, &cluster, &mut tasks);

        let (facts, told) = watch::channel(Facts {
            started: Instant::now(),
            config: file,
            interfaces: vec![],
            pin_root: PathBuf::from("/nowhere"),
            reload: ReloadState::Current { unix_seconds: 0 },
            reloads: admin::Reloads::default(),
            warnings: vec![],
        });
        note_loaded(&facts);
        let (orders, mut ordered) = mpsc::channel::<Order>(4);
        let context = Context {
            reconciler: reconciler.clone(),
            orders,
            facts: told,
            cluster: cluster.clone(),
            events: Arc::clone(&events),
            webhook: Webhook::none(),
        };
        let socket = dir.path().join("lbd.sock");
        let listener = Listener::bind(&socket, None).unwrap();
        let vips = Mutex::new(None);
        let inheritance = Inheritance::start(&reconciler, &cluster, &mut tasks);
        let supervisor = Supervisor {
            source,
            daemon,
            facts,
            reconciler: reconciler.clone(),
            cluster,
            inheritance,
            vips,
            checks: None,
        };
        tokio::spawn(async move {
            let mut signals = Signals::listen().unwrap();
            supervisor.supervise(&mut signals, &mut ordered).await
        });
        tokio::spawn(listener.serve(admin::router(context), std::future::pending()));
        Self { dir, reconciler, client: Client::new(socket), events, _tasks: tasks }
    }

    /// Runs `lbctl` with the words of `line`.
    async fn lbctl(&self, line: &str) -> Result<String, String> {
        let socket = self.client.socket().display().to_string();
        let words = ["lbctl", "--socket", &socket].into_iter().chain(line.split_whitespace());
        let args = Lbctl::try_parse_from(words).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        let done = crate::cli::run(args, Look::PLAIN, &mut out).await;
        let text = String::from_utf8(out).unwrap();
        done.map(|()| text.clone()).map_err(|error| format!("{text}{error}"))
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.lbctl(&format!("-o json {line}")).await.unwrap()).unwrap()
    }

    async fn resolve(&self, address: &str) {
        let hop = Hop { destination: Mac([2, 0, 0, 0, 0, 11]), ifindex: 1, mtu: 1500, ..Hop::default() };
        let way = ResolvedHop { hop, source: None, vlan: None };
        let change = HopChange { address: address.parse().unwrap(), hop: Some(way) };
        self.reconciler.hop(change).await.unwrap();
    }

    fn rewrite(&self, change: impl FnOnce(&str) -> String) {
        std::fs::write(self.dir.path().join("lb.toml"), change(CONFIG)).unwrap();
    }
}

#[tokio::test]
async fn status_services_and_backends() {
    let rig = Rig::start().await;
    rig.resolve("10.1.0.11").await;
    let status: StatusRow = rig.client.get("/v1/status").await.unwrap();
    assert_eq!((status.services, status.backends), (2, 3));
    assert_eq!((status.hops.resolved, status.hops.unresolved), (1, 2));
    assert!(matches!(status.reload, ReloadState::Current { .. }));
    let text = rig.lbctl("status").await.unwrap();
    assert!(text.contains("lb.toml: current"), "{text}");

    let services = rig.json("services").await;
    assert_eq!(services.as_array().unwrap().len(), 2);
    let web = services.as_array().unwrap().iter().find(|s| s["name"] == "web").unwrap();
    assert_eq!(web["affinity"], "source-ip");
    assert_eq!(web["traffic"]["packets"], 0);

    let text = rig.lbctl("backends --service web").await.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].contains("02:00:00:00:00:0b lo") && lines[2].contains("unresolved"), "{text}");
    let column = lines[0].find("STATE").unwrap();
    assert!(lines[1..].iter().all(|line| line[column..].starts_with("up")), "columns line up:\n{text}");
}

#[tokio::test]
async fn drain_weight_and_back() {
    let rig = Rig::start().await;
    let row = rig.json("drain web be2").await;
    assert_eq!(
        (&row["state"], &row["admin"], &row["configured_admin"]),
        (&Value::from("draining"), &Value::from("draining"), &Value::from("enabled"))
    );
    assert!(rig.lbctl("backends").await.unwrap().contains("draining*"));
    let row = rig.json("undrain web be2").await;
    assert_eq!((&row["state"], &row["configured_admin"]), (&Value::from("up"), &Value::Null));
    let row = rig.json("weight web be2 0").await;
    assert_eq!(
        (&row["state"], &row["weight"], &row["configured_weight"]),
        (&Value::from("draining"), &Value::from(0), &Value::from(3))
    );
    let row = rig.json("weight web be2 3").await;
    assert_eq!(row["configured_weight"], Value::Null, "what the file says is no override");
}

#[tokio::test]
async fn unknown_names_are_suggested() {
    let rig = Rig::start().await;
    for (line, expected) in [
        ("backends --service wbe", "service wbe: no such service\n  expected: one of"),
        ("drain web be3", "backend be3 of service web: no such backend"),
        ("weight wen be1 1", "did you mean web?"),
        ("undrain web be11", "did you mean be1?"),
        ("sessions show we 10.0.0.1", "did you mean web?"),
        ("sessions list --service wep", "did you mean web?"),
        ("sessions show web zz", "a client address (10.0.0.7) or a session key in hexadecimal"),
        ("sessions show dns fd00::1", "does not key by client address"),
        ("sessions delete web 10.0.0.9", "no such session"),
        ("sessions pin web 10.0.0.9 be9", "no such backend"),
        ("sessions pin web 10.0.0.9 be1 --lifetime 9000d", "to a year"),
        ("flows --service wep", "did you mean web?"),
    ] {
        let error = rig.lbctl(line).await.unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
        assert!(error.contains("hint: "), "{line}: {error}");
    }
}

/// Slot and generation that backends of `web` get in a fresh data plane.
async fn place(name: &str) -> (u16, u16) {
    let view = Rig::start().await.reconciler.view().await.unwrap();
    let web = view.services.iter().find(|s| s.spec.name == "web").unwrap();
    let backend = web.backends.iter().find(|b| b.spec.name == name).unwrap();
    (backend.slot, backend.generation)
}

#[tokio::test]
async fn sessions_are_listed_filtered_shown_and_deleted() {
    let (one, two) = (place("be1").await, place("be2").await);
    let sessions = [(0x0a00_0007, one.0, one.1), (0x0a00_0008, two.0, two.1), (0x0a00_0009, two.0, two.1)];
    let rig = Rig::over(&sessions, Faults::default()).await;
    let keys = |page: &Value| -> Vec<String> {
        let rows = page["sessions"].as_array().unwrap().iter();
        rows.map(|row| row["client"].as_str().unwrap().to_owned()).collect()
    };
    let mut all = keys(&rig.json("sessions list").await);
    all.sort();
    assert_eq!(all, ["10.0.0.7", "10.0.0.8", "10.0.0.9"]);
    assert_eq!(keys(&rig.json("sessions list --service web --backend be1").await), ["10.0.0.7"]);
    assert_eq!(keys(&rig.json("sessions list --client 10.0.0.8").await), ["10.0.0.8"]);
    assert!(keys(&rig.json("sessions list --client 10.0.0.8 --backend be1").await).is_empty());
    let page = rig.json("sessions list --limit 2").await;
    assert_eq!((keys(&page).len(), &page["truncated"]), (2, &Value::from(true)));
    assert!(rig.lbctl("sessions list --limit 2").await.unwrap().contains("2 shown, there are more"));

    let row = rig.json("sessions show web 10.0.0.7").await;
    let mut by_key = rig.json("sessions show web 0x000000000a000007").await;
    // A second may pass between the two.
    by_key["expires_in_seconds"] = row["expires_in_seconds"].clone();
    assert_eq!(row, by_key);
    assert_eq!((&row["backend"], &row["key"]), (&Value::from("be1"), &Value::from("0x000000000a000007")));
    rig.lbctl("sessions delete web 10.0.0.7").await.unwrap();
    assert!(rig.lbctl("sessions show web 10.0.0.7").await.unwrap_err().contains("no such session"));
}

#[tokio::test]
async fn a_session_is_pinned_to_a_backend_whether_it_was_there_or_not() {
    let (one, two) = (place("be1").await, place("be2").await);
    let rig = Rig::over(&[(0x0a00_0007, one.0, one.1)], Faults::default()).await;
    let row = rig.json("sessions pin web 10.0.0.7 be2 --lifetime 2h").await;
    let expected = [Value::from("be2"), Value::from(1), Value::from(true), Value::from(two.0)];
    assert_eq!(["backend", "generation", "pinned", "slot"].map(|key| row[key].clone()), expected);
    assert!(row["expires_in_seconds"].as_u64().is_some_and(|left| (7_100..=7_200).contains(&left)), "{row}");
    assert_eq!(rig.json("sessions show web 10.0.0.7").await["backend"], "be2");
    let new = rig.json("sessions pin web 0x0a000009 be1").await;
    assert_eq!((&new["backend"], &new["generation"]), (&Value::from("be1"), &Value::from(0)));
    let text = rig.lbctl("sessions pin web 10.0.0.9 be2").await.unwrap();
    assert!(text.contains("be2"), "{text}");
}

#[tokio::test]
async fn binding_events_are_shown_by_name() {
    let rig = Rig::start().await;
    let (slot, generation) = place("be1").await;
    let event = BindingEvent {
        session: 0x0a00_0007,
        service: 7,
        kind: BindingEventKind::Made as u32,
        word: BindingWord::new(slot, generation, 0).0,
        expires: 0,
    };
    rig.events.note(event, 3_661);
    rig.events.note(BindingEvent { kind: 99, service: 99, ..event }, 3_662);
    let events = rig.json("events").await;
    let shown = |i: usize| ["kind", "service", "client", "backend"].map(|key| events[i][key].clone());
    assert_eq!(shown(0), ["made", "web", "10.0.0.7", "be1"].map(Value::from));
    assert_eq!(shown(1), [Value::from("unknown"), Value::from("0x00000063"), Value::Null, Value::Null]);
    let text = rig.lbctl("events --service web").await.unwrap();
    assert!(text.lines().count() == 2 && text.contains("01:01:01"), "{text}");
    assert!(rig.lbctl("events --service dns").await.unwrap().starts_with("No events"));
}

#[tokio::test]
async fn explain_follows_binding_order_and_overrides() {
    let (slot, generation) = place("be2").await;
    let rig = Rig::over(&[(0x0a00_0007, slot, generation)], Faults::default()).await;
    for address in ["10.1.0.11", "10.1.0.12"] {
        rig.resolve(address).await;
    }
    let line = "explain --src 10.0.0.7:40000 --dst 10.99.0.1:80";
    let told = rig.json(line).await;
    assert_eq!(
        (&told["verdict"]["verdict"], &told["verdict"]["backend"]),
        (&Value::from("forward"), &Value::from("be2"))
    );
    rig.lbctl("sessions delete web 10.0.0.7").await.unwrap();
    rig.lbctl("drain web be2").await.unwrap();
    let text = rig.lbctl(line).await.unwrap();
    assert!(
        text.contains("a new session goes to the first backend of its order that takes sessions"),
        "{text}"
    );
    assert!(text.contains("Verdict: to backend be1 (10.1.0.11) of service web, by nat"), "{text}");
    let udp = rig.json("explain --src [fd00::7]:40000 --dst [fd99::53]:53 --proto udp").await;
    assert_eq!(udp["verdict"]["outcome"], "no-hop");
    let none = rig.json("explain --src 10.0.0.7:40000 --dst 10.99.0.1:81").await;
    assert_eq!(none["verdict"]["outcome"], "not-ours");
    let mixed = rig.lbctl("explain --src 10.0.0.7:1 --dst [fd99::53]:53").await.unwrap_err();
    assert!(mixed.contains("addresses of one family"), "{mixed}");
}

/// Two services whose cookies name servers under a MAC.
const SEALED: &str = r#"
[[service]]
name = "shop"
address = "10.99.0.1"
port = 8080
mode = "nat"
affinity = { kind = "http-cookie", cookie = "JSESSIONID", read = "pair", delimiter = "!", segment = 2 }
pool = "shops"

[[service]]
name = "route"
address = "10.99.0.1"
port = 8081
mode = "nat"
affinity = { kind = "http-cookie", cookie = "ROUTE", read = "sealed-route" }
pool = "shops"

[[pool]]
name = "shops"
backend = [
    { name = "s1", address = "10.1.0.21" },
    { name = "s2", address = "10.1.0.22" },
    { name = "s3", address = "10.1.0.23", route = "third" },
]
"#;

#[tokio::test]
async fn sealed_segments_name_their_backends_while_their_key_lasts() {
    let rig = Rig::start().await;
    let (old, new) = (
        "{ id = 3, key = \"000102030405060708090a0b0c0d0e0f\" }",
        "{ id = 4, key = \"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff\" }",
    );
    let keys = async |keys: String| {
        let with_keys = format!("[node]\nsegment-key = [{keys}]");
        rig.rewrite(|text| text.replace("[node]", &with_keys) + SEALED);
        rig.lbctl("reload").await.unwrap();
    };
    keys(old.to_owned()).await;
    for address in ["10.1.0.21", "10.1.0.22", "10.1.0.23"] {
        rig.resolve(address).await;
    }
    let goes_to = async |port: u16, cookie: String| {
        let line = format!("explain --src 10.0.0.7:40000 --dst 10.99.0.1:{port} --cookie {cookie}");
        let told = rig.json(&line).await;
        let forged = told.to_string().contains("segment-forged");
        (told["verdict"]["backend"].as_str().unwrap().to_owned(), forged)
    };
    let named = |name: &str| (name.to_owned(), false);
    let mut sealed = Vec::new();
    for (primary, secondary) in [("s1", "s2"), ("s2", "s1"), ("s3", "s1"), ("s2", "s3")] {
        let segment = rig.lbctl(&format!("seal shop {primary} {secondary}")).await.unwrap();
        let cookie = format!("4f1c!{}!more", segment.trim_end());
        assert_eq!(goes_to(8080, cookie.clone()).await, named(primary));
        sealed.push((8080, cookie, primary));
    }
    for backend in ["s1", "s3"] {
        let row = rig.json(&format!("seal route {backend}")).await;
        assert_eq!(
            (&row["cookie"], &row["delimiter"], &row["key"]),
            (&"ROUTE".into(), &Value::Null, &3.into())
        );
        sealed.push((8081, row["segment"].as_str().unwrap().to_owned(), backend));
    }
    // A new key is accepted, then used, and only then the old one goes.
    for order in [format!("{old}, {new}"), format!("{new}, {old}")] {
        keys(order).await;
        for (port, cookie, backend) in &sealed {
            assert_eq!(goes_to(*port, cookie.clone()).await, named(backend));
        }
    }
    let row = rig.json("seal shop s1 s2").await;
    assert_eq!((&row["key"], &row["place"]), (&4.into(), &2.into()));
    keys(new.to_owned()).await;
    assert_eq!(goes_to(8080, format!("x!{}", row["segment"].as_str().unwrap())).await, named("s1"));
    for (port, cookie, _) in &sealed {
        assert!(goes_to(*port, cookie.clone()).await.1, "{cookie} is believed without its key");
    }
    for (line, expected) in [
        ("seal shop s1", "primary and secondary"),
        ("seal route s1 s2", "one backend"),
        ("seal web be1", "sealed-route or pair"),
        ("seal shop s1 s1", "take another secondary"),
        ("seal shop s1 s9", "backend s9 of service shop: no such backend"),
        ("seal shp s1 s2", "did you mean shop?"),
    ] {
        let error = rig.lbctl(line).await.unwrap_err();
        assert!(error.contains(expected) && error.contains("hint: "), "{line}: {error}");
    }
}

#[tokio::test]
async fn reload_applies_a_good_file_and_refuses_a_bad_one() {
    let rig = Rig::start().await;
    rig.rewrite(|text| text.replace("weight = 3", "weight = 5"));
    let pending: row::DiffRow = rig.client.get("/v1/config/diff").await.unwrap();
    assert_eq!(pending.changes.len(), 1);
    let done = rig.json("reload").await;
    assert_eq!(done["changes"][0]["object"], "service web, backend be2: weight");
    assert_eq!(
        (&done["changes"][0]["before"], &done["changes"][0]["after"]),
        (&Value::from("3"), &Value::from("5"))
    );

    rig.rewrite(|text| text.replace("port = 80\n", "port = 80000\n"));
    let error = rig.lbctl("reload").await.unwrap_err();
    assert!(error.contains("lb.toml") && error.contains("80000"), "{error}");
    let status = rig.lbctl("status").await.unwrap();
    assert!(status.contains("REFUSED") && status.contains("80000"), "{status}");
    let backends: Vec<BackendRow> = rig.client.get("/v1/backends?service=web").await.unwrap();
    assert_eq!(backends[1].weight, 5, "what ran before goes on");

    rig.rewrite(str::to_owned);
    rig.lbctl("reload").await.unwrap();
    assert!(rig.lbctl("status").await.unwrap().contains("lb.toml: current"));
}

#[tokio::test]
async fn config_commands() {
    let rig = Rig::start().await;
    let file = rig.dir.path().join("new.toml");
    std::fs::write(&file, CONFIG.replace("be1", "be7")).unwrap();
    let name = file.display();
    let text = rig.lbctl(&format!("config diff {name}")).await.unwrap();
    assert!(text.contains("service web, backend be7") && text.contains("service web, backend be1"), "{text}");
    let old = rig.dir.path().join("lb.toml");
    rig.lbctl(&format!("config diff {} {name}", old.display())).await.unwrap();
    rig.lbctl(&format!("config check {name}")).await.unwrap();
    std::fs::write(&file, "[node]\nbindigs = 1\n").unwrap();
    for command in ["check", "diff"] {
        let error = rig.lbctl(&format!("config {command} {name}")).await.unwrap_err();
        assert!(error.contains("bindigs") && error.contains("bindings"), "{command}: {error}");
    }
    let shown = rig.lbctl("config show").await.unwrap();
    assert!(shown.contains("\"name\": \"web\"") && !shown.contains("secret"), "{shown}");
    assert!(rig.lbctl("config schema").await.unwrap().contains("\"service\""));
}

#[tokio::test]
async fn metrics_name_services_backends_and_outcomes() {
    let rig = Rig::start().await;
    let text = rig.client.text("/metrics").await.unwrap();
    for line in [
        "stickleback_service_packets_total{service=\"web\"} 0",
        "stickleback_backend_bytes_total{service=\"web\",backend=\"be1\"} 0",
        "stickleback_backend_state{service=\"web\",backend=\"be2\",state=\"up\"} 1",
        "stickleback_backend_weight{service=\"web\",backend=\"be2\"} 3",
        "stickleback_outcomes_total{outcome=\"no-backend\",drop=\"yes\"} 0",
        "stickleback_table_capacity{table=",
        "stickleback_hops{state=\"unresolved\"} 3",
        "stickleback_reconciler_applies_total{result=\"applied\"} 1",
        "stickleback_config_current 1",
        "stickleback_build_info{version=",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(text.matches("# TYPE stickleback_service_packets counter").count(), 1);
}

#[tokio::test]
async fn data_plane_failures_are_told() {
    let (slot, generation) = place("be1").await;
    let faults = Faults { kinds: vec![Operation::ApplyBindings], ..Faults::default() };
    let rig = Rig::over(&[(0x0a00_0007, slot, generation)], faults).await;
    let error = rig.lbctl("sessions delete web 10.0.0.7").await.unwrap_err();
    assert!(error.contains("was made to fail") && error.contains("hint: "), "{error}");
}

#[tokio::test]
async fn detach_ends_the_reconciler_and_says_so() {
    let rig = Rig::start().await;
    let refused = rig.lbctl("detach").await.unwrap_err();
    assert!(refused.contains("--yes"), "{refused}");
    assert!(rig.lbctl("detach --yes").await.unwrap().starts_with("Detached"));
    let error = rig.lbctl("services").await.unwrap_err();
    assert!(error.contains("the daemon is stopping"), "{error}");
}

#[tokio::test]
async fn wrong_requests_get_the_shape_of_errors() {
    let rig = Rig::start().await;
    for path in ["/v1/nothing", "/v1/sessions?limit=many", "/v1/backends?colour=red", "/v1/flows?state=odd"] {
        match rig.client.get::<Value>(path).await {
            Err(ClientError::Refused(body)) => assert!(!body.hint.is_empty(), "{path}: {body}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    let wrong = rig.client.send::<_, Value>(hyper::Method::PUT, "/v1/backends/web/be1/weight", &"x").await;
    assert!(matches!(wrong, Err(ClientError::Refused(_))), "{wrong:?}");
    let method = rig.client.send::<_, Value>(hyper::Method::POST, "/v1/services", &()).await;
    assert!(matches!(method, Err(ClientError::Refused(_))), "{method:?}");
}

#[tokio::test]
async fn every_described_path_is_served() {
    let rig = Rig::start().await;
    let described: Value = serde_json::from_str(&openapi()).unwrap();
    for (path, operations) in described["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            if path == "/v1/detach" {
                continue;
            }
            let concrete = path
                .replace("{service}", "web")
                .replace("{backend}", "be1")
                .replace("{key}", "10.0.0.1")
                .replace("{member}", "lb9")
                .replace("{secret}", "syn-cookie");
            let method = method.to_uppercase().parse().unwrap();
            if let Err(ClientError::Refused(body)) = rig.client.act(method, &concrete).await {
                assert!(
                    !body.error.contains("no such path") && !body.error.contains("no such method"),
                    "{body}"
                );
            }
        }
    }
}

#[tokio::test]
async fn top_prints_one_frame_without_a_terminal() {
    let rig = Rig::start().await;
    let text = rig.lbctl("top --interval 0.1").await.unwrap();
    assert!(text.contains("PACKETS/S") && text.contains("be2") && !text.contains('\x1b'), "{text}");
    let frame = rig.json("top --interval 0.1 --count 1 --service web").await;
    assert_eq!(frame["backends"].as_array().unwrap().len(), 2);
    assert_eq!(frame["services"][0]["packets_per_second"], 0.0);
}
