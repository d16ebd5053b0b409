//! `cargo xtask build`: release binaries with the XDP programs inside.

use std::path::PathBuf;

use anyhow::Result;

use crate::progress::quietly;
use crate::{ebpf, workspace};

/// The two programs of the product.
pub(crate) struct Product {
    /// The daemon.
    pub(crate) lbd: PathBuf,
    /// Its command line.
    pub(crate) lbctl: PathBuf,
}

/// Runs the command.
pub(crate) fn task() -> Result<()> {
    let product = product()?;
    println!("{}\n{}", product.lbd.display(), product.lbctl.display());
    Ok(())
}

/// Builds what is not up to date.
pub(crate) fn product() -> Result<Product> {
    ebpf::build()?;
    let mut command =
        workspace::cargo(&["build", "--release", "--locked", "--package", "lb-control", "--bins"]);
    quietly("building lbd and lbctl", &mut command)?;
    Ok(built())
}

/// Where the release binaries are once they have been built.
pub(crate) fn built() -> Product {
    let directory = workspace::target().join("release");
    Product { lbd: directory.join("lbd"), lbctl: directory.join("lbctl") }
}
