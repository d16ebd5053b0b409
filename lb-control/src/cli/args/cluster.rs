//! `lbctl cluster`.

use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

/// Nodes that act as one.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Make this node the first one of a cluster, and a token for the second one.
    #[command(after_help = "Example:
  lbctl cluster init                then run what it prints on the second node

The node's secrets become the cluster's. The key that signs certificates stays here: tokens, removals and new secrets are made on
this node.")]
    Init(InitArgs),
    /// Make a token that lets one machine join, once.
    #[command(after_help = "Examples:
  lbctl cluster token
  lbctl cluster token --valid 10m
  lbctl cluster token --role app    for an application server, which has no bindings
  lbctl cluster token --role switch for an `lbd` of a switch, which goes on with the nodes' connections

Works on the node where `lbctl cluster init` ran.")]
    Token(TokenArgs),
    /// Join the cluster of another node.
    #[command(after_help = "Examples:
  lbctl cluster join sb1-5f3a... 192.0.2.11
  lbctl cluster join sb1-5f3a... lb1.example.net:7117
  ssh lb1 lbctl -o json cluster token | jq -r .token | lbctl cluster join - lb1

ADDRESS is of the node where the token was made. Join a machine before it takes traffic: its own session secret gives way to the
cluster's. It announces service addresses again when it has the cluster's bindings.")]
    Join(JoinArgs),
    /// Remove a member: from then on nobody talks to it, whatever its certificate says.
    #[command(after_help = "Examples:
  lbctl cluster remove lb2
  lbctl cluster remove 00f3a1d2b4c5e697

Works on the node where `lbctl cluster init` ran. To come back, the machine joins anew, after its `cluster` directory was
removed from the state directory.")]
    Remove(RemoveArgs),
    /// How this node and the others stand: who is connected, who lacks what, for how long.
    #[command(after_help = "Examples:
  lbctl cluster status
  lbctl cluster status --watch
  lbctl -o json cluster status | jq '.peers[] | {name, behind_events, behind_seconds}'")]
    Status(StatusArgs),
    /// Make a secret that all nodes share new; no session is lost while all members are connected.
    #[command(after_help = "Examples:
  lbctl cluster rotate segment-mac  the key before stays accepted until the next time
  lbctl cluster rotate syn-cookie   cookies change with the second next epoch, in 73 to 146 minutes
  lbctl cluster rotate session-key  keys change in 15 s; sessions are found under the former one until the next time

Works on the node where `lbctl cluster init` ran. Members that are not connected cannot read new segments until they are.
Secrets that stand in configuration files are not touched.")]
    Rotate(RotateArgs),
}

/// Arguments of `cluster init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// How long the token for the second node is good.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    pub valid: Duration,
}

/// Arguments of `cluster token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What the machine becomes.
    #[arg(long, value_enum, default_value_t = RoleName::Node)]
    pub role: RoleName,
    /// How long the token is good.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    pub valid: Duration,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// A load balancer.
    Node,
    /// An application server.
    App,
    /// The `lbd` of a switch in front of the load balancers.
    Switch,
}

/// Arguments of `cluster join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// What `lbctl cluster token` or `init` printed; `-` reads it from standard input.
    pub token: String,
    /// Host of the node where it was made, with a port if it is not 7117.
    pub address: String,
}

/// Arguments of `cluster remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its name or id.
    pub member: String,
}

/// Arguments of `cluster status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Refresh in place until interrupted.
    #[arg(long, short)]
    pub watch: bool,
    /// Seconds between looks.
    #[arg(long, short, default_value_t = 1.0, value_name = "SECONDS", value_parser = super::interval, requires = "watch")]
    pub interval: f64,
}

/// Arguments of `cluster rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Which.
    #[arg(value_enum)]
    pub secret: SecretName,
    /// `session-key`: even if sessions from before its last change may still live, which then may move.
    #[arg(long)]
    pub force: bool,
}

/// Secrets that all nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SecretName {
    /// The key of sealed cookie segments.
    SegmentMac,
    /// What the keys of SYN cookies are made of.
    SynCookie,
    /// What session keys are hashed under.
    SessionKey,
}

impl RoleName {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::App => "app",
            Self::Switch => "switch",
        }
    }
}

impl SecretName {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SegmentMac => "segment-mac",
            Self::SynCookie => "syn-cookie",
            Self::SessionKey => "session-key",
        }
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = crate::config::duration(text).filter(|duration| duration.as_secs() > 0);
    duration.ok_or_else(|| "expected a duration such as 90s, 10m or 1h30m, at least 1s".to_owned())
}
