use super::*;
use lb_core::health::{Failback, Thresholds, Way};
use std::num::NonZero;

const MS: Duration = Duration::from_millis(1);

fn spec(interval: u32) -> Arc<HealthSpec> {
    let two = NonZero::new(2).expect("not zero");
    let policy = Policy {
        interval: MS * interval,
        fast: MS * 50,
        slow: MS * 1_000,
        timeout: MS * 200,
        rise: two,
        fall: two,
        jitter: 10,
    };
    let thresholds = Thresholds { minimum_healthy: 1, ejected: 50 };
    Arc::new(HealthSpec {
        check: Check::Tcp,
        policy,
        thresholds,
        port: 0,
        way: Way::Direct,
        quorum: false,
        failback: Failback::Never,
    })
}

fn wish(service: &str, backend: &str, last: u8, spec: &Arc<HealthSpec>) -> Wish {
    Wish {
        backend: named(service, backend),
        address: SocketAddr::from(([10, 0, 0, last], 80)),
        spec: Arc::clone(spec),
        was_down: false,
        path: None,
        clock: None,
    }
}

fn named(service: &str, backend: &str) -> Backend {
    Backend { service: service.into(), backend: backend.into() }
}

fn plan(wishes: Vec<Wish>) -> Plan {
    Plan::new(wishes).expect("TCP needs nothing")
}

/// Runs until `end`, every probe taking no time; answers the reports and how many probes there were.
fn run(
    schedule: &mut Schedule,
    (from, end): (Duration, Duration),
    result: impl Fn(SocketAddr) -> Result<(), Failure>,
) -> (Vec<Report>, usize) {
    let (mut now, mut reports, mut probes) = (from, Vec::new(), 0);
    while let Some(due) = schedule.next_due().filter(|&due| due <= end) {
        now = now.max(due);
        let job = schedule.begin(now).expect("due");
        assert!(schedule.begin(now).is_none_or(|other| other.id != job.id), "nobody twice at a time");
        reports.extend(schedule.finish(job.id, result(job.target.address), now));
        probes += 1;
    }
    (reports, probes)
}

#[test]
fn services_that_ask_the_same_share_their_probes_and_all_hear_the_news() {
    let mut schedule = Schedule::default();
    let spec = spec(400);
    let told = schedule.set(
        plan(vec![wish("web", "a", 1, &spec), wish("shop", "a", 1, &spec), wish("web", "b", 2, &spec)]),
        Duration::ZERO,
    );
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|report| report.sighting.as_ref().is_some_and(|s| s.state == State::New)));
    let dead = |address: SocketAddr| {
        if address.ip().to_string().ends_with('1') { Err(Failure::Refused) } else { Ok(()) }
    };
    let (reports, probes) = run(&mut schedule, (Duration::ZERO, MS * 4_000), dead);
    let down: Vec<&Backend> = reports
        .iter()
        .filter(|report| report.sighting.as_ref().is_some_and(|sighting| !sighting.state.is_healthy()))
        .map(|report| &report.backend)
        .collect();
    assert_eq!(down, [&named("web", "a"), &named("shop", "a")]);
    // b every 400 ms, a twice and then every second.
    assert!((12..=17).contains(&probes), "{probes}");
}

#[test]
fn a_reload_keeps_what_is_known_and_forgets_who_is_gone() {
    let mut schedule = Schedule::default();
    let (quick, lazy) = (spec(400), spec(5_000));
    schedule.set(plan(vec![wish("web", "a", 1, &quick), wish("web", "b", 2, &quick)]), Duration::ZERO);
    run(&mut schedule, (Duration::ZERO, MS * 2_000), |_| Err(Failure::Refused));
    let told = schedule.set(plan(vec![wish("web", "a", 1, &quick), wish("web", "b", 2, &quick)]), MS * 2_000);
    assert_eq!(told, [], "nothing is new");
    let told = schedule.set(plan(vec![wish("web", "a", 1, &lazy)]), MS * 2_000);
    let mut told: Vec<_> =
        told.into_iter().map(|r| (r.backend.backend, r.sighting.map(|s| s.state.is_healthy()))).collect();
    told.sort();
    assert_eq!(told, [("a".into(), Some(false)), ("b".into(), None)], "another policy is no new life");
    let (reports, _) = run(&mut schedule, (MS * 2_000, MS * 20_000), |_| Ok(()));
    assert!(reports.iter().all(|report| report.backend == named("web", "a")));
    assert_eq!(schedule.set(plan(Vec::new()), MS * 20_000).len(), 1);
    assert_eq!((schedule.next_due(), schedule.series.len(), schedule.by_question.len()), (None, 0, 0));
}

#[test]
fn a_result_that_comes_after_its_backend_has_gone_is_dropped() {
    let mut schedule = Schedule::default();
    let spec = spec(400);
    schedule.set(plan(vec![wish("web", "a", 1, &spec)]), Duration::ZERO);
    let due = schedule.next_due().expect("a is due");
    let job = schedule.begin(due).expect("due");
    schedule.set(plan(vec![wish("web", "b", 2, &spec)]), due);
    assert_eq!(schedule.finish(job.id, Err(Failure::Refused), due), []);
}

#[test]
fn a_hint_brings_the_turn_forward_once() {
    let mut schedule = Schedule::default();
    let spec = spec(60_000);
    schedule.set(plan(vec![wish("web", "a", 1, &spec)]), Duration::ZERO);
    let (_, probes) = run(&mut schedule, (Duration::ZERO, MS * 60_000), |_| Ok(()));
    assert_eq!(probes, 1);
    let now = MS * 61_000;
    for _ in 0..3 {
        assert_eq!(schedule.hint(&named("web", "a"), false, now), []);
    }
    assert_eq!(schedule.hint(&named("web", "nobody"), true, now), []);
    let (_, probes) = run(&mut schedule, (now, now + MS * 50_000), |_| Ok(()));
    assert_eq!(probes, 1, "stale turns are passed over");
    let told = schedule.hint(&named("web", "a"), true, now + MS * 50_000);
    assert_eq!(told.len(), 1, "failing");
}

#[test]
fn one_that_was_down_before_the_start_is_told_so() {
    let mut schedule = Schedule::default();
    let spec = spec(400);
    let told =
        schedule.set(plan(vec![Wish { was_down: true, ..wish("web", "a", 1, &spec) }]), Duration::ZERO);
    assert!(told[0].sighting.as_ref().is_some_and(|sighting| !sighting.state.is_healthy()));
}
