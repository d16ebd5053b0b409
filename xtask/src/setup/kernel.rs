//! What the running kernel must have.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use crate::progress::say;

/// Where the kernel's BPF file system belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// The lowest kernel that has all we use: Debian 12's.
const LOWEST: (u32, u32) = (6, 1);

/// Fails with what is missing and what to do about it.
pub(crate) fn check() -> Result<()> {
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's version")?;
    let release = release.trim();
    match version(release) {
        Some(found) if found >= LOWEST => {}
        Some(_) => {
            bail!("kernel {release} is too old: the XDP programs need {}.{} or newer", LOWEST.0, LOWEST.1)
        }
        None => say(&format!("cannot tell how old kernel `{release}` is; going on")),
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "kernel {release} has no type information (/sys/kernel/btf/vmlinux is missing): \
             boot a kernel built with CONFIG_DEBUG_INFO_BTF=y; Debian's own are"
        );
    }
    Ok(())
}

/// Mounts the BPF file system when nobody has.
pub(crate) fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    if mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(BPFFS) && line.split(' ').nth(2) == Some("bpf"))
    {
        return Ok(());
    }
    say(&format!("mounting the BPF file system at {BPFFS}"));
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700")).with_context(|| {
        format!("cannot mount the BPF file system at {BPFFS}: `mount -t bpf bpf {BPFFS}` tells more")
    })
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_compare_as_numbers() {
        assert_eq!(version("6.1.0-37-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.44-custom"), Some((6, 18)));
        assert!(version("5.15.0") < Some(LOWEST));
        assert!(version("6.18") > Some(LOWEST));
        assert_eq!(version("linux"), None);
    }
}
