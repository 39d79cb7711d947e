//! What attempts hold, and whether it may be taken: the last check before it is written.
//!
//! Placing plans on what is known in memory; here the same is checked again on what is locked in the database.

use super::{
    ports::{Placed, Placement},
    spec::{ArchitectureNeed, TaskSpec},
};
use crate::{
    fleet::Architecture,
    ids::{PoolId, ServerId, TaskId},
    pools::Quotas,
    units::Resources,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A server as it is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAccount {
    /// What its programs are compiled for.
    pub architecture: Architecture,
    /// What it can emulate.
    pub emulated: Vec<Architecture>,
    /// What it has.
    pub capacity: Resources,
    /// What attempts hold of it.
    pub reserved: Resources,
    /// Whether it takes new work.
    pub open: bool,
    /// Its pool.
    pub pool_id: Option<PoolId>,
}

/// A pool as it is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolAccount {
    /// The most that attempts may hold on its servers.
    pub quotas: Quotas,
    /// What they hold.
    pub reserved: Resources,
    /// Whether it takes new work.
    pub open: bool,
}

/// Everything that some placements are about, as it is locked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accounts {
    /// The servers.
    pub servers: BTreeMap<ServerId, ServerAccount>,
    /// Their pools.
    pub pools: BTreeMap<PoolId, PoolAccount>,
    /// The revisions of the tasks that are pending.
    pub pending: BTreeMap<TaskId, i64>,
}

impl ServerAccount {
    /// Whether a task may run there at all, whatever the room.
    fn runs(&self, task: &TaskSpec) -> bool {
        let compiled = match task.architecture {
            ArchitectureNeed::Universal => true,
            ArchitectureNeed::Only(need) => {
                need == self.architecture || (task.allow_emulation && self.emulated.contains(&need))
            }
        };
        self.open && compiled && task.pool_id.is_none_or(|pool| self.pool_id == Some(pool))
    }
}

impl Accounts {
    /// Takes the room for a placement if all is still as it was planned for, and nothing otherwise.
    pub fn take(&mut self, placement: &Placement) -> Placed {
        self.try_take(placement).map_or(Placed::Moved, |()| Placed::Held)
    }

    fn try_take(&mut self, placement: &Placement) -> Option<()> {
        let (task, demand) = (&placement.task, placement.attempt.demand);
        if *self.pending.get(&task.id)? != task.revision - 1 {
            return None;
        }
        let server = self.servers.get_mut(&placement.attempt.server_id).filter(|server| server.runs(&task.spec))?;
        let on_server = server.reserved.plus(demand);
        if !on_server.fits_in(server.capacity) {
            return None;
        }
        if let Some(pool) = server.pool_id {
            let pool = self.pools.get_mut(&pool).filter(|pool| pool.open)?;
            let in_pool = pool.reserved.plus(demand);
            if !pool.quotas.allow(in_pool) {
                return None;
            }
            pool.reserved = in_pool;
        }
        server.reserved = on_server;
        // It is not pending any more: a second placement of it is refused.
        self.pending.remove(&task.id);
        Some(())
    }
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
