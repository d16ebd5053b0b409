//! One daemon for one data plane.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Held for as long as this process is the one that writes the maps below a pin directory.
///
/// The lock is on the directory itself: it is what two daemons would fight over, whatever else differs.
/// The kernel gives it up when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error(
        "{}: another lbd runs this data plane; stop it first (`systemctl stop stickleback`), or give --pin-root and --socket of \
         your own",
        path.display()
    )]
    Held {
        /// The pin directory.
        path: PathBuf,
    },
    /// The directory cannot be used.
    #[error("{}: {source}; is a BPF file system mounted there (`mount -t bpf bpf /sys/fs/bpf`)?", path.display())]
    Unusable {
        /// The pin directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of a pin directory, which is made when it is not there.
    pub fn take(pin_root: &Path) -> Result<Self, LockError> {
        let unusable = |source| LockError::Unusable { path: pin_root.to_owned(), source };
        fs::create_dir_all(pin_root).map_err(unusable)?;
        let directory = File::open(pin_root).map_err(unusable)?;
        match directory.try_lock() {
            Ok(()) => Ok(Self { _directory: directory }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { path: pin_root.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_daemon_is_refused_until_the_first_ends() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().join("pins");
        let first = Lock::take(&root).expect("free");
        let error = Lock::take(&root).expect_err("held");
        assert!(error.to_string().contains("another lbd"), "{error}");
        drop(first);
        Lock::take(&root).expect("free again");
    }
}
