//! What is reserved on servers and in pools: read under lock, and written back.

use crate::{
    connection::{AnyConnection, each},
    failure::Failure,
    schema::{pools, servers, tasks},
    values::{corrupt, from_json, word},
};
use diesel::prelude::*;
use domain::{
    fleet::{Architecture, ServerStatus},
    ids::{PoolId, ServerId, TaskId},
    pools::{PoolState, Quotas},
    scheduling::{
        TaskStatus,
        ledger::{Accounts, PoolAccount, ServerAccount},
    },
    units::Resources,
};
use std::collections::{BTreeMap, BTreeSet};

type Numbers = (i64, i64, i64, i64);
type ServerRow = (i64, Numbers, Numbers, (String, String), String, bool, Option<i64>);
type Limits = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);

fn resources((cpu_millis, memory_mib, storage_mib, gpus): Numbers) -> Resources {
    Resources { cpu_millis, memory_mib, storage_mib, gpus }
}

/// Locks everything that placing these tasks on these servers is about; rows in the order of their ids.
pub(super) fn lock(
    connection: &mut AnyConnection,
    placing: impl Iterator<Item = (TaskId, ServerId)>,
) -> Result<Accounts, Failure> {
    let (tasks, servers): (BTreeSet<TaskId>, BTreeSet<ServerId>) = placing.unzip();
    let pending = lock_pending(connection, tasks)?;
    let servers = lock_servers(connection, servers)?;
    let pools = lock_pools(connection, servers.values().filter_map(|server| server.pool_id).collect())?;
    Ok(Accounts { servers, pools, pending })
}

/// Reads rows that nobody else changes until the transaction ends. `SQLite` has locked the whole database already.
macro_rules! locked {
    ($connection:expr, $query:expr) => {
        match $connection {
            AnyConnection::Sqlite(c) => $query.load(c)?,
            AnyConnection::Postgresql(c) => $query.for_update().load(c)?,
        }
    };
}

fn lock_pending(connection: &mut AnyConnection, ids: BTreeSet<TaskId>) -> Result<BTreeMap<TaskId, i64>, Failure> {
    let ids: Vec<i64> = ids.into_iter().map(|id| id.0).collect();
    let query = tasks::table
        .filter(tasks::id.eq_any(ids).and(tasks::status.eq(TaskStatus::Pending.as_str())))
        .order(tasks::id.asc())
        .select((tasks::id, tasks::revision));
    let rows: Vec<(i64, i64)> = locked!(connection, query);
    Ok(rows.into_iter().map(|(id, revision)| (TaskId(id), revision)).collect())
}

pub(super) fn lock_servers(
    connection: &mut AnyConnection,
    ids: BTreeSet<ServerId>,
) -> Result<BTreeMap<ServerId, ServerAccount>, Failure> {
    let ids: Vec<i64> = ids.into_iter().map(|id| id.0).collect();
    let query = servers::table.filter(servers::id.eq_any(ids)).order(servers::id.asc()).select((
        servers::id,
        (servers::cpu_millis, servers::memory_mib, servers::storage_mib, servers::gpus),
        (
            servers::reserved_cpu_millis,
            servers::reserved_memory_mib,
            servers::reserved_storage_mib,
            servers::reserved_gpus,
        ),
        (servers::architecture, servers::emulated_architectures),
        servers::status,
        servers::cordoned,
        servers::pool_id,
    ));
    let rows: Vec<ServerRow> = locked!(connection, query);
    let account = |(id, capacity, reserved, (architecture, emulated), status, cordoned, pool): ServerRow| {
        let open = word(&status, ServerStatus::parse)? == ServerStatus::Online && !cordoned;
        let account = ServerAccount {
            architecture: Architecture::parse(&architecture).map_err(corrupt)?,
            emulated: from_json(&emulated)?,
            capacity: resources(capacity),
            reserved: resources(reserved),
            open,
            pool_id: Option::map(pool, PoolId),
        };
        Ok((ServerId(id), account))
    };
    rows.into_iter().map(account).collect()
}

pub(super) fn lock_pools(
    connection: &mut AnyConnection,
    ids: BTreeSet<PoolId>,
) -> Result<BTreeMap<PoolId, PoolAccount>, Failure> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<i64> = ids.into_iter().map(|id| id.0).collect();
    let query = pools::table.filter(pools::id.eq_any(ids)).order(pools::id.asc()).select((
        pools::id,
        (pools::quota_cpu_millis, pools::quota_memory_mib, pools::quota_storage_mib, pools::quota_gpus),
        (pools::reserved_cpu_millis, pools::reserved_memory_mib, pools::reserved_storage_mib, pools::reserved_gpus),
        pools::state,
    ));
    let rows: Vec<(i64, Limits, Numbers, String)> = locked!(connection, query);
    let account = |(id, quotas, reserved, state): (i64, Limits, Numbers, String)| {
        let (cpu_millis, memory_mib, storage_mib, gpus) = quotas;
        let account = PoolAccount {
            quotas: Quotas { cpu_millis, memory_mib, storage_mib, gpus },
            reserved: resources(reserved),
            open: word(&state, PoolState::parse)? == PoolState::Open,
        };
        Ok((PoolId(id), account))
    };
    rows.into_iter().map(account).collect()
}

/// Writes what is reserved on these servers and in these pools.
pub(super) fn write(
    connection: &mut AnyConnection,
    servers: &BTreeMap<ServerId, Resources>,
    pools: &BTreeMap<PoolId, Resources>,
) -> Result<(), Failure> {
    for (id, reserved) in servers {
        let set = (
            servers::reserved_cpu_millis.eq(reserved.cpu_millis),
            servers::reserved_memory_mib.eq(reserved.memory_mib),
            servers::reserved_storage_mib.eq(reserved.storage_mib),
            servers::reserved_gpus.eq(reserved.gpus),
        );
        each!(connection, c => diesel::update(servers::table.find(id.0)).set(set).execute(c))?;
    }
    for (id, reserved) in pools {
        let set = (
            pools::reserved_cpu_millis.eq(reserved.cpu_millis),
            pools::reserved_memory_mib.eq(reserved.memory_mib),
            pools::reserved_storage_mib.eq(reserved.storage_mib),
            pools::reserved_gpus.eq(reserved.gpus),
        );
        each!(connection, c => diesel::update(pools::table.find(id.0)).set(set).execute(c))?;
    }
    Ok(())
}
