//! The ways through the site.

use crate::topology::{SOON, Site};
use anyhow::Result;
use std::net::SocketAddr;

/// What stands between the clients and the servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The clients ask one server; the balancer's place is a plain router.
    Direct,
    /// nftables `dnat` with connection tracking.
    KernelNat,
    /// HAProxy in HTTP mode, sticky by the cookie, with connections to servers kept open.
    Haproxy,
    /// nginx, sticky by a hash of the cookie, with connections to servers kept open.
    Nginx,
    /// The product, `nat` without affinity.
    Nat,
    /// The product, `ipip` with direct return, without affinity.
    Ipip,
    /// The product, `nat` by cookie.
    Cookie,
}

impl Way {
    pub(super) const ALL: [Self; 7] =
        [Self::Direct, Self::KernelNat, Self::Haproxy, Self::Nginx, Self::Nat, Self::Ipip, Self::Cookie];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::KernelNat => "kernel-nat",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Nat => "stickleback-nat",
            Self::Ipip => "stickleback-ipip",
            Self::Cookie => "stickleback-cookie",
        }
    }

    /// The one that does the same work.
    pub(super) const fn peer(self) -> Self {
        match self {
            Self::Direct | Self::KernelNat | Self::Nat | Self::Ipip => Self::KernelNat,
            Self::Haproxy | Self::Nginx | Self::Cookie => Self::Haproxy,
        }
    }

    /// What clients connect to.
    pub(super) fn address(self) -> SocketAddr {
        match self {
            Self::Direct => SocketAddr::from(([10, 2, 1, 2], 80)),
            Self::KernelNat => SocketAddr::from(([10, 97, 0, 1], 80)),
            Self::Haproxy => SocketAddr::from(([10, 1, 0, 1], 80)),
            Self::Nginx => SocketAddr::from(([10, 1, 0, 1], 81)),
            Self::Nat => SocketAddr::from(([10, 99, 0, 1], 80)),
            Self::Ipip => SocketAddr::from(([10, 99, 0, 2], 80)),
            Self::Cookie => SocketAddr::from(([10, 99, 0, 3], 80)),
        }
    }

    /// Whether this machine has what it needs.
    pub(super) fn is_possible(self, site: &Site) -> Result<bool> {
        let program = match self {
            Self::KernelNat => "nft",
            Self::Haproxy => "haproxy",
            Self::Direct | Self::Nginx | Self::Nat | Self::Ipip | Self::Cookie => return Ok(true),
        };
        Ok(site.lb.try_sh(&format!("command -v {program}"), SOON)?.status.success())
    }
}
