//! Health checks and what they make of the tables.

use super::*;
use crate::reconcile::{Health, HealthChange, OtherViews};
use lb_core::health::{Check, Failback, Failure, HealthSpec, Policy, State, Thresholds, Voice, Way};

/// A backend whose probes fail.
pub(super) fn dead(service: &str, backend: &str) -> HealthChange {
    let health = Health {
        state: State::Down(Voice::Probe),
        since: std::time::UNIX_EPOCH,
        reason: Some(Failure::Refused),
    };
    HealthChange { service: service.into(), backend: backend.into(), health: Some(health) }
}

/// Two services whose backends are checked.
pub(super) fn checked_services() -> Desired {
    let second = Duration::from_secs(1);
    let one = std::num::NonZero::<u16>::MIN;
    let spec = HealthSpec {
        check: Check::Tcp,
        policy: Policy {
            interval: second,
            fast: second,
            slow: second,
            timeout: second,
            rise: one,
            fall: one,
            jitter: 0,
        },
        thresholds: Thresholds { minimum_healthy: 1, ejected: 50 },
        port: 0,
        way: Way::Direct,
        quorum: false,
        failback: Failback::Never,
    };
    let mut desired = two_services();
    desired.services.iter_mut().for_each(|service| service.health = Some(Arc::new(spec.clone())));
    desired
}

#[test]
fn when_nobody_is_healthy_all_are_used() {
    let plane = Shared::new();
    let mut node = node(&plane);
    node.apply(checked_services()).expect("applied");
    let statuses = |plane: &Shared| -> Vec<Status> {
        let found = meaning(plane);
        let s1 = found.services.values().find(|service| service.row.id == 1).expect("there");
        s1.members.iter().map(|member| member.1).collect()
    };
    let count = statuses(&plane).len();
    let names: Vec<String> = node.applied().expect("applied").pools[0]
        .service
        .backends
        .iter()
        .map(|backend| backend.name.clone())
        .collect();
    for name in &names[1..] {
        node.world.health.note(dead("s1", name));
    }
    node.follow_world();
    assert_eq!(statuses(&plane).iter().filter(|&&status| status == Status::Down).count(), count - 1);
    node.world.health.note(dead("s1", &names[0]));
    node.follow_world();
    assert!(statuses(&plane).iter().all(|&status| status != Status::Down));
}

#[test]
fn by_vote_a_backend_is_down_on_every_node_when_most_of_those_that_are_heard_say_so() {
    let plane = Shared::new();
    let mut node = node(&plane);
    let mut desired = checked_services();
    desired.services.iter_mut().for_each(|service| {
        let mut spec = (**service.health.as_ref().expect("checked")).clone();
        spec.quorum = true;
        service.health = Some(Arc::new(spec));
    });
    node.apply(desired).expect("applied");
    let (service, number) = {
        let pool = &node.applied().expect("applied").pools[0].service;
        let backend = pool.backends.iter().find(|backend| backend.name == "b2").expect("it is there");
        (pool.id, backend.number)
    };
    for is_dead_here in [false, true] {
        let mut change = dead("s1", "b2");
        if !is_dead_here {
            change.health.as_mut().expect("known").state = State::Up;
        }
        node.world.health.note(change);
        for (nodes, others) in (0..=4).flat_map(|nodes| (0..=nodes).map(move |others| (nodes, others))) {
            let failed =
                [((service, number), others)].into_iter().filter(|(_, others)| *others > 0).collect();
            node.world.health.hear(OtherViews { nodes, failed, ..OtherViews::default() });
            node.follow_world();
            let found = meaning(&plane);
            let s1 = found.services.values().find(|row| row.row.id == service).expect("there");
            let down = s1.members.iter().filter(|member| member.1 == Status::Down).count();
            let (all, say_so) = (nodes + 1, others + usize::from(is_dead_here));
            let most = all / 2 + 1;
            assert_eq!(down, usize::from(say_so >= most), "{say_so} of {all}");
        }
    }
}

#[test]
fn who_was_down_before_a_restart_is_down_after_it_until_probes_say_otherwise() {
    let plane = Shared::new();
    let mut first = node(&plane);
    first.apply(checked_services()).expect("applied");
    first.world.health.note(dead("s1", "b2"));
    first.follow_world();
    let down = |plane: &Shared| {
        let found = meaning(plane);
        let members: Vec<_> = found.services.values().flat_map(|service| &service.members).collect();
        members.iter().filter(|member| member.1 == Status::Down).count()
    };
    assert_eq!(down(&plane), 1);
    drop(first);
    let mut second = node(&plane);
    second.apply(checked_services()).expect("applied");
    assert_eq!(down(&plane), 1);
    let HealthChange { service, backend, .. } = dead("s1", "b2");
    second.world.health.note(HealthChange { service, backend, health: None });
    second.follow_world();
    assert_eq!(down(&plane), 0);
    // Nobody checks any more: nobody is down.
    second.world.health.note(dead("s1", "b2"));
    second.follow_world();
    let mut third = node(&plane);
    third.apply(two_services()).expect("applied");
    assert_eq!(down(&plane), 0);
}
