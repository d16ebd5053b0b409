//! Which way probes go to a backend, and as whom they ask where it is of another family than its service.

use crate::net::addresses::{self, Owned};
use crate::probe::PathSpec;
use lb_common::abi::{Mode, ProbeEnvelope};
use lb_core::health::{Check, Way};
use lb_core::pool::{Desired, NodeSpec, ServiceSpec};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Addresses that this host can ask from.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Vantage(Vec<Owned>);

impl Vantage {
    /// Of these addresses those that answers come back to: services' addresses, and those that connections are translated to, are others'.
    pub(super) fn new(own: &[Owned], desired: &Desired) -> Self {
        let taken: BTreeSet<IpAddr> = desired
            .services
            .iter()
            .flat_map(|service| [Some(service.address), service.source])
            .flatten()
            .collect();
        Self(own.iter().copied().filter(|own| !taken.contains(&own.address)).collect())
    }

    /// The way of the traffic to a backend, where it is another than that to its own address, and can be gone.
    pub(super) fn path(&self, node: &NodeSpec, service: &ServiceSpec, backend: IpAddr) -> Option<PathSpec> {
        if service.health.as_ref().is_none_or(|spec| spec.way != Way::Traffic) {
            return None;
        }
        let envelope = match service.mode {
            Mode::Nat => return None,
            Mode::L2 => ProbeEnvelope::Plain,
            Mode::Ipip => ProbeEnvelope::Ip,
            Mode::Gue => ProbeEnvelope::IpUdp,
        };
        let source = match backend {
            IpAddr::V4(_) => node.tunnel_v4.map(IpAddr::V4),
            IpAddr::V6(_) => node.tunnel_v6.map(IpAddr::V6),
        };
        let vip = service.address;
        let inner = if vip.is_ipv4() == backend.is_ipv4() {
            None
        } else {
            Some(self.nearest(addresses::toward(backend), vip.is_ipv4())?.address)
        };
        Some(PathSpec { vip, envelope, source, inner, gue_port: node.gue_port })
    }

    /// The address of that family that the interface has which `toward` is on, else another interface's.
    fn nearest(&self, toward: Option<IpAddr>, is_v4: bool) -> Option<Owned> {
        let here = self.0.iter().find(|own| Some(own.address) == toward).map(|own| own.ifindex);
        let of_family = self.0.iter().filter(|own| own.address.is_ipv4() == is_v4);
        of_family.min_by_key(|own| Some(own.ifindex) != here).copied()
    }

    /// The interfaces that have these addresses: where the answers come in.
    pub(super) fn interfaces(&self, used: &BTreeSet<IpAddr>) -> BTreeSet<u32> {
        self.0.iter().filter(|own| used.contains(&own.address)).map(|own| own.ifindex).collect()
    }

    /// What has to be said when this host has no address of a service's family.
    pub(super) fn lack(&self, desired: &Desired) -> Option<String> {
        let family = |is_v4| if is_v4 { "IPv4" } else { "IPv6" };
        let (service, is_v4) = crossings(desired).find(|&(_, is_v4)| self.nearest(None, is_v4).is_none())?;
        Some(format!(
            "service {service}: this host has no {} address to which backends could answer, so health checks go to the {} addresses of its backends \
             and not the way of the traffic",
            family(is_v4),
            family(!is_v4),
        ))
    }
}

/// Services with backends of the other family whose probes go the way of the traffic, and whether they are of IPv4.
pub(super) fn crossings(desired: &Desired) -> impl Iterator<Item = (&str, bool)> {
    let is_led = |service: &&ServiceSpec| {
        let is_packets = |spec: &lb_core::health::HealthSpec| {
            spec.way == Way::Traffic && !matches!(spec.check, Check::Command { .. })
        };
        service.mode != Mode::Nat && service.health.as_deref().is_some_and(is_packets)
    };
    desired.services.iter().filter(is_led).filter_map(|service| {
        let is_v4 = service.address.is_ipv4();
        let crosses = service.backends.iter().any(|backend| backend.address.is_ipv4() != is_v4);
        crosses.then_some((service.name.as_str(), is_v4))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn own(ifindex: u32, address: &str) -> Owned {
        Owned { ifindex, address: address.parse().expect("an address") }
    }

    fn desired(address: &str, backend: &str, mode: &str, lines: &str) -> Desired {
        let file = format!(
            "[[service]]\nname = \"web\"\naddress = \"{address}\"\nport = 80\nmode = \"{mode}\"\n{lines}\n\
             backend = [{{ name = \"a\", address = \"{backend}\" }}]\n"
        );
        config::parse(&file, "test").expect("valid").desired([0; 16])
    }

    #[test]
    fn the_nearest_address_of_the_family_asks() {
        let found =
            [own(3, "2001:db8:3::1"), own(4, "10.1.0.1"), own(5, "2001:db8::80"), own(5, "2001:db8:5::1")];
        let desired = desired("2001:db8::80", "10.1.0.2", "ipip", "");
        let vantage = Vantage::new(&found, &desired);
        let near = |toward: &str| vantage.nearest(toward.parse().ok(), false).map(|own| own.ifindex);
        assert_eq!(near("2001:db8:5::1"), Some(5));
        assert_eq!(near("10.1.0.1"), Some(3), "that interface has none");
        assert_eq!(near(""), Some(3));
        assert!(!vantage.0.contains(&own(5, "2001:db8::80")), "a service's address");
        assert_eq!(vantage.interfaces(&BTreeSet::from([found[3].address])), BTreeSet::from([5]));
        assert_eq!(vantage.lack(&desired), None);
    }

    #[test]
    fn without_an_address_of_the_family_probes_go_directly_and_it_is_said() {
        let crossing = desired("2001:db8::80", "10.1.0.2", "gue", "");
        let service = &crossing.services[0];
        let backend = service.backends[0].address;
        let (none, some) = (Vantage::default(), Vantage(vec![own(2, "2001:db8::1")]));
        assert_eq!(none.path(&crossing.node, service, backend), None);
        let told = none.lack(&crossing).expect("it lacks one");
        assert!(told.contains("service web") && told.contains("no IPv6 address"), "{told}");
        let path = some.path(&crossing.node, service, backend).expect("a way");
        assert_eq!(path.inner, Some(own(2, "2001:db8::1").address));
        for (backend, mode, lines) in [
            ("2001:db8::2", "gue", ""),
            ("10.1.0.2", "ipip", "health = \"none\""),
            ("10.1.0.2", "l2", "health = { kind = \"tcp\", way = \"direct\" }"),
        ] {
            let other = desired("2001:db8::80", backend, mode, lines);
            assert_eq!(crossings(&other).count(), 0, "{mode} {lines}");
            let (service, node) = (&other.services[0], &other.node);
            let path = some.path(node, service, service.backends[0].address);
            assert_eq!(path.map(|path| path.inner), (mode == "gue").then_some(None));
        }
    }
}
