//! What the cluster says of bindings, done by the kernel and by the model of it.

use crate::sandbox::{SIZES, Sandbox};
use lb_common::abi::{BindingKey, BindingOp, BindingRecord, BindingWord};
use lb_control::dataplane::{DataPlane, memory::Memory};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

const SERVICE: u32 = 7;
const SESSIONS: u64 = 4;

/// Something to do with a session.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A packet binds or moves it; `lbd` has not heard of it.
    Move,
    Acknowledge,
    Settle {
        generation: u32,
        pinned: bool,
    },
    Clear,
}

fn act() -> impl Strategy<Value = (u64, Act)> {
    let settle =
        (0_u32..6, any::<bool>()).prop_map(|(generation, pinned)| Act::Settle { generation, pinned });
    let act =
        prop_oneof![2 => Just(Act::Move), 2 => Just(Act::Acknowledge), 4 => settle, 2 => Just(Act::Clear)];
    (0..SESSIONS, act)
}

fn record(session: u64, act: Act, now: BindingWord) -> BindingRecord {
    let (op, word) = match act {
        Act::Move => {
            let word = BindingWord::new(3, 1, now.generation() + 1).with(BindingWord::UNSYNCED);
            (BindingOp::Put, word)
        }
        Act::Acknowledge => (BindingOp::Acknowledge, now.with(BindingWord::UNSYNCED)),
        Act::Settle { generation, pinned } => {
            let word = BindingWord::new(5, 2, generation);
            (BindingOp::Settle, if pinned { word.with(BindingWord::PINNED) } else { word })
        }
        Act::Clear => (BindingOp::Clear, BindingWord::default()),
    };
    let lifetime = 3_600_000_000_000;
    BindingRecord { session, word: word.0, lifetime, service: SERVICE, op: op as u8, pad: 0, home: 0 }
}

fn word(plane: &mut dyn DataPlane, session: u64) -> Option<BindingWord> {
    let found = plane.binding(&BindingKey::new(SERVICE, session)).expect("read");
    found.map(|binding| BindingWord(binding.word))
}

#[test]
fn kernel_and_model_agree_on_what_the_cluster_says() {
    let sandbox = Sandbox::new();
    let kernel = std::cell::RefCell::new(sandbox.open(SIZES));
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let played = runner.run(&prop::collection::vec(act(), 1..60), |acts| {
        let (mut kernel, mut model) = (kernel.borrow_mut(), Memory::new(SIZES));
        for session in 0..SESSIONS {
            let empty = [Act::Acknowledge, Act::Clear];
            for act in empty {
                let now = word(&mut *kernel, session).unwrap_or_default();
                kernel.apply_bindings(&[record(session, act, now)]).expect("runs");
            }
        }
        for (session, act) in acts {
            let now = word(&mut model, session).unwrap_or_default();
            let record = record(session, act, now);
            let done = kernel.apply_bindings(&[record]).expect("runs");
            prop_assert_eq!(&done, &model.apply_bindings(&[record]).expect("runs"), "{:?}", act);
            let held = word(&mut *kernel, session);
            prop_assert_eq!(held, word(&mut model, session), "after {:?}", act);
        }
        Ok::<(), TestCaseError>(())
    });
    played.expect("both do the same");
}
