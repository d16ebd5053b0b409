//! Service addresses on an interface, for a routing daemon to pick up, for as long as somebody renews them.
//!
//! Each address is given to the kernel with a lifetime. A node that dies takes nothing back, and
//! need not: the kernel drops the addresses, and the routing daemon what it made of them. Addresses that somebody else put
//! on the interface are left alone.

use crate::net::addresses::local;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// How long an address stays without being renewed, as a rule.
pub const LIFETIME: Duration = Duration::from_secs(10);
/// How often it is renewed within a lifetime: two renewals may be lost.
const RENEWALS: u32 = 3;
/// `IFA_PROTO` of our addresses; the kernel's own are below 4.
const OURS: u8 = 0x53;

/// Why addresses are not announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// No netlink socket.
    #[error("service addresses cannot be announced: no netlink socket: {0}")]
    Open(#[source] std::io::Error),
    /// The interface is not there.
    #[error(
        "service addresses cannot be announced: no interface {name}; expected one that exists, such as lo, or make it with `ip link add {name} type dummy`"
    )]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// The kernel refused.
    #[error("{address} on {interface}: {source}; lbd needs CAP_NET_ADMIN")]
    Refused {
        /// The address.
        address: String,
        /// The interface.
        interface: String,
        /// Why.
        source: rtnetlink::Error,
    },
}

/// Announces addresses on one interface.
#[derive(Debug)]
pub struct Announcer {
    interface: String,
    index: u32,
    lifetime: Duration,
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
    /// Addresses that were left alone at the last look.
    foreign: BTreeSet<IpAddr>,
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Announcer {
    /// For an interface that exists; addresses stay for `lifetime` when nobody renews them. Needs a tokio runtime.
    pub async fn open(interface: &str, lifetime: Duration) -> Result<Self, AnnounceError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(AnnounceError::Open)?;
        let task = tokio::spawn(connection);
        let found = handle.link().get().match_name(interface.to_owned()).execute().try_next().await;
        let name = interface.to_owned();
        let Ok(Some(link)) = found else {
            task.abort();
            return Err(AnnounceError::NoInterface { name });
        };
        let foreign = BTreeSet::new();
        Ok(Self { interface: name, index: link.header.index, lifetime, handle, task, foreign })
    }

    /// Makes exactly these addresses of ours be there, for a lifetime from now.
    ///
    /// All are tried; the first failure is told.
    pub async fn announce(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), AnnounceError> {
        let present = self.present().await?;
        let foreign: BTreeSet<IpAddr> =
            present.iter().filter(|(_, found)| !is_ours(found)).map(|(address, _)| *address).collect();
        for address in foreign.intersection(wanted).filter(|address| !self.foreign.contains(address)) {
            tracing::warn!(
                %address,
                interface = self.interface,
                "somebody else put this address there: it stays announced whether this node is ready or not"
            );
        }
        let mut outcome = Ok(());
        for address in wanted.difference(&foreign) {
            outcome = outcome.and(self.put(*address).await);
        }
        for (address, found) in present.into_iter().filter(|(_, found)| is_ours(found)) {
            if !wanted.contains(&address) {
                outcome = outcome.and(self.remove(address, found).await);
            }
        }
        self.foreign = foreign;
        outcome
    }

    async fn put(&self, address: IpAddr) -> Result<(), AnnounceError> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(self.index, address, length).replace();
        let mut life = CacheInfo::default();
        life.ifa_valid = u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX);
        // Nothing of the node's own is sent from a service's address.
        life.ifa_preferred = 0;
        let message = request.message_mut();
        message.attributes.push(AddressAttribute::CacheInfo(life));
        // The address is on every node: looking for duplicates would find them.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(OURS)));
        request.execute().await.map_err(|source| self.refused(address.to_string(), source))
    }

    async fn remove(&self, address: IpAddr, found: AddressMessage) -> Result<(), AnnounceError> {
        let removed = self.handle.address().del(found).execute().await;
        removed.map_err(|source| self.refused(address.to_string(), source))
    }

    async fn present(&self) -> Result<BTreeMap<IpAddr, AddressMessage>, AnnounceError> {
        let all = self.handle.address().get().set_link_index_filter(self.index).execute();
        let all: Vec<AddressMessage> =
            all.try_collect().await.map_err(|source| self.refused("its addresses".to_owned(), source))?;
        let ours = all.into_iter().filter(|message| message.header.index == self.index);
        Ok(ours.filter_map(|message| Some((local(&message)?, message))).collect())
    }

    fn refused(&self, address: String, source: rtnetlink::Error) -> AnnounceError {
        AnnounceError::Refused { address, interface: self.interface.clone(), source }
    }
}

/// Announces what is wanted while the node is ready, until either source ends; then takes everything back.
pub async fn follow(
    mut announcer: Announcer,
    mut ready: watch::Receiver<bool>,
    mut wanted: watch::Receiver<BTreeSet<IpAddr>>,
) {
    let mut renewal = interval(announcer.lifetime / RENEWALS);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complaint = None;
    loop {
        let addresses = wanted.borrow_and_update().clone();
        let is_ready = *ready.borrow_and_update();
        let announced = if is_ready { addresses } else { BTreeSet::new() };
        let failure = announcer.announce(&announced).await.err().map(|error| error.to_string());
        if let Some(error) = failure.as_ref().filter(|_| failure != complaint) {
            tracing::error!(error, "not announced as it should be; trying again");
        }
        complaint = failure;
        let goes_on = tokio::select! {
            _ = renewal.tick() => true,
            changed = ready.changed() => changed.is_ok(),
            changed = wanted.changed() => changed.is_ok(),
        };
        if !goes_on {
            break;
        }
    }
    if let Err(error) = announcer.announce(&BTreeSet::new()).await {
        tracing::warn!(%error, "left announced; the kernel drops it in {:?}", announcer.lifetime);
    }
}

fn is_ours(message: &AddressMessage) -> bool {
    let ours = AddressAttribute::Protocol(AddressProtocol::from(OURS));
    message.attributes.contains(&ours)
}

#[cfg(test)]
mod tests;
