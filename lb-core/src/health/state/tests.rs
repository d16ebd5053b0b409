use super::*;

const SIGNALS: [Signal; 4] = [Signal::Passed, Signal::Failed, Signal::Unanswered, Signal::Suspected];

fn policy(rise: u16, fall: u16) -> Policy {
    let count = |n| NonZero::new(n).expect("not zero");
    Policy { rise: count(rise), fall: count(fall), ..crate::health::monitor::tests::POLICY }
}

fn one() -> NonZero<u16> {
    NonZero::<u16>::MIN
}

/// Every state that counts up to `most`.
fn states(most: u16) -> Vec<State> {
    let counts = (1..=most).filter_map(NonZero::new);
    let mut all = vec![State::New, State::Up, State::Down(Voice::Probe), State::Down(Voice::Traffic)];
    all.extend(counts.flat_map(|count| {
        [State::Failing(count), State::Rising(Voice::Probe, count), State::Rising(Voice::Traffic, count)]
    }));
    all
}

#[test]
fn every_state_meets_every_signal_as_the_table_says() {
    let (two, three) = (NonZero::new(2).unwrap(), NonZero::new(3).unwrap());
    let (new, up, probe, traffic) =
        (State::New, State::Up, State::Down(Voice::Probe), State::Down(Voice::Traffic));
    let policy = policy(3, 3);
    // State; what it becomes when passed, failed, unanswered, suspected.
    let mut table = vec![
        (new, [up, State::Failing(one()), State::Failing(one()), new]),
        (up, [up, State::Failing(one()), State::Failing(one()), up]),
        (State::Failing(one()), [up, State::Failing(two), State::Failing(two), State::Failing(one())]),
        (State::Failing(two), [up, probe, traffic, State::Failing(two)]),
        // Only with a policy that asked for more before.
        (State::Failing(three), [up, probe, traffic, State::Failing(three)]),
        (probe, [State::Rising(Voice::Probe, one()), probe, probe, probe]),
        (traffic, [State::Rising(Voice::Traffic, one()), probe, traffic, traffic]),
    ];
    for voice in [Voice::Probe, Voice::Traffic] {
        let rising = |count| State::Rising(voice, count);
        table.push((rising(one()), [rising(two), probe, rising(one()), rising(one())]));
        table.push((rising(two), [up, probe, rising(two), rising(two)]));
        table.push((rising(three), [up, probe, rising(three), rising(three)]));
    }
    assert_eq!(table.len(), states(3).len(), "no state is missing");
    for (state, expected) in table {
        for (signal, next) in SIGNALS.into_iter().zip(expected) {
            assert_eq!(state.after(signal, &policy), next, "{state:?} after {signal:?}");
        }
    }
}

#[test]
fn one_result_is_enough_where_the_policy_says_so() {
    let policy = policy(1, 1);
    assert_eq!(State::Up.after(Signal::Failed, &policy), State::Down(Voice::Probe));
    assert_eq!(State::New.after(Signal::Unanswered, &policy), State::Down(Voice::Traffic));
    assert_eq!(State::Down(Voice::Traffic).after(Signal::Passed, &policy), State::Up);
}

/// The verdict flips when the last `fall` results were failures, and back when the last `rise` were none; in every sequence of
/// eight signals, with every policy up to 3 and 3.
#[test]
fn every_sequence_of_signals_has_the_verdict_that_its_last_results_say() {
    const LEN: u32 = 8;
    for (rise, fall) in (1..=3).flat_map(|rise| (1..=3).map(move |fall| (rise, fall))) {
        let policy = policy(rise, fall);
        for number in 0..SIGNALS.len().pow(LEN) {
            let signals = (0..LEN).map(|i| SIGNALS[number / SIGNALS.len().pow(i) % SIGNALS.len()]);
            let mut state = State::New;
            // What this implementation does not keep: everything.
            let (mut healthy, mut run) = (true, 0);
            for signal in signals {
                state = state.after(signal, &policy);
                let speaks_against = match signal {
                    Signal::Passed => !healthy,
                    Signal::Failed => healthy,
                    Signal::Unanswered if healthy => true,
                    Signal::Unanswered | Signal::Suspected => continue,
                };
                run = if speaks_against { run + 1 } else { 0 };
                if run == if healthy { fall } else { rise } {
                    (healthy, run) = (!healthy, 0);
                }
                assert_eq!(state.is_healthy(), healthy, "sequence {number}, rise {rise}, fall {fall}");
            }
        }
    }
}

#[test]
fn counts_do_not_wrap() {
    let most = NonZero::<u16>::MAX;
    let policy = policy(u16::MAX, u16::MAX);
    assert_eq!(State::Failing(most).after(Signal::Failed, &policy), State::Down(Voice::Probe));
    assert_eq!(State::Rising(Voice::Probe, most).after(Signal::Passed, &policy), State::Up);
}
