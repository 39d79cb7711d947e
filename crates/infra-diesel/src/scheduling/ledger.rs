//! Compares what servers and pools say is reserved with what attempts hold.

use super::{accounts, place};
use crate::{connection::AnyConnection, failure::Failure, feed::Trace, schema::servers, values::to_json};
use diesel::{prelude::*, sql_types::BigInt};
use domain::{
    audit::AuditEntry,
    ids::{PoolId, ServerId},
    scheduling::ledger::{Discrepancy, Reserved},
    units::Resources,
};
use std::collections::BTreeMap;

#[derive(QueryableByName)]
struct Sums {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    cpu_millis: i64,
    #[diesel(sql_type = BigInt)]
    memory_mib: i64,
    #[diesel(sql_type = BigInt)]
    storage_mib: i64,
    #[diesel(sql_type = BigInt)]
    gpus: i64,
}

impl Sums {
    fn resources(&self) -> Resources {
        Resources {
            cpu_millis: self.cpu_millis,
            memory_mib: self.memory_mib,
            storage_mib: self.storage_mib,
            gpus: self.gpus,
        }
    }
}

/// Sums come back as NUMERIC from `PostgreSQL`; both databases can cast them back to integers.
const HELD: &str = "
    SELECT server_id AS id, CAST(SUM(cpu_millis) AS BIGINT) AS cpu_millis, CAST(SUM(memory_mib) AS BIGINT) AS memory_mib,
        CAST(SUM(storage_mib) AS BIGINT) AS storage_mib, CAST(SUM(gpus) AS BIGINT) AS gpus
    FROM attempts WHERE held GROUP BY server_id";
const SERVERS: &str = "
    SELECT id, reserved_cpu_millis AS cpu_millis, reserved_memory_mib AS memory_mib,
        reserved_storage_mib AS storage_mib, reserved_gpus AS gpus FROM servers ORDER BY id";
const POOLS: &str = "
    SELECT id, reserved_cpu_millis AS cpu_millis, reserved_memory_mib AS memory_mib,
        reserved_storage_mib AS storage_mib, reserved_gpus AS gpus FROM pools ORDER BY id";

fn sums(connection: &mut AnyConnection, query: &str) -> Result<BTreeMap<i64, Resources>, Failure> {
    let rows: Vec<Sums> = diesel::sql_query(query).load(connection)?;
    Ok(rows.iter().map(|row| (row.id, row.resources())).collect())
}

/// What differs, with what it should be.
#[derive(Default)]
struct Differences {
    servers: BTreeMap<ServerId, (Resources, Resources)>,
    pools: BTreeMap<PoolId, (Resources, Resources)>,
}

impl Differences {
    fn find(connection: &mut AnyConnection) -> Result<Self, Failure> {
        let held = sums(connection, HELD)?;
        let of_pools: Vec<(i64, Option<i64>)> =
            servers::table.select((servers::id, servers::pool_id)).load(connection)?;
        let mut in_pools: BTreeMap<i64, Resources> = BTreeMap::new();
        for (server, pool) in of_pools {
            if let (Some(pool), Some(held)) = (pool, held.get(&server)) {
                let sum = in_pools.entry(pool).or_default();
                *sum = sum.plus(*held);
            }
        }
        let differing = |said: BTreeMap<i64, Resources>, held: &BTreeMap<i64, Resources>| {
            let pairs = said.into_iter().map(|(id, said)| (id, (said, held.get(&id).copied().unwrap_or_default())));
            pairs.filter(|(_, (said, held))| said != held).collect::<Vec<_>>()
        };
        let servers = differing(sums(connection, SERVERS)?, &held);
        let pools = differing(sums(connection, POOLS)?, &in_pools);
        Ok(Self {
            servers: servers.into_iter().map(|(id, pair)| (ServerId(id), pair)).collect(),
            pools: pools.into_iter().map(|(id, pair)| (PoolId(id), pair)).collect(),
        })
    }

    fn discrepancies(&self) -> Vec<Discrepancy> {
        let servers = self.servers.iter().map(|(id, pair)| (format!("server:{id}"), pair));
        let pools = self.pools.iter().map(|(id, pair)| (format!("pool:{id}"), pair));
        servers
            .chain(pools)
            .map(|(target, (reserved, held))| Discrepancy { target, reserved: *reserved, held: *held })
            .collect()
    }
}

pub(super) fn check(connection: &mut AnyConnection) -> Result<Vec<Discrepancy>, Failure> {
    Ok(Differences::find(connection)?.discrepancies())
}

/// Sets counters to what attempts hold, and records what they were.
pub(super) fn mend(connection: &mut AnyConnection, entry: AuditEntry) -> Result<(Vec<Discrepancy>, Trace), Failure> {
    let found = Differences::find(connection)?;
    let discrepancies = found.discrepancies();
    if discrepancies.is_empty() {
        return Ok((discrepancies, Trace::default()));
    }
    let reserved = Reserved {
        servers: found.servers.into_iter().map(|(id, (_, held))| (id, held)).collect(),
        pools: found.pools.into_iter().map(|(id, (_, held))| (id, held)).collect(),
    };
    accounts::write(connection, &reserved)?;
    let mut trace = Trace::from(entry.because(to_json(&discrepancies)?));
    place::tell(&mut trace, reserved);
    Ok((discrepancies, trace))
}
