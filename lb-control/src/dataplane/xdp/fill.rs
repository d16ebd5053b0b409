//! The program at the ingress of the stack: on every interface that packets are handled on, pinned like the XDP link.
//!
//! Kernels from 6.6 on have links there, which move from one program to the next without a gap. On older ones it is a
//! filter, which stays on its interface by itself and is replaced in place.

mod filter;

use super::{interface::Interface, links::failed, pins::Pins, syscall};
use crate::dataplane::{InterfaceError, Result};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// Attaches the program to an interface.
pub(super) fn attach(pins: &Pins, interface: &Interface, program: BorrowedFd<'_>) -> Result<()> {
    detach(pins, &interface.name)?;
    put(pins, interface, program)
        .map_err(|source| failed(&interface.name, InterfaceError::Refused { mode: "ingress", source }))
}

fn put(pins: &Pins, interface: &Interface, program: BorrowedFd<'_>) -> io::Result<()> {
    match syscall::link_ingress(program, interface.index) {
        Ok(link) => pins.put_fill(&interface.name, link.as_fd()),
        Err(error) if is_unknown(&error) => filter::put(interface.index, program),
        Err(error) => Err(error),
    }
}

/// Whether the kernel is older than these links.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Leaves an interface; one that is gone has been left.
pub(super) fn detach(pins: &Pins, name: &str) -> Result<()> {
    if pins.remove_fill(name)? {
        return Ok(());
    }
    let Ok(interface) = Interface::query(name) else { return Ok(()) };
    filter::remove(interface.index)
        .map_err(|source| failed(name, InterfaceError::Refused { mode: "ingress", source }))
}

/// Moves an interface from one program to another; attaches it where none was.
pub(super) fn update(pins: &Pins, interface: &Interface, program: BorrowedFd<'_>) -> Result<()> {
    let moved = match pins.open_fill(&interface.name)? {
        Some(link) => syscall::update_link(link.as_fd(), program),
        None => put(pins, interface, program),
    };
    match moved {
        // The interface went and another one of its name came.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => attach(pins, interface, program),
        other => other
            .map_err(|source| failed(&interface.name, InterfaceError::Refused { mode: "ingress", source })),
    }
}
