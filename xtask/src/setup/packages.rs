//! The distribution's packages: which are missing, and installing them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress::{quietly, read, say};
use crate::workspace;

/// What a package is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Compiling and linking the XDP programs with Debian's Rust.
    Compiler,
    /// Clippy of that compiler.
    Lint,
    /// Sandbox, demo, tests and benchmarks.
    Sandbox,
    /// Protocol stacks of other makes for the tests.
    Peers,
    /// Fuzzing.
    Fuzz,
}

/// How to see quickly that a package's content is there, wherever it came from.
enum Sign {
    Program(&'static str),
    File(&'static str),
    /// Other packages have a program of that name that would not do: ask dpkg.
    Dpkg,
}

struct Package {
    name: &'static str,
    purpose: Purpose,
    sign: Sign,
}

const fn package(name: &'static str, purpose: Purpose, sign: Sign) -> Package {
    Package { name, purpose, sign }
}

const PACKAGES: [Package; 20] = [
    package("rustc-web", Purpose::Compiler, Sign::Dpkg),
    package("cargo-web", Purpose::Compiler, Sign::Dpkg),
    package("rust-web-src", Purpose::Compiler, Sign::Dpkg),
    package("llvm-22-dev", Purpose::Compiler, Sign::File("/usr/lib/llvm-22/bin/llvm-config")),
    // bpf-linker's build compiles C++ against LLVM's headers.
    package("g++", Purpose::Compiler, Sign::Program("g++")),
    package("rust-web-clippy", Purpose::Lint, Sign::Dpkg),
    package("iproute2", Purpose::Sandbox, Sign::Program("ip")),
    package("ethtool", Purpose::Sandbox, Sign::Program("ethtool")),
    package("nftables", Purpose::Sandbox, Sign::Program("nft")),
    package("bird2", Purpose::Sandbox, Sign::Program("bird")),
    package("nginx-light", Purpose::Sandbox, Sign::Program("nginx")),
    package(
        "libnginx-mod-http-lua",
        Purpose::Sandbox,
        Sign::File("/usr/lib/nginx/modules/ngx_http_lua_module.so"),
    ),
    package("procps", Purpose::Sandbox, Sign::Program("sysctl")),
    package("iputils-ping", Purpose::Sandbox, Sign::Program("ping")),
    package("curl", Purpose::Sandbox, Sign::Program("curl")),
    package("wrk", Purpose::Sandbox, Sign::Program("wrk")),
    package("iperf3", Purpose::Sandbox, Sign::Program("iperf3")),
    // The fixtures are checked against packets made by scapy.
    package(
        "python3-scapy",
        Purpose::Sandbox,
        Sign::File("/usr/lib/python3/dist-packages/scapy/__init__.py"),
    ),
    package("python3-venv", Purpose::Peers, Sign::Dpkg),
    package("g++", Purpose::Fuzz, Sign::Program("g++")),
];

/// Whether this is a distribution whose packages we know.
pub(super) fn available() -> bool {
    workspace::program("apt-get").is_some() && workspace::program("dpkg-query").is_some()
}

/// Installs what is missing for some purposes.
pub(super) fn require(purposes: &[Purpose]) -> Result<()> {
    let missing = missing(purposes)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !available() {
        bail!(
            "missing on this machine: {}. There is no apt-get here: install what your distribution calls them, then run this again",
            missing.join(", ")
        );
    }
    super::require_root(&format!(
        "the packages {} are missing, and installing packages does",
        missing.join(", ")
    ))?;
    install(&missing)
}

fn missing(purposes: &[Purpose]) -> Result<Vec<&'static str>> {
    let wanted: Vec<&Package> = PACKAGES.iter().filter(|p| purposes.contains(&p.purpose)).collect();
    let ask_dpkg: Vec<&str> =
        wanted.iter().filter(|p| matches!(p.sign, Sign::Dpkg)).map(|p| p.name).collect();
    let installed = installed(&ask_dpkg);
    let there = |package: &Package| match package.sign {
        Sign::Program(name) => workspace::program(name).is_some(),
        Sign::File(path) => Path::new(path).exists(),
        Sign::Dpkg => installed.contains(package.name),
    };
    Ok(wanted.into_iter().filter(|p| !there(p)).map(|p| p.name).collect())
}

/// Which of these packages dpkg has; it exits with 1 when it does not know one, and lists the others all the same.
fn installed(names: &[&str]) -> BTreeSet<String> {
    if names.is_empty() {
        return BTreeSet::new();
    }
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(names)
        .output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect()
}

fn install(names: &[&'static str]) -> Result<()> {
    say(&format!("installing Debian packages: {}", names.join(" ")));
    let _services = ServicesStayOff::begin()?;
    // A fresh machine has no package lists, an old one has lists of files that are gone: fetch them when needed.
    let unknown = names.iter().any(|name| !known(name));
    if unknown {
        update()?;
    }
    if let Some(name) = names.iter().find(|name| !known(name)) {
        bail!(
            "the package `{name}` is in none of this machine's package sources; Debian 12 has it in bookworm or \
             bookworm-security: add the missing source to /etc/apt/sources.list, run `apt-get update`, then this again"
        );
    }
    let first =
        quietly("apt-get install", apt().args(["install", "--yes", "--no-install-recommends"]).args(names));
    if let Err(error) = first {
        say(&format!("{error:#}; fetching the package lists and trying once more"));
        update()?;
        quietly("apt-get install", apt().args(["install", "--yes", "--no-install-recommends"]).args(names))
            .with_context(|| format!("could not install {}: see apt's message above", names.join(", ")))?;
    }
    Ok(())
}

fn known(name: &str) -> bool {
    read(Command::new("apt-cache").args(["show", "--no-all-versions", name]))
        .is_ok_and(|text| !text.trim().is_empty())
}

fn update() -> Result<()> {
    quietly("apt-get update", apt().arg("update"))
        .or_else(|_| quietly("apt-get update, again", apt().arg("update")))
        .context("no package lists: is the network up, are the sources in /etc/apt right?")
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    // Another apt may be at work (unattended upgrades): wait for it instead of failing.
    command.args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "-q"]);
    command
}

/// While it lives, packages that are installed do not start their services: nginx must not take the host's port 80.
struct ServicesStayOff {
    made: bool,
}

impl ServicesStayOff {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn begin() -> Result<Self> {
        if Path::new(Self::POLICY).exists() {
            return Ok(Self { made: false });
        }
        fs::write(Self::POLICY, "#!/bin/sh\nexit 101\n")
            .with_context(|| format!("cannot write {}", Self::POLICY))?;
        fs::set_permissions(Self::POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self { made: true })
    }
}

impl Drop for ServicesStayOff {
    fn drop(&mut self) {
        if self.made
            && let Err(error) = fs::remove_file(Self::POLICY)
        {
            say(&format!(
                "cannot remove {}: {error}; remove it by hand or services will not start",
                Self::POLICY
            ));
        }
    }
}
