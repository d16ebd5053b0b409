//! The data plane on the host: `lb_common::datapath` over plain collections.

mod frame;
mod memory;

use super::executor::{Executor, FlowView, Ran, Verdict};
use super::fill::{fill, outcome};
use super::tables::{Change, DEVICES, Tables, mtu};
use anyhow::{Result, bail};
use frame::Frame;
use lb_common::abi::{
    Addr, AffinityRules, Backend, Be16, Binding, BindingBucket, BindingEvent, BindingKey, BindingSlot,
    Counters, Filling, Flow, FlowKey, FlowRef, FragmentKey, FragmentRef, Hold, HoldWord, Hop, Mac, Outcome,
    PathRule, Peer, QuicConfig, Secrets, Server, Service, ServiceKey, Settings, Vitals, program,
};
use lb_common::datapath::{self, Env, Insert, Scratch};
use memory::Memory;
use std::cell::Cell;
use std::time::Duration;

/// Tail calls the kernel allows in one run.
const MOST_TAIL_CALLS: usize = 33;
/// A row of peers that is not in use.
static FREE: Peer = Peer {
    id: 0,
    own: 0,
    address: Addr::NONE,
    source: Addr::NONE,
    hop: Hop { destination: Mac([0; 6]), mtu: 0, source: Mac([0; 6]), pad: 0, ifindex: 0, pad2: 0 },
    vlan: 0,
    port: Be16::new(0),
    rate: 0,
    count: 0,
    pad: 0,
};

/// Room behind the frames of veth interfaces: what their buffers are rounded up by.
const TIGHT: usize = 54;
/// As much as the page has.
const ROOMY: usize = 4096;

/// Maps and a clock of its own.
pub struct Host {
    memory: Memory,
    now: u64,
    growth: usize,
}

impl Host {
    /// Whether frames have next to no room behind them, as on veth interfaces.
    pub fn cannot_grow(&mut self, tight: bool) {
        self.growth = if tight { TIGHT } else { ROOMY };
    }

    /// Makes a flow's record what it was.
    pub fn put_back(&mut self, view: &FlowView) {
        self.memory.flows.set(view.reference.index(), view.record);
    }
}

impl Default for Host {
    fn default() -> Self {
        // A clock that has been running for a while, in the middle of every window of time.
        Self { memory: Memory::default(), now: (1 << 49) + (1 << 29), growth: ROOMY }
    }
}

impl Executor for Host {
    const NAME: &'static str = "host";

    fn install(&mut self, tables: &Tables) -> Result<()> {
        self.memory = Memory::of(tables, self.now)?;
        Ok(())
    }

    fn run(&mut self, frame: &[u8], ifindex: u32) -> Result<Ran> {
        let env = Running {
            memory: &self.memory,
            frame: Frame::new(frame, self.growth)?,
            ifindex,
            now: self.now,
            redirect: Cell::new(None),
            tail: Cell::new(None),
            filling: Cell::new(None),
        };
        let mut verdict = datapath::entry(&env);
        for _ in 0..MOST_TAIL_CALLS {
            let (datapath::Verdict::Tail, Some(number)) = (verdict, env.tail.take()) else { break };
            verdict = datapath::tail(&env, number);
        }
        let verdict = match verdict {
            datapath::Verdict::Pass => Verdict::Pass,
            datapath::Verdict::Drop => Verdict::Drop,
            datapath::Verdict::Tx => Verdict::Tx,
            datapath::Verdict::Redirect => Verdict::Redirect(env.redirect.get()),
            datapath::Verdict::Tail => bail!("more tail calls than the kernel allows"),
        };
        let (frame, filling) = (env.frame.bytes(), env.filling.get());
        self.memory.forget_deleted();
        let (Verdict::Pass, Some(filling)) = (verdict, filling) else { return Ok(Ran { verdict, frame }) };
        let mut hold = self.memory.holds.value(filling.hold);
        let mut ran = fill(frame, &filling, &mut hold);
        let counter = &self.memory.outcomes[outcome(&ran) as usize];
        counter.set(counter.get() + 1);
        if ran.verdict == Verdict::Redirect(Some(ifindex)) {
            // The stack knows no other word for sending a frame back.
            ran.verdict = Verdict::Tx;
        }
        self.memory.holds.set(filling.hold, hold);
        Ok(ran)
    }

    fn advance(&mut self, by: Duration) -> Result<()> {
        self.now += u64::try_from(by.as_nanos())?;
        Ok(())
    }

    fn change(&mut self, change: &Change) -> Result<()> {
        self.memory.change(change);
        Ok(())
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn outcomes(&self) -> Result<Vec<u64>> {
        Ok(self.memory.outcomes.iter().map(Cell::get).collect())
    }

    fn service_counters(&self, slot: u16) -> Result<Counters> {
        Ok(self.memory.service_counters.value(u32::from(slot)))
    }

    fn backend_counters(&self, slot: u16) -> Result<Counters> {
        Ok(self.memory.backend_counters.value(u32::from(slot)))
    }

    fn vitals(&self, slot: u16) -> Result<Vitals> {
        Ok(self.memory.vitals.value(slot.into()))
    }

    fn bindings(&self) -> Result<Vec<(BindingKey, Binding)>> {
        let buckets = 0..self.memory.settings.binding_buckets;
        let slots = buckets.flat_map(|bucket| self.memory.bindings.value(bucket).0);
        Ok(slots.filter_map(|slot| BindingSlot::binding(&slot)).collect())
    }

    fn hold_words(&self) -> Result<Vec<HoldWord>> {
        let settings = &self.memory.settings;
        Ok((settings.cpu_holds..settings.holds).map(|i| HoldWord(self.memory.holds.value(i).word)).collect())
    }

    fn flows(&self) -> Result<Vec<FlowView>> {
        let view = |(key, word): (FlowKey, u64)| {
            let reference = FlowRef(word);
            FlowView { key, reference, record: self.memory.flows.value(reference.index()) }
        };
        Ok(self.memory.flow_index.entries().into_iter().map(view).collect())
    }
}

/// One frame on its way through the programs.
struct Running<'a> {
    memory: &'a Memory,
    frame: Frame,
    ifindex: u32,
    now: u64,
    redirect: Cell<Option<u32>>,
    tail: Cell<Option<u32>>,
    filling: Cell<Option<Filling>>,
}

// SAFETY: the frame's pointers are into its buffer, which does not move; map pointers are to cells that live until
// `forget_deleted` after the run. Everything runs on one thread.
unsafe impl Env for Running<'_> {
    fn data(&self) -> *mut u8 {
        self.frame.start()
    }
    fn data_end(&self) -> *mut u8 {
        self.frame.end()
    }
    fn adjust_head(&self, delta: i32) -> bool {
        self.frame.adjust_head(delta)
    }
    fn adjust_tail(&self, delta: i32) -> bool {
        self.frame.adjust_tail(delta)
    }
    unsafe fn load(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        let (offset, len) = (offset as usize, len as usize);
        if len == 0 || offset + len > self.data_end() as usize - self.data() as usize {
            return false;
        }
        // SAFETY: inside the frame, and the caller's bytes are elsewhere.
        unsafe { self.data().add(offset).copy_to_nonoverlapping(to, len) };
        true
    }
    unsafe fn store(&self, offset: u32, from: *const u8, len: u32) -> bool {
        let (offset, len) = (offset as usize, len as usize);
        if len == 0 || offset + len > self.data_end() as usize - self.data() as usize {
            return false;
        }
        // SAFETY: inside the frame, and the caller's bytes are elsewhere.
        unsafe { from.copy_to_nonoverlapping(self.data().add(offset), len) };
        true
    }
    fn leave_to_fill(&self, filling: &Filling) -> bool {
        self.filling.set(Some(*filling));
        true
    }
    fn cpu(&self) -> u32 {
        0
    }
    fn ingress(&self) -> u32 {
        self.ifindex
    }
    fn ingress_mtu(&self) -> u32 {
        u32::from(mtu(self.ifindex))
    }
    fn redirect(&self, ifindex: u32) -> datapath::Verdict {
        if !DEVICES.contains(&ifindex) {
            self.count(Outcome::RedirectFailed);
            return datapath::Verdict::Drop;
        }
        self.redirect.set(Some(ifindex));
        datapath::Verdict::Redirect
    }
    fn tail(&self, number: u32) -> datapath::Verdict {
        if !program::TAIL_CALLS.iter().any(|(known, _)| *known == number) {
            self.count(Outcome::TailCall);
            return datapath::Verdict::Drop;
        }
        self.tail.set(Some(number));
        datapath::Verdict::Tail
    }
    fn now(&self) -> u64 {
        self.now
    }

    unsafe fn exchange(&self, cell: *mut u64, old: u64, new: u64) -> bool {
        // SAFETY: the caller's cell came from this environment.
        let same = unsafe { cell.read() } == old;
        if same {
            // SAFETY: as above.
            unsafe { cell.write(new) };
        }
        same
    }
    unsafe fn add(&self, cell: *mut u64, n: u64) -> u64 {
        // SAFETY: the caller's cell came from this environment.
        unsafe {
            let before = cell.read();
            cell.write(before.wrapping_add(n));
            before
        }
    }
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, mut step: F) {
        for i in 0..count {
            if step(i) {
                return;
            }
        }
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.memory.settings)
    }
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.memory.services.get(key)
    }
    fn backend(&self, slot: u16) -> Option<&Backend> {
        Some(self.memory.backends.get(&slot).unwrap_or(&self.memory.free_backend))
    }
    fn status(&self, word: u32) -> Option<u64> {
        Some(self.memory.status.get(&word).copied().unwrap_or(0))
    }
    fn arena(&self, slot: u32) -> Option<u16> {
        Some(self.memory.arena.get(slot as usize).copied().unwrap_or(0))
    }

    fn affinity_rules(&self, service_slot: u16) -> Option<&AffinityRules> {
        self.memory.affinities.get(&service_slot)
    }
    fn server(&self, index: u32) -> Option<&Server> {
        self.memory.servers.get(index as usize)
    }
    fn path_rule(&self, index: u32) -> Option<&PathRule> {
        self.memory.path_rules.get(index as usize)
    }
    fn quic_config(&self, index: u32) -> Option<&QuicConfig> {
        self.memory.quic.get(&index)
    }
    fn secrets(&self) -> Option<&Secrets> {
        Some(&self.memory.secrets)
    }
    fn peer(&self, row: u32) -> Option<&Peer> {
        Some(self.memory.peers.get(row as usize).unwrap_or(&FREE))
    }
    fn vitals(&self, slot: u16) -> Option<*mut Vitals> {
        self.memory.vitals.get(slot.into())
    }
    fn choice(&self, index: u32) -> Option<*mut u64> {
        self.memory.choices.get(index)
    }
    fn hold(&self, index: u32) -> Option<*mut Hold> {
        self.memory.holds.get(index)
    }

    fn binding_bucket(&self, bucket: u32) -> Option<*mut BindingBucket> {
        self.memory.bindings.get(bucket)
    }
    fn hand(&self, hand: u32) -> Option<*mut u64> {
        self.memory.hands.get(hand)
    }
    fn silence(&self) -> Option<*mut u64> {
        self.memory.silence.get(0)
    }

    fn flow_ref(&self, key: &FlowKey) -> Option<*mut u64> {
        self.memory.flow_index.get(key)
    }
    fn insert_flow_ref(&self, key: &FlowKey, flow: FlowRef) -> Insert {
        self.memory.flow_index.insert(*key, flow.0, false)
    }
    fn delete_flow_ref(&self, key: &FlowKey) {
        self.memory.flow_index.remove(key);
    }
    fn flow(&self, index: u32) -> Option<*mut Flow> {
        self.memory.flows.get(index)
    }
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRef> {
        // SAFETY: the cell lives, and nobody else writes.
        self.memory.fragments.get(key).map(|cell| unsafe { cell.read() })
    }
    fn keep_fragment(&self, key: &FragmentKey, decision: &FragmentRef) {
        self.memory.fragments.insert(*key, *decision, true);
    }

    fn service_counters(&self, slot: u16) -> Option<*mut Counters> {
        self.memory.service_counters.get(u32::from(slot))
    }
    fn backend_counters(&self, slot: u16) -> Option<*mut Counters> {
        self.memory.backend_counters.get(u32::from(slot))
    }
    fn count(&self, outcome: Outcome) {
        let cell = &self.memory.outcomes[outcome as usize];
        cell.set(cell.get() + 1);
    }
    fn rate(&self, slot: u16) -> Option<*mut u64> {
        self.memory.rates.get(u32::from(slot))
    }
    fn answer_rate(&self) -> Option<*mut u64> {
        self.memory.rates.get(lb_common::abi::MAX_SERVICES)
    }
    fn quota(&self, index: u32) -> Option<*mut u64> {
        self.memory.quotas.get(index)
    }
    fn doorkeeper(&self, index: u32) -> Option<*mut u64> {
        self.memory.doorkeeper.get(index)
    }
    fn tell(&self, _event: &BindingEvent) -> bool {
        true
    }
    fn scratch(&self) -> Option<*mut Scratch> {
        self.memory.scratch.get(0)
    }
}
