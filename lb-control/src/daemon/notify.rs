//! What the service manager is told.

use sd_notify::NotifyState;
use tracing::debug;

/// What the daemon does; whether that is all it is there for.
pub(super) fn state(is_ready: bool, status: &str) {
    if is_ready {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    } else {
        let status = format!("{status}; waiting for the cluster's bindings");
        tell(&[NotifyState::Status(&status)]);
    }
}

/// The configuration is being loaded again; [`state`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no time for the service manager"),
    }
}

/// The daemon ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager this does nothing.
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager was not told");
    }
}
