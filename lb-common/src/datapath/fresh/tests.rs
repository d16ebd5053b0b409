use super::super::model::{Dice, Model};
use super::*;
use crate::abi::Status;

const SERVICE: u32 = 7;
const NOW: u64 = 1_000_000_000_000;

/// A pool of backends 0.. on a model, all of them up.
struct Pool {
    model: Model<'static>,
    service: Service,
}

impl Pool {
    fn new(count: u16, method: Method) -> Self {
        let mut model = Model::new(0, 0);
        let mut dice = Dice(5);
        model.arena = (0..1_024).map(|_| dice.below(count.into()) as u16).chain(0..count).collect();
        model.status = vec![0; 8];
        for slot in 0..count {
            let word = &mut model.status[Status::word(slot) as usize];
            *word = Status::Up.set(*word, slot);
            model.set_backend(slot, |backend| backend.service = SERVICE);
        }
        let service = Service {
            id: SERVICE,
            table_mask: 1_023,
            members: 1_024,
            member_count: count.into(),
            method: method as u8,
            ..Service::default()
        };
        Self { model, service }
    }

    fn limited(mut self, limit: u32) -> Self {
        self.service.flags |= ServiceFlags::LIMITED;
        for slot in 0..self.service.member_count as u16 {
            self.model.set_backend(slot, |backend| backend.limit = limit);
        }
        self
    }

    fn vitals(&self, slot: u16, change: impl FnOnce(&mut crate::abi::Vitals)) {
        // SAFETY: leaked memory, and tests have one thread.
        change(unsafe { &mut *self.model.vitals(slot).unwrap() });
    }

    /// Where a new session goes; it is one of the backend's connections from then on.
    fn open(&self, session: u64) -> Option<u16> {
        let slot = self.ask(session)?;
        self.vitals(slot, |vitals| vitals.connections += 1);
        Some(slot)
    }

    fn ask(&self, session: u64) -> Option<u16> {
        let slot = pick(&self.model, &self.service, session, NOW);
        (slot != NONE).then_some(slot as u16)
    }

    fn loads(&self) -> Vec<u64> {
        (0..self.service.member_count as u16).map(|slot| vitals::connections(&self.model, slot)).collect()
    }
}

fn sessions(count: usize) -> Vec<u64> {
    let mut dice = Dice(11);
    (0..count).map(|_| dice.roll() << 32 ^ dice.roll()).collect()
}

#[test]
fn the_fewest_connections_win_and_weights_count() {
    let mut pool = Pool::new(5, Method::LeastConnections);
    for slot in 0..5 {
        pool.model.set_backend(slot, |backend| backend.weight = if slot == 0 { 4 } else { 1 });
    }
    assert!(sessions(80).into_iter().all(|session| pool.open(session).is_some()));
    assert_eq!(pool.loads(), [40, 10, 10, 10, 10]);
}

#[test]
fn of_two_choices_the_less_loaded_one_is_taken() {
    let pool = Pool::new(16, Method::TwoChoices);
    for session in sessions(2_000) {
        let first = choice::walk(&pool.model, &pool.service, session, Want::Accepts);
        let second = walk(&pool.model, &pool.service, session, first);
        let loads = pool.loads();
        let expected = if loads[second as usize] < loads[first as usize] { second } else { first };
        assert_eq!(pool.open(session).map(u32::from), Some(expected));
    }
    let loads = pool.loads();
    let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
    // The order alone spreads 2,000 sessions over 16 backends with a difference of 40 or so.
    assert!(most - least < 12, "{loads:?}");
}

#[test]
fn who_answers_slowly_gets_less_and_is_tried_again_later() {
    let pool = Pool::new(2, Method::LeastTime);
    for (slot, response) in [(0, 40_000_000), (1, 10_000_000)] {
        pool.vitals(slot, |vitals| (vitals.response, vitals.accepted) = (response, NOW));
    }
    assert!(sessions(100).into_iter().all(|session| pool.open(session).is_some()));
    let loads = pool.loads();
    assert!((18..=22).contains(&loads[0]), "a quarter of the other's: {loads:?}");
    // After some minutes without a measurement the two count alike.
    pool.vitals(0, |vitals| vitals.accepted = NOW - 300_000_000_000);
    pool.vitals(1, |vitals| vitals.connections = loads[0] + 1);
    let next = sessions(101).pop().unwrap();
    assert_eq!(pool.ask(next), Some(0));
}

#[test]
fn a_full_backend_is_passed_in_the_order() {
    let pool = Pool::new(8, Method::Order).limited(10);
    let mut passed = 0;
    for session in sessions(80) {
        let loads = pool.loads();
        let expected = {
            let members = Members(&pool);
            crate::select::order(&members, session).find(|slot| loads[usize::from(*slot)] < 10)
        };
        let first = choice::walk(&pool.model, &pool.service, session, Want::Accepts) as u16;
        passed += u64::from(Some(first) != expected);
        assert_eq!(pool.open(session), expected);
    }
    assert_eq!(pool.loads(), [10; 8]);
    assert!(passed > 5);
    let overflowed: u64 =
        // SAFETY: leaked memory, and tests have one thread.
        (0..8).map(|slot| unsafe { (*pool.model.vitals(slot).unwrap()).overflowed }).sum();
    assert_eq!(overflowed, passed);
    assert_eq!(pool.ask(1), None, "nobody may have one more");
    pool.vitals(3, |vitals| vitals.connections -= 1);
    assert_eq!(pool.ask(1), Some(3));
}

/// The pool as the host's order reads it.
struct Members<'a>(&'a Pool);

impl crate::select::Table for Members<'_> {
    fn owner(&self, slot: u32) -> Option<u16> {
        self.0.model.arena(slot)
    }
    fn member(&self, place: u32) -> Option<u16> {
        self.0.model.arena(1_024 + place)
    }
    fn mask(&self) -> u32 {
        1_023
    }
    fn member_count(&self) -> u32 {
        self.0.service.member_count
    }
}

#[test]
fn connections_of_one_session_go_to_one_backend_before_it_is_bound() {
    let pool = Pool::new(6, Method::LeastConnections);
    let session = 0x1234_5678_9abc;
    let first = pool.open(session);
    for _ in 0..5 {
        assert_eq!(pool.open(session), first);
    }
    let mut away = [0_u16; 6];
    sessions(60).iter().for_each(|other| away[usize::from(pool.open(*other).unwrap())] += 1);
    assert_eq!(pool.loads(), [11; 6]);
    // Not when that backend takes nobody any more.
    let mut pool = pool;
    let slot = first.unwrap();
    pool.model.status[0] = Status::Down.set(pool.model.status[0], slot);
    assert_ne!(pool.ask(session), first);
}

#[test]
fn who_only_drains_takes_sessions_when_nobody_else_does_and_limits_are_not_asked() {
    let mut pool = Pool::new(3, Method::LeastConnections).limited(1);
    pool.model.status[0] = (0..3).fold(0, |word, slot| Status::Draining.set(word, slot));
    let found: Vec<_> = sessions(20).into_iter().map(|session| pool.open(session)).collect();
    assert!(found.iter().all(Option::is_some));
}
