use super::*;
use core::num::NonZero;

pub(in crate::health) const POLICY: Policy = Policy {
    interval: Duration::from_millis(400),
    fast: Duration::from_millis(50),
    slow: Duration::from_millis(2_000),
    timeout: Duration::from_millis(200),
    rise: NonZero::new(2).unwrap(),
    fall: NonZero::new(2).unwrap(),
    jitter: 0,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Sends the probe that is due and finishes it after `takes`; answers when it ended.
fn probe(monitor: &mut Monitor, takes: Duration, result: Result<(), Failure>) -> (Duration, Option<Change>) {
    let due = monitor.due().expect("no probe is on its way");
    monitor.begin(due);
    assert_eq!(monitor.due(), None);
    (due + takes, monitor.finish(due + takes, result))
}

#[test]
fn a_backend_that_falls_silent_is_down_within_a_second_of_the_defaults() {
    for seed in 0..1_000 {
        let policy = Policy { jitter: 10, ..POLICY };
        let mut monitor = Monitor::new(policy, false, seed, Duration::ZERO);
        let (up, change) = probe(&mut monitor, ms(1), Ok(()));
        assert_eq!(change.map(|change| (change.from, change.to)), Some((State::New, State::Up)));
        // It dies right after the answer.
        let silent = || Err(Failure::Silent(policy.timeout));
        let (_, change) = probe(&mut monitor, policy.timeout, silent());
        assert!(!change.expect("it is failing").is_verdict());
        let (down, change) = probe(&mut monitor, policy.timeout, silent());
        let change = change.expect("it is down");
        assert!(change.is_verdict() && change.reason == Some(Failure::Silent(policy.timeout)));
        assert!(down - up < ms(900), "{:?}", down - up);
        assert_eq!((monitor.state(), monitor.since()), (State::Down(Voice::Probe), down));
    }
}

#[test]
fn the_pauses_are_those_of_the_state() {
    let mut monitor = Monitor::new(POLICY, false, 1, Duration::ZERO);
    assert!(monitor.due().unwrap() < POLICY.interval);
    let mut began = monitor.due().unwrap();
    let mut step = |monitor: &mut Monitor, result: Result<(), Failure>| {
        probe(monitor, ms(1), result);
        let pause = monitor.due().unwrap() - began;
        began = monitor.due().unwrap();
        pause
    };
    let refused = || Err(Failure::Refused);
    assert_eq!(step(&mut monitor, Ok(())), POLICY.interval);
    assert_eq!(step(&mut monitor, refused()), POLICY.fast);
    assert_eq!(step(&mut monitor, refused()), POLICY.slow);
    assert_eq!(step(&mut monitor, Ok(())), POLICY.fast);
    assert_eq!(step(&mut monitor, Ok(())), POLICY.interval);
    // A probe that takes longer than the pause is followed at once, never before it has ended.
    let (end, _) = probe(&mut monitor, ms(450), Ok(()));
    assert_eq!(monitor.due(), Some(end));
}

#[test]
fn suspicion_brings_a_probe_at_once_but_no_flood_and_no_verdict() {
    let mut monitor = Monitor::new(POLICY, false, 1, Duration::ZERO);
    let (end, _) = probe(&mut monitor, ms(1), Ok(()));
    let began = end - ms(1);
    for _ in 0..1_000 {
        monitor.suspect(end);
    }
    assert_eq!((monitor.state(), monitor.due()), (State::Up, Some(began + POLICY.fast)));
    let late = began + ms(300);
    let mut idle = Monitor::new(POLICY, false, 1, Duration::ZERO);
    probe(&mut idle, ms(1), Ok(()));
    idle.suspect(late);
    assert_eq!(idle.due(), Some(late));
    // While a probe is on its way another one follows it, since that one may have been answered before.
    idle.begin(late);
    idle.suspect(late + ms(1));
    idle.suspect(late + ms(2));
    assert_eq!(idle.finish(late + ms(3), Ok(())), None);
    assert_eq!(idle.due(), Some(late + POLICY.fast));
}

#[test]
fn unanswered_connections_count_and_a_probe_confirms_or_denies_them() {
    let mut monitor = Monitor::new(POLICY, false, 1, Duration::ZERO);
    let (end, _) = probe(&mut monitor, ms(1), Ok(()));
    let now = end + ms(100);
    monitor.unanswered(now);
    assert_eq!((monitor.state(), monitor.due()), (State::Failing(NonZero::<u16>::MIN), Some(now)));
    monitor.unanswered(now);
    assert_eq!((monitor.state(), monitor.reason()), (State::Down(Voice::Traffic), Some(&Failure::Traffic)));
    probe(&mut monitor, ms(1), Err(Failure::Refused));
    assert_eq!((monitor.state(), monitor.reason()), (State::Down(Voice::Probe), Some(&Failure::Refused)));
    probe(&mut monitor, ms(1), Ok(()));
    let (_, change) = probe(&mut monitor, ms(1), Ok(()));
    assert!(change.expect("up again").is_verdict());
    assert_eq!(monitor.reason(), None);
}

#[test]
fn what_this_host_could_not_send_says_nothing_of_the_backend() {
    let mut monitor = Monitor::new(POLICY, false, 1, Duration::ZERO);
    probe(&mut monitor, ms(1), Ok(()));
    for _ in 0..10 {
        let (_, change) = probe(&mut monitor, ms(1), Err(Failure::Own("too many open files".into())));
        assert_eq!((change, monitor.state()), (None, State::Up));
    }
    assert!(monitor.reason().is_some_and(Failure::is_own), "but it is told");
}

#[test]
fn one_that_was_down_before_a_restart_has_to_rise() {
    let mut monitor = Monitor::new(POLICY, true, 1, Duration::ZERO);
    assert!(!monitor.state().is_healthy());
    assert!(!probe(&mut monitor, ms(1), Ok(())).1.expect("rising").is_verdict());
    assert!(probe(&mut monitor, ms(1), Ok(())).1.expect("up").is_verdict());
}

#[test]
fn first_probes_of_many_backends_spread_over_an_interval() {
    let dues: Vec<_> =
        (0..4_000).map(|seed| Monitor::new(POLICY, false, seed, ms(7)).due().unwrap() - ms(7)).collect();
    for quarter in 0..4 {
        let (from, to) = (POLICY.interval * quarter / 4, POLICY.interval * (quarter + 1) / 4);
        let count = dues.iter().filter(|&&due| from <= due && due < to).count();
        assert!((900..=1_100).contains(&count), "{count} in quarter {quarter}");
    }
}
