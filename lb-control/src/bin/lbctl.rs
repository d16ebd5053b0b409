//! See and steer a running Stickleback load balancer.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_control::cli::main()
}
