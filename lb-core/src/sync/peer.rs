//! What is known of another member, and what it is to be sent.

use super::clock::Ways;
use super::wire::{Hello, Lives, Message, Range, Standing, Statement};
use crate::binding::{NodeId, StreamId, Time, Vector};
use core::time::Duration;
use std::collections::VecDeque;

/// Former lives of a peer that are told from its present one.
const FORMER_LIVES: usize = 8;
/// Ranges that are served to one peer at a time.
const MOST_RANGES: usize = 64;

/// Another member.
pub(super) struct Peer {
    /// The vector it last told.
    pub(super) told: Vector,
    /// Whether it told one in its present life.
    pub(super) has_told: bool,
    /// The sender's clock with it.
    told_sent: u64,
    /// The highest it has told in its present life: what it need not be sent again.
    pub(super) reached: Vector,
    pub(super) heard: Option<Time>,
    pub(super) incarnation: Option<u32>,
    /// What another life of it must have heard to be believed.
    challenge: u32,
    /// What it last wanted to hear; 0 = nothing yet.
    response: u32,
    former: VecDeque<u32>,
    /// When a life that is not proven said that it has the database: it may be that this node is not heard there.
    pub(super) has_more: Option<Time>,
    pub(super) ways: Ways,
    /// Its answer to the question that a starting node puts: in which lives it sees the others. `None` = not yet in its present life.
    pub(super) answer: Option<Lives>,
    /// It asked for our vector.
    pub(super) must_answer: bool,
    pub(super) vector_due: Time,
    /// Own events sent to it.
    pub(super) pushed: u64,
    pub(super) push_due: Option<Time>,
    pub(super) serving: Vec<Range>,
    /// Ranges it asked for that are gone: stream and first event that is there.
    pub(super) unavailable: Vec<(StreamId, u64)>,
    /// Fetching, place and number of the chunks that it is to be sent.
    pub(super) snapshot: Option<(u32, u32, u8)>,
    /// A chunk that must wait until an own event is durable.
    pub(super) held: Option<(StreamId, u64, Vec<u8>)>,
    pub(super) views: Vec<u64>,
    /// What it last said of servers; `None` = nothing in its present life.
    pub(super) statement: Option<Statement>,
    /// The sender's clock with it.
    stated_sent: u64,
    pub(super) is_blocked: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// What a message says of its sender's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// It goes on.
    Present,
    /// Another one followed.
    Former,
    /// Whether it goes on is not known yet: the peer is asked.
    Unproven,
}

/// A challenge from a lot.
fn challenge(lot: u64) -> u32 {
    ((lot >> 32) as u32).max(1)
}

/// A member as an administrator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Who.
    pub id: NodeId,
    /// How long ago it was heard; `None` = never.
    pub silent: Option<Duration>,
    /// Its vector as it last told it.
    pub told: Vector,
    /// Events that this node has and it has not.
    pub behind: u64,
    /// Events that it has and this node has not.
    pub ahead: u64,
    /// Bytes received from it.
    pub received: u64,
    /// Bytes sent to it.
    pub sent: u64,
    /// Whether its transport has no room.
    pub is_blocked: bool,
    /// Servers that serve nobody there, by service and number; `None` = it has not said.
    pub failed: Option<Vec<(u32, u64)>>,
}

impl Peer {
    /// Somebody of whom nothing is known; `lot` is random.
    pub(super) fn new(now: Time, lot: u64) -> Self {
        Self {
            told: Vector::default(),
            has_told: false,
            told_sent: 0,
            reached: Vector::default(),
            heard: None,
            incarnation: None,
            challenge: challenge(lot),
            response: 0,
            former: VecDeque::new(),
            has_more: None,
            ways: Ways::default(),
            answer: None,
            must_answer: false,
            vector_due: now,
            pushed: 0,
            push_due: None,
            serving: Vec::new(),
            unavailable: Vec::new(),
            snapshot: None,
            held: None,
            views: Vec::new(),
            statement: None,
            stated_sent: 0,
            is_blocked: false,
            received: 0,
            sent: 0,
        }
    }

    /// What goes with every message to it.
    pub(super) const fn hello(&self) -> Hello {
        Hello { challenge: self.challenge, response: self.response }
    }

    /// Notes in which life the peer sent a message.
    ///
    /// Another life begins with its response to the challenge that was chosen when the last one began: a late message of
    /// a life that is over cannot have it. `lot` is random.
    pub(super) fn lives_in(&mut self, message: &Message<'_>, lot: u64, now: Time, silence: Duration) -> Life {
        let incarnation = message.incarnation;
        let is_present = self.incarnation == Some(incarnation);
        if !is_present && self.former.contains(&incarnation) && !self.is_silent(now, silence) {
            return Life::Former;
        }
        if let Some(hello) = message.hello {
            self.response = hello.challenge;
        }
        if is_present {
            return Life::Present;
        }
        if message.hello.is_some_and(|hello| hello.response != self.challenge) {
            // It needs the challenge.
            self.vector_due = now;
            return Life::Unproven;
        }
        self.challenge = challenge(lot);
        self.former.retain(|&life| life != incarnation);
        if let Some(former) = self.incarnation.replace(incarnation) {
            self.former.push_back(former);
            if self.former.len() > FORMER_LIVES {
                self.former.pop_front();
            }
        }
        // What it knew it may have forgotten.
        self.answer = None;
        (self.told, self.told_sent, self.reached) = (Vector::default(), 0, Vector::default());
        self.has_told = false;
        self.ways = Ways::default();
        self.pushed = 0;
        (self.snapshot, self.held) = (None, None);
        self.serving.clear();
        (self.statement, self.stated_sent) = (None, 0);
        self.vector_due = now;
        Life::Present
    }

    /// Takes its vector, unless a later one was had.
    pub(super) fn tells(&mut self, vector: &Vector, sent: u64, own: Option<StreamId>) {
        for (stream, event) in vector.iter() {
            self.reached.raise(stream, event);
        }
        self.has_told = true;
        if sent >= self.told_sent {
            (self.told, self.told_sent) = (vector.clone(), sent);
        }
        if let Some(own) = own {
            self.pushed = self.pushed.max(self.told.event(own));
        }
    }

    /// Takes what it says of servers, unless it has said something since; whether that is news.
    pub(super) fn states(&mut self, statement: Statement, sent: u64) -> bool {
        if sent < self.stated_sent {
            return false;
        }
        self.stated_sent = sent;
        let is_news = self.statement.as_ref() != Some(&statement);
        self.statement = Some(statement);
        is_news
    }

    /// Takes on a range that it asks for.
    pub(super) fn serve(&mut self, range: Range) {
        self.serving.retain(|other| other.stream != range.stream);
        if self.serving.len() < MOST_RANGES {
            self.serving.push(range);
        }
    }

    pub(super) fn is_silent(&self, now: Time, period: Duration) -> bool {
        self.heard.is_none_or(|heard| now.since(heard) > period)
    }

    pub(super) fn status(&self, id: NodeId, own: &Vector, now: Time) -> PeerStatus {
        PeerStatus {
            id,
            silent: self.heard.map(|heard| now.since(heard)),
            told: self.told.clone(),
            behind: self.told.behind(own),
            ahead: own.behind(&self.told),
            received: self.received,
            sent: self.sent,
            is_blocked: self.is_blocked,
            failed: self.statement.as_ref().map(|statement| {
                let failed = statement.iter().filter(|(_, standing)| **standing == Standing::Failed);
                failed.map(|(&server, _)| server).collect()
            }),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |(_, _, chunk)| chunk.capacity())
            + (self.told.len() + self.reached.len()) * 32
            + self.serving.capacity() * size_of::<Range>()
    }
}
