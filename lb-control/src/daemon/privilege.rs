//! What the process must be allowed to do.

use std::fs;

/// A capability by its number in `linux/capability.h`, its name, and what it is needed for.
const NEEDED: [(u32, &str, &str); 3] = [
    (39, "CAP_BPF", "to load the programs and make their maps"),
    (12, "CAP_NET_ADMIN", "to attach to interfaces and follow neighbours"),
    (38, "CAP_PERFMON", "because the verifier asks for it with these programs"),
];

/// `CAP_SYS_ADMIN`, which stands for the BPF capabilities on older set-ups.
const SYS_ADMIN: u32 = 21;

/// The process lacks capabilities.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough privileges; missing are {}.\n  hint: run it as root, or under the systemd unit, which grants exactly these",
    missing.join(", ")
)]
pub(super) struct Unprivileged {
    missing: Vec<String>,
}

/// Checks the effective capabilities of this process.
pub(super) fn check() -> Result<(), Unprivileged> {
    match fs::read_to_string("/proc/self/status") {
        Ok(status) => effective(&status).map_or(Ok(()), judge),
        // Without /proc the kernel itself will say what is missing.
        Err(_) => Ok(()),
    }
}

/// The set of effective capabilities in a process's status.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn judge(capabilities: u64) -> Result<(), Unprivileged> {
    let has = |number: u32| capabilities >> number & 1 == 1;
    let covered = |number: u32| has(number) || (has(SYS_ADMIN) && matches!(number, 38 | 39));
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(number, _, _)| !covered(*number))
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Unprivileged { missing }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_exactly_what_is_missing() {
        assert_eq!(judge(u64::MAX), Ok(()));
        assert_eq!(judge(1 << SYS_ADMIN | 1 << 12), Ok(()));
        let error = judge(1 << 39 | 1 << 38).expect_err("no NET_ADMIN").to_string();
        assert!(error.contains("CAP_NET_ADMIN (to attach") && !error.contains("CAP_BPF"), "{error}");
        assert_eq!(judge(0).expect_err("none").missing.len(), 3);
    }

    #[test]
    fn reads_the_line_of_the_kernel() {
        assert_eq!(effective("Name:\tlbd\nCapEff:\t000001ffffffffff\nX:\t1\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("CapEff:\tnonsense"), None);
    }
}
