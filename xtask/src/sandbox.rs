//! `cargo xtask sandbox`: namespaces with clients, a running balancer and three web servers.

mod balancer;
mod claim;
pub(crate) mod netns;
mod nginx;
pub(crate) mod topology;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::build::{self, Product};
use crate::progress::{openly, read, say};
use crate::{interrupt, setup, workspace};
use claim::Claim;
use topology::{BACKENDS, BALANCER, CLIENT};

/// Everything that the sandbox writes is in here.
pub(crate) const DIRECTORY: &str = "/run/stickleback-sandbox";

/// Where its balancer pins maps and links; not the default, so that a real one on this machine is left alone.
const PINS: &str = "/sys/fs/bpf/stickleback-sandbox";

/// Options of `cargo xtask sandbox`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build, make the namespaces, start everything; returns when requests succeed
    Up {
        /// A configuration other than xtask/sandbox.toml
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Run a command in a namespace: client, lb, be1, be2 or be3
    #[command(
        after_help = "Examples:\n  cargo xtask sandbox exec client -- curl http://10.99.0.1/whoami\n  \
                      cargo xtask sandbox exec lb -- lbctl status"
    )]
    Exec {
        /// Which one, with or without the `sb-` before it
        name: String,
        /// The command and its arguments
        #[arg(required = true, last = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Show what runs
    Status,
    /// Remove everything, also what a crash left behind
    Down,
}

/// Runs the command.
pub(crate) fn task(arguments: Arguments) -> Result<()> {
    setup::require_root("network namespaces")?;
    match arguments.action {
        Action::Up { config } => {
            interrupt::catch()?;
            setup::for_namespaces()?;
            let product = build::product()?;
            let mut sandbox = Sandbox::up(&product, config.as_deref())?;
            sandbox.keep();
            explain();
            Ok(())
        }
        Action::Exec { name, command } => exec(&name, &command),
        Action::Status => status(),
        Action::Down => {
            Claim::take()?.remove()?;
            say("the sandbox is gone");
            Ok(())
        }
    }
}

/// Prints how to play with a sandbox that stays.
pub(crate) fn explain() {
    println!(
        "The sandbox is up. Try:\n\
         \x20 cargo xtask sandbox exec client -- curl -s http://10.99.0.1/whoami\n\
         \x20 cargo xtask sandbox exec client -- curl -s --interface 10.99.9.7 http://10.99.0.1/whoami\n\
         \x20 cargo xtask sandbox exec client -- curl -s 'http://[fd99::1]/whoami'\n\
         \x20 cargo xtask sandbox exec lb -- lbctl status\n\
         \x20 cargo xtask sandbox exec be1 -- bash\n\
         \x20 cargo xtask sandbox down"
    );
}

/// A running sandbox; removed when dropped, unless kept.
pub(crate) struct Sandbox {
    claim: Option<Claim>,
    lbctl: PathBuf,
}

impl Sandbox {
    /// Makes it, in place of whatever an earlier run left behind.
    pub(crate) fn up(product: &Product, config: Option<&Path>) -> Result<Self> {
        let claim = Claim::take()?;
        claim.remove()?;
        claim.mark()?;
        // From here on, dropping removes what was made so far.
        let sandbox = Self { claim: Some(claim), lbctl: product.lbctl.clone() };
        topology::make()?;
        nginx::start(Path::new(DIRECTORY))?;
        balancer::start(product, config)?;
        Ok(sandbox)
    }

    /// Leaves it running when this value goes.
    pub(crate) fn keep(&mut self) {
        self.claim = None;
    }

    /// Asks the balancer; the answer is JSON.
    pub(crate) fn ask(&self, question: &[&str]) -> Result<serde_json::Value> {
        balancer::ask(&self.lbctl, question)
    }

    /// Removes it.
    pub(crate) fn down(mut self) -> Result<()> {
        self.claim.take().map_or(Ok(()), |claim| claim.remove())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take()
            && let Err(error) = claim.remove()
        {
            say(&format!(
                "the sandbox could not be removed: {error:#}; `cargo xtask sandbox down` tries again"
            ));
        }
    }
}

fn exec(name: &str, command: &[OsString]) -> Result<()> {
    let full = if name.starts_with("sb-") { name.to_owned() } else { format!("sb-{name}") };
    if !topology::namespaces().contains(&full) {
        bail!("there is no `{name}` in the sandbox: expected client, lb, {}", BACKENDS.join(", "));
    }
    if !netns::exists(&full) {
        bail!("the sandbox is not up: `cargo xtask sandbox up` makes it");
    }
    let (program, arguments) = command.split_first().context("no command to run")?;
    let mut command = netns::command(&full, program);
    command.args(arguments);
    with_lbctl(&mut command);
    // In place of this process: signals and the exit status are the command's own.
    Err(command.exec()).context("cannot run nsenter")
}

/// Lets a command find the release binaries and the sandbox's balancer.
fn with_lbctl(command: &mut Command) {
    let release = workspace::target().join("release");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env(
        "PATH",
        format!("{}:{}:/usr/sbin:/sbin:{path}", balancer::programs().display(), release.display()),
    );
    workspace::forget_cargo(command);
}

fn status() -> Result<()> {
    let names = topology::namespaces();
    if !names.iter().any(|name| netns::exists(name)) {
        println!("The sandbox is down.");
        return Ok(());
    }
    for name in names {
        if !netns::exists(&name) {
            println!("{name}: missing");
            continue;
        }
        let addresses =
            read(Command::new("ip").args(["-n", &name, "-brief", "address", "show", "scope", "global"]))?;
        let what = if name == CLIENT {
            "clients"
        } else if name == BALANCER {
            "lbd"
        } else {
            "nginx"
        };
        println!("{name} ({what})");
        for line in addresses.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (interface, state) = (words.first().unwrap_or(&""), words.get(1).unwrap_or(&""));
            let shown = words.iter().skip(2).take(4).copied().collect::<Vec<_>>().join(" ");
            let more = words.len().saturating_sub(6);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            println!("  {interface} {state} {shown}{more}");
        }
    }
    let mut lbctl = Command::new(build::built().lbctl);
    openly(lbctl.arg("--socket").arg(balancer::socket()).arg("status"))
}
