//! Pools as they are sent and shown.

use crate::{extract::patch, rooms::dto};
use domain::{
    Error, Result,
    clock::Timestamp,
    error::Checks,
    page::PageRequest,
    patch::Patch,
    pools::{
        NewPool, PoolFilter, PoolPatch, PoolStrategy, PoolSummary, PoolType, Quotas, QuotasPatch, Watermark,
        Watermarks, WatermarksPatch,
    },
    text::{self, Name, Tags},
    units::{Rounding, cores, cpu_millis, gib, mib},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a pool is mainly for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PoolType")]
pub(super) enum Kind {
    /// General computing.
    Compute,
    /// Work that needs GPUs.
    Gpu,
    /// Keeping data.
    Storage,
    /// Moving packets.
    Network,
}

impl From<Kind> for PoolType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Compute => Self::Compute,
            Kind::Gpu => Self::Gpu,
            Kind::Storage => Self::Storage,
            Kind::Network => Self::Network,
        }
    }
}

/// How work is laid out over a pool's servers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PoolStrategy")]
pub(super) enum Strategy {
    /// Evenly: the emptiest server first.
    Spread,
    /// Tightly: the fullest server that still has room first.
    Binpack,
}

impl From<Strategy> for PoolStrategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Spread => Self::Spread,
            Strategy::Binpack => Self::Binpack,
        }
    }
}

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
    fn parse(self, checks: &mut Checks) -> Quotas {
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

/// The load above which a pool takes no new work, and below which it does again, in percent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Watermark")]
pub(super) struct WatermarkBody {
    /// Above this it takes no new work.
    #[schemars(range(min = 0, max = 100))]
    high: f64,
    /// Below this it does again; the same as `high` if left out.
    #[schemars(range(min = 0, max = 100))]
    low: Option<f64>,
}

impl WatermarkBody {
    fn parse(self) -> Result<Watermark, String> {
        Watermark::parse(self.high, self.low.unwrap_or(self.high))
    }
}

impl From<Watermark> for WatermarkBody {
    fn from(watermark: Watermark) -> Self {
        Self { high: watermark.high, low: Some(watermark.low) }
    }
}

/// Watermarks: `high` and `low` for every resource, and others for those that are named.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Watermarks")]
pub(super) struct WatermarksBody {
    /// Above this percentage the pool takes no new work.
    #[schemars(range(min = 0, max = 100))]
    high: Option<f64>,
    /// Below this percentage it does again.
    #[schemars(range(min = 0, max = 100))]
    low: Option<f64>,
    /// For CPU alone.
    cpu: Option<WatermarkBody>,
    /// For memory alone.
    memory: Option<WatermarkBody>,
    /// For storage alone.
    storage: Option<WatermarkBody>,
    /// For GPUs alone.
    gpu: Option<WatermarkBody>,
}

impl WatermarksBody {
    fn parse(self, checks: &mut Checks) -> Watermarks {
        let mut own = |field: &str, body: Option<WatermarkBody>| body.and_then(|body| checks.take(field, body.parse()));
        let (cpu, memory) = (own("watermarks.cpu", self.cpu), own("watermarks.memory", self.memory));
        let (storage, gpu) = (own("watermarks.storage", self.storage), own("watermarks.gpu", self.gpu));
        let all = checks.take("watermarks", Watermarks::pair(self.high, self.low)).flatten();
        Watermarks { all, cpu, memory, storage, gpu }
    }
}

impl From<Watermarks> for WatermarksBody {
    fn from(watermarks: Watermarks) -> Self {
        Self {
            high: watermarks.all.map(|all| all.high),
            low: watermarks.all.map(|all| all.low),
            cpu: watermarks.cpu.map(Into::into),
            memory: watermarks.memory.map(Into::into),
            storage: watermarks.storage.map(Into::into),
            gpu: watermarks.gpu.map(Into::into),
        }
    }
}

/// A pool to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolCreate {
    /// Its name, unique among pools.
    #[schemars(schema_with = "dto::name")]
    name: String,
    /// What it is mainly for; `compute` if left out.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    /// The most its allocations may hold.
    quotas: Option<QuotasBody>,
    /// When it takes no new work.
    watermarks: Option<WatermarksBody>,
    /// How work is laid out; `spread` if left out.
    strategy: Option<Strategy>,
    /// Free labels.
    #[serde(default)]
    #[schemars(schema_with = "dto::tags")]
    labels: Option<BTreeMap<String, String>>,
    /// What it is for.
    #[serde(default)]
    #[schemars(schema_with = "description")]
    description: Option<String>,
}

fn description(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let pattern = "^[^\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]*$";
    schemars::json_schema!({ "type": ["string", "null"], "maxLength": dto::MAX_DESCRIPTION, "pattern": pattern })
}

impl PoolCreate {
    /// The domain's word for it.
    pub(super) fn parse(self) -> Result<NewPool> {
        let mut checks = Checks::default();
        let name = checks.take("name", Name::parse(self.name));
        let quotas = self.quotas.unwrap_or_default().parse(&mut checks);
        let watermarks = self.watermarks.unwrap_or_default().parse(&mut checks);
        let labels = checks.take("labels", Tags::parse(self.labels.unwrap_or_default()));
        let paragraph = |text| text::paragraph(text, dto::MAX_DESCRIPTION);
        let description = self.description.and_then(|text| checks.take("description", paragraph(text)));
        checks.finish()?;
        let (name, labels) = name.zip(labels).ok_or_else(|| Error::internal("a checked pool is incomplete"))?;
        Ok(NewPool {
            name,
            kind: self.kind.map_or(PoolType::Compute, Into::into),
            quotas,
            watermarks,
            strategy: self.strategy.map_or(PoolStrategy::Spread, Into::into),
            labels,
            description,
        })
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
    fn parse(self, checks: &mut Checks) -> QuotasPatch {
        let size = |gib| mib(gib, Rounding::Down);
        QuotasPatch {
            cpu_millis: dto::patched(checks, "quotas.cpu", self.cpu, |cores| cpu_millis(cores, Rounding::Down)),
            memory_mib: dto::patched(checks, "quotas.memory", self.memory, size),
            storage_mib: dto::patched(checks, "quotas.storage", self.storage, size),
            gpus: dto::patched(checks, "quotas.gpu", self.gpu, dto::gpu_count),
        }
    }
}

fn percent(value: f64) -> Result<f64, String> {
    if (0.0..=100.0).contains(&value) { Ok(value) } else { Err("must be from 0 to 100".to_owned()) }
}

/// A merge patch of watermarks.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "WatermarksPatch")]
pub(super) struct WatermarksPatchBody {
    /// For every resource without its own.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<f64>", range(min = 0, max = 100))]
    high: Patch<f64>,
    /// For every resource without its own.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<f64>", range(min = 0, max = 100))]
    low: Patch<f64>,
    /// For CPU alone.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<WatermarkBody>")]
    cpu: Patch<WatermarkBody>,
    /// For memory alone.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<WatermarkBody>")]
    memory: Patch<WatermarkBody>,
    /// For storage alone.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<WatermarkBody>")]
    storage: Patch<WatermarkBody>,
    /// For GPUs alone.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<WatermarkBody>")]
    gpu: Patch<WatermarkBody>,
}

impl WatermarksPatchBody {
    fn parse(self, checks: &mut Checks) -> WatermarksPatch {
        WatermarksPatch {
            high: dto::patched(checks, "watermarks.high", self.high, percent),
            low: dto::patched(checks, "watermarks.low", self.low, percent),
            cpu: dto::patched(checks, "watermarks.cpu", self.cpu, WatermarkBody::parse),
            memory: dto::patched(checks, "watermarks.memory", self.memory, WatermarkBody::parse),
            storage: dto::patched(checks, "watermarks.storage", self.storage, WatermarkBody::parse),
            gpu: dto::patched(checks, "watermarks.gpu", self.gpu, WatermarkBody::parse),
        }
    }
}

/// A merge patch of a pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "PoolPatch")]
pub(super) struct PoolPatchBody {
    /// Another name.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::name")]
    name: Patch<String>,
    /// Another type.
    #[serde(rename = "type", deserialize_with = "patch::read")]
    #[schemars(with = "Kind")]
    kind: Patch<Kind>,
    /// Other quotas.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<QuotasPatchBody>")]
    quotas: Patch<QuotasPatchBody>,
    /// Other watermarks.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<WatermarksPatchBody>")]
    watermarks: Patch<WatermarksPatchBody>,
    /// Another strategy.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Strategy")]
    strategy: Patch<Strategy>,
    /// Labels to set and to remove.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::tags_patch")]
    labels: Patch<BTreeMap<String, Option<String>>>,
    /// Another description.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "description")]
    description: Patch<String>,
}

impl PoolPatchBody {
    /// The domain's word for it.
    pub(super) fn parse(self) -> Result<PoolPatch> {
        let mut checks = Checks::default();
        let quotas = match self.quotas {
            Patch::Set(body) => Patch::Set(body.parse(&mut checks)),
            Patch::Clear => Patch::Clear,
            Patch::Keep => Patch::Keep,
        };
        let watermarks = match self.watermarks {
            Patch::Set(body) => Patch::Set(body.parse(&mut checks)),
            Patch::Clear => Patch::Clear,
            Patch::Keep => Patch::Keep,
        };
        let patch = PoolPatch {
            name: dto::replaced_name(&mut checks, self.name),
            kind: dto::replaced(&mut checks, "type", self.kind, |kind| Ok(kind.into())),
            quotas,
            watermarks,
            strategy: dto::replaced(&mut checks, "strategy", self.strategy, |strategy| Ok(strategy.into())),
            labels: dto::patched_tags(&mut checks, "labels", self.labels),
            description: dto::patched(&mut checks, "description", self.description, |text| {
                text::paragraph(text, dto::MAX_DESCRIPTION)
            }),
        };
        checks.finish()?;
        Ok(patch)
    }
}

/// Filters of the list of pools.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct PoolListQuery {
    /// Of this type.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    /// With this text in the name or description, whatever its case.
    #[schemars(length(max = 128))]
    keyword: Option<String>,
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

impl PoolListQuery {
    /// The domain's words for it.
    pub(super) fn parse(self) -> Result<(PoolFilter, PageRequest)> {
        let mut checks = Checks::default();
        let keyword = dto::keyword(&mut checks, self.keyword);
        checks.finish()?;
        let filter = PoolFilter { kind: self.kind.map(Into::into), keyword };
        Ok((filter, PageRequest::parse(self.limit, self.cursor.as_deref(), "-id")?))
    }
}

/// One resource of a pool's servers together.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Usage {
    /// What they have.
    total: f64,
    /// What allocations hold.
    reserved: f64,
    /// What was measured; unknown while nothing measures it.
    used: Option<f64>,
}

/// The GPUs of a pool's servers together, which are whole but where their use is measured.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct GpuUsage {
    /// What they have.
    total: i64,
    /// What allocations hold.
    reserved: i64,
    /// What was measured; unknown while nothing measures it.
    used: Option<f64>,
}

/// What a pool's servers have and hold together.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CapacityView {
    /// Cores.
    cpu: Usage,
    /// GiB.
    memory: Usage,
    /// GiB.
    storage: Usage,
    /// GPUs.
    gpu: GpuUsage,
}

/// A pool.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Pool")]
pub(super) struct PoolView {
    id: i64,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    quotas: QuotasBody,
    watermarks: WatermarksBody,
    strategy: &'static str,
    labels: BTreeMap<String, String>,
    description: Option<String>,
    server_count: i64,
    capacity: CapacityView,
    /// `open`, or `saturated` while it takes no new work.
    state: &'static str,
    revision: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&PoolSummary> for PoolView {
    fn from(summary: &PoolSummary) -> Self {
        let (pool, total, reserved) = (&summary.pool, summary.capacity.total, summary.capacity.reserved);
        let usage = |total, reserved| Usage { total, reserved, used: None };
        Self {
            id: pool.id.0,
            name: pool.name.as_str().to_owned(),
            kind: pool.kind.as_str(),
            quotas: pool.quotas.into(),
            watermarks: pool.watermarks.into(),
            strategy: pool.strategy.as_str(),
            labels: dto::shown(&pool.labels),
            description: pool.description.clone(),
            server_count: summary.capacity.server_count,
            capacity: CapacityView {
                cpu: usage(cores(total.cpu_millis), cores(reserved.cpu_millis)),
                memory: usage(gib(total.memory_mib), gib(reserved.memory_mib)),
                storage: usage(gib(total.storage_mib), gib(reserved.storage_mib)),
                gpu: GpuUsage { total: total.gpus, reserved: reserved.gpus, used: None },
            },
            state: pool.state.as_str(),
            revision: pool.revision,
            created_at: pool.created_at,
            updated_at: pool.updated_at,
        }
    }
}
