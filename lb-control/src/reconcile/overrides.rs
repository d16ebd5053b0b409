//! What administrators changed at run time, and the file that keeps it over a restart.

use lb_core::pool::{Admin, BackendSpec, Desired};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// What administrators changed at run time; kept over reloads and restarts until cleared.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Overrides {
    /// By name of the service (or of a path's pool) and backend name.
    pub backends: BTreeMap<(String, String), Override>,
}

/// What an administrator changed of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Override {
    /// In place of the configured admin state.
    pub admin: Option<Admin>,
    /// In place of the configured weight.
    pub weight: Option<u32>,
    /// Of a backend that is drained: when its sessions are moved, in seconds since 1970 UTC; `None` = never.
    pub deadline: Option<u64>,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct File {
    backends: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    service: String,
    backend: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin: Option<AdminName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline: Option<u64>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AdminName {
    Enabled,
    Draining,
    Disabled,
}

impl Overrides {
    /// The desired state with the overrides in it; those of unknown backends wait.
    pub fn apply_to(&self, desired: &Desired) -> Desired {
        let mut effective = desired.clone();
        let change = |pool: &str, backends: &mut [BackendSpec]| {
            for backend in backends {
                let Some(change) = self.backends.get(&(pool.to_owned(), backend.name.clone())) else {
                    continue;
                };
                backend.admin = change.admin.unwrap_or(backend.admin);
                backend.weight = change.weight.unwrap_or(backend.weight);
            }
        };
        for service in &mut effective.services {
            change(&service.name, &mut service.backends);
            for path in &mut service.paths {
                change(&path.name, &mut path.backends);
            }
        }
        effective
    }

    /// The overrides with one backend's changed; one without any is forgotten.
    pub(super) fn with(&self, service: &str, backend: &str, change: impl FnOnce(&mut Override)) -> Self {
        let mut changed = self.clone();
        let key = (service.to_owned(), backend.to_owned());
        let entry = changed.backends.entry(key.clone()).or_default();
        change(entry);
        if *entry == Override::default() {
            changed.backends.remove(&key);
        }
        changed
    }

    /// Reads the file; one that is not there holds none.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let file: File = serde_json::from_slice(&text)?;
        let rows = file.backends.into_iter().map(|row| {
            let admin = row.admin.map(Admin::from);
            let change = Override { admin, weight: row.weight, deadline: row.deadline };
            ((row.service, row.backend), change)
        });
        Ok(Self { backends: rows.collect() })
    }

    /// Writes the file, at once or not at all.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let rows = self.backends.iter().map(|((service, backend), change)| Row {
            service: service.clone(),
            backend: backend.clone(),
            admin: change.admin.map(AdminName::from),
            weight: change.weight,
            deadline: change.deadline,
        });
        let text = serde_json::to_vec_pretty(&File { backends: rows.collect() })?;
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        fs::write(&fresh, text)?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, path)
    }
}

impl From<AdminName> for Admin {
    fn from(name: AdminName) -> Self {
        match name {
            AdminName::Enabled => Self::Enabled,
            AdminName::Draining => Self::Draining,
            AdminName::Disabled => Self::Disabled,
        }
    }
}

impl From<Admin> for AdminName {
    fn from(admin: Admin) -> Self {
        match admin {
            Admin::Enabled => Self::Enabled,
            Admin::Draining => Self::Draining,
            Admin::Disabled => Self::Disabled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_keeps_what_was_changed_and_nothing_is_left_of_what_was_cleared() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("overrides.json");
        assert_eq!(Overrides::load(&path).expect("no file is fine"), Overrides::default());
        let drained = Overrides::default().with("web", "a", |change| change.admin = Some(Admin::Draining));
        let drained = drained.with("web", "a", |change| change.deadline = Some(7));
        let both = drained.with("web", "b", |change| change.weight = Some(0));
        both.save(&path).expect("saved");
        assert_eq!(Overrides::load(&path).expect("loaded"), both);
        assert_eq!(both.with("web", "b", |change| change.weight = None), drained);
    }
}
