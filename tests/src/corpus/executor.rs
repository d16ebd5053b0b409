//! What can run the cases.

use super::tables::{Change, Tables};
use anyhow::Result;
use lb_common::abi::{Binding, BindingKey, Counters, Flow, FlowKey, FlowRef, HoldWord, Vitals};
use std::time::Duration;

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Given to the stack.
    Pass,
    /// Lost.
    Drop,
    /// Sent back out of its interface.
    Tx,
    /// Sent out of an interface; the kernel's test run does not say which.
    Redirect(Option<u32>),
    /// The program failed.
    Aborted,
}

impl Verdict {
    /// Its name in the corpus.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Tx => "tx",
            Self::Redirect(_) => "redirect",
            Self::Aborted => "aborted",
        }
    }

    /// Whether two executors mean the same.
    pub fn agrees(self, other: Self) -> bool {
        match (self, other) {
            (Self::Redirect(a), Self::Redirect(b)) => a.is_none() || b.is_none() || a == b,
            (a, b) => a == b,
        }
    }
}

/// Verdict and frame after a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

/// An entry of the flow index with the record it points to.
#[derive(Clone, Copy, Debug)]
pub struct FlowView {
    /// Key of the entry.
    pub key: FlowKey,
    /// The entry.
    pub reference: FlowRef,
    /// The record.
    pub record: Flow,
}

/// Something that runs the data plane over tables of its own.
pub trait Executor {
    /// Its name, as in `only` of a step.
    const NAME: &'static str;

    /// Empties everything and fills in the tables of a case.
    fn install(&mut self, tables: &Tables) -> Result<()>;
    /// Runs the entry program on a frame.
    fn run(&mut self, frame: &[u8], ifindex: u32) -> Result<Ran>;
    /// Lets time pass.
    fn advance(&mut self, by: Duration) -> Result<()>;
    /// Changes a table.
    fn change(&mut self, change: &Change) -> Result<()>;
    /// Monotonic time in nanoseconds, as the program sees it.
    fn now(&self) -> u64;

    /// Totals by outcome number.
    fn outcomes(&self) -> Result<Vec<u64>>;
    /// Totals of a service slot.
    fn service_counters(&self, slot: u16) -> Result<Counters>;
    /// Totals of a backend slot.
    fn backend_counters(&self, slot: u16) -> Result<Counters>;
    /// What is noted of a backend.
    fn vitals(&self, slot: u16) -> Result<Vitals>;
    /// All bindings, expired ones too.
    fn bindings(&self) -> Result<Vec<(BindingKey, Binding)>>;
    /// Words of the holds that flows share.
    fn hold_words(&self) -> Result<Vec<HoldWord>>;
    /// The flow index.
    fn flows(&self) -> Result<Vec<FlowView>>;
}
