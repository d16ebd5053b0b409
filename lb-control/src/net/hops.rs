//! The way to each backend, followed as the kernel's routes, links and neighbours change.
//!
//! [`Hops::start`] runs one task. It asks the kernel for the route of every target (so policy rules and
//! nexthop groups count), looks up the neighbour behind it, and sends a [`HopChange`] when the result is
//! another than before. Traffic that XDP forwards does not touch the kernel's neighbour entries, so the
//! task also asks the kernel to resolve what is missing and to keep fresh what is in use.

mod asking;
mod events;
mod follow;
mod kernel;
mod message;
mod resolve;
mod tracker;
mod view;

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::abi::Hop;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use resolve::NoWay;

/// Changes that wait for the receiver; while it does not keep up, changes of one address melt into the last.
const CHANGES: usize = 256;

/// The way to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// Interface, addresses and MTU; the interface is the real one below a VLAN device.
    pub hop: Hop,
    /// Our address on the way, the source of tunnel headers; unspecified when the kernel has none to offer.
    pub local: IpAddr,
    /// VLAN id to send with; `None` = untagged.
    pub vlan: Option<u16>,
}

/// Another way to an address than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HopChange {
    /// The target.
    pub address: IpAddr,
    /// Its way now; `None` = there is none (no route, interface down, neighbour does not answer).
    pub way: Option<Way>,
}

/// The follower of ways.
#[derive(Debug)]
pub struct Hops;

impl Hops {
    /// Starts to follow the ways to `targets` in the network namespace of the calling thread's runtime.
    ///
    /// Of a new target nothing is said until it is known: a neighbour that is being asked for is no
    /// change, neither at the start nor when a known one is re-probed. The task ends when the sender of
    /// the targets or the receiver of the changes is dropped; netlink errors are logged and the
    /// connection is made anew.
    pub fn start(targets: watch::Receiver<BTreeSet<IpAddr>>) -> (mpsc::Receiver<HopChange>, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(CHANGES);
        (receiver, tokio::spawn(follow::run(targets, sender)))
    }
}
