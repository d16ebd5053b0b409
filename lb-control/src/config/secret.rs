//! Where the session secret comes from.

use super::value::{Secret, Text};
use core::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file in the state directory that keeps a secret that `lbd` made.
const KEPT: &str = "session-secret";

/// Where the session secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// It stands in the configuration.
    Given([u8; 16]),
    /// It stands in this file, in hexadecimal.
    File(PathBuf),
    /// `lbd` makes one and keeps it in the state directory.
    Generated,
}

/// Why there is no session secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A file could not be read.
    #[error("cannot read the session secret from {path}: {source}; make the file readable for lbd")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no session secret: expected {}", Secret::EXPECTED)]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// A new secret could not be kept.
    #[error(
        "cannot keep a new session secret in {path}: {source}; make the directory writable for lbd, \
         or set `session-secret` or `session-secret-file` in [node]"
    )]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SecretSource {
    /// The secret; makes one and keeps it below `state_dir` when nothing else is configured.
    pub fn resolve(&self, state_dir: &Path) -> Result<[u8; 16], SecretError> {
        match self {
            Self::Given(secret) => Ok(*secret),
            Self::File(path) => read(path),
            Self::Generated => {
                let path = state_dir.join(KEPT);
                match read(&path) {
                    Err(SecretError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        keep(&path).map_err(|source| SecretError::Keep { path: path.clone(), source })?;
                        read(&path)
                    }
                    outcome => outcome,
                }
            }
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Generated => f.write_str("Generated"),
        }
    }
}

fn read(path: &Path) -> Result<[u8; 16], SecretError> {
    let text =
        fs::read_to_string(path).map_err(|source| SecretError::Read { path: path.to_owned(), source })?;
    match Secret::from_text(text.trim()) {
        Some(secret) => Ok(secret.0),
        None => Err(SecretError::Malformed { path: path.to_owned() }),
    }
}

/// Makes a secret and puts it in place as a whole, so that two that do this at once end with the same one.
fn keep(path: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut secret = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let draft = dir.join(format!("{KEPT}.{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        writeln!(file, "{:032x}", u128::from_be_bytes(secret))?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => Err(fault),
            Ok(()) | Err(_) => File::open(dir)?.sync_all(),
        }
    })();
    let removed = fs::remove_file(&draft);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("deep/state");
        let first = SecretSource::Generated.resolve(&state).unwrap();
        assert_ne!(first, [0; 16]);
        assert_eq!(SecretSource::Generated.resolve(&state).unwrap(), first);
        assert_eq!(SecretSource::File(state.join(KEPT)).resolve(&state).unwrap(), first);
        assert_eq!(fs::metadata(state.join(KEPT)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_secret_that_cannot_be_had_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let missing = SecretSource::File(path.clone()).resolve(dir.path()).unwrap_err();
        assert!(missing.to_string().contains(&path.display().to_string()), "{missing}");
        fs::write(&path, "not a secret").unwrap();
        let malformed = SecretSource::File(path.clone()).resolve(dir.path()).unwrap_err();
        assert!(malformed.to_string().contains("32 hexadecimal digits"), "{malformed}");
        let unwritable = SecretSource::Generated.resolve(&path).unwrap_err();
        assert!(matches!(unwritable, SecretError::Read { .. } | SecretError::Keep { .. }), "{unwritable}");
        assert_eq!(format!("{:?}", SecretSource::Given([7; 16])), "Given", "never printed");
    }
}
