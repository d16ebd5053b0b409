//! The fixture corpus, its executors, and the comparison of what they do with what is expected.
//!
//! Cases are data below `tests/fixtures/`; the packets in them come from an encoder that shares no code
//! with the product. See `docs/fixtures.md`.

mod case;
mod checksum;
mod dissect;
mod executor;
mod fill;
mod host;
mod mutate;
mod netns;
mod replay;
mod rules;
mod switch;
mod tables;
mod xdp;

pub use case::{Area, BoundData, Case, FlowData, PacketStep, Step, Tuple};
pub use checksum::{Problem, check};
pub use dissect::dissect;
pub use executor::{Executor, FlowView, Ran, Verdict};
pub use host::Host;
pub use mutate::mutate;
pub use netns::OwnNamespace;
pub use replay::{live_bindings, live_flows, replay, run_area};
pub use switch::{Compared, Course, Lane, Passage, Switch};
pub use tables::{Change, Tables};
pub use xdp::Kernel;

/// The areas of the corpus, one file each.
pub const AREAS: [&str; 31] = [
    "parse",
    "vlan",
    "service",
    "affinity",
    "choice",
    "bindings",
    "limits",
    "l2",
    "ipip",
    "gue",
    "nat",
    "snat",
    "natlife",
    "icmp",
    "icmpnat",
    "fragments",
    "answers",
    "quic",
    "quicnat",
    "payload",
    "greet",
    "collect",
    "scan",
    "reading",
    "connect",
    "splice",
    "around",
    "learn",
    "secrets",
    "peers",
    "method",
];
