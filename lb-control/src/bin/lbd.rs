//! The Stickleback daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_control::daemon::main()
}
