//! Tells a web server of events, by `POST` with JSON.
//!
//! Whoever has something to tell puts it into a queue and goes on; a task of its own sends what waits together, tries again with
//! growing pauses, and counts what became of every event. A server that does not answer costs events, and nothing else.

use crate::admin::row::EventRow;
use crate::config::WebhookSpec;
use crate::probe::{Answer, Secured, Unusable, exchange, tls_config};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, header};
use lb_core::health::{HttpVersion, TlsSpec};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Events that wait; more are dropped.
pub const QUEUE: usize = 4_096;
/// Events in one request.
pub const TOGETHER: usize = 100;

/// What became of events since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// The server took them.
    pub delivered: u64,
    /// The server refused them, or was not reached for too long.
    pub failed: u64,
    /// Too many waited already.
    pub dropped: u64,
    /// Requests without success, most of which were tried again.
    pub attempts_failed: u64,
}

/// What is posted.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message {
    /// Name of this node.
    pub node: String,
    /// The oldest first; [`TOGETHER`] at most.
    pub events: Vec<EventRow>,
}

/// How long what may take.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// One request, with the look-up of the name.
    request: Duration,
    /// Pause after the first request without success; the next ones are twice as long each.
    first: Duration,
    /// Longest pause.
    longest: Duration,
    /// From the first attempt until events are given up.
    patience: Duration,
}

const PACE: Pace = Pace {
    request: Duration::from_secs(10),
    first: Duration::from_millis(500),
    longest: Duration::from_secs(60),
    patience: Duration::from_secs(600),
};

/// A way to the queue; clones are cheap.
#[derive(Clone, Debug, Default)]
pub struct Webhook(Option<Way>);

#[derive(Clone, Debug)]
struct Way {
    queue: mpsc::Sender<EventRow>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    attempts_failed: AtomicU64,
    /// The latest event found no room.
    is_full: AtomicBool,
}

/// Sends what waits.
#[derive(Debug)]
pub struct Courier {
    spec: WebhookSpec,
    tls: Option<Arc<ClientConfig>>,
    node: String,
    queue: mpsc::Receiver<EventRow>,
    tally: Arc<Tally>,
    pace: Pace,
}

/// Why a request had no success.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// Worth another attempt.
    #[error("{0}")]
    Passing(String),
    /// The server will not take it.
    #[error("the server answers with status {0}")]
    Refused(u16),
}

impl Webhook {
    /// Nobody is told.
    pub const fn none() -> Self {
        Self(None)
    }

    /// A queue, and who empties it; `node` is the name that events are sent under.
    pub fn open(spec: &WebhookSpec, node: String) -> Result<(Self, Courier), Unusable> {
        Self::open_with(spec, node, PACE)
    }

    fn open_with(spec: &WebhookSpec, node: String, pace: Pace) -> Result<(Self, Courier), Unusable> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let tally = Arc::new(Tally::default());
        let tls = TlsSpec { name: None, verify: true, authorities: spec.authorities.clone() };
        let tls = spec.is_secured.then(|| tls_config(&tls, HttpVersion::One).map(Arc::new)).transpose()?;
        let courier = Courier { spec: spec.clone(), tls, node, queue, tally: Arc::clone(&tally), pace };
        Ok((Self(Some(Way { queue: sender, tally })), courier))
    }

    /// Has an event sent; never waits.
    pub fn tell(&self, event: EventRow) {
        let Some(Way { queue, tally }) = &self.0 else { return };
        match queue.try_send(event) {
            Ok(()) => tally.is_full.store(false, Ordering::Relaxed),
            Err(_) => {
                tally.dropped.fetch_add(1, Ordering::Relaxed);
                if !tally.is_full.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        waiting = QUEUE,
                        "events are lost to the webhook, which is too slow or not reachable"
                    );
                }
            }
        }
    }

    /// What became of events; `None` = nobody is told.
    pub fn counts(&self) -> Option<Counts> {
        let tally = &self.0.as_ref()?.tally;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(Counts {
            delivered: read(&tally.delivered),
            failed: read(&tally.failed),
            dropped: read(&tally.dropped),
            attempts_failed: read(&tally.attempts_failed),
        })
    }
}

impl Courier {
    /// Sends what comes, until nobody is left who could tell anything.
    pub async fn run(mut self) {
        let mut events = Vec::with_capacity(TOGETHER);
        while self.queue.recv_many(&mut events, TOGETHER).await > 0 {
            let count = events.len() as u64;
            let message = Message { node: self.node.clone(), events: std::mem::take(&mut events) };
            let became = match serde_json::to_vec(&message) {
                Ok(body) => self.deliver(&body.into()).await,
                Err(error) => Err(Trouble::Passing(error.to_string())),
            };
            let (server, port) = (&self.spec.host, self.spec.port);
            match became {
                Ok(()) => _ = self.tally.delivered.fetch_add(count, Ordering::Relaxed),
                Err(trouble) => {
                    self.tally.failed.fetch_add(count, Ordering::Relaxed);
                    tracing::error!(server, port, events = count, %trouble, "events for the webhook are given up");
                }
            }
        }
    }

    /// Tries until the server takes it, refuses it, or patience ends.
    async fn deliver(&self, body: &Bytes) -> Result<(), Trouble> {
        let (begun, mut pause) = (Instant::now(), self.pace.first);
        let (server, port) = (&self.spec.host, self.spec.port);
        loop {
            let attempt = timeout(self.pace.request, self.post(body)).await;
            let trouble = match attempt.unwrap_or_else(|_| Err(Trouble::Passing("no answer in time".into())))
            {
                Ok(()) if pause == self.pace.first => return Ok(()),
                Ok(()) => {
                    tracing::info!(server, port, "the webhook takes events again");
                    return Ok(());
                }
                Err(trouble) => trouble,
            };
            self.tally.attempts_failed.fetch_add(1, Ordering::Relaxed);
            match trouble {
                Trouble::Refused(_) => return Err(trouble),
                Trouble::Passing(_) if begun.elapsed() + pause > self.pace.patience => return Err(trouble),
                Trouble::Passing(why) if pause == self.pace.first => {
                    tracing::warn!(server, port, why, "the webhook does not take events; trying again");
                }
                Trouble::Passing(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.pace.longest);
        }
    }

    async fn post(&self, body: &Bytes) -> Result<(), Trouble> {
        let WebhookSpec { host, port, .. } = &self.spec;
        let found = lookup_host((host.as_str(), *port)).await;
        let addresses = found.map_err(|error| Trouble::Passing(format!("{host} is not found: {error}")))?;
        let mut last = Trouble::Passing(format!("{host} has no address"));
        for address in addresses {
            match self.post_to(address, body).await {
                Err(trouble @ Trouble::Passing(_)) => last = trouble,
                done => return done,
            }
        }
        Err(last)
    }

    async fn post_to(&self, address: SocketAddr, body: &Bytes) -> Result<(), Trouble> {
        let WebhookSpec { host, port, path, .. } = &self.spec;
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let request = Request::post(path.as_str())
            .header(header::HOST, format!("{bracketed}:{port}"))
            .header(header::USER_AGENT, "stickleback")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::from(body.clone()))
            .map_err(|error| Trouble::Passing(error.to_string()))?;
        let secured: Secured<'_> = self.tls.as_ref().map(|tls| (tls, Some(host.as_str())));
        let answer = exchange(HttpVersion::One, secured, &address.into(), request, false).await;
        let Answer { status, .. } = answer.map_err(|failure| Trouble::Passing(failure.to_string()))?;
        match status {
            200..=299 => Ok(()),
            // A time-out, too early, too many: the server asks for another attempt.
            408 | 425 | 429 | 500.. => Err(Trouble::Passing(format!("status {status}"))),
            _ => Err(Trouble::Refused(status)),
        }
    }
}

#[cfg(test)]
mod tests;
