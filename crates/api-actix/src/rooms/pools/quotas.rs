//! Quotas as they are sent and shown.

use crate::{extract::patch, rooms::dto};
use domain::{
    error::Checks,
    patch::Patch,
    pools::{Quotas, QuotasPatch},
    units::{Rounding, cores, cpu_millis, gib, mib},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most that a pool's allocations may hold; a resource without a quota is bounded by its servers alone.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Quotas")]
pub(super) struct QuotasBody {
    /// Cores.
    #[schemars(range(min = 0, max = 1_000_000))]
    cpu: Option<f64>,
    /// Memory in GiB.
    #[schemars(range(min = 0, max = 1_073_741_824))]
    memory: Option<f64>,
    /// Storage in GiB.
    #[schemars(range(min = 0, max = 1_073_741_824))]
    storage: Option<f64>,
    /// GPUs.
    #[schemars(range(min = 0, max = 100_000))]
    gpu: Option<i64>,
}

impl QuotasBody {
    /// The domain's word for it; what is wrong goes to `checks`.
    pub(super) fn parse(self, checks: &mut Checks) -> Quotas {
        let cpu = |cores| cpu_millis(cores, Rounding::Down);
        let size = |gib| mib(gib, Rounding::Down);
        Quotas {
            cpu_millis: self.cpu.and_then(|cores| checks.take("quotas.cpu", cpu(cores))),
            memory_mib: self.memory.and_then(|gib| checks.take("quotas.memory", size(gib))),
            storage_mib: self.storage.and_then(|gib| checks.take("quotas.storage", size(gib))),
            gpus: self.gpu.and_then(|gpus| checks.take("quotas.gpu", dto::gpu_count(gpus))),
        }
    }
}

impl From<Quotas> for QuotasBody {
    fn from(quotas: Quotas) -> Self {
        Self {
            cpu: quotas.cpu_millis.map(cores),
            memory: quotas.memory_mib.map(gib),
            storage: quotas.storage_mib.map(gib),
            gpu: quotas.gpus,
        }
    }
}

/// A merge patch of quotas.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "QuotasPatch")]
pub(super) struct QuotasPatchBody {
    /// Cores.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<f64>", range(min = 0, max = 1_000_000))]
    cpu: Patch<f64>,
    /// Memory in GiB.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<f64>", range(min = 0, max = 1_073_741_824))]
    memory: Patch<f64>,
    /// Storage in GiB.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<f64>", range(min = 0, max = 1_073_741_824))]
    storage: Patch<f64>,
    /// GPUs.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<i64>", range(min = 0, max = 100_000))]
    gpu: Patch<i64>,
}

impl QuotasPatchBody {
    /// The domain's word for it; what is wrong goes to `checks`.
    pub(super) fn parse(self, checks: &mut Checks) -> QuotasPatch {
        let size = |gib| mib(gib, Rounding::Down);
        QuotasPatch {
            cpu_millis: dto::patched(checks, "quotas.cpu", self.cpu, |cores| cpu_millis(cores, Rounding::Down)),
            memory_mib: dto::patched(checks, "quotas.memory", self.memory, size),
            storage_mib: dto::patched(checks, "quotas.storage", self.storage, size),
            gpus: dto::patched(checks, "quotas.gpu", self.gpu, dto::gpu_count),
        }
    }
}
