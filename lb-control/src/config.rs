//! The configuration file: TOML text -> checked types -> what the node should do.
//!
//! [`parse`] and [`load`] give a [`Configuration`] or every problem of the file at once, each with its place,
//! what was expected and what was probably meant. [`difference`] says in words what changes between two
//! desired states; [`check_file`], [`diff_files`] and [`diff_running`] are what `lbctl config` prints.

mod check;
mod command;
mod defaults;
mod difference;
mod document;
mod field;
mod file;
mod problem;
mod secret;
mod value;

pub use command::{Report, check_file, diff_files, diff_running};
pub use difference::{Change, Difference, Effect, difference};
pub(crate) use difference::{affinity_words, consistency_word, health_words, method_word};
pub use problem::{ConfigErrors, Position, Problem, Related, Severity};
pub use secret::{Purpose, QuicKeyFile, SecretError, SecretSource, Secrets, SharedSecrets};

use crate::dataplane::p4::SwitchSpec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use document::Findings;
use lb_core::pool::Desired;
use std::path::{Path, PathBuf};

/// The commented sample with every key.
pub const SAMPLE: &str = include_str!("../lb.sample.toml");

/// A checked configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// What concerns the daemon only.
    pub daemon: DaemonSpec,
    /// Where the secrets come from.
    pub secrets: Secrets,
    /// What works but is unlikely to be meant.
    pub warnings: Vec<Problem>,
    /// Its secrets are zero.
    unsealed: Desired,
}

/// What concerns the daemon and not its data plane; a change needs a restart of `lbd`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonSpec {
    /// Name of the node; `None` = the host's name.
    pub name: Option<String>,
    /// Directory for what must survive a restart.
    pub state_dir: PathBuf,
    /// Unix socket of the admin API.
    pub admin_socket: PathBuf,
    /// Group that may use the socket; `None` = only `lbd`'s own user and root.
    pub admin_group: Option<String>,
    /// Where Prometheus metrics are served.
    pub metrics: Option<SocketAddr>,
    /// How it is one of several nodes.
    pub cluster: ClusterSpec,
    /// What forwards packets.
    pub plane: PlaneSpec,
    /// Who is told what happens to backends.
    pub webhook: Option<WebhookSpec>,
}

/// What forwards packets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum PlaneSpec {
    /// The kernel of this host.
    #[default]
    Xdp,
    /// A switch.
    P4(Box<SwitchSpec>),
}

/// A web server that events are posted to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookSpec {
    /// Over TLS.
    pub is_secured: bool,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query; may be a secret.
    pub path: String,
    /// File with the authorities that count, as PEM; `None` = those of the system.
    pub authorities: Option<PathBuf>,
}

/// How a node is one of several; without a cluster only the announcing counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterSpec {
    /// Where other nodes reach this one.
    pub listen: SocketAddr,
    /// Where they are told to call it: `host:port`; none = what this machine finds out by itself.
    pub advertise: Vec<String>,
    /// Its name in lists; `None` = that of the node.
    pub name: Option<String>,
    /// `host:port` whose addresses are those of all nodes.
    pub discover: Option<String>,
    /// Where service addresses are announced.
    pub announce: Option<AnnounceSpec>,
    /// Source addresses by node.
    pub blocks: Vec<BlockSpec>,
}

/// The source addresses of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockSpec {
    /// Its name in the member list.
    pub node: String,
    /// The addresses; at least one.
    pub addresses: Vec<IpAddr>,
}

/// Where service addresses are announced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceSpec {
    /// The interface.
    pub interface: String,
    /// How long an address stays when nobody renews it.
    pub lifetime: Duration,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, crate::cluster::PORT));
        Self { listen, advertise: Vec::new(), name: None, discover: None, announce: None, blocks: Vec::new() }
    }
}

impl Configuration {
    /// What the node should do, with a session secret that the caller has; all others are zero.
    pub fn desired(&self, secret: [u8; 16]) -> Desired {
        let mut desired = self.unsealed.clone();
        desired.node.session_secret = secret;
        desired
    }

    /// What the node should do, with the secrets from where the file says; makes those that it says nothing of, and
    /// keeps them in `state_dir`.
    pub fn resolve(&self, state_dir: &Path) -> Result<Desired, SecretError> {
        let mut desired = self.unsealed.clone();
        self.secrets.resolve(&mut desired, state_dir)?;
        Ok(desired)
    }

    /// What the node should do, with a cluster's secrets at a time since 1970 where the file says nothing of them.
    pub fn resolve_shared(&self, shared: &SharedSecrets, now: Duration) -> Result<Desired, SecretError> {
        let mut desired = self.unsealed.clone();
        self.secrets.resolve_shared(&mut desired, shared, now)?;
        Ok(desired)
    }

    /// What the node should do, with the secrets that run where the file says nothing of them.
    pub fn resolve_beside(&self, running: &Desired) -> Result<Desired, SecretError> {
        let mut desired = self.unsealed.clone();
        self.secrets.resolve_beside(&mut desired, running, &self.daemon.state_dir)?;
        Ok(desired)
    }
}

/// Reads and checks a configuration file.
pub fn load(path: impl AsRef<Path>) -> Result<Configuration, ConfigErrors> {
    let path = path.as_ref();
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|cause| ConfigErrors::unreadable(&file, cause))?;
    match String::from_utf8(bytes) {
        Ok(text) => parse(&text, &file),
        Err(fault) => {
            let at = fault.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(fault.as_bytes());
            let finding = problem::Finding::error(at..at + 1, "not UTF-8 text")
                .expected("a TOML file, which is always UTF-8");
            Err(ConfigErrors::new(&file, problem::locate(&file, &text, vec![finding])))
        }
    }
}

/// Checks the text of a configuration file; `file` is only named in problems.
pub fn parse(text: &str, file: &str) -> Result<Configuration, ConfigErrors> {
    let findings = Findings::default();
    let checked = document::read::<file::File>(text, &findings).map(|file| check::check(&file, &findings));
    let findings = findings.into_vec();
    let refused = findings.iter().any(problem::Finding::is_error);
    let problems = problem::locate(file, text, findings);
    match checked {
        Some(check::Checked { desired, daemon, secrets }) if !refused => {
            Ok(Configuration { daemon, secrets, warnings: problems, unsealed: desired })
        }
        _ => Err(ConfigErrors::new(file, problems)),
    }
}

/// A duration as the configuration file takes it.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    <value::Lifetime as value::Text>::from_text(text).map(|lifetime| lifetime.0)
}

/// The JSON schema of the configuration file, made from the types that read it.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::File).to_value()
}

#[cfg(test)]
mod tests;
