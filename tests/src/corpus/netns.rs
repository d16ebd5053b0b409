//! A network namespace of this thread alone, with the interfaces that the cases name.

use super::tables::{DEVICES, mtu};
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// The calling thread is in a namespace of its own from now on; it ends with the thread.
#[derive(Debug)]
pub struct OwnNamespace(());

impl OwnNamespace {
    /// Leaves the machine's namespace and makes a veth pair for each interface of the corpus.
    pub fn enter() -> Result<Self> {
        // SAFETY: no arguments besides a flag.
        let root = unsafe { libc::geteuid() } == 0;
        ensure!(root, "these tests run programs in the kernel and need root: run them with sudo");
        // SAFETY: as above; only this thread is moved.
        let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        ensure!(moved == 0, "a network namespace of its own: {}", std::io::Error::last_os_error());
        // The kernel's own neighbour discovery would count as packets.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").context("switching IPv6 off")?;
        for index in DEVICES {
            Self::add(index, mtu(index))?;
        }
        Ok(Self(()))
    }

    /// Adds an interface to this thread's namespace.
    pub(super) fn add(index: u32, mtu: u16) -> Result<()> {
        let (name, peer, number) = (Self::interface(index), Self::peer(index), index.to_string());
        ip(&["link", "add", "name", &name, "index", &number, "type", "veth", "peer", "name", &peer])?;
        ip(&["link", "set", &name, "mtu", &mtu.to_string(), "up"])?;
        ip(&["link", "set", &peer, "up"])
    }

    /// Changes an interface there.
    pub(super) fn set(name: &str, what: &[&str]) -> Result<()> {
        ip(&[&["link", "set", name], what].concat())
    }

    /// Name of the other end of an interface.
    pub(super) fn peer(index: u32) -> String {
        format!("t-fix-{index}p")
    }

    /// Name of an interface of the corpus.
    pub fn interface(index: u32) -> String {
        format!("t-fix-{index}")
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("running ip (package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {said}", arguments.join(" "));
    Ok(())
}
