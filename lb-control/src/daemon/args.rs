//! What `lbd` understands on its command line.

use crate::dataplane::xdp::{AttachPolicy, DEFAULT_ROOT};
use clap::{Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The Stickleback daemon: fills and keeps the data plane, and answers lbctl.
#[derive(Debug, Clone, Parser)]
#[command(name = "lbd", version, max_term_width = 100)]
#[command(after_help = "Examples:
  lbd --config /etc/stickleback/lb.toml
  lbd --config lb.toml --iface eth0 --mode skb --log debug

Signals: HUP loads the configuration file again; TERM and INT end the daemon, and the data plane goes on
forwarding (`lbctl detach` ends that too).
Exit status: 0 stopped as asked, 1 failed, 2 wrong usage.")]
pub struct Lbd {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Interface to attach to, in place of those of the file; may be given several times.
    #[arg(long, visible_alias = "interface", value_name = "NAME")]
    pub iface: Vec<String>,
    /// Where in the receive path to attach.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// Directory on a BPF file system where maps and links are pinned.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    pub pin_root: PathBuf,
    /// Unix socket of the admin API, in place of the file's.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Directory for what must survive a restart, in place of the file's.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Address and port where Prometheus metrics are served, in place of the file's.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
    /// What to log to standard error: a level, or levels by module.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// Leave every interface and remove what is pinned when the daemon ends.
    #[arg(long)]
    pub detach_on_exit: bool,
}

/// Where in the receive path to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// In the driver, or not at all.
    Native,
    /// In the kernel's stack.
    Skb,
    /// In the driver where it can, else in the stack.
    Auto,
}

impl From<Mode> for AttachPolicy {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Native,
            Mode::Skb => Self::Generic,
            Mode::Auto => Self::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_is_sound() {
        Lbd::command().debug_assert();
    }

    #[test]
    fn interfaces_add_up_under_both_names() {
        let args = Lbd::parse_from(["lbd", "--config", "x", "--iface", "a", "--interface", "b"]);
        assert_eq!(args.iface, ["a", "b"]);
        assert_eq!(args.mode, Mode::Auto);
    }

    #[test]
    fn configuration_is_required() {
        assert_eq!(Lbd::try_parse_from(["lbd"]).expect_err("refused").exit_code(), 2);
    }
}
