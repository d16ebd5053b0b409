//! Downloads and uploads without hurry.

use super::{Row, vip};
use anyhow::{Context, Result, bail, ensure};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use stickleback_tests::topology::{Crossing, server};

/// Bytes of a transfer: without hurry it takes longer than any test.
const LONG: u64 = 24 << 20;

/// A download or an upload.
pub(crate) struct Transfer {
    name: String,
    child: Child,
    /// Where what came is; of an upload the name alone.
    to: PathBuf,
    is_upload: bool,
}

impl Transfer {
    pub(crate) fn start(crossing: &Crossing, vip: SocketAddr, is_upload: bool) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = crossing.directory();
        let (long, script) = (long(crossing), directory.join("stroll.py"));
        if !long.exists() {
            server::file(&long, LONG)?;
            std::fs::write(&script, include_str!("stroll.py"))?;
        }
        let kind = if is_upload { "up" } else { "down" };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{kind}-{number}-{}", super::plainly(&vip.to_string()));
        let to = if is_upload { PathBuf::from(&name) } else { directory.join(&name) };
        let (verb, path, file) = match is_upload {
            true => ("put", format!("/put/{name}"), &long),
            false => ("get", "/files/long".to_owned(), &to),
        };
        let mut command = crossing.client.command("python3")?;
        command.arg(script).args([&vip.ip().to_string(), &vip.port().to_string(), verb, &path]);
        command.arg(file).arg(hurry(crossing));
        let child = command.stderr(Stdio::piped()).spawn()?;
        Ok(Self { name, child, to, is_upload })
    }

    /// A download and an upload by way of each service.
    pub(crate) fn both(crossing: &Crossing, rows: &[Row]) -> Result<Vec<Self>> {
        let ways = rows.iter().flat_map(|row| [(row, false), (row, true)]);
        ways.map(|(row, is_upload)| Self::start(crossing, vip(row)?, is_upload)).collect()
    }

    /// Fails when it has ended.
    pub(crate) fn runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let mut said = String::new();
            self.child.stderr.take().context("no errors to read")?.read_to_string(&mut said)?;
            bail!("{} ended too early, with {status}: {said}", self.name);
        }
        Ok(())
    }

    /// Ends it in the middle.
    pub(crate) fn abort(mut self) -> Result<()> {
        self.runs()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end; whether every byte came as it was sent.
    pub(crate) fn finish(self, crossing: &Crossing) -> Result<()> {
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", self.name);
        let came = if self.is_upload {
            let stored = crossing.backends.iter().map(|(backend, _)| {
                std::fs::read(crossing.directory().join(backend).join("put").join(&self.to))
            });
            stored.filter_map(Result::ok).next().with_context(|| format!("{} is nowhere", self.name))?
        } else {
            std::fs::read(&self.to)?
        };
        let is_same = came == std::fs::read(long(crossing))?;
        ensure!(is_same, "{}: {} bytes came, and others than were sent", self.name, came.len());
        Ok(())
    }
}

/// The file that is transferred.
fn long(crossing: &Crossing) -> PathBuf {
    crossing.directory().join("files/long")
}

/// The file that makes transfers hurry.
fn hurry(crossing: &Crossing) -> PathBuf {
    crossing.directory().join("hurry")
}

/// Lets all of them hurry to their end; every one that is not whole is named.
pub(crate) fn finish(crossing: &Crossing, transfers: Vec<Transfer>) -> Result<()> {
    std::fs::write(hurry(crossing), "")?;
    let failed = transfers.into_iter().filter_map(|transfer| transfer.finish(crossing).err());
    let failed: Vec<String> = failed.map(|why| format!("{why:#}")).collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}
