//! Agents: one row beside the server that each speaks for, with the digest of its token.
//!
//! What an agent reports stands in the row of its server.

use super::{guard, rows::InventoryColumns, trace};
use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::Failure,
    feed::Trace,
    schema::{agents, servers},
    values::{from_us, to_json, to_us},
};
use async_trait::async_trait;
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Text},
};
use domain::{
    Error, Result,
    change::{Change, Done},
    clock::Timestamp,
    feed::Fact,
    fleet::{AgentAccount, Agents, Inventory, NewAgent, Server},
    ids::ServerId,
};
use std::collections::BTreeMap;

/// The agent of a server, if it has one.
pub(super) fn find(connection: &mut AnyConnection, server: ServerId) -> Result<Option<AgentAccount>, Failure> {
    let columns = (agents::place, agents::enrolled_at_us);
    let row: Option<(String, i64)> = agents::table.find(server.0).select(columns).first(connection).optional()?;
    let account = |(place, at): (String, i64)| Ok(AgentAccount { server_id: server, place, enrolled_at: from_us(at)? });
    row.map(account).transpose()
}

pub(super) fn insert(
    connection: &mut AnyConnection,
    server: ServerId,
    agent: &NewAgent,
    at: Timestamp,
) -> Result<(), Failure> {
    diesel::insert_into(agents::table)
        .values((
            agents::server_id.eq(server.0),
            agents::token_digest.eq(&agent.token_digest),
            agents::place.eq(&agent.place),
            agents::enrolled_at_us.eq(to_us(at)),
        ))
        .execute(connection)?;
    Ok(())
}

/// Gives the agent of a server, which has never been heard of, another token.
pub(super) fn set_token(connection: &mut AnyConnection, server: ServerId, digest: &str) -> Result<(), Failure> {
    update!(connection, diesel::update(agents::table.find(server.0)).set(agents::token_digest.eq(digest)))?;
    Ok(())
}

/// The server whose agent's token has this digest, and its name.
pub(crate) fn by_token(connection: &mut AnyConnection, digest: &str) -> Result<Option<(ServerId, String)>, Failure> {
    let row: Option<(i64, String)> = agents::table
        .inner_join(servers::table)
        .filter(agents::token_digest.eq(digest))
        .select((servers::id, servers::name))
        .first(connection)
        .optional()?;
    Ok(row.map(|(id, name)| (ServerId(id), name)))
}

fn set_place(connection: &mut AnyConnection, server: ServerId, place: &str) -> Result<(), Failure> {
    match update!(connection, diesel::update(agents::table.find(server.0)).set(agents::place.eq(place)))? {
        0 => Err(Error::not_found("agent of server", server).into()),
        _ => Ok(()),
    }
}

fn report(connection: &mut AnyConnection, server: &Server) -> Result<Server, Failure> {
    let current = guard(connection, server.id, server.revision - 1)?;
    if server.check_holds(current.reserved).is_err() {
        // What is reserved changes without a new revision. What the machine has must be computed again with that.
        return Err(Error::Stale { what: format!("server {}", server.id), current: current.revision }.into());
    }
    let set = (
        servers::status.eq(server.status.as_str()),
        servers::architecture.eq(server.architecture.as_str()),
        servers::cpu_millis.eq(server.capacity.cpu_millis),
        servers::memory_mib.eq(server.capacity.memory_mib),
        servers::storage_mib.eq(server.capacity.storage_mib),
        servers::gpus.eq(server.capacity.gpus),
        servers::gpu_model.eq(&server.gpu_model),
        servers::revision.eq(server.revision),
        servers::updated_at_us.eq(to_us(server.updated_at)),
        InventoryColumns::try_from(&server.inventory)?,
    );
    update!(connection, diesel::update(servers::table.find(server.id.0)).set(set))?;
    let inventory = Inventory { last_seen_at: current.inventory.last_seen_at, ..server.inventory.clone() };
    Ok(Server {
        status: server.status,
        architecture: server.architecture,
        capacity: server.capacity,
        gpu_model: server.gpu_model.clone(),
        inventory,
        revision: server.revision,
        updated_at: server.updated_at,
        ..current
    })
}

/// However many agents there are, they are noted by one statement; it says itself which rows it changed.
const TOUCH_POSTGRES: &str = "
    UPDATE servers SET last_seen_at_us = heard.at_us FROM unnest($1, $2) AS heard (id, at_us)
    WHERE servers.id = heard.id AND (servers.last_seen_at_us IS NULL OR servers.last_seen_at_us < heard.at_us)
    RETURNING servers.id AS id, servers.last_seen_at_us AS at_us";
const TOUCH_SQLITE: &str = "
    UPDATE servers SET last_seen_at_us = heard.at_us
    FROM (SELECT value ->> 0 AS id, value ->> 1 AS at_us FROM json_each(?)) AS heard
    WHERE servers.id = heard.id AND (servers.last_seen_at_us IS NULL OR servers.last_seen_at_us < heard.at_us)
    RETURNING id AS id, last_seen_at_us AS at_us";

#[derive(QueryableByName)]
struct Seen {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    at_us: i64,
}

fn touch(connection: &mut AnyConnection, heard: &[(i64, i64)]) -> Result<Vec<Fact>, Failure> {
    let seen: Vec<Seen> = match connection {
        AnyConnection::Postgresql(c) => {
            let (ids, times): (Vec<i64>, Vec<i64>) = heard.iter().copied().unzip();
            sql_query(TOUCH_POSTGRES).bind::<Array<BigInt>, _>(ids).bind::<Array<BigInt>, _>(times).load(c)?
        }
        AnyConnection::Sqlite(c) => sql_query(TOUCH_SQLITE).bind::<Text, _>(to_json(&heard)?).load(c)?,
    };
    seen.into_iter().map(|seen| Ok(Fact::ServerSeen(ServerId(seen.id), from_us(seen.at_us)?))).collect()
}

/// The agents in the database.
pub struct DieselAgents {
    database: Database,
}

impl DieselAgents {
    /// The agents of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Agents for DieselAgents {
    async fn get(&self, server: ServerId) -> Result<Option<AgentAccount>> {
        self.database.read(move |connection| find(connection, server)).await
    }

    async fn servers(&self) -> Result<Vec<ServerId>> {
        self.database
            .read(|connection| {
                let ids: Vec<i64> =
                    agents::table.order(agents::server_id.asc()).select(agents::server_id).load(connection)?;
                Ok(ids.into_iter().map(ServerId).collect())
            })
            .await
    }

    async fn report(&self, server: Server, place: Option<String>, change: Change) -> Result<Done<Server>> {
        self.database
            .write(change, move |connection, entry| {
                let server = report(connection, &server)?;
                if let Some(place) = &place {
                    set_place(connection, server.id, place)?;
                }
                let trace = trace(entry, &server);
                Ok((server, trace))
            })
            .await
    }

    async fn moved(&self, server: ServerId, place: String, change: Change) -> Result<Done<()>> {
        let work =
            move |connection: &mut AnyConnection, entry| Ok((set_place(connection, server, &place)?, Some(entry)));
        self.database.write(change, work).await
    }

    async fn touch(&self, heard: Vec<(ServerId, Timestamp)>) -> Result<()> {
        let mut latest: BTreeMap<i64, i64> = BTreeMap::new();
        for (server, at) in heard {
            let latest = latest.entry(server.0).or_insert_with(|| to_us(at));
            *latest = to_us(at).max(*latest);
        }
        let heard: Vec<(i64, i64)> = latest.into_iter().collect();
        if heard.is_empty() {
            return Ok(());
        }
        self.database
            .submit(move |connection| Ok(((), Trace { facts: touch(connection, &heard)?, ..Trace::default() })))
            .await
    }
}
