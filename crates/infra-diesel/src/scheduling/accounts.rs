//! What is reserved on servers and in pools: read under lock, and written back.

use crate::{
    connection::{AnyConnection, locked, update},
    failure::Failure,
    fleet, pools as pool_rows,
    schema::{pools, servers, tasks},
};
use diesel::prelude::*;
use domain::{
    ids::{ServerId, TaskId},
    scheduling::{
        TaskStatus,
        ledger::{Accounts, Reserved},
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// Locks everything that placing these tasks on these servers is about; rows in the order of their ids.
pub(super) fn lock(
    connection: &mut AnyConnection,
    placing: impl Iterator<Item = (TaskId, ServerId)>,
) -> Result<Accounts, Failure> {
    let (tasks, servers): (BTreeSet<TaskId>, BTreeSet<ServerId>) = placing.unzip();
    let pending = lock_pending(connection, tasks)?;
    let servers = fleet::lock(connection, servers)?;
    let pools = pool_rows::lock(connection, servers.iter().filter_map(|server| server.pool_id).collect())?;
    Ok(Accounts::new(&servers, &pools, pending))
}

fn lock_pending(connection: &mut AnyConnection, ids: BTreeSet<TaskId>) -> Result<BTreeMap<TaskId, i64>, Failure> {
    let ids: Vec<i64> = ids.into_iter().map(|id| id.0).collect();
    let pending = tasks::table.filter(tasks::status.eq(TaskStatus::Pending.as_str()));
    let rows: Vec<(i64, i64)> = locked!(connection, ids, pending.select((tasks::id, tasks::revision)), tasks::id);
    Ok(rows.into_iter().map(|(id, revision)| (TaskId(id), revision)).collect())
}

/// Writes what is reserved on these servers and in these pools.
pub(super) fn write(connection: &mut AnyConnection, reserved: &Reserved) -> Result<(), Failure> {
    for (id, reserved) in &reserved.servers {
        let set = (
            servers::reserved_cpu_millis.eq(reserved.cpu_millis),
            servers::reserved_memory_mib.eq(reserved.memory_mib),
            servers::reserved_storage_mib.eq(reserved.storage_mib),
            servers::reserved_gpus.eq(reserved.gpus),
        );
        update!(connection, diesel::update(servers::table.find(id.0)).set(set))?;
    }
    for (id, reserved) in &reserved.pools {
        let set = (
            pools::reserved_cpu_millis.eq(reserved.cpu_millis),
            pools::reserved_memory_mib.eq(reserved.memory_mib),
            pools::reserved_storage_mib.eq(reserved.storage_mib),
            pools::reserved_gpus.eq(reserved.gpus),
        );
        update!(connection, diesel::update(pools::table.find(id.0)).set(set))?;
    }
    Ok(())
}
