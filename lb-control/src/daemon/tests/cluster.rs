//! Two daemons in a cluster, by the commands that a person types.

use super::*;
use crate::cluster::keyring::SESSION_NOTICE;
use crate::loopback;
use crate::reconcile::{Health, HealthChange};
use lb_core::health::{State, Voice};
use std::net::UdpSocket;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(20);

/// A daemon that makes its own secrets and meets others on a port of its own.
pub(super) async fn node(name: &str) -> Rig {
    node_with(name, "").await
}

/// The same with lines for service `web`.
async fn node_with(name: &str, lines: &str) -> Rig {
    node_over(name, lines, "", &[]).await
}

/// The same with lines for the node, over these sessions of `web`.
pub(super) async fn node_over(name: &str, lines: &str, node: &str, sessions: &[(u32, u16, u16)]) -> Rig {
    let listen = UdpSocket::bind(loopback::any_port()).unwrap().local_addr().unwrap();
    let secret = "session-secret = \"000102030405060708090a0b0c0d0e0f\"\n";
    let cluster = format!("[cluster]\nname = \"{name}\"\nlisten = \"{listen}\"\n");
    let text = CONFIG.replace(secret, "").replacen("[[service]]", &format!("{cluster}\n[[service]]"), 1);
    let text =
        text.replacen("affinity = \"source-ip\"\n", &format!("affinity = \"source-ip\"\n{lines}\n"), 1);
    let text = text.replacen("[node]\n", &format!("[node]\n{node}\n"), 1);
    Rig::with(&text, sessions, Faults::default()).await
}

/// The second command, as the first one printed it.
pub(super) fn invitation(printed: &str) -> String {
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("lbctl "));
    line.unwrap_or_else(|| panic!("no command in {printed}")).to_owned()
}

/// Two nodes in two commands.
async fn pair() -> (Rig, Rig) {
    join(node("lb1").await, node("lb2").await).await
}

pub(super) async fn join(a: Rig, b: Rig) -> (Rig, Rig) {
    let command = invitation(&a.lbctl("cluster init").await.unwrap());
    b.lbctl(&command).await.unwrap();
    (a, b)
}

impl Rig {
    /// Waits until `lbctl backends` shows so of `be2` of `web`.
    pub(super) async fn sees(&self, what: impl Fn(&Value) -> bool) {
        let mut row = Value::Null;
        let waiting = async {
            loop {
                let rows = self.json("backends --service web").await;
                row = rows.as_array().unwrap().iter().find(|row| row["name"] == "be2").unwrap().clone();
                if what(&row) {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = timeout(SOON, waiting).await.is_ok();
        assert!(in_time, "{row:#}");
    }

    /// What its probes find of `be2` of `web`.
    pub(super) async fn finds(&self, state: State) {
        let health = Health { state, since: std::time::SystemTime::now(), reason: None };
        let change = HealthChange { service: "web".into(), backend: "be2".into(), health: Some(health) };
        self.reconciler.health(vec![change]).await.unwrap();
    }

    /// Waits until `lbctl cluster status` shows something.
    async fn shows(&self, what: impl Fn(&Value) -> bool) -> Value {
        let mut shown = Value::Null;
        let waiting = async {
            loop {
                shown = self.json("cluster status").await;
                if what(&shown) {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = timeout(SOON, waiting).await.is_ok();
        assert!(in_time, "{shown:#}");
        shown
    }

    /// Waits until the data plane is to have something.
    async fn wants(&self, what: impl Fn(&lb_core::pool::Desired) -> bool) {
        let waiting = async {
            while !self.reconciler.desired().await.unwrap().is_some_and(|desired| what(&desired)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, waiting).await.expect("in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_are_one_in_two_commands() {
    let (a, b) = (node("lb1").await, node("lb2").await);
    let alone = a.lbctl("cluster status").await.unwrap();
    assert!(alone.contains("in no cluster") && alone.contains("lbctl cluster init"), "{alone}");
    assert_eq!(a.json("status").await["cluster"], "alone");
    let before = a.reconciler.desired().await.unwrap().unwrap().node;
    assert_ne!(before.session_secret, b.reconciler.desired().await.unwrap().unwrap().node.session_secret);

    let command = invitation(&a.lbctl("cluster init").await.unwrap());
    assert!(b.lbctl(&command).await.unwrap().starts_with("Joined, as "));

    let connected = |shown: &Value| {
        shown["state"] == "ready"
            && shown["peers"].as_array().is_some_and(|peers| peers.len() == 1)
            && shown["peers"][0]["connected"].is_object()
            && shown["peers"][0]["vector"].as_array().is_some_and(|vector| !vector.is_empty())
    };
    let seen = a.shows(connected).await;
    assert_eq!((&seen["peers"][0]["name"], &seen["peers"][0]["role"]), (&"lb2".into(), &"node".into()));
    assert_eq!((&seen["node"]["name"], &seen["node"]["authority"]), (&"lb1".into(), &true.into()));
    let seen = b.shows(connected).await;
    assert_eq!((&seen["peers"][0]["name"], &seen["node"]["authority"]), (&"lb1".into(), &false.into()));
    let text = a.client.text("/metrics").await.unwrap();
    for line in [
        "stickleback_cluster_state{state=\"ready\"} 1",
        "stickleback_cluster_peers_connected 1",
        "stickleback_cluster_peer_connected{peer=\"lb2\",",
        "stickleback_cluster_peer_sent_bytes_total{peer=\"lb2\",",
        "stickleback_cluster_events_total{kind=\"own\"} ",
        "stickleback_cluster_convergence_seconds_bucket{le=\"0.05\"} ",
        "stickleback_cluster_convergence_seconds_count ",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let table = b.lbctl("cluster status").await.unwrap();
    assert!(table.contains("lb1") && table.contains("LAST HEARD") && table.contains("ready"), "{table}");
    assert!(b.lbctl("status").await.unwrap().contains("cluster"));

    // The second node takes the first one's secrets, and the first one keeps them.
    b.wants(|desired| desired.node.session_secret == before.session_secret).await;
    b.wants(|desired| desired.node.secrets == before.secrets).await;
    assert_eq!(a.reconciler.desired().await.unwrap().unwrap().node, before);
    // A reload changes nothing about that.
    b.lbctl("reload").await.unwrap();
    assert_eq!(b.reconciler.desired().await.unwrap().unwrap().node.session_secret, before.session_secret);
    let pending: row::DiffRow = b.client.get("/v1/config/diff").await.unwrap();
    assert!(pending.changes.is_empty(), "{pending:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_secrets_get_everywhere() {
    let (a, b) = pair().await;
    let before = a.reconciler.desired().await.unwrap().unwrap().node.secrets;
    a.lbctl("cluster rotate segment-mac").await.unwrap();
    for rig in [&a, &b] {
        rig.wants(|desired| desired.node.secrets.segment.len() == 2).await;
        let secrets = rig.reconciler.desired().await.unwrap().unwrap().node.secrets;
        assert_eq!(secrets.segment[1], before.segment[0], "the former one stays accepted");
        assert_eq!(secrets.syn_cookie, before.syn_cookie);
    }
    a.lbctl("cluster rotate syn-cookie").await.unwrap();
    b.wants(|desired| desired.node.secrets.syn_cookie_later.len() == 1).await;
    let refused = b.lbctl("cluster rotate syn-cookie").await.unwrap_err();
    assert!(refused.contains("where `lbctl cluster init` ran"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_of_session_keys_is_known_everywhere_before_it_is_used() {
    let (a, b) = pair().await;
    let of = |desired: &lb_core::pool::Desired| (desired.node.session_secret, desired.node.other_secret);
    let (former, none) = of(&a.reconciler.desired().await.unwrap().unwrap());
    assert_eq!(none, None);
    a.lbctl("cluster rotate session-key").await.unwrap();
    let mut next = None;
    for rig in [&a, &b] {
        rig.wants(|desired| desired.node.other_secret.is_some()).await;
        let (in_use, other) = of(&rig.reconciler.desired().await.unwrap().unwrap());
        assert_eq!(in_use, former, "not yet");
        assert_eq!(*next.get_or_insert(other), other, "the same everywhere");
    }
    let next = next.flatten().expect("known");
    for line in ["cluster rotate session-key", "cluster rotate session-key --force"] {
        let refused = a.lbctl(line).await.unwrap_err();
        assert!(refused.contains("would be lost"), "{line}: {refused}");
    }
    sleep(SESSION_NOTICE).await;
    for rig in [&a, &b] {
        rig.wants(|desired| of(desired) == (next, Some(former))).await;
        let pending: row::DiffRow = rig.client.get("/v1/config/diff").await.unwrap();
        assert!(pending.changes.is_empty(), "{pending:?}");
    }
    b.lbctl("reload").await.unwrap();
    assert_eq!(of(&b.reconciler.desired().await.unwrap().unwrap()), (next, Some(former)));
    a.lbctl("cluster rotate session-key").await.unwrap_err();
    a.lbctl("cluster rotate session-key --force").await.unwrap();
    b.wants(|desired| desired.node.session_secret == next && desired.node.other_secret != Some(former)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_could_not_be_read_are_tried_again() {
    let (a, b) = pair().await;
    a.shows(|shown| shown["peers"][0]["connected"].is_object()).await;
    let before = a.reconciler.desired().await.unwrap().unwrap().node.secrets;
    b.wants(|desired| desired.node.secrets == before).await;
    let file = |rig: &Rig| rig.dir.path().join("state/cluster/secrets.json");
    std::fs::remove_file(file(&b)).unwrap();
    std::fs::create_dir(file(&b)).unwrap();
    a.lbctl("cluster rotate segment-mac").await.unwrap();
    a.wants(|desired| desired.node.secrets.segment.len() == 2).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(b.reconciler.desired().await.unwrap().unwrap().node.secrets, before);
    std::fs::remove_dir(file(&b)).unwrap();
    std::fs::copy(file(&a), file(&b)).unwrap();
    b.wants(|desired| desired.node.secrets.segment.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_shut_out_and_says_so() {
    let (a, b) = pair().await;
    a.shows(|shown| shown["peers"][0]["connected"].is_object()).await;
    let itself = a.lbctl("cluster remove lb1").await.unwrap_err();
    assert!(itself.contains("cannot remove itself"), "{itself}");
    assert!(a.lbctl("cluster remove lb3").await.unwrap_err().contains("no member is called lb3"));
    assert!(b.lbctl("cluster remove lb1").await.unwrap_err().contains("where `lbctl cluster init` ran"));
    a.lbctl("cluster remove lb2").await.unwrap();
    a.shows(|shown| shown["peers"].as_array().is_some_and(Vec::is_empty)).await;
    b.shows(|shown| shown["state"] == "removed" && shown["peers"][0]["connected"].is_null()).await;
    assert!(b.lbctl("cluster status").await.unwrap().contains("REMOVED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_with_what_can() {
    let (a, b) = (node("lb1").await, node("lb2").await);
    for line in ["cluster token", "cluster remove lb2", "cluster rotate segment-mac"] {
        let error = a.lbctl(line).await.unwrap_err();
        assert!(error.contains("in no cluster") && error.contains("hint: "), "{line}: {error}");
    }
    let text = a.lbctl("cluster join sb1-00 127.0.0.1").await.unwrap_err();
    assert!(text.contains("no join token"), "{text}");
    let command = invitation(&a.lbctl("cluster init").await.unwrap());
    let twice = a.lbctl("cluster init").await.unwrap_err();
    assert!(twice.contains("already in a cluster"), "{twice}");
    // The token lets one machine in, and only one.
    b.lbctl(&command).await.unwrap();
    let c = node("lb3").await;
    let used = c.lbctl(&command).await.unwrap_err();
    assert!(used.contains("hint: "), "{used}");
    assert_eq!(c.json("cluster status").await["state"], "alone", "nothing is left of it");
    let next = invitation(&a.lbctl("cluster token --valid 10m").await.unwrap());
    c.lbctl(&next).await.unwrap();
    a.shows(|shown| shown["peers"].as_array().is_some_and(|peers| peers.len() == 2)).await;
    assert!(a.lbctl("cluster token --valid 0s").await.is_err());
    assert!(a.json("cluster token --role app").await["token"].as_str().unwrap().starts_with("sb1-"));
}

/// A daemon of a switch; it has no data plane, either.
async fn switch(name: &str) -> Rig {
    let plane = "\n[dataplane]\nkind = \"p4\"\nports = [{ interface = \"p1\", number = 1 }]\n";
    let listen = UdpSocket::bind(loopback::any_port()).unwrap().local_addr().unwrap();
    let text = format!("[cluster]\nname = \"{name}\"\nlisten = \"{listen}\"\n{plane}");
    Rig::with(&CONFIG.replacen("[[service]]", &format!("{text}\n[[service]]"), 1), &[], Faults::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_is_a_member_without_bindings_secrets_or_a_voice() {
    let (a, b) = pair().await;
    let s = switch("tor1").await;
    let alone = s.lbctl("cluster init").await.unwrap_err();
    assert!(alone.contains("made by one of its nodes"), "{alone}");
    let wrong = invitation(&a.lbctl("cluster token").await.unwrap());
    let refused = s.lbctl(&wrong).await.unwrap_err();
    assert!(refused.contains("--role switch"), "{refused}");
    let right = invitation(&a.lbctl("cluster token --role switch").await.unwrap());
    let refused = node("lb3").await.lbctl(&right).await.unwrap_err();
    assert!(refused.contains("--role node"), "{refused}");
    s.lbctl(&right).await.unwrap();
    let all_there = |shown: &Value| {
        let peers = shown["peers"].as_array().unwrap();
        shown["state"] == "ready"
            && peers.len() == 2
            && peers.iter().all(|peer| peer["connected"].is_object())
    };
    let shown = s.shows(all_there).await;
    assert_eq!(
        (&shown["node"]["bindings"], &shown["node"]["vector"]),
        (&Value::from(0), &serde_json::json!([]))
    );
    let of_switch = |shown: &Value| {
        let peers = shown["peers"].as_array().unwrap().clone();
        peers.into_iter().find(|peer| peer["name"] == "tor1")
    };
    let is_there = |peer: &Value| peer["connected"].is_object() && peer["role"] == "switch";
    let shown = a.shows(|shown| of_switch(shown).is_some_and(|peer| is_there(&peer))).await;
    let peer = of_switch(&shown).unwrap();
    assert_eq!((&peer["asked"], &peer["vector"]), (&Value::from(false), &serde_json::json!([])));
    // What is said of backends on a node holds on nodes, and a switch asks nobody.
    a.lbctl("drain web be2").await.unwrap();
    b.sees(|row| row["admin"] == "draining").await;
    s.sees(|row| row["admin"] == "enabled").await;
    // Its bindings are its own.
    assert_eq!(s.json("sessions list").await["sessions"], serde_json::json!([]));
}

pub(super) const DOWN: State = State::Down(Voice::Probe);

fn says(node: &str, serves: bool) -> Value {
    serde_json::json!([{ "node": node, "serves": serves }])
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_see_a_backend_otherwise_are_shown() {
    let (a, b) = pair().await;
    a.sees(|row| row["nodes"] == says("lb2", true)).await;
    a.finds(DOWN).await;
    a.sees(|row| row["state"] == "down" && row["nodes"] == says("lb2", true)).await;
    b.sees(|row| row["state"] == "up" && row["nodes"] == says("lb1", false)).await;
    let text = b.lbctl("backends").await.unwrap();
    assert!(text.contains("OTHER NODES") && text.contains("lb1: down"), "{text}");
    b.finds(DOWN).await;
    b.sees(|row| row["state"] == "down" && row["nodes"] == says("lb1", false)).await;
    a.sees(|row| row["nodes"] == says("lb2", false)).await;
    let text = b.lbctl("backends").await.unwrap();
    assert!(!text.contains("OTHER NODES"), "they agree: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_quorum_a_backend_is_down_when_most_nodes_say_so() {
    let quorum = "health = { kind = \"tcp\", quorum = true }";
    let (a, b) = join(node_with("lb1", quorum).await, node_with("lb2", quorum).await).await;
    a.sees(|row| row["nodes"] == says("lb2", true)).await;
    b.sees(|row| row["nodes"] == says("lb1", true)).await;
    a.finds(DOWN).await;
    b.sees(|row| row["nodes"] == says("lb1", false)).await;
    a.sees(|row| row["health"]["state"] == "down" && row["state"] == "up").await;
    b.finds(DOWN).await;
    a.sees(|row| row["state"] == "down").await;
    b.sees(|row| row["state"] == "down").await;
    // One of the two is not most of them.
    a.finds(State::Up).await;
    a.sees(|row| row["state"] == "up").await;
    b.sees(|row| row["state"] == "up" && row["health"]["state"] == "down").await;
    b.finds(State::Up).await;
    a.sees(|row| row["nodes"] == says("lb2", true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_moves_the_sessions_of_all_when_it_is_told_to() {
    let (slot, generation) = place("be2").await;
    let all: Vec<_> = (0..300).map(|n| (0x0a00_0000 + n, slot, generation)).collect();
    let rate = "limits = { drain-rate = 100 }";
    let (a, b) = join(node_over("lb1", "", rate, &all).await, node_over("lb2", "", rate, &[]).await).await;
    let on = |backend: &'static str, moved: u64| {
        move |rows: &[(String, String, u64)]| {
            rows.len() == 300 && rows.iter().all(|row| row.1 == backend && row.2 == moved)
        }
    };
    drain::wait_until(&b, on("be2", 0)).await;
    // Any node may be told, and it need not have bound them.
    let begun = Instant::now();
    b.lbctl("drain web be2 --deadline 0").await.unwrap();
    let load = b.client.get::<Value>("/v1/backends/web/be2/load").await.unwrap();
    assert_eq!(load["moving_per_second"], 100);
    drain::wait_until(&b, on("be1", 1)).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "they left within {:?}", begun.elapsed());
    drain::wait_until(&a, on("be1", 1)).await;

    b.lbctl("undrain web be2").await.unwrap();
    a.sees(|row| row["admin"] == "enabled").await;
    assert!(on("be1", 1)(&drain::sessions(&a).await), "nobody goes back by itself");
    let begun = Instant::now();
    a.lbctl("failback web").await.unwrap();
    // Its weight is three of four.
    let home =
        |rows: &[(String, String, u64)]| rows.iter().filter(|row| row.1 == "be2" && row.2 == 2).count();
    drain::wait_until(&a, |rows| home(rows) > 180).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "they went back within {:?}", begun.elapsed());
    sleep(Duration::from_secs(2)).await;
    let there = drain::sessions(&a).await;
    assert!(home(&there) < 270 && there.iter().all(|row| (row.1 == "be2") == (row.2 == 2)), "{there:?}");
    drain::wait_until(&b, |rows| *rows == *there).await;
}
