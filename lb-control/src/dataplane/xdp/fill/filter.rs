//! The same on kernels without links at the ingress: a filter of the `clsact` queueing discipline.

use super::super::netlink;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `TC_H_MIN_INGRESS` of `clsact`.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };
/// The filter's own number; its preference is a place that others hardly use.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
/// Its preference.
const PREFERENCE: u32 = 0x5b11;

/// Puts the program in the place of an earlier one, or there where none was.
pub(super) fn put(ifindex: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut discipline = message(ifindex, TcHandle { major: 0xffff, minor: 0 }, TcHandle::CLSACT, 0);
    discipline.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    match ask(RouteNetlinkMessage::NewQueueDiscipline(discipline), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let mut filter = filter(ifindex);
    filter.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
        TcOption::Bpf(TcFilterBpfOption::ProgName("stickleback".to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    ask(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE)
}

/// Removes the filter; none is no error. The discipline stays: others may have filters there.
pub(super) fn remove(ifindex: u32) -> io::Result<()> {
    match ask(RouteNetlinkMessage::DelTrafficFilter(filter(ifindex)), 0) {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    }
}

/// No such filter, no discipline, or no interface.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV | libc::EOPNOTSUPP))
}

fn filter(ifindex: u32) -> TcMessage {
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    let mut filter = message(ifindex, HANDLE, INGRESS, PREFERENCE << 16 | u32::from(every_protocol));
    filter.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    filter
}

fn message(ifindex: u32, handle: TcHandle, parent: TcHandle, info: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = ifindex.cast_signed();
    message.header.handle = handle;
    message.header.parent = parent;
    message.header.info = info;
    message
}

/// Sends a request and waits for its acknowledgement.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    match netlink::ask(request, NLM_F_ACK | flags)? {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(io::Error::other(format!("unexpected answer to a filter request: {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::{EbpfLoader, programs::SchedClassifier};
    use std::os::fd::AsFd;

    /// Index of the loopback interface, the first one of every network namespace.
    const LOOPBACK: u32 = 1;

    fn filters() -> usize {
        let shown =
            std::process::Command::new("tc").args(["filter", "show", "dev", "lo", "ingress"]).output();
        String::from_utf8_lossy(&shown.expect("tc").stdout).matches("stickleback").count()
    }

    #[test]
    fn a_filter_is_put_once_and_removed() {
        // SAFETY: only this thread moves to the new namespace, which goes with it.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "this test needs root");
        let mut loader = EbpfLoader::new();
        for table in ["BINDINGS", "FLOWS", "FLOW_INDEX", "HOLDS", "ARENA"] {
            loader.map_max_entries(table, 64);
        }
        let mut object = loader.load(super::super::super::object::OBJECT).expect("the object");
        let program = object.program_mut("fill").expect("the program");
        let program: &mut SchedClassifier = program.try_into().expect("its kind");
        program.load().expect("it loads");
        let program = program.fd().expect("loaded").as_fd();
        remove(LOOPBACK).expect("none is no error");
        put(LOOPBACK, program).expect("it is put");
        put(LOOPBACK, program).expect("it is put in its own place");
        assert_eq!(filters(), 1);
        remove(LOOPBACK).expect("it is removed");
        assert_eq!(filters(), 0);
        remove(LOOPBACK).expect("it is gone");
    }
}
