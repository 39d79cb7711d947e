//! Join tokens: one row each, with the digest of its secret, and machines becoming servers by them.

use super::{agents, insert, replace, rows, trace};
use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::Failure,
    feed::Trace,
    paging::{self, newest_first},
    pools, scheduling,
    schema::{enrollments, servers},
    values::{corrupt, from_json, from_us, to_json, to_us},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Recorded},
    clock::Timestamp,
    fleet::{Enrollment, Enrollments, Inventory, Namesake, NewAgent, NewEnrollment, NewServer, Server},
    ids::{EnrollmentId, PoolId},
    page::{Page, PageRequest},
    text::Name,
};

#[derive(Queryable)]
struct Row {
    id: i64,
    name: String,
    pool_id: Option<i64>,
    tags: String,
    max_uses: i64,
    uses: i64,
    expires_at_us: i64,
    created_by: String,
    created_at_us: i64,
    _secret_digest: String,
}

impl TryFrom<Row> for Enrollment {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        let number = |n: i64| u32::try_from(n).map_err(|error| corrupt(error.to_string()));
        Ok(Self {
            id: EnrollmentId(row.id),
            name: Name::trusted(row.name),
            pool_id: row.pool_id.map(PoolId),
            tags: from_json(&row.tags)?,
            max_uses: number(row.max_uses)?,
            uses: number(row.uses)?,
            expires_at: from_us(row.expires_at_us)?,
            created_by: row.created_by,
            created_at: from_us(row.created_at_us)?,
        })
    }
}

fn create(connection: &mut AnyConnection, new: &NewEnrollment, at: Timestamp) -> Result<Enrollment, Failure> {
    let request = &new.request;
    if let Some(pool) = request.pool_id {
        pools::check_there(connection, pool)?;
    }
    let id: i64 = diesel::insert_into(enrollments::table)
        .values((
            enrollments::name.eq(request.name.as_str()),
            enrollments::pool_id.eq(request.pool_id.map(|pool| pool.0)),
            enrollments::tags.eq(to_json(&request.tags)?),
            enrollments::max_uses.eq(i64::from(request.max_uses)),
            enrollments::uses.eq(0),
            enrollments::expires_at_us.eq(to_us(new.expires_at)),
            enrollments::created_by.eq(&new.created_by),
            enrollments::created_at_us.eq(to_us(at)),
            enrollments::secret_digest.eq(&new.secret_digest),
        ))
        .returning(enrollments::id)
        .get_result(connection)?;
    load(connection, EnrollmentId(id))
}

fn load(connection: &mut AnyConnection, id: EnrollmentId) -> Result<Enrollment, Failure> {
    let row: Option<Row> = enrollments::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found(Enrollment::KIND, id)))?.try_into()
}

fn find(connection: &mut AnyConnection, secret_digest: &str) -> Result<Option<Enrollment>, Failure> {
    let row: Option<Row> =
        enrollments::table.filter(enrollments::secret_digest.eq(secret_digest)).first(connection).optional()?;
    row.map(Enrollment::try_from).transpose()
}

fn delete(connection: &mut AnyConnection, id: EnrollmentId) -> Result<(), Failure> {
    match diesel::delete(enrollments::table.find(id.0)).execute(connection)? {
        0 => Err(Error::not_found(Enrollment::KIND, id).into()),
        _ => Ok(()),
    }
}

/// Everything that joins with a machine.
struct Joining {
    enrollment: EnrollmentId,
    machine: NewServer,
    inventory: Inventory,
    agent: NewAgent,
}

impl Joining {
    fn join(&self, connection: &mut AnyConnection, entry: AuditEntry) -> Result<(Server, Trace), Failure> {
        let now = entry.created_at;
        let namesake = namesake(connection, &self.machine.name)?;
        if let Some(found) = namesake.as_ref().filter(|found| found.asks_again(&self.agent)) {
            let server = found.server.clone();
            agents::set_token(connection, server.id, &self.agent.token_digest)?;
            let message = entry.message.as_deref().unwrap_or_default();
            let message = format!("{message}, once more: it has not been heard of since");
            let trace = trace(entry.changed(&server, &server).because(message), &server);
            return Ok((server, trace));
        }
        let enrollment = self.use_up(connection, now)?;
        let (server, entry) = if let Some(found) = namesake {
            let server = found.adopted(&enrollment, &self.machine, self.inventory.clone(), now)?;
            replace(connection, &server)?;
            let entry = entry.changed(&found.server, &server);
            (server, entry)
        } else {
            let server = self.admit(connection, &enrollment, now)?;
            let entry = entry.created(&server);
            (server, entry)
        };
        agents::insert(connection, server.id, &self.agent, now)?;
        let trace = trace(entry, &server);
        Ok((server, trace))
    }

    /// Uses the token once more, if it still may be used.
    fn use_up(&self, connection: &mut AnyConnection, now: Timestamp) -> Result<Enrollment, Failure> {
        let row = enrollments::table.find(self.enrollment.0);
        let found: Option<Row> = match connection {
            AnyConnection::Sqlite(c) => row.first(c).optional()?,
            AnyConnection::Postgresql(c) => row.for_update().first(c).optional()?,
        };
        let enrollment = Enrollment::try_from(found.ok_or_else(Enrollment::unknown)?)?;
        enrollment.check_good(now)?;
        let once_more = enrollments::uses.eq(enrollments::uses + 1);
        update!(connection, diesel::update(row).set(once_more))?;
        Ok(enrollment)
    }

    fn admit(
        &self,
        connection: &mut AnyConnection,
        enrollment: &Enrollment,
        now: Timestamp,
    ) -> Result<Server, Failure> {
        if let Some(pool) = enrollment.pool_id
            && !pools::is_there(connection, pool)?
        {
            return Err(enrollment.pool_gone(pool).into());
        }
        insert(connection, enrollment.admitted(self.machine.clone(), self.inventory.clone(), now))
    }
}

/// The server of this name, and what is known of its use.
fn namesake(connection: &mut AnyConnection, name: &Name) -> Result<Option<Namesake>, Failure> {
    let row: Option<rows::Row> = servers::table.filter(servers::name.eq(name.as_str())).first(connection).optional()?;
    let Some(server) = row.map(Server::try_from).transpose()? else { return Ok(None) };
    let agent = agents::find(connection, server.id)?;
    let tasks = scheduling::holders(connection, server.id)?;
    Ok(Some(Namesake { server, agent, tasks }))
}

/// The join tokens in the database.
pub struct DieselEnrollments {
    database: Database,
}

impl DieselEnrollments {
    /// The join tokens of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Enrollments for DieselEnrollments {
    async fn create(&self, enrollment: NewEnrollment, change: Change) -> Result<Done<Enrollment>> {
        self.database
            .write(change, move |connection, entry| {
                let enrollment = create(connection, &enrollment, entry.created_at)?;
                let entry = entry.created(&enrollment);
                Ok((enrollment, Some(entry)))
            })
            .await
    }

    async fn list(&self, page: PageRequest) -> Result<Page<Enrollment>> {
        self.database
            .read(move |connection| {
                let (rows, total): (Vec<Row>, _) =
                    newest_first!(connection, page, enrollments::id, enrollments::table.into_boxed());
                let found = rows.into_iter().map(Enrollment::try_from).collect::<Result<Vec<_>, _>>()?;
                Ok(paging::page(found, &page, total, "-id", |enrollment| enrollment.id.0))
            })
            .await
    }

    async fn get(&self, id: EnrollmentId) -> Result<Enrollment> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn delete(&self, enrollment: Enrollment, change: Change) -> Result<Done<()>> {
        let work = move |connection: &mut AnyConnection, entry| Ok((delete(connection, enrollment.id)?, Some(entry)));
        self.database.write(change, work).await
    }

    async fn find(&self, secret_digest: &str) -> Result<Option<Enrollment>> {
        let digest = secret_digest.to_owned();
        self.database.read(move |connection| find(connection, &digest)).await
    }

    async fn join(
        &self,
        enrollment: EnrollmentId,
        server: NewServer,
        inventory: Inventory,
        agent: NewAgent,
        change: Change,
    ) -> Result<Done<Server>> {
        let joining = Joining { enrollment, machine: server, inventory, agent };
        self.database.write(change, move |connection, entry| joining.join(connection, entry)).await
    }
}
