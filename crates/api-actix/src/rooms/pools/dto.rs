//! Pools as they are sent and shown.

use super::{
    quotas::{QuotasBody, QuotasPatchBody},
    watermarks::{WatermarksBody, WatermarksPatchBody},
};
use crate::{extract::patch, rooms::dto};
use domain::{
    Error, Result,
    clock::Timestamp,
    error::Checks,
    page::PageRequest,
    patch::Patch,
    pools::{NewPool, PoolFilter, PoolPatch, PoolStrategy, PoolSummary, PoolType},
    text::{self, Name, Tags},
    units::{cores, gib},
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
    #[schemars(schema_with = "dto::description")]
    description: Option<String>,
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
    #[schemars(schema_with = "dto::description")]
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
