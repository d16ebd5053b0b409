use super::super::Insert;
use super::super::model::{Dice, Model};
use super::*;
use crate::abi::{Addr, Backend, BindingKey};
use crate::select::{self, Table};

const SERVICE: u32 = 7;
const LIFETIME: u64 = 600_000_000_000;
const SLOTS: u16 = 8;

/// Eight backends in slots of a table of 64, all of them up.
fn model(sessions: &[(u32, u64, u16)]) -> Model<'static> {
    let mut model = Model::with_bindings(4_096);
    let mut dice = Dice(5);
    model.arena = (0..64).map(|_| dice.below(usize::from(SLOTS)) as u16).chain(0..SLOTS).collect();
    model.status = vec![(0..SLOTS).fold(0, |word, slot| Status::Up.set(word, slot))];
    for &(service, session, slot) in sessions {
        let key = BindingKey::new(service, session);
        let word = BindingWord::new(slot, 0, 3);
        let put = binding::insert(&model, &key, word, model.now() + LIFETIME, model.now());
        assert!(put == Insert::Done);
    }
    model
}

struct Pool<'a>(&'a [u16]);

impl Table for Pool<'_> {
    fn owner(&self, slot: u32) -> Option<u16> {
        self.0.get(slot as usize).copied()
    }
    fn member(&self, place: u32) -> Option<u16> {
        (place < u32::from(SLOTS)).then_some(place as u16)
    }
    fn mask(&self) -> u32 {
        63
    }
    fn member_count(&self) -> u32 {
        SLOTS.into()
    }
}

fn run(model: &mut Model<'_>, whom: RebindWhom, limit: u32, idle: u64) -> RebindReport {
    run_at(model, 0, whom, limit, idle)
}

fn run_at(model: &mut Model<'_>, start: u32, whom: RebindWhom, limit: u32, idle: u64) -> RebindReport {
    run_of(model, 0, (start, whom, limit, idle))
}

/// Only of the backend in the slot below `backend`, unless that is 0.
fn run_of(
    model: &mut Model<'_>,
    backend: u32,
    (start, whom, limit, idle): (u32, RebindWhom, u32, u64),
) -> RebindReport {
    let words: [u32; 12] = [
        start,
        REBIND_MAX,
        whom as u32,
        limit,
        idle as u32,
        (idle >> 32) as u32,
        SERVICE,
        0,
        63,
        64,
        SLOTS.into(),
        backend,
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    model.set_frame(&bytes);
    assert_eq!(rebind(model), Verdict::Pass);
    let frame = model.frame();
    let word = |i: usize| u32::from_ne_bytes(frame[i * 4..i * 4 + 4].try_into().unwrap());
    RebindReport { looked_at: word(0), moved: word(1), left: word(2), pad: word(3) }
}

fn bound(model: &Model<'_>, service: u32, session: u64) -> (BindingWord, u64) {
    let found = binding::find_again(model, &BindingKey::new(service, session), model.now()).unwrap();
    (found.word, found.expires)
}

fn sessions(count: usize) -> Vec<(u32, u64, u16)> {
    let mut dice = Dice(11);
    (0..count).map(|_| (SERVICE, dice.roll(), dice.below(usize::from(SLOTS)) as u16)).collect()
}

fn set(model: &mut Model<'_>, slot: u16, status: Status) {
    model.status[0] = status.set(model.status[0], slot);
}

#[test]
fn stranded_sessions_go_where_the_order_says_and_nobody_else_moves() {
    let mut all = sessions(1_000);
    all.push((SERVICE + 1, 77, 2));
    let mut model = model(&all);
    set(&mut model, 2, Status::Down);
    set(&mut model, 5, Status::Draining);
    let stranded = all.iter().filter(|session| session.0 == SERVICE && session.2 == 2).count();
    let report = run(&mut model, RebindWhom::Stranded, u32::MAX, 0);
    assert_eq!((report.moved, report.left), (stranded as u32, 0));
    let accepts = |slot: u16| !matches!(slot, 2 | 5);
    for (service, session, slot) in all {
        let (word, expires) = bound(&model, service, session);
        assert_eq!(expires, model.now() + LIFETIME);
        if service != SERVICE || slot != 2 {
            assert_eq!((word.backend(), word.generation()), (slot, 3), "it was not stranded");
            continue;
        }
        let heir = select::choose(&Pool(&model.arena), session, accepts);
        assert_eq!(Some(word.backend()), heir);
        assert_eq!(word.generation(), 4);
        assert!(word.has(BindingWord::UNSYNCED));
    }
    let again = run(&mut model, RebindWhom::Stranded, u32::MAX, 0);
    assert_eq!((again.moved, again.left), (0, 0), "a second run changes nothing");
}

#[test]
fn with_nobody_left_sessions_stay() {
    let all = sessions(100);
    let mut model = model(&all);
    model.status[0] = 0;
    let report = run(&mut model, RebindWhom::Stranded, u32::MAX, 0);
    assert_eq!((report.moved, report.left), (0, 100));
}

#[test]
fn drained_sessions_move_at_most_so_many_a_run_and_pinned_ones_stay() {
    let mut all = sessions(500);
    all.iter_mut().for_each(|session| session.2 = 3);
    let mut model = model(&all);
    let (pinned, _) = bound(&model, SERVICE, all[0].1);
    let key = BindingKey::new(SERVICE, all[0].1);
    let found = binding::find_again(&model, &key, model.now()).unwrap();
    assert!(binding::change(&model, &found, pinned.with(BindingWord::PINNED)));
    assert_eq!(run(&mut model, RebindWhom::Drained, u32::MAX, 0).moved, 0, "it takes new sessions");
    set(&mut model, 3, Status::Draining);
    let other = run_of(&mut model, 3, (0, RebindWhom::Drained, u32::MAX, 0));
    assert_eq!((other.moved, other.left), (0, 0), "slot 2 is meant");
    let (mut start, mut runs) = (0, 0);
    loop {
        let report = run_of(&mut model, 4, (start, RebindWhom::Drained, 100, 0));
        assert!(report.moved <= 100);
        start += report.looked_at;
        runs += 1;
        if report.moved < 100 {
            break;
        }
    }
    assert_eq!(runs, 5);
    for (_, session, _) in &all[1..] {
        assert_ne!(bound(&model, SERVICE, *session).0.backend(), 3);
    }
    assert_eq!(bound(&model, SERVICE, all[0].1).0.backend(), 3, "a pinned session is not moved");
    set(&mut model, 3, Status::Down);
    assert_eq!(run(&mut model, RebindWhom::Stranded, u32::MAX, 0).moved, 1, "unless its backend is gone");
}

#[test]
fn idle_sessions_go_home_and_busy_ones_stay() {
    let all = sessions(300);
    let mut model = model(&all);
    let report = run(&mut model, RebindWhom::Idle, u32::MAX, LIFETIME - 1);
    assert_eq!((report.moved, report.left), (0, 0), "none has been idle");
    model.now.set(model.now() + LIFETIME / 2);
    let first = |model: &Model<'_>, session| select::choose(&Pool(&model.arena), session, |_| true);
    let away = all.iter().filter(|session| first(&model, session.1) != Some(session.2)).count();
    let report = run(&mut model, RebindWhom::Idle, u32::MAX, LIFETIME / 2);
    assert_eq!((report.moved, report.left), (away as u32, 0));
    let settled = BindingKey::new(SERVICE, 0xfeed);
    let there = (0..SLOTS).find(|&slot| first(&model, settled.session) != Some(slot)).unwrap();
    let (word, expires) = (BindingWord::new(there, 0, 0), model.now() + 1);
    assert!(binding::insert(&model, &settled, word, expires, model.now()) == Insert::Done);
    assert_eq!(run(&mut model, RebindWhom::Idle, u32::MAX, LIFETIME / 2).moved, 0, "it never moved");
    for (_, session, _) in &all {
        assert_eq!(Some(bound(&model, SERVICE, *session).0.backend()), first(&model, *session));
    }
}

#[test]
fn expired_sessions_and_short_requests_are_nobodys_business() {
    let all = sessions(50);
    let mut model = model(&all);
    set(&mut model, 2, Status::Down);
    model.now.set(model.now() + LIFETIME);
    let report = run(&mut model, RebindWhom::Stranded, u32::MAX, 0);
    assert_eq!((report.moved, report.left), (0, 0));
    model.set_frame(&[0; 47]);
    assert_eq!(rebind(&model), Verdict::Drop);
}

#[test]
fn whoever_had_to_move_goes_where_he_was_and_nobody_else() {
    let all = sessions(500);
    let mut model = model(&all);
    let home = |model: &mut Model<'_>, idle| run(model, RebindWhom::Homeless, u32::MAX, idle);
    assert_eq!(home(&mut model, u64::MAX).moved, 0, "nobody had to move");
    for slot in [2, 5] {
        // Some have to move twice: where they were first counts.
        set(&mut model, slot, Status::Down);
        run(&mut model, RebindWhom::Stranded, u32::MAX, 0);
    }
    set(&mut model, 5, Status::Up);
    let report = home(&mut model, LIFETIME - 1);
    assert_eq!((report.moved, report.left), (0, 0), "none has been idle");
    let of = |slot| all.iter().filter(move |session| session.2 == slot);
    let report = home(&mut model, u64::MAX);
    assert_eq!((report.moved, report.left), (of(5).count() as u32, 0), "those of the other one cannot");
    set(&mut model, 2, Status::Draining);
    assert_eq!(home(&mut model, u64::MAX).moved, 0, "it takes no sessions");
    set(&mut model, 2, Status::Up);
    assert_eq!(home(&mut model, u64::MAX).moved, of(2).count() as u32);
    for &(service, session, slot) in &all {
        assert_eq!(bound(&model, service, session).0.backend(), slot);
    }
    assert_eq!(home(&mut model, u64::MAX).moved, 0, "all are where they were");
    set(&mut model, 2, Status::Down);
    run(&mut model, RebindWhom::Stranded, u32::MAX, 0);
    set(&mut model, 2, Status::Up);
    model.set_backend(2, |backend| backend.generation += 1);
    assert_eq!(home(&mut model, u64::MAX).moved, 0, "the slot is another backend's");
}

#[test]
fn packets_leave_word_of_where_a_session_was_and_backends_of_where_it_belongs() {
    let mut model = model(&[(SERVICE, 1, 2)]);
    let key = BindingKey::new(SERVICE, 1);
    let service = Service { lifetime: LIFETIME, ..Service::default() };
    let address = Addr::default();
    let bind = |model: &Model<'_>, slot: u16, learnt| {
        let client = binding::Client { address: &address, proved: true, learnt };
        let backend = Backend::default();
        binding::bind(model, &service, &key, (slot, &backend), client, model.now());
    };
    bind(&model, 3, false);
    assert_eq!(run(&mut model, RebindWhom::Homeless, u32::MAX, u64::MAX).moved, 1);
    assert_eq!(bound(&model, SERVICE, 1).0.backend(), 2);
    bind(&model, 4, true);
    assert_eq!(run(&mut model, RebindWhom::Homeless, u32::MAX, u64::MAX).moved, 0, "its backend said so");
    bind(&model, 5, false);
    assert_eq!(run(&mut model, RebindWhom::Homeless, u32::MAX, u64::MAX).moved, 1);
    assert_eq!(bound(&model, SERVICE, 1).0.backend(), 4);
}
