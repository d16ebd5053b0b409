//! The other side of the admin API: one request at a time over the Unix socket.

use super::error::{ErrorBody, chain};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long the daemon may take for an answer; a reload under a large configuration takes the longest.
const PATIENCE: Duration = Duration::from_secs(60);

/// Talks to the daemon behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "the daemon is not running: nobody listens on {}\n  expected: a running lbd\n  hint: start it with `systemctl start stickleback` or `lbd --config FILE`; with another socket, give it as --socket PATH",
        socket.display()
    )]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is there but closed to this user.
    #[error(
        "{}: permission denied\n  expected: a user who may write to the admin socket\n  hint: use sudo, or become a member of the group that owns the socket (`ls -l {}`)",
        socket.display(), socket.display()
    )]
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// The daemon says no.
    #[error("{0}")]
    Refused(ErrorBody),
    /// The connection did not carry a whole answer.
    #[error(
        "{}: {what}: {reason}\n  expected: an answer of lbd\n  hint: does lbd listen there, of the same version as lbctl? its log has more",
        socket.display()
    )]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        reason: String,
    },
}

impl Client {
    /// A client of the daemon behind `socket`; nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for an object.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.decode(&self.call(Method::GET, path, Bytes::new()).await?)
    }

    /// Asks for a text.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.call(Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Sends an object and reads one.
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.broken("writing the request", &e))?;
        self.decode(&self.call(method, path, body.into()).await?)
    }

    /// Makes a request whose answer has no object.
    pub async fn act(&self, method: Method, path: &str) -> Result<(), ClientError> {
        self.call(method, path, Bytes::new()).await.map(drop)
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|e| self.broken("reading the answer", &e))
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        match tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Broken {
                socket: self.socket.clone(),
                what: "waiting for the answer",
                reason: format!("none within {} s", PATIENCE.as_secs()),
            }),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.broken("connecting", &e))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "lbd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| self.broken("making the request", &e))?;
        let answer = sender.send_request(request).await.map_err(|e| self.broken("sending", &e))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|e| self.broken("reading", &e))?.to_bytes();
        driver.abort();
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) => ClientError::Refused(body),
            Err(_) => ClientError::Broken {
                socket: self.socket.clone(),
                what: "reading the answer",
                reason: format!("status {status}: {}", String::from_utf8_lossy(body).trim()),
            },
        }
    }

    fn unreachable(&self, error: &std::io::Error) -> ClientError {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { socket: self.socket.clone() }
            }
            ErrorKind::PermissionDenied => ClientError::Denied { socket: self.socket.clone() },
            _ => self.broken("connecting", error),
        }
    }

    fn broken(&self, what: &'static str, error: &dyn std::error::Error) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), what, reason: chain(error) }
    }
}

/// Percent-encodes one segment of a path or one value of a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A path with those of the query's values that are given.
pub fn with_query(path: &str, query: &[(&str, Option<String>)]) -> String {
    let mut out = path.to_owned();
    let given = query.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
    for (place, (name, value)) in given.enumerate() {
        out.push(if place == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.push_str(&encode(value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_daemon_says_how_to_start_one() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let client = Client::new(dir.path().join("none.sock"));
        let error = client.get::<serde_json::Value>("/v1/status").await.expect_err("nobody listens");
        assert!(matches!(error, ClientError::NotRunning { .. }));
        assert!(error.to_string().contains("systemctl start stickleback"), "{error}");
    }

    #[tokio::test]
    async fn a_listener_that_hangs_up_is_broken_not_a_panic() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("rude.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("binds");
        let rude = tokio::spawn(async move { drop(listener.accept().await) });
        let error = Client::new(&path).text("/").await.expect_err("hung up");
        assert!(matches!(error, ClientError::Broken { .. }), "{error}");
        rude.await.expect("ends");
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encode("a b/ü"), "a%20b%2F%C3%BC");
        assert_eq!(
            with_query("/v1/x", &[("a", None), ("b", Some("1:2".into())), ("c", Some("3".into()))]),
            "/v1/x?b=1%3A2&c=3"
        );
    }
}
