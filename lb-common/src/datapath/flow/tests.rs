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
