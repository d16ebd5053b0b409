//! The program at the ingress of the stack, on every interface whose packets are handled; pinned like the XDP link.
//!
//! Kernels from 6.6 on have links there, which move from one program to the next without a gap. On older ones it is a
//! filter, which stays on its interface by itself and is replaced in place. Where it cannot be, requests that the
//! driver cannot make room for wait until their clients send them again, so this is told and does not stop anything.

mod filter;

use super::{interface::Interface, links, pins::Pins, syscall};
use crate::dataplane::Result;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// Moves every interface to another program.
pub(super) fn update_all(pins: &Pins, program: BorrowedFd<'_>) -> Result<()> {
    links::owned(pins)?.iter().for_each(|link| put(pins, &link.interface, program));
    Ok(())
}

/// Attaches the program to an interface, or moves it there from an earlier program.
pub(super) fn put(pins: &Pins, interface: &Interface, program: BorrowedFd<'_>) {
    let name = &interface.name;
    let done = match pins.open_fill(name) {
        Ok(Some(link)) => match syscall::update_link(link.as_fd(), program) {
            // Its interface went, and another one of that name came.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
                remove(pins, name);
                attach(pins, interface, program)
            }
            other => other,
        },
        Ok(None) => attach(pins, interface, program),
        Err(error) => Err(io::Error::other(error)),
    };
    if let Err(error) = done {
        tracing::warn!(
            interface = name,
            %error,
            "nothing can be attached at the ingress of the stack: requests may wait for a retransmission"
        );
    }
}

fn attach(pins: &Pins, interface: &Interface, program: BorrowedFd<'_>) -> io::Result<()> {
    match syscall::link_ingress(program, interface.index) {
        Ok(link) => pins.put_fill(&interface.name, link.as_fd()).map_err(io::Error::other),
        Err(error) if is_unknown(&error) => filter::put(interface.index, program),
        Err(error) => Err(error),
    }
}

/// Whether the kernel is older than these links.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Leaves an interface; one that is gone has been left.
pub(super) fn remove(pins: &Pins, name: &str) {
    let done = match pins.remove_fill(name) {
        Ok(false) => match Interface::query(name) {
            Ok(interface) => filter::remove(interface.index),
            Err(_) => Ok(()),
        },
        other => other.map(drop).map_err(io::Error::other),
    };
    if let Err(error) = done {
        tracing::error!(interface = name, %error, "cannot leave the ingress of the stack");
    }
}

/// Leaves every interface.
pub(super) fn remove_all(pins: &Pins) -> Result<()> {
    for (name, _) in pins.open_links()? {
        remove(pins, &name);
    }
    for name in pins.fills()? {
        remove(pins, &name);
    }
    Ok(())
}
