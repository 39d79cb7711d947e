//! Maintenance windows: one row each, with the time at which it is to begin or to end, by which those that are due are
//! found.
//!
//! What windows do to their server stands in the server's row, written in the same transaction.

use super::{find as find_server, load as load_server};
use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::Failure,
    feed::Trace,
    paging::{self, newest_first},
    schema::{maintenance_windows as windows, servers},
    values::{corrupt, from_us, to_us, word},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done},
    clock::Timestamp,
    feed::Fact,
    fleet::{
        MaintenanceWindows, NewWindow, Reach, Round, Server, ServerStatus, Ward, Window, WindowFilter, WindowStatus,
    },
    ids::{ServerId, WindowId},
    page::{Page, PageRequest},
    text::Name,
};
use std::sync::Arc;

/// Servers whose windows are looked for by one query.
const STEP: usize = 500;
/// Microseconds in a minute.
const MINUTE_US: i64 = 60_000_000;

#[derive(Queryable)]
struct Row {
    id: i64,
    server_id: i64,
    title: String,
    description: Option<String>,
    scheduled_for_us: i64,
    duration_minutes: i64,
    status: String,
    started_at_us: Option<i64>,
    ended_at_us: Option<i64>,
    back_to: Option<String>,
    _due_at_us: Option<i64>,
    revision: i64,
    created_by: String,
    created_at_us: i64,
    updated_at_us: i64,
}

impl TryFrom<Row> for Window {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        Ok(Self {
            id: WindowId(row.id),
            server_id: ServerId(row.server_id),
            title: Name::trusted(row.title),
            description: row.description,
            scheduled_for: from_us(row.scheduled_for_us)?,
            duration_minutes: u32::try_from(row.duration_minutes).map_err(|error| corrupt(error.to_string()))?,
            status: word(&row.status, WindowStatus::parse)?,
            started_at: row.started_at_us.map(from_us).transpose()?,
            ended_at: row.ended_at_us.map(from_us).transpose()?,
            back_to: row.back_to.map(|text| word(&text, ServerStatus::parse)).transpose()?,
            revision: row.revision,
            created_by: row.created_by,
            created_at: from_us(row.created_at_us)?,
            updated_at: from_us(row.updated_at_us)?,
        })
    }
}

/// What changes of a window, as columns; inserted and updated alike.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = windows)]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
struct Columns {
    title: String,
    description: Option<String>,
    scheduled_for_us: i64,
    duration_minutes: i64,
    status: &'static str,
    started_at_us: Option<i64>,
    ended_at_us: Option<i64>,
    back_to: Option<String>,
    due_at_us: Option<i64>,
    revision: i64,
    updated_at_us: i64,
}

impl From<&Window> for Columns {
    fn from(window: &Window) -> Self {
        Self {
            title: window.title.as_str().to_owned(),
            description: window.description.clone(),
            scheduled_for_us: to_us(window.scheduled_for),
            duration_minutes: window.duration_minutes.into(),
            status: window.status.as_str(),
            started_at_us: window.started_at.map(to_us),
            ended_at_us: window.ended_at.map(to_us),
            back_to: window.back_to.map(|status| status.as_str().to_owned()),
            due_at_us: window.due_at().map(to_us),
            revision: window.revision,
            updated_at_us: to_us(window.updated_at),
        }
    }
}

fn insert(connection: &mut AnyConnection, window: Window) -> Result<Window, Failure> {
    let id: i64 = diesel::insert_into(windows::table)
        .values((
            Columns::from(&window),
            windows::server_id.eq(window.server_id.0),
            windows::created_by.eq(&window.created_by),
            windows::created_at_us.eq(to_us(window.created_at)),
        ))
        .returning(windows::id)
        .get_result(connection)?;
    Ok(Window { id: WindowId(id), ..window })
}

fn load(connection: &mut AnyConnection, id: WindowId) -> Result<Window, Failure> {
    let row: Option<Row> = windows::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found("maintenance window", id)))?.try_into()
}

/// Refuses unless the row is at the revision that the change was computed from.
fn guard(connection: &mut AnyConnection, id: WindowId, revision: i64) -> Result<(), Failure> {
    let current = load(connection, id)?.revision;
    if current == revision {
        return Ok(());
    }
    Err(Error::Stale { what: format!("maintenance window {id}"), current }.into())
}

fn converted(rows: Vec<Row>) -> Result<Vec<Window>, Failure> {
    rows.into_iter().map(Window::try_from).collect()
}

/// The windows of a server that are still to come or in progress, by id.
fn open_on(connection: &mut AnyConnection, server: ServerId) -> Result<Vec<Window>, Failure> {
    let open = windows::table.filter(windows::server_id.eq(server.0)).filter(windows::due_at_us.is_not_null());
    converted(open.order(windows::id.asc()).load(connection)?)
}

/// Of the windows of a server that are in progress, the one that ends last.
fn in_progress_on(connection: &mut AnyConnection, server: ServerId) -> Result<Option<Window>, Failure> {
    let open = open_on(connection, server)?;
    Ok(open.into_iter().filter(Window::is_in_progress).max_by_key(Window::ends_at))
}

/// Refuses another status of a server while a window of it is in progress.
pub(super) fn check_status(
    connection: &mut AnyConnection,
    before: &Server,
    status: ServerStatus,
) -> Result<(), Failure> {
    if before.status == status {
        return Ok(());
    }
    match in_progress_on(connection, before.id)? {
        Some(window) => Err(window.holds(before).into()),
        None => Ok(()),
    }
}

/// Removes the windows of a server that is about to be removed.
pub(super) fn delete_of(connection: &mut AnyConnection, server: ServerId) -> Result<(), Failure> {
    diesel::delete(windows::table.filter(windows::server_id.eq(server.0))).execute(connection)?;
    Ok(())
}

/// Writes what was decided; what is recorded and told of it.
fn write(connection: &mut AnyConnection, round: Round) -> Result<Trace, Failure> {
    for window in &round.windows {
        update!(connection, diesel::update(windows::table.find(window.id.0)).set(Columns::from(window)))?;
    }
    let mut trace = Trace { entries: round.entries, ..Trace::default() };
    if let Some(server) = round.server {
        let set = (
            servers::status.eq(server.status.as_str()),
            servers::revision.eq(server.revision),
            servers::updated_at_us.eq(to_us(server.updated_at)),
        );
        update!(connection, diesel::update(servers::table.find(server.id.0)).set(set))?;
        trace = trace.telling(Fact::Server(Arc::new(server)));
    }
    Ok(trace)
}

/// The window in its newest state, which the round may have changed once more.
fn newest(round: &Round, window: Window) -> Window {
    round.windows.iter().find(|changed| changed.id == window.id).cloned().unwrap_or(window)
}

fn create(
    connection: &mut AnyConnection,
    server: ServerId,
    new: NewWindow,
    entry: AuditEntry,
) -> Result<(Window, Trace), Failure> {
    let server = load_server(connection, server)?;
    new.check(entry.created_at)?;
    let open = open_on(connection, server.id)?;
    let new = new.into_window(WindowId(0), server.id, entry.actor.clone(), entry.created_at);
    let window = insert(connection, new)?;
    let entry = entry.created(&window);
    // A new window lets no server go, so it does not matter whether an agent is there.
    let round = Ward { server, reach: Reach::NoAgent, open }.changed(window.clone(), &entry);
    Ok((newest(&round, window), write(connection, round)?))
}

fn change(
    connection: &mut AnyConnection,
    window: &Window,
    reach: Reach,
    entry: &AuditEntry,
) -> Result<(Window, Trace), Failure> {
    guard(connection, window.id, window.revision - 1)?;
    let server = load_server(connection, window.server_id)?;
    let open = open_on(connection, server.id)?;
    let round = Ward { server, reach, open }.changed(window.clone(), entry);
    Ok((newest(&round, window.clone()), write(connection, round)?))
}

fn turn(
    connection: &mut AnyConnection,
    server: ServerId,
    reach: Reach,
    by: &AuditEntry,
) -> Result<(Option<Server>, Trace), Failure> {
    let Some(server) = find_server(connection, server)? else { return Ok((None, Trace::default())) };
    let open = open_on(connection, server.id)?;
    let round = Ward { server, reach, open }.turned(by);
    Ok((round.server.clone(), write(connection, round)?))
}

fn list(connection: &mut AnyConnection, filter: &WindowFilter, page: &PageRequest) -> Result<Page<Window>, Failure> {
    macro_rules! matching {
        () => {{
            let mut query = windows::table.into_boxed();
            if !filter.servers.is_empty() {
                let servers: Vec<i64> = filter.servers.iter().map(|server| server.0).collect();
                query = query.filter(windows::server_id.eq_any(servers));
            }
            if let Some(status) = filter.status {
                query = query.filter(windows::status.eq(status.as_str()));
            }
            if filter.upcoming_only {
                query = query.filter(windows::due_at_us.is_not_null());
            }
            query
        }};
    }
    let (rows, total): (Vec<Row>, _) = newest_first!(connection, page, windows::id, matching!());
    Ok(paging::page(converted(rows)?, page, total, "-id", |window| window.id.0))
}

fn due(connection: &mut AnyConnection, now: Timestamp) -> Result<Vec<ServerId>, Failure> {
    let due = windows::table.filter(windows::due_at_us.le(to_us(now)));
    let ids: Vec<i64> = due.select(windows::server_id).distinct().order(windows::server_id.asc()).load(connection)?;
    Ok(ids.into_iter().map(ServerId).collect())
}

/// Looks by the times that were planned, which no window leaves; the domain says which of them it really takes.
fn overlapping(
    connection: &mut AnyConnection,
    servers: &[ServerId],
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<Window>, Failure> {
    let mut found = Vec::new();
    for some in servers.chunks(STEP) {
        let ids: Vec<i64> = some.iter().map(|server| server.0).collect();
        let planned = windows::table
            .filter(windows::server_id.eq_any(ids))
            .filter(windows::scheduled_for_us.lt(to_us(until)))
            .filter((windows::scheduled_for_us + windows::duration_minutes * MINUTE_US).gt(to_us(from)));
        found.extend(converted(planned.load(connection)?)?);
    }
    found.retain(|window| window.span().is_some_and(|span| span.overlaps(from, until)));
    found.sort_by_key(|window| (window.server_id, window.scheduled_for, window.id));
    Ok(found)
}

/// The maintenance windows in the database.
pub struct DieselMaintenanceWindows {
    database: Database,
}

impl DieselMaintenanceWindows {
    /// The windows of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl MaintenanceWindows for DieselMaintenanceWindows {
    async fn create(&self, server: ServerId, window: NewWindow, change: Change) -> Result<Done<Window>> {
        self.database.write(change, move |connection, entry| create(connection, server, window.clone(), entry)).await
    }

    async fn list(&self, filter: WindowFilter, page: PageRequest) -> Result<Page<Window>> {
        self.database.read(move |connection| list(connection, &filter, &page)).await
    }

    async fn get(&self, id: WindowId) -> Result<Window> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn update(&self, window: Window, reach: Reach, change: Change) -> Result<Done<Window>> {
        let work = move |connection: &mut AnyConnection, entry| self::change(connection, &window, reach, &entry);
        self.database.write(change, work).await
    }

    async fn due(&self, now: Timestamp) -> Result<Vec<ServerId>> {
        self.database.read(move |connection| due(connection, now)).await
    }

    async fn turn(&self, server: ServerId, reach: Reach, by: AuditEntry) -> Result<Option<Server>> {
        self.database.submit(move |connection| turn(connection, server, reach, &by)).await
    }

    async fn overlapping(&self, servers: Vec<ServerId>, from: Timestamp, until: Timestamp) -> Result<Vec<Window>> {
        self.database.read(move |connection| overlapping(connection, &servers, from, until)).await
    }
}
