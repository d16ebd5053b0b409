//! Connections of XDP nodes that the switch goes on with by itself: which they are, and the entries of each.
//!
//! Whoever tells of connections tells all of them each time; what differs from what the switch has is what changes.

use super::ports::{Ports, Route};
use super::row::{Content, Key, Table};
use super::wanted::number;
use lb_common::abi::switch;
use lb_core::mirror::Express;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

/// Entries that change; `None` = it goes.
pub(super) type Changes = Vec<(Key, Option<Content>)>;

/// The connections that the switch has.
pub(super) struct Offloads {
    held: BTreeMap<(u64, u64), Held>,
    /// What their entries are found by: two connections never have one in common.
    keys: HashSet<Key>,
    places: Places,
}

/// A connection that the switch has.
struct Held {
    turn: Turn,
    /// Slot of its service, as `lbd` numbers them.
    service: u16,
    rows: [(Key, Content); 2],
}

/// Where the switch notes what it has to know of a connection, and whose the note is.
#[derive(Clone, Copy)]
struct Turn {
    place: u16,
    generation: u16,
}

/// Places of notes.
struct Places {
    free: Vec<u16>,
    /// By place: how often it has had an owner, from some number on, so that notes of an earlier `lbd`'s connections are told apart, too.
    generations: Vec<u16>,
}

/// What a connection needs of the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ways {
    /// Slot of its service, as `lbd` numbers them.
    pub(super) service: u16,
    /// The same as the switch does.
    pub(super) number: u16,
    /// The way to its client: MACs, MTU and port.
    pub(super) client: [u128; 4],
    /// The way to its backend.
    pub(super) backend: [u128; 4],
}

impl Offloads {
    /// The switch has none that anybody knows of.
    pub(super) fn new() -> Self {
        Self {
            held: BTreeMap::new(),
            keys: HashSet::new(),
            places: Places::new(RandomState::new().hash_one(0) as u16),
        }
    }

    /// Makes these connections the ones that the switch has, as far as there is a way and room for them; answers what changes.
    pub(super) fn follow(&mut self, all: &[Express], ways: impl Fn(&Express) -> Option<Ways>) -> Changes {
        let wanted = all.iter().filter_map(|express| Some((express.id, (express, ways(express)?))));
        let wanted: BTreeMap<(u64, u64), (&Express, Ways)> = wanted.collect();
        let mut changes = Changes::new();
        for (_, gone) in self.held.extract_if(.., |id, _| !wanted.contains_key(id)) {
            self.places.free.push(gone.turn.place);
            for (key, _) in gone.rows {
                self.keys.remove(&key);
                changes.push((key, None));
            }
        }
        for (id, (express, ways)) in wanted {
            match self.held.entry(id) {
                Entry::Occupied(mut held) => {
                    let held = held.get_mut();
                    // Of one connection only the ways change.
                    let rows = rows(express, &ways, held.turn);
                    let is_new =
                        |(now, was): &(&(Key, Content), &(Key, Content))| now != was && now.0 == was.0;
                    let new = rows.iter().zip(&held.rows).filter(is_new);
                    changes.extend(new.map(|((key, content), _)| (key.clone(), Some(content.clone()))));
                    if rows.iter().zip(&held.rows).all(|(now, was)| now.0 == was.0) {
                        (held.service, held.rows) = (ways.service, rows);
                    }
                }
                Entry::Vacant(vacant) => {
                    let keys = keys(express);
                    // Who told of the other one has still to say that it is over.
                    if keys.iter().any(|key| self.keys.contains(key)) {
                        continue;
                    }
                    let Some(turn) = self.places.take() else { continue };
                    let rows = rows(express, &ways, turn);
                    self.keys.extend(keys);
                    changes.extend(rows.iter().map(|(key, content)| (key.clone(), Some(content.clone()))));
                    vacant.insert(Held { turn, service: ways.service, rows });
                }
            }
        }
        changes
    }

    /// Those of a service, by its slot as `lbd` numbers them.
    pub(super) fn of(&self, service: u16) -> u64 {
        self.held.values().filter(|held| held.service == service).count() as u64
    }
}

impl Places {
    fn new(generation: u16) -> Self {
        let count = switch::TURN_ENTRIES;
        let free = (0..count).rev().filter_map(|place| u16::try_from(place).ok());
        Self { free: free.collect(), generations: vec![generation; count as usize] }
    }

    fn take(&mut self) -> Option<Turn> {
        let place = self.free.pop()?;
        let generation = &mut self.generations[usize::from(place)];
        *generation = generation.wrapping_add(1);
        Some(Turn { place, generation: *generation })
    }
}

/// The way to an address by these routes; only who looks for clients takes one to everywhere.
pub(super) fn way(routes: &[Route], ports: &Ports, address: IpAddr, is_client: bool) -> Option<[u128; 4]> {
    let leading = routes.iter().filter(|route| route.leads_to(address) && (is_client || route.prefix > 0));
    let [destination, source, _, mtu, port] = leading.max_by_key(|route| route.prefix)?.values(ports).ok()?;
    Some([destination, source, mtu, port])
}

/// What the segments of the client are found by, and those of the backend.
fn keys(express: &Express) -> [Key; 2] {
    let key = |from: (IpAddr, u16), to: (IpAddr, u16)| {
        let fields = [number(from.0.into()), number(to.0.into()), u128::from(from.1), u128::from(to.1)];
        Key::exact(Table::Offloaded, fields)
    };
    [key(express.client, express.service), key(express.backend, express.source)]
}

fn rows(express: &Express, ways: &Ways, turn: Turn) -> [(Key, Content); 2] {
    let row = |from: (IpAddr, u16),
               to: (IpAddr, u16),
               [sequence, acknowledgement]: [u32; 2],
               (left, right): (u8, u8),
               way: [u128; 4],
               is_reply| {
        let addresses = [number(from.0.into()), number(to.0.into()), u128::from(from.1), u128::from(to.1)];
        let numbers = [sequence.into(), acknowledgement.into(), left.into(), right.into()];
        let owner = [u128::from(ways.number), u128::from(is_reply)];
        let turn = [u128::from(turn.place), u128::from(turn.generation)];
        Content::of([&addresses[..], &numbers, &way, &owner, &turn].concat())
    };
    let [to_backend, to_client] = keys(express);
    let Express { client, service, backend, source, offset, windows, .. } = *express;
    [
        (to_backend, row(source, backend, [0, offset], (0, 0), ways.backend, false)),
        (to_client, row(service, client, [offset.wrapping_neg(), 0], windows, ways.client, true)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const WAYS: Ways = Ways { service: 5, number: 50, client: [1, 2, 1_500, 3], backend: [4, 5, 1_400, 6] };

    fn express(n: u16) -> Express {
        let at = |last, port| (Ipv4Addr::new(10, 0, 0, last).into(), port);
        Express {
            id: (1, n.into()),
            client: at(1, n),
            service: at(2, 80),
            backend: at(3, 8_080),
            source: at(4, n),
            offset: 7,
            windows: (3, 0),
        }
    }

    #[test]
    fn a_connection_has_an_entry_for_each_direction_which_undo_each_other() {
        let mut offloads = Offloads::new();
        let changes = offloads.follow(&[express(9)], |_| Some(WAYS));
        let at = |last: u128| 0xffff_0a00_0000 + last;
        let [(from_client, Some(to_backend)), (from_backend, Some(to_client))] = &changes[..] else {
            panic!("{changes:?}")
        };
        assert_eq!(from_client.fields, [at(1), at(2), 9, 80]);
        assert_eq!(to_backend.values[..14], [at(4), at(3), 9, 8_080, 0, 7, 0, 0, 4, 5, 1_400, 6, 50, 0]);
        assert_eq!(from_backend.fields, [at(3), at(4), 8_080, 9]);
        let behind = u128::from(7_u32.wrapping_neg());
        assert_eq!(to_client.values[..14], [at(2), at(1), 80, 9, behind, 0, 3, 0, 1, 2, 1_500, 3, 50, 1]);
        assert_eq!(to_backend.values[14..], to_client.values[14..], "one note for both");
        assert_eq!((offloads.of(5), offloads.of(6)), (1, 0));
    }

    #[test]
    fn only_what_differs_is_written() {
        let mut offloads = Offloads::new();
        let all: Vec<_> = (1..=100).map(express).collect();
        assert_eq!(offloads.follow(&all, |_| Some(WAYS)).len(), 200);
        assert!(offloads.follow(&all, |_| Some(WAYS)).is_empty());
        let moved = Ways { client: [9, 2, 1_500, 3], ..WAYS };
        let changes = offloads.follow(&all, |express| Some(if express.client.1 == 7 { moved } else { WAYS }));
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].0, keys(&express(7))[1]);
        // One is over, one has no way any more.
        let changes = offloads.follow(&all[1..], |express| (express.client.1 != 7).then_some(WAYS));
        let gone: HashSet<Key> =
            changes.into_iter().filter_map(|(key, now)| now.is_none().then_some(key)).collect();
        assert_eq!(gone, [1, 7].into_iter().flat_map(|n| keys(&express(n))).collect());
        assert_eq!(offloads.held.len(), 98);
    }

    #[test]
    fn a_note_of_an_earlier_connection_is_nobodys() {
        let mut offloads = Offloads::new();
        let turn = |changes: &Changes| changes[0].1.as_ref().map(|content| content.values[14..].to_vec());
        let first = turn(&offloads.follow(&[express(1)], |_| Some(WAYS))).expect("an entry");
        offloads.follow(&[], |_| Some(WAYS));
        let second = turn(&offloads.follow(&[express(1)], |_| Some(WAYS))).expect("an entry");
        assert_eq!(first[0], second[0]);
        assert_ne!(first[1], second[1]);
    }

    #[test]
    fn two_connections_never_share_an_entry_and_the_second_comes_when_the_first_is_over() {
        let mut offloads = Offloads::new();
        // The same client's ports, by way of another node.
        let other = Express { id: (2, 1), source: (Ipv4Addr::new(10, 0, 0, 5).into(), 1), ..express(1) };
        assert_eq!(offloads.follow(&[other, express(1)], |_| Some(WAYS)).len(), 2);
        assert_eq!(offloads.held.len(), 1);
        let changes = offloads.follow(&[other], |_| Some(WAYS));
        let kept: Vec<_> = changes.iter().filter(|(_, content)| content.is_some()).collect();
        assert_eq!((kept.len(), offloads.held.len()), (2, 1));
        assert!(kept.iter().any(|(key, _)| *key == keys(&other)[1]));
    }

    #[test]
    fn what_there_is_no_place_for_stays_with_its_node() {
        let mut offloads = Offloads::new();
        let all: Vec<_> = (0..=u16::MAX).map(express).collect();
        let more = Express { id: (2, 0), client: (Ipv4Addr::new(10, 0, 0, 9).into(), 1), ..express(0) };
        let more = Express { source: (Ipv4Addr::new(10, 0, 0, 9).into(), 1), ..more };
        let both: Vec<_> = all.iter().copied().chain([more]).collect();
        assert_eq!(offloads.follow(&both, |_| Some(WAYS)).len(), 2 * all.len());
        assert_eq!(offloads.held.len(), all.len());
        assert_eq!(offloads.follow(&both[1..], |_| Some(WAYS)).len(), 4);
    }
}
