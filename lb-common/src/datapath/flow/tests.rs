use super::*;
use crate::packet::flag::{ACK, FIN, RST, SYN};

const STATES: [FlowState; 7] = [
    FlowState::Free,
    FlowState::Opening,
    FlowState::Answered,
    FlowState::Established,
    FlowState::Closing,
    FlowState::Closed,
    FlowState::Claimed,
];

fn word(state: FlowState) -> FlowWord {
    FlowWord::new(7, state)
}

#[test]
fn a_reset_closes_every_state() {
    for state in STATES {
        for from_client in [true, false] {
            for flags in [RST, RST | ACK, RST | SYN, RST | FIN] {
                let next = after_segment(word(state), from_client, flags);
                assert_eq!(next.state(), FlowState::Closed);
                assert!(next.has(FlowWord::RESET));
                assert_eq!(next.nonce(), 7);
            }
        }
    }
}

#[test]
fn a_client_that_goes_on_did_not_reset() {
    for (state, fins) in [
        (FlowState::Established, 0),
        (FlowState::Closing, FlowWord::FIN_CLIENT),
        (FlowState::Closing, FlowWord::FIN_SERVER),
    ] {
        let before = word(state).with(fins);
        let reset = after_segment(before, true, RST);
        let reset = after_segment(reset, true, RST | ACK);
        for flags in [SYN, 0] {
            assert_eq!(after_segment(reset, true, flags), reset, "no sign of the old connection");
        }
        assert_eq!(after_segment(reset, false, ACK), reset, "what the backend sent before it knew");
        assert_eq!(after_segment(reset, true, ACK), before);
        let both = after_segment(after_segment(reset, false, FIN | ACK), true, FIN | ACK);
        assert_eq!((both.state(), both.has(FlowWord::RESET)), (FlowState::Closed, false));
        let confirmed = after_segment(reset, false, RST);
        assert_eq!(after_segment(confirmed, true, ACK).state(), FlowState::Closed);
    }
}

#[test]
fn a_reset_that_was_not_of_an_established_flow_stays() {
    for state in [FlowState::Opening, FlowState::Answered, FlowState::Closed] {
        let reset = after_segment(word(state), true, RST);
        assert_eq!(after_segment(reset, true, ACK), reset);
    }
    let reset = after_segment(word(FlowState::Established), false, RST);
    assert_eq!(after_segment(reset, true, ACK), reset);
    assert_eq!(after_segment(after_segment(reset, true, RST), true, ACK), reset);
}

#[test]
fn only_the_backends_syn_ack_answers() {
    for state in STATES {
        let next = after_segment(word(state), false, SYN | ACK);
        let expected = if state == FlowState::Opening { FlowState::Answered } else { state };
        assert_eq!(next.state(), expected, "SYN-ACK from the backend in {state:?}");
        for (from_client, flags) in [(true, SYN), (true, SYN | ACK), (true, ACK), (false, ACK), (false, SYN)]
        {
            assert_eq!(
                after_segment(word(state), from_client, flags),
                word(state),
                "{flags:#x} in {state:?}"
            );
        }
    }
}

#[test]
fn one_fin_closes_half_and_the_other_the_rest() {
    for state in [FlowState::Opening, FlowState::Answered, FlowState::Established, FlowState::Closing] {
        for first in [true, false] {
            let half = after_segment(word(state), first, FIN | ACK);
            assert_eq!(half.state(), FlowState::Closing);
            assert_eq!(after_segment(half, first, FIN | ACK), half, "a FIN sent again changes nothing");
            let both = after_segment(half, !first, FIN | ACK);
            assert_eq!(both.state(), FlowState::Closed);
            assert!(!both.has(FlowWord::RESET));
        }
    }
    let closed = after_segment(word(FlowState::Closed), true, FIN);
    assert_eq!(closed.state(), FlowState::Closed);
}

#[test]
fn lifetimes_follow_state_and_protocol() {
    let settings = Settings {
        tcp_half_open: 1,
        tcp_established: 2,
        tcp_closing: 3,
        tcp_reset: 4,
        udp_new: 5,
        udp_established: 6,
        ..Settings::default()
    };
    let expected = [
        (FlowState::Free, 0, 0),
        (FlowState::Claimed, 0, 0),
        (FlowState::Opening, 1, 5),
        (FlowState::Answered, 1, 5),
        (FlowState::Established, 2, 6),
        (FlowState::Closing, 3, 3),
        (FlowState::Closed, 4, 4),
    ];
    for (state, tcp, udp) in expected {
        assert_eq!(lifetime(&settings, word(state)), tcp, "{state:?}");
        assert_eq!(lifetime(&settings, word(state).with(FlowWord::DATAGRAM)), udp, "{state:?}");
    }
}
