//! Requests over HTTP/1.1 and HTTP/2.

use super::path::Target;
use super::{connection, tls};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::rt::Executor;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use lb_core::health::{Body, Failure, HttpCheck, HttpVersion};
use rustls::ClientConfig;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// Bytes of a body that are looked at.
pub(super) const BODY_LIMIT: usize = 64 * 1_024;
/// Bytes of a head that HTTP/1.1 may have; hyper's least.
const HEAD_LIMIT: usize = 64 * 1_024;

/// An answer as far as it was read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

/// TLS of a request: its configuration, and the name that is asked for.
pub(crate) type Secured<'a> = Option<(&'a Arc<ClientConfig>, Option<&'a str>)>;

/// What a version is called in a TLS handshake.
pub(super) const fn alpn(version: HttpVersion) -> &'static [u8] {
    match version {
        HttpVersion::One => b"http/1.1",
        HttpVersion::Two => b"h2",
    }
}

/// Asks as the check says, and looks at the answer.
pub(super) async fn ask(
    spec: &HttpCheck,
    config: Option<&Arc<ClientConfig>>,
    target: &Target,
) -> Result<(), Failure> {
    let address = target.address;
    let host = host(spec.host.as_deref(), address);
    let name = spec.tls.as_ref().and_then(|tls| tls.name.as_deref()).or(spec.host.as_deref());
    let secured = config.map(|config| (config, name));
    let method = if spec.head { Method::HEAD } else { Method::GET };
    let request = Request::builder().method(method);
    let request = match spec.version {
        HttpVersion::One => {
            request.uri(&spec.path).header(header::HOST, &host).header(header::CONNECTION, "close")
        }
        HttpVersion::Two => request.uri(uri(secured.is_some(), &host, &spec.path)),
    };
    let request = request
        .header(header::USER_AGENT, "stickleback")
        .header(header::ACCEPT, "*/*")
        .body(Full::default())
        .map_err(|error| Failure::Own(error.to_string()))?;
    let wants_body = spec.body != Body::Any;
    let answer = exchange(spec.version, secured, target, request, wants_body).await?;
    if !spec.status.iter().any(|&(from, to)| (from..=to).contains(&answer.status)) {
        return Err(Failure::Status(answer.status));
    }
    match &spec.body {
        Body::Any => Ok(()),
        Body::Contains(text) => {
            let is_there = answer.body.windows(text.len().max(1)).any(|part| part == text);
            if is_there || text.is_empty() { Ok(()) } else { Err(Failure::Body) }
        }
    }
}

/// The host that a request names.
pub(super) fn host(given: Option<&str>, address: SocketAddr) -> String {
    given.map_or_else(|| address.to_string(), str::to_owned)
}

/// The target of an HTTP/2 request.
pub(super) fn uri(is_secured: bool, host: &str, path: &str) -> String {
    format!("{}://{host}{path}", if is_secured { "https" } else { "http" })
}

/// Connects, sends a request and reads the answer.
pub(crate) async fn exchange(
    version: HttpVersion,
    secured: Secured<'_>,
    target: &Target,
    request: Request<Full<Bytes>>,
    wants_body: bool,
) -> Result<Answer, Failure> {
    let stream = connection::open(target).await?;
    match secured {
        None => over(version, stream, request, wants_body).await,
        Some((config, name)) => {
            // A host may have a port, a name for a certificate has not.
            let name = name.map(without_port);
            let stream = tls::open(config, name, stream, target.address).await?;
            over(version, stream, request, wants_body).await
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        Some(_) | None => host,
    }
}

async fn over<S>(
    version: HttpVersion,
    stream: S,
    request: Request<Full<Bytes>>,
    wants_body: bool,
) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    match version {
        HttpVersion::One => {
            let mut builder = hyper::client::conn::http1::Builder::new();
            builder.max_buf_size(HEAD_LIMIT);
            let (mut sender, connection) = builder.handshake(io).await.map_err(|error| meaning(&error))?;
            let answer = async move { read(sender.send_request(request).await, wants_body).await };
            beside(connection, answer).await
        }
        HttpVersion::Two => {
            let tasks = Tasks::default();
            let builder = hyper::client::conn::http2::Builder::new(tasks);
            let (mut sender, connection) = builder.handshake(io).await.map_err(|error| meaning(&error))?;
            let answer = async move { read(sender.send_request(request).await, wants_body).await };
            beside(connection, answer).await
        }
    }
}

/// Drives a connection until the answer is there.
async fn beside(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = Result<Answer, Failure>>,
) -> Result<Answer, Failure> {
    let (mut connection, mut answer) = (pin!(connection), pin!(answer));
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // What it has left behind is read still.
            Ok(()) => answer.await,
            Err(error) => Err(meaning(&error)),
        },
    }
}

async fn read(response: hyper::Result<Response<Incoming>>, wants_body: bool) -> Result<Answer, Failure> {
    let response = response.map_err(|error| meaning(&error))?;
    let (head, mut incoming) = response.into_parts();
    let (mut body, mut trailers) = (Vec::new(), None);
    while wants_body && !incoming.is_end_stream() && body.len() < BODY_LIMIT {
        let Some(frame) = incoming.frame().await else { break };
        match frame.map_err(|error| meaning(&error))?.into_data() {
            Ok(data) => body.extend_from_slice(&data[..data.len().min(BODY_LIMIT - body.len())]),
            Err(other) => trailers = other.into_trailers().ok(),
        }
    }
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers })
}

/// What an error of hyper says of the backend.
fn meaning(error: &hyper::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(source) = cause {
        if let Some(io) = source.downcast_ref::<io::Error>() {
            return connection::meaning(io);
        }
        cause = source.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Failure::Cut;
    }
    let reason = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    Failure::Garbled(reason)
}

/// The value of a header as text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(HeaderValue::to_str)?.ok()
}

/// Tasks of an HTTP/2 connection; they end with it, whatever state it is in.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        // Poisoned = a task could not be started; there is nothing that could be half done.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).spawn(task);
    }
}
