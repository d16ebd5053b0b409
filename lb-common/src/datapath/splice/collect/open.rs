//! The first segment of a connection that proved its address: from here on there is state.

use super::super::hold::{self, Held};
use super::super::proxy;
use super::{Arrived, Way, append, go_on, note};
use crate::abi::{
    AffinityFlags, AffinityRules, FlowKey, FlowRef, FlowState, FlowWord, Outcome, Reading, Service,
    SpliceFlags, program,
};
use crate::datapath::flow::{self, Live, Room};
use crate::datapath::scratch::again;
use crate::datapath::{Env, Insert, Verdict, frame, nat};
use crate::packet::Ethernet;
use crate::splice::SynCookie;

/// Why no flow was made of a segment.
pub(super) enum Unmade {
    /// There is no record for it, and there will be none for a while.
    Full,
    /// The segment is of no use; the client sends it again.
    Lost(Outcome),
}

/// Makes the flow and hands it on, or says why not.
#[inline(always)]
pub(super) fn run<E: Env>(
    env: &E,
    way: &Way<'_>,
    service: &Service,
    segment: &Arrived,
) -> Result<Verdict, Unmade> {
    let Some(live) = allocate(env, way) else { return Err(Unmade::Full) };
    live_service(&live, service);
    let Some(mut held) = hold(env, way, &live) else {
        flow::vacate(&live);
        return Err(Unmade::Lost(Outcome::NotHeld));
    };
    let hold = held.get_mut();
    hold.start = segment.sequence;
    if !fill(env, way, segment, &live, &held)
        || !append::run(env, way.settings, way.packet, segment, &mut held)
    {
        held.free(env);
        flow::vacate(&live);
        return Err(Unmade::Lost(Outcome::NotHeld));
    }
    note(&mut held, segment);
    if way.rules.flags & AffinityFlags::PROXY != 0 {
        proxy::write(way.packet, held.get_mut());
    }
    match publish(env, way, &live, held.number <= way.settings.cpu_holds) {
        Ok(live) => Ok(go_on(env, &live, held, again::FIRST, program::READ)),
        Err(outcome) => {
            held.free(env);
            Err(Unmade::Lost(outcome))
        }
    }
}

/// A record for the flow.
#[inline(always)]
fn allocate<E: Env>(env: &E, way: &Way<'_>) -> Option<Live> {
    let reference = reference(env, way);
    let record = env.flow(reference.index())?;
    let word = FlowWord::new(reference.nonce(), FlowState::Claimed);
    if reference.nonce() == 0 { None } else { Some(Live { record, reference, word }) }
}

/// The reference of a record that this CPU has claimed; zero = none. Out of line for the sake of the stack.
#[inline(never)]
fn reference<E: Env>(env: &E, way: &Way<'_>) -> FlowRef {
    let client = (&way.packet.source, way.packet.source_port);
    match flow::allocate(env, Room::Established, client, way.now) {
        Some(live) => live.reference,
        None => FlowRef::default(),
    }
}

/// Notes whose flow it is.
#[inline(always)]
fn live_service(live: &Live, service: &Service) {
    // SAFETY: claimed by this CPU; the word is left as it is.
    let record = unsafe { &mut *live.record };
    record.service = service.id;
    record.service_slot = service.slot;
}

/// A hold for the flow: one that is free, else this CPU's own, which is good for a request in one segment.
#[inline(always)]
fn hold<E: Env>(env: &E, way: &Way<'_>, live: &Live) -> Option<Held> {
    let until = way.now.wrapping_add(way.settings.head_timeout);
    let shared = hold::claim(env, live.reference, until, way.now);
    if shared.is_some() {
        return shared;
    }
    env.count(Outcome::HoldsFull);
    // The client cannot send a header again that it never wrote.
    if way.rules.flags & AffinityFlags::PROXY != 0 {
        return None;
    }
    hold::own(env, way.settings, live.reference)
}

/// Writes the record, which nobody can find yet.
#[inline(never)]
fn fill<E: Env>(env: &E, way: &Way<'_>, segment: &Arrived, live: &Live, held: &Held) -> bool {
    let Some(p) = frame::head(env, Ethernet::LEN) else { return false };
    // SAFETY: checked for the fixed part.
    let ethernet = unsafe { Ethernet::new(p) };
    let (local_mac, client_mac) = (ethernet.destination(), ethernet.source());
    let isn = segment.acknowledgement.wrapping_sub(1);
    let packet = way.packet;
    // SAFETY: claimed by this CPU; the word is left as it is.
    let record = unsafe { &mut *live.record };
    record.last_seen = way.now;
    record.client = FlowKey::new(
        &packet.source,
        &packet.destination,
        packet.source_port,
        packet.destination_port,
        packet.protocol,
    );
    let server: *mut u64 = (&raw mut record.server).cast();
    let mut i = 0;
    while i < size_of::<FlowKey>() / 8 {
        // SAFETY: inside the key; volatile, or it becomes the kernel's memset, a loop over bytes.
        unsafe { server.add(i).write_volatile(0) };
        i += 1;
    }
    record.session = 0;
    record.backend = 0;
    record.backend_generation = 0;
    record.client_mac = client_mac;
    record.local_mac = local_mac;
    record.window = segment.window;
    record.client_mtu = nat::client_mtu(env);
    record.ifindex = packet.ingress(env);
    record.tags = packet.tags;
    record.answer = 0;
    record.isn = isn;
    record.start = segment.sequence;
    record.hold = if held.number > way.settings.cpu_holds { held.number } else { 0 };
    record.client_scale = SynCookie(isn).offer().scale();
    record.server_scale = 0;
    record.splice = readers(way.rules);
    true
}

/// What is read of the connection later on: cookies whose values are bound.
#[inline(always)]
const fn readers(rules: &AffinityRules) -> u16 {
    if rules.name_len == 0 || rules.reading != Reading::Bind as u8 {
        return 0;
    }
    SpliceFlags::INSPECT | if rules.flags & AffinityFlags::LEARN != 0 { SpliceFlags::LEARN } else { 0 }
}

/// Makes the flow findable from the client's side; without a hold it is this CPU's until its backend has been asked.
#[inline(always)]
fn publish<E: Env>(env: &E, way: &Way<'_>, live: &Live, alone: bool) -> Result<Live, Outcome> {
    let reference = live.reference;
    let busy = if alone { FlowWord::BUSY } else { 0 };
    let word = FlowWord::new(reference.nonce(), FlowState::Collecting).with(FlowWord::SPLICED | busy);
    // SAFETY: from the environment; written by this CPU.
    let client = unsafe { &(*live.record).client };
    let taken = flow::take_key(env, client, reference, way.now);
    if taken == Insert::Done {
        // Not before: at home it could be found although the key is another flow's.
        // SAFETY: from the environment; the record is this CPU's.
        unsafe { (&raw mut (*live.record).word).write_volatile(word.0) };
        return Ok(Live { word, ..*live });
    }
    // The same segment on another CPU, or no room in the index.
    flow::vacate(live);
    Err(if taken == Insert::Full { Outcome::FlowsFull } else { Outcome::Raced })
}
