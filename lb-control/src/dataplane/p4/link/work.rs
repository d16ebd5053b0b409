//! What is done while the switch is connected.

use super::{Found, MarksFound, News, Question, Shared, Standing, Told, Trouble, lock};
use crate::dataplane::p4::client::Client;
use crate::dataplane::p4::numbers::Tag;
use crate::dataplane::p4::program::{Program, number};
use crate::dataplane::p4::proto::{
    Arbitration, DigestList, DigestListAck, Entity, EntryError, IdleTimeoutNotification, P4Data, Request,
    Response, Update, UpdateKind, data_kind, entity_kind, request_kind, response_kind,
};
use crate::dataplane::p4::row::{Content, Key, Table};
use crate::dataplane::p4::wanted::Rows;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tonic::Code;
use tracing::{info, warn};

/// Updates in one write.
const BATCH: usize = 1_000;
/// How long what the switch refused waits for the next try.
const AGAIN: Duration = Duration::from_secs(1);
/// Refused updates that are told of in one go.
const TOLD: usize = 5;
/// What is told and not taken: a caller that is busy hears of it from the table, later.
const MOST_NEWS: usize = 1 << 20;

/// One connection.
pub(super) struct Session {
    client: Client,
    program: Arc<Program>,
    shared: Arc<Mutex<Shared>>,
    requests: Sender<Request>,
    /// What the switch has; `None` = not known yet.
    actual: Option<Rows>,
    is_master: bool,
    /// The switch was given the program: it has nothing that anybody knew.
    is_fresh: bool,
    /// What it has was compared with what it should.
    is_compared: bool,
    /// What is to be written, in this order.
    due: BTreeSet<Key>,
    /// What was refused, until when it waits.
    refused: Option<(Instant, BTreeSet<Key>)>,
}

impl Session {
    pub(super) fn new(
        client: Client,
        program: Arc<Program>,
        shared: Arc<Mutex<Shared>>,
        requests: Sender<Request>,
    ) -> Self {
        Self {
            client,
            program,
            shared,
            requests,
            actual: None,
            is_master: false,
            is_fresh: false,
            is_compared: false,
            due: BTreeSet::new(),
            refused: None,
        }
    }

    /// When there is more to do, if nobody says anything.
    pub(super) fn next(&self) -> Option<Instant> {
        if !self.is_master {
            return None;
        }
        if !self.due.is_empty() {
            return Some(Instant::now());
        }
        self.refused.as_ref().map(|(until, _)| *until)
    }

    /// Takes in what the switch says.
    pub(super) async fn hear(&mut self, message: Response) -> Result<(), Trouble> {
        match message.kind {
            Some(response_kind::Kind::Arbitration(arbitration)) => self.elect(&arbitration),
            Some(response_kind::Kind::Digest(list)) => self.learn(list).await?,
            Some(response_kind::Kind::Idle(idle)) => self.forget(&idle),
            Some(response_kind::Kind::Error(error)) => {
                warn!(code = error.code, "the switch says: {}", error.message);
            }
            None => {}
        }
        Ok(())
    }

    /// Does a stretch of what is due.
    pub(super) async fn work(&mut self) -> Result<(), Trouble> {
        let questions = std::mem::take(&mut lock(&self.shared).questions);
        for question in questions {
            self.answer(question).await?;
        }
        if !self.is_master || lock(&self.shared).wanted.is_none() {
            return Ok(());
        }
        if self.actual.is_none() {
            self.read_back().await?;
        }
        if !self.is_compared && !self.compare() {
            return Ok(());
        }
        self.due.append(&mut lock(&self.shared).changed);
        if let Some((until, keys)) = &mut self.refused
            && *until <= Instant::now()
        {
            self.due.append(keys);
            self.refused = None;
        }
        self.write().await?;
        let mut shared = lock(&self.shared);
        let is_settled = self.due.is_empty() && self.refused.is_none() && shared.changed.is_empty();
        shared.standing = if is_settled { Standing::Settled } else { Standing::Behind };
        Ok(())
    }

    fn elect(&mut self, arbitration: &Arbitration) {
        let is_master = arbitration.status.as_ref().is_none_or(|status| status.code == 0);
        if is_master == self.is_master {
            return;
        }
        self.is_master = is_master;
        // Whoever was master before has changed what we knew.
        self.actual = None;
        self.is_compared = false;
        self.due.clear();
        self.refused = None;
        let standing = if is_master { Standing::Behind } else { Standing::Backup };
        lock(&self.shared).standing = standing;
        let highest = arbitration.election_id.map_or(0, |id| id.low);
        info!(is_master, highest, "mastership of the switch");
    }

    /// New sessions.
    async fn learn(&mut self, list: DigestList) -> Result<(), Trouble> {
        if list.digest_id == self.program.digest() {
            let told: Vec<Told> = list.data.iter().filter_map(told).collect();
            let mut shared = lock(&self.shared);
            for told in told {
                bind(&mut shared, told, News::Bound(told));
            }
        }
        let ack = DigestListAck { digest_id: list.digest_id, list_id: list.list_id };
        let request = Request { kind: Some(request_kind::Kind::DigestAck(ack)) };
        self.requests.send(request).await.map_err(|_| Trouble::Closed)
    }

    /// Sessions that ended.
    fn forget(&mut self, idle: &IdleTimeoutNotification) {
        let mut shared = lock(&self.shared);
        for entry in &idle.entries {
            match self.program.decode(entry) {
                Ok((key, _)) if key.table == Table::Bindings => end(&mut shared, key),
                Ok((key, _)) => warn!("the switch tells that {key} is idle, which does not age"),
                Err(error) => warn!("{error}"),
            }
        }
    }

    /// Reads every table back.
    async fn read_back(&mut self) -> Result<(), Trouble> {
        let running = self.client.running().await?;
        let mut actual = Rows::new();
        self.is_fresh = running != Some(self.program.cookie());
        if self.is_fresh {
            self.client.run(&self.program).await?;
            info!("the switch runs our program now");
        } else {
            for table in Table::ALL {
                let read = self.client.read(self.program.all_of(table).into_iter().collect()).await?;
                for entity in read {
                    let Some(entity_kind::Kind::Table(entry)) = entity.kind else { continue };
                    match self.program.decode(&entry) {
                        Ok((key, content)) if !entry.is_default_action => {
                            actual.insert(key, content);
                        }
                        Ok(_) => {}
                        Err(error) => warn!("{error}; it stays"),
                    }
                }
            }
        }
        self.tell_of_digests().await?;
        lock(&self.shared).marks =
            MarksFound::of(actual.iter().filter_map(|(key, row)| mark(key, row)).collect());
        self.actual = Some(actual);
        Ok(())
    }

    /// Finds what is to be written; not before what should be is said with the switch's marks in view.
    fn compare(&mut self) -> bool {
        let mut shared = lock(&self.shared);
        let Some(actual) = self.actual.as_ref().filter(|_| matches!(shared.marks, MarksFound::None)) else {
            return false;
        };
        if !self.is_fresh {
            adopt_ways(&mut shared, actual);
            settle_sessions(&mut shared, actual);
        }
        let Some(wanted) = &shared.wanted else { return false };
        self.due = differences(wanted, actual);
        // What cannot be read back is always written.
        let is_known = |key: &&Key| !key.table.is_default() && key.table != Table::Rates;
        let differences = self.due.iter().filter(is_known).count();
        info!(entries = actual.len(), differences, "compared with the switch");
        shared.changed.clear();
        self.is_compared = true;
        true
    }

    async fn tell_of_digests(&mut self) -> Result<(), Trouble> {
        for kind in [UpdateKind::Insert, UpdateKind::Modify] {
            let update = Update { kind: kind as i32, entity: Some(self.program.digest_entry()) };
            match self.client.write(vec![update]).await?.first() {
                Some(None) => return Ok(()),
                Some(Some(error)) if error.code == Code::AlreadyExists as i32 => {}
                Some(Some(error)) => warn!("the switch refuses to tell of new sessions: {}", error.message),
                None => {}
            }
        }
        Ok(())
    }

    /// Writes a batch of what is due: first what is made and changed, what others lead to first; then what goes, the other way round.
    async fn write(&mut self) -> Result<(), Trouble> {
        let Some(actual) = &mut self.actual else { return Ok(()) };
        let mut batch = Vec::new();
        {
            let shared = lock(&self.shared);
            let Some(wanted) = &shared.wanted else { return Ok(()) };
            let mut same = Vec::new();
            let made = self.due.iter().filter_map(|key| wanted.get(key).map(|content| (key, Some(content))));
            let gone = self.due.iter().rev().filter(|key| !wanted.contains_key(*key)).map(|key| (key, None));
            for (key, content) in made.chain(gone) {
                match change(key, content, actual.get(key)) {
                    Some(kind) => batch.push((kind, key.clone(), content.cloned())),
                    None => same.push(key.clone()),
                }
                if batch.len() == BATCH {
                    break;
                }
            }
            for key in same {
                self.due.remove(&key);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let updates = batch.iter().map(|(kind, key, content)| {
            let nothing = Content::default();
            let entity: Option<Entity> = self.program.encode(key, content.as_ref().unwrap_or(&nothing));
            Update { kind: *kind as i32, entity }
        });
        let answers = self.client.write(updates.collect()).await?;
        let mut told = 0;
        for ((kind, key, content), error) in batch.into_iter().zip(answers) {
            self.due.remove(&key);
            match (error, content) {
                (None, Some(content)) => {
                    actual.insert(key, content);
                }
                (None, None) => {
                    actual.remove(&key);
                }
                (Some(error), _) => {
                    if !surprise(kind, &error, &key, actual) && told < TOLD {
                        told += 1;
                        warn!("the switch refuses to {} {key}: {}", verb(kind), error.message);
                    }
                    let again = || (Instant::now() + AGAIN, BTreeSet::new());
                    self.refused.get_or_insert_with(again).1.insert(key);
                }
            }
        }
        Ok(())
    }

    async fn answer(&mut self, question: Question) -> Result<(), Trouble> {
        let Question { counter, places, answer } = question;
        let asked = match places {
            None => self.program.counter(counter).map(|all| vec![all]),
            Some(places) => places.iter().map(|place| self.program.counter_at(counter, *place)).collect(),
        };
        let entities = match asked {
            Ok(asked) if asked.is_empty() => Vec::new(),
            Ok(asked) => match self.client.read(asked).await {
                Ok(entities) => entities,
                // Nothing runs there yet.
                Err(status) if status.code() == Code::FailedPrecondition => Vec::new(),
                Err(status) => return Err(status.into()),
            },
            Err(error) => {
                warn!("{error}");
                Vec::new()
            }
        };
        let numbers = entities.into_iter().filter_map(|entity| match entity.kind {
            Some(entity_kind::Kind::Counter(counter)) => {
                let place = u32::try_from(counter.index.unwrap_or_default().index).ok()?;
                let data = counter.data.unwrap_or_default();
                Some((place, data.packets.max(0).cast_unsigned(), data.bytes.max(0).cast_unsigned()))
            }
            _ => None,
        });
        // Who asked may have lost patience.
        let _ = answer.send(numbers.collect());
        Ok(())
    }
}

/// Makes a session's entry wanted, and tells of it.
fn bind(shared: &mut Shared, told: Told, news: News) {
    let Some(&lifetime) = shared.lifetimes.get(&told.service) else { return };
    let key = Key::exact(Table::Bindings, [u128::from(told.service), u128::from(told.session)]);
    let is_known = shared.wanted.as_ref().is_none_or(|wanted| wanted.contains_key(&key));
    if is_known || shared.bindings >= shared.capacity || shared.news.len() >= MOST_NEWS {
        return;
    }
    let values = told.backend.values().into();
    shared.put_session(key, Some(Content { values, idle: lifetime }));
    shared.news.push(news);
}

/// Makes a session's entry unwanted, and tells of it.
fn end(shared: &mut Shared, key: Key) {
    let [service, session] = key.fields[..] else { return };
    let (Ok(service), Ok(session)) = (u32::try_from(service), u64::try_from(session)) else { return };
    shared.put_session(key, None);
    shared.news.push(News::Idle { service, session });
}

/// A way to a backend that we have not found yet is as the switch has it: who goes before us found it.
fn adopt_ways(shared: &mut Shared, actual: &Rows) {
    let first = Key::exact(Table::Backends, []);
    let ways = actual.range(first..).take_while(|(key, _)| key.table == Table::Backends);
    let known = ways.filter(|(key, way)| shared.leads_to_owner(key, way));
    let known: Vec<(Key, Content)> = known.map(|(key, way)| (key.clone(), way.clone())).collect();
    let Some(wanted) = &mut shared.wanted else { return };
    for (key, way) in known {
        if !wanted.contains_key(&key) {
            wanted.insert(key.clone(), way);
            shared.adopted.insert(key);
        }
    }
}

/// Sessions are what the switch says, when it has gone on without us: some are new, some ended.
fn settle_sessions(shared: &mut Shared, actual: &Rows) {
    let Some(wanted) = &shared.wanted else { return };
    let first = Key::exact(Table::Bindings, []);
    let sessions = |rows: &Rows| -> Vec<(Key, Content)> {
        let from = rows.range(&first..).take_while(|(key, _)| key.table == Table::Bindings);
        from.map(|(key, content)| (key.clone(), content.clone())).collect()
    };
    let ended: Vec<Key> =
        sessions(wanted).into_iter().map(|(key, _)| key).filter(|key| !actual.contains_key(key)).collect();
    let mut found = Vec::new();
    for (key, content) in sessions(actual) {
        let ([service, session], Some(backend)) = (&key.fields[..], Tag::read(&content.values)) else {
            continue;
        };
        if wanted.contains_key(&key) || !shared.owners.contains_key(&backend) {
            continue;
        }
        if let (Ok(service), Ok(session)) = (u32::try_from(*service), u64::try_from(*session)) {
            found.push(Told { service, session, backend });
        }
    }
    for key in ended {
        end(shared, key);
    }
    for told in found {
        bind(shared, told, News::Found(told));
    }
}

/// A backend's mark, as an entry of it says.
fn mark(key: &Key, row: &Content) -> Option<Found> {
    let ([_, number], [stamp, backend @ .., _]) = (&key.fields[..], &row.values[..]) else { return None };
    if key.table != Table::Marks {
        return None;
    }
    Some(Found {
        number: u8::try_from(*number).ok()?,
        stamp: u32::try_from(*stamp).ok()?,
        backend: Tag::read(backend)?,
    })
}

/// Keys of which the switch has something else than it should.
fn differences(wanted: &Rows, actual: &Rows) -> BTreeSet<Key> {
    let changed =
        wanted.iter().filter(|(key, content)| actual.get(*key) != Some(content)).map(|(key, _)| key);
    let extra = actual.keys().filter(|key| !wanted.contains_key(*key));
    changed.chain(extra).cloned().collect()
}

/// What leads from the one to the other.
fn change(key: &Key, wanted: Option<&Content>, actual: Option<&Content>) -> Option<UpdateKind> {
    match (wanted, actual) {
        (wanted, actual) if wanted == actual => None,
        // A default entry, and a place of an array, are always there.
        (Some(_), _) if key.table.is_default() || key.table == Table::Rates => Some(UpdateKind::Modify),
        (None, _) if key.table.is_default() => None,
        (None, Some(_)) if key.table == Table::Rates => Some(UpdateKind::Modify),
        (Some(_), None) => Some(UpdateKind::Insert),
        (Some(_), Some(_)) => Some(UpdateKind::Modify),
        (None, _) => Some(UpdateKind::Delete),
    }
}

/// Corrects what we thought the switch has; whether that was all that was wrong.
fn surprise(kind: UpdateKind, error: &EntryError, key: &Key, actual: &mut Rows) -> bool {
    let is = |code: Code| error.code == code as i32;
    match kind {
        UpdateKind::Insert if is(Code::AlreadyExists) => {
            // Something stands there; whatever it is, it is changed with the next try.
            actual.insert(key.clone(), Content { values: Vec::new(), idle: u64::MAX });
            true
        }
        UpdateKind::Modify | UpdateKind::Delete if is(Code::NotFound) => {
            actual.remove(key);
            true
        }
        UpdateKind::Insert | UpdateKind::Modify | UpdateKind::Delete | UpdateKind::Unspecified => false,
    }
}

const fn verb(kind: UpdateKind) -> &'static str {
    match kind {
        UpdateKind::Insert => "add",
        UpdateKind::Modify => "change",
        UpdateKind::Delete => "remove",
        UpdateKind::Unspecified => "touch",
    }
}

/// A session in a digest: service, session key, backend slot, its generation.
fn told(data: &P4Data) -> Option<Told> {
    let (data_kind::Kind::Struct(fields) | data_kind::Kind::Tuple(fields)) = data.kind.as_ref()? else {
        return None;
    };
    let value = |place: usize| match fields.members.get(place)?.kind.as_ref()? {
        data_kind::Kind::Bits(bytes) => number(bytes),
        data_kind::Kind::Struct(_) | data_kind::Kind::Tuple(_) => None,
    };
    Some(Told {
        service: u32::try_from(value(0)?).ok()?,
        session: u64::try_from(value(1)?).ok()?,
        backend: Tag::read(&[value(2)?, value(3)?])?,
    })
}
