//! The sandbox's `lbd`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::topology::{BALANCER, CLIENT, VIP4, VIP6};
use super::{DIRECTORY, PINS, netns};
use crate::build::Product;
use crate::progress::{Step, read, say};
use crate::{interrupt, workspace};

/// How long starting may take on a slow machine, whose kernel verifies a million instructions.
const PATIENCE: Duration = Duration::from_secs(120);

/// Its admin socket; `xtask/sandbox.toml` says the same.
pub(super) fn socket() -> PathBuf {
    Path::new(DIRECTORY).join("lbd.sock")
}

/// Starts it and waits until it serves.
pub(super) fn start(product: &Product, config: Option<&Path>) -> Result<()> {
    let step = Step::begin("starting lbd");
    let file = match config {
        Some(file) => fs::canonicalize(file)
            .with_context(|| format!("cannot read the configuration {}", file.display()))?,
        // A copy, so that playing with it leaves the repository as it is.
        None => {
            let (from, to) =
                (workspace::root().join("xtask/sandbox.toml"), Path::new(DIRECTORY).join("lb.toml"));
            fs::copy(&from, &to)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
            to
        }
    };
    write_lbctl(&product.lbctl)?;
    let log = Path::new(DIRECTORY).join("lbd.log");
    let open_log = || {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))
    };
    let mut command = netns::command(BALANCER, &product.lbd);
    command.arg("--config").arg(&file).args(["--pin-root", PINS]);
    // A group of its own: Ctrl-C in the terminal ends the demo, which then ends lbd in good order.
    command.process_group(0).stdin(Stdio::null()).stdout(open_log()?).stderr(open_log()?);
    workspace::forget_cargo(&mut command);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", product.lbd.display()))?;
    let ready = wait_until_ready(&mut child, &product.lbctl, config.is_some(), &step);
    // Never waited for: it lives on after `sandbox up`, and what it leaves when it ends early is reaped with us.
    if ready.is_err() {
        drop(step);
        say(&format!("lbd's log:\n{}", log_end(&log)));
        return ready;
    }
    step.done();
    Ok(())
}

/// Where commands in the sandbox find their `lbctl`.
pub(super) fn programs() -> PathBuf {
    Path::new(DIRECTORY).join("bin")
}

/// Writes an `lbctl` that talks to the sandbox's balancer unless told otherwise.
fn write_lbctl(real: &Path) -> Result<()> {
    let file = programs().join("lbctl");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in\n*' --socket'*) exec '{real}' \"$@\" ;;\n*) exec '{real}' --socket '{socket}' \"$@\" ;;\nesac\n",
        real = real.display(),
        socket = socket().display()
    );
    fs::create_dir_all(programs())
        .and_then(|()| fs::write(&file, script))
        .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Asks a question through lbctl.
pub(super) fn ask(lbctl: &Path, question: &[&str]) -> Result<serde_json::Value> {
    let text = read(Command::new(lbctl).arg("--socket").arg(socket()).args(["-o", "json"]).args(question))?;
    serde_json::from_str(&text)
        .with_context(|| format!("lbctl {} answered something other than JSON", question.join(" ")))
}

fn wait_until_ready(child: &mut Child, lbctl: &Path, own_config: bool, step: &Step) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    // Somebody's own configuration may have other services: there, lbd's word must do.
    let services: &[IpAddr] = if own_config { &[] } else { &[IpAddr::V4(VIP4), IpAddr::V6(VIP6)] };
    let mut answers = 0;
    loop {
        interrupt::check()?;
        if let Some(status) = child.try_wait().context("cannot watch lbd")? {
            bail!("lbd ended at once ({status})");
        }
        let state = ask(lbctl, &["status"]).and_then(|status| {
            if !own_config && status["hops"]["unresolved"].as_u64() != Some(0) {
                bail!("the ways to the backends are not known yet");
            }
            services.iter().try_for_each(|vip| request(*vip))
        });
        let trouble = match state {
            // Every backend's way has to be known: a few clients meet them all.
            Ok(()) if answers >= 3 => return Ok(()),
            Ok(()) => {
                answers += 1;
                continue;
            }
            Err(trouble) => trouble,
        };
        answers = 0;
        if Instant::now() > give_up {
            return Err(trouble).context(format!("lbd does not serve after {} s", PATIENCE.as_secs()));
        }
        step.detail(&format!("{trouble:#}"));
        thread::sleep(Duration::from_millis(100));
    }
}

fn request(vip: IpAddr) -> Result<()> {
    let url = format!("http://{}/whoami", SocketAddr::new(vip, 80));
    let mut curl = netns::command(CLIENT, "curl");
    read(curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "2", &url]))
        .map(drop)
}

fn log_end(log: &Path) -> String {
    let Ok(file) = File::open(log) else { return "(empty)".to_owned() };
    let lines: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
