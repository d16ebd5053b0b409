use super::*;
use crate::reconcile::Health;
use lb_core::health::{State, Voice};

const SLOW: Duration = Duration::from_secs(20);

fn change(backend: &str, state: State, since: SystemTime) -> HealthChange {
    let health = Some(Health { state, since, reason: None });
    HealthChange { service: "web".into(), backend: backend.into(), health }
}

fn pools(desired: &Desired) -> Vec<PoolSpec> {
    desired.pools()
}

fn desired(slow_start: Duration) -> Desired {
    let file = "
        [[service]]
        name = \"web\"
        address = \"192.0.2.1\"
        port = 80
        mode = \"nat\"
        backend = [{ name = \"a\", address = \"198.51.100.1\", weight = 3 }, { name = \"b\", address = \"198.51.100.2\" }]
        ";
    let mut desired = crate::config::parse(file, "test").expect("valid").desired([0; 16]);
    desired.services[0].slow_start = slow_start;
    desired
}

fn weights(ramps: &Ramps, desired: &Desired) -> Vec<u32> {
    ramps.applied_to(desired).services[0].backends.iter().map(|backend| backend.weight).collect()
}

#[test]
fn a_share_grows_from_its_first_step_to_all_of_it() {
    let (desired, start) = (desired(SLOW), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
    let mut ramps = Ramps::default();
    ramps.note(true, &change("a", State::Up, start));
    assert!(ramps.is_busy());
    let mut seen = Vec::new();
    for second in 0..=20 {
        let changed = ramps.advance(&pools(&desired), start + Duration::from_secs(second));
        seen.push((changed, weights(&ramps, &desired)));
        let backends = &desired.services[0].backends;
        let of = |i: usize| u32::from(ramps.weight("web", &backends[i]));
        assert_eq!(of(0) * desired.services[0].backends[1].weight * STEPS, {
            let percent = ramps.percent("web", "a").map_or(100, u32::from);
            of(1) * 3 * STEPS * percent / 100
        });
    }
    assert_eq!(seen[0], (true, vec![3, 20]), "at once, and never nothing");
    assert_eq!(seen[1], (false, vec![3, 20]));
    assert_eq!(seen[10], (true, vec![30, 20]));
    assert_eq!(seen[19], (true, vec![57, 20]));
    assert_eq!(seen[20], (true, vec![3, 1]), "as configured");
    assert!(!ramps.is_busy());
}

#[test]
fn who_was_not_down_or_needs_no_time_has_all_at_once() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let (slow, quick) = (desired(SLOW), desired(Duration::ZERO));
    let mut ramps = Ramps::default();
    ramps.note(false, &change("a", State::Up, now));
    assert!(!ramps.is_busy() && !ramps.advance(&pools(&slow), now));
    ramps.note(true, &change("a", State::Up, now));
    assert!(!ramps.advance(&pools(&quick), now));
    assert!(!ramps.is_busy());
}

#[test]
fn who_dies_again_begins_anew() {
    let (desired, start) = (desired(SLOW), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
    let mut ramps = Ramps::default();
    ramps.note(true, &change("b", State::Up, start));
    assert!(ramps.advance(&pools(&desired), start + SLOW / 2));
    assert_eq!(ramps.percent("web", "b"), Some(50));
    ramps.note(false, &change("b", State::Down(Voice::Probe), start + SLOW / 2));
    assert!(
        ramps.advance(&pools(&desired), start + SLOW / 2),
        "it has no sessions, so its weight says nothing"
    );
    assert_eq!(weights(&ramps, &desired), [3, 1]);
    ramps.note(true, &change("b", State::Up, start + SLOW));
    assert!(ramps.advance(&pools(&desired), start + SLOW));
    assert_eq!(weights(&ramps, &desired), [60, 1]);
}

#[test]
fn the_clock_may_be_put_back() {
    let (desired, start) = (desired(SLOW), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
    let mut ramps = Ramps::default();
    ramps.note(true, &change("b", State::Up, start));
    assert!(ramps.advance(&pools(&desired), start - SLOW));
    assert_eq!(ramps.percent("web", "b"), Some(5));
}
