//! What container engines have: one row for each container, as its agent last said, and one for each server with the time
//! of that. What was observed stands in one column, because only some of it is looked for.

use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::Failure,
    paging,
    schema::{container_reports, containers, servers},
    values::{contains_pattern, from_json, from_us, sought, to_json, to_us},
};
use async_trait::async_trait;
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};
use domain::{
    Error, Result,
    change::Recorded,
    clock::Timestamp,
    containers::{
        Container, ContainerFilter, ContainerUsage, Containers, EngineId, Observed, Usage,
        wire::{ContainerReport, MOST_ON_SERVER},
    },
    ids::{ContainerId, ServerId},
    page::{Page, PageRequest},
};
use std::collections::{BTreeMap, BTreeSet};

/// How many rows are named in one statement; `SQLite` takes 32,766 parameters.
const STEP: usize = 500;

#[derive(Queryable)]
struct Row {
    id: i64,
    server_id: i64,
    observed: String,
    usage: Option<String>,
}

type RowColumns = (containers::id, containers::server_id, containers::observed, containers::usage);
const ROW: RowColumns = (containers::id, containers::server_id, containers::observed, containers::usage);

impl Row {
    /// `None` if its server has gone since the row was read.
    fn read(self, reported: &BTreeMap<i64, i64>) -> Result<Option<Container>, Failure> {
        let Some(at) = reported.get(&self.server_id).copied() else { return Ok(None) };
        let observed: Observed = from_json(&self.observed)?;
        let usage: Option<Usage> =
            self.usage.filter(|_| observed.state.is_alive()).as_deref().map(from_json).transpose()?;
        // What was counted before it was started again is of another run.
        let usage = usage.filter(|usage| observed.started_at.is_none_or(|started| started <= usage.at));
        Ok(Some(Container {
            id: ContainerId(self.id),
            server_id: ServerId(self.server_id),
            observed,
            usage,
            reported_at: from_us(at)?,
        }))
    }
}

/// What is written of a container.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = containers)]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
struct Columns {
    state: &'static str,
    project: Option<String>,
    task_id: Option<i64>,
    search_text: String,
    observed: String,
}

impl TryFrom<&Observed> for Columns {
    type Error = Failure;

    fn try_from(observed: &Observed) -> Result<Self, Failure> {
        Ok(Self {
            state: observed.state.as_str(),
            project: observed.project().map(str::to_owned),
            task_id: observed.runs.map(|runs| runs.task_id.0),
            search_text: format!("{} {}", observed.name, observed.image).to_lowercase(),
            observed: to_json(observed)?,
        })
    }
}

/// What is known of containers of one server.
struct Known {
    /// Those that a report speaks of: their rows and what was observed, by the engine's ids.
    rows: BTreeMap<String, (i64, String)>,
    /// How many there are in all.
    count: usize,
}

impl Known {
    fn load(connection: &mut AnyConnection, server: ServerId, report: &ContainerReport) -> Result<Self, Failure> {
        let of_server = containers::server_id.eq(server.0);
        let columns = (containers::id, containers::engine_id, containers::observed);
        let mut found: Vec<(i64, String, String)> = Vec::new();
        if report.present.is_some() {
            found = containers::table.filter(of_server).select(columns).load(connection)?;
        } else {
            let told = report.containers.iter().map(|told| &told.engine_id).chain(&report.gone);
            let ids: Vec<&str> = told.map(EngineId::as_str).collect();
            for some in ids.chunks(STEP) {
                let named = containers::engine_id.eq_any(some.to_vec());
                let rows: Vec<_> = containers::table.filter(of_server.and(named)).select(columns).load(connection)?;
                found.extend(rows);
            }
        }
        let count: i64 = containers::table.filter(of_server).count().get_result(connection)?;
        let rows = found.into_iter().map(|(id, engine_id, observed)| (engine_id, (id, observed))).collect();
        Ok(Self { rows, count: usize::try_from(count).unwrap_or(usize::MAX) })
    }

    /// The rows of what is gone: what is named so, and what is not among those that are there.
    fn gone(&self, gone: &[EngineId], present: Option<&[EngineId]>) -> Vec<i64> {
        let gone: BTreeSet<&str> = gone.iter().map(EngineId::as_str).collect();
        let present = present.map(|ids| ids.iter().map(EngineId::as_str).collect::<BTreeSet<_>>());
        let is_gone = |id: &str| gone.contains(id) || present.as_ref().is_some_and(|ids| !ids.contains(id));
        self.rows.iter().filter(|(id, _)| is_gone(id)).map(|(_, (row, _))| *row).collect()
    }
}

fn report(
    connection: &mut AnyConnection,
    server: ServerId,
    report: &ContainerReport,
    at: Timestamp,
) -> Result<(), Failure> {
    let found: Option<i64> = servers::table.find(server.0).select(servers::id).first(connection).optional()?;
    found.ok_or_else(|| Failure::from(Error::not_found("server", server)))?;
    // A report that only counts names nothing that could be new or gone.
    if !(report.containers.is_empty() && report.gone.is_empty() && report.present.is_none()) {
        let mut known = Known::load(connection, server, report)?;
        let gone = known.gone(&report.gone, report.present.as_deref());
        for some in gone.chunks(STEP) {
            diesel::delete(containers::table.filter(containers::id.eq_any(some.to_vec()))).execute(connection)?;
        }
        known.count = known.count.saturating_sub(gone.len());
        for observed in &report.containers {
            put(connection, server, observed, &mut known)?;
        }
    }
    if let Some(usage) = &report.usage {
        count(connection, server, usage)?;
    }
    confirm(connection, server, report, to_us(at))
}

fn put(
    connection: &mut AnyConnection,
    server: ServerId,
    observed: &Observed,
    known: &mut Known,
) -> Result<(), Failure> {
    let columns = Columns::try_from(observed)?;
    match known.rows.get(observed.engine_id.as_str()) {
        Some((_, before)) if *before == columns.observed => {}
        Some((id, _)) => {
            update!(connection, diesel::update(containers::table.find(id)).set(&columns))?;
        }
        // More than that nobody is told of, whatever its agent says.
        None if known.count >= MOST_ON_SERVER => {}
        None => {
            known.count += 1;
            let key = (containers::server_id.eq(server.0), containers::engine_id.eq(observed.engine_id.as_str()));
            diesel::insert_into(containers::table).values((key, columns)).execute(connection)?;
        }
    }
    Ok(())
}

/// However many containers there are, what they use is one round trip.
const COUNT_POSTGRES: &str = "
    UPDATE containers SET usage = counted.value ->> 'usage'
    FROM json_array_elements($1::json) AS counted (value)
    WHERE containers.server_id = $2 AND containers.engine_id = (counted.value ->> 'engine_id') COLLATE \"C\"";

fn count(connection: &mut AnyConnection, server: ServerId, usage: &[ContainerUsage]) -> Result<(), Failure> {
    match connection {
        AnyConnection::Postgresql(c) => {
            let values = to_json(&usage)?;
            sql_query(COUNT_POSTGRES).bind::<Text, _>(values).bind::<BigInt, _>(server.0).execute(c)?;
        }
        AnyConnection::Sqlite(c) => {
            for one in usage {
                let id = containers::engine_id.eq(one.engine_id.as_str());
                let row = containers::table.filter(containers::server_id.eq(server.0).and(id));
                diesel::update(row).set(containers::usage.eq(to_json(&one.usage)?)).execute(c)?;
            }
        }
    }
    Ok(())
}

/// Notes that all that is known of a server is so, if its agent has told all in this session. What it has not come to yet
/// may be gone since its last one.
fn confirm(
    connection: &mut AnyConnection,
    server: ServerId,
    report: &ContainerReport,
    at_us: i64,
) -> Result<(), Failure> {
    let row = container_reports::table.find(server.0);
    let before: Option<String> = row.select(container_reports::session).first(connection).optional()?;
    let told_all = report.present.is_some();
    match before {
        None => {
            // The first part of the first report: what it names is so.
            let session = if told_all { report.session.as_str() } else { "" };
            let values = (
                container_reports::server_id.eq(server.0),
                container_reports::reported_at_us.eq(at_us),
                container_reports::session.eq(session),
            );
            diesel::insert_into(container_reports::table).values(values).execute(connection)?;
        }
        Some(session) if told_all || session == report.session => {
            let set =
                (container_reports::reported_at_us.eq(at_us), container_reports::session.eq(report.session.as_str()));
            update!(connection, diesel::update(row).set(set))?;
        }
        Some(_) => {}
    }
    Ok(())
}

fn reported(connection: &mut AnyConnection, rows: &[Row]) -> Result<BTreeMap<i64, i64>, Failure> {
    let of: BTreeSet<i64> = rows.iter().map(|row| row.server_id).collect();
    let of: Vec<i64> = of.into_iter().collect();
    let found: Vec<(i64, i64)> = container_reports::table
        .filter(container_reports::server_id.eq_any(of))
        .select((container_reports::server_id, container_reports::reported_at_us))
        .load(connection)?;
    Ok(found.into_iter().collect())
}

fn load(connection: &mut AnyConnection, id: ContainerId) -> Result<Container, Failure> {
    let gone = || Failure::from(Error::not_found(Container::KIND, id));
    let row: Option<Row> = containers::table.find(id.0).select(ROW).first(connection).optional()?;
    let row = row.ok_or_else(gone)?;
    let reported = reported(connection, std::slice::from_ref(&row))?;
    row.read(&reported)?.ok_or_else(gone)
}

fn list(
    connection: &mut AnyConnection,
    filter: &ContainerFilter,
    page: &PageRequest,
) -> Result<Page<Container>, Failure> {
    macro_rules! matching {
        () => {{
            let mut query = containers::table.into_boxed();
            if !filter.servers.is_empty() {
                let of: Vec<i64> = filter.servers.iter().map(|server| server.0).collect();
                query = query.filter(containers::server_id.eq_any(of));
            }
            if let Some(state) = filter.state {
                query = query.filter(containers::state.eq(state.as_str()));
            }
            if let Some(project) = &filter.project {
                query = query.filter(containers::project.eq(sought(project)));
            }
            if let Some(task) = filter.task_id {
                query = query.filter(containers::task_id.eq(task.0));
            }
            match filter.managed {
                Some(true) => query = query.filter(containers::task_id.is_not_null()),
                Some(false) => query = query.filter(containers::task_id.is_null()),
                None => {}
            }
            if let Some(keyword) = &filter.keyword {
                query = query.filter(containers::search_text.like(contains_pattern(keyword)).escape('\\'));
            }
            query
        }};
    }
    let total: i64 = matching!().count().get_result(connection)?;
    let mut query = matching!().select(ROW);
    if let Some(after) = &page.after {
        query = query.filter(containers::id.lt(after.id));
    }
    let rows: Vec<Row> = query.order(containers::id.desc()).limit(i64::from(page.limit) + 1).load(connection)?;
    let reported = reported(connection, &rows)?;
    let found = rows.into_iter().filter_map(|row| row.read(&reported).transpose()).collect::<Result<Vec<_>, _>>()?;
    Ok(paging::page(found, page, total, "-id", |container| container.id.0))
}

/// What container engines have, in the database.
pub struct DieselContainers {
    database: Database,
}

impl DieselContainers {
    /// The containers of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Containers for DieselContainers {
    async fn report(&self, server: ServerId, told: ContainerReport, at: Timestamp) -> Result<()> {
        self.database.write_silently(move |connection| report(connection, server, &told, at)).await
    }

    async fn list(&self, filter: ContainerFilter, page: PageRequest) -> Result<Page<Container>> {
        self.database.read(move |connection| list(connection, &filter, &page)).await
    }

    async fn get(&self, id: ContainerId) -> Result<Container> {
        self.database.read(move |connection| load(connection, id)).await
    }
}
