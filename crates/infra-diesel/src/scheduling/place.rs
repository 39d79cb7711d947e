//! Taking room for attempts, and giving it back.

use super::{
    accounts,
    rows::{AttemptRow, TaskState},
};
use crate::{
    connection::{AnyConnection, each},
    failure::Failure,
    feed::Trace,
    fleet, pools,
    schema::{attempts, tasks},
    values::to_us,
};
use diesel::prelude::*;
use domain::{
    feed::Fact,
    scheduling::{Attempt, AttemptStep, Placed, Placement, Task, ledger::Reserved},
    units::Resources,
};
use std::sync::Arc;

/// Takes room for those placements that still hold, and leaves the others as they are.
pub(super) fn place(connection: &mut AnyConnection, placements: &[Placement]) -> Result<(Vec<Placed>, Trace), Failure> {
    let placing = placements.iter().map(|placement| (placement.task.id, placement.attempt.server_id));
    let mut accounts = accounts::lock(connection, placing)?;
    let placed: Vec<Placed> = placements.iter().map(|placement| accounts.take(placement)).collect();
    let held: Vec<&Placement> =
        placements.iter().zip(&placed).filter(|(_, placed)| **placed == Placed::Held).map(|(held, _)| held).collect();
    if held.is_empty() {
        return Ok((placed, Trace::default()));
    }
    let reserved = accounts.reserved();
    accounts::write(connection, &reserved)?;
    let rows: Vec<AttemptRow> = held.iter().map(|placement| AttemptRow::from(&placement.attempt)).collect();
    each!(connection, c => diesel::insert_into(attempts::table).values(&rows).execute(c))?;
    let mut trace = Trace::default();
    for placement in held {
        let task = &placement.task;
        diesel::update(tasks::table.find(task.id.0)).set(TaskState::from(task)).execute(connection)?;
        trace.entries.push(placement.entry.clone());
        trace.facts.push(Fact::Task(Arc::new(task.clone())));
    }
    tell(&mut trace, reserved);
    Ok((placed, trace))
}

/// What a change of `task` does to its newest attempt.
pub(super) fn step(connection: &mut AnyConnection, task: &Task, step: &AttemptStep) -> Result<Trace, Failure> {
    let key = (task.id.0, i64::from(task.attempt));
    let row = || attempts::table.find(key);
    if matches!(step, AttemptStep::Keep) || task.attempt == 0 {
        return Ok(Trace::default());
    }
    let found: Option<AttemptRow> = row().first(connection).optional()?;
    let Some(attempt) = found.map(Attempt::try_from).transpose()? else { return Ok(Trace::default()) };
    if !attempt.held {
        // What has ended has ended.
        return Ok(Trace::default());
    }
    let after = match step {
        AttemptStep::Keep => return Ok(Trace::default()),
        AttemptStep::Start => attempt.started(task.updated_at),
        AttemptStep::End { status, reason } => attempt.ended(*status, *reason, task.updated_at),
    };
    diesel::update(row())
        .set((
            attempts::held.eq(after.held),
            attempts::status.eq(after.status.as_str()),
            attempts::reason.eq(&after.reason),
            attempts::started_at_us.eq(after.started_at.map(to_us)),
            attempts::finished_at_us.eq(after.finished_at.map(to_us)),
        ))
        .execute(connection)?;
    if after.held { Ok(Trace::default()) } else { give_back(connection, &attempt) }
}

/// A counter that is too low already must not keep a task from ending: the check of the ledger sets it right.
fn without(reserved: Resources, given_back: Resources) -> Resources {
    let left = reserved.minus(given_back);
    if Resources::default().fits_in(left) {
        return left;
    }
    tracing::error!("{reserved:?} is reserved, but {given_back:?} of it is given back; check the ledger");
    left.at_least_nothing()
}

fn give_back(connection: &mut AnyConnection, attempt: &Attempt) -> Result<Trace, Failure> {
    let servers = fleet::lock(connection, [attempt.server_id].into())?;
    let pools = pools::lock(connection, servers.iter().filter_map(|server| server.pool_id).collect())?;
    let reserved = Reserved {
        servers: servers.iter().map(|server| (server.id, without(server.reserved, attempt.demand))).collect(),
        pools: pools.iter().map(|(pool, reserved)| (pool.id, without(*reserved, attempt.demand))).collect(),
    };
    accounts::write(connection, &reserved)?;
    let mut trace = Trace::default();
    tell(&mut trace, reserved);
    Ok(trace)
}

pub(super) fn tell(trace: &mut Trace, reserved: Reserved) {
    trace.facts.extend(reserved.servers.into_iter().map(|(id, reserved)| Fact::ServerReserved(id, reserved)));
    trace.facts.extend(reserved.pools.into_iter().map(|(id, reserved)| Fact::PoolReserved(id, reserved)));
}
