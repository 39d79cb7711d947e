use crate::{
    change::Recorded,
    clock::Timestamp,
    error::Checks,
    ids::PoolId,
    patch::Patch,
    text::{Name, Tags},
    units::Resources,
    words::words,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

words! {
    /// What a pool is mainly for.
    PoolType {
        /// General computing.
        Compute = "compute",
        /// Work that needs GPUs.
        Gpu = "gpu",
        /// Keeping data.
        Storage = "storage",
        /// Moving packets.
        Network = "network",
    }
}

words! {
    /// How work is laid out over a pool's servers.
    PoolStrategy {
        /// Evenly: the emptiest server first.
        Spread = "spread",
        /// Tightly: the fullest server that still has room first.
        Binpack = "binpack",
    }
}

words! {
    /// Whether a pool takes new work.
    PoolState {
        /// It does.
        Open = "open",
        /// It is above its high watermark and has not fallen back to the low one.
        Saturated = "saturated",
    }
}

/// The most that a pool's allocations may hold; `None` for as much as its servers have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    /// CPU in millicores.
    pub cpu_millis: Option<i64>,
    /// Memory in MiB.
    pub memory_mib: Option<i64>,
    /// Storage in MiB.
    pub storage_mib: Option<i64>,
    /// Whole GPUs.
    pub gpus: Option<i64>,
}

/// A merge patch of quotas.
#[derive(Debug, Clone, Default)]
pub struct QuotasPatch {
    /// CPU in millicores.
    pub cpu_millis: Patch<i64>,
    /// Memory in MiB.
    pub memory_mib: Patch<i64>,
    /// Storage in MiB.
    pub storage_mib: Patch<i64>,
    /// Whole GPUs.
    pub gpus: Patch<i64>,
}

impl Quotas {
    fn patched(self, patch: QuotasPatch) -> Self {
        Self {
            cpu_millis: patch.cpu_millis.apply(self.cpu_millis),
            memory_mib: patch.memory_mib.apply(self.memory_mib),
            storage_mib: patch.storage_mib.apply(self.storage_mib),
            gpus: patch.gpus.apply(self.gpus),
        }
    }
}

/// The load above which a pool takes no new work, and below which it does again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    /// Percent of capacity.
    pub high: f64,
    /// Percent of capacity, at most `high`.
    pub low: f64,
}

impl Watermark {
    /// # Errors
    /// A sentence, if these are not percentages with `low` at most `high`.
    pub fn parse(high: f64, low: f64) -> Result<Self, String> {
        if (0.0..=100.0).contains(&high) && (0.0..=high).contains(&low) {
            return Ok(Self { high, low });
        }
        Err("must have high and low from 0 to 100, with low not above high".to_owned())
    }
}

/// Watermarks per resource; `all` stands for those that have none of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Watermarks {
    /// For every resource without its own.
    pub all: Option<Watermark>,
    /// For CPU.
    pub cpu: Option<Watermark>,
    /// For memory.
    pub memory: Option<Watermark>,
    /// For storage.
    pub storage: Option<Watermark>,
    /// For GPUs.
    pub gpu: Option<Watermark>,
}

/// A merge patch of watermarks; each is replaced as a whole, except `all`, whose ends can be given alone.
#[derive(Debug, Clone, Default)]
pub struct WatermarksPatch {
    /// The upper end for every resource without its own.
    pub high: Patch<f64>,
    /// The lower end for every resource without its own.
    pub low: Patch<f64>,
    /// For CPU.
    pub cpu: Patch<Watermark>,
    /// For memory.
    pub memory: Patch<Watermark>,
    /// For storage.
    pub storage: Patch<Watermark>,
    /// For GPUs.
    pub gpu: Patch<Watermark>,
}

impl Watermarks {
    /// The pair for every resource without its own; a missing `low` is the same as `high`.
    ///
    /// # Errors
    /// A sentence, if only `low` is given or they are no watermark.
    pub fn pair(high: Option<f64>, low: Option<f64>) -> Result<Option<Watermark>, String> {
        match (high, low) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err("must have high where it has low".to_owned()),
            (Some(high), low) => Watermark::parse(high, low.unwrap_or(high)).map(Some),
        }
    }

    fn patched(self, patch: WatermarksPatch) -> Result<Self, String> {
        let high = patch.high.apply(self.all.map(|all| all.high));
        // Without `high`, the `low` that is there goes with it, but one that is asked for is a mistake.
        let low = patch.low.apply(self.all.filter(|_| high.is_some()).map(|all| all.low));
        Ok(Self {
            all: Self::pair(high, low)?,
            cpu: patch.cpu.apply(self.cpu),
            memory: patch.memory.apply(self.memory),
            storage: patch.storage.apply(self.storage),
            gpu: patch.gpu.apply(self.gpu),
        })
    }
}

/// A group of servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its id.
    pub id: PoolId,
    /// Its name, unique among pools.
    pub name: Name,
    /// What it is mainly for.
    #[serde(rename = "type")]
    pub kind: PoolType,
    /// The most its allocations may hold.
    pub quotas: Quotas,
    /// When it takes no new work.
    pub watermarks: Watermarks,
    /// How work is laid out over its servers.
    pub strategy: PoolStrategy,
    /// Free labels.
    pub labels: Tags,
    /// What it is for, in words.
    pub description: Option<String>,
    /// Whether it takes new work.
    pub state: PoolState,
    /// Counts changes; the `ETag`.
    pub revision: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Pool {
    /// This pool with a patch applied, at its next revision.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the members that make no valid pool.
    pub fn patched(&self, patch: PoolPatch, now: Timestamp) -> crate::Result<Self> {
        let mut checks = Checks::default();
        let quotas = match patch.quotas {
            Patch::Keep => self.quotas,
            Patch::Clear => Quotas::default(),
            Patch::Set(changes) => self.quotas.patched(changes),
        };
        let watermarks = match patch.watermarks {
            Patch::Keep => Some(self.watermarks),
            Patch::Clear => Some(Watermarks::default()),
            Patch::Set(changes) => checks.take("watermarks", self.watermarks.patched(changes)),
        };
        let labels = match patch.labels {
            Patch::Keep => Some(self.labels.clone()),
            Patch::Clear => Some(Tags::default()),
            Patch::Set(changes) => checks.take("labels", self.labels.patched(changes)),
        };
        checks.finish()?;
        Ok(Self {
            name: patch.name.unwrap_or_else(|| self.name.clone()),
            kind: patch.kind.unwrap_or(self.kind),
            quotas,
            watermarks: watermarks.unwrap_or_default(),
            strategy: patch.strategy.unwrap_or(self.strategy),
            labels: labels.unwrap_or_default(),
            description: patch.description.apply(self.description.clone()),
            revision: self.revision + 1,
            updated_at: now,
            ..self.clone()
        })
    }
}

impl Recorded for Pool {
    const KIND: &'static str = "pool";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// A pool to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPool {
    /// Its name.
    pub name: Name,
    /// What it is mainly for.
    pub kind: PoolType,
    /// The most its allocations may hold.
    pub quotas: Quotas,
    /// When it takes no new work.
    pub watermarks: Watermarks,
    /// How work is laid out over its servers.
    pub strategy: PoolStrategy,
    /// Free labels.
    pub labels: Tags,
    /// What it is for, in words.
    pub description: Option<String>,
}

impl NewPool {
    /// The pool that this becomes under an id.
    #[must_use]
    pub fn into_pool(self, id: PoolId, now: Timestamp) -> Pool {
        Pool {
            id,
            name: self.name,
            kind: self.kind,
            quotas: self.quotas,
            watermarks: self.watermarks,
            strategy: self.strategy,
            labels: self.labels,
            description: self.description,
            state: PoolState::Open,
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A merge patch of a pool.
#[derive(Debug, Clone, Default)]
pub struct PoolPatch {
    /// Another name.
    pub name: Option<Name>,
    /// Another type.
    pub kind: Option<PoolType>,
    /// Other quotas.
    pub quotas: Patch<QuotasPatch>,
    /// Other watermarks.
    pub watermarks: Patch<WatermarksPatch>,
    /// Another strategy.
    pub strategy: Option<PoolStrategy>,
    /// Labels to set (`Some`) and to remove (`None`).
    pub labels: Patch<BTreeMap<String, Option<String>>>,
    /// Another description.
    pub description: Patch<String>,
}

/// Which pools are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolFilter {
    /// Of this type.
    pub kind: Option<PoolType>,
    /// With this text in the name or description, whatever its case.
    pub keyword: Option<String>,
}

/// What a pool's servers have and hold together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// How many servers it has.
    pub server_count: i64,
    /// What they have.
    pub total: Resources,
    /// What allocations hold of it.
    pub reserved: Resources,
}

/// A pool together with its capacity at the moment it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSummary {
    /// The pool.
    pub pool: Pool,
    /// Its servers, summed up.
    pub capacity: Capacity,
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
