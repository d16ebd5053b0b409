//! One end of a TCP connection, enough of RFC 9293 to be a fair peer and a strict one.

use super::segment::{ACK, FIN, PSH, RST, SYN, Segment};
use std::collections::BTreeMap;
use std::net::SocketAddr;

const MILLISECOND: u64 = 1_000_000;
/// First retransmission timeout, and the largest.
const FIRST_TIMEOUT: u64 = 300 * MILLISECOND;
const LAST_TIMEOUT: u64 = 3_000 * MILLISECOND;
/// Rounding of scaled windows: a peer may go beyond what it was told by less than this.
const ROUNDING: u32 = 1 << 7;
/// SYN-ACKs that are sent before a half-open connection is given up: a minute of them, as by Linux.
const MOST_SYN_ACKS: u32 = 20;

/// What an end can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    pub(super) mss: u16,
    pub(super) scale: Option<u8>,
    pub(super) sack: bool,
    /// Room for bytes that the application has not read.
    pub(super) room: u32,
    pub(super) nagle: bool,
    /// Segments that may be on their way at once.
    pub(super) burst: u32,
}

/// Where the connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    SynSent,
    SynReceived,
    Open,
    /// Reset or given up.
    Dead,
}

/// One end.
#[derive(Debug)]
pub(super) struct Endpoint {
    local: SocketAddr,
    remote: SocketAddr,
    can: Abilities,
    pub(super) stage: Stage,
    first: u32,
    una: u32,
    next: u32,
    most: u32,
    /// What the application wrote, from sequence number `first` + 1 on.
    written: Vec<u8>,
    pub(super) closing: bool,
    peer_window: u32,
    peer_scale: Option<u8>,
    peer_mss: u16,
    sack: bool,
    duplicates: u32,
    timeout: u64,
    timer: Option<u64>,
    tries: u32,
    expected: u32,
    peer_first: u32,
    ahead: BTreeMap<u32, Vec<u8>>,
    peer_fin: Option<u32>,
    pub(super) received: Vec<u8>,
    /// Bytes of `received` that the application has read.
    pub(super) read: usize,
    right_edge: u32,
    pub(super) fin_received: bool,
    pub(super) reset: bool,
    /// Requests that the application answered.
    pub(super) answered: usize,
    pub(super) wrong: Vec<String>,
}

/// `a` is before `b`.
const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Endpoint {
    fn new(local: SocketAddr, remote: SocketAddr, can: Abilities, first: u32, stage: Stage) -> Self {
        Self {
            local,
            remote,
            can,
            stage,
            first,
            una: first,
            next: first.wrapping_add(1),
            most: first.wrapping_add(1),
            written: Vec::new(),
            closing: false,
            peer_window: 0,
            peer_scale: None,
            peer_mss: 536,
            sack: false,
            duplicates: 0,
            timeout: FIRST_TIMEOUT,
            timer: None,
            tries: 1,
            expected: 0,
            peer_first: 0,
            ahead: BTreeMap::new(),
            peer_fin: None,
            received: Vec::new(),
            read: 0,
            right_edge: 0,
            fin_received: false,
            reset: false,
            answered: 0,
            wrong: Vec::new(),
        }
    }

    /// A client that sends its SYN.
    pub(super) fn connect(
        local: SocketAddr,
        remote: SocketAddr,
        can: Abilities,
        first: u32,
        now: u64,
        out: &mut Vec<Segment>,
    ) -> Self {
        let mut end = Self::new(local, remote, can, first, Stage::SynSent);
        end.timer = Some(now + end.timeout);
        out.push(end.opening());
        end
    }

    /// A server that answers a SYN.
    pub(super) fn accept(
        syn: &Segment,
        can: Abilities,
        first: u32,
        now: u64,
        out: &mut Vec<Segment>,
    ) -> Self {
        let mut end = Self::new(syn.destination, syn.source, can, first, Stage::SynReceived);
        end.take_options(syn);
        end.timer = Some(now + end.timeout);
        out.push(end.opening());
        end
    }

    fn take_options(&mut self, syn: &Segment) {
        self.peer_first = syn.seq;
        self.expected = syn.seq.wrapping_add(1);
        // What a client's SYN promised.
        self.right_edge = self.expected.wrapping_add(self.can.room.min(0xffff));
        self.peer_window = u32::from(syn.window);
        self.peer_mss = syn.mss.unwrap_or(536);
        self.sack = self.can.sack && syn.sack_permitted;
        if self.stage == Stage::SynReceived {
            self.peer_scale = syn.scale.filter(|_| self.can.scale.is_some());
            if self.peer_scale.is_none() {
                self.can.scale = None;
            }
            self.can.sack &= syn.sack_permitted;
        } else {
            if syn.scale.is_some() && self.can.scale.is_none() {
                self.wrong.push("a window scale that was not offered".to_owned());
            }
            if syn.sack_permitted && !self.can.sack {
                self.wrong.push("selective acknowledgements that were not offered".to_owned());
            }
            self.peer_scale = syn.scale;
            if syn.scale.is_none() {
                self.can.scale = None;
            }
        }
    }

    /// SYN or SYN-ACK.
    fn opening(&mut self) -> Segment {
        let accepting = self.stage == Stage::SynReceived;
        let mut segment = self.segment(self.first, if accepting { SYN | ACK } else { SYN }, Vec::new());
        segment.window = u16::try_from(self.can.room.min(0xffff)).unwrap_or(u16::MAX);
        if accepting {
            self.right_edge = self.expected.wrapping_add(u32::from(segment.window));
        } else {
            segment.ack = 0;
        }
        segment.mss = Some(self.can.mss);
        segment.scale = self.can.scale;
        segment.sack_permitted = self.can.sack;
        segment.sacks.clear();
        segment
    }

    fn window(&self) -> u32 {
        let unread = u32::try_from(self.received.len() - self.read).unwrap_or(u32::MAX);
        self.can.room.saturating_sub(unread)
    }

    fn segment(&mut self, seq: u32, flags: u8, data: Vec<u8>) -> Segment {
        let shift = self.can.scale.unwrap_or(0);
        // What was promised once is not taken back.
        let promised = self.right_edge.wrapping_sub(self.expected);
        let promised = if before(self.expected, self.right_edge) { promised } else { 0 };
        let field = (self.window().max(promised) >> shift).min(0xffff);
        if self.stage == Stage::Open {
            let edge = self.expected.wrapping_add(field << shift);
            if before(self.right_edge, edge) {
                self.right_edge = edge;
            }
        }
        let mut sacks = Vec::new();
        if self.sack {
            for (start, bytes) in &self.ahead {
                let end = start.wrapping_add(u32::try_from(bytes.len()).unwrap_or(0));
                match sacks.last_mut() {
                    Some((_, right)) if *right == *start => *right = end,
                    _ => sacks.push((*start, end)),
                }
            }
            sacks.truncate(3);
        }
        Segment {
            source: self.local,
            destination: self.remote,
            seq,
            ack: self.expected,
            flags,
            window: u16::try_from(field).unwrap_or(u16::MAX),
            mss: None,
            scale: None,
            sack_permitted: false,
            sacks,
            data,
        }
    }

    fn acknowledge(&mut self, out: &mut Vec<Segment>) {
        let next = self.next;
        let segment = self.segment(next, ACK, Vec::new());
        out.push(segment);
    }

    /// Behind the last byte that was written, and the FIN.
    fn end(&self) -> u32 {
        let written = u32::try_from(self.written.len()).unwrap_or(0);
        self.first.wrapping_add(1).wrapping_add(written)
    }

    /// Whether everything written, the FIN too, was acknowledged.
    pub(super) fn sent_all(&self) -> bool {
        self.stage == Stage::Open && self.una == self.end().wrapping_add(u32::from(self.closing))
    }

    /// Its initial sequence number.
    pub(super) const fn first(&self) -> u32 {
        self.first
    }

    /// When the timer runs out.
    pub(super) const fn deadline(&self) -> Option<u64> {
        self.timer
    }

    /// Bytes to send.
    pub(super) fn write(&mut self, bytes: &[u8], now: u64, out: &mut Vec<Segment>) {
        self.written.extend(bytes);
        self.pump(now, out);
    }

    /// Nothing more to send.
    pub(super) fn close(&mut self, now: u64, out: &mut Vec<Segment>) {
        if !self.closing {
            self.closing = true;
            self.pump(now, out);
        }
    }

    /// The application reads all there is.
    pub(super) fn take(&mut self, out: &mut Vec<Segment>) {
        let closed = self.window() < u32::from(self.can.mss);
        self.read = self.received.len();
        if closed && self.stage == Stage::Open {
            self.acknowledge(out);
        }
    }

    /// Sends what may be sent.
    fn pump(&mut self, now: u64, out: &mut Vec<Segment>) {
        if self.stage != Stage::Open {
            return;
        }
        let size = u32::from(self.peer_mss.min(self.can.mss));
        let limit = self.peer_window.min(size * self.can.burst);
        let edge = self.una.wrapping_add(limit);
        loop {
            let end = self.end();
            let left = if before(self.next, end) { end.wrapping_sub(self.next) } else { 0 };
            let room = if before(self.next, edge) { edge.wrapping_sub(self.next) } else { 0 };
            let length = left.min(room).min(size);
            let idle = self.next == self.una;
            if length == 0 || (self.can.nagle && length < size && !idle && !self.closing) {
                break;
            }
            // Sender side of silly window syndrome avoidance (RFC 9293 section 3.8.6.2.1).
            if length < size && length < left && !idle {
                break;
            }
            let from = self.next.wrapping_sub(self.first.wrapping_add(1)) as usize;
            let data = self.written[from..from + length as usize].to_vec();
            let last = self.closing && length == left;
            let flags = ACK | if length == left { PSH } else { 0 } | if last { FIN } else { 0 };
            let segment = self.segment(self.next, flags, data);
            self.next = self.next.wrapping_add(segment.length());
            out.push(segment);
        }
        if self.closing && self.next == self.end() {
            let segment = self.segment(self.next, ACK | FIN, Vec::new());
            self.next = self.next.wrapping_add(1);
            out.push(segment);
        }
        if before(self.most, self.next) {
            self.most = self.next;
        }
        let waiting = self.una != self.next || before(self.next, self.end());
        if waiting && self.timer.is_none() {
            self.timer = Some(now + self.timeout);
        }
    }

    /// The timer ran out.
    pub(super) fn expire(&mut self, now: u64, out: &mut Vec<Segment>) {
        self.timeout = (self.timeout * 2).min(LAST_TIMEOUT);
        self.timer = Some(now + self.timeout);
        self.tries += 1;
        match self.stage {
            Stage::SynSent => out.push(self.opening()),
            Stage::SynReceived if self.tries > MOST_SYN_ACKS => {
                self.stage = Stage::Dead;
                self.timer = None;
            }
            Stage::SynReceived => out.push(self.opening()),
            Stage::Dead => self.timer = None,
            Stage::Open => {
                self.next = self.una;
                let before = out.len();
                self.pump(now, out);
                if out.len() == before && !self.sent_all() {
                    self.probe(out);
                }
                if self.sent_all() {
                    self.timer = None;
                }
            }
        }
    }

    /// One byte into a closed window (RFC 9293 section 3.8.6.1).
    fn probe(&mut self, out: &mut Vec<Segment>) {
        if before(self.next, self.end()) {
            let from = self.next.wrapping_sub(self.first.wrapping_add(1)) as usize;
            let data = vec![self.written[from]];
            let segment = self.segment(self.next, ACK, data);
            self.next = self.next.wrapping_add(1);
            if before(self.most, self.next) {
                self.most = self.next;
            }
            out.push(segment);
        }
    }

    /// A segment came.
    pub(super) fn take_segment(&mut self, segment: &Segment, now: u64, out: &mut Vec<Segment>) {
        if segment.has(RST) {
            return self.take_reset(segment, out);
        }
        match self.stage {
            Stage::Dead => {}
            Stage::SynSent => self.take_answer(segment, now, out),
            Stage::SynReceived if segment.has(SYN) => {
                if segment.seq == self.peer_first && !segment.has(ACK) {
                    out.push(self.opening());
                }
            }
            Stage::SynReceived => {
                let acceptable = segment.has(ACK) && segment.ack == self.first.wrapping_add(1);
                if acceptable {
                    self.stage = Stage::Open;
                    self.timer = None;
                    self.timeout = FIRST_TIMEOUT;
                    self.una = segment.ack;
                    self.take_open(segment, now, out);
                } else if segment.has(ACK) {
                    self.wrong.push(format!(
                        "half-open, it acknowledges {:#x} after {:#x}",
                        segment.ack, self.first
                    ));
                }
            }
            Stage::Open => self.take_open(segment, now, out),
        }
    }

    fn take_reset(&mut self, segment: &Segment, out: &mut Vec<Segment>) {
        match self.stage {
            Stage::SynSent if segment.ack == self.next => {}
            Stage::SynReceived if segment.seq == self.expected => {}
            Stage::Open if segment.seq == self.expected => {}
            // A challenge (RFC 5961 section 3.2).
            Stage::Open if segment.seq.wrapping_sub(self.expected) < self.window() => {
                return self.acknowledge(out);
            }
            Stage::SynSent | Stage::SynReceived | Stage::Open | Stage::Dead => return,
        }
        self.reset = true;
        self.stage = Stage::Dead;
        self.timer = None;
    }

    fn take_answer(&mut self, segment: &Segment, now: u64, out: &mut Vec<Segment>) {
        if segment.flags & (SYN | ACK) != SYN | ACK || segment.ack != self.next {
            return;
        }
        self.take_options(segment);
        self.stage = Stage::Open;
        self.una = segment.ack;
        self.timer = None;
        self.timeout = FIRST_TIMEOUT;
        self.acknowledge(out);
        self.pump(now, out);
    }

    fn take_open(&mut self, segment: &Segment, now: u64, out: &mut Vec<Segment>) {
        if segment.has(SYN) || !segment.has(ACK) {
            // A challenge (RFC 5961 section 4.2).
            return self.acknowledge(out);
        }
        if before(self.most, segment.ack) {
            self.wrong.push(format!("it acknowledges {:#x}, sent was up to {:#x}", segment.ack, self.most));
            return;
        }
        self.check_sacks(segment);
        self.take_acknowledgement(segment, now);
        if segment.length() > 0 {
            self.take_data(segment);
            self.acknowledge(out);
        } else if before(segment.seq, self.expected) && segment.seq.wrapping_add(1) == self.expected {
            // A probe (RFC 9293 section 3.8.4).
            self.acknowledge(out);
        }
        self.pump(now, out);
        if self.sent_all() {
            self.timer = None;
        }
    }

    fn check_sacks(&mut self, segment: &Segment) {
        if !segment.sacks.is_empty() && !self.sack {
            self.wrong.push("selective acknowledgements that were not permitted".to_owned());
        }
        for (left, right) in &segment.sacks {
            let inside = !before(*left, self.first) && before(*left, *right) && !before(self.most, *right);
            if !inside {
                self.wrong.push(format!("block {left:#x}..{right:#x}, sent was up to {:#x}", self.most));
            }
        }
    }

    fn take_acknowledgement(&mut self, segment: &Segment, now: u64) {
        let window = u32::from(segment.window) << self.peer_scale.unwrap_or(0);
        if before(self.una, segment.ack) {
            self.una = segment.ack;
            if before(self.next, self.una) {
                self.next = self.una;
            }
            self.duplicates = 0;
            self.timeout = FIRST_TIMEOUT;
            self.timer = Some(now + self.timeout);
            self.peer_window = window;
        } else if segment.ack == self.una {
            if segment.length() == 0 && window == self.peer_window && before(self.una, self.next) {
                self.duplicates += 1;
                if self.duplicates == 3 {
                    self.next = self.una;
                }
            }
            self.peer_window = window;
        }
    }

    fn take_data(&mut self, segment: &Segment) {
        let end = segment.seq.wrapping_add(segment.length());
        let beyond = end.wrapping_sub(self.right_edge);
        if before(self.right_edge, end) && beyond > ROUNDING && beyond > 1 + u32::from(segment.has(FIN)) {
            self.wrong.push(format!(
                "data up to {end:#x}, the window ends at {:#x} ({beyond} before it)",
                self.right_edge
            ));
        }
        if segment.has(FIN) {
            self.peer_fin = Some(end.wrapping_sub(1));
        }
        if !segment.data.is_empty() && before(self.expected, end) {
            self.ahead
                .entry(segment.seq)
                .and_modify(|old| longer(old, &segment.data))
                .or_insert_with(|| segment.data.clone());
        }
        self.drain();
    }

    /// Takes in what is in order now.
    fn drain(&mut self) {
        loop {
            let expected = self.expected;
            let Some(start) = self.ahead.keys().copied().find(|start| !before(expected, *start)) else {
                break;
            };
            let Some(bytes) = self.ahead.remove(&start) else { break };
            let skip = expected.wrapping_sub(start) as usize;
            if let Some(new) = bytes.get(skip..) {
                self.received.extend(new);
                self.expected = expected.wrapping_add(u32::try_from(new.len()).unwrap_or(0));
            }
        }
        if self.peer_fin == Some(self.expected) && !self.fin_received {
            self.fin_received = true;
            self.expected = self.expected.wrapping_add(1);
        }
    }

    /// A window of 0 was announced last, or nearly so.
    pub(super) fn has_unread(&self) -> bool {
        self.read < self.received.len()
    }
}

fn longer(old: &mut Vec<u8>, new: &[u8]) {
    if new.len() > old.len() {
        new.clone_into(old);
    }
}
