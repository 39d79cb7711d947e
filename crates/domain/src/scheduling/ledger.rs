//! What attempts hold, and whether it may be taken: the last check before it is written.
//!
//! Placing plans on what is known in memory; here the same rules judge again what is locked in the database.

use super::{
    placement::fits,
    ports::{Placed, Placement},
    snapshot::FleetSnapshot,
};
use crate::{
    fleet::Server,
    ids::{PoolId, ServerId, TaskId},
    pools::Pool,
    units::Resources,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that some placements are about, as it is locked, and what they take of it.
#[derive(Debug)]
pub struct Accounts {
    fleet: FleetSnapshot,
    /// What was reserved on each server before anything was taken.
    servers: BTreeMap<ServerId, Resources>,
    pools: BTreeMap<PoolId, Resources>,
    /// The revisions of the tasks that are pending.
    pending: BTreeMap<TaskId, i64>,
    taken: Reserved,
}

/// What is reserved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    /// On servers.
    pub servers: BTreeMap<ServerId, Resources>,
    /// On the servers of pools.
    pub pools: BTreeMap<PoolId, Resources>,
}

impl Accounts {
    /// Accounts over these servers, their pools with what is reserved there, and the revisions of pending tasks.
    #[must_use]
    pub fn new(servers: &[Server], pools: &[(Pool, Resources)], pending: BTreeMap<TaskId, i64>) -> Self {
        let mut fleet = FleetSnapshot::default();
        for (pool, reserved) in pools {
            fleet.upsert_pool(pool, *reserved);
        }
        for server in servers {
            fleet.upsert_server(server);
        }
        Self {
            fleet,
            servers: servers.iter().map(|server| (server.id, server.reserved)).collect(),
            pools: pools.iter().map(|(pool, reserved)| (pool.id, *reserved)).collect(),
            pending,
            taken: Reserved::default(),
        }
    }

    /// Takes the room for a placement if the task is still pending as it was planned for and no rule refuses, and
    /// nothing otherwise.
    pub fn take(&mut self, placement: &Placement) -> Placed {
        let (task, attempt) = (&placement.task, &placement.attempt);
        let as_planned = self.pending.get(&task.id) == Some(&(task.revision - 1));
        if !as_planned || !fits(&self.fleet, attempt.server_id, task) {
            return Placed::Moved;
        }
        // It is not pending any more: a second placement of it is refused.
        self.pending.remove(&task.id);
        self.fleet.claim(attempt.server_id, attempt.demand);
        take(&mut self.taken.servers, &self.servers, attempt.server_id, attempt.demand);
        if let Some(pool) = self.fleet.pool_of(attempt.server_id) {
            take(&mut self.taken.pools, &self.pools, pool, attempt.demand);
        }
        Placed::Held
    }

    /// What is reserved now where something was taken.
    #[must_use]
    pub fn reserved(self) -> Reserved {
        self.taken
    }
}

fn take<K: Ord + Copy>(taken: &mut BTreeMap<K, Resources>, before: &BTreeMap<K, Resources>, id: K, demand: Resources) {
    let reserved = taken.entry(id).or_insert_with(|| before.get(&id).copied().unwrap_or_default());
    *reserved = reserved.plus(demand);
}

/// What is reserved differs from what attempts hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discrepancy {
    /// The server or pool, such as `server:7`.
    pub target: String,
    /// What it says is reserved.
    pub reserved: Resources,
    /// What attempts hold.
    pub held: Resources,
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
