//! One probe of one address.

use super::path::Target;
use super::{command, connection, grpc, http, icmp, tls, udp};
use lb_core::health::{Check, Failure, HealthSpec, TlsSpec};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A check that is ready to be made.
#[derive(Clone, Debug)]
pub struct Checker {
    check: Check,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// Why a check cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The file with authorities.
    #[error(
        "{path}: cannot be used as authorities for health checks: {reason}; expected certificates as PEM"
    )]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The system has no authorities.
    #[error(
        "the system has no certificate authorities: {reason}; install them (Debian: ca-certificates), name a file as `authorities`, \
         or set `verify = false`"
    )]
    NoAuthorities {
        /// Why.
        reason: String,
    },
    /// The TLS library refuses.
    #[error("TLS of health checks cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// This process may not ping.
    #[error(
        "health checks by ICMP cannot be made: {reason}; give lbd CAP_NET_RAW (packaging/stickleback.service says how), or let its group \
         open ping sockets with the sysctl net.ipv4.ping_group_range"
    )]
    Icmp {
        /// Why.
        reason: String,
    },
    /// The program is not there.
    #[error("{path}: cannot be run as a health check: {reason}; expected an executable file")]
    Command {
        /// The program.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Checker {
    /// Reads what the check needs: authorities, whether its program is there, and whether it is allowed.
    pub fn new(spec: &HealthSpec) -> Result<Self, Unusable> {
        let tls = |spec: &Option<TlsSpec>, protocol| {
            spec.as_ref().map(|spec| tls::config(spec, protocol).map(Arc::new)).transpose()
        };
        let tls = match &spec.check {
            Check::Http(http) => tls(&http.tls, http::alpn(http.version))?,
            Check::Grpc { tls: spec, .. } => tls(spec, http::alpn(lb_core::health::HttpVersion::Two))?,
            Check::Command { program, .. } => {
                command::find(program)?;
                None
            }
            Check::Icmp => {
                icmp::allowed()?;
                None
            }
            Check::Tcp | Check::Udp { .. } => None,
        };
        Ok(Self { check: spec.check.clone(), tls })
    }

    /// Asks `address`; an answer later than `timeout` is none.
    pub async fn probe(&self, address: SocketAddr, timeout: Duration) -> Result<(), Failure> {
        self.probe_by(&address.into(), timeout).await
    }

    /// Asks on the target's way.
    pub(super) async fn probe_by(&self, target: &Target, timeout: Duration) -> Result<(), Failure> {
        let result = tokio::time::timeout(timeout, self.ask(target)).await;
        result.unwrap_or(Err(Failure::Silent(timeout)))
    }

    async fn ask(&self, target: &Target) -> Result<(), Failure> {
        match &self.check {
            Check::Tcp => connection::open(target).await.map(drop),
            Check::Http(spec) => http::ask(spec, self.tls.as_ref(), target).await,
            Check::Grpc { service, host, tls } => {
                let name = tls.as_ref().and_then(|tls| tls.name.as_deref());
                grpc::ask(service, host.as_deref(), self.tls.as_ref().zip(Some(name)), target).await
            }
            Check::Icmp => icmp::ask(target).await,
            Check::Udp { request, response } => udp::ask(request, response, target).await,
            Check::Command { program, arguments } => command::ask(program, arguments, target.address).await,
        }
    }
}

#[cfg(test)]
mod tests;
