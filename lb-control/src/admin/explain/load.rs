//! Whom the selection method gives a session without a binding: what the data plane's program `pick` would decide now.
//!
//! It also remembers for some ten seconds where a session went, which is not looked up here, and told.

use super::{Candidate, Scene, step};
use crate::admin::row::{Step, StepKind};
use crate::config::method_word;
use lb_common::abi::{Method, Outcome, Status};
use lb_common::select::{self, PROBES, Probes, Table};

/// Members that are compared: all of a smaller pool.
const COMPARED: u32 = 64;
/// Backends that are named with what they cost.
const NAMED: usize = 8;

/// What a backend has to do, as the selection methods see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections that have not ended.
    pub connections: u64,
    /// The most it may have for new sessions to come; 0 = no limit.
    pub limit: u32,
    /// Its weight at this moment.
    pub weight: u32,
    /// Milliseconds that it takes to answer a SYN, at least 1, for `least-time`.
    pub milliseconds: u64,
}

/// What the method says.
pub(super) enum Picked {
    /// The session's order decides alone.
    Order,
    /// This one.
    Backend(u16),
    /// All have as many connections as they may have.
    Full,
}

impl Load {
    /// Whether it may have one more connection.
    pub(super) fn has_room(&self) -> bool {
        self.limit == 0 || self.connections < u64::from(self.limit)
    }

    /// What one more connection costs.
    fn cost(&self, method: Method) -> u64 {
        let time = if method == Method::LeastTime { self.milliseconds.max(1) } else { 1 };
        let load = (self.connections + 1).min(1 << 24);
        ((load * time) << 10) / u64::from(self.weight.max(1))
    }

    fn words(&self, method: Method) -> String {
        let limit = if self.limit == 0 { String::new() } else { format!(" of {}", self.limit) };
        match method {
            Method::LeastTime => format!("{}{limit} open, {} ms", self.connections, self.milliseconds.max(1)),
            Method::Order | Method::TwoChoices | Method::LeastConnections => {
                format!("{}{limit} open", self.connections)
            }
        }
    }
}

/// Applies the service's method to a session without a binding.
pub(super) fn pick<T, B>(scene: &Scene<'_, T, B>, steps: &mut Vec<Step>) -> Picked
where
    T: Table,
    B: Fn(u16) -> Option<Candidate>,
{
    let method = scene.service.method;
    let word = method_word(method);
    let taker = |slot| (scene.backend)(slot).filter(|backend| backend.status == Status::Up);
    let mut all = (0..scene.table.member_count()).filter_map(|place| scene.table.member(place));
    let is_limited = all.any(|slot| (scene.backend)(slot).is_some_and(|backend| backend.load.limit != 0));
    if method == Method::Order && !is_limited {
        let because = "a new session goes to the first backend of its order that takes sessions";
        steps.push(step(StepKind::Method, word.to_owned(), because));
        return Picked::Order;
    }
    let room = |slot| taker(slot).filter(|backend| backend.load.has_room());
    let first_but = |other| {
        select::choose(scene.table, scene.session, |slot| Some(slot) != other && room(slot).is_some())
    };
    let compared: Vec<u16> = match method {
        Method::Order => first_but(None).into_iter().collect(),
        Method::TwoChoices => {
            let first = first_but(None);
            let second = first.and_then(|first| first_but(Some(first)));
            first.into_iter().chain(second).collect()
        }
        Method::LeastConnections | Method::LeastTime => {
            members(scene).filter(|&slot| room(slot).is_some()).collect()
        }
    };
    let cost = |slot: &u16| (scene.backend)(*slot).map_or(u64::MAX, |backend| backend.load.cost(method));
    let Some(picked) = compared.iter().copied().min_by_key(cost) else {
        if select::choose(scene.table, scene.session, |slot| taker(slot).is_some()).is_none() {
            return Picked::Order;
        }
        let because = format!(
            "all have as many connections as they may have; counted {}",
            Outcome::LimitsReached.name()
        );
        steps.push(step(StepKind::Method, word.to_owned(), because));
        return Picked::Full;
    };
    let named = compared.iter().filter_map(|&slot| (scene.backend)(slot)).take(NAMED);
    let told: Vec<String> = named.map(|b| format!("{} {}", b.name, b.load.words(method))).collect();
    let more = if compared.len() > NAMED { ", ..." } else { "" };
    let name = (scene.backend)(picked).map_or_else(|| format!("slot {picked}"), |backend| backend.name);
    let because = match method {
        Method::Order => format!("{name} is the first of its order that has room for a connection more"),
        Method::TwoChoices => {
            format!("of the first two of its order {name} has less to do for its weight; ")
                + "the order alone says who comes next when that one fails"
        }
        Method::LeastConnections | Method::LeastTime => {
            format!(
                "{name} has least to do for its weight, at this moment, unless the session went elsewhere "
            ) + "within the last ten seconds; the order only says who comes next when that one fails"
        }
    };
    steps.push(step(StepKind::Method, format!("{word}: {}{more}", told.join(", ")), because));
    Picked::Backend(picked)
}

/// The members that are compared, from the place on that the session says: among equals the first is taken.
fn members<T: Table, B>(scene: &Scene<'_, T, B>) -> impl Iterator<Item = u16> {
    let (table, count) = (scene.table, scene.table.member_count());
    let start = if count == 0 { 0 } else { Probes::new(scene.session).value(PROBES) % count };
    (0..count.min(COMPARED)).filter_map(move |i| table.member((start + i) % count))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidate, chosen, packet, service, table};
    use super::super::{Verdict, explain};
    use super::*;
    use lb_common::abi::BindingWord;
    use lb_core::pool::Protocol;

    /// Three backends with so many connections; the limit is everybody's, 0 = none.
    fn told(
        method: Method,
        connections: [u64; 3],
        limit: u32,
        bound: Option<u16>,
    ) -> crate::admin::row::Explanation {
        let mut service = service(80, Protocol::Tcp);
        service.method = method;
        let load = |slot: u16| Load {
            connections: connections[usize::from(slot)],
            limit,
            weight: 1,
            milliseconds: [1, 9, 30][usize::from(slot)],
        };
        let scene = Scene {
            read: None,
            service: &service,
            session: 0x0a00_0007,
            flow: None,
            binding: bound
                .map(|slot| super::super::Bound { word: BindingWord::new(slot, 3, 0), remaining: 1 }),
            table: &table(),
            backend: |slot| Some(Candidate { load: load(slot), ..candidate(slot, Status::Up) }),
        };
        explain(&packet(Protocol::Tcp), &scene)
    }

    fn method_step(told: &crate::admin::row::Explanation) -> Option<(&str, &str)> {
        let found = told.steps.iter().find(|step| step.kind == StepKind::Method)?;
        Some((&found.found, &found.because))
    }

    #[test]
    fn load_decides_where_the_method_says_so() {
        let order = told(Method::Order, [5, 5, 5], 0, None);
        assert_eq!(method_step(&order).map(|told| told.0), Some("order"));
        for least in 0..3 {
            let mut connections = [7; 3];
            connections[least] = 1;
            let told = told(Method::LeastConnections, connections, 0, None);
            assert_eq!(chosen(&told), Some(format!("be{least}")));
            let (found, because) = method_step(&told).expect("told");
            assert!(found.contains(&format!("be{least} 1 open")) && found.contains("7 open"), "{found}");
            assert!(because.contains("the order only says who comes next"), "{because}");
            assert!(told.steps.iter().all(|step| step.kind != StepKind::Probe), "{told:?}");
        }
        assert_eq!(chosen(&told(Method::LeastTime, [7, 0, 0], 0, None)).as_deref(), Some("be0"), "8 x 1 ms");
        assert_eq!(chosen(&told(Method::LeastTime, [10, 0, 0], 0, None)).as_deref(), Some("be1"), "1 x 9 ms");
        let first = chosen(&order).expect("somebody");
        let mut busy = [0; 3];
        busy[usize::from(first.as_bytes()[2] - b'0')] = 9;
        let other = told(Method::TwoChoices, busy, 0, None);
        assert_ne!(chosen(&other), Some(first));
    }

    #[test]
    fn full_backends_are_passed_and_when_all_are_full_nobody_takes_it() {
        let first = chosen(&told(Method::Order, [0; 3], 4, None)).expect("somebody");
        let mut full = [0; 3];
        full[usize::from(first.as_bytes()[2] - b'0')] = 4;
        for method in [Method::Order, Method::TwoChoices, Method::LeastConnections, Method::LeastTime] {
            assert_ne!(chosen(&told(method, full, 4, None)), Some(first.clone()), "{method:?}");
            let nobody = told(method, [4; 3], 4, None);
            assert_eq!(nobody.verdict, Verdict::Answer { outcome: "reset-sent".into() });
            assert!(method_step(&nobody).is_some_and(|told| told.1.contains("limits-reached")));
        }
    }

    #[test]
    fn load_has_no_say_in_bound_sessions() {
        let told = told(Method::LeastConnections, [0, 0, 90], 4, Some(2));
        assert_eq!((chosen(&told).as_deref(), method_step(&told)), (Some("be2"), None));
    }
}
