//! Rows of tasks and attempts, and their conversion from and to the domain.

use crate::{
    failure::Failure,
    schema::{attempts, tasks},
    values::{corrupt, from_json, from_us, to_json, to_us, word},
};
use diesel::prelude::*;
use domain::{
    clock::Timestamp,
    ids::{ServerId, TaskId},
    scheduling::{Attempt, AttemptStatus, Task, TaskStatus},
    units::Resources,
};
use std::sync::Arc;

#[derive(Queryable)]
pub(super) struct TaskRow {
    id: i64,
    spec: String,
    status: String,
    _pool_id: Option<i64>,
    attempt: i64,
    server_id: Option<i64>,
    reason: Option<String>,
    detail: Option<String>,
    _search_text: String,
    revision: i64,
    created_at_us: i64,
    updated_at_us: i64,
    scheduled_at_us: Option<i64>,
    started_at_us: Option<i64>,
    finished_at_us: Option<i64>,
    barred: String,
}

impl TryFrom<TaskRow> for Task {
    type Error = Failure;

    fn try_from(row: TaskRow) -> Result<Self, Failure> {
        Ok(Self {
            id: TaskId(row.id),
            spec: Arc::new(from_json(&row.spec)?),
            status: word(&row.status, TaskStatus::parse)?,
            attempt: number(row.attempt)?,
            server_id: row.server_id.map(ServerId),
            reason: row.reason,
            detail: row.detail,
            barred: from_json(&row.barred)?,
            revision: row.revision,
            created_at: from_us(row.created_at_us)?,
            updated_at: from_us(row.updated_at_us)?,
            scheduled_at: row.scheduled_at_us.map(from_us).transpose()?,
            started_at: row.started_at_us.map(from_us).transpose()?,
            finished_at: row.finished_at_us.map(from_us).transpose()?,
        })
    }
}

fn number(attempt: i64) -> Result<u32, Failure> {
    u32::try_from(attempt).map_err(|error| corrupt(error.to_string()))
}

fn optional_us(at: Option<Timestamp>) -> Option<i64> {
    at.map(to_us)
}

/// What is written once.
#[derive(Insertable)]
#[diesel(table_name = tasks)]
#[diesel(treat_none_as_default_value = false)]
pub(super) struct NewTaskRow {
    spec: String,
    pool_id: Option<i64>,
    search_text: String,
    created_at_us: i64,
}

impl TryFrom<&Task> for NewTaskRow {
    type Error = Failure;

    fn try_from(task: &Task) -> Result<Self, Failure> {
        Ok(Self {
            spec: to_json(&*task.spec)?,
            pool_id: task.spec.pool_id.map(|pool| pool.0),
            search_text: task.search_text(),
            created_at_us: to_us(task.created_at),
        })
    }
}

/// What changes while a task lives.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = tasks)]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct TaskState {
    status: &'static str,
    attempt: i64,
    server_id: Option<i64>,
    reason: Option<String>,
    detail: Option<String>,
    barred: String,
    revision: i64,
    updated_at_us: i64,
    scheduled_at_us: Option<i64>,
    started_at_us: Option<i64>,
    finished_at_us: Option<i64>,
}

impl TryFrom<&Task> for TaskState {
    type Error = Failure;

    fn try_from(task: &Task) -> Result<Self, Failure> {
        Ok(Self {
            status: task.status.as_str(),
            attempt: task.attempt.into(),
            server_id: task.server_id.map(|server| server.0),
            reason: task.reason.clone(),
            detail: task.detail.clone(),
            barred: to_json(&task.barred)?,
            revision: task.revision,
            updated_at_us: to_us(task.updated_at),
            scheduled_at_us: optional_us(task.scheduled_at),
            started_at_us: optional_us(task.started_at),
            finished_at_us: optional_us(task.finished_at),
        })
    }
}

/// What changes while an attempt holds something.
#[derive(AsChangeset)]
#[diesel(table_name = attempts)]
#[diesel(treat_none_as_null = true)]
pub(super) struct AttemptState {
    held: bool,
    status: &'static str,
    exit_code: Option<i64>,
    signal: Option<i64>,
    reason: Option<String>,
    started_at_us: Option<i64>,
    finished_at_us: Option<i64>,
}

impl From<&Attempt> for AttemptState {
    fn from(attempt: &Attempt) -> Self {
        Self {
            held: attempt.held,
            status: attempt.status.as_str(),
            exit_code: attempt.exit_code,
            signal: attempt.signal,
            reason: attempt.reason.clone(),
            started_at_us: optional_us(attempt.started_at),
            finished_at_us: optional_us(attempt.finished_at),
        }
    }
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = attempts)]
#[diesel(treat_none_as_default_value = false)]
pub(super) struct AttemptRow {
    task_id: i64,
    number: i64,
    server_id: i64,
    cpu_millis: i64,
    memory_mib: i64,
    storage_mib: i64,
    gpus: i64,
    held: bool,
    status: String,
    exit_code: Option<i64>,
    signal: Option<i64>,
    reason: Option<String>,
    created_at_us: i64,
    started_at_us: Option<i64>,
    finished_at_us: Option<i64>,
}

impl From<&Attempt> for AttemptRow {
    fn from(attempt: &Attempt) -> Self {
        Self {
            task_id: attempt.task_id.0,
            number: attempt.number.into(),
            server_id: attempt.server_id.0,
            cpu_millis: attempt.demand.cpu_millis,
            memory_mib: attempt.demand.memory_mib,
            storage_mib: attempt.demand.storage_mib,
            gpus: attempt.demand.gpus,
            held: attempt.held,
            status: attempt.status.as_str().to_owned(),
            exit_code: attempt.exit_code,
            signal: attempt.signal,
            reason: attempt.reason.clone(),
            created_at_us: to_us(attempt.created_at),
            started_at_us: optional_us(attempt.started_at),
            finished_at_us: optional_us(attempt.finished_at),
        }
    }
}

impl TryFrom<AttemptRow> for Attempt {
    type Error = Failure;

    fn try_from(row: AttemptRow) -> Result<Self, Failure> {
        Ok(Self {
            task_id: TaskId(row.task_id),
            number: number(row.number)?,
            server_id: ServerId(row.server_id),
            demand: Resources {
                cpu_millis: row.cpu_millis,
                memory_mib: row.memory_mib,
                storage_mib: row.storage_mib,
                gpus: row.gpus,
            },
            status: word(&row.status, AttemptStatus::parse)?,
            exit_code: row.exit_code,
            signal: row.signal,
            reason: row.reason,
            started_at: row.started_at_us.map(from_us).transpose()?,
            finished_at: row.finished_at_us.map(from_us).transpose()?,
            created_at: from_us(row.created_at_us)?,
            held: row.held,
        })
    }
}
