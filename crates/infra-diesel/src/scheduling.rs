//! Tasks, one row each, and their attempts, one row each: what an attempt holds is counted on its server and in its
//! pool in the same transaction.

mod accounts;
mod ledger;
mod place;
mod rows;

use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::Failure,
    feed::Trace,
    fleet::{self, operations},
    paging::{self, newest_first},
    pools,
    schema::{attempts, tasks},
    values::contains_pattern,
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once, Recorded},
    clock::Timestamp,
    feed::Fact,
    ids::{PoolId, ServerId, TaskId},
    page::{Page, PageRequest},
    scheduling::{
        Attempt, AttemptStep, NewTask, Placed, Placement, Task, TaskFilter, TaskStatus, Tasks, ledger::Discrepancy,
        plan_stale,
    },
};
use rows::{AttemptRow, NewTaskRow, TaskRow, TaskState};
use std::sync::Arc;

fn insert(connection: &mut AnyConnection, new: NewTask, at: Timestamp) -> Result<Task, Failure> {
    let task = new.into_task(TaskId(0), at);
    if let Some(pool) = task.spec.pool_id {
        pools::check_there(connection, pool)?;
    }
    if let Some(server) = task.spec.required_server_id {
        fleet::check_there(connection, server)?;
    }
    let id: i64 = diesel::insert_into(tasks::table)
        .values((NewTaskRow::try_from(&task)?, TaskState::try_from(&task)?))
        .returning(tasks::id)
        .get_result(connection)?;
    Ok(Task { id: TaskId(id), ..task })
}

fn load(connection: &mut AnyConnection, id: TaskId) -> Result<Task, Failure> {
    let row: Option<TaskRow> = tasks::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found(Task::KIND, id)))?.try_into()
}

/// Every pending task, by id.
pub(crate) fn load_pending(connection: &mut AnyConnection) -> Result<Vec<Arc<Task>>, Failure> {
    let pending = tasks::table.filter(tasks::status.eq(TaskStatus::Pending.as_str()));
    let rows: Vec<TaskRow> = pending.order(tasks::id.asc()).load(connection)?;
    rows.into_iter().map(|row| Task::try_from(row).map(Arc::new)).collect()
}

/// Tasks that hold something on a server, by id.
fn held_on(connection: &mut AnyConnection, server: ServerId) -> Result<Vec<Task>, Failure> {
    let rows: Vec<TaskRow> = tasks::table
        .inner_join(attempts::table)
        .filter(attempts::server_id.eq(server.0).and(attempts::held))
        .order(tasks::id.asc())
        .select(tasks::all_columns)
        .load(connection)?;
    rows.into_iter().map(Task::try_from).collect()
}

/// Tasks that are on a server, as a text for people: a few of them by name.
pub(crate) fn holders(connection: &mut AnyConnection, server: ServerId) -> Result<Option<String>, Failure> {
    const SHOWN: usize = 3;
    let ids: Vec<i64> = attempts::table
        .filter(attempts::server_id.eq(server.0).and(attempts::held))
        .order(attempts::task_id.asc())
        .select(attempts::task_id)
        .load(connection)?;
    if ids.is_empty() {
        return Ok(None);
    }
    let mut names = Vec::new();
    for id in ids.iter().take(SHOWN) {
        names.push(format!("task {id} \"{}\"", load(connection, TaskId(*id))?.spec.name));
    }
    let more = ids.len().saturating_sub(SHOWN);
    Ok(Some(if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }))
}

/// How many tasks that have not ended must run in this pool.
pub(crate) fn live_in_pool(connection: &mut AnyConnection, pool: PoolId) -> Result<i64, Failure> {
    let live: Vec<&str> =
        TaskStatus::ALL.iter().filter(|status| status.is_live()).map(|status| status.as_str()).collect();
    let tasks = tasks::table.filter(tasks::pool_id.eq(pool.0).and(tasks::status.eq_any(live)));
    Ok(tasks.count().get_result(connection)?)
}

/// Refuses unless the row is at the revision that the change was computed from.
fn guard(connection: &mut AnyConnection, id: TaskId, revision: i64) -> Result<Task, Failure> {
    let current = load(connection, id)?;
    if current.revision == revision {
        return Ok(current);
    }
    Err(Error::Stale { what: format!("task {id}"), current: current.revision }.into())
}

fn list(connection: &mut AnyConnection, filter: &TaskFilter, page: &PageRequest) -> Result<Page<Task>, Failure> {
    macro_rules! matching {
        () => {{
            let mut query = tasks::table.into_boxed();
            if let Some(status) = filter.status {
                query = query.filter(tasks::status.eq(status.as_str()));
            }
            if let Some(server) = filter.server_id {
                query = query.filter(tasks::server_id.eq(server.0));
            }
            if let Some(pool) = filter.pool_id {
                query = query.filter(tasks::pool_id.eq(pool.0));
            }
            if let Some(keyword) = &filter.keyword {
                query = query.filter(tasks::search_text.like(contains_pattern(keyword)).escape('\\'));
            }
            query
        }};
    }
    let (rows, total): (Vec<TaskRow>, _) = newest_first!(connection, page, tasks::id, matching!());
    let tasks = rows.into_iter().map(Task::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(paging::page(tasks, page, total, "-id", |task| task.id.0))
}

fn attempts_of(connection: &mut AnyConnection, id: TaskId) -> Result<Vec<Attempt>, Failure> {
    load(connection, id)?;
    let of_task = attempts::table.filter(attempts::task_id.eq(id.0));
    let rows: Vec<AttemptRow> = of_task.order(attempts::number.desc()).load(connection)?;
    rows.into_iter().map(Attempt::try_from).collect()
}

/// Writes a task at its next revision, and what that does to its newest attempt.
fn update(
    connection: &mut AnyConnection,
    task: &Task,
    step: &AttemptStep,
    entry: AuditEntry,
) -> Result<Trace, Failure> {
    guard(connection, task.id, task.revision - 1)?;
    update!(connection, diesel::update(tasks::table.find(task.id.0)).set(TaskState::try_from(task)?))?;
    let mut trace = Trace::from(entry).telling(Fact::Task(Arc::new(task.clone())));
    trace.append(place::step(connection, task, step)?);
    Ok(trace)
}

fn delete(connection: &mut AnyConnection, task: &Task) -> Result<(), Failure> {
    guard(connection, task.id, task.revision)?;
    let held = attempts::table.filter(attempts::task_id.eq(task.id.0).and(attempts::held));
    if held.count().get_result::<i64>(connection)? > 0 {
        let reason = format!("task \"{}\" still holds room on its server; cancel it first", task.spec.name);
        return Err(Error::conflict("task_is_live", reason).into());
    }
    // Not left to the cascade: its attempts are its own, whatever a database is told about foreign keys.
    operations::delete_of(connection, task.id)?;
    diesel::delete(attempts::table.filter(attempts::task_id.eq(task.id.0))).execute(connection)?;
    diesel::delete(tasks::table.find(task.id.0)).execute(connection)?;
    Ok(())
}

/// The tasks in the database.
pub struct DieselTasks {
    database: Database,
}

impl DieselTasks {
    /// The tasks of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Tasks for DieselTasks {
    async fn create(&self, task: NewTask, change: Change) -> Result<Done<Task>> {
        self.database
            .write(change, move |connection, entry| {
                let task = insert(connection, task.clone(), entry.created_at)?;
                let trace = Trace::from(entry.created(&task)).telling(Fact::Task(Arc::new(task.clone())));
                Ok((task, trace))
            })
            .await
    }

    async fn create_placed(&self, task: NewTask, server: ServerId, change: Change) -> Result<Done<Task>> {
        self.database
            .write(change, move |connection, entry| {
                let at = entry.created_at;
                let pending = insert(connection, task.clone(), at)?;
                let task = pending.placed(server, at)?;
                let attempt =
                    Attempt::opened(&task, at).ok_or_else(|| Error::internal("a placed task has no server"))?;
                let placement = Placement { task, attempt, entry: entry.created(&pending) };
                let (placed, mut trace) = place::place(connection, std::slice::from_ref(&placement))?;
                if placed != [Placed::Held] {
                    return Err(plan_stale().into());
                }
                // Created and placed are one change: what is recorded is the task as it is at the end.
                trace.entries = vec![placement.entry.created(&placement.task)];
                Ok((placement.task, trace))
            })
            .await
    }

    async fn list(&self, filter: TaskFilter, page: PageRequest) -> Result<Page<Task>> {
        self.database.read(move |connection| list(connection, &filter, &page)).await
    }

    async fn get(&self, id: TaskId) -> Result<Task> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn attempts(&self, id: TaskId) -> Result<Vec<Attempt>> {
        self.database.read(move |connection| attempts_of(connection, id)).await
    }

    async fn place(&self, placements: Vec<Placement>) -> Result<Vec<Placed>> {
        self.database.submit(move |connection| place::place(connection, &placements)).await
    }

    async fn place_one(&self, placement: Placement, once: Option<Once>) -> Result<Done<Task>> {
        let change = Change::new(placement.entry.clone(), once);
        self.database
            .write(change, move |connection, _| {
                let (placed, trace) = place::place(connection, std::slice::from_ref(&placement))?;
                if placed == [Placed::Held] {
                    return Ok((placement.task.clone(), trace));
                }
                let current = load(connection, placement.task.id)?.revision;
                Err(Error::Stale { what: format!("task {}", placement.task.id), current }.into())
            })
            .await
    }

    async fn held_on(&self, server: ServerId) -> Result<Vec<Task>> {
        self.database.read(move |connection| held_on(connection, server)).await
    }

    async fn update(&self, task: Task, step: AttemptStep, change: Change) -> Result<Done<Task>> {
        self.database
            .write(change, move |connection, entry| {
                let trace = update(connection, &task, &step, entry)?;
                Ok((task.clone(), trace))
            })
            .await
    }

    async fn confirm(&self, task: Task, change: Change) -> Result<Done<Task>> {
        let work =
            move |connection: &mut AnyConnection, _| Ok((guard(connection, task.id, task.revision)?, Trace::default()));
        self.database.write(change, work).await
    }

    async fn delete(&self, task: Task, change: Change) -> Result<Done<()>> {
        self.database
            .write(change, move |connection, entry| {
                delete(connection, &task)?;
                Ok(((), Trace::from(entry).telling(Fact::TaskGone(task.id))))
            })
            .await
    }

    async fn answered(&self, once: Once, now: Timestamp) -> Result<Option<Task>> {
        self.database.answered(once, now).await
    }

    async fn catch_up(&self) -> Result<()> {
        self.database.catch_up().await
    }

    async fn tell_anew(&self) -> Result<()> {
        self.database.tell_anew().await
    }

    async fn ledger_check(&self) -> Result<Vec<Discrepancy>> {
        // In the writer's turn, so that nothing is counted twice or missed while it moves.
        self.database.submit(|connection| Ok((ledger::check(connection)?, Trace::default()))).await
    }

    async fn ledger_mend(&self, change: Change) -> Result<Done<Vec<Discrepancy>>> {
        self.database.write(change, ledger::mend).await
    }
}
