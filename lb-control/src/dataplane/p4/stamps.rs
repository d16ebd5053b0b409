//! Numbers of backends in TCP timestamps, for services that want them: which backend has which, and what time it is.

use super::link::Found;
use super::numbers::Tag;
use super::row::{Content, Key, Table};
use lb_common::abi::{Addr, Backend, Service, ServiceFlags, ServiceKey};
use lb_core::stamp::{Claim, Mark, Marks, Owner};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::num::NonZero;
use std::time::{SystemTime, UNIX_EPOCH};

/// The switch is told the time in steps of so many milliseconds, a minute. It goes on by itself.
const STEP: u32 = 1 << 16;

/// Tells by how much the clock of the backend at an address is ahead of the wall clock.
pub(super) type TellingTime = Box<dyn Fn(SocketAddr) -> Option<u32> + Send>;

/// Who has which number, and on what they rest.
pub(super) struct Stamps {
    ahead: TellingTime,
    /// Services that want numbers.
    services: HashSet<u32>,
    /// Their backends.
    backends: Vec<(Owner, SocketAddr)>,
    marks: Marks,
    /// The time that the switch was told last.
    told: Option<u32>,
}

impl Stamps {
    /// Nobody has any; clocks are asked for there.
    pub(super) fn new(ahead: TellingTime) -> Self {
        Self { ahead, services: HashSet::new(), backends: Vec::new(), marks: Marks::default(), told: None }
    }

    /// These are the services and backends that there are.
    pub(super) fn survey(&mut self, services: &[(ServiceKey, Service)], backends: &[(u16, Backend)]) {
        let wants = |service: &Service| service.flags & ServiceFlags::STAMPED != 0;
        let ports: HashMap<u32, u16> = services
            .iter()
            .filter(|(key, service)| key.kind == ServiceKey::BY_PORT && wants(service))
            .map(|(key, service)| (service.id, key.port.host()))
            .collect();
        let place = |row: &Backend| {
            let port = *ports.get(&row.service).filter(|_| row.address != Addr::NONE)?;
            let port = if row.port.host() == 0 { port } else { row.port.host() };
            Some(((row.service, row.number), SocketAddr::new(row.address.into(), port)))
        };
        self.backends = backends.iter().filter_map(|(_, row)| place(row)).collect();
        self.services = ports.into_keys().collect();
        self.marks.settle(&self.claims());
    }

    /// Whether clocks say something else than they did.
    pub(super) fn have_changed(&self) -> bool {
        if self.backends.is_empty() {
            return false;
        }
        let mut marks = self.marks.clone();
        marks.settle(&self.claims());
        marks != self.marks
    }

    /// Takes over what connections on the switch have.
    pub(super) fn adopt(&mut self, found: Vec<Found>, owner: impl Fn(Tag) -> Option<Owner>) {
        let mark = |found: Found| {
            Some((owner(found.backend)?, Mark::read(NonZero::new(found.number)?, found.stamp)))
        };
        self.marks.adopt(found.into_iter().filter_map(mark));
    }

    /// Whether a backend may have sessions: in a service that wants numbers, when it has one.
    pub(super) fn admit(&self, backend: &Backend) -> bool {
        !self.services.contains(&backend.service) || self.mark(backend).is_some()
    }

    /// The mark of a backend, in a service that wants them.
    pub(super) fn mark(&self, backend: &Backend) -> Option<Mark> {
        let mark = self.marks.of((backend.service, backend.number));
        mark.filter(|_| self.services.contains(&backend.service))
    }

    /// The time, where anybody wants it.
    pub(super) fn time(&mut self) -> Option<(Key, Content)> {
        self.told = (!self.services.is_empty()).then(wall);
        self.told.map(|wall| (Key::exact(Table::Clock, []), Content::of([u128::from(wall)])))
    }

    /// The time, when it is another one than the switch was told.
    pub(super) fn tick(&mut self) -> Option<(Key, Content)> {
        if self.told.is_none_or(|told| told == wall()) { None } else { self.time() }
    }

    fn claims(&self) -> Vec<Claim> {
        let claim =
            |(owner, address): &(Owner, SocketAddr)| Claim { owner: *owner, ahead: (self.ahead)(*address) };
        self.backends.iter().map(claim).collect()
    }
}

/// The wall clock in milliseconds, modulo 2^32, in steps; never 0, which is no time.
fn wall() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u32;
    (now & !(STEP - 1)).max(1)
}
