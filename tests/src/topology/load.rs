//! Load with a memory: who answered whom, what failed, and which sessions moved.

use super::process::{Process, eventually};
use super::{Namespace, SOON};
use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest that one request may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Failures that are told in full.
const TOLD: usize = 10;
/// Holds connections.
const HOLD: &str = include_str!("load/hold.py");

/// What to send.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Where to.
    pub vip: SocketAddr,
    /// From which addresses; each is a session.
    pub clients: Vec<IpAddr>,
    /// The cookie by which each client is recognised, when there is one; its value is made from the client's address.
    pub cookie: Option<&'static str>,
    /// Many requests a connection, or one.
    pub keep_alive: bool,
    /// Connections at a time.
    pub threads: usize,
    /// Pause after each request, so that a small machine can do something else, too.
    pub pause: Duration,
}

impl LoadPlan {
    /// Short connections from these clients, from four threads.
    pub fn new(vip: SocketAddr, clients: Vec<IpAddr>) -> Self {
        Self { vip, clients, cookie: None, keep_alive: false, threads: 4, pause: Duration::from_millis(1) }
    }

    /// The same with a cookie of this name.
    #[must_use]
    pub fn with_cookie(self, name: &'static str) -> Self {
        Self { cookie: Some(name), ..self }
    }

    /// The same with connections that stay.
    #[must_use]
    pub fn kept_alive(self) -> Self {
        Self { keep_alive: true, ..self }
    }
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Requests answered.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The first failures.
    pub failures: Vec<String>,
    /// Times that a client was answered by another backend than the last time.
    pub moved: u64,
    /// Requests a backend.
    pub backends: BTreeMap<String, u64>,
    /// The backend that each client was last answered by.
    pub sessions: BTreeMap<IpAddr, String>,
    /// The longest that a request took.
    pub longest: Duration,
}

impl LoadReport {
    /// Fails unless at least `least` requests were made, all were answered and no session moved.
    pub fn flawless(&self, least: u64) -> Result<()> {
        self.answered(least)?;
        ensure!(self.moved == 0, "{} sessions moved in {} requests", self.moved, self.requests);
        Ok(())
    }

    /// Fails unless at least `least` requests were made and all were answered.
    pub fn answered(&self, least: u64) -> Result<()> {
        ensure!(
            self.failed == 0,
            "{} of {} requests failed: {}",
            self.failed,
            self.requests + self.failed,
            self.failures.join("; ")
        );
        ensure!(self.requests >= least, "only {} requests were made, not {least}", self.requests);
        Ok(())
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(TOLD);
        self.moved += other.moved;
        for (backend, requests) in other.backends {
            *self.backends.entry(backend).or_default() += requests;
        }
        self.sessions.extend(other.sessions);
        self.longest = self.longest.max(other.longest);
    }
}

/// Load that runs until it is finished.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    workers: Vec<JoinHandle<Result<LoadReport>>>,
}

/// What has happened until now.
#[derive(Debug)]
struct Progress {
    /// Requests answered.
    answered: AtomicU64,
    /// Times that a client was answered by another backend than the last time.
    moved: AtomicU64,
    /// Rounds over its clients that each worker has completed.
    rounds: Vec<AtomicU64>,
}

impl Load {
    /// Starts sending from a namespace.
    pub fn start(namespace: &Namespace, plan: &LoadPlan) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = plan.threads.clamp(1, plan.clients.len());
        let rounds = (0..threads).map(|_| AtomicU64::new(0)).collect();
        let progress = Arc::new(Progress { answered: AtomicU64::new(0), moved: AtomicU64::new(0), rounds });
        let workers = (0..threads)
            .map(|worker| {
                let own: Vec<IpAddr> = plan.clients.iter().copied().skip(worker).step_by(threads).collect();
                let (namespace, plan) = (namespace.clone(), plan.clone());
                let (stop, progress) = (Arc::clone(&stop), Arc::clone(&progress));
                std::thread::spawn(move || {
                    namespace.enter()?;
                    Ok(work(&plan, &own, &stop, &progress, worker))
                })
            })
            .collect();
        Ok(Self { stop, progress, workers })
    }

    /// Waits until so many requests have been answered since the start.
    pub fn reach(&self, requests: u64) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while self.answered() < requests {
            ensure!(
                Instant::now() < end,
                "only {} of {requests} requests were answered in a minute",
                self.answered()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until `requests` more have been answered from now on.
    pub fn go_on(&self, requests: u64) -> Result<()> {
        self.reach(self.answered() + requests)
    }

    fn answered(&self) -> u64 {
        self.progress.answered.load(Ordering::Relaxed)
    }

    /// Waits until each client has asked once more from the beginning, however long that takes (up to a minute).
    pub fn go_round(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        for (worker, rounds) in self.progress.rounds.iter().enumerate() {
            // The round that is under way may have begun before.
            let whole = rounds.load(Ordering::Relaxed) + 2;
            while rounds.load(Ordering::Relaxed) < whole {
                ensure!(
                    Instant::now() < end,
                    "worker {worker} did not get round all of its clients in a minute"
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Fails when a session is answered by another backend than before, in a whole round that begins after all that was under way.
    pub fn stays(&self) -> Result<()> {
        let moved = || self.progress.moved.load(Ordering::Relaxed);
        self.go_round()?;
        let before = moved();
        self.go_round()?;
        ensure!(moved() == before, "{} sessions moved after all that had to", moved() - before);
        Ok(())
    }

    /// Stops sending and tells what became of it.
    pub fn finish(mut self) -> Result<LoadReport> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = LoadReport::default();
        for worker in self.workers.drain(..) {
            sum.add(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(sum)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One request from one client on a connection of its own: the backend that answered.
pub fn once(namespace: &Namespace, vip: SocketAddr, client: IpAddr) -> Result<String> {
    namespace.inside(|| Connection::open(vip, client)?.request(false, ""))
}

/// One request from a client's address and port, in this thread's namespace, when `between` has been done after the handshake.
pub fn once_from(
    vip: SocketAddr,
    client: SocketAddr,
    between: impl FnOnce() -> Result<()>,
) -> Result<String> {
    let mut connection = Connection::open_from(vip, client)?;
    between()?;
    let backend = connection.request(false, "Cookie: SESS=abc\r\n")?;
    // Who closes first cannot use the port again for a minute.
    connection.read_end()?;
    Ok(backend)
}

/// One request from each client; who answered whom.
pub fn each(namespace: &Namespace, vip: SocketAddr, clients: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>> {
    namespace.inside(|| {
        clients
            .iter()
            .map(|&client| {
                let backend = Connection::open(vip, client)
                    .and_then(|mut connection| connection.request(false, ""))
                    .with_context(|| format!("client {client}"))?;
                Ok((client, backend))
            })
            .collect()
    })
}

/// Connections from one client address and port to several VIPs, all open at once: the backends that answered.
pub fn together(namespace: &Namespace, vips: &[SocketAddr], client: SocketAddr) -> Result<Vec<String>> {
    namespace.inside(|| {
        let open = |&vip| Connection::open_from(vip, client).with_context(|| format!("{client} to {vip}"));
        let mut connections: Vec<Connection> = vips.iter().map(open).collect::<Result<_>>()?;
        connections.iter_mut().map(|connection| connection.request(false, "")).collect()
    })
}

/// Opens a connection from each client, and keeps them for as long as the process lives; how many were refused stands beside it.
pub fn hold(
    namespace: &Namespace,
    directory: &Path,
    vip: SocketAddr,
    clients: &[IpAddr],
) -> Result<(Process, usize)> {
    let first = clients.first().context("nobody to hold connections")?;
    let (script, log) = (directory.join("hold.py"), directory.join(format!("hold-{first}.log")));
    std::fs::write(&script, HOLD)?;
    let mut arguments = vec!["python3".to_owned(), script.display().to_string()];
    arguments.extend([vip.ip().to_string(), vip.port().to_string()]);
    arguments.extend(clients.iter().map(ToString::to_string));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = namespace.start(&arguments, &log)?;
    let refused = eventually(SOON, || {
        let said = process.log();
        let refused = said.lines().find_map(|line| line.strip_prefix("held ")?.split(' ').nth(2));
        refused.and_then(|count| count.parse().ok()).with_context(|| format!("nothing is held: {said}"))
    })?;
    Ok((process, refused))
}

fn work(
    plan: &LoadPlan,
    clients: &[IpAddr],
    stop: &AtomicBool,
    progress: &Progress,
    worker: usize,
) -> LoadReport {
    let begun = Instant::now();
    let mut report = LoadReport::default();
    let mut connections: BTreeMap<IpAddr, Connection> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for &client in clients {
            let cookie = plan.cookie.map(|name| format!("Cookie: {name}=s{client}\r\n")).unwrap_or_default();
            let started = Instant::now();
            let result = match connections.remove(&client) {
                Some(connection) => Ok(connection),
                None => Connection::open(plan.vip, client),
            }
            .and_then(|mut connection| {
                let backend = connection.request(plan.keep_alive, &cookie)?;
                Ok((backend, connection))
            });
            report.longest = report.longest.max(started.elapsed());
            match result {
                Ok((backend, connection)) => {
                    report.requests += 1;
                    progress.answered.fetch_add(1, Ordering::Relaxed);
                    if plan.keep_alive {
                        connections.insert(client, connection);
                    }
                    *report.backends.entry(backend.clone()).or_default() += 1;
                    let last = report.sessions.insert(client, backend.clone());
                    if last.is_some_and(|last| last != backend) {
                        report.moved += 1;
                        progress.moved.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) => {
                    report.failed += 1;
                    if report.failures.len() < TOLD {
                        let at = started.duration_since(begun);
                        report.failures.push(format!("{client}, begun after {at:?}: {error:#}"));
                    }
                }
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(plan.pause);
        }
        progress.rounds[worker].fetch_add(1, Ordering::Relaxed);
    }
    report
}

/// An HTTP connection from a chosen address.
struct Connection {
    stream: TcpStream,
}

impl Connection {
    fn open(vip: SocketAddr, client: IpAddr) -> Result<Self> {
        Self::open_from(vip, SocketAddr::new(client, 0))
    }

    fn open_from(vip: SocketAddr, client: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(vip), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(client.port() != 0)?;
        socket.bind(&client.into()).with_context(|| format!("binding to {client}"))?;
        socket.connect_timeout(&vip.into(), PATIENCE).context("connecting")?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Asks who is there; `lines` are further header lines.
    fn request(&mut self, keep_alive: bool, lines: &str) -> Result<String> {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let request = format!("GET /whoami HTTP/1.1\r\nHost: vip\r\n{lines}Connection: {connection}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).context("sending the request")?;
        let mut answer = Vec::with_capacity(512);
        let mut piece = [0; 2_048];
        loop {
            if let Some(body) = body(&answer)? {
                let whoami: serde_json::Value = serde_json::from_slice(body).context("reading the body")?;
                let backend = whoami["backend"].as_str().context("the answer names no backend")?;
                return Ok(backend.to_owned());
            }
            match self.stream.read(&mut piece).context("reading the answer")? {
                0 => bail!("the connection ended after {} bytes of the answer", answer.len()),
                n => answer.extend_from_slice(&piece[..n]),
            }
        }
    }

    /// Waits until the server has closed.
    fn read_end(&mut self) -> Result<()> {
        let rest = self.stream.read(&mut [0]).context("waiting for the end of the connection")?;
        ensure!(rest == 0, "the answer goes on behind its end");
        Ok(())
    }
}

/// The body of an answer that is complete.
fn body(answer: &[u8]) -> Result<Option<&[u8]>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end]).context("the head is not text")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "the answer begins {:?}", head.lines().next());
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:").map(|v| v.trim().to_owned())
        })
        .context("the answer has no Content-Length")?;
    let length: usize = length.parse()?;
    Ok(answer.get(end + 4..end + 4 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_there_when_all_of_it_is() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(body(answer).unwrap(), Some(&b"abc"[..]));
        assert_eq!(body(&answer[..answer.len() - 1]).unwrap(), None);
        assert_eq!(body(&answer[..10]).unwrap(), None);
        body(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").unwrap_err();
    }
}
