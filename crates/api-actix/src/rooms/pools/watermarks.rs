//! Watermarks as they are sent and shown.

use crate::{extract::patch, rooms::dto};
use domain::{
    error::Checks,
    patch::Patch,
    pools::{Watermark, Watermarks, WatermarksPatch},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The load above which a pool takes no new work, and below which it does again, in percent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Watermark")]
struct WatermarkBody {
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
    /// The domain's word for it; what is wrong goes to `checks`.
    pub(super) fn parse(self, checks: &mut Checks) -> Watermarks {
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
    /// The domain's word for it; what is wrong goes to `checks`.
    pub(super) fn parse(self, checks: &mut Checks) -> WatermarksPatch {
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

fn percent(value: f64) -> Result<f64, String> {
    if (0.0..=100.0).contains(&value) { Ok(value) } else { Err("must be from 0 to 100".to_owned()) }
}
