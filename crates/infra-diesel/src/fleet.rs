//! Servers: one row each, with what their agents report. Lists are made from memory, which follows what commits.

mod agents;
mod enrollments;
mod maintenance;
pub(crate) mod operations;
mod rows;

pub use agents::DieselAgents;
pub(crate) use agents::by_token;
pub use enrollments::DieselEnrollments;
pub use maintenance::DieselMaintenanceWindows;
pub use operations::DieselOperations;

use crate::{
    connection::{AnyConnection, locked, update},
    database::Database,
    failure::{Failure, Kind},
    feed::Trace,
    pools, scheduling,
    schema::{agents as agent_rows, servers},
    values::to_us,
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once, Recorded},
    clock::Timestamp,
    feed::{Fact, Follower, State},
    fleet::{NewServer, Roster, RosterEntry, Server, ServerFilter, ServerSort, Servers},
    ids::ServerId,
    page::{Page, PageRequest},
};
use rows::{Columns, InventoryColumns, Row};
use std::{collections::BTreeSet, sync::Arc};

fn name_taken(server: &Server) -> impl FnOnce() -> Error {
    let name = server.name.clone();
    move || Error::conflict("name_taken", format!("there is a server named \"{name}\" already; choose another name"))
}

fn create(connection: &mut AnyConnection, new: NewServer, at: Timestamp) -> Result<Server, Failure> {
    if let Some(pool) = new.pool_id {
        pools::check_there(connection, pool)?;
    }
    insert(connection, new.into_server(ServerId(0), at))
}

/// Refuses a server that there is not, as a value of `required_server_id`.
pub(crate) fn check_there(connection: &mut AnyConnection, server: ServerId) -> Result<(), Failure> {
    if diesel::select(diesel::dsl::exists(servers::table.find(server.0))).get_result(connection)? {
        return Ok(());
    }
    let reason = format!("there is no server {server}; leave it out to run on any that fits");
    Err(Error::invalid("required_server_id", reason).into())
}

/// Stores a server under an id of its own.
fn insert(connection: &mut AnyConnection, server: Server) -> Result<Server, Failure> {
    let id: i64 = diesel::insert_into(servers::table)
        .values((
            Columns::try_from(&server)?,
            InventoryColumns::try_from(&server.inventory)?,
            servers::last_seen_at_us.eq(server.inventory.last_seen_at.map(to_us)),
            servers::pool_id.eq(server.pool_id.map(|pool| pool.0)),
            servers::cordoned.eq(server.cordoned),
            servers::created_at_us.eq(to_us(server.created_at)),
        ))
        .returning(servers::id)
        .get_result(connection)
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(&server)))?;
    Ok(Server { id: ServerId(id), ..server })
}

/// Every server, by id. Read a few hundred at a time: rows take more room than what becomes of them.
pub(crate) fn load_all(connection: &mut AnyConnection) -> Result<Vec<Arc<Server>>, Failure> {
    const STEP: i64 = 500;
    let mut all: Vec<Arc<Server>> = Vec::new();
    loop {
        let last = all.last().map_or(0, |server| server.id.0);
        let rows: Vec<Row> =
            servers::table.filter(servers::id.gt(last)).order(servers::id.asc()).limit(STEP).load(connection)?;
        if rows.is_empty() {
            return Ok(all);
        }
        for row in rows {
            all.push(Arc::new(Server::try_from(row)?));
        }
    }
}

/// Those of these servers that there are, by id; nobody else changes them until the transaction ends.
pub(crate) fn lock(connection: &mut AnyConnection, ids: BTreeSet<ServerId>) -> Result<Vec<Server>, Failure> {
    let ids: Vec<i64> = ids.into_iter().map(|id| id.0).collect();
    let rows: Vec<Row> = locked!(connection, ids, servers::table, servers::id);
    rows.into_iter().map(Server::try_from).collect()
}

fn find(connection: &mut AnyConnection, id: ServerId) -> Result<Option<Server>, Failure> {
    let row: Option<Row> = servers::table.find(id.0).first(connection).optional()?;
    row.map(Server::try_from).transpose()
}

fn load(connection: &mut AnyConnection, id: ServerId) -> Result<Server, Failure> {
    find(connection, id)?.ok_or_else(|| Error::not_found(Server::KIND, id).into())
}

/// Refuses unless the row is at the revision that the change was computed from.
fn guard(connection: &mut AnyConnection, id: ServerId, revision: i64) -> Result<Server, Failure> {
    let current = load(connection, id)?;
    if current.revision == revision {
        return Ok(current);
    }
    Err(Error::Stale { what: format!("server {id}"), current: current.revision }.into())
}

fn update(connection: &mut AnyConnection, server: &Server) -> Result<Server, Failure> {
    let current = guard(connection, server.id, server.revision - 1)?;
    // What is reserved changes without a new revision.
    server.check_holds(current.reserved)?;
    maintenance::check_status(connection, &current, server.status)?;
    let set = (Columns::try_from(server)?, servers::cordoned.eq(server.cordoned));
    update!(connection, diesel::update(servers::table.find(server.id.0)).set(set))
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(server)))?;
    Ok(Server { reserved: current.reserved, inventory: current.inventory, pool_id: current.pool_id, ..server.clone() })
}

/// Writes a server that is this machine's from now on, as it is with what its agent says.
fn replace(connection: &mut AnyConnection, server: &Server) -> Result<(), Failure> {
    let set = (
        Columns::try_from(server)?,
        InventoryColumns::try_from(&server.inventory)?,
        servers::last_seen_at_us.eq(server.inventory.last_seen_at.map(to_us)),
    );
    update!(connection, diesel::update(servers::table.find(server.id.0)).set(set))?;
    Ok(())
}

fn delete(connection: &mut AnyConnection, server: &Server) -> Result<(), Failure> {
    let current = guard(connection, server.id, server.revision)?;
    // Also work that asks for nothing is there.
    let tasks = scheduling::holders(connection, server.id)?;
    if tasks.is_some() || !current.reserved.is_zero() {
        let tasks = tasks.unwrap_or_else(|| "what is reserved does not say for whom; check the ledger".to_owned());
        let reason = format!("server \"{}\" still has work on it ({tasks}); cancel or move it first", server.name);
        return Err(Error::conflict("server_in_use", reason).into());
    }
    if let Some(open) = operations::open_on(connection, server.id)? {
        // It would be one of an attempt that holds nothing.
        let reason = format!(
            "server \"{}\" still has the open operation {open}; cancel its task, or the operation, first",
            server.name
        );
        return Err(Error::conflict("server_in_use", reason).into());
    }
    // Not left to the cascade: its token must open nothing, and its windows never be due, whatever a database is told
    // about foreign keys.
    maintenance::delete_of(connection, server.id)?;
    diesel::delete(agent_rows::table.find(server.id.0)).execute(connection)?;
    diesel::delete(servers::table.find(server.id.0)).execute(connection)?;
    Ok(())
}

/// What is recorded and told of a server that is new or changed.
fn trace(entry: AuditEntry, server: &Server) -> Trace {
    Trace::from(entry).telling(Fact::Server(Arc::new(server.clone())))
}

/// The servers in the database.
pub struct DieselServers {
    database: Database,
    roster: Arc<Roster>,
}

impl DieselServers {
    /// The servers of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        let roster = Arc::new(Roster::default());
        database.follow(roster.clone());
        Self { database, roster }
    }
}

#[async_trait]
impl Servers for DieselServers {
    async fn create(&self, server: NewServer, change: Change) -> Result<Done<Server>> {
        self.database
            .write(change, move |connection, entry| {
                let server = create(connection, server.clone(), entry.created_at)?;
                let trace = trace(entry.created(&server), &server);
                Ok((server, trace))
            })
            .await
    }

    async fn list(&self, filter: ServerFilter, sort: ServerSort, page: PageRequest) -> Result<Page<Arc<RosterEntry>>> {
        if self.database.catch_up().await.is_ok() {
            return self.roster.list(&filter, sort, &page);
        }
        // What can be read is shown even while nothing can be written.
        let servers = self.database.read(load_all).await?;
        let roster = Roster::default();
        roster.reset(&State { servers, ..State::default() });
        roster.list(&filter, sort, &page)
    }

    async fn get(&self, id: ServerId) -> Result<Server> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn check_there(&self, id: ServerId) -> Result<()> {
        if self.roster.has(id) { Ok(()) } else { self.get(id).await.map(|_| ()) }
    }

    async fn update(&self, server: Server, change: Change) -> Result<Done<Server>> {
        self.database
            .write(change, move |connection, entry| {
                let server = update(connection, &server)?;
                let trace = trace(entry, &server);
                Ok((server, trace))
            })
            .await
    }

    async fn confirm(&self, server: Server, change: Change) -> Result<Done<Server>> {
        let work = move |connection: &mut AnyConnection, _| {
            Ok((guard(connection, server.id, server.revision)?, Trace::default()))
        };
        self.database.write(change, work).await
    }

    async fn answered(&self, once: Once, now: Timestamp) -> Result<Option<Server>> {
        self.database.answered(once, now).await
    }

    async fn delete(&self, server: Server, change: Change) -> Result<Done<()>> {
        let work = move |connection: &mut AnyConnection, entry| {
            delete(connection, &server)?;
            Ok(((), Trace::from(entry).telling(Fact::ServerGone(server.id))))
        };
        // With the server goes its agent, whose token opens nothing from then on.
        self.database.revoke(change, work).await
    }
}
