use super::model::{NewPool, Pool, PoolFilter, PoolSummary};
use crate::{
    Result,
    change::{Change, Done},
    ids::PoolId,
    page::{Page, PageRequest},
};
use async_trait::async_trait;

/// The pools in the database.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Pools: Send + Sync {
    /// Makes a pool at the time of the change's entry, which it completes with the pool's id and state.
    ///
    /// MUST fail with `name_taken` if there is a pool of that name.
    async fn create(&self, pool: NewPool, change: Change) -> Result<Done<Pool>>;

    /// Pools that match, newest first. Pages MUST neither repeat nor skip rows when others are inserted meanwhile.
    async fn list(&self, filter: PoolFilter, page: PageRequest) -> Result<Page<PoolSummary>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: PoolId) -> Result<PoolSummary>;

    /// Writes `pool`, whose revision is one above that of the row it replaces.
    ///
    /// MUST fail with [`crate::Error::Stale`] if the row is at another revision, with [`crate::Error::NotFound`] if it
    /// is gone, and with `name_taken` as for creation. MUST NOT touch the state.
    async fn update(&self, pool: Pool, change: Change) -> Result<Done<Pool>>;

    /// Removes `pool` if its row is still at that revision and it has no servers; errors as for `update`, and
    /// `pool_not_empty` with the names of some servers where it has.
    async fn delete(&self, pool: Pool, change: Change) -> Result<Done<()>>;
}
