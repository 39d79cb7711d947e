use crate::{
    Result,
    fleet::{ServerStatus, Servers},
    identity::{Actor, Operation},
    page::{MAX_LIMIT, PageRequest},
    pools::{PoolFilter, PoolState, Pools},
    scheduling::{TaskFilter, TaskStatus, Tasks},
};
use std::{collections::BTreeMap, sync::Arc};

use super::scope::Scope;

/// What a [`DashboardService`] needs.
pub struct DashboardPorts {
    /// The servers.
    pub servers: Arc<dyn Servers>,
    /// The pools.
    pub pools: Arc<dyn Pools>,
    /// The tasks.
    pub tasks: Arc<dyn Tasks>,
}

/// Counts what there is.
pub struct DashboardService {
    ports: DashboardPorts,
}

/// How much there is of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Servers by their status; those of which there is none are left out.
    pub servers: BTreeMap<ServerStatus, i64>,
    /// Pools.
    pub pools: i64,
    /// Pools that take no new work.
    pub saturated_pools: i64,
    /// Tasks by their status, in the order of [`TaskStatus::ALL`].
    pub tasks: Vec<(TaskStatus, i64)>,
}

impl DashboardService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: DashboardPorts) -> Self {
        Self { ports }
    }

    /// How much there is of everything.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] if the actor may not.
    pub async fn dashboard_summary(&self, actor: &Actor) -> Result<Counts> {
        actor.authorize(Operation::DashboardSummary)?;
        let mut counts = Counts::default();
        for server in Scope::default().find(&*self.ports.servers).await? {
            *counts.servers.entry(server.status).or_default() += 1;
        }
        (counts.pools, counts.saturated_pools) = self.pools().await?;
        for status in TaskStatus::ALL {
            let filter = TaskFilter { status: Some(*status), ..TaskFilter::default() };
            let found = self.ports.tasks.list(filter, PageRequest { limit: 1, after: None }).await?;
            counts.tasks.push((*status, found.total));
        }
        Ok(counts)
    }

    /// All of them, and those that are saturated.
    async fn pools(&self) -> Result<(i64, i64)> {
        let (mut page, mut saturated) = (PageRequest { limit: MAX_LIMIT, after: None }, 0);
        loop {
            let found = self.ports.pools.list(PoolFilter::default(), page).await?;
            saturated += found.items.iter().map(|pool| i64::from(pool.pool.state == PoolState::Saturated)).sum::<i64>();
            match found.next {
                Some(next) => page = PageRequest { limit: MAX_LIMIT, after: Some(next) },
                None => return Ok((found.total, saturated)),
            }
        }
    }
}
