//! One daemon for one data plane.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Held for as long as this process is the one that writes the maps below a pin directory.
///
/// The lock is on the directory itself: it is what two daemons would fight over, whatever else differs.
/// The kernel gives it up when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
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
        loop {
            fs::create_dir_all(pin_root).map_err(unusable)?;
            let directory = File::open(pin_root).map_err(unusable)?;
            match directory.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Held { path: pin_root.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(unusable(source)),
            }
            // Whoever held it may have removed the directory meanwhile; then there is another one to lock.
            let locked = directory.metadata().map_err(unusable)?.ino();
            if fs::metadata(pin_root).is_ok_and(|found| found.ino() == locked) {
                return Ok(Self { path: pin_root.to_owned(), _directory: directory });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A directory in which nothing is pinned is of no use; one in which something is stays.
        let _ = fs::remove_dir(&self.path);
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
        assert!(!root.exists(), "an empty directory goes");
        let again = Lock::take(&root).expect("free again");
        fs::write(root.join("pinned"), "").expect("writes");
        drop(again);
        assert!(root.exists(), "a directory with pins stays");
    }
}
