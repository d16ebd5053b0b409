//! What the compiler says that the program takes, as a table.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use lb_common::abi::map;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What is in each stage (`resources.json`).
#[derive(Deserialize)]
pub(super) struct Resources {
    resources: Device,
}

#[derive(Deserialize)]
struct Device {
    mau: Stages,
}

#[derive(Deserialize)]
struct Stages {
    #[serde(rename = "nStages")]
    available: usize,
    mau_stages: Vec<Stage>,
}

#[derive(Deserialize)]
struct Stage {
    stage_number: usize,
    rams: Rams,
    tcams: Tcams,
    hash_bits: HashBits,
    logical_tables: Logical,
}

#[derive(Deserialize)]
struct Rams {
    #[serde(rename = "nRows")]
    rows: usize,
    #[serde(rename = "nColumns")]
    columns: usize,
    srams: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Tcams {
    #[serde(rename = "nRows")]
    rows: usize,
    #[serde(rename = "nColumns")]
    columns: usize,
    tcams: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct HashBits {
    #[serde(rename = "nBits")]
    bits_each: usize,
    #[serde(rename = "nFunctions")]
    functions: usize,
    bits: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Logical {
    size: usize,
    ids: Vec<IgnoredAny>,
}

/// Where each table went (`context.json`).
#[derive(Deserialize)]
pub(super) struct Placed {
    tables: Vec<PlacedTable>,
}

#[derive(Deserialize)]
struct PlacedTable {
    name: String,
    match_attributes: Option<Attributes>,
}

#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    stage_tables: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    /// -1 where a parser has it (ports' metadata).
    stage_number: i32,
    size: usize,
}

/// Used and available, of one kind.
#[derive(Clone, Copy, Default)]
struct Share {
    used: usize,
    available: usize,
}

impl Share {
    fn cell(self) -> String {
        format!("{} / {}", self.used, self.available)
    }

    fn and(self, other: Self) -> Self {
        Self { used: self.used + other.used, available: self.available + other.available }
    }
}

impl Stage {
    fn is_used(&self) -> bool {
        !self.logical_tables.ids.is_empty()
    }

    /// SRAM, TCAM, hash bits, tables.
    fn shares(&self) -> [Share; 4] {
        let Self { rams, tcams, hash_bits, logical_tables, .. } = self;
        [
            Share { used: rams.srams.len(), available: rams.rows * rams.columns },
            Share { used: tcams.tcams.len(), available: tcams.rows * tcams.columns },
            Share { used: hash_bits.bits.len(), available: hash_bits.bits_each * hash_bits.functions },
            Share { used: logical_tables.ids.len(), available: logical_tables.size },
        ]
    }
}

/// The report.
pub(super) fn text(resources: &Resources, placed: &Placed) -> String {
    let stages = &resources.resources.mau;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["stage", "SRAM", "TCAM", "hash bits", "tables"]);
    let mut all = [Share::default(); 4];
    for stage in &stages.mau_stages {
        let shares = stage.shares();
        for (sum, share) in all.iter_mut().zip(shares) {
            *sum = sum.and(share);
        }
        table.add_row([stage.stage_number.to_string()].into_iter().chain(shares.map(Share::cell)));
    }
    table.add_row(["all".to_owned()].into_iter().chain(all.map(Share::cell)));
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let used = stages.mau_stages.iter().filter(|stage| stage.is_used()).count();
    format!("{table}\n{used} of {} stages. {}", stages.available, bindings(placed))
}

/// How many sessions can be bound: the compiler gives a table the RAMs that it asks for, rounded up.
fn bindings(placed: &Placed) -> String {
    // A pipe's name may stand in front.
    let is_it = |table: &&PlacedTable| table.name.rsplit('.').next() == Some(map::BINDINGS);
    let parts: Vec<&Part> = placed
        .tables
        .iter()
        .filter(is_it)
        .filter_map(|table| table.match_attributes.as_ref())
        .flat_map(|attributes| &attributes.stage_tables)
        .collect();
    let room: usize = parts.iter().map(|part| part.size).sum();
    let stages = parts.iter().map(|part| part.stage_number);
    match (stages.clone().min(), stages.max()) {
        (Some(first), Some(last)) => format!("{room} bindings fit, in stages {first} to {last}."),
        _ => format!("{} was not placed.", map::BINDINGS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCES: &str = include_str!("fixtures/resources.json");
    const CONTEXT: &str = include_str!("fixtures/context.json");

    #[test]
    fn stages_are_summed_and_bindings_counted() {
        let resources = serde_json::from_str(RESOURCES).expect("resources can be read");
        let placed = serde_json::from_str(CONTEXT).expect("the context can be read");
        let text = text(&resources, &placed);
        let lines: Vec<String> = text.lines().map(|line| line.replace(['│', '┆'], " ")).collect();
        let row = |begins: &str| {
            let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            lines
                .iter()
                .map(words)
                .find(|words| words.first().is_some_and(|word| word == begins))
                .unwrap_or_default()
                .join(" ")
        };
        assert_eq!(row("7"), "7 73 / 80 0 / 24 72 / 416 10 / 16");
        assert_eq!(row("all"), "all 77 / 160 0 / 48 112 / 832 14 / 32");
        assert!(text.ends_with("2 of 12 stages. 229376 bindings fit, in stages 5 to 7."), "{text}");
    }

    #[test]
    fn table_that_is_nowhere_is_told() {
        let placed =
            serde_json::from_str(r#"{"tables": [{"name": "pipe.SERVICES"}]}"#).expect("it can be read");
        assert_eq!(bindings(&placed), "BINDINGS was not placed.");
    }
}
