use super::{
    model::{Capacity, NewPool, PoolFilter, PoolPatch, PoolSummary},
    ports::Pools,
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once, TRIES},
    clock::Clock,
    identity::{Actor, Operation, at_revision},
    ids::PoolId,
    page::{Page, PageRequest},
};
use std::sync::Arc;

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
    pub async fn pool_update(
        &self,
        actor: &Actor,
        id: PoolId,
        revision: Option<i64>,
        patch: PoolPatch,
    ) -> Result<PoolSummary> {
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
        Err(Error::busy("pool", id))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{Role, Room, Scopes},
        patch::Patch,
        pools::{MockPools, Pool, PoolStrategy, PoolType, Quotas, Watermarks},
        testing::{START, TestClock, alice, name, once},
        text::Tags,
        units::Resources,
    };

    const ID: PoolId = PoolId(3);

    fn new_pool() -> NewPool {
        NewPool {
            name: name("edge"),
            kind: PoolType::Compute,
            quotas: Quotas::default(),
            watermarks: Watermarks::default(),
            strategy: PoolStrategy::Spread,
            labels: Tags::default(),
            description: None,
        }
    }

    fn summary(revision: i64) -> PoolSummary {
        let total = Resources { cpu_millis: 1000, ..Resources::default() };
        PoolSummary {
            pool: Pool { revision, ..new_pool().into_pool(ID, START) },
            capacity: Capacity { server_count: 1, total, ..Capacity::default() },
        }
    }

    fn service(pools: MockPools) -> PoolService {
        PoolService::new(Arc::new(pools), TestClock::start())
    }

    fn described(text: &str) -> PoolPatch {
        PoolPatch { description: Patch::Set(text.to_owned()), ..PoolPatch::default() }
    }

    fn stale() -> Error {
        Error::Stale { what: "pool 3".to_owned(), current: 99 }
    }

    #[tokio::test]
    async fn who_may_not_change_pools_changes_nothing() {
        let fleet_only = Actor { scopes: Scopes::only([Room::Fleet]), ..alice(Role::Admin) };
        let pools = service(MockPools::new());
        for actor in [alice(Role::Viewer), alice(Role::Approver), fleet_only.clone()] {
            let outcomes = [
                pools.pool_create(&actor, new_pool(), None).await.err(),
                pools.pool_update(&actor, ID, None, described("x")).await.err(),
                pools.pool_delete(&actor, ID, None).await.err(),
            ];
            for outcome in outcomes {
                assert!(matches!(outcome, Some(Error::Forbidden { .. })), "{outcome:?}");
            }
        }
        let listed = pools.pool_list(&fleet_only, PoolFilter::default(), PageRequest::default()).await;
        assert!(matches!(listed, Err(Error::Forbidden { .. })));
        assert!(matches!(pools.pool_get(&fleet_only, ID).await, Err(Error::Forbidden { .. })));
    }

    #[tokio::test]
    async fn a_new_pool_is_recorded_and_has_no_servers() {
        let mut mock = MockPools::new();
        mock.expect_create().times(1).returning(|pool, change| {
            assert_eq!((change.entry.action.as_str(), change.once), ("pool.create", Some(once())));
            Ok(Done { value: pool.into_pool(ID, change.entry.created_at), replayed: true })
        });
        let done = service(mock).pool_create(&alice(Role::Operator), new_pool(), Some(once())).await.unwrap();
        let expected = PoolSummary { capacity: Capacity::default(), ..summary(1) };
        assert_eq!(done, Done { value: expected, replayed: true });
    }

    #[tokio::test]
    async fn an_update_without_a_revision_starts_again_from_the_newest_state() {
        let mut mock = MockPools::new();
        let mut revision = 1;
        mock.expect_get().times(2).returning(move |_| {
            revision += 1;
            Ok(summary(revision))
        });
        let mut tries = 0;
        mock.expect_update().times(2).returning(move |pool, _| {
            tries += 1;
            if tries < 2 { Err(stale()) } else { Ok(Done { value: pool, replayed: false }) }
        });
        let after = service(mock).pool_update(&alice(Role::Operator), ID, None, described("x")).await.unwrap();
        assert_eq!((after.pool.revision, after.pool.description.as_deref()), (4, Some("x")));
        assert_eq!(after.capacity, summary(1).capacity);
    }

    #[tokio::test]
    async fn an_update_gives_up_when_others_are_always_faster() {
        let mut mock = MockPools::new();
        mock.expect_get().times(TRIES).returning(|_| Ok(summary(1)));
        mock.expect_update().times(TRIES).returning(|_, _| Err(stale()));
        let outcome = service(mock).pool_update(&alice(Role::Operator), ID, None, described("x")).await;
        assert!(matches!(outcome, Err(Error::Conflict { code: "busy", .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_change_at_a_revision_is_tried_once_and_only_there() {
        let mut mock = MockPools::new();
        mock.expect_get().times(3).returning(|_| Ok(summary(4)));
        mock.expect_update().times(1).returning(|_, _| Err(stale()));
        let (pools, actor) = (service(mock), alice(Role::Operator));
        let outcomes = [
            pools.pool_update(&actor, ID, Some(4), described("x")).await.err(),
            pools.pool_update(&actor, ID, Some(3), described("x")).await.err(),
            pools.pool_delete(&actor, ID, Some(5)).await.err(),
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Some(Error::Stale { .. })), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn changes_and_removals_are_recorded_with_what_was_there() {
        let mut mock = MockPools::new();
        mock.expect_get().returning(|_| Ok(summary(1)));
        mock.expect_update().times(1).returning(|pool, Change { entry, .. }| {
            assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("pool.update", Some("pool:3")));
            assert_eq!(entry.before, Some(serde_json::to_value(summary(1).pool).unwrap()));
            assert_eq!(entry.after, Some(serde_json::to_value(&pool).unwrap()));
            Ok(Done { value: pool, replayed: false })
        });
        mock.expect_delete().times(1).returning(|pool, Change { entry, .. }| {
            assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("pool.delete", Some("pool:3")));
            assert_eq!((entry.before, entry.after), (Some(serde_json::to_value(pool).unwrap()), None));
            Ok(Done { value: (), replayed: false })
        });
        let (pools, actor) = (service(mock), alice(Role::Operator));
        pools.pool_update(&actor, ID, Some(1), described("x")).await.unwrap();
        pools.pool_delete(&actor, ID, None).await.unwrap();
    }
}
