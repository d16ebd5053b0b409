//! How often a backend is probed, and after how many answers it is believed, as the backend itself sees it.

use anyhow::{Context, Result, ensure};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Arms, Namespace, Precedence, Site};

const PORT: u16 = 9_009;
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers in a row that count, as configured.
const ENOUGH: usize = 3;
/// The defaults in milliseconds, ten percent to either side, and what a packet and a timer may take.
const REGULAR: RangeInclusive<u128> = 355..=480;
const FAST: RangeInclusive<u128> = 40..=95;
const SLOW: RangeInclusive<u128> = 1_795..=2_240;

/// A server that answers probes as it is told, and notes when they came and what they got.
struct Patient {
    status: Arc<AtomicU16>,
    seen: Arc<Mutex<Vec<(Instant, u16)>>>,
    ends: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Patient {
    fn start(namespace: &Namespace) -> Result<Self> {
        let listener = namespace.inside(|| Ok(TcpListener::bind(("0.0.0.0", PORT))?))?;
        listener.set_nonblocking(true)?;
        let (status, ends) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicBool::new(false)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let worker = {
            let (status, seen, ends) = (Arc::clone(&status), Arc::clone(&seen), Arc::clone(&ends));
            std::thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let (at, status) = (Instant::now(), status.load(Ordering::Relaxed));
                            lock(&seen).push((at, status));
                            // Whoever hangs up has not waited for the answer, and comes again.
                            drop(answer(stream, status));
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            sleep(Duration::from_millis(1))
                        }
                        Err(error) => panic!("nobody can be accepted: {error}"),
                    }
                }
            })
        };
        Ok(Self { status, seen, ends, worker: Some(worker) })
    }

    /// Answers with this status from now on, until `count` probes have got it.
    fn answer(&self, status: u16, count: usize) -> Result<()> {
        self.status.store(status, Ordering::Relaxed);
        let before = lock(&self.seen).len();
        eventually(PATIENCE, || {
            let got = lock(&self.seen).iter().skip(before).filter(|(_, got)| *got == status).count();
            ensure!(got >= count, "{got} of {count} probes came");
            Ok(())
        })
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(self.worker.take().map(JoinHandle::join));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(mut stream: TcpStream, status: u16) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(150)))?;
    let mut request = [0; 2_048];
    let length = stream.read(&mut request)?;
    ensure!(request[..length].ends_with(b"\r\n\r\n"));
    stream.write_all(
        format!("HTTP/1.1 {status} .\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    Ok(())
}

/// Probes come at the interval of the state; it takes `fall` failures to be down, and `rise` answers to be up.
#[test]
fn namespace_health_paces() -> Result<()> {
    let _precedence = Precedence::take()?;
    let site = Site::new(Arms::Two, 1)?;
    let patient = Patient::start(&site.backends[0].namespace)?;
    let vip = SocketAddr::new([10, 99, 0, 1].into(), 80);
    let health = format!("health = {{ kind = \"http\", port = {PORT}, rise = {ENOUGH}, fall = {ENOUGH} }}");
    let _balancer = site.balance(&[site.service("web", vip, "nat", false).with(&health)])?;
    patient.answer(200, 14)?;
    patient.answer(503, ENOUGH + 3)?;
    patient.answer(200, ENOUGH + 4)?;

    let seen = lock(&patient.seen).clone();
    let is_ill = |probe: &(Instant, u16)| probe.1 == 503;
    let fell = seen.iter().position(is_ill).context("it was never ill")?;
    let rose = seen.iter().rposition(is_ill).context("it was never ill")? + 1;
    let gaps: Vec<u128> = seen.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_millis()).collect();
    println!("pauses in milliseconds: {gaps:?}, ill from {fell} to {rose}");
    for (place, gap) in gaps.iter().enumerate() {
        // What was known when the probe in front of the pause had been answered.
        let (name, due) = match place {
            _ if place < fell => ("regular", REGULAR),
            _ if place < fell + ENOUGH - 1 => ("fast", FAST),
            _ if place < rose => ("slow", SLOW),
            _ if place < rose + ENOUGH - 1 => ("fast", FAST),
            _ => ("regular", REGULAR),
        };
        ensure!(due.contains(gap), "pause {place} took {gap} ms, and {name} ones take {due:?}: {gaps:?}");
    }
    // Chance makes them differ, so that probes of many backends do not come together.
    let regular = &gaps[..fell];
    let spread = regular.iter().max().context("no pauses")? - regular.iter().min().context("no pauses")?;
    ensure!(spread >= 10, "all regular pauses are alike: {regular:?}");
    Ok(())
}
