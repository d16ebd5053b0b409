//! How a journal's file is opened, made, or set aside.

use super::disk::{self, Unfit};
use super::{JournalError, Recovered};
use redb::{Builder, Database, DatabaseError, StorageError};
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Memory for pages; what is read often is read once, at the start.
const CACHE: usize = 8 << 20;

/// What was found where the journal should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opening {
    /// Nothing: a new journal was made.
    Fresh,
    /// This node's journal.
    Continued,
    /// Something that cannot be trusted; it was set aside, and a new journal was made.
    SetAside {
        /// Where it is now.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// An open file, and how to open it again.
pub(super) struct JournalFile {
    pub(super) path: PathBuf,
    pub(super) database: Database,
}

/// Why a file was not opened.
enum Failure {
    /// Its content is wrong.
    Unfit(String),
    /// It cannot be got at.
    Error(JournalError),
}

pub(super) fn open(
    path: &Path,
    node: u64,
    fresh: u64,
) -> Result<(JournalFile, Recovered, Opening), JournalError> {
    let unreachable = |source| JournalError::Unreachable { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(unreachable)?;
    }
    let exists = path.try_exists().map_err(unreachable)?;
    if !exists {
        return Ok((
            make(path, node, fresh)?,
            Recovered { epoch: fresh, ..Recovered::default() },
            Opening::Fresh,
        ));
    }
    let reason = match contained(path, node) {
        Ok((file, recovered)) => return Ok((file, recovered, Opening::Continued)),
        Err(Failure::Error(error)) => return Err(error),
        Err(Failure::Unfit(reason)) => reason,
    };
    let (file, opening) = set_aside(path, node, fresh, reason)?;
    Ok((file, Recovered { epoch: fresh, ..Recovered::default() }, opening))
}

/// Gives a file that cannot be trusted another name, and makes a new one in its place.
pub(super) fn set_aside(
    path: &Path,
    node: u64,
    fresh: u64,
    reason: String,
) -> Result<(JournalFile, Opening), JournalError> {
    let aside = free_name(path, fresh);
    fs::rename(path, &aside).map_err(|source| JournalError::Unreachable { path: path.to_owned(), source })?;
    tracing::error!(
        journal = %path.display(),
        set_aside = %aside.display(),
        reason,
        epoch = fresh,
        "the journal cannot be trusted and was set aside; the node begins a new epoch and fetches what it knew from its peers"
    );
    Ok((make(path, node, fresh)?, Opening::SetAside { path: aside, reason }))
}

/// Opens the file once more after trouble.
pub(super) fn again(path: &Path) -> Result<Database, DatabaseError> {
    builder().open(path)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// Opens and reads a file whose content may be anything.
fn contained(path: &Path, node: u64) -> Result<(JournalFile, Recovered), Failure> {
    // The database checks its pages, but pages are written by it alone and it asserts what it relies on: an assertion
    // about a damaged file must cost that file and not the daemon.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database =
            builder().set_check_integrity_on_open(true).open(path).map_err(|error| judged(path, error))?;
        let recovered = disk::read(&database, node).map_err(|error| unfit(path, error))?;
        Ok((JournalFile { path: path.to_owned(), database }, recovered))
    }));
    opened.unwrap_or_else(|_| Err(Failure::Unfit("its pages contradict each other".to_owned())))
}

fn judged(path: &Path, error: DatabaseError) -> Failure {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Failure::Error(JournalError::Busy { path: path.to_owned() })
        }
        DatabaseError::Storage(StorageError::Io(source)) => io_failure(path, source),
        other => Failure::Unfit(other.to_string()),
    }
}

fn unfit(path: &Path, error: Unfit) -> Failure {
    match error {
        Unfit::Database(redb::Error::Io(source)) => io_failure(path, source),
        other => Failure::Unfit(other.to_string()),
    }
}

/// An input/output error is the content's fault when the file ends early or is no database at all.
fn io_failure(path: &Path, source: io::Error) -> Failure {
    match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Failure::Unfit(source.to_string())
        }
        _ => Failure::Error(JournalError::Unreachable { path: path.to_owned(), source }),
    }
}

/// Makes a journal under another name first, so that one under its own name is always whole.
fn make(path: &Path, node: u64, epoch: u64) -> Result<JournalFile, JournalError> {
    let unreachable = |source| JournalError::Unreachable { path: path.to_owned(), source };
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unreachable(error)),
        _ => {}
    }
    let refused = |error: redb::Error| match error {
        redb::Error::Io(source) => unreachable(source),
        other => JournalError::Refused { path: path.to_owned(), reason: other.to_string() },
    };
    let database = builder().create(&fresh).map_err(|error| refused(error.into()))?;
    disk::initialise(&database, node, epoch).map_err(refused)?;
    fs::rename(&fresh, path).map_err(unreachable)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(unreachable)?;
    Ok(JournalFile { path: path.to_owned(), database })
}

/// A name beside the file that nobody has.
fn free_name(path: &Path, epoch: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{epoch}"));
    let first = PathBuf::from(&name);
    if !first.exists() {
        return first;
    }
    let numbered = |n: u32| {
        let mut name = name.clone();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    };
    (1..=u32::MAX).map(numbered).find(|name| !name.exists()).unwrap_or(first)
}
