//! From the file to what runs: loading, and loading again.

use super::args::Mode;
use super::health::Checks;
use super::notify;
use crate::admin::error::{ApiError, ErrorBody, chain};
use crate::admin::row::{ReloadRow, ReloadState};
use crate::admin::{Facts, configuration_changes, configuration_refused, now};
use crate::cluster::home::Home;
use crate::config::{self, Configuration, DaemonSpec};
use crate::dataplane::clock::since_1970;
use crate::net::{hints, interface};
use crate::reconcile::Handle;
use axum::http::StatusCode;
use lb_core::pool::Desired;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// Where the configuration comes from: the file, and what the command line says instead.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The file.
    pub(super) file: PathBuf,
    /// Interfaces in place of the file's; empty = the file's.
    pub(super) interfaces: Vec<String>,
    /// State directory in place of the file's.
    pub(super) state_dir: Option<PathBuf>,
    /// How interfaces are made ready; `None` = they need not be.
    pub(super) preparation: Option<Mode>,
    /// What was applied last.
    pub(super) applied: Applied,
}

/// The configuration that was applied last, for when only its secrets change.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied(Arc<Mutex<Option<Configuration>>>);

/// A configuration that was read and checked.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// What the data plane should do.
    pub(super) desired: Desired,
    /// What concerns the daemon only.
    pub(super) daemon: DaemonSpec,
    /// As it was read.
    pub(super) read: Configuration,
}

impl Source {
    /// Reads and checks the file; finds or makes the session secret.
    pub(super) fn load(&self) -> Result<Loaded, ErrorBody> {
        let read = config::load(&self.file).map_err(|errors| configuration_refused(&errors))?;
        for warning in &read.warnings {
            warn!("{warning}");
        }
        let mut daemon = read.daemon.clone();
        if let Some(state_dir) = &self.state_dir {
            daemon.state_dir.clone_from(state_dir);
        }
        let desired = self.desired(&read, &daemon.state_dir)?;
        Ok(Loaded { desired, daemon, read })
    }

    /// What a configuration means on this node, with the secrets that it shares with its cluster, or its own.
    fn desired(&self, read: &Configuration, state_dir: &Path) -> Result<Desired, ErrorBody> {
        let file = self.file.display().to_string();
        let keyring = Home::in_state(state_dir).keyring().map_err(|error| {
            let hint = "`lbctl help cluster` tells how a node gets into a cluster and out of it";
            refusal(&file, chain(&error), "the secrets of the cluster", hint)
        })?;
        let shared = keyring.map(|keyring| keyring.content().secrets());
        let now = since_1970();
        let resolved = match &shared {
            Some(shared) => read.resolve_shared(shared, now),
            None => read.resolve(state_dir),
        };
        let mut desired =
            resolved.map_err(|error| refusal(&file, chain(&error), "a secret", &error.hint()))?;
        if shared.is_some_and(|shared| !shared.are_of(&desired, now)) {
            warn!(
                "{file} has secrets of its own, which hold in place of the cluster's: every node must have the same, \
                 and `lbctl cluster rotate` does not change them"
            );
        }
        if !self.interfaces.is_empty() {
            desired.node.interfaces.clone_from(&self.interfaces);
        }
        Ok(desired)
    }

    /// Applies what was applied last once more, because the cluster's secrets have changed.
    pub(super) async fn renew_secrets(&self, reconciler: &Handle, state_dir: &Path) -> Result<(), ErrorBody> {
        let Some(read) = self.applied.get() else { return Ok(()) };
        let desired = self.desired(&read, state_dir)?;
        reconciler.apply(desired).await.map(drop).map_err(|error| ApiError::from(error).body)
    }

    /// Makes the interfaces ready for the program.
    pub(super) async fn prepare(&self, desired: &Desired) -> Result<(), ErrorBody> {
        let Some(mode) = self.preparation else { return Ok(()) };
        if desired.node.interfaces.is_empty() {
            warn!(
                "no interfaces: nothing is forwarded; name them as `interfaces` in [node], or with --iface"
            );
        }
        for name in &desired.node.interfaces {
            let failed = |error: interface::InterfaceError| {
                let hint = "`ip link` shows the interfaces; --iface NAME chooses others";
                refusal("interfaces", chain(&error), "an interface that XDP can run on", hint)
            };
            let found = interface::Interface::find(name).await.map_err(failed)?;
            let switched_off = match mode {
                Mode::Native => found.prepare(interface::Mode::Native, false),
                Mode::Skb => found.prepare(interface::Mode::Skb, false),
                Mode::Auto => found
                    .prepare(interface::Mode::Native, false)
                    .or_else(|_| found.prepare(interface::Mode::Skb, false)),
            };
            let switched_off = switched_off.map_err(failed)?;
            if !switched_off.is_empty() {
                info!(
                    interface = name,
                    offloads = switched_off.join(", "),
                    "switched off offloads that hide packets"
                );
            }
        }
        Ok(())
    }

    /// Says which kernel settings are worth a second look.
    pub(super) fn hint(desired: &Desired) {
        let backends = desired.services.iter().map(|service| service.backends.len()).sum();
        let all = desired.node.interfaces.iter().flat_map(|name| hints::hints(name, backends));
        for hint in all.collect::<BTreeSet<_>>() {
            info!("worth a look: {hint}");
        }
    }

    /// Loads the file again and applies it; on any failure what ran before goes on.
    pub(super) async fn reload(
        &self,
        reconciler: &Handle,
        started_with: &DaemonSpec,
        facts: &watch::Sender<Facts>,
        is_ready: bool,
    ) -> Result<ReloadRow, ErrorBody> {
        if is_ready {
            notify::reloading();
        }
        let outcome = self.try_reload(reconciler, started_with).await;
        match &outcome {
            Ok(done) => {
                info!(file = done.file, changes = done.changes.len(), "configuration loaded");
                for change in &done.changes {
                    let (before, after) = (change.before.as_deref(), change.after.as_deref());
                    info!(object = change.object, before, after, effect = change.effect, "changed");
                }
                note_loaded(facts);
            }
            Err(refused) => {
                error!("configuration refused, what ran before goes on: {refused}");
                note_refused(facts, refused);
            }
        }
        let status = match outcome {
            Ok(_) => "forwarding",
            Err(_) => "forwarding; the configuration file was refused",
        };
        notify::state(is_ready, status);
        outcome
    }

    async fn try_reload(
        &self,
        reconciler: &Handle,
        started_with: &DaemonSpec,
    ) -> Result<ReloadRow, ErrorBody> {
        let loaded = self.load()?;
        if loaded.daemon != *started_with {
            warn!(
                "changes of [admin], [cluster], [events], node name and state-dir hold after a restart of lbd"
            );
        }
        Checks::examine(&loaded.desired)?;
        self.prepare(&loaded.desired).await?;
        let before = reconciler.desired().await.map_err(|gone| ApiError::from(gone).body)?;
        let changes =
            before.map(|before| configuration_changes(&before, &loaded.desired)).unwrap_or_default();
        reconciler.apply(loaded.desired).await.map_err(|error| ApiError::from(error).body)?;
        self.applied.set(loaded.read);
        Ok(ReloadRow { file: self.file.display().to_string(), changes })
    }
}

impl Applied {
    /// Notes what was applied.
    pub(super) fn set(&self, read: Configuration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
    }

    fn get(&self) -> Option<Configuration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Notes that the file's contents are what runs.
pub(super) fn note_loaded(facts: &watch::Sender<Facts>) {
    facts.send_modify(|facts| {
        facts.reload = ReloadState::Current { unix_seconds: now() };
        facts.reloads.applied += 1;
    });
}

fn note_refused(facts: &watch::Sender<Facts>, refused: &ErrorBody) {
    facts.send_modify(|facts| {
        facts.reload = ReloadState::Refused { unix_seconds: now(), reason: refused.to_string() };
        facts.reloads.refused += 1;
    });
}

fn refusal(object: &str, error: String, expected: &str, hint: &str) -> ErrorBody {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error, object, expected, hint).body
}

impl From<ApiError> for ErrorBody {
    fn from(error: ApiError) -> Self {
        error.body
    }
}
