//! What agents are told to do: one row each, written with the attempt that it is about.
//!
//! It is open for as long as it has no time of its end, by which an index finds what is open.

use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::Failure,
    feed::Trace,
    paging::{self, newest_first},
    schema::operations,
    values::{corrupt, from_json, from_us, to_json, to_us, word},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once, Recorded},
    clock::Timestamp,
    feed::Fact,
    fleet::{
        Operations,
        operations::{Operation, OperationFilter, OperationKind, OperationState},
    },
    ids::{OperationId, ServerId, TaskId},
    page::{Page, PageRequest},
    scheduling::{Attempt, AttemptStep},
};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Queryable)]
struct Row {
    id: i64,
    server_id: i64,
    kind: String,
    task_id: Option<i64>,
    attempt: Option<i64>,
    state: String,
    cancel_requested: bool,
    progress: Option<String>,
    result: Option<String>,
    created_at_us: i64,
    started_at_us: Option<i64>,
    finished_at_us: Option<i64>,
    deed: Option<String>,
}

impl TryFrom<Row> for Operation {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        let attempt = row.attempt.map(u32::try_from).transpose();
        Ok(Self {
            id: OperationId(row.id),
            server_id: ServerId(row.server_id),
            kind: word(&row.kind, OperationKind::parse)?,
            task_id: row.task_id.map(TaskId),
            attempt: attempt.map_err(|error| corrupt(error.to_string()))?,
            deed: row.deed.as_deref().map(from_json).transpose()?,
            state: word(&row.state, OperationState::parse)?,
            cancel_requested: row.cancel_requested,
            progress: row.progress,
            result: row.result.as_deref().map(from_json).transpose()?,
            created_at: from_us(row.created_at_us)?,
            started_at: row.started_at_us.map(from_us).transpose()?,
            finished_at: row.finished_at_us.map(from_us).transpose()?,
        })
    }
}

/// What changes while an operation is open.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = operations)]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
struct Course {
    state: &'static str,
    cancel_requested: bool,
    progress: Option<String>,
    result: Option<String>,
    started_at_us: Option<i64>,
    finished_at_us: Option<i64>,
}

impl TryFrom<&Operation> for Course {
    type Error = Failure;

    fn try_from(operation: &Operation) -> Result<Self, Failure> {
        Ok(Self {
            state: operation.state.as_str(),
            cancel_requested: operation.cancel_requested,
            progress: operation.progress.clone(),
            result: operation.result.as_ref().map(to_json).transpose()?,
            started_at_us: operation.started_at.map(to_us),
            finished_at_us: operation.finished_at.map(to_us),
        })
    }
}

#[derive(Insertable)]
#[diesel(table_name = operations)]
#[diesel(treat_none_as_default_value = false)]
struct NewRow {
    server_id: i64,
    kind: &'static str,
    task_id: Option<i64>,
    attempt: Option<i64>,
    created_at_us: i64,
    deed: Option<String>,
    #[diesel(embed)]
    state: Course,
}

impl TryFrom<&Operation> for NewRow {
    type Error = Failure;

    fn try_from(operation: &Operation) -> Result<Self, Failure> {
        Ok(Self {
            server_id: operation.server_id.0,
            kind: operation.kind.as_str(),
            task_id: operation.task_id.map(|task| task.0),
            attempt: operation.attempt.map(i64::from),
            created_at_us: to_us(operation.created_at),
            deed: operation.deed.as_ref().map(to_json).transpose()?,
            state: Course::try_from(operation)?,
        })
    }
}

/// Stores orders to run attempts, at most one for each task, under ids of their own.
pub(crate) fn insert_all(
    connection: &mut AnyConnection,
    orders: Vec<Operation>,
) -> Result<Vec<Arc<Operation>>, Failure> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let rows = orders.iter().map(NewRow::try_from).collect::<Result<Vec<_>, _>>()?;
    // Nothing promises in which order the rows of one statement come back.
    let key = (operations::task_id, operations::id);
    let ids: Vec<(Option<i64>, i64)> = match connection {
        AnyConnection::Sqlite(c) => rows
            .into_iter()
            .map(|row| diesel::insert_into(operations::table).values(row).returning(key).get_result(c))
            .collect::<QueryResult<_>>()?,
        AnyConnection::Postgresql(c) => {
            diesel::insert_into(operations::table).values(rows).returning(key).get_results(c)?
        }
    };
    let ids: BTreeMap<Option<i64>, i64> = ids.into_iter().collect();
    let stored = |order: Operation| {
        let id = ids.get(&order.task_id.map(|task| task.0)).copied();
        let id = id.ok_or_else(|| corrupt(format!("no id for the operation of task {:?}", order.task_id)))?;
        Ok(Arc::new(Operation { id: OperationId(id), ..order }))
    };
    orders.into_iter().map(stored).collect()
}

/// Stores an order that runs no task, and tells its agent.
fn create(
    connection: &mut AnyConnection,
    operation: &Operation,
    entry: AuditEntry,
) -> Result<(Operation, Trace), Failure> {
    let row = NewRow::try_from(operation)?;
    let id: i64 =
        diesel::insert_into(operations::table).values(row).returning(operations::id).get_result(connection)?;
    let operation = Operation { id: OperationId(id), ..operation.clone() };
    let trace = Trace::from(entry).telling(Fact::Operation(Arc::new(operation.clone())));
    Ok((operation, trace))
}

/// Writes how far such an order is, unless it went on since `before`.
fn go_on(connection: &mut AnyConnection, before: &Operation, after: &Operation) -> Result<(), Failure> {
    let unchanged = operations::table
        .find(after.id.0)
        .filter(operations::state.eq(before.state.as_str()))
        .filter(operations::cancel_requested.eq(before.cancel_requested));
    if update!(connection, diesel::update(unchanged).set(&Course::try_from(after)?))? == 0 {
        load(connection, after.id)?;
        return Err(Error::Stale { what: format!("operation {}", after.id), current: 0 }.into());
    }
    Ok(())
}

/// Writes what a step of `attempt` does to the operation by which an agent runs it; `None` if it does nothing.
pub(crate) fn step(
    connection: &mut AnyConnection,
    attempt: &Attempt,
    step: &AttemptStep,
    now: Timestamp,
) -> Result<Option<Operation>, Failure> {
    let of_attempt = operations::task_id.eq(attempt.task_id.0).and(operations::attempt.eq(i64::from(attempt.number)));
    let found: Option<Row> = operations::table.filter(of_attempt).first(connection).optional()?;
    let Some(before) = found.map(Operation::try_from).transpose()? else { return Ok(None) };
    let after = before.stepped(step, now);
    if after == before {
        return Ok(None);
    }
    let course = Course::try_from(&after)?;
    update!(connection, diesel::update(operations::table.find(after.id.0)).set(&course))?;
    Ok(Some(after))
}

/// Removes the operations of a task that is about to be removed.
pub(crate) fn delete_of(connection: &mut AnyConnection, task: TaskId) -> Result<(), Failure> {
    diesel::delete(operations::table.filter(operations::task_id.eq(task.0))).execute(connection)?;
    Ok(())
}

/// Every open operation, by id.
pub(crate) fn load_open(connection: &mut AnyConnection) -> Result<Vec<Arc<Operation>>, Failure> {
    let open = operations::table.filter(operations::finished_at_us.is_null());
    let rows: Vec<Row> = open.order(operations::id.asc()).load(connection)?;
    rows.into_iter().map(|row| Operation::try_from(row).map(Arc::new)).collect()
}

/// One of the open operations of a server.
pub(super) fn open_on(connection: &mut AnyConnection, server: ServerId) -> Result<Option<OperationId>, Failure> {
    let open = operations::table.filter(operations::server_id.eq(server.0).and(operations::finished_at_us.is_null()));
    let id: Option<i64> = open.select(operations::id).first(connection).optional()?;
    Ok(id.map(OperationId))
}

fn load(connection: &mut AnyConnection, id: OperationId) -> Result<Operation, Failure> {
    let row: Option<Row> = operations::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found(Operation::KIND, id)))?.try_into()
}

fn list(
    connection: &mut AnyConnection,
    filter: &OperationFilter,
    page: &PageRequest,
) -> Result<Page<Operation>, Failure> {
    macro_rules! matching {
        () => {{
            let mut query = operations::table.into_boxed();
            if let Some(server) = filter.server_id {
                query = query.filter(operations::server_id.eq(server.0));
            }
            if let Some(state) = filter.state {
                query = query.filter(operations::state.eq(state.as_str()));
                if state.is_open() {
                    // The index of what is open knows no states.
                    query = query.filter(operations::finished_at_us.is_null());
                }
            }
            if let Some(task) = filter.task_id {
                query = query.filter(operations::task_id.eq(task.0));
            }
            query
        }};
    }
    let (rows, total): (Vec<Row>, _) = newest_first!(connection, page, operations::id, matching!());
    let found = rows.into_iter().map(Operation::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(paging::page(found, page, total, "-id", |operation| operation.id.0))
}

/// What agents are told to do, in the database.
pub struct DieselOperations {
    database: Database,
}

impl DieselOperations {
    /// The operations of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Operations for DieselOperations {
    async fn list(&self, filter: OperationFilter, page: PageRequest) -> Result<Page<Operation>> {
        self.database.read(move |connection| list(connection, &filter, &page)).await
    }

    async fn get(&self, id: OperationId) -> Result<Operation> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn create(&self, operation: Operation, change: Change) -> Result<Done<Operation>> {
        self.database.write(change, move |connection, entry| create(connection, &operation, entry)).await
    }

    async fn answered(&self, once: Once, now: Timestamp) -> Result<Option<Operation>> {
        self.database.answered(once, now).await
    }

    async fn update(&self, before: Operation, operation: Operation, change: Change) -> Result<Done<Operation>> {
        self.database
            .write(change, move |connection, entry| {
                go_on(connection, &before, &operation)?;
                let trace = Trace::from(entry).telling(Fact::Operation(Arc::new(operation.clone())));
                Ok((operation.clone(), trace))
            })
            .await
    }

    async fn progress(&self, id: OperationId, message: String) -> Result<()> {
        // Nobody is told: whoever follows wakes agents up, and this one knows what it said.
        self.database
            .write_silently(move |connection| {
                let open = operations::table.find(id.0).filter(operations::finished_at_us.is_null());
                update!(connection, diesel::update(open).set(operations::progress.eq(&message)))?;
                Ok(())
            })
            .await
    }

    async fn catch_up(&self) -> Result<()> {
        self.database.catch_up().await
    }
}

/// Tells of operations that are new or changed.
pub(crate) fn tell(trace: &mut Trace, operations: impl IntoIterator<Item = Arc<Operation>>) {
    trace.facts.extend(operations.into_iter().map(Fact::Operation));
}
