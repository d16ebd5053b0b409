//! Sessions leave a backend that is drained, and come back when they are told to.

use super::cluster::DOWN;
use super::*;
use lb_core::health::State;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(30);
const SESSIONS: u32 = 2_500;
/// Sessions a second.
const RATE: &str = "[node]\nlimits = { drain-rate = 1000 }\n";

/// Backends of all sessions, and how often each moved, by key.
pub(super) async fn sessions(rig: &Rig) -> Vec<(String, String, u64)> {
    let page = rig.json("sessions list --service web --limit 10000").await;
    let mut rows: Vec<_> = page["sessions"].as_array().unwrap().iter().map(row).collect();
    rows.sort();
    rows
}

fn row(row: &Value) -> (String, String, u64) {
    let text = |key: &str| row[key].as_str().unwrap().to_owned();
    (text("key"), text("backend"), row["generation"].as_u64().unwrap())
}

pub(super) async fn wait_until(rig: &Rig, wanted: impl Fn(&[(String, String, u64)]) -> bool) {
    let found = async {
        while !wanted(&sessions(rig).await) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, found).await.expect("in time");
}

#[tokio::test]
async fn sessions_leave_at_the_deadline_and_no_faster_than_they_may_and_come_back_by_command() {
    let (slot, generation) = place("be2").await;
    let all: Vec<_> = (0..SESSIONS).map(|n| (0x0a00_0000 + n, slot, generation)).collect();
    let rig = Rig::with(&CONFIG.replacen("[node]\n", RATE, 1), &all, Faults::default()).await;
    // Without a deadline nothing moves.
    rig.lbctl("drain web be2").await.unwrap();
    sleep(Duration::from_millis(1_500)).await;
    assert!(sessions(&rig).await.iter().all(|(_, backend, _)| backend == "be2"));

    let begun = Instant::now();
    let row = rig.json("drain web be2 --wait --deadline 1").await;
    // A tenth of a second's worth may be saved up.
    let least = Duration::from_secs(3);
    assert!(begun.elapsed() >= least, "{SESSIONS} sessions left within {:?}", begun.elapsed());
    assert_eq!((&row["admin"], &row["state"]), (&Value::from("disabled"), &Value::from("down")));
    let left = sessions(&rig).await;
    assert!(left.iter().all(|(_, backend, moved)| backend == "be1" && *moved == 1), "{:?}", left[0]);

    rig.lbctl("undrain web be2").await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(sessions(&rig).await, left, "nobody goes back by itself");
    let begun = Instant::now();
    rig.lbctl("failback web").await.unwrap();
    // Its weight is three of four, so about 1,875 belong there.
    wait_until(&rig, |rows| rows.iter().filter(|(_, backend, _)| backend == "be2").count() > 1_600).await;
    assert!(begun.elapsed() >= Duration::from_millis(1_300), "they went back within {:?}", begun.elapsed());
    let error = rig.lbctl("failback wep").await.unwrap_err();
    assert!(error.contains("did you mean web?"), "{error}");
}

#[tokio::test]
async fn the_end_of_a_drain_is_of_one_backend_alone() {
    let (one, two) = (place("be1").await, place("be2").await);
    let all = [(0x0a00_0007, one.0, one.1), (0x0a00_0008, two.0, two.1)];
    let third = "[[service.backend]]\nname = \"be3\"\naddress = \"10.1.0.13\"\nport = 8080\n\n[[service]]\nname = \"dns\"";
    let text = CONFIG.replacen("[[service]]\nname = \"dns\"", third, 1);
    let rig = Rig::with(&text, &all, Faults::default()).await;
    rig.lbctl("drain web be1").await.unwrap();
    rig.lbctl("drain web be2 --deadline 0").await.unwrap();
    wait_until(&rig, |rows| rows[1].1 == "be3").await;
    assert_eq!(sessions(&rig).await[0].1, "be1", "it drains without a deadline");
    let load = rig.client.get::<Value>("/v1/backends/web/be2/load").await.unwrap();
    assert_eq!((&load["sessions"], &load["moving_per_second"]), (&Value::from(0), &Value::from(10_000)));
}

#[tokio::test]
async fn who_waits_for_a_drain_is_told_that_somebody_has_called_it_off() {
    let (slot, generation) = place("be1").await;
    let rig = Rig::with(CONFIG, &[(0x0a00_0007, slot, generation)], Faults::default()).await;
    let wait = rig.lbctl("drain web be1 --wait --deadline 3600");
    let call_off = async {
        while rig.client.get::<Value>("/v1/backends/web/be1/load").await.unwrap()["draining"] != true {
            sleep(Duration::from_millis(10)).await;
        }
        rig.lbctl("undrain web be1").await
    };
    let (waited, called_off) = tokio::join!(wait, call_off);
    called_off.unwrap();
    let error = waited.unwrap_err();
    assert!(error.contains("backend be1 of service web: it does not drain any more"), "{error}");
    assert!(
        rig.json("backends --service web").await[0]["admin"] == "enabled",
        "it was disabled all the same"
    );
}

/// Where `COUNT` sessions of `be2` are after it was down and has come back, on a daemon with these words for `web`.
async fn after_a_failure(lines: String) -> Rig {
    const COUNT: u32 = 40;
    let (slot, generation) = place("be2").await;
    // They live for an hour of two: their last packet came an hour ago.
    let all: Vec<_> = (0..COUNT).map(|n| (0x0a00_0000 + n, slot, generation)).collect();
    let rig =
        Rig::with(&CONFIG.replacen("affinity = \"source-ip\"\n", &lines, 1), &all, Faults::default()).await;
    rig.finds(DOWN).await;
    wait_until(&rig, |rows| rows.iter().all(|row| row.1 == "be1" && row.2 == 1)).await;
    rig.finds(State::Up).await;
    rig
}

/// How many have gone back.
fn home(rows: &[(String, String, u64)]) -> usize {
    rows.iter().filter(|row| row.1 == "be2" && row.2 == 2).count()
}

#[tokio::test]
async fn sessions_go_back_by_themselves_when_they_are_idle_and_it_is_wanted() {
    let lines = |idle: &str| {
        let health = match idle {
            "" => "health = \"tcp\"".to_owned(),
            idle => format!("health = {{ kind = \"tcp\", failback = \"when-idle\", idle = \"{idle}\" }}"),
        };
        format!("affinity = \"source-ip\"\nlifetime = \"2h\"\n{health}\n")
    };
    let (idle, busy, never) = tokio::join!(
        after_a_failure(lines("30m")),
        after_a_failure(lines("90m")),
        after_a_failure(lines(""))
    );
    // Looked for every ten seconds; the weight of its first is three of four.
    wait_until(&idle, |rows| home(rows) > 20).await;
    let rows = sessions(&idle).await;
    assert!(rows.iter().all(|row| (row.1 == "be2") == (row.2 == 2)), "{rows:?}");
    sleep(Duration::from_secs(11)).await;
    assert_eq!(home(&sessions(&busy).await), 0, "they have been idle for an hour, not for 90 minutes");
    assert_eq!(home(&sessions(&never).await), 0);
}

#[tokio::test]
async fn sessions_by_learnt_cookies_go_back_to_whoever_set_them() {
    let cookie = |rest: &str| format!("affinity = {{ kind = \"http-cookie\", cookie = \"SESS\"{rest} }}\n");
    let learnt = after_a_failure(cookie("")).await;
    // By the order a fourth of them would not.
    learnt.lbctl("failback web").await.unwrap();
    wait_until(&learnt, |rows| home(rows) == rows.len()).await;
    let idle = "health = { kind = \"tcp\", failback = \"when-idle\", idle = \"30m\" }\n";
    let idle = after_a_failure(cookie("") + "lifetime = \"2h\"\n" + idle).await;
    wait_until(&idle, |rows| home(rows) == rows.len()).await;
    let bound = after_a_failure(cookie(", learn = false")).await;
    bound.lbctl("failback web").await.unwrap();
    wait_until(&bound, |rows| home(rows) > 20).await;
}
