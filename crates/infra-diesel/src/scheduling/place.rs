//! Taking room for attempts, and giving it back.

use super::{
    accounts,
    rows::{AttemptRow, AttemptState, TaskState},
};
use crate::{
    connection::{AnyConnection, insert_all, update},
    failure::Failure,
    feed::Trace,
    fleet::{self, operations},
    pools,
    schema::{attempts, tasks},
};
use diesel::prelude::*;
use domain::{
    feed::Fact,
    fleet::operations::Operation,
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
    insert_all!(connection, attempts::table, &rows);
    let mut trace = Trace::default();
    for placement in &held {
        let task = &placement.task;
        update!(connection, diesel::update(tasks::table.find(task.id.0)).set(TaskState::try_from(task)?))?;
        trace.entries.push(placement.entry.clone());
        trace.facts.push(Fact::Task(Arc::new(task.clone())));
    }
    tell(&mut trace, reserved);
    let order = |placed: &&Placement| Operation::to_run(&placed.task, &placed.attempt, placed.attempt.created_at);
    let orders = operations::insert_all(connection, held.iter().filter_map(order).collect())?;
    operations::tell(&mut trace, orders);
    Ok((placed, trace))
}

/// Writes what a step does to the newest attempt of `task`, and to the operation by which an agent runs that.
pub(super) fn step(connection: &mut AnyConnection, task: &Task, step: &AttemptStep) -> Result<Trace, Failure> {
    let mut trace = Trace::default();
    if matches!(step, AttemptStep::Keep) || task.attempt == 0 {
        return Ok(trace);
    }
    let now = task.updated_at;
    let row = || attempts::table.find((task.id.0, i64::from(task.attempt)));
    let found: Option<AttemptRow> = row().first(connection).optional()?;
    // What has ended has ended.
    let Some(before) = found.map(Attempt::try_from).transpose()?.filter(|attempt| attempt.held) else {
        return Ok(trace);
    };
    let after = before.stepped(step, now);
    if after != before {
        update!(connection, diesel::update(row()).set(AttemptState::from(&after)))?;
    }
    if task.spec.driver.needs().is_some() {
        operations::tell(&mut trace, operations::step(connection, &before, step, now)?.map(Arc::new));
    }
    if !after.held {
        trace.append(give_back(connection, &before)?);
    }
    Ok(trace)
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
