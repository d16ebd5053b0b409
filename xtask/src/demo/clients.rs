//! Many clients with an address each, who all check that they always meet the same backend.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};

use crate::progress::read;
use crate::sandbox::netns;
use crate::sandbox::topology::{self, CLIENT, VIP4, VIP6};

/// Clients of each family that open sockets themselves; the first addresses are theirs.
const OWN: u8 = 60;
/// Clients of each family that are curl.
const CURL: u8 = 4;
/// Clients of each family and each service by cookie.
const WITH_COOKIE: u8 = 10;
/// Threads that drive the first kind.
const THREADS: usize = 4;
/// Requests on one connection.
const REQUESTS: usize = 5;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many clients there are.
pub(super) fn count() -> usize {
    2 * usize::from(OWN + CURL + 2 * WITH_COOKIE)
}

/// What the clients saw so far.
#[derive(Clone, Default)]
pub(super) struct Tally {
    /// Requests answered rightly.
    pub(super) requests: u64,
    /// Requests not answered, or answered wrongly.
    pub(super) failed: u64,
    /// Answers from another backend than the client's first one.
    pub(super) violations: u64,
    /// Requests by backend.
    pub(super) per_backend: BTreeMap<String, u64>,
    /// The first thing that went wrong.
    pub(super) first_trouble: Option<String>,
    /// Microseconds that requests took.
    pub(super) times: Vec<u32>,
    /// The same by service.
    pub(super) services: BTreeMap<&'static str, OfService>,
}

/// What clients of one service saw.
#[derive(Clone, Default, serde::Serialize)]
pub(super) struct OfService {
    /// Requests answered rightly.
    pub(super) requests: u64,
    /// Requests not answered, or answered wrongly.
    pub(super) failed: u64,
    /// Answers from another backend than the session's first one.
    pub(super) sticky_violations: u64,
    /// Requests by backend.
    pub(super) per_backend: BTreeMap<String, u64>,
}

impl Tally {
    fn count(&mut self, client: &mut Visitor, took: Duration, answer: Result<WhoAmI>) {
        let of_service = self.services.entry(client.service.name()).or_default();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.failed += 1;
                of_service.failed += 1;
                self.first_trouble.get_or_insert_with(|| format!("{}: {error:#}", client.address));
                return;
            }
        };
        self.requests += 1;
        of_service.requests += 1;
        self.times.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        let first = client.backend.get_or_insert_with(|| answer.backend.clone());
        if *first != answer.backend {
            self.violations += 1;
            of_service.sticky_violations += 1;
            let trouble = || format!("{} was served by {first}, then by {}", client.address, answer.backend);
            self.first_trouble.get_or_insert_with(trouble);
        }
        *of_service.per_backend.entry(answer.backend.clone()).or_default() += 1;
        *self.per_backend.entry(answer.backend).or_default() += 1;
    }
}

/// All clients, at work.
pub(super) struct Crowd {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Sends them off.
    pub(super) fn start() -> Result<Self> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut crowd = Self { tally, stop, threads: Vec::new() };
        let mut own: Vec<Vec<Visitor>> = (0..THREADS).map(|_| Vec::new()).collect();
        let by_cookie = [Service::Cookie, Service::Route]
            .into_iter()
            .flat_map(|service| Visitor::all(service, 1 + OWN + CURL, WITH_COOKIE));
        let all = Visitor::all(Service::Web, 1, OWN).into_iter().chain(by_cookie);
        for (n, visitor) in all.enumerate() {
            own[n % THREADS].push(visitor);
        }
        for visitors in own {
            crowd.send(visitors, Visitor::visit)?;
        }
        crowd.send(Visitor::all(Service::Web, 1 + OWN, CURL), Visitor::curl)?;
        Ok(crowd)
    }

    /// What they saw so far.
    pub(super) fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls them back.
    pub(super) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn send(&mut self, mut visitors: Vec<Visitor>, visit: fn(&mut Visitor, &Mutex<Tally>)) -> Result<()> {
        let (tally, stop) = (Arc::clone(&self.tally), Arc::clone(&self.stop));
        let work = move || {
            if let Err(error) = netns::enter(CLIENT) {
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.failed += 1;
                tally.first_trouble.get_or_insert_with(|| format!("{error:#}"));
                return;
            }
            while !stop.load(Ordering::Relaxed) {
                for visitor in &mut visitors {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    visit(visitor, &tally);
                    // People pause too; and the load generator is to have the machine.
                    thread::sleep(Duration::from_millis(2));
                }
            }
        };
        let thread =
            thread::Builder::new().name("clients".to_owned()).spawn(work).context("cannot start a thread")?;
        self.threads.push(thread);
        Ok(())
    }
}

/// What a backend answers to `GET /whoami`.
#[derive(Deserialize)]
struct WhoAmI {
    backend: String,
    client: IpAddr,
}

/// The sandbox's services that answer HTTP.
#[derive(Clone, Copy)]
enum Service {
    /// By the client's address.
    Web,
    /// By a cookie whose value means nothing.
    Cookie,
    /// By a cookie that names the backend.
    Route,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Web => "source-ip",
            Self::Cookie => "cookie (bind)",
            Self::Route => "cookie (route)",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Web => 80,
            Self::Cookie => 8080,
            Self::Route => 8081,
        }
    }
}

struct Visitor {
    service: Service,
    /// Name and value, once the backend gave one.
    cookie: Option<String>,
    address: IpAddr,
    vip: SocketAddr,
    backend: Option<String>,
}

impl Visitor {
    /// `count` visitors of each family, from client number `first` on.
    fn all(service: Service, first: u8, count: u8) -> Vec<Self> {
        (first..first + count)
            .flat_map(|n| {
                [
                    (IpAddr::V4(topology::client4(n)), IpAddr::V4(VIP4)),
                    (IpAddr::V6(topology::client6(n)), IpAddr::V6(VIP6)),
                ]
            })
            .map(|(address, vip)| Self {
                service,
                cookie: None,
                address,
                vip: SocketAddr::new(vip, service.port()),
                backend: None,
            })
            .collect()
    }

    /// Opens a connection and sends some requests on it.
    fn visit(&mut self, tally: &Mutex<Tally>) {
        let mut connection = None;
        for _ in 0..REQUESTS {
            let begun = Instant::now();
            let answer = self.request(&mut connection);
            let failed = answer.is_err();
            tally.lock().unwrap_or_else(PoisonError::into_inner).count(self, begun.elapsed(), answer);
            if failed {
                return;
            }
        }
    }

    fn request(&mut self, connection: &mut Option<BufReader<TcpStream>>) -> Result<WhoAmI> {
        let stream = match connection {
            Some(stream) => stream,
            None => connection.insert(BufReader::new(self.connect()?)),
        };
        // Without a session of its own, a client asks for one; all that comes after belongs to it.
        let (path, cookie) = match (self.service, &self.cookie) {
            (Service::Web, _) => ("/whoami", String::new()),
            (Service::Cookie | Service::Route, Some(cookie)) => ("/whoami", format!("Cookie: {cookie}\r\n")),
            (Service::Cookie | Service::Route, None) => ("/login", String::new()),
        };
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{cookie}\r\n", self.vip);
        stream.get_mut().write_all(head.as_bytes()).context("sending the request")?;
        let response = response(stream)?;
        if path == "/login" {
            self.cookie = Some(response.cookie.context("the backend gave no cookie")?);
        }
        self.check(&response.body)
    }

    fn connect(&self) -> Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.vip), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::new(self.address, 0).into()).context("binding to the client's address")?;
        socket.connect_timeout(&self.vip.into(), PATIENCE).context("connecting")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }

    /// Lets curl do the same, a connection for each request.
    fn curl(&mut self, tally: &Mutex<Tally>) {
        let begun = Instant::now();
        let url = format!("http://{}/whoami", self.vip);
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "5", "--interface"]);
        let answer =
            read(curl.arg(self.address.to_string()).arg(url)).and_then(|body| self.check(body.as_bytes()));
        if answer.is_err() && crate::interrupt::pending() {
            // Ctrl-C reaches curl too.
            return;
        }
        tally.lock().unwrap_or_else(PoisonError::into_inner).count(self, begun.elapsed(), answer);
        thread::sleep(Duration::from_millis(50));
    }

    fn check(&self, body: &[u8]) -> Result<WhoAmI> {
        let answer: WhoAmI = serde_json::from_slice(body).context("the answer is not what a backend says")?;
        if answer.client != self.address {
            bail!("the backend {} sees the client {}", answer.backend, answer.client);
        }
        Ok(answer)
    }
}

/// A response, as far as it matters.
struct Response {
    body: Vec<u8>,
    /// Name and value of the cookie that it sets.
    cookie: Option<String>,
}

/// Reads one response with a `Content-Length`.
fn response(stream: &mut impl BufRead) -> Result<Response> {
    let mut line = String::new();
    let (mut length, mut cookie) = (None, None);
    stream.read_line(&mut line).context("waiting for the answer")?;
    if line.split(' ').nth(1) != Some("200") {
        bail!("expected status 200, got `{}`", line.trim_end());
    }
    loop {
        line.clear();
        stream.read_line(&mut line).context("reading the answer's head")?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = Some(value.parse::<u64>()?)
            }
            Some((name, value)) if name.eq_ignore_ascii_case("set-cookie") => {
                cookie = value.split(';').next().map(str::to_owned)
            }
            Some(_) => {}
            None => break,
        }
    }
    let length = length.context("the answer has no length")?;
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body).context("reading the answer's body")?;
    if body.len() as u64 != length {
        bail!("the answer was cut short: {} bytes of {length}", body.len());
    }
    Ok(Response { body, cookie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read_to_their_length() {
        let mut stream =
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nSet-Cookie: SESS=a!b; Path=/\r\n\r\nabcHTTP"[..];
        let read = response(&mut stream).unwrap();
        assert_eq!((&read.body[..], read.cookie.as_deref()), (&b"abc"[..], Some("SESS=a!b")));
        assert_eq!(stream, b"HTTP");
    }

    #[test]
    fn bad_responses_are_failures() {
        for text in [
            "",
            "HTTP/1.1 502 Bad\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(response(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_client_that_meets_another_backend_is_a_violation() {
        let mut visitor = Visitor::all(Service::Cookie, 1, 1).remove(0);
        let mut tally = Tally::default();
        for backend in ["be1", "be1", "be2"] {
            let answer = WhoAmI { backend: backend.to_owned(), client: visitor.address };
            tally.count(&mut visitor, Duration::from_micros(5), Ok(answer));
        }
        assert_eq!((tally.requests, tally.failed, tally.violations), (3, 0, 1));
        assert_eq!(tally.per_backend["be1"], 2);
        let of_service = &tally.services["cookie (bind)"];
        assert_eq!((of_service.requests, of_service.sticky_violations), (3, 1));
    }
}
