//! Where this machine can be called: what a member tells the others when nobody said it.

use super::error::ClusterError;
use crate::net::addresses;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::UdpSocket;

/// Addresses that a member has at most.
const MOST: usize = 8;

/// The address that this machine has on its way to another one, with the port of `listen`.
pub(super) async fn toward(target: &str, listen: SocketAddr) -> Result<Vec<String>, ClusterError> {
    if !listen.ip().is_unspecified() {
        return Ok(vec![listen.to_string()]);
    }
    let failed = |reason: std::io::Error| ClusterError::Unreachable {
        address: target.to_owned(),
        reason: reason.to_string(),
    };
    let mut found = BTreeSet::new();
    for target in tokio::net::lookup_host(target).await.map_err(failed)? {
        let any: IpAddr =
            if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // Nothing is sent: the kernel looks for the way alone.
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { continue };
        if socket.connect(target).await.is_ok()
            && let Ok(own) = socket.local_addr()
        {
            found.insert(SocketAddr::new(own.ip(), listen.port()));
        }
    }
    Ok(found.into_iter().take(MOST).map(|address| address.to_string()).collect())
}

/// All addresses that others may reach this machine at, but for those of services, with the port of `listen`.
pub(super) async fn all(
    listen: SocketAddr,
    services: &BTreeSet<IpAddr>,
) -> Result<Vec<String>, ClusterError> {
    if !listen.ip().is_unspecified() {
        return Ok(vec![listen.to_string()]);
    }
    let owned = addresses::global().await;
    let owned = owned.map_err(|error| ClusterError::Addresses { reason: error.to_string() })?;
    let usable = |address: &IpAddr| (listen.is_ipv6() || address.is_ipv4()) && !services.contains(address);
    let own = owned.into_iter().map(|owned| owned.address).filter(usable);
    Ok(own.take(MOST).map(|ip| SocketAddr::new(ip, listen.port()).to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_listened_on_is_the_one_that_is_told() {
        let listen = "192.0.2.7:7117".parse().unwrap();
        assert_eq!(all(listen, &BTreeSet::new()).await.unwrap(), ["192.0.2.7:7117"]);
        assert_eq!(toward("127.0.0.1:9", listen).await.unwrap(), ["192.0.2.7:7117"]);
    }

    #[tokio::test]
    async fn the_way_to_the_other_node_says_which_address_is_ours() {
        let listen = "[::]:7117".parse().unwrap();
        assert_eq!(toward("127.0.0.1:9", listen).await.unwrap(), ["127.0.0.1:7117"]);
        assert!(toward("no-such-host.invalid:9", listen).await.is_err());
    }

    #[tokio::test]
    async fn neither_loopback_nor_services_are_told() {
        let listen = "0.0.0.0:7117".parse().unwrap();
        let found = all(listen, &BTreeSet::new()).await.unwrap();
        assert!(
            !found.iter().any(|address| address.starts_with("127.") || address.starts_with('[')),
            "{found:?}"
        );
        let services = found.iter().map(|text| text.parse::<SocketAddr>().unwrap().ip()).collect();
        assert!(all(listen, &services).await.unwrap().is_empty());
    }
}
