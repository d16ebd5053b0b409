//! Programs that say how a backend is.

use super::Unusable;
use lb_core::health::Failure;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Whether the program is there and may be run.
pub(super) fn find(program: &Path) -> Result<(), Unusable> {
    let failed = |reason: String| Unusable::Command { path: program.to_owned(), reason };
    let about = std::fs::metadata(program).map_err(|error| failed(error.to_string()))?;
    if !about.is_file() {
        return Err(failed("not a file".into()));
    }
    if about.permissions().mode() & 0o111 == 0 {
        return Err(failed("nobody may run it".into()));
    }
    Ok(())
}

/// Runs it. `{address}` and `{port}` in its arguments are the backend's, as are `ADDRESS` and `PORT` in its environment, where nothing
/// else is but `PATH`. A program that is still running when the time is over is killed.
pub(super) async fn ask(program: &Path, arguments: &[String], address: SocketAddr) -> Result<(), Failure> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let filled = arguments.iter().map(|text| text.replace("{address}", &host).replace("{port}", &port));
    let status = Command::new(program)
        .args(filled)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("ADDRESS", &host)
        .env("PORT", &port)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .kill_on_drop(true)
        .status()
        .await;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Exit(status.code())),
        Err(error) => Err(Failure::Own(format!("{}: {error}", program.display()))),
    }
}
