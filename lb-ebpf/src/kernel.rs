//! [`Env`] over the packet at hand and the BPF maps.

use crate::maps;
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, xdp_md},
    helpers::generated::{
        bpf_check_mtu, bpf_csum_diff, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_coarse_ns,
        bpf_loop, bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
        bpf_xdp_store_bytes,
    },
    programs::XdpContext,
};
use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use lb_common::abi::{
    self, ARENA_CHUNK, AffinityRules, Backend, BindingBucket, BindingEvent, Counters, Filling, Flow, FlowKey,
    FlowRef, FragmentKey, FragmentRef, Hold, Outcome, PathRule, Peer, QuicConfig, Secrets, Server, Service,
    ServiceAtHand, ServiceKey, Settings, Vitals,
};
use lb_common::datapath::{Env, Insert, Scratch, Verdict};

/// The packet at hand.
pub(crate) struct Kernel {
    ctx: *mut xdp_md,
    /// Looked up once: every program needs it more than once.
    settings: &'static Settings,
}

impl Kernel {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Option<Self> {
        Some(Self { ctx: ctx.ctx, settings: maps::SETTINGS.get(0)? })
    }
}

/// "Already there", as the map helpers say it.
const EEXIST: i32 = -17;

#[inline(always)]
fn inserted(result: Result<(), i32>) -> Insert {
    match result {
        Ok(()) => Insert::Done,
        Err(EEXIST) => Insert::Taken,
        Err(_) => Insert::Full,
    }
}

/// Time since the kernel's tick counter began. The counter is read inline, where a clock costs two calls.
#[inline(always)]
fn ticks(settings: &Settings) -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() }.wrapping_mul(settings.tick as u64)
}

/// Calls the closure behind `step`; 1 ends the loop.
extern "C" fn trampoline<F: FnMut(u32) -> bool>(i: u64, step: *mut F) -> i64 {
    // SAFETY: `repeat` passes a closure that outlives the loop.
    unsafe { (*step)(i as u32) as i64 }
}

// SAFETY: frame pointers come from the context, map pointers from the kernel's look-ups.
unsafe impl Env for Kernel {
    #[inline(always)]
    fn data(&self) -> *mut u8 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.ctx).data as usize as *mut u8 }
    }
    #[inline(always)]
    fn data_end(&self) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.ctx).data_end as usize as *mut u8 }
    }
    #[inline(always)]
    fn adjust_head(&self, delta: i32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_xdp_adjust_head(self.ctx, delta) == 0 }
    }
    #[inline(always)]
    fn adjust_tail(&self, delta: i32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_xdp_adjust_tail(self.ctx, delta) == 0 }
    }
    #[inline(always)]
    unsafe fn load(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller's bytes are in a map.
        unsafe { bpf_xdp_load_bytes(self.ctx, offset, to.cast(), len) == 0 }
    }
    #[inline(always)]
    unsafe fn store(&self, offset: u32, from: *const u8, len: u32) -> bool {
        // SAFETY: the caller's bytes are in a map.
        unsafe { bpf_xdp_store_bytes(self.ctx, offset, from.cast_mut().cast(), len) == 0 }
    }
    #[inline(always)]
    unsafe fn sum(&self, from: *const u8, len: u32) -> u32 {
        // SAFETY: the caller's bytes are in a map; the helper only reads them.
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from.cast_mut().cast(), len, 0) as u32 }
    }
    #[inline(always)]
    fn leave_to_fill(&self, filling: &Filling) -> bool {
        const LEN: usize = size_of::<Filling>();
        // SAFETY: the context is valid while the program runs.
        unsafe {
            if bpf_xdp_adjust_meta(self.ctx, -(LEN as i32)) != 0 {
                return false;
            }
            let meta = (*self.ctx).data_meta as usize as *mut u8;
            if meta.wrapping_add(LEN) as usize > (*self.ctx).data as usize {
                return false;
            }
            *meta.cast::<Filling>() = *filling;
        }
        true
    }
    #[inline(always)]
    fn cpu(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_smp_processor_id() }
    }
    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.ctx).ingress_ifindex }
    }
    #[inline(always)]
    fn ingress_mtu(&self) -> u32 {
        let mut mtu = 0;
        // SAFETY: as above. Interface 0 is the one that the packet came in on; whether the packet fits there is of no interest.
        unsafe { bpf_check_mtu(self.ctx.cast(), 0, &raw mut mtu, 0, 0) };
        mtu
    }
    #[inline(always)]
    fn redirect(&self, ifindex: u32) -> Verdict {
        if maps::DEVICES.redirect(ifindex, 0).is_ok() {
            return Verdict::Redirect;
        }
        self.count(Outcome::RedirectFailed);
        Verdict::Drop
    }
    #[inline(always)]
    fn tail(&self, number: u32) -> Verdict {
        // SAFETY: nothing is borrowed across the call. It only comes back when the program is missing.
        unsafe { maps::PROGRAMS.tail_call(&XdpContext::new(self.ctx), number) };
        self.count(Outcome::TailCall);
        Verdict::Drop
    }
    #[inline(always)]
    fn now(&self) -> u64 {
        if let Some(offset) = self.hand(abi::hand::CLOCK) {
            // SAFETY: a map value; one aligned word.
            let offset = unsafe { offset.read_volatile() };
            if self.settings.tick != 0 && offset != 0 {
                return ticks(self.settings).wrapping_add(offset);
            }
        }
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }
    #[inline(always)]
    fn set_clock(&self) {
        if let Some(offset) = self.hand(abi::hand::CLOCK) {
            // SAFETY: a helper without arguments, and a map value.
            unsafe { offset.write_volatile(bpf_ktime_get_coarse_ns().wrapping_sub(ticks(self.settings))) };
        }
    }

    #[inline(always)]
    unsafe fn exchange(&self, cell: *mut u64, old: u64, new: u64) -> bool {
        // SAFETY: the caller's cell is in a map.
        unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(cell, old, new).1
        }
    }
    #[inline(always)]
    unsafe fn add(&self, cell: *mut u64, n: u64) -> u64 {
        // SAFETY: the caller's cell is in a map.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(cell, n) }
    }
    #[inline(always)]
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, mut step: F) {
        let mut count = count;
        // The kernel compares the whole register, whose upper half the compiler leaves as it happens to be: what looks like
        // too many rounds is none. Moving the lower half clears the upper one.
        // SAFETY: moves a register to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inlateout(wreg) count, options(nomem, nostack, preserves_flags))
        };
        // SAFETY: the closure lives until the loop is over, and the trampoline has the callback's signature.
        unsafe {
            bpf_loop(count, trampoline::<F> as *mut c_void, (&raw mut step).cast(), 0);
        }
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        Some(self.settings)
    }
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        let version = self.settings.version;
        let at_hand = maps::SERVICES_AT_HAND.get_ptr_mut(ServiceAtHand::place(key))?;
        // SAFETY: this CPU's own.
        let at_hand = unsafe { &mut *at_hand };
        if version != 0 && at_hand.answers(key, version) {
            return Some(&at_hand.service);
        }
        // SAFETY: `lbd` replaces services as whole elements; a recycled one is another service, whole.
        let service = unsafe { maps::SERVICES.get(key) }?;
        *at_hand = ServiceAtHand { key: *key, version, service: *service };
        Some(&at_hand.service)
    }
    #[inline(always)]
    fn service_at_hand(&self, key: &ServiceKey) -> Option<&Service> {
        let version = self.settings.version;
        let at_hand = maps::SERVICES_AT_HAND.get_ptr_mut(ServiceAtHand::place(key))?;
        // SAFETY: this CPU's own.
        let at_hand = unsafe { &*at_hand };
        if version != 0 && at_hand.answers(key, version) { Some(&at_hand.service) } else { None }
    }
    #[inline(always)]
    fn backend(&self, slot: u16) -> Option<&Backend> {
        maps::BACKENDS.get(slot as u32)
    }
    #[inline(always)]
    fn status(&self, word: u32) -> Option<u64> {
        maps::STATUS.get(word).copied()
    }
    #[inline(always)]
    fn arena(&self, slot: u32) -> Option<u16> {
        let chunk = maps::ARENA.get(slot / ARENA_CHUNK as u32)?;
        // SAFETY: the remainder is below the length.
        Some(unsafe { *chunk.0.get_unchecked(slot as usize % ARENA_CHUNK) })
    }

    #[inline(always)]
    fn affinity_rules(&self, service_slot: u16) -> Option<&AffinityRules> {
        maps::AFFINITIES.get(service_slot as u32)
    }
    #[inline(always)]
    fn server(&self, index: u32) -> Option<&Server> {
        maps::SERVERS.get(index)
    }
    #[inline(always)]
    fn path_rule(&self, index: u32) -> Option<&PathRule> {
        maps::PATHS.get(index)
    }
    #[inline(always)]
    fn quic_config(&self, index: u32) -> Option<&QuicConfig> {
        maps::QUIC.get(index)
    }
    #[inline(always)]
    fn secrets(&self) -> Option<&Secrets> {
        maps::SECRETS.get(0)
    }
    #[inline(always)]
    fn peer(&self, row: u32) -> Option<&Peer> {
        maps::PEERS.get(row)
    }
    #[inline(always)]
    fn vitals(&self, slot: u16) -> Option<*mut Vitals> {
        maps::VITALS.get_ptr_mut(slot as u32)
    }
    #[inline(always)]
    fn choice(&self, index: u32) -> Option<*mut u64> {
        maps::CHOICES.get_ptr_mut(index)
    }
    #[inline(always)]
    fn hold(&self, index: u32) -> Option<*mut Hold> {
        maps::HOLDS.get_ptr_mut(index)
    }

    #[inline(always)]
    fn binding_bucket(&self, bucket: u32) -> Option<*mut BindingBucket> {
        maps::BINDINGS.get_ptr_mut(bucket)
    }
    #[inline(always)]
    fn hand(&self, hand: u32) -> Option<*mut u64> {
        Some(maps::HANDS.get_ptr_mut(hand)?.cast())
    }
    #[inline(always)]
    fn silence(&self) -> Option<*mut u64> {
        let hand = maps::HANDS.get_ptr_mut(abi::hand::ASKED)?;
        // SAFETY: a field of the map's value.
        Some(unsafe { &raw mut (*hand).since })
    }

    #[inline(always)]
    fn flow_ref(&self, key: &FlowKey) -> Option<*mut u64> {
        maps::FLOW_INDEX.get_ptr_mut(key)
    }
    #[inline(always)]
    fn insert_flow_ref(&self, key: &FlowKey, flow: FlowRef) -> Insert {
        inserted(maps::FLOW_INDEX.insert(key, flow.0, BPF_NOEXIST as u64))
    }
    #[inline(always)]
    fn delete_flow_ref(&self, key: &FlowKey) {
        let _ = maps::FLOW_INDEX.remove(key);
    }
    #[inline(always)]
    fn flow(&self, index: u32) -> Option<*mut Flow> {
        maps::FLOWS.get_ptr_mut(index)
    }
    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRef> {
        // SAFETY: copied at once; a recycled entry sends a fragment astray, which its datagram's checksum shows.
        unsafe { maps::FRAGMENTS.get(key).copied() }
    }
    #[inline(always)]
    fn keep_fragment(&self, key: &FragmentKey, decision: &FragmentRef) {
        let _ = maps::FRAGMENTS.insert(key, decision, BPF_ANY as u64);
    }

    #[inline(always)]
    fn service_counters(&self, slot: u16) -> Option<*mut Counters> {
        maps::SERVICE_COUNTERS.get_ptr_mut(slot as u32)
    }
    #[inline(always)]
    fn backend_counters(&self, slot: u16) -> Option<*mut Counters> {
        maps::BACKEND_COUNTERS.get_ptr_mut(slot as u32)
    }
    #[inline(always)]
    fn count(&self, outcome: Outcome) {
        if let Some(counter) = maps::OUTCOMES.get_ptr_mut(outcome as u32) {
            // SAFETY: this CPU's own counter.
            unsafe { *counter += 1 }
        }
    }
    #[inline(always)]
    fn rate(&self, slot: u16) -> Option<*mut u64> {
        maps::RATES.get_ptr_mut(slot as u32)
    }
    #[inline(always)]
    fn answer_rate(&self) -> Option<*mut u64> {
        maps::RATES.get_ptr_mut(abi::MAX_SERVICES)
    }
    #[inline(always)]
    fn quota(&self, index: u32) -> Option<*mut u64> {
        maps::QUOTAS.get_ptr_mut(index)
    }
    #[inline(always)]
    fn doorkeeper(&self, index: u32) -> Option<*mut u64> {
        maps::DOORKEEPER.get_ptr_mut(index)
    }
    #[inline(always)]
    fn tell(&self, event: &BindingEvent) -> bool {
        maps::EVENTS.output(event, 0).is_ok()
    }
    #[inline(always)]
    fn scratch(&self) -> Option<*mut Scratch> {
        maps::SCRATCH.get_ptr_mut(0)
    }
}
