//! Servers: one row each, and a copy of their tags that filters can use an index on.

mod query;
mod rows;

use crate::{
    connection::AnyConnection,
    database::Database,
    failure::{Failure, Kind},
    schema::{pools, server_tags, servers},
    values::to_us,
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    change::{Change, Done, Recorded},
    clock::Timestamp,
    fleet::{NewServer, Server, ServerFilter, ServerSort, Servers},
    ids::{PoolId, ServerId},
    page::{Page, PageRequest},
};
use rows::{Columns, Row, TagArrays, TagRow};

fn name_taken(server: &Server) -> impl FnOnce() -> Error {
    let name = server.name.clone();
    move || Error::conflict("name_taken", format!("there is a server named \"{name}\" already; choose another name"))
}

fn insert(connection: &mut AnyConnection, new: NewServer, at: Timestamp) -> Result<Server, Failure> {
    let server = new.into_server(ServerId(0), at);
    if let Some(pool) = server.pool_id {
        check_pool(connection, pool)?;
    }
    let id: i64 = diesel::insert_into(servers::table)
        .values((
            Columns::try_from(&server)?,
            servers::pool_id.eq(server.pool_id.map(|pool| pool.0)),
            servers::cordoned.eq(server.cordoned),
            servers::created_at_us.eq(to_us(at)),
        ))
        .returning(servers::id)
        .get_result(connection)
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(&server)))?;
    let server = Server { id: ServerId(id), ..server };
    write_tags(connection, &server)?;
    Ok(server)
}

fn check_pool(connection: &mut AnyConnection, pool: PoolId) -> Result<(), Failure> {
    let there: bool = diesel::select(diesel::dsl::exists(pools::table.find(pool.0))).get_result(connection)?;
    if there {
        return Ok(());
    }
    Err(Error::invalid("pool_id", format!("there is no pool {pool}; create it first, or leave pool_id out")).into())
}

fn write_tags(connection: &mut AnyConnection, server: &Server) -> Result<(), Failure> {
    match connection {
        AnyConnection::Postgresql(c) if server.tags.iter().next().is_some() => {
            TagArrays::of(server).execute(c)?;
        }
        AnyConnection::Postgresql(_) => {}
        // There is no network in between: a prepared statement per tag is cheaper than a new one for all of them.
        AnyConnection::Sqlite(c) => {
            for row in TagRow::of(server) {
                diesel::insert_into(server_tags::table).values(row).execute(c)?;
            }
        }
    }
    Ok(())
}

fn load(connection: &mut AnyConnection, id: ServerId) -> Result<Server, Failure> {
    let row: Option<Row> = servers::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found(Server::KIND, id)))?.try_into()
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
    diesel::update(servers::table.find(server.id.0))
        .set((Columns::try_from(server)?, servers::cordoned.eq(server.cordoned)))
        .execute(connection)
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(server)))?;
    if current.tags != server.tags {
        diesel::delete(server_tags::table.filter(server_tags::server_id.eq(server.id.0))).execute(connection)?;
        write_tags(connection, server)?;
    }
    Ok(Server { reserved: current.reserved, inventory: current.inventory, pool_id: current.pool_id, ..server.clone() })
}

fn delete(connection: &mut AnyConnection, server: &Server) -> Result<(), Failure> {
    let current = guard(connection, server.id, server.revision)?;
    if !current.reserved.is_zero() {
        let reason = format!("server \"{}\" still has work on it; cancel or move it first", server.name);
        return Err(Error::conflict("server_in_use", reason).into());
    }
    diesel::delete(servers::table.find(server.id.0)).execute(connection)?;
    Ok(())
}

/// The servers in the database.
pub struct DieselServers {
    database: Database,
}

impl DieselServers {
    /// The servers of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Servers for DieselServers {
    async fn create(&self, server: NewServer, change: Change) -> Result<Done<Server>> {
        self.database
            .write(change, move |connection, entry| {
                let server = insert(connection, server.clone(), entry.created_at)?;
                let entry = entry.created(&server);
                Ok((server, Some(entry)))
            })
            .await
    }

    async fn list(&self, filter: ServerFilter, sort: ServerSort, page: PageRequest) -> Result<Page<Server>> {
        self.database.read(move |connection| query::list(connection, &filter, sort, &page)).await
    }

    async fn get(&self, id: ServerId) -> Result<Server> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn update(&self, server: Server, change: Change) -> Result<Done<Server>> {
        self.database.write(change, move |connection, entry| Ok((update(connection, &server)?, Some(entry)))).await
    }

    async fn confirm(&self, server: Server, change: Change) -> Result<Done<Server>> {
        let work = move |connection: &mut AnyConnection, _| Ok((guard(connection, server.id, server.revision)?, None));
        self.database.write(change, work).await
    }

    async fn delete(&self, server: Server, change: Change) -> Result<Done<()>> {
        self.database.write(change, move |connection, entry| Ok((delete(connection, &server)?, Some(entry)))).await
    }
}
