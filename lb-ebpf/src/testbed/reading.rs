//! Taking session keys from application bytes: what it costs, and that the kernel's answers are the host's.

use crate::question::{MARKS, PATHS, Question};
use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP},
    btf_maps::Array,
    helpers::generated::bpf_loop,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use core::ffi::c_void;
use lb_common::affinity::{
    Bytes,
    head::Progress,
    pair, path, payload, request, response, route, segment, text,
    ticket::{self, Kind, Ticket},
};

/// The bytes and the answer.
#[btf_map]
static QUESTION: Array<Question, 1> = Array::new();

/// The bytes of the question.
struct Stream(*const u8);

impl Bytes for Stream {
    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        // SAFETY: the mask keeps the place inside the bytes.
        unsafe { *self.0.add((at & 8_191) as usize) }
    }
    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        // SAFETY: as above; there are more than 32 bytes behind it. The kernel takes wide accesses at any address.
        unsafe { *self.0.add((at & 8_191) as usize).cast::<u64>() }
    }
    #[inline(always)]
    fn words(&self, at: u32) -> [u64; 4] {
        // SAFETY: as above.
        unsafe {
            let start = self.0.add((at & 8_191) as usize).cast::<u64>();
            [*start, *start.add(1), *start.add(2), *start.add(3)]
        }
    }
    #[inline(always)]
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, mut step: F) {
        // SAFETY: the closure lives until the loop is over, and the trampoline has the callback's signature.
        unsafe {
            bpf_loop(count, trampoline::<F> as *mut c_void, (&raw mut step).cast(), 0);
        }
    }
}

/// Calls the closure behind `step`; 1 ends the loop.
extern "C" fn trampoline<F: FnMut(u32) -> bool>(i: u64, step: *mut F) -> i64 {
    // SAFETY: `repeat` passes a closure that outlives the loop.
    unsafe { (*step)(i as u32) as i64 }
}

#[inline(always)]
fn question() -> Option<(&'static mut Question, Stream)> {
    let question = QUESTION.get_ptr_mut(0)?;
    // SAFETY: map memory that one test uses at a time.
    let question = unsafe { &mut *question };
    let stream = Stream(question.bytes.as_ptr());
    Some((question, stream))
}

/// Reads nothing: what the others cost comes on top of this.
#[xdp]
pub fn read_nothing(_ctx: XdpContext) -> u32 {
    let Some((question, _)) = question() else { return XDP_ABORTED };
    question.answer.state = question.len;
    XDP_DROP
}

/// A request: its cookie's segment, the session key, the path's rule.
#[xdp]
pub fn read_request(_ctx: XdpContext) -> u32 {
    head::<false>().map_or(XDP_ABORTED, |()| XDP_DROP)
}

/// A response: the cookie it sets.
#[xdp]
pub fn read_response(_ctx: XdpContext) -> u32 {
    head::<true>().map_or(XDP_ABORTED, |()| XDP_DROP)
}

#[inline(always)]
fn head<const RESPONSE: bool>() -> Option<()> {
    let (question, stream) = question()?;
    if question.resume == 0 {
        question.progress = [0; 3];
    }
    // SAFETY: integers of the same size, aligned at least as well.
    let progress = unsafe { &mut *question.progress.as_mut_ptr().cast::<Progress>() };
    let head = if RESPONSE {
        response::scan(&stream, question.len, progress, &question.rules)
    } else {
        request::scan(&stream, question.len, progress, &question.rules)
    };
    question.answer.state = head as u32;
    question.answer.end = progress.end();
    let part = segment::part(&stream, progress.value(), question.rules.delimiter, question.rules.index);
    question.answer.start = part.start;
    question.answer.len = part.len;
    if part.len != 0 {
        question.answer.key = text::key(&stream, part, &question.secret);
    }
    if question.path_count != 0 {
        let rules = question.paths.as_ptr();
        // SAFETY: the mask keeps the place inside the rules.
        let rule = |i: u32| Some(unsafe { &*rules.add(i as usize & (PATHS - 1)) });
        let place = path::longest(&stream, progress.path(), question.path_count, rule);
        question.answer.places[0] = place.map_or(0, |place| place + 1);
    }
    Some(())
}

/// The bytes are a route: its server.
#[xdp]
pub fn read_route(_ctx: XdpContext) -> u32 {
    let Some((question, stream)) = question() else { return XDP_ABORTED };
    let whole = lb_common::affinity::Span::new(0, question.len);
    let mark = route::mark(&stream, whole, &question.secret);
    question.answer.key = mark;
    let marks = question.marks.as_ptr();
    // SAFETY: the mask keeps the place inside the marks.
    let server = |i: u32| Some(unsafe { *marks.add(i as usize & (MARKS - 1)) });
    let place = route::find(&stream, mark, question.mark_count, server);
    question.answer.places[0] = place.map_or(0, |place| place + 1);
    XDP_DROP
}

/// The bytes are a pair's ticket: its servers.
#[xdp]
pub fn read_pair(_ctx: XdpContext) -> u32 {
    let Some((question, stream)) = question() else { return XDP_ABORTED };
    let whole = lb_common::affinity::Span::new(0, question.len);
    let mut ticket = Ticket::default();
    let check = ticket::check(&stream, whole, Kind::Pair, question.service, &question.keys, &mut ticket);
    question.answer.state = check as u32;
    question.answer.key = ticket.number;
    let marks = question.marks.as_ptr();
    // SAFETY: the mask keeps the place inside the marks.
    let server = |i: u32| Some(unsafe { *marks.add(i as usize & (MARKS - 1)) });
    let pair = pair::find(&stream, ticket.number, question.mark_count, server);
    let (primary, secondary) = pair.ordered(ticket.larger_first());
    question.answer.places = if pair.matches == 1 { [primary + 1, secondary + 1] } else { [0, 0] };
    XDP_DROP
}

/// The bytes are a payload: its segment's key.
#[xdp]
pub fn read_payload(_ctx: XdpContext) -> u32 {
    let Some((question, stream)) = question() else { return XDP_ABORTED };
    let key = payload::key(&stream, question.len, &question.rules, &question.secret);
    question.answer.state = key.is_some() as u32;
    question.answer.key = key.unwrap_or(0);
    XDP_DROP
}
