//! Network namespaces, cables, servers and balancers for tests that use real packets and real processes.
//!
//! Everything a test makes carries a prefix with the number of its process. It is removed when the test ends,
//! and what a killed test left behind is removed by the next one. Nothing else is ever touched, and nothing
//! waits without a deadline.

pub mod balancer;
pub mod bmv2;
pub mod config;
pub mod crossing;
pub mod load;
pub mod namespace;
pub mod precedence;
pub mod process;
pub mod server;
pub mod site;
pub mod testbed;

pub use balancer::Balancer;
pub use bmv2::Bmv2;
pub use config::{BackendConfig, NodeConfig, ServiceConfig};
pub use crossing::Crossing;
pub use load::{Load, LoadPlan, LoadReport};
pub use namespace::Namespace;
pub use precedence::Precedence;
pub use process::Process;
pub use site::{Arms, Site, SiteBackend};
pub use testbed::{BadCable, Faults, Testbed, Vlan};

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Where named namespaces live.
const NAMESPACES: &str = "/run/netns";
/// The BPF file system.
const BPF: &str = "/sys/fs/bpf";
/// Patience with a command that should be instant.
pub const SOON: Duration = Duration::from_secs(30);

/// The namespaces, files and pins of one test.
#[derive(Debug)]
pub struct Topology {
    prefix: String,
    directory: PathBuf,
    namespaces: Vec<Namespace>,
}

impl Topology {
    /// An empty topology; fails when the process may not make namespaces.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // SAFETY: no arguments, cannot fail.
        let user = unsafe { libc::geteuid() };
        ensure!(user == 0, "this test makes network namespaces and loads BPF programs: run it as root");
        remove_leftovers()?;
        mount_bpf()?;
        let prefix = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&prefix);
        std::fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        Ok(Self { prefix, directory, namespaces: Vec::new() })
    }

    /// Makes a namespace whose loopback is up.
    pub fn namespace(&mut self, name: &str) -> Result<Namespace> {
        let namespace = Namespace::create(&format!("{}-{name}", self.prefix))?;
        self.namespaces.push(namespace.clone());
        Ok(namespace)
    }

    /// A directory for files, removed at the end.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory on the BPF file system, removed at the end.
    pub fn pins(&self) -> PathBuf {
        Path::new(BPF).join(&self.prefix)
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("KEEP_TOPOLOGY").is_some() {
            // The logs are what one needs to understand a failure.
            eprintln!("files of the failed test stay in {}", self.directory.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
        let _ = std::fs::remove_dir_all(self.pins());
        for namespace in &self.namespaces {
            namespace.remove();
        }
    }
}

/// Connects two namespaces by a cable with one queue per CPU.
///
/// Checksums are complete on the wire, because XDP programs work on what is there; GRO is on, without which
/// veth does not take redirected frames.
pub fn cable(a: (&Namespace, &str), b: (&Namespace, &str), mtu: u16) -> Result<()> {
    let queues = std::thread::available_parallelism()?;
    let queues = format!("numtxqueues {queues} numrxqueues {queues}");
    let ((a, a_name), (b, b_name)) = (a, b);
    a.sh(&format!(
        "ip link add {a_name} mtu {mtu} {queues} type veth peer name {b_name} mtu {mtu} {queues} netns {}",
        b.name()
    ))?;
    // GRO at both ends before either is up: a veth end takes redirected frames only when the other end's GRO was
    // on as it came up.
    for (namespace, name) in [(a, a_name), (b, b_name)] {
        namespace.sh(&format!("ethtool -K {name} tx off gro on >/dev/null"))?;
    }
    for (namespace, name) in [(a, a_name), (b, b_name)] {
        namespace.sh(&format!("ip link set {name} up"))?;
    }
    steer_by_flow(b, b_name)
}

/// Lets a host take all packets of a connection on one CPU, as a NIC's RSS does.
///
/// Linux 6.18 was seen to answer with a reset, about once in some hundred thousand connections, presumably when one CPU takes a request while another one
/// still turns the handshake's last acknowledgement into the connection. The balancer's own ends stay as they are: its
/// programs have to bear packets of one flow on several CPUs.
fn steer_by_flow(host: &Namespace, interface: &str) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get().min(32);
    // The host's own /sys, which only this way of entering it shows.
    host.sh(&format!(
        "ip netns exec {} sh -e -c 'for queue in /sys/class/net/{interface}/queues/rx-*; do echo {:x} > $queue/rps_cpus; done'",
        host.name(),
        (1_u64 << cpus) - 1
    ))
    .map(drop)
}

/// Removes what tests of processes that are gone have left.
fn remove_leftovers() -> Result<()> {
    for root in [Path::new(NAMESPACES), Path::new(BPF), &std::env::temp_dir()] {
        let Ok(entries) = std::fs::read_dir(root) else { continue };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if owner(name).is_none_or(|pid| Path::new("/proc").join(pid.to_string()).exists()) {
                continue;
            }
            if root == Path::new(NAMESPACES) {
                Namespace::existing(name).remove();
            } else {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
    Ok(())
}

/// The process whose test made something of that name.
fn owner(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix('t')?.split_once('-')?;
    let number = rest.split('-').next()?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn mount_bpf() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPF)) {
        return Ok(());
    }
    let status = std::process::Command::new("mount").args(["-t", "bpf", "bpf", BPF]).status()?;
    ensure!(status.success(), "mounting the BPF file system at {BPF} failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_have_an_owner() {
        assert_eq!(owner("t123-0-client"), Some(123));
        assert_eq!(owner("t123-4"), Some(123));
        assert_eq!(owner("sb-client"), None);
        assert_eq!(owner("t-bench-x"), None);
        assert_eq!(owner("t12-bench"), None);
    }
}
