//! The kernel data plane and the reconciler on real maps, programs and interfaces; needs root.

mod attach;
mod bench;
mod cluster;
mod migrate;
mod older;
#[expect(unreachable_pub, reason = "another crate's tests share it")]
#[path = "../../../tests/src/topology/precedence.rs"]
mod precedence;
#[path = "../net_namespaces/program.rs"]
mod program;
mod rebind;
mod reconcile;
mod sandbox;
mod settle;
