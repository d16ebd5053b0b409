//! Attachments: pinned links that survive the process, and their move from one program to the next.

use super::{
    AttachPolicy,
    interface::Interface,
    pins::Pins,
    syscall::{self, LinkMode},
};
use crate::dataplane::{AttachMode, Attachment, Error, InterfaceError, Result};
use aya::programs::loaded_programs;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Largest MTU whose frames fit one page with the headroom and tail that XDP needs.
pub(super) const LARGEST_MTU: u32 = 3_498;

/// A link that this program owns, on an interface that is there.
pub(super) struct Owned {
    pub(super) interface: Interface,
    link: OwnedFd,
    program: u32,
}

/// Links whose interface is there; pins of links whose interface is gone are removed.
pub(super) fn owned(pins: &Pins) -> Result<Vec<Owned>> {
    let mut found = Vec::new();
    for (name, link) in pins.open_links()? {
        let info = syscall::link_info(link.as_fd())
            .map_err(|source| failed(&name, InterfaceError::Query(source)))?;
        match Interface::query(&name) {
            Ok(interface) if interface.index == info.ifindex => {
                found.push(Owned { interface, link, program: info.program });
            }
            Ok(_) | Err(InterfaceError::Missing) => {
                tracing::warn!(
                    interface = name,
                    "the interface was removed or renamed; forgetting its attachment"
                );
                pins.remove_link(&name)?;
                pins.remove_fill(&name)?;
            }
            Err(source) => return Err(failed(&name, source)),
        }
    }
    Ok(found)
}

/// What the kernel says of the attachments.
pub(super) fn attachments(pins: &Pins) -> Result<Vec<Attachment>> {
    Ok(owned(pins)?.into_iter().map(|link| attachment(&link.interface)).collect())
}

/// Moves every link to another program, or none.
pub(super) fn update_all(pins: &Pins, program: BorrowedFd<'_>) -> Result<()> {
    let links = owned(pins)?;
    for (place, link) in links.iter().enumerate() {
        let Err(source) = syscall::update_link(link.link.as_fd(), program) else { continue };
        for done in &links[..place] {
            let back = syscall::program(done.program)
                .and_then(|old| syscall::update_link(done.link.as_fd(), old.as_fd()));
            if let Err(error) = back {
                tracing::error!(interface = done.interface.name, %error, "cannot put the former program back");
            }
        }
        return Err(failed(&link.interface.name, InterfaceError::Update(source)));
    }
    Ok(())
}

/// Attaches the program to an interface and pins the link.
pub(super) fn attach(
    pins: &Pins,
    interface: &Interface,
    program: BorrowedFd<'_>,
    policy: AttachPolicy,
) -> Result<Attachment> {
    let name = &interface.name;
    pins.remove_link(name)?;
    if let Some(id) = interface.program {
        return Err(failed(name, occupied(interface, id)));
    }
    let link = match policy {
        AttachPolicy::Native => native(interface, program),
        AttachPolicy::Generic => generic(interface, program),
        AttachPolicy::Any => native(interface, program).or_else(|error| {
            tracing::warn!(interface = name, %error, "no native XDP here; attaching in generic mode, which is slower");
            generic(interface, program)
        }),
    };
    let link = link.map_err(|source| failed(name, source))?;
    pins.put_link(name, link.as_fd())?;
    let attached = Interface::query(name).map_err(|source| failed(name, source))?;
    Ok(attachment(&attached))
}

/// Names the interface of a failure.
pub(super) fn failed(interface: &str, source: InterfaceError) -> Error {
    Error::Interface { interface: interface.to_owned(), source }
}

fn native(interface: &Interface, program: BorrowedFd<'_>) -> std::result::Result<OwnedFd, InterfaceError> {
    let too_large = InterfaceError::Mtu { mtu: interface.mtu, limit: LARGEST_MTU };
    if interface.mtu > LARGEST_MTU {
        return Err(too_large);
    }
    syscall::link(program, interface.index, LinkMode::Driver).map_err(|source| match source.raw_os_error() {
        Some(libc::ERANGE) => too_large,
        _ => refused(interface, "native", source),
    })
}

fn generic(interface: &Interface, program: BorrowedFd<'_>) -> std::result::Result<OwnedFd, InterfaceError> {
    syscall::link(program, interface.index, LinkMode::Skb)
        .map_err(|source| refused(interface, "generic", source))
}

fn refused(interface: &Interface, mode: &'static str, source: io::Error) -> InterfaceError {
    let busy = matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EEXIST));
    match Interface::query(&interface.name) {
        Ok(found @ Interface { program: Some(id), .. }) if busy => occupied(&found, id),
        _ => InterfaceError::Refused { mode, source },
    }
}

fn occupied(interface: &Interface, id: u32) -> InterfaceError {
    let named = loaded_programs().flatten().find(|program| program.id() == id);
    let name = named.and_then(|program| program.name_as_str().map(str::to_owned));
    let mode = match interface.attached {
        Some(AttachMode::Native) => "native",
        Some(AttachMode::Generic) => "skb",
        // Several programs in several modes.
        None => "unknown",
    };
    InterfaceError::Occupied { interface: interface.name.clone(), id, name: name.unwrap_or_default(), mode }
}

fn attachment(interface: &Interface) -> Attachment {
    Attachment {
        interface: interface.name.clone(),
        ifindex: interface.index,
        mode: interface.attached.unwrap_or(AttachMode::Native),
        mtu: interface.mtu,
    }
}
