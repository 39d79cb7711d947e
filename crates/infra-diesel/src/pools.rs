//! Pools: one row each; what their servers have and hold is summed up when it is asked for.

use crate::{
    connection::{AnyConnection, locked, update},
    database::Database,
    failure::{Failure, Kind},
    feed::Trace,
    paging::{self, newest_first},
    scheduling,
    schema::{pools, servers},
    values::{contains_pattern, from_json, from_us, to_json, to_us, word},
};
use async_trait::async_trait;
use diesel::{prelude::*, sql_types::BigInt};
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Recorded},
    feed::Fact,
    ids::PoolId,
    page::{Page, PageRequest},
    pools::{Capacity, NewPool, Pool, PoolFilter, PoolState, PoolStrategy, PoolSummary, PoolType, Pools, Quotas},
    text::Name,
    units::Resources,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

#[derive(Queryable)]
struct Row {
    id: i64,
    name: String,
    kind: String,
    quota_cpu_millis: Option<i64>,
    quota_memory_mib: Option<i64>,
    quota_storage_mib: Option<i64>,
    quota_gpus: Option<i64>,
    watermarks: String,
    strategy: String,
    labels: String,
    description: Option<String>,
    state: String,
    _search_text: String,
    revision: i64,
    created_at_us: i64,
    updated_at_us: i64,
    reserved_cpu_millis: i64,
    reserved_memory_mib: i64,
    reserved_storage_mib: i64,
    reserved_gpus: i64,
}

impl TryFrom<Row> for Pool {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        Ok(Self {
            id: PoolId(row.id),
            name: Name::trusted(row.name),
            kind: word(&row.kind, PoolType::parse)?,
            quotas: Quotas {
                cpu_millis: row.quota_cpu_millis,
                memory_mib: row.quota_memory_mib,
                storage_mib: row.quota_storage_mib,
                gpus: row.quota_gpus,
            },
            watermarks: from_json(&row.watermarks)?,
            strategy: word(&row.strategy, PoolStrategy::parse)?,
            labels: from_json(&row.labels)?,
            description: row.description,
            state: word(&row.state, PoolState::parse)?,
            revision: row.revision,
            created_at: from_us(row.created_at_us)?,
            updated_at: from_us(row.updated_at_us)?,
        })
    }
}

/// What an operator decides about a pool, as columns; inserted and updated alike.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = pools)]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
struct Columns {
    name: String,
    kind: &'static str,
    quota_cpu_millis: Option<i64>,
    quota_memory_mib: Option<i64>,
    quota_storage_mib: Option<i64>,
    quota_gpus: Option<i64>,
    watermarks: String,
    strategy: &'static str,
    labels: String,
    description: Option<String>,
    search_text: String,
    revision: i64,
    updated_at_us: i64,
}

impl TryFrom<&Pool> for Columns {
    type Error = Failure;

    fn try_from(pool: &Pool) -> Result<Self, Failure> {
        let description = pool.description.as_deref().unwrap_or_default();
        Ok(Self {
            name: pool.name.as_str().to_owned(),
            kind: pool.kind.as_str(),
            quota_cpu_millis: pool.quotas.cpu_millis,
            quota_memory_mib: pool.quotas.memory_mib,
            quota_storage_mib: pool.quotas.storage_mib,
            quota_gpus: pool.quotas.gpus,
            watermarks: to_json(&pool.watermarks)?,
            strategy: pool.strategy.as_str(),
            labels: to_json(&pool.labels)?,
            description: pool.description.clone(),
            search_text: format!("{}\n{description}", pool.name).to_lowercase(),
            revision: pool.revision,
            updated_at_us: to_us(pool.updated_at),
        })
    }
}

fn name_taken(pool: &Pool) -> impl FnOnce() -> Error {
    let name = pool.name.clone();
    move || Error::conflict("name_taken", format!("there is a pool named \"{name}\" already; choose another name"))
}

fn insert(connection: &mut AnyConnection, new: NewPool, at: domain::clock::Timestamp) -> Result<Pool, Failure> {
    let pool = new.into_pool(PoolId(0), at);
    let id: i64 = diesel::insert_into(pools::table)
        .values((Columns::try_from(&pool)?, pools::state.eq(pool.state.as_str()), pools::created_at_us.eq(to_us(at))))
        .returning(pools::id)
        .get_result(connection)
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(&pool)))?;
    Ok(Pool { id: PoolId(id), ..pool })
}

impl Row {
    fn with_reserved(self) -> Result<(Pool, Resources), Failure> {
        let reserved = Resources {
            cpu_millis: self.reserved_cpu_millis,
            memory_mib: self.reserved_memory_mib,
            storage_mib: self.reserved_storage_mib,
            gpus: self.reserved_gpus,
        };
        Ok((Pool::try_from(self)?, reserved))
    }
}

/// Every pool with what allocations hold on its servers, by id.
pub(crate) fn load_all(connection: &mut AnyConnection) -> Result<Vec<(Arc<Pool>, Resources)>, Failure> {
    let rows: Vec<Row> = pools::table.order(pools::id.asc()).load(connection)?;
    rows.into_iter().map(|row| row.with_reserved().map(|(pool, reserved)| (Arc::new(pool), reserved))).collect()
}

/// Those of these pools that there are, likewise; nobody else changes them until the transaction ends.
pub(crate) fn lock(connection: &mut AnyConnection, ids: BTreeSet<PoolId>) -> Result<Vec<(Pool, Resources)>, Failure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = ids.into_iter().map(|id| id.0).collect();
    let rows: Vec<Row> = locked!(connection, ids, pools::table, pools::id);
    rows.into_iter().map(Row::with_reserved).collect()
}

/// Whether there is such a pool.
pub(crate) fn is_there(connection: &mut AnyConnection, pool: PoolId) -> Result<bool, Failure> {
    Ok(diesel::select(diesel::dsl::exists(pools::table.find(pool.0))).get_result(connection)?)
}

/// Refuses a pool that there is not, as a value of `pool_id`.
pub(crate) fn check_there(connection: &mut AnyConnection, pool: PoolId) -> Result<(), Failure> {
    if is_there(connection, pool)? {
        return Ok(());
    }
    Err(Error::invalid("pool_id", format!("there is no pool {pool}; create it first, or leave pool_id out")).into())
}

fn load(connection: &mut AnyConnection, id: PoolId) -> Result<Pool, Failure> {
    let row: Option<Row> = pools::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found("pool", id)))?.try_into()
}

/// Refuses unless the row is at the revision that the change was computed from.
fn guard(connection: &mut AnyConnection, id: PoolId, revision: i64) -> Result<Pool, Failure> {
    let current = load(connection, id)?;
    if current.revision == revision {
        return Ok(current);
    }
    Err(Error::Stale { what: format!("pool {id}"), current: current.revision }.into())
}

fn update(connection: &mut AnyConnection, pool: &Pool) -> Result<Pool, Failure> {
    let current = guard(connection, pool.id, pool.revision - 1)?;
    let set = Columns::try_from(pool)?;
    update!(connection, diesel::update(pools::table.find(pool.id.0)).set(set))
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(pool)))?;
    Ok(Pool { state: current.state, ..pool.clone() })
}

fn delete(connection: &mut AnyConnection, pool: &Pool) -> Result<(), Failure> {
    guard(connection, pool.id, pool.revision)?;
    let names: Vec<String> = servers::table
        .filter(servers::pool_id.eq(pool.id.0))
        .order(servers::name.asc())
        .limit(4)
        .select(servers::name)
        .load(connection)?;
    if !names.is_empty() {
        let others = if names.len() > 3 { " and others" } else { "" };
        let shown = format!("{}{others}", names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", "));
        let reason = format!("pool \"{}\" still has servers ({shown}); move or delete them first", pool.name);
        return Err(Error::conflict("pool_not_empty", reason).into());
    }
    let live = scheduling::live_in_pool(connection, pool.id)?;
    if live > 0 {
        let reason = format!("pool \"{}\" is what {live} unfinished task(s) ask for; cancel them first", pool.name);
        return Err(Error::conflict("pool_in_use", reason).into());
    }
    diesel::delete(pools::table.find(pool.id.0)).execute(connection)?;
    Ok(())
}

/// Count and sums over the servers of each of these pools.
fn capacities(connection: &mut AnyConnection, ids: &[i64]) -> Result<HashMap<i64, Capacity>, Failure> {
    type Sums = (i64, i64, i64, i64, i64, i64, i64, i64);
    /// Sums come back as NUMERIC from `PostgreSQL`; both databases can cast them back to integers.
    macro_rules! sum {
        ($column:literal) => {
            diesel::dsl::sql::<BigInt>(concat!("CAST(COALESCE(SUM(", $column, "), 0) AS BIGINT)"))
        };
    }
    let rows: Vec<(Option<i64>, i64, Sums)> = servers::table
        .filter(servers::pool_id.eq_any(ids.to_vec()))
        .group_by(servers::pool_id)
        .select((
            servers::pool_id,
            diesel::dsl::count_star(),
            (
                sum!("cpu_millis"),
                sum!("memory_mib"),
                sum!("storage_mib"),
                sum!("gpus"),
                sum!("reserved_cpu_millis"),
                sum!("reserved_memory_mib"),
                sum!("reserved_storage_mib"),
                sum!("reserved_gpus"),
            ),
        ))
        .load(connection)?;
    let of = |cpu_millis, memory_mib, storage_mib, gpus| Resources { cpu_millis, memory_mib, storage_mib, gpus };
    let capacity = |(id, server_count, s): (Option<i64>, i64, Sums)| {
        Some((id?, Capacity { server_count, total: of(s.0, s.1, s.2, s.3), reserved: of(s.4, s.5, s.6, s.7) }))
    };
    Ok(rows.into_iter().filter_map(capacity).collect())
}

fn summaries(connection: &mut AnyConnection, pools: Vec<Pool>) -> Result<Vec<PoolSummary>, Failure> {
    let ids: Vec<i64> = pools.iter().map(|pool| pool.id.0).collect();
    let capacities = if ids.is_empty() { HashMap::new() } else { capacities(connection, &ids)? };
    let summary = |pool: Pool| PoolSummary { capacity: capacities.get(&pool.id.0).copied().unwrap_or_default(), pool };
    Ok(pools.into_iter().map(summary).collect())
}

macro_rules! matching {
    ($filter:expr) => {{
        let filter: &PoolFilter = $filter;
        let mut query = pools::table.into_boxed();
        if let Some(kind) = filter.kind {
            query = query.filter(pools::kind.eq(kind.as_str()));
        }
        if let Some(keyword) = &filter.keyword {
            query = query.filter(pools::search_text.like(contains_pattern(keyword)).escape('\\'));
        }
        query
    }};
}

fn list(connection: &mut AnyConnection, filter: &PoolFilter, page: &PageRequest) -> Result<Page<PoolSummary>, Failure> {
    let (rows, total): (Vec<Row>, _) = newest_first!(connection, page, pools::id, matching!(filter));
    let pools = rows.into_iter().map(Pool::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(paging::page(summaries(connection, pools)?, page, total, "-id", |summary| summary.pool.id.0))
}

/// What is recorded and told of a pool that is new or changed.
fn trace(entry: AuditEntry, pool: &Pool) -> Trace {
    Trace::from(entry).telling(Fact::Pool(Arc::new(pool.clone())))
}

/// The pools in the database.
pub struct DieselPools {
    database: Database,
}

impl DieselPools {
    /// The pools of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Pools for DieselPools {
    async fn create(&self, pool: NewPool, change: Change) -> Result<Done<Pool>> {
        self.database
            .write(change, move |connection, entry| {
                let pool = insert(connection, pool.clone(), entry.created_at)?;
                let trace = trace(entry.created(&pool), &pool);
                Ok((pool, trace))
            })
            .await
    }

    async fn list(&self, filter: PoolFilter, page: PageRequest) -> Result<Page<PoolSummary>> {
        self.database.read(move |connection| list(connection, &filter, &page)).await
    }

    async fn get(&self, id: PoolId) -> Result<PoolSummary> {
        self.database
            .read(move |connection| {
                let pool = load(connection, id)?;
                let found = summaries(connection, vec![pool])?.pop();
                found.ok_or_else(|| Error::not_found(Pool::KIND, id).into())
            })
            .await
    }

    async fn update(&self, pool: Pool, change: Change) -> Result<Done<Pool>> {
        self.database
            .write(change, move |connection, entry| {
                let pool = update(connection, &pool)?;
                let trace = trace(entry, &pool);
                Ok((pool, trace))
            })
            .await
    }

    async fn delete(&self, pool: Pool, change: Change) -> Result<Done<()>> {
        self.database
            .write(change, move |connection, entry| {
                delete(connection, &pool)?;
                Ok(((), Trace::from(entry).telling(Fact::PoolGone(pool.id))))
            })
            .await
    }
}
