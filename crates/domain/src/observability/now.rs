//! What is known of every server now: what Prometheus is told.

use super::{
    health::FRESH,
    sample::Readings,
    scope::Scope,
    service::{SamplePorts, SampleService},
};
use crate::{
    Result,
    clock::Timestamp,
    fleet::RosterEntry,
    identity::{Actor, Operation},
    ids::{PoolId, ServerId},
    page::{MAX_LIMIT, PageRequest},
    pools::PoolFilter,
    text::Name,
};
use std::{collections::BTreeMap, sync::Arc};

/// The newest samples of so many servers are asked for at once.
const AT_ONCE: usize = 1000;

/// A server as it is now.
#[derive(Debug, Clone)]
pub struct ServerNow {
    /// The server.
    pub server: Arc<RosterEntry>,
    /// The name of its pool.
    pub pool: Option<Arc<Name>>,
    /// When it was measured last, however long ago.
    pub measured_at: Option<Timestamp>,
    /// What was measured then; nothing if that is longer ago than [`FRESH`], so that a server that is gone does not look as
    /// if it were there.
    pub readings: Readings,
}

impl SampleService {
    /// Every server as it is now, in the order of ids. Whoever may read the product's own metrics but not what was
    /// measured of servers is told of none.
    ///
    /// # Errors
    /// If the database does not tell.
    pub async fn metrics_get(&self, actor: &Actor) -> Result<Vec<ServerNow>> {
        actor.authorize(Operation::MetricsGet)?;
        if actor.authorize(Operation::SampleLatest).is_err() {
            return Ok(Vec::new());
        }
        let servers = Scope::default().find(&*self.ports.servers).await?;
        let pools = pool_names(&self.ports).await?;
        let oldest = self.now() - FRESH;
        let mut all = Vec::with_capacity(servers.len());
        for some in servers.chunks(AT_ONCE) {
            let ids: Vec<ServerId> = some.iter().map(|server| server.id).collect();
            let newest = self.ports.samples.newest(ids).await?;
            all.extend(some.iter().map(|server| {
                let sample = newest.get(&server.id);
                let fresh = sample.filter(|sample| sample.at >= oldest);
                ServerNow {
                    pool: server.pool_id.and_then(|pool| pools.get(&pool).cloned()),
                    server: server.clone(),
                    measured_at: sample.map(|sample| sample.at),
                    readings: fresh.map(|sample| sample.readings).unwrap_or_default(),
                }
            }));
        }
        Ok(all)
    }
}

async fn pool_names(ports: &SamplePorts) -> Result<BTreeMap<PoolId, Arc<Name>>> {
    let mut page = PageRequest { limit: MAX_LIMIT, after: None };
    let mut names = BTreeMap::new();
    loop {
        let some = ports.pools.list(PoolFilter::default(), page).await?;
        names.extend(some.items.into_iter().map(|summary| (summary.pool.id, Arc::new(summary.pool.name))));
        match some.next {
            Some(next) => page = PageRequest { limit: MAX_LIMIT, after: Some(next) },
            None => return Ok(names),
        }
    }
}
