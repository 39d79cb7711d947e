//! Resource pools: groups of servers with quotas, watermarks and a placement strategy.
//!
//! Invariants: a name belongs to one pool; a pool with servers cannot be removed; allocations in a pool never hold
//! more than its quota.

mod model;
mod ports;
mod service;

pub use model::{
    Capacity, NewPool, Pool, PoolFilter, PoolPatch, PoolState, PoolStrategy, PoolSummary, PoolType, Quotas,
    QuotasPatch, Watermark, Watermarks, WatermarksPatch,
};
pub use ports::Pools;
pub use service::PoolService;

#[cfg(any(test, feature = "mocks"))]
pub use ports::MockPools;
