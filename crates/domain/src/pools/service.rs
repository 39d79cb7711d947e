use super::{
    model::{Capacity, NewPool, PoolFilter, PoolPatch, PoolSummary},
    ports::Pools,
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once},
    clock::Clock,
    identity::{Actor, Operation, at_revision},
    ids::PoolId,
    page::{Page, PageRequest},
};
use std::sync::Arc;

/// How often a change is computed again when somebody else changed the pool in between.
const TRIES: usize = 5;

/// Makes, shows and changes pools.
pub struct PoolService {
    pools: Arc<dyn Pools>,
    clock: Arc<dyn Clock>,
}

impl PoolService {
    /// A service over these ports.
    #[must_use]
    pub fn new(pools: Arc<dyn Pools>, clock: Arc<dyn Clock>) -> Self {
        Self { pools, clock }
    }

    /// Makes a pool.
    ///
    /// # Errors
    /// As [`Pools::create`].
    pub async fn pool_create(&self, actor: &Actor, pool: NewPool, once: Option<Once>) -> Result<Done<PoolSummary>> {
        actor.authorize(Operation::PoolCreate)?;
        let entry = AuditEntry::new(actor, Operation::PoolCreate.action(), self.clock.now());
        let done = self.pools.create(pool, Change::new(entry, once)).await?;
        Ok(done.map(|pool| PoolSummary { pool, capacity: Capacity::default() }))
    }

    /// Pools that match, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn pool_list(&self, actor: &Actor, filter: PoolFilter, page: PageRequest) -> Result<Page<PoolSummary>> {
        actor.authorize(Operation::PoolList)?;
        self.pools.list(filter, page).await
    }

    /// One pool.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn pool_get(&self, actor: &Actor, id: PoolId) -> Result<PoolSummary> {
        actor.authorize(Operation::PoolGet)?;
        self.pools.get(id).await
    }

    /// Changes a pool. Where the caller names no revision, the patch is applied to the newest one.
    ///
    /// # Errors
    /// [`Error::Stale`] if the pool is not at `revision` any more; [`Error::Invalid`] if the patch makes no valid
    /// pool; `name_taken`.
    pub async fn pool_update(&self, actor: &Actor, id: PoolId, revision: Option<i64>, patch: PoolPatch) -> Result<PoolSummary> {
        actor.authorize(Operation::PoolUpdate)?;
        for _ in 0..TRIES {
            let before = self.pools.get(id).await?;
            at_revision("pool", id, before.pool.revision, revision)?;
            let now = self.clock.now();
            let after = before.pool.patched(patch.clone(), now)?;
            let entry = AuditEntry::new(actor, Operation::PoolUpdate.action(), now).changed(&before.pool, &after);
            match self.pools.update(after, entry.into()).await {
                Err(Error::Stale { .. }) if revision.is_none() => {}
                Err(error) => return Err(error),
                Ok(done) => return Ok(PoolSummary { pool: done.value, ..before }),
            }
        }
        Err(Error::conflict("busy", format!("pool {id} is being changed by others all the time; try again")))
    }

    /// Removes a pool.
    ///
    /// # Errors
    /// `pool_not_empty` while it has servers; [`Error::Stale`] as for a change.
    pub async fn pool_delete(&self, actor: &Actor, id: PoolId, revision: Option<i64>) -> Result<()> {
        actor.authorize(Operation::PoolDelete)?;
        let pool = self.pools.get(id).await?.pool;
        at_revision("pool", id, pool.revision, revision)?;
        let entry = AuditEntry::new(actor, Operation::PoolDelete.action(), self.clock.now()).deleted(&pool);
        self.pools.delete(pool, entry.into()).await.map(|done| done.value)
    }
}
