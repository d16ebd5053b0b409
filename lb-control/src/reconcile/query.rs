//! Answers to questions about what runs.

use super::{
    BackendView, ChangeError, ExplainInputs, FlowFilter, FlowRow, HopState, OutcomeRow, QueryError,
    ServiceView, SessionFilter, SessionRow, TableRow, View,
    handle::Part,
    node::{Applied, Node},
    recovery,
};
use crate::dataplane::{self, Cursor, clock::monotonic_ns};
use lb_common::abi::{
    Addr, Binding, BindingKey, BindingOp, BindingRecord, BindingWord, Counters, Flow, FlowWord, MAX_BACKENDS,
    MAX_SERVICES, Outcome, RecordResult, ServiceKey, SettingsFlags, Status, Vitals, map,
};
use lb_core::pool::{BackendSpec, Desired, ServiceSpec, layout::BackendPlan, row};
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Names of what bindings and flows speak of by number.
struct Names<'a> {
    services: HashMap<u32, &'a str>,
    backends: HashMap<(u16, u16), &'a str>,
}

impl<'a> Names<'a> {
    fn of(applied: Option<&'a Applied>) -> Self {
        let mut names = Self { services: HashMap::new(), backends: HashMap::new() };
        let Some(applied) = applied else { return names };
        for (pool, place) in applied.pools.iter().zip(&applied.places) {
            let service = &pool.service;
            names.services.insert(service.id, &service.name);
            for (backend, place) in service.backends.iter().zip(&place.backends) {
                names.backends.insert((place.slot, place.generation), &backend.name);
            }
        }
        names
    }

    fn service(&self, id: u32) -> Option<String> {
        self.services.get(&id).map(|&name| name.to_owned())
    }

    fn backend(&self, slot: u16, generation: u16) -> Option<String> {
        self.backends.get(&(slot, generation)).map(|&name| name.to_owned())
    }
}

impl Node {
    pub(super) fn view(&mut self) -> dataplane::Result<View> {
        let applied = self.applied().cloned();
        let mut services = Vec::new();
        for (pool, place) in applied.iter().flat_map(|applied| applied.pools.iter().zip(&applied.places)) {
            let spec = &pool.service;
            let slots: Vec<u16> = place.backends.iter().map(|backend| backend.slot).collect();
            let traffic = self.plane.counters(&[place.slot], &slots)?;
            let noted = traffic.backends.into_iter().zip(self.plane.vitals(&slots)?);
            let backends = spec.backends.iter().zip(&place.backends).zip(noted);
            let backends =
                backends.map(|((backend, place), noted)| self.backend_view(spec, backend, *place, noted));
            let backends: Vec<BackendView> = backends.collect();
            let counters = match &pool.prefix {
                None => traffic.services.first().copied().unwrap_or_default(),
                Some(_) => {
                    backends.iter().fold(Counters::default(), |sum, backend| sum.plus(backend.counters))
                }
            };
            services.push(ServiceView {
                offloaded: self.plane.offloaded(place.slot)?,
                backends,
                counters,
                prefix: pool.prefix.clone(),
                spec: spec.clone(),
                slot: place.slot,
                table_size: if place.member_count == 0 { 0 } else { place.mask + 1 },
            });
        }
        services.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(View {
            services,
            attachments: self.plane.attachments()?,
            sizes: self.plane.sizes(),
            peers: self.actual().peers.iter().map(|peer| peer.id).collect(),
            bindings: self.plane.usage()?.bindings,
            repairing: self.is_dirty(),
        })
    }

    fn backend_view(
        &self,
        service: &ServiceSpec,
        spec: &BackendSpec,
        place: BackendPlan,
        (counters, vitals): (Counters, Vitals),
    ) -> BackendView {
        let configured = self.applied().and_then(|applied| {
            let backends = configured_backends(&applied.desired, &service.name)?;
            backends.iter().find(|other| other.name == spec.name)
        });
        let word = self.target().status_word(Status::word(place.slot));
        BackendView {
            configured_weight: configured.map(|old| old.weight).filter(|&weight| weight != spec.weight),
            configured_admin: configured.map(|old| old.admin).filter(|&admin| admin != spec.admin),
            slot: place.slot,
            generation: place.generation,
            status: match (Status::serves(word, place.slot), Status::accepts(word, place.slot)) {
                (_, true) => Status::Up,
                (true, false) => Status::Draining,
                (false, false) => Status::Down,
            },
            health: self.world.health.of(&service.name, &spec.name).cloned(),
            hop: match self.world.hops.get(&spec.address) {
                Some(way) => HopState::Resolved { hop: way.hop, source: way.source },
                None => HopState::Unresolved,
            },
            counters,
            vitals,
            ramp: self.world.ramps.percent(&service.name, &spec.name),
            spec: spec.clone(),
        }
    }

    pub(super) fn outcomes(&mut self) -> dataplane::Result<Vec<OutcomeRow>> {
        let counts = self.plane.outcomes()?;
        let rows = Outcome::ALL.iter().map(|&outcome| OutcomeRow {
            outcome,
            packets: counts.get(outcome as usize).copied().unwrap_or_default(),
        });
        Ok(rows.collect())
    }

    pub(super) fn tables(&mut self, flows_live: Option<u64>) -> dataplane::Result<Vec<TableRow>> {
        let (sizes, usage) = (self.plane.sizes(), self.plane.usage()?);
        let image = self.target();
        let backends = image.backends.values().filter(|backend| backend.address != Addr::NONE).count();
        let services = image.services.keys().filter(|key| key.kind == ServiceKey::BY_PORT).count();
        let row = |name, size: u32, used: Option<u64>| TableRow { name, size: size.into(), used };
        Ok(vec![
            row(map::SERVICES, MAX_SERVICES, Some(services as u64)),
            row(map::BACKENDS, MAX_BACKENDS, Some(backends as u64)),
            row(map::ARENA, sizes.arena, self.arena_used()),
            row(map::BINDINGS, sizes.bindings, Some(usage.bindings)),
            row(map::FLOWS, sizes.flow_records(), flows_live),
            row(map::HOLDS, sizes.holds, Some(usage.holds)),
        ])
    }

    /// Arena chunks of the tables that stand.
    fn arena_used(&self) -> Option<u64> {
        let places = &self.applied()?.places;
        let chunk = lb_common::abi::ARENA_CHUNK as u32;
        let used =
            places.iter().map(|place| (place.members + place.member_count - place.table).div_ceil(chunk));
        Some(used.map(u64::from).sum())
    }

    /// Sessions of one page that the filter lets through.
    pub(super) fn sessions(
        &mut self,
        filter: &SessionFilter,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Part<SessionRow>, QueryError> {
        let wanted = self.numbers(filter.service.as_deref(), filter.backend.as_deref())?;
        let page = self.plane.bindings(cursor, limit)?;
        let (names, now) = (Names::of(self.applied()), monotonic_ns());
        let rows = page.rows.iter().filter(|(key, binding)| {
            let word = BindingWord(binding.word);
            wanted.takes(key.service, (word.backend(), word.slot_generation()))
                && filter.session.is_none_or(|session| session == key.session)
        });
        Ok(Part { rows: rows.filter_map(|row| session_row(row, &names, now)).collect(), next: page.next })
    }

    pub(super) fn session(&mut self, service: &str, session: u64) -> Result<SessionRow, ChangeError> {
        let key = BindingKey::new(self.service(service)?.0.id, session);
        let found = self.plane.binding(&key)?;
        let row = found
            .and_then(|binding| session_row(&(key, binding), &Names::of(self.applied()), monotonic_ns()));
        row.ok_or_else(|| ChangeError::UnknownSession { service: service.to_owned(), session })
    }

    pub(super) fn session_delete(&mut self, service: &str, session: u64) -> Result<(), ChangeError> {
        let key = BindingKey::new(self.service(service)?.0.id, session);
        let service = service.to_owned();
        let Some(binding) = self.plane.binding(&key)? else {
            return Err(ChangeError::UnknownSession { service, session });
        };
        let record = BindingRecord {
            session,
            word: binding.word,
            lifetime: 0,
            service: key.service,
            op: BindingOp::Delete as u8,
            pad: 0,
            home: 0,
        };
        match self.plane.apply_bindings(&[record])?.first() {
            Some(RecordResult::Applied) => Ok(()),
            Some(RecordResult::Absent) => Err(ChangeError::UnknownSession { service, session }),
            Some(
                RecordResult::Superseded | RecordResult::Busy | RecordResult::Full | RecordResult::Invalid,
            )
            | None => Err(ChangeError::SessionMoved { service, session }),
        }
    }

    pub(super) fn session_pin(
        &mut self,
        service: &str,
        session: u64,
        backend: &str,
        lifetime: Duration,
    ) -> Result<(), ChangeError> {
        let key = BindingKey::new(self.service(service)?.0.id, session);
        let (_, place) = self.backend(service, backend)?;
        let service = service.to_owned();
        // It holds against what is there, and against what packets make of that meanwhile.
        let generation = match self.plane.binding(&key)? {
            Some(binding) => BindingWord(binding.word).generation().wrapping_add(1),
            None => 0,
        };
        let word = BindingWord::new(place.slot, place.generation, generation).with(BindingWord::PINNED);
        let record = BindingRecord {
            session,
            word: word.0,
            lifetime: row::nanoseconds(lifetime),
            service: key.service,
            op: BindingOp::Put as u8,
            pad: 0,
            home: 0,
        };
        match self.plane.apply_bindings(&[record])?.first() {
            Some(RecordResult::Applied) => Ok(()),
            Some(RecordResult::Full) => Err(ChangeError::SessionsFull),
            Some(
                RecordResult::Superseded | RecordResult::Busy | RecordResult::Absent | RecordResult::Invalid,
            )
            | None => Err(ChangeError::SessionMoved { service, session }),
        }
    }

    /// Flows of one page that the filter lets through.
    pub(super) fn flows(
        &mut self,
        filter: &FlowFilter,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Part<FlowRow>, QueryError> {
        let wanted = self.numbers(filter.service.as_deref(), filter.backend.as_deref())?;
        let page = self.plane.flows(cursor, limit)?;
        let (names, now) = (Names::of(self.applied()), monotonic_ns());
        let rows = page.rows.iter().filter(|flow| {
            wanted.takes(flow.service, (flow.backend, flow.backend_generation))
                && filter.client.is_none_or(|client| IpAddr::from(flow.client.source) == client)
                && filter.state.is_none_or(|state| FlowWord(flow.word).state() == state)
        });
        Ok(Part { rows: rows.map(|flow| flow_row(flow, &names, now)).collect(), next: page.next })
    }

    pub(super) fn explain(&mut self, service: &str) -> Result<ExplainInputs, ChangeError> {
        let (spec, place) = self.service(service)?;
        let row = lb_core::pool::row::service(spec, place);
        let rules = self.target().affinities.get(&place.slot).copied().unwrap_or_default();
        let servers = place.servers.entries().to_vec();
        let (secrets, settings) = (Box::new(self.target().secrets), self.target().settings);
        let (table, members) = if row.member_count == 0 {
            (Vec::new(), Vec::new())
        } else {
            let size = row.table_mask + 1;
            (
                recovery::slots(&mut *self.plane, row.table, row.table + size)?,
                recovery::slots(&mut *self.plane, row.members, row.members + row.member_count)?,
            )
        };
        let view = self.view()?.services.into_iter().find(|view| view.spec.name == service);
        let view = view.ok_or_else(|| self.unknown_service(service))?;
        Ok(ExplainInputs {
            service: row,
            table,
            members,
            rules,
            servers,
            secrets,
            view,
            session_secret: *settings.session_secret(),
            other_secret: (settings.flags & SettingsFlags::TWO_SECRETS != 0)
                .then_some(*settings.other_secret()),
        })
    }

    /// A service and its place.
    pub(super) fn service(
        &self,
        name: &str,
    ) -> Result<(&ServiceSpec, &lb_core::pool::layout::ServicePlan), ChangeError> {
        let applied = self.applied().ok_or_else(|| self.unknown_service(name))?;
        let mut pools = applied.pools.iter().map(|pool| &pool.service).zip(&applied.places);
        pools.find(|(service, _)| service.name == name).ok_or_else(|| self.unknown_service(name))
    }

    /// A backend of a service and its place.
    pub(super) fn backend(
        &self,
        service: &str,
        name: &str,
    ) -> Result<(&BackendSpec, BackendPlan), ChangeError> {
        let (spec, place) = self.service(service)?;
        let mut backends = spec.backends.iter().zip(&place.backends);
        let found = backends.find(|(backend, _)| backend.name == name);
        found.map(|(backend, place)| (backend, *place)).ok_or_else(|| ChangeError::UnknownBackend {
            service: service.to_owned(),
            name: name.to_owned(),
            suggestion: nearest(name, spec.backends.iter().map(|backend| backend.name.as_str())),
        })
    }

    pub(super) fn unknown_service(&self, name: &str) -> ChangeError {
        let pools = self.applied().into_iter().flat_map(|applied| &applied.pools);
        ChangeError::UnknownService {
            name: name.to_owned(),
            suggestion: nearest(name, pools.map(|pool| pool.service.name.as_str())),
        }
    }

    fn numbers(&self, service: Option<&str>, backend: Option<&str>) -> Result<Wanted, QueryError> {
        let unknown = QueryError::Unknown;
        let id =
            service.map(|name| self.service(name).map(|(spec, _)| spec.id)).transpose().map_err(unknown)?;
        let backends = match (service, backend) {
            (_, None) => None,
            (Some(service), Some(backend)) => {
                let (_, place) = self.backend(service, backend).map_err(unknown)?;
                Some(vec![(place.slot, place.generation)])
            }
            (None, Some(backend)) => {
                let pools = self.applied().into_iter().flat_map(|applied| &applied.pools);
                let found = pools.filter_map(|pool| self.backend(&pool.service.name, backend).ok());
                Some(found.map(|(_, place)| (place.slot, place.generation)).collect())
            }
        };
        Ok(Wanted { service: id, backends })
    }
}

/// Backends of a service or of a path's pool, as configured.
fn configured_backends<'a>(desired: &'a Desired, pool: &str) -> Option<&'a [BackendSpec]> {
    desired.services.iter().find_map(|service| {
        let path = || service.paths.iter().find(|path| path.name == pool).map(|path| &path.backends[..]);
        if service.name == pool { Some(&service.backends[..]) } else { path() }
    })
}

/// Numbers that a filter lets through; `None` = all.
struct Wanted {
    service: Option<u32>,
    backends: Option<Vec<(u16, u16)>>,
}

impl Wanted {
    fn takes(&self, service: u32, backend: (u16, u16)) -> bool {
        self.service.is_none_or(|wanted| wanted == service)
            && self.backends.as_ref().is_none_or(|wanted| wanted.contains(&backend))
    }
}

/// The name that is meant, when it is near enough.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let measured = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    let best = measured.min().filter(|(edits, known)| *edits * 2 <= known.chars().count());
    best.map(|(_, known)| known.to_owned())
}

fn session_row((key, binding): &(BindingKey, Binding), names: &Names<'_>, now: u64) -> Option<SessionRow> {
    let word = BindingWord(binding.word);
    if binding.expires <= now || word.has(BindingWord::DEAD) {
        return None;
    }
    Some(SessionRow {
        service: names.service(key.service),
        service_id: key.service,
        session: key.session,
        backend: names.backend(word.backend(), word.slot_generation()),
        slot: word.backend(),
        generation: word.generation(),
        expires_in: Duration::from_nanos(binding.expires - now),
        pinned: word.has(BindingWord::PINNED),
        unsynced: word.has(BindingWord::UNSYNCED),
    })
}

fn flow_row(flow: &Flow, names: &Names<'_>, now: u64) -> FlowRow {
    FlowRow {
        service: names.service(flow.service),
        backend: names.backend(flow.backend, flow.backend_generation),
        client: flow.client,
        server: flow.server,
        state: FlowWord(flow.word).state(),
        session: flow.session,
        idle: Duration::from_nanos(now.saturating_sub(flow.last_seen)),
        offset: FlowWord(flow.word).has(FlowWord::SPLICED).then(|| flow.answer.wrapping_sub(flow.isn)),
    }
}
