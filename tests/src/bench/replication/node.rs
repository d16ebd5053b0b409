//! A node in a process of its own, so that its time and memory can be told from others'.
//!
//! It takes commands line by line and answers each with one line.

use anyhow::{Context, Result, bail, ensure};
use lb_control::cluster::authority::Authority;
use lb_control::cluster::home::Home;
use lb_control::cluster::identity::Role;
use lb_control::cluster::join::join;
use lb_control::cluster::keyring::Keyring;
use lb_control::cluster::replica::{Replica, Update};
use lb_control::config::SharedSecrets;
use lb_core::binding::Key;
use lb_core::sync::Local;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The option of the benchmark that makes it a node.
const OPTION: &str = "--replication-node";
/// Bindings told at once, as many as a read of the ring gives.
const BATCH: u64 = 1_024;
/// Lifetime of a binding.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// Servers.
const SERVERS: u64 = 100;
/// Service whose session keys say when they were made, and batches of it a second.
const PACED: (u32, u64) = (8, 200);
/// Time until a node has begun, and until something has come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node that runs.
pub(super) struct Node {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    listen: SocketAddr,
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    /// CPU time.
    pub(super) cpu: Duration,
    /// Resident bytes.
    pub(super) resident: u64,
}

impl Use {
    /// Of a process.
    pub(super) fn of(id: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
        let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at).context("a short stat")?.parse()?) };
        // SAFETY: a call without pointers.
        let second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) })?.max(1);
        let cpu = Duration::from_millis((ticks(11)? + ticks(12)?) * 1_000 / second);
        let statm = std::fs::read_to_string(format!("/proc/{id}/statm"))?;
        let pages: u64 = statm.split_whitespace().nth(1).context("a short statm")?.parse()?;
        Ok(Self { cpu, resident: pages * 4_096 })
    }
}

impl Node {
    /// Starts a node with this state directory: the first of a cluster, or one that joins another.
    pub(super) fn start(state: &Path, by: Option<&mut Self>) -> Result<Self> {
        let listen = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let home = Home::in_state(state);
        match by {
            None => drop(Authority::found(
                &home,
                "first",
                vec![listen.to_string()],
                Keyring::of(&SharedSecrets::default()),
            )?),
            Some(first) => {
                let token = first.order("token")?.parse().map_err(|_| anyhow::anyhow!("no token"))?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let address = first.listen.to_string();
                runtime.block_on(join(&home, &address, &token, "second", vec![listen.to_string()], None))?;
            }
        }
        let mut process = Command::new(std::env::current_exe()?)
            .args([OPTION, &state.display().to_string(), &listen.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a node")?;
        let orders = process.stdin.take().context("no stdin")?;
        let answers = BufReader::new(process.stdout.take().context("no stdout")?);
        Ok(Self { process, orders, answers, listen })
    }

    /// Waits until it has the database.
    pub(super) fn ready(&mut self) -> Result<()> {
        self.order("ready").map(drop)
    }

    /// Binds so many sessions from that one on; the time until they were durable.
    pub(super) fn bind(&mut self, from: u64, count: u64) -> Result<Duration> {
        self.timed(&format!("bind {from} {count}"))
    }

    /// Waits until it holds so many bindings; the time that took.
    pub(super) fn wait(&mut self, count: u64) -> Result<Duration> {
        self.timed(&format!("wait {count}"))
    }

    /// Binds sessions at a steady rate; the time until they were durable.
    pub(super) fn pace(&mut self, rate: u64, seconds: u64) -> Result<Duration> {
        self.timed(&format!("pace {rate} {seconds}"))
    }

    /// Of so many bindings that were made at a steady rate elsewhere, the time in which 99 of 100 were told here.
    pub(super) fn ninety_nine(&mut self, count: u64) -> Result<Duration> {
        self.timed(&format!("delay {count}"))
    }

    /// What it has used.
    pub(super) fn used(&self) -> Result<Use> {
        Use::of(self.process.id())
    }

    fn timed(&mut self, order: &str) -> Result<Duration> {
        Ok(Duration::from_micros(self.order(order)?.parse()?))
    }

    fn order(&mut self, order: &str) -> Result<String> {
        writeln!(self.orders, "{order}")?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            bail!("a node ended when it was told to {order}");
        }
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // One that has ended already needs not be ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the process does.
pub(in crate::bench) fn run(state: &Path, listen: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (replica, mut updates, _) = Replica::start(&Home::in_state(state), listen, None)?;
        // The data plane's place: everything is taken at once.
        let delays = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&delays);
        let drained = tokio::spawn(async move {
            while let Some(batch) = updates.recv().await {
                let now = monotonic();
                let paced = batch.iter().filter_map(|update| match update {
                    Update::Put(binding, _) if binding.key.service == PACED.0 => Some(binding.key.session),
                    _ => None,
                });
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.extend(paced.map(|made| now.saturating_sub(made)));
            }
        });
        for line in std::io::stdin().lock().lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            let answer = match words[..] {
                ["token"] => replica.token(Role::Node, PATIENCE)?.to_string(),
                ["ready"] => {
                    replica.ready().wait_for(|ready| *ready).await?;
                    "ready".to_owned()
                }
                ["bind", from, count] => {
                    let begin = Instant::now();
                    bind(&replica, from.parse()?, count.parse()?).await?;
                    begin.elapsed().as_micros().to_string()
                }
                ["wait", count] => {
                    let begin = Instant::now();
                    wait(&replica, count.parse()?).await?;
                    begin.elapsed().as_micros().to_string()
                }
                ["pace", rate, seconds] => {
                    let begin = Instant::now();
                    pace(&replica, rate.parse()?, seconds.parse()?).await?;
                    begin.elapsed().as_micros().to_string()
                }
                ["delay", count] => {
                    let mut delays = delays.lock().unwrap_or_else(PoisonError::into_inner);
                    let count: usize = count.parse()?;
                    ensure!(delays.len() >= count, "{} of {count} bindings were told", delays.len());
                    let place = delays.len() * 99 / 100;
                    (*delays.select_nth_unstable(place).1 / 1_000).to_string()
                }
                _ => bail!("{line:?} is no command"),
            };
            println!("{answer}");
        }
        replica.stop().await;
        drained.await?;
        Ok(())
    })
}

async fn bind(replica: &Replica, from: u64, count: u64) -> Result<()> {
    let mut last = None;
    for start in (from..from + count).step_by(BATCH as usize) {
        let sessions = start..(start + BATCH).min(from + count);
        let local = sessions.map(|session| Local::Bound {
            key: Key { service: 7, session: session.wrapping_mul(0x9e37_79b9_7f4a_7c15) },
            server: 1 + session % SERVERS,
            generation: 0,
            left: LIFETIME,
        });
        last = Some(replica.tell(local.collect()).await?);
    }
    if let Some(told) = last {
        told.durable().await?;
    }
    Ok(())
}

/// Sessions are named by the nanosecond in which they are due, so that a sender that falls behind counts as slow.
async fn pace(replica: &Replica, rate: u64, seconds: u64) -> Result<()> {
    let (pause, count) = (1_000_000_000 / PACED.1, rate / PACED.1);
    let begin = monotonic();
    let mut last = None;
    for turn in 0..PACED.1 * seconds {
        let due = begin + turn * pause;
        tokio::time::sleep(Duration::from_nanos(due.saturating_sub(monotonic()))).await;
        let local = (0..count).map(|place| Local::Bound {
            key: Key { service: PACED.0, session: due + place },
            server: 1 + place % SERVERS,
            generation: 0,
            left: LIFETIME,
        });
        last = Some(replica.tell(local.collect()).await?);
    }
    if let Some(told) = last {
        told.durable().await?;
    }
    Ok(())
}

/// Nanoseconds of the clock that all processes share.
fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

async fn wait(replica: &Replica, count: usize) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let standing = replica.standing().await?;
        if standing.is_ready && standing.bindings >= count {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{} of {count} bindings came in {PATIENCE:?}", standing.bindings);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
