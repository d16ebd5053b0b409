//! The compiled program that `lbd` carries, and the ids of what it names.

use super::proto::{
    Action, CounterEntry, DigestConfig, DigestEntry, Entity, Exact, FieldMatch, Index, Info, Lpm,
    MeterConfig, MeterEntry, Param, Preamble, TableAction, TableEntry, action_type, entity_kind, match_kind,
};
use super::row::{Content, Key, Table};
use lb_common::abi::map;
use prost::Message as _;
use std::collections::HashMap;

/// P4Info as the compiler wrote it.
const INFO: &[u8] = include_bytes!("../../../../p4/v1model/stickleback.p4info.bin");
/// What bmv2 runs.
const BMV2: &[u8] = include_bytes!("../../../../p4/v1model/stickleback.json");
/// Name of the digest of new sessions.
const DIGEST: &str = "binding_t";
/// P4Info's number for an exact match.
const EXACT: i32 = 2;
/// P4Info's number for a longest-prefix match.
const LPM: i32 = 3;

/// What is wrong with a program that does not name what it should.
#[derive(Debug, thiserror::Error)]
#[error("the P4 program inside lbd has no {what}; build it again with `cargo xtask p4 build`, then lbd")]
pub struct ProgramError {
    what: String,
}

impl ProgramError {
    fn missing(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// The program and its ids.
#[derive(Debug)]
pub struct Program {
    cookie: u64,
    tables: HashMap<Table, Ids>,
    by_id: HashMap<u32, Table>,
    counters: HashMap<String, u32>,
    meter: u32,
    digest: u32,
}

/// Ids of one table, in the order in which rows have fields and values.
#[derive(Debug)]
struct Ids {
    table: u32,
    fields: Vec<(u32, bool)>,
    action: u32,
    params: Vec<u32>,
}

/// An entry that is not of this program.
#[derive(Debug, thiserror::Error)]
#[error("the switch told of {what}, which the program in it does not have")]
pub struct ForeignEntry {
    what: String,
}

impl Program {
    /// The program for bmv2.
    pub fn bmv2() -> Result<Self, ProgramError> {
        let info = Info::decode(INFO)
            .map_err(|error| ProgramError::missing(format!("P4Info that can be read ({error})")))?;
        let mut tables = HashMap::new();
        for table in Table::ALL {
            tables.insert(table, Ids::find(&info, table)?);
        }
        let named = |list: &[super::proto::Named], kind: &str, name: &str| {
            let found = list.iter().filter_map(|item| item.preamble.as_ref()).find(|item| is(item, name));
            found.map(|item| item.id).ok_or_else(|| ProgramError::missing(format!("{kind} {name}")))
        };
        let counters = info.counters.iter().filter_map(|counter| counter.preamble.as_ref());
        Ok(Self {
            cookie: cookie(),
            by_id: tables.iter().map(|(table, ids)| (ids.table, *table)).collect(),
            counters: counters.map(|preamble| (short(&preamble.name).to_owned(), preamble.id)).collect(),
            meter: named(&info.meters, "meter", map::RATES)?,
            digest: named(&info.digests, "digest", DIGEST)?,
            tables,
        })
    }

    /// What tells this program from others.
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// What the switch is given to run: P4Info and device configuration.
    pub fn pipeline(&self) -> (Vec<u8>, Vec<u8>) {
        (INFO.to_vec(), BMV2.to_vec())
    }

    /// Id of the digest of new sessions.
    pub const fn digest(&self) -> u32 {
        self.digest
    }

    /// How new sessions are told: at once, so that a session is bound before much more of it comes.
    pub fn digest_entry(&self) -> Entity {
        let config =
            DigestConfig { max_timeout_ns: 10_000_000, max_list_size: 100, ack_timeout_ns: 1_000_000_000 };
        let entry = DigestEntry { digest_id: self.digest, config: Some(config) };
        Entity { kind: Some(entity_kind::Kind::Digest(entry)) }
    }

    /// All counters of an array, to be asked for.
    pub fn counter(&self, name: &str) -> Result<Entity, ProgramError> {
        let id = self.counters.get(name).ok_or_else(|| ProgramError::missing(format!("counter {name}")))?;
        let entry = CounterEntry { counter_id: *id, index: None, data: None };
        Ok(Entity { kind: Some(entity_kind::Kind::Counter(entry)) })
    }

    /// One counter of an array, to be asked for.
    pub fn counter_at(&self, name: &str, place: u32) -> Result<Entity, ProgramError> {
        let id = self.counters.get(name).ok_or_else(|| ProgramError::missing(format!("counter {name}")))?;
        let index = Some(Index { index: place.into() });
        Ok(Entity {
            kind: Some(entity_kind::Kind::Counter(CounterEntry { counter_id: *id, index, data: None })),
        })
    }

    /// All entries of a table, to be asked for.
    pub fn all_of(&self, table: Table) -> Option<Entity> {
        let entry = TableEntry { table_id: self.tables.get(&table)?.table, ..TableEntry::default() };
        Some(Entity { kind: Some(entity_kind::Kind::Table(entry)) })
    }

    /// An entry as it is written.
    pub fn encode(&self, key: &Key, content: &Content) -> Option<Entity> {
        if key.table == Table::Rates {
            let [place] = key.fields[..] else { return None };
            let value = |place: usize| content.values.get(place).map_or(0, |value| *value as i64);
            let config = MeterConfig { cir: value(0), cburst: value(1), pir: value(0), pburst: value(1) };
            let index = Some(Index { index: i64::try_from(place).ok()? });
            let config = (!content.values.is_empty()).then_some(config);
            let entry = MeterEntry { meter_id: self.meter, index, config };
            return Some(Entity { kind: Some(entity_kind::Kind::Meter(entry)) });
        }
        let ids = self.tables.get(&key.table)?;
        let fields = ids.fields.iter().zip(&key.fields).filter_map(|(&(field_id, is_prefix), &value)| {
            let kind = if is_prefix {
                if key.prefix == 0 {
                    return None; // "any" is a field that is left out
                }
                match_kind::Kind::Lpm(Lpm { value: bytes(value), prefix_len: key.prefix.into() })
            } else {
                match_kind::Kind::Exact(Exact { value: bytes(value) })
            };
            Some(FieldMatch { field_id, kind: Some(kind) })
        });
        // An entry that is removed is named by what it is found by.
        let action = (content.values.len() == ids.params.len()).then(|| {
            let params = ids.params.iter().zip(&content.values);
            let params = params.map(|(&param_id, &value)| Param { param_id, value: bytes(value) }).collect();
            let action = Action { action_id: ids.action, params };
            TableAction { kind: Some(action_type::Kind::Action(action)) }
        });
        let entry = TableEntry {
            table_id: ids.table,
            fields: fields.collect(),
            action,
            is_default_action: key.table.is_default(),
            idle_timeout_ns: i64::try_from(content.idle).unwrap_or(i64::MAX),
        };
        Some(Entity { kind: Some(entity_kind::Kind::Table(entry)) })
    }

    /// An entry as it was read.
    pub fn decode(&self, entry: &TableEntry) -> Result<(Key, Content), ForeignEntry> {
        let foreign = |what: String| ForeignEntry { what };
        let table = *self
            .by_id
            .get(&entry.table_id)
            .ok_or_else(|| foreign(format!("table {:#x}", entry.table_id)))?;
        let ids = self.tables.get(&table).ok_or_else(|| foreign(format!("table {}", table.name())))?;
        let mut key = Key { table, fields: Vec::with_capacity(ids.fields.len()), prefix: 0 };
        for (id, is_prefix) in &ids.fields {
            let found =
                entry.fields.iter().find(|field| field.field_id == *id).and_then(|field| field.kind.as_ref());
            let value = match found {
                Some(match_kind::Kind::Exact(exact)) => number(&exact.value),
                Some(match_kind::Kind::Lpm(lpm)) => {
                    key.prefix = u8::try_from(lpm.prefix_len).unwrap_or(u8::MAX);
                    number(&lpm.value)
                }
                None if *is_prefix => Some(0),
                None => None,
            };
            key.fields.push(
                value.ok_or_else(|| foreign(format!("an entry of {} without field {id}", table.name())))?,
            );
        }
        let mut content =
            Content { values: Vec::new(), idle: u64::try_from(entry.idle_timeout_ns).unwrap_or_default() };
        if let Some(action_type::Kind::Action(action)) =
            entry.action.as_ref().and_then(|action| action.kind.as_ref())
        {
            for id in &ids.params {
                let param = action.params.iter().find(|param| param.param_id == *id);
                let value = param.and_then(|param| number(&param.value));
                content.values.push(value.ok_or_else(|| {
                    foreign(format!("an entry of {} without parameter {id}", table.name()))
                })?);
            }
        }
        Ok((key, content))
    }
}

impl Ids {
    fn find(info: &Info, table: Table) -> Result<Self, ProgramError> {
        let name = table.name();
        let found = info.tables.iter().find(|it| it.preamble.as_ref().is_some_and(|it| is(it, name)));
        let found = found.ok_or_else(|| ProgramError::missing(format!("table {name}")))?;
        let action = table.action();
        let does = info.actions.iter().find(|it| it.preamble.as_ref().is_some_and(|it| is(it, action)));
        let does = does.ok_or_else(|| ProgramError::missing(format!("action {action}")))?;
        let fields = found.match_fields.iter().map(|field| match field.match_type {
            EXACT => Ok((field.id, false)),
            LPM => Ok((field.id, true)),
            other => Err(ProgramError::missing(format!(
                "match of kind {other} for field {} of {name}",
                field.name
            ))),
        });
        Ok(Self {
            table: found.preamble.as_ref().map_or(0, |it| it.id),
            fields: fields.collect::<Result<_, _>>()?,
            action: does.preamble.as_ref().map_or(0, |it| it.id),
            params: does.params.iter().map(|param| param.id).collect(),
        })
    }
}

/// What stands behind the last dot of a name.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn is(preamble: &Preamble, name: &str) -> bool {
    short(&preamble.name) == name
}

/// FNV-1a of the program.
fn cookie() -> u64 {
    let all = INFO.iter().chain(BMV2);
    all.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The shortest bytes that hold a number, at least one.
fn bytes(value: u128) -> Vec<u8> {
    let all = value.to_be_bytes();
    let zeros = all.iter().take_while(|byte| **byte == 0).count().min(all.len() - 1);
    all[zeros..].to_vec()
}

/// The number that bytes hold; none when it has more than 128 bits.
pub(super) fn number(bytes: &[u8]) -> Option<u128> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let rest = &bytes[zeros..];
    (rest.len() <= 16).then(|| rest.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_short_as_they_can_be() {
        assert_eq!(bytes(0), [0]);
        assert_eq!(bytes(0x1_00), [1, 0]);
        assert_eq!(bytes(u128::MAX).len(), 16);
        assert_eq!(number(&[0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[1; 17]), None);
    }

    #[test]
    fn program_names_every_table_and_rows_come_back_as_they_went() {
        let program = Program::bmv2().expect("the program that is embedded is whole");
        for table in Table::ALL {
            let ids = &program.tables[&table];
            let fields: Vec<u128> = (1..=ids.fields.len() as u128).collect();
            let prefix = if table == Table::Routes { 96 } else { 0 };
            let key = Key { table, fields, prefix };
            let content = Content { values: (5..5 + ids.params.len() as u128).collect(), idle: 7 };
            let Some(Entity { kind: Some(entity_kind::Kind::Table(entry)) }) = program.encode(&key, &content)
            else {
                panic!("{table:?} is a table");
            };
            let entry = TableEntry::decode(&entry.encode_to_vec()[..]).expect("decodes");
            assert_eq!(program.decode(&entry).expect("ours"), (key, content));
        }
    }
}
