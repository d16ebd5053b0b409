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

/// What an administrator changed of a backend; nothing, where it was taken back.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Override {
    /// In place of the configured admin state.
    pub admin: Option<Admin>,
    /// In place of the configured weight.
    pub weight: Option<u32>,
    /// Of a backend that is drained: when its sessions are moved, in seconds since 1970 UTC; `None` = never.
    pub deadline: Option<u64>,
    /// When it was said, in milliseconds since 1970, and later than all that was known of the backend then.
    pub said: u64,
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
    #[serde(default)]
    said: u64,
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

    /// The overrides with one backend's changed at that time. One that is taken back is kept: other nodes may know the former one.
    pub(super) fn with(
        &self,
        service: &str,
        backend: &str,
        now: u64,
        change: impl FnOnce(&mut Override),
    ) -> Self {
        let mut changed = self.clone();
        let entry = changed.backends.entry((service.to_owned(), backend.to_owned())).or_default();
        change(entry);
        entry.said = now.max(entry.said + 1);
        changed
    }

    /// Takes over what was said later of each backend; whether anything was.
    ///
    /// All nodes come to the same, in whatever order they hear of each other.
    pub(super) fn merge(&mut self, others: &Self) -> bool {
        let mut is_changed = false;
        for (names, theirs) in &others.backends {
            let own = self.backends.get(names);
            if own.is_none_or(|own| own.rank() < theirs.rank()) {
                self.backends.insert(names.clone(), *theirs);
                is_changed = true;
            }
        }
        is_changed
    }

    /// Reads the file; one that is not there holds none.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        Ok(Self::parse(&text)?)
    }

    /// Reads what [`Self::text`] has written, here or elsewhere.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let file: File = serde_json::from_slice(text)?;
        let rows = file.backends.into_iter().map(|row| {
            let Row { service, backend, admin, weight, deadline, said } = row;
            ((service, backend), Override { admin: admin.map(Admin::from), weight, deadline, said })
        });
        Ok(Self { backends: rows.collect() })
    }

    /// As they are kept and sent.
    pub fn text(&self) -> Result<Vec<u8>, serde_json::Error> {
        let rows = self.backends.iter().map(|((service, backend), change)| Row {
            service: service.clone(),
            backend: backend.clone(),
            admin: change.admin.map(AdminName::from),
            weight: change.weight,
            deadline: change.deadline,
            said: change.said,
        });
        serde_json::to_vec_pretty(&File { backends: rows.collect() })
    }

    /// Writes the file, at once or not at all.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let text = self.text()?;
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        fs::write(&fresh, text)?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, path)
    }
}

impl Override {
    /// Its place among those of a backend; the highest holds. Of two at the same time either may, but everywhere the same.
    fn rank(&self) -> (u64, Option<u8>, Option<u32>, Option<u64>) {
        let admin = self.admin.map(|admin| match admin {
            Admin::Enabled => 0,
            Admin::Draining => 1,
            Admin::Disabled => 2,
        });
        (self.said, admin, self.weight, self.deadline)
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
    fn the_file_keeps_what_was_changed_and_taken_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("overrides.json");
        assert_eq!(Overrides::load(&path).expect("no file is fine"), Overrides::default());
        let drained = Overrides::default().with("web", "a", 5, |change| change.admin = Some(Admin::Draining));
        let drained = drained.with("web", "a", 5, |change| change.deadline = Some(7));
        let both = drained.with("web", "b", 5, |change| change.weight = Some(0));
        both.save(&path).expect("saved");
        assert_eq!(Overrides::load(&path).expect("loaded"), both);
        let cleared = both.with("web", "b", 4, |change| change.weight = None);
        let left = cleared.backends[&("web".to_owned(), "b".to_owned())];
        assert_eq!(left, Override { said: 6, ..Override::default() }, "later than what it takes back");
        let old = br#"{"backends": [{"service": "web", "backend": "a", "admin": "draining"}]}"#;
        std::fs::write(&path, old).expect("written");
        assert_eq!(Overrides::load(&path).expect("loaded").backends.len(), 1, "of a version without times");
    }

    #[test]
    fn nodes_come_to_the_same_whatever_they_hear_first() {
        let said = |now, admin| Overrides::default().with("web", "a", now, |change| change.admin = admin);
        let all = [
            said(3, Some(Admin::Draining)),
            said(9, None),
            said(9, Some(Admin::Disabled)),
            said(8, Some(Admin::Enabled)),
            Overrides::default().with("web", "b", 1, |change| change.weight = Some(3)),
        ];
        let merged = |order: &[usize]| {
            let mut merged = Overrides::default();
            for &place in order {
                merged.merge(&all[place]);
            }
            merged
        };
        let first = merged(&[0, 1, 2, 3, 4]);
        assert_eq!(first.backends[&("web".to_owned(), "a".to_owned())].admin, Some(Admin::Disabled));
        for order in [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 2, 3, 4, 0]] {
            assert_eq!(merged(&order), first);
        }
        assert!(!first.clone().merge(&merged(&[2, 4])), "nothing new");
        let text = first.text().expect("written");
        assert_eq!(Overrides::parse(&text).expect("read"), first);
        assert!(Overrides::parse(&text[1..]).is_err());
    }
}
