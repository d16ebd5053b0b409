//! What `lbctl` understands on its command line.

pub mod cluster;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lb_core::pool::Protocol;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// See and steer a running Stickleback load balancer.
#[derive(Debug, Parser)]
#[command(name = "lbctl", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  lbctl status                      the whole at a glance
  lbctl backends --service web      who serves, and how much
  lbctl drain web be2               no new sessions for be2
  lbctl -o json sessions list       for programs

Exit status: 0 done, 1 failed, 2 wrong usage.")]
pub struct Lbctl {
    /// Form of the answer.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// The daemon's admin socket.
    #[arg(long, global = true, value_name = "PATH", default_value = crate::admin::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Forms of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns for people.
    Table,
    /// JSON for programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The daemon, its interfaces, tables and drops.
    #[command(after_help = "Examples:\n  lbctl status\n  lbctl -o json status | jq .reload")]
    Status,
    /// Services and their traffic.
    #[command(after_help = "Examples:\n  lbctl services\n  lbctl -o json services | jq -r '.[].name'")]
    Services,
    /// Backends, their state and traffic.
    #[command(after_help = "Examples:\n  lbctl backends\n  lbctl backends --service web")]
    Backends(BackendsArgs),
    /// Session bindings.
    #[command(subcommand)]
    Sessions(Sessions),
    /// Translated connections of `nat` services.
    #[command(after_help = "Examples:
  lbctl flows --service web --state established
  lbctl flows --client 10.0.0.7 --limit 20")]
    Flows(FlowsArgs),
    /// Give a backend no new sessions; bound ones stay.
    #[command(after_help = "Examples:
  lbctl drain web be2 --wait        until it has no sessions and connections left
  lbctl drain web be2 --wait --deadline 600 && ssh be2 reboot
  lbctl undrain web be2             take it back

Holds over reloads and restarts until undrain.")]
    Drain(DrainArgs),
    /// Let sessions that moved go back to where they were, at most `drain-rate` of [node.limits] a second.
    #[command(after_help = "Example:
  lbctl failback web                after be2 has come back, and nobody minds

In a cluster those of all nodes.")]
    Failback {
        /// Name of the service.
        service: String,
    },
    /// Take a backend out at once: its sessions move to others, `undrain` brings it back.
    #[command(after_help = "Examples:
  lbctl maintenance web be2
  lbctl undrain web be2             take it back

Holds over reloads and restarts until undrain. Sessions that moved stay where they are.")]
    Maintenance(BackendName),
    /// Give a drained backend new sessions again.
    #[command(after_help = "Example:\n  lbctl undrain web be2")]
    Undrain(BackendName),
    /// Change a backend's share of new sessions.
    #[command(after_help = "Examples:
  lbctl weight web be2 50
  lbctl weight web be2 0            no new sessions, like drain")]
    Weight(WeightArgs),
    /// Which backend would this packet get, and why, step by step.
    #[command(after_help = "Examples:
  lbctl explain --src 10.0.0.7:40000 --dst 10.99.0.1:80
  lbctl explain --src [fd00::7]:5353 --dst [fd99::1]:53 --proto udp
  lbctl explain --src 10.0.0.7:40000 --dst 10.99.0.1:8080 --cookie 4f1c --path /cart

Nothing is sent and nothing is bound.")]
    Explain(ExplainArgs),
    /// Cookie segment that names a backend under a MAC (cookies read as "sealed-route" or "pair").
    #[command(after_help = "Examples:
  lbctl seal shop be1               a route, where cookies are read as \"sealed-route\"
  lbctl seal shop be1 be2           primary and secondary, where they are read as \"pair\"
  lbctl -o json seal shop be1 be2   with the cookie that it belongs into, and the id of the key

Applications put it into the cookie that they set. It is good until the key that it is sealed with is removed from the
configuration; nothing is kept of it.")]
    Seal(SealArgs),
    /// Load the configuration file again.
    #[command(after_help = "Examples:
  lbctl config diff /etc/stickleback/lb.toml && lbctl reload

A file with an error changes nothing; the error is printed and kept in `lbctl status`.")]
    Reload,
    /// Take the program off its interfaces, remove what is pinned, and stop the daemon.
    #[command(after_help = "Example:
  lbctl detach --yes

Works without a daemon, too. Traffic for the VIPs is no longer balanced, and bindings and flows are forgotten. To stop only the
daemon and let the data plane go on: `systemctl stop stickleback`.")]
    Detach(DetachArgs),
    /// Configuration files: check, compare, schema.
    #[command(subcommand)]
    Config(Config),
    /// Nodes that act as one: make a cluster, join one, see how it stands.
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// The latest events: bindings made and moved, and backends going down and coming back.
    #[command(
        after_help = "Examples:\n  lbctl events\n  lbctl events --limit 500 --service web\n  lbctl events --follow"
    )]
    Events(EventsArgs),
    /// Rates of services and backends, refreshed in place.
    #[command(after_help = "Examples:
  lbctl top
  lbctl top --interval 0.5 --service web
  lbctl top --count 1 > frame.txt   one frame, measured over one interval")]
    Top(TopArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:
  lbctl completions bash > /etc/bash_completion.d/lbctl
  lbctl completions zsh > /usr/share/zsh/vendor-completions/_lbctl
  lbctl completions fish > ~/.config/fish/completions/lbctl.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Arguments of `backends`.
#[derive(Debug, Args)]
pub struct BackendsArgs {
    /// Only this service.
    #[arg(long, short)]
    pub service: Option<String>,
}

/// Session bindings.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// List them.
    #[command(after_help = "Examples:
  lbctl sessions list --service web --backend be2
  lbctl sessions list --client 10.0.0.7
  lbctl -o json sessions list --limit 100000")]
    List(SessionsArgs),
    /// Show one.
    #[command(after_help = "Examples:
  lbctl sessions show web 10.0.0.7
  lbctl sessions show web 0x000000000a000007
  lbctl sessions show shop --cookie 4f1c")]
    Show(SessionName),
    /// Delete one; its next packet makes a new one.
    #[command(after_help = "Example:\n  lbctl sessions delete web 10.0.0.7")]
    Delete(SessionName),
    /// Bind one to a backend, on all nodes; it stays there for as long as that serves.
    #[command(after_help = "Examples:
  lbctl sessions pin web 10.0.0.7 be2
  lbctl sessions pin web 10.0.0.7 be2 --lifetime 8h
  lbctl sessions pin shop --cookie 4f1c be2

Raises the session's generation, so that it holds against whatever packets bound at the same moment.")]
    Pin(PinArgs),
}

/// Arguments of `sessions pin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// Name of the service.
    pub service: String,
    /// The client's address, or the session key in hexadecimal; left out with --cookie.
    #[arg(value_name = "KEY")]
    pub key: String,
    /// Name of the backend.
    #[arg(required_unless_present = "cookie", conflicts_with = "cookie")]
    pub backend: Option<String>,
    /// The cookie's value instead of the key (services with affinity http-cookie that is read as "bind").
    #[arg(long, value_name = "VALUE")]
    pub cookie: Option<String>,
    /// How long it lives without traffic; as long as the service's sessions when left out.
    #[arg(long, value_name = "DURATION", value_parser = cluster::duration)]
    pub lifetime: Option<Duration>,
}

impl PinArgs {
    /// The key as the API takes it, and the backend.
    pub fn key_and_backend(&self) -> (String, String) {
        match (&self.cookie, &self.backend) {
            // With a cookie the only word behind the service is the backend.
            (Some(cookie), _) => (format!("cookie={cookie}"), self.key.clone()),
            (None, backend) => (self.key.clone(), backend.clone().unwrap_or_default()),
        }
    }
}

/// Filters of `sessions list`.
#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// Only this service.
    #[arg(long, short)]
    pub service: Option<String>,
    /// Only sessions bound to this backend.
    #[arg(long, short)]
    pub backend: Option<String>,
    /// Only this client's (services with affinity source-ip).
    #[arg(long, short, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// At most this many.
    #[arg(long, short, default_value_t = 100, value_name = "N")]
    pub limit: usize,
}

/// One session.
#[derive(Debug, Args)]
pub struct SessionName {
    /// Name of the service.
    pub service: String,
    /// The client's address, or the session key in hexadecimal.
    #[arg(required_unless_present = "cookie", conflicts_with = "cookie")]
    pub key: Option<String>,
    /// The cookie's value instead (services with affinity http-cookie that is read as "bind").
    #[arg(long, value_name = "VALUE")]
    pub cookie: Option<String>,
}

impl SessionName {
    /// The key as the API takes it.
    pub fn key(&self) -> String {
        match (&self.cookie, &self.key) {
            (Some(cookie), _) => format!("cookie={cookie}"),
            (None, Some(key)) => key.clone(),
            (None, None) => String::new(),
        }
    }
}

/// Filters of `flows`.
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Only this service.
    #[arg(long, short)]
    pub service: Option<String>,
    /// Only flows to this backend.
    #[arg(long, short)]
    pub backend: Option<String>,
    /// Only this client's.
    #[arg(long, short, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// Only flows in this state.
    #[arg(long, value_enum)]
    pub state: Option<FlowStateName>,
    /// At most this many.
    #[arg(long, short, default_value_t = 100, value_name = "N")]
    pub limit: usize,
}

/// States of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlowStateName {
    /// First packet seen.
    Opening,
    /// SYN-ACK seen.
    Answered,
    /// Both sides proved themselves.
    Established,
    /// A FIN seen.
    Closing,
    /// Over.
    Closed,
    /// The balancer is reading the request.
    Collecting,
    /// The backend has not answered the balancer yet.
    Connecting,
    /// Held bytes are on their way to the backend.
    Releasing,
}

impl FlowStateName {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Answered => "answered",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Collecting => "collecting",
            Self::Connecting => "connecting",
            Self::Releasing => "releasing",
        }
    }
}

/// One backend.
#[derive(Debug, Args)]
pub struct BackendName {
    /// Name of the service.
    pub service: String,
    /// Name of the backend.
    pub backend: String,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The backend.
    #[command(flatten)]
    pub name: BackendName,
    /// Wait until no sessions and connections are left.
    #[arg(long, short)]
    pub wait: bool,
    /// Seconds after which sessions that are left are moved to other backends, at most `drain-rate` of [node.limits] a second, with or
    /// without `--wait`; with it, what is left then ends as with `maintenance`.
    #[arg(long, value_name = "SECONDS")]
    pub deadline: Option<u64>,
}

/// Arguments of `weight`.
#[derive(Debug, Args)]
pub struct WeightArgs {
    /// The backend.
    #[command(flatten)]
    pub name: BackendName,
    /// Share of new sessions, 0 to 1000.
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub weight: u32,
}

/// The packet to explain.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Source address and port.
    #[arg(long, value_name = "IP:PORT")]
    pub src: SocketAddr,
    /// Destination address and port.
    #[arg(long, value_name = "IP:PORT")]
    pub dst: SocketAddr,
    /// Transport protocol.
    #[arg(long, value_enum, default_value_t = ProtocolName::Tcp)]
    pub proto: ProtocolName,
    /// Value of the service's cookie (affinity http-cookie).
    #[arg(long, value_name = "VALUE")]
    pub cookie: Option<String>,
    /// Path of the request, for services with pools by path.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Destination connection id (affinity quic-cid).
    #[arg(long, value_name = "HEX")]
    pub cid: Option<String>,
    /// Payload from its first byte on (affinity payload).
    #[arg(long, value_name = "HEX")]
    pub payload: Option<String>,
}

/// Transport protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProtocolName {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl From<ProtocolName> for Protocol {
    fn from(name: ProtocolName) -> Self {
        match name {
            ProtocolName::Tcp => Self::Tcp,
            ProtocolName::Udp => Self::Udp,
        }
    }
}

/// Whom a segment is to name.
#[derive(Debug, Args)]
pub struct SealArgs {
    /// Name of the service, or of the pool of a path.
    pub service: String,
    /// Name of the backend; of a pair, the primary.
    pub backend: String,
    /// Name of the secondary of a pair.
    pub secondary: Option<String>,
}

/// Arguments of `detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// Do it without asking.
    #[arg(long, short)]
    pub yes: bool,
    /// Where maps and links are pinned, for when the daemon is not running.
    #[arg(long, value_name = "DIR", default_value = crate::dataplane::xdp::DEFAULT_ROOT)]
    pub pin_root: PathBuf,
}

/// Configuration files.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check a file without touching anything; needs no daemon.
    #[command(after_help = "Example:\n  lbctl config check /etc/stickleback/lb.toml")]
    Check {
        /// The file.
        file: PathBuf,
    },
    /// What a file would change; of the running configuration, or of another file.
    #[command(after_help = "Examples:
  lbctl config diff new.toml             what `reload` with this file would change
  lbctl config diff old.toml new.toml    needs no daemon")]
    Diff {
        /// The file; with a second one, the old one.
        file: PathBuf,
        /// The new file.
        other: Option<PathBuf>,
    },
    /// What runs, as JSON.
    #[command(after_help = "Example:\n  lbctl config show | jq '.services[].name'")]
    Show,
    /// The JSON schema of the configuration file; needs no daemon.
    #[command(after_help = "Example:\n  lbctl config schema > stickleback.schema.json")]
    Schema,
}

/// Filters of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this service.
    #[arg(long, short)]
    pub service: Option<String>,
    /// At most this many, the latest ones.
    #[arg(long, short, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// Go on with those that come, until interrupted.
    #[arg(long, short)]
    pub follow: bool,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Only this service.
    #[arg(long, short)]
    pub service: Option<String>,
    /// Seconds between frames.
    #[arg(long, short, default_value_t = 1.0, value_name = "SECONDS", value_parser = interval)]
    pub interval: f64,
    /// Stop after this many frames.
    #[arg(long, short, value_name = "N")]
    pub count: Option<u64>,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("expected 0.1 to 3600 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_is_sound() {
        Lbctl::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                if sub.has_subcommands() {
                    check(sub, &path);
                } else {
                    let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(help.contains("Example"), "{path} has no example");
                    assert!(help.contains(path.trim()), "the example of {path} does not show it: {help}");
                }
            }
        }
        check(&Lbctl::command(), "lbctl");
    }

    #[test]
    fn globals_stand_anywhere() {
        let args = Lbctl::parse_from(["lbctl", "services", "-o", "json", "--socket", "/run/x"]);
        assert_eq!(args.output, Output::Json);
        assert_eq!(args.socket, PathBuf::from("/run/x"));
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            &["lbctl"][..],
            &["lbctl", "weight", "web", "be1", "1001"],
            &["lbctl", "explain", "--src", "10.0.0.7", "--dst", "10.99.0.1:80"],
            &["lbctl", "top", "--interval", "0"],
        ] {
            let error = Lbctl::try_parse_from(line).expect_err("must be refused");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }
}
