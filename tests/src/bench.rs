//! What a packet costs: the product beside floors and reference work, in one run.
//!
//! The method is described in `docs/measuring.md`.

pub mod case;
pub mod frame;
pub mod memory;
pub mod path;
pub mod probing;
pub mod product;
pub mod rebind;
pub mod reference;
pub mod replication;
pub mod report;
pub mod rig;
pub mod rounds;
pub mod template;

use anyhow::{Context, Result, ensure};
use case::Case;
use product::Product;
use report::{Environment, Report};
use rig::Rig;
use std::path::PathBuf;

/// What to measure and where to write it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only cases whose name contains this.
    pub filter: Option<String>,
    /// Where the JSON goes.
    pub json: PathBuf,
    /// Fewer and shorter rounds, smaller tables: shows that it works, not how fast it is.
    pub quick: bool,
    /// Without the whole-path section.
    pub no_path: bool,
}

/// Does what one process of a benchmark with several does.
pub fn run_node(state: &std::path::Path, listen: std::net::SocketAddr) -> Result<()> {
    replication::node::run(state, listen)
}

/// Measures, prints and writes the report.
pub fn run(options: &Options) -> Result<Report> {
    let wanted = |name: &str| options.filter.as_deref().is_none_or(|filter| name.contains(filter));
    // Before the rig moves this thread into a namespace of its own.
    let path = if options.no_path || !path::NAMES.iter().any(|name| wanted(name)) {
        Vec::new()
    } else {
        path::run(options.quick)?
    };
    let replication = if replication::NAMES.iter().any(|name| wanted(name)) {
        replication::run(options.quick, &wanted)?
    } else {
        Vec::new()
    };
    let rebind = if wanted(rebind::NAME) { Some(rebind::run(options.quick)?) } else { None };
    let probing = if probing::NAMES.iter().any(|name| wanted(name)) {
        probing::run(options.quick)?
    } else {
        Vec::new()
    };
    let product_wanted = product::NAMES.iter().any(|name| wanted(name));
    let (mut memory, mut results) = (None, Vec::new());
    if product_wanted || reference::NAMES.iter().any(|name| wanted(name)) {
        let mut rig = Rig::new()?;
        let mut cases: Vec<Case> = reference::cases(&mut rig)?;
        let mut product = None;
        if product_wanted {
            let mut loaded = Product::load(&rig, options.quick)?;
            cases.extend(product::cases(&mut rig, &mut loaded, &wanted)?);
            memory = Some(memory::measure()?);
            product = Some(loaded);
        }
        results = rounds::run(&mut rig, product.as_ref(), &cases, options.quick)?;
    }
    ensure!(
        !(results.is_empty()
            && path.is_empty()
            && replication.is_empty()
            && probing.is_empty()
            && rebind.is_none()),
        "no case's name contains {:?}",
        options.filter.as_deref().unwrap_or_default()
    );
    let report =
        Report::new(Environment::of_this_machine()?, results, memory, path, replication, (probing, rebind));
    report.print();
    if let Some(directory) = options.json.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    let json = serde_json::to_vec_pretty(&report)?;
    std::fs::write(&options.json, json).with_context(|| format!("writing {}", options.json.display()))?;
    println!("\nwritten to {}", options.json.display());
    Ok(report)
}
