//! The same between two processes of HAProxy: its peers protocol and a stick table with a 16-byte string key.

use super::node::Use;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time that something takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Entries in a write to the command socket.
const LINES: u64 = 64;

/// A process.
pub(super) struct Haproxy {
    process: Child,
    socket: PathBuf,
}

/// Whether it is installed.
pub(super) fn is_installed() -> bool {
    Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Two ports that are free.
pub(super) fn ports() -> Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

impl Haproxy {
    /// Starts the peer with that number of the two.
    pub(super) fn start(directory: &Path, ports: [u16; 2], own: usize, entries: u64) -> Result<Self> {
        let socket = directory.join(format!("peer{own}.sock"));
        let file = directory.join(format!("peer{own}.cfg"));
        let text = format!(
            "global\n    stats socket {} mode 600 level admin\n    nbthread 2\n    localpeer peer{own}\n\
             defaults\n    timeout client 30s\n    timeout server 30s\n    timeout connect 5s\n\
             peers all\n    peer peer0 127.0.0.1:{}\n    peer peer1 127.0.0.1:{}\n\
             backend sessions\n    stick-table type string len 16 size {} expire 1h store server_id peers all\n",
            socket.display(),
            ports[0],
            ports[1],
            entries + entries / 4,
        );
        std::fs::write(&file, text)?;
        let process = Command::new("haproxy")
            .args(["-db", "-f", &file.display().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting haproxy")?;
        let haproxy = Self { process, socket };
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(&haproxy.socket).is_err() {
            ensure!(Instant::now() < until, "haproxy does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(haproxy)
    }

    /// Puts so many entries into its table.
    pub(super) fn fill(&self, entries: u64) -> Result<()> {
        for from in (0..entries).step_by(LINES as usize) {
            let lines: Vec<String> = (from..(from + LINES).min(entries))
                .map(|entry| {
                    let key = entry.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    format!("set table sessions key {key:015x} data.server_id {}", 1 + entry % 100)
                })
                .collect();
            self.ask(&lines.join(";"))?;
        }
        Ok(())
    }

    /// Waits until its table holds so many entries; the time that took.
    pub(super) fn wait(&self, entries: u64) -> Result<Duration> {
        let begin = Instant::now();
        while self.held()? < entries {
            if begin.elapsed() > PATIENCE {
                bail!("haproxy holds {} of {entries} entries after {PATIENCE:?}", self.held()?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(begin.elapsed())
    }

    /// What it has used.
    pub(super) fn used(&self) -> Result<Use> {
        Use::of(self.process.id())
    }

    fn held(&self) -> Result<u64> {
        // Without a table's name it lists none of the entries.
        let answer = self.ask("show table")?;
        let used = answer.split("used:").nth(1).context("no table")?;
        Ok(used.chars().take_while(char::is_ascii_digit).collect::<String>().parse()?)
    }

    fn ask(&self, command: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(command.as_bytes())?;
        stream.write_all(b"\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // One that has ended already needs not be ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
