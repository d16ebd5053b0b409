//! A running `lbd` and its `lbctl`.

use super::process::{Process, eventually, run};
use super::{Namespace, SOON};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Patience with a daemon that starts: the kernel verifies a million instructions, on whatever CPU it gets.
const START: Duration = Duration::from_secs(120);

/// A daemon in a namespace, with its own pins, socket and files.
#[derive(Debug)]
pub struct Balancer {
    namespace: Namespace,
    directory: PathBuf,
    pins: PathBuf,
    /// The command that runs it, for other privileges than the test's own.
    under: Vec<String>,
    process: Option<Process>,
}

impl Balancer {
    /// Starts it with this configuration and waits until it answers.
    pub fn start(namespace: &Namespace, directory: &Path, pins: &Path, config: &str) -> Result<Self> {
        Self::start_under(&[], namespace, directory, pins, config)
    }

    /// The same through another command, which is given the program and its arguments.
    pub fn start_under(
        command: &[String],
        namespace: &Namespace,
        directory: &Path,
        pins: &Path,
        config: &str,
    ) -> Result<Self> {
        let mut balancer = Self {
            namespace: namespace.clone(),
            directory: directory.join("lbd"),
            pins: pins.to_owned(),
            under: command.to_vec(),
            process: None,
        };
        std::fs::create_dir_all(&balancer.directory)?;
        balancer.write(config)?;
        balancer.restart()?;
        Ok(balancer)
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`].
    pub fn restart(&mut self) -> Result<()> {
        let (config, state) = (self.directory.join("lb.toml"), self.directory.join("state"));
        let mut command = match self.under.split_first() {
            None => self.namespace.command(binary("lbd")?)?,
            Some((program, arguments)) => {
                let mut command = self.namespace.command(program)?;
                command.args(arguments).arg(binary("lbd")?);
                command
            }
        };
        command
            .arg("--config")
            .arg(config)
            .arg("--state-dir")
            .arg(state)
            .arg("--socket")
            .arg(self.socket())
            .arg("--pin-root")
            .arg(&self.pins);
        let mut process = Process::start(&mut command, &self.log_file())?;
        let ready = eventually(START, || {
            if let Some(status) = process.ended()? {
                bail!("lbd ended with {status}");
            }
            self.ask(&["status"])
        });
        ready.with_context(|| format!("lbd does not come up; its log:\n{}", self.log()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Ends it in good order; the data plane goes on.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.stop(SOON)?;
            ensure!(status.success(), "lbd ended with {status}; its log:\n{}", self.log());
        }
        Ok(())
    }

    /// Replaces the configuration file and has it loaded.
    pub fn reload(&self, config: &str) -> Result<()> {
        self.write(config)?;
        self.ctl_within(&["reload"], START).map(drop)
    }

    /// Replaces the configuration file.
    pub fn write(&self, config: &str) -> Result<()> {
        let file = self.directory.join("lb.toml");
        std::fs::write(&file, config).with_context(|| format!("writing {}", file.display()))
    }

    /// Runs `lbctl` and gives back what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        self.ctl_within(arguments, SOON)
    }

    /// Asks `lbctl` for JSON.
    pub fn ask(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut all = vec!["-o", "json"];
        all.extend(arguments);
        let text = self.ctl(&all)?;
        serde_json::from_str(&text).with_context(|| format!("lbctl {arguments:?} printed {text}"))
    }

    /// Starts `lbctl`; what it prints goes to the end of `log`.
    pub fn start_ctl(&self, arguments: &[&str], log: &Path) -> Result<Process> {
        Process::start(self.lbctl()?.args(arguments), log)
    }

    /// The same on a terminal of its own, wide enough for any line.
    pub fn start_ctl_on_a_terminal(&self, arguments: &[&str], log: &Path) -> Result<Process> {
        let lbctl = self.lbctl()?;
        let words =
            [lbctl.get_program()].into_iter().chain(lbctl.get_args()).map(|word| word.to_string_lossy());
        let words: Vec<_> = words.chain(arguments.iter().map(|word| (*word).into())).collect();
        let line = format!("stty cols 400; exec {}", words.join(" "));
        Process::start(Command::new("script").args(["-qefc", &line, "/dev/null"]), log)
    }

    /// What the metrics say.
    pub fn metrics(&self) -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "--max-time", "20", "--unix-socket"]).arg(self.socket());
        let finished = run(curl.arg("http://lbd/metrics"), SOON)?;
        ensure!(finished.status.success(), "curl ended with {}: {}", finished.status, finished.stderr);
        Ok(finished.stdout)
    }

    /// The pinned maps and links.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn ctl_within(&self, arguments: &[&str], patience: Duration) -> Result<String> {
        let finished = run(self.lbctl()?.args(arguments), patience)?;
        ensure!(
            finished.status.success(),
            "lbctl {} ended with {}: {}{}",
            arguments.join(" "),
            finished.status,
            finished.stdout,
            finished.stderr
        );
        Ok(finished.stdout)
    }

    fn lbctl(&self) -> Result<Command> {
        let mut command = Command::new(binary("lbctl")?);
        command.arg("--socket").arg(self.socket());
        Ok(command)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("lbd.sock")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("lbd.log")
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of lbd's log:\n{}", tail(&self.log(), 40));
        }
        self.kill();
        // Pinned links hold the programs on interfaces that are about to go.
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}

/// A binary of the product, built beside this test.
pub fn binary(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let near = this.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    near.into_iter().find(|path| path.is_file()).with_context(|| {
        format!("{name} has not been built beside {}: run `cargo xtask test`", this.display())
    })
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
