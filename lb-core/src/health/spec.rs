//! How the backends of a service are checked: the validated configuration, free of syntax.

use super::{Policy, Thresholds};
use core::time::Duration;
use std::path::PathBuf;

/// Health checks of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HealthSpec {
    /// What a probe does.
    pub check: Check,
    /// How often, and how much counts.
    pub policy: Policy,
    /// When the pool decides instead of its backends.
    pub thresholds: Thresholds,
    /// Port to probe; 0 = that of the backend.
    pub port: u16,
    /// Which way probes go.
    pub way: Way,
    /// In a cluster, a backend is down only when most of the nodes that are heard say so.
    pub quorum: bool,
    /// What happens to moved sessions when their backend returns.
    pub failback: Failback,
}

/// What a probe does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Check {
    /// A TCP connection is accepted.
    Tcp,
    /// A request is answered as expected.
    Http(HttpCheck),
    /// The gRPC health service says "serving".
    Grpc {
        /// Whose health is asked for; empty = the server's.
        service: String,
        /// `:authority`; `None` = address and port.
        host: Option<String>,
        /// With TLS; `None` = in the clear.
        tls: Option<TlsSpec>,
    },
    /// Pings are answered.
    Icmp,
    /// A datagram is answered, and the answer begins so.
    Udp {
        /// What is sent.
        request: Vec<u8>,
        /// What the answer begins with; empty = anything.
        response: Vec<u8>,
    },
    /// A program says so with the exit code 0.
    Command {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// An HTTP request and its answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HttpCheck {
    /// Version of HTTP.
    pub version: HttpVersion,
    /// With TLS; `None` = in the clear.
    pub tls: Option<TlsSpec>,
    /// `Host` or `:authority`; `None` = address and port.
    pub host: Option<String>,
    /// Path and query.
    pub path: String,
    /// `HEAD` instead of `GET`.
    pub head: bool,
    /// Codes that pass: ranges from and to, both included.
    pub status: Vec<(u16, u16)>,
    /// What the body must hold.
    pub body: Body,
}

/// Version of HTTP in a probe.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HttpVersion {
    /// HTTP/1.1.
    One,
    /// HTTP/2, with prior knowledge where there is no TLS.
    Two,
}

/// What the body of an answer must hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// Anything.
    Any,
    /// This, within its first 64 KiB.
    Contains(Vec<u8>),
}

/// TLS of a probe.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TlsSpec {
    /// The name that is asked for and that the certificate must have; `None` = the host, or the backend's address.
    pub name: Option<String>,
    /// Whether the certificate is checked.
    pub verify: bool,
    /// File with the authorities that count, as PEM; `None` = those of the system.
    pub authorities: Option<PathBuf>,
}

/// Which way probes go to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// That of the traffic: to the service's address, through the tunnel where there is one.
    Traffic,
    /// To the backend's own address.
    Direct,
}

/// What happens to sessions that were moved when their first backend returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failback {
    /// They stay where they are.
    Never,
    /// Those without traffic for this long go back.
    WhenIdle(Duration),
}
