//! The ledger as it is shown: cores and GiB.

use domain::{
    scheduling::ledger::Discrepancy,
    units::{Resources, cores, gib},
};
use schemars::JsonSchema;
use serde::Serialize;

/// An amount of each resource.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Amounts")]
pub(super) struct AmountsView {
    /// Cores.
    cpu: f64,
    /// GiB.
    memory: f64,
    /// GiB.
    storage: f64,
    /// GPUs.
    gpu: i64,
}

impl From<Resources> for AmountsView {
    fn from(amounts: Resources) -> Self {
        Self {
            cpu: cores(amounts.cpu_millis),
            memory: gib(amounts.memory_mib),
            storage: gib(amounts.storage_mib),
            gpu: amounts.gpus,
        }
    }
}

/// What is reserved differs from what tasks hold.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Discrepancy")]
pub(super) struct DiscrepancyView {
    /// The server or pool, such as `server:7`.
    target: String,
    /// What it says is reserved.
    reserved: AmountsView,
    /// What tasks hold.
    held: AmountsView,
}

impl From<Discrepancy> for DiscrepancyView {
    fn from(found: Discrepancy) -> Self {
        Self { target: found.target, reserved: found.reserved.into(), held: found.held.into() }
    }
}

/// Whether what is reserved is what tasks hold.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Ledger")]
pub(super) struct LedgerView {
    consistent: bool,
    /// Where it is not.
    discrepancies: Vec<DiscrepancyView>,
}

impl From<Vec<Discrepancy>> for LedgerView {
    fn from(found: Vec<Discrepancy>) -> Self {
        Self { consistent: found.is_empty(), discrepancies: found.into_iter().map(Into::into).collect() }
    }
}

/// What was set right.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LedgerMended {
    /// What was found, as it was before.
    mended: Vec<DiscrepancyView>,
}

impl From<Vec<Discrepancy>> for LedgerMended {
    fn from(found: Vec<Discrepancy>) -> Self {
        Self { mended: found.into_iter().map(Into::into).collect() }
    }
}
