//! The files that keep maps, programs and links alive while no process does.
//!
//! ```text
//! <root>/maps/<NAME>        the maps that run
//! <root>/next/<NAME>        maps being made, or those that `maps` replaced until nothing uses them
//! <root>/left-<n>/<NAME>    a `next` that a killed process left, until nothing uses it
//! <root>/programs/<name>    the programs that run
//! <root>/links/<interface>  the attachments
//! <root>/fills/<interface>  those at the ingress of the stack
//! ```
//!
//! `maps` and `next` change places by one exchanging rename, so a process that is killed at any moment
//! leaves one complete set of maps under `maps`.

use super::syscall;
use crate::dataplane::{Error, Operation, Result};
use std::{
    ffi::CString,
    fs::{self, File, TryLockError},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Where everything of this program is pinned unless configured otherwise.
pub const DEFAULT_ROOT: &str = "/sys/fs/bpf/stickleback";

/// How long a process that is ending may still hold the pin directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// The pin directory, for as long as this value lives no other process's.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    _lock: File,
}

impl Pins {
    pub(super) fn new(root: &Path) -> Result<Self> {
        let make = |directory: PathBuf| {
            fs::create_dir_all(&directory).map_err(|source| Error::Pin {
                operation: Operation::Pin,
                path: directory,
                source,
            })
        };
        make(root.to_owned())?;
        let pins = Self { root: root.to_owned(), _lock: lock(root)? };
        make(pins.programs())?;
        make(pins.links())?;
        make(pins.fills_directory())?;
        Ok(pins)
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub(super) fn next(&self) -> PathBuf {
        self.root.join("next")
    }

    fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    fn fills_directory(&self) -> PathBuf {
        self.root.join("fills")
    }

    pub(super) fn link(&self, interface: &str) -> PathBuf {
        self.links().join(file_name(interface))
    }

    fn fill(&self, interface: &str) -> PathBuf {
        self.fills_directory().join(file_name(interface))
    }

    /// Makes an empty `next`; one that was left stays aside, since attached programs may use its maps.
    pub(super) fn make_next(&self) -> Result<PathBuf> {
        self.set_aside()?;
        let next = self.next();
        fs::create_dir(&next).map_err(|source| Error::Pin {
            operation: Operation::Pin,
            path: next.clone(),
            source,
        })?;
        Ok(next)
    }

    /// Removes `next` and what is pinned there.
    pub(super) fn remove_next(&self) -> Result<()> {
        remove(&self.next())
    }

    /// Gives a `next` that was left another name, so that there is room for a new one.
    pub(super) fn set_aside(&self) -> Result<Option<PathBuf>> {
        let next = self.next();
        if !next.exists() {
            return Ok(None);
        }
        let aside = (0_u32..).map(|n| self.root.join(format!("left-{n}"))).find(|path| !path.exists());
        let aside = aside.expect("there are fewer than 2^32 directories");
        fs::rename(&next, &aside).map_err(|source| Error::Pin {
            operation: Operation::Rename,
            path: next,
            source,
        })?;
        Ok(Some(aside))
    }

    /// Removes everything but `maps`, `programs` and `links`.
    pub(super) fn remove_leftovers(&self) -> Result<()> {
        let fail = |source| Error::Pin { operation: Operation::Open, path: self.root.clone(), source };
        for file in fs::read_dir(&self.root).map_err(fail)? {
            let file = file.map_err(fail)?;
            if file.file_name().to_string_lossy().starts_with("left-") {
                remove(&file.path())?;
            }
        }
        self.remove_next()
    }

    /// Removes everything.
    pub(super) fn remove_all(&self) -> Result<()> {
        for (interface, _) in self.open_links()? {
            self.remove_link(&interface)?;
        }
        remove(&self.root)
    }

    /// Removes the directories that nothing was pinned in.
    pub(super) fn remove_empty(&self) {
        for directory in [self.programs(), self.links(), self.fills_directory(), self.root.clone()] {
            // One with something in it stays.
            fs::remove_dir(directory).ok();
        }
    }

    /// Lets `next` and `maps` change places; without `maps`, `next` becomes it.
    pub(super) fn exchange(&self) -> Result<()> {
        let (next, maps) = (self.next(), self.maps());
        let flags = if maps.exists() { libc::RENAME_EXCHANGE } else { 0 };
        rename(&next, &maps, flags).map_err(|source| Error::Pin {
            operation: Operation::Rename,
            path: next,
            source,
        })
    }

    /// Pins a map that runs into `next`, too.
    pub(super) fn carry_over(&self, name: &'static str) -> Result<()> {
        let path = self.maps().join(name);
        let map = syscall::open_pin(&path).map_err(|source| Error::Pin {
            operation: Operation::Open,
            path,
            source,
        })?;
        let path = self.next().join(name);
        syscall::pin(map.as_fd(), &path).map_err(|source| Error::Pin {
            operation: Operation::Pin,
            path,
            source,
        })
    }

    /// Pins a program, in place of one of that name.
    pub(super) fn put_program(&self, name: &str, program: BorrowedFd<'_>) -> Result<()> {
        let path = self.programs().join(name);
        let fresh = self.programs().join(format!("{name}-next"));
        let pin = |source| Error::Pin { operation: Operation::Pin, path: path.clone(), source };
        remove(&fresh)?;
        syscall::pin(program, &fresh).map_err(pin)?;
        fs::rename(&fresh, &path).map_err(pin)
    }

    /// The pinned link of an interface.
    pub(super) fn open_link(&self, interface: &str) -> Result<Option<OwnedFd>> {
        open(self.link(interface))
    }

    /// The pinned link of an interface at the ingress of the stack.
    pub(super) fn open_fill(&self, interface: &str) -> Result<Option<OwnedFd>> {
        open(self.fill(interface))
    }

    /// Interfaces with a pinned link, and the links.
    pub(super) fn open_links(&self) -> Result<Vec<(String, OwnedFd)>> {
        let mut links = Vec::new();
        for interface in interfaces(&self.links())? {
            if let Some(link) = self.open_link(&interface)? {
                links.push((interface, link));
            }
        }
        Ok(links)
    }

    /// Interfaces with a pinned link at the ingress of the stack.
    pub(super) fn fills(&self) -> Result<Vec<String>> {
        interfaces(&self.fills_directory())
    }

    /// Pins a link.
    pub(super) fn put_link(&self, interface: &str, link: BorrowedFd<'_>) -> Result<()> {
        put(self.link(interface), link)
    }

    /// Pins a link at the ingress of the stack.
    pub(super) fn put_fill(&self, interface: &str, link: BorrowedFd<'_>) -> Result<()> {
        put(self.fill(interface), link)
    }

    /// Detaches and unpins a link; none is no error.
    pub(super) fn remove_link(&self, interface: &str) -> Result<()> {
        take(self.link(interface)).map(drop)
    }

    /// The same at the ingress of the stack; whether there was one.
    pub(super) fn remove_fill(&self, interface: &str) -> Result<bool> {
        take(self.fill(interface))
    }
}

/// A file name for an interface; bpffs takes no dots.
fn file_name(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

/// Interfaces that a directory has files for, sorted.
fn interfaces(directory: &Path) -> Result<Vec<String>> {
    let fail = |source| Error::Pin { operation: Operation::Open, path: directory.to_owned(), source };
    let mut names = Vec::new();
    for file in fs::read_dir(directory).map_err(fail)? {
        let name = file.map_err(fail)?.file_name().to_string_lossy().into_owned();
        names.push(name.replace("%2e", ".").replace("%25", "%"));
    }
    names.sort();
    Ok(names)
}

/// Opens a pinned link, if it is there.
fn open(path: PathBuf) -> Result<Option<OwnedFd>> {
    match syscall::open_pin(&path) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Pin { operation: Operation::Open, path, source }),
    }
}

/// Pins a link.
fn put(path: PathBuf, link: BorrowedFd<'_>) -> Result<()> {
    syscall::pin(link, &path).map_err(|source| Error::Pin { operation: Operation::Pin, path, source })
}

/// Detaches and unpins a link; whether there was one.
fn take(path: PathBuf) -> Result<bool> {
    let link = open(path.clone())?;
    if let Some(link) = &link {
        match syscall::detach_link(link.as_fd()) {
            // Its interface is gone, and it was detached with that.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            other => {
                let path = path.clone();
                other.map_err(|source| Error::Pin { operation: Operation::Detach, path, source })?;
            }
        }
    }
    remove(&path)?;
    Ok(link.is_some())
}

/// Takes the directory for this process; the kernel gives it back when the process ends, however it ends.
fn lock(root: &Path) -> Result<File> {
    let path = root.to_owned();
    let directory = File::open(root).map_err(|source| Error::Pin {
        operation: Operation::Open,
        path: path.clone(),
        source,
    })?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_PATIENCE / 40),
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path }),
            Err(TryLockError::Error(source)) => {
                return Err(Error::Pin { operation: Operation::Open, path, source });
            }
        }
    }
}

/// Removes a file or a directory with all that is in it; one that is not there is no error.
fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => {
            other.map_err(|source| Error::Pin { operation: Operation::Unpin, path: path.to_owned(), source })
        }
    }
}

fn rename(from: &Path, to: &Path, flags: libc::c_uint) -> io::Result<()> {
    let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (from, to) = (c(from)?, c(to)?);
    // SAFETY: both strings outlive the call.
    let result =
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
