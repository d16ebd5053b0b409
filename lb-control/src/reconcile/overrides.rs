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

/// What administrators changed of a backend; nothing, where it was taken back.
///
/// State and weight each have their own time, in milliseconds since 1970 and later than all that was known of them then:
/// who says one of them on a node has not heard yet what was said of the other one elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Override {
    /// In place of the configured admin state.
    pub admin: Option<Admin>,
    /// Of a backend that is drained: when its sessions are moved, in seconds since 1970 UTC; `None` = never.
    pub deadline: Option<u64>,
    /// When these two were said.
    pub admin_said: u64,
    /// In place of the configured weight.
    pub weight: Option<u32>,
    /// When this was said.
    pub weight_said: u64,
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
    deadline: Option<u64>,
    #[serde(default)]
    admin_said: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(default)]
    weight_said: u64,
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

    /// The overrides with one backend's admin state changed at that time. One that is taken back is kept: other nodes may know
    /// the former one.
    pub(super) fn with_admin(
        &self,
        names: (&str, &str),
        now: u64,
        admin: Option<Admin>,
        deadline: Option<u64>,
    ) -> Self {
        self.with(names, |known| {
            let admin_said = now.max(known.admin_said + 1);
            Override { admin, deadline, admin_said, ..known }
        })
    }

    /// The same with its weight.
    pub(super) fn with_weight(&self, names: (&str, &str), now: u64, weight: Option<u32>) -> Self {
        self.with(names, |known| {
            let weight_said = now.max(known.weight_said + 1);
            Override { weight, weight_said, ..known }
        })
    }

    fn with(&self, (service, backend): (&str, &str), change: impl FnOnce(Override) -> Override) -> Self {
        let mut changed = self.clone();
        let entry = changed.backends.entry((service.to_owned(), backend.to_owned())).or_default();
        *entry = change(*entry);
        changed
    }

    /// Takes over what was said later of each backend's state and weight; whether anything was.
    ///
    /// All nodes come to the same, in whatever order they hear of each other.
    pub(super) fn merge(&mut self, others: &Self) -> bool {
        let mut is_changed = false;
        for (names, theirs) in &others.backends {
            let own = self.backends.entry(names.clone()).or_default();
            let later = own.later(theirs);
            is_changed |= later != *own;
            *own = later;
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
            let Row { service, backend, admin, deadline, admin_said, weight, weight_said } = row;
            let admin = admin.map(Admin::from);
            ((service, backend), Override { admin, deadline, admin_said, weight, weight_said })
        });
        Ok(Self { backends: rows.collect() })
    }

    /// As they are kept and sent.
    pub fn text(&self) -> Result<Vec<u8>, serde_json::Error> {
        let rows = self.backends.iter().map(|((service, backend), change)| Row {
            service: service.clone(),
            backend: backend.clone(),
            admin: change.admin.map(AdminName::from),
            deadline: change.deadline,
            admin_said: change.admin_said,
            weight: change.weight,
            weight_said: change.weight_said,
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
    /// What was said later of each. Of two at the same time either may hold, but everywhere the same.
    fn later(&self, theirs: &Self) -> Self {
        let admin = if self.admin_rank() < theirs.admin_rank() { theirs } else { self };
        let weight = if self.weight_rank() < theirs.weight_rank() { theirs } else { self };
        Self { weight: weight.weight, weight_said: weight.weight_said, ..*admin }
    }

    fn admin_rank(&self) -> (u64, Option<u8>, Option<u64>) {
        let admin = self.admin.map(|admin| match admin {
            Admin::Enabled => 0,
            Admin::Draining => 1,
            Admin::Disabled => 2,
        });
        (self.admin_said, admin, self.deadline)
    }

    fn weight_rank(&self) -> (u64, Option<u32>) {
        (self.weight_said, self.weight)
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
        let drained = Overrides::default().with_admin(("web", "a"), 5, Some(Admin::Draining), Some(7));
        let both = drained.with_weight(("web", "b"), 5, Some(0));
        both.save(&path).expect("saved");
        assert_eq!(Overrides::load(&path).expect("loaded"), both);
        let cleared = both.with_weight(("web", "b"), 4, None);
        let left = cleared.backends[&("web".to_owned(), "b".to_owned())];
        assert_eq!(left, Override { weight_said: 6, ..Override::default() }, "later than what it takes back");
        let old = br#"{"backends": [{"service": "web", "backend": "a", "admin": "draining"}]}"#;
        std::fs::write(&path, old).expect("written");
        assert_eq!(Overrides::load(&path).expect("loaded").backends.len(), 1, "of a version without times");
    }

    #[test]
    fn nodes_come_to_the_same_whatever_they_hear_first() {
        let said = |now, admin| Overrides::default().with_admin(("web", "a"), now, admin, None);
        let all = [
            said(3, Some(Admin::Draining)),
            said(9, None),
            said(9, Some(Admin::Disabled)),
            said(8, Some(Admin::Enabled)),
            Overrides::default().with_weight(("web", "b"), 1, Some(3)),
            Overrides::default().with_weight(("web", "a"), 1, Some(4)),
        ];
        let merged = |order: &[usize]| {
            let mut merged = Overrides::default();
            for &place in order {
                merged.merge(&all[place]);
            }
            merged
        };
        let first = merged(&[0, 1, 2, 3, 4, 5]);
        let both = first.backends[&("web".to_owned(), "a".to_owned())];
        assert_eq!(both.admin, Some(Admin::Disabled));
        assert_eq!(both.weight, Some(4), "what is said of one takes nothing back of the other");
        for order in [[5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 3, 5], [1, 5, 2, 3, 4, 0]] {
            assert_eq!(merged(&order), first);
        }
        assert!(!first.clone().merge(&merged(&[2, 4])), "nothing new");
        let text = first.text().expect("written");
        assert_eq!(Overrides::parse(&text).expect("read"), first);
        assert!(Overrides::parse(&text[1..]).is_err());
    }
}
