//! The Unix socket that the API listens on.

use axum::Router;
use std::ffi::CString;
use std::fs;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Read and write for the owner and the group, nothing for others.
const MODE: u32 = 0o660;

/// A bound socket; its file is removed when serving ends.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    socket: UnixListener,
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else answers there.
    #[error("admin socket {}: another daemon answers on it; stop that one first, or give --socket", path.display())]
    Occupied {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket stands there.
    #[error("admin socket {}: there is a file of that name that is no socket; remove it or give --socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The group that should use it does not exist.
    #[error("admin socket {}: there is no group {group}; make it (`groupadd --system {group}`) or change `group` in [admin]", path.display())]
    NoGroup {
        /// The socket.
        path: PathBuf,
        /// The group.
        group: String,
    },
    /// The group is not one of the process's own, and it has not the capability to use others.
    #[error(
        "admin socket {}: may not be given to group {group}, which lbd is not in, without CAP_CHOWN; \
         under systemd add `SupplementaryGroups={group}` to the unit (`systemctl edit stickleback`), or leave out `group` in [admin]",
        path.display()
    )]
    NotOurGroup {
        /// The socket.
        path: PathBuf,
        /// The group.
        group: String,
    },
    /// The file system or the kernel refused.
    #[error("admin socket {}: {what}: {source}; expected a directory that lbd may write to", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Listener {
    /// Binds the socket, for `group` by name or number; a file left by a daemon that was killed is replaced.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, ListenError> {
        let group = match group {
            None => None,
            Some(name) => {
                let unknown = || ListenError::NoGroup { path: path.to_owned(), group: name.to_owned() };
                Some((group_id(name).ok_or_else(unknown)?, name))
            }
        };
        let failed = |what| move |source| ListenError::Io { path: path.to_owned(), what, source };
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(failed("making its directory"))?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NotASocket { path: path.to_owned() });
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(ListenError::Occupied { path: path.to_owned() });
            }
            Ok(_) => fs::remove_file(path).map_err(failed("removing the old one"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("looking at it")(error)),
        }
        // Bound under another name and moved into place, so that nobody finds it with wider permissions.
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let socket = UnixListener::bind(&fresh).map_err(failed("binding"))?;
        if let Err(error) = place(&fresh, path, group) {
            let _ = fs::remove_file(&fresh);
            return Err(error);
        }
        Ok(Self { path: path.to_owned(), socket })
    }

    /// Answers requests until `stop` is done and the open ones are answered.
    pub async fn serve(
        self,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let Self { path, socket } = self;
        let served = axum::serve(socket, router).with_graceful_shutdown(stop).await;
        let _ = fs::remove_file(path);
        served
    }
}

/// Gives the new socket its group and permissions, and then its name.
fn place(fresh: &Path, path: &Path, group: Option<(u32, &str)>) -> Result<(), ListenError> {
    if let Some((id, name)) = group {
        chown(fresh, None, Some(id)).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                ListenError::NotOurGroup { path: path.to_owned(), group: name.to_owned() }
            }
            _ => ListenError::Io { path: path.to_owned(), what: "giving it to its group", source },
        })?;
    }
    fs::set_permissions(fresh, fs::Permissions::from_mode(MODE))
        .and_then(|()| fs::rename(fresh, path))
        .map_err(|source| ListenError::Io { path: path.to_owned(), what: "putting it in place", source })
}

/// Number of a group given by number or name.
fn group_id(group: &str) -> Option<u32> {
    if let Ok(number) = group.parse() {
        return Some(number);
    }
    let name = CString::new(group).ok()?;
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let mut found = std::ptr::null_mut();
    let mut room: Vec<libc::c_char> = vec![0; 1 << 16];
    // SAFETY: every pointer is to something that lives through the call, and the room's length is given.
    let result = unsafe {
        libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &raw mut found)
    };
    // SAFETY: a zero result with a pointer to the entry means that the entry was filled in.
    (result == 0 && !found.is_null()).then(|| unsafe { (*found).gr_gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_is_for_owner_and_group() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("deep/lbd.sock");
        let _listener = Listener::bind(&path, None).expect("binds");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(fs::read_dir(path.parent().expect("has one")).expect("lists").count(), 1);
    }

    #[test]
    fn groups_are_found_by_name_and_number() {
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("4711"), Some(4711));
        assert_eq!(group_id("no-such-group-here"), None);
    }

    #[tokio::test]
    async fn live_socket_is_left_alone_and_dead_one_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("lbd.sock");
        let first = Listener::bind(&path, None).expect("binds");
        assert!(matches!(Listener::bind(&path, None), Err(ListenError::Occupied { .. })));
        drop(first);
        assert!(path.exists(), "a dropped listener is like a killed daemon");
        Listener::bind(&path, None).expect("replaces the dead one");
    }

    #[tokio::test]
    async fn other_files_are_not_removed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("lbd.sock");
        fs::write(&path, "precious").expect("writes");
        assert!(matches!(Listener::bind(&path, None), Err(ListenError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }
}
