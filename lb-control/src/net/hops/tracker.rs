//! Which targets are touched by what, and what was said of them last.
//!
//! No I/O: the session passes events and answers in and takes route queries, neighbour requests and
//! changes out.
//!
//! 1. [`Tracker::resync`], [`Tracker::targets_are`] and [`Tracker::event`] mark targets;
//! 2. while [`Tracker::is_unsettled`]: answer [`Tracker::unrouted`] with [`Tracker::route_is`], then
//!    [`Tracker::settle`];
//! 3. [`Tracker::poll_change`], [`Tracker::poll_ask`] and [`Tracker::poll_release`] until they are empty.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use super::asking::Asking;
use super::events::Event;
use super::resolve::{Outcome, Route, resolve};
use super::view::{NextHop, View};
use super::{HopChange, Way};

/// State of all targets.
#[derive(Default, Debug)]
pub(super) struct Tracker {
    view: View,
    overrun: bool,
    targets: BTreeMap<IpAddr, Target>,
    /// Which targets hang on a neighbour.
    users: BTreeSet<(NextHop, IpAddr)>,
    /// Targets whose route has to be asked for.
    unrouted: BTreeSet<IpAddr>,
    /// Targets whose way has to be worked out again.
    touched: BTreeSet<IpAddr>,
    /// Targets whose way is another than the receiver knows.
    changed: BTreeSet<IpAddr>,
    asking: Asking,
    released: Vec<NextHop>,
}

#[derive(Default, Debug)]
struct Target {
    route: Option<Route>,
    next_hops: Vec<NextHop>,
    /// Result: not known yet, or known to be none, or a way.
    way: Option<Option<Way>>,
    told: Option<Option<Way>>,
}

impl Tracker {
    /// Takes a new picture of the whole; every target is looked at again.
    pub(super) fn resync(&mut self, view: View, now: Instant) {
        self.view = view;
        self.overrun = false;
        for hop in self.hops_in_use() {
            self.asking.update(hop, self.view.neighbour(hop), now);
        }
        self.reroute_all();
    }

    /// Whether reports were lost, so that a new picture is needed.
    pub(super) fn needs_resync(&self) -> bool {
        self.overrun
    }

    /// Takes the set of targets.
    pub(super) fn targets_are(&mut self, targets: &BTreeSet<IpAddr>) {
        let gone: Vec<IpAddr> =
            self.targets.keys().filter(|target| !targets.contains(target)).copied().collect();
        for address in gone {
            if let Some(target) = self.targets.remove(&address) {
                for hop in target.next_hops {
                    self.unuse(hop, address);
                }
            }
            self.unrouted.remove(&address);
            self.touched.remove(&address);
            self.changed.remove(&address);
        }
        for &address in targets {
            self.targets.entry(address).or_insert_with(|| {
                self.unrouted.insert(address);
                Target::default()
            });
        }
    }

    /// Takes a report.
    pub(super) fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Link(index, link) => {
                // Routes come and go with links, and the kernel does not report each of them.
                if self.view.link_is(index, link) {
                    self.reroute_all();
                    for hop in self.hops_in_use().into_iter().filter(|hop| hop.interface == index) {
                        self.asking.update(hop, self.view.neighbour(hop), now);
                    }
                }
            }
            Event::Neighbour(hop, neighbour) => {
                if self.view.neighbour_is(hop, neighbour) {
                    if self.is_used(hop) {
                        self.asking.update(hop, neighbour, now);
                    }
                    self.touched.extend(users_of(&self.users, hop));
                }
            }
            Event::Routes(address, length) => {
                let (first, last) = range(address, length);
                self.unrouted.extend(self.targets.range(first..=last).map(|(target, _)| *target));
            }
            Event::AllRoutes => self.reroute_all(),
            Event::Overrun => self.overrun = true,
        }
    }

    /// Marks every target's route as unknown.
    pub(super) fn reroute_all(&mut self) {
        self.unrouted.extend(self.targets.keys());
    }

    /// Whether anything waits to be worked out or released.
    pub(super) fn is_unsettled(&self) -> bool {
        self.overrun || !self.unrouted.is_empty() || !self.touched.is_empty() || !self.released.is_empty()
    }

    /// Takes up to `most` targets whose route is to be asked for.
    pub(super) fn unrouted(&mut self, most: usize) -> Vec<IpAddr> {
        std::iter::from_fn(|| self.unrouted.pop_first()).take(most).collect()
    }

    /// Takes the answer to a route query.
    pub(super) fn route_is(&mut self, address: IpAddr, route: Route) {
        if let Some(target) = self.targets.get_mut(&address) {
            target.route = Some(route);
            self.touched.insert(address);
        }
    }

    /// Works out the ways of all touched targets.
    pub(super) fn settle(&mut self, now: Instant) {
        for address in std::mem::take(&mut self.touched) {
            self.settle_target(address, now);
        }
    }

    fn settle_target(&mut self, address: IpAddr, now: Instant) {
        let Some(target) = self.targets.get_mut(&address) else { return };
        let Some(route) = &target.route else { return };
        let resolution = resolve(address, route, &self.view);
        let way = match resolution.outcome {
            Outcome::Way(way) => Some(Some(way)),
            Outcome::Waiting => target.way,
            Outcome::Nowhere(reason) => {
                if target.way != Some(None) {
                    tracing::info!(%address, %reason, "no way to the address");
                }
                Some(None)
            }
        };
        target.way = way;
        if target.told == way {
            self.changed.remove(&address);
        } else {
            self.changed.insert(address);
        }
        let before = std::mem::replace(&mut target.next_hops, resolution.next_hops.clone());
        for &hop in resolution.next_hops.iter().filter(|hop| !before.contains(hop)) {
            if !self.is_used(hop) {
                self.asking.update(hop, self.view.neighbour(hop), now);
            }
            self.users.insert((hop, address));
        }
        for &hop in before.iter().filter(|hop| !resolution.next_hops.contains(hop)) {
            self.unuse(hop, address);
        }
    }

    /// Whether the receiver is to be told something.
    pub(super) fn has_change(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The next change to tell.
    pub(super) fn poll_change(&mut self) -> Option<HopChange> {
        while let Some(address) = self.changed.pop_first() {
            if let Some(target) = self.targets.get_mut(&address)
                && let Some(way) = target.way
            {
                target.told = Some(way);
                return Some(HopChange { address, way });
            }
        }
        None
    }

    /// When a neighbour is to be asked for.
    pub(super) fn next_ask(&self) -> Option<Instant> {
        self.asking.next_deadline()
    }

    /// The next neighbour to ask for.
    pub(super) fn poll_ask(&mut self, now: Instant) -> Option<NextHop> {
        let view = &self.view;
        self.asking.poll(now, |hop| view.neighbour(hop))
    }

    /// The next neighbour that is no longer needed.
    pub(super) fn poll_release(&mut self) -> Option<NextHop> {
        self.released.pop()
    }

    fn is_used(&self, hop: NextHop) -> bool {
        users_of(&self.users, hop).next().is_some()
    }

    fn hops_in_use(&self) -> BTreeSet<NextHop> {
        self.users.iter().map(|(hop, _)| *hop).collect()
    }

    fn unuse(&mut self, hop: NextHop, address: IpAddr) {
        self.users.remove(&(hop, address));
        if !self.is_used(hop) && self.asking.remove(hop) {
            self.released.push(hop);
        }
    }
}

/// The targets that hang on a neighbour.
fn users_of(users: &BTreeSet<(NextHop, IpAddr)>, hop: NextHop) -> impl Iterator<Item = IpAddr> {
    // IPv4 addresses sort before IPv6 ones.
    let (first, last) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));
    users.range((hop, first)..=(hop, last)).map(|(_, target)| *target)
}

/// First and last address of a prefix.
fn range(address: IpAddr, length: u8) -> (IpAddr, IpAddr) {
    match address {
        IpAddr::V4(ip) => {
            let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            let first = ip.to_bits() & !host;
            (Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(first | host).into())
        }
        IpAddr::V6(ip) => {
            let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            let first = ip.to_bits() & !host;
            (Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(first | host).into())
        }
    }
}

#[cfg(test)]
mod tests;
