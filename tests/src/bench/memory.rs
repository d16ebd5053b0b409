//! Kernel memory of the state tables, a binding and a flow.

use super::report::align;
use super::rig::object;
use anyhow::{Context, Result, ensure};
use aya::EbpfLoader;
use aya::maps::Map;
use comfy_table::{Table, presets};
use lb_common::abi::{DEFAULT_BINDINGS, DEFAULT_FLOWS, map};
use serde::Serialize;
use std::os::fd::{AsFd as _, AsRawFd as _};

/// Most bytes of kernel memory a binding may take.
const BINDING_TARGET: f64 = 128.0;

/// Flag of hash maps whose entries are allocated one by one.
const NO_PREALLOC: u64 = 1;

/// What the state tables take, as the kernel accounts for it in `fdinfo`.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Table by table.
    pub tables: Vec<TableMemory>,
    /// Bytes of kernel memory a binding, the room that is to spare included.
    pub per_binding: f64,
    /// Bytes of kernel memory an established flow, both index entries included.
    pub per_flow: f64,
    /// Bindings that the tables hold.
    pub bindings: u32,
    /// Established flows that the tables hold.
    pub flows: u32,
}

/// One map.
#[derive(Clone, Debug, Serialize)]
pub struct TableMemory {
    /// Its name.
    pub name: &'static str,
    /// Entries it has room for.
    pub entries: u64,
    /// Bytes the kernel accounts for.
    pub bytes: u64,
}

/// Loads the product's maps in their default sizes and asks the kernel.
pub fn measure() -> Result<Memory> {
    let path = object("stickleback")?;
    let loaded = EbpfLoader::new().load_file(&path).with_context(|| format!("loading {}", path.display()))?;
    let mut tables = Vec::with_capacity(3);
    for name in [map::BINDINGS, map::FLOW_INDEX, map::FLOWS] {
        let (entries, bytes) = account(loaded.map(name).context("no such map")?)
            .with_context(|| format!("fdinfo of map {name}"))?;
        tables.push(TableMemory { name, entries, bytes });
    }
    let bytes = |names: &[&str]| -> f64 {
        tables.iter().filter(|t| names.contains(&t.name)).map(|t| t.bytes as f64).sum()
    };
    Ok(Memory {
        per_binding: bytes(&[map::BINDINGS]) / f64::from(DEFAULT_BINDINGS),
        per_flow: bytes(&[map::FLOW_INDEX, map::FLOWS]) / f64::from(DEFAULT_FLOWS),
        bindings: DEFAULT_BINDINGS,
        flows: DEFAULT_FLOWS,
        tables,
    })
}

impl Memory {
    /// Prints a table.
    pub fn print(&self) {
        println!("\nKernel memory of the state tables");
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["map", "entries", "MiB", "bytes/entry"]);
        for map in &self.tables {
            table.add_row([
                map.name.to_owned(),
                map.entries.to_string(),
                format!("{:.1}", map.bytes as f64 / 1_048_576.0),
                format!("{:.1}", map.bytes as f64 / map.entries as f64),
            ]);
        }
        align(&mut table, &[1, 2, 3]);
        println!("{table}");
        let verdict = if self.per_binding <= BINDING_TARGET { "ok" } else { "over" };
        println!(
            "a binding: {:.1} bytes (target {BINDING_TARGET:.0}: {verdict}); a flow: {:.1} bytes",
            self.per_binding, self.per_flow
        );
    }
}

/// Entries and accounted bytes of a map.
///
/// Only for maps whose memory is taken when they are made: of others the figure would say little.
fn account(map: &Map) -> Result<(u64, u64)> {
    let (Map::Array(map) | Map::HashMap(map)) = map else { anyhow::bail!("an unexpected kind of map") };
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let info = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| -> Result<u64> {
        let line =
            info.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let text = line.trim();
        Ok(match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16)?,
            None => text.parse()?,
        })
    };
    ensure!(field("map_flags:")? & NO_PREALLOC == 0, "its entries are allocated one by one");
    Ok((field("max_entries:")?, field("memlock:")?))
}
