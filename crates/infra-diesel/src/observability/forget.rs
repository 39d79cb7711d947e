//! Forgets samples in small steps, each a transaction of its own, so that nobody waits for long.

use super::codec::DAY_US;
use crate::{
    connection::AnyConnection,
    failure::Failure,
    schema::{sample_columns, sample_days, sample_newest, samples},
};
use diesel::prelude::*;
use domain::ids::ServerId;
use std::collections::BTreeSet;

/// How many days one step takes.
const DAYS: i64 = 50;
/// How many rows one step takes.
const ROWS: i64 = 1000;

/// What is to be forgotten.
pub(super) enum Old {
    /// Days before this one, counted from 1970.
    Before(i64),
    /// All of a server.
    Of(i64),
}

/// What one step did.
pub(super) struct Step {
    /// Compressed days that are gone.
    pub(super) days: usize,
    /// Rows of any table that are gone; after none, nothing is left.
    pub(super) rows: usize,
}

/// Forgets some of it.
pub(super) fn step(connection: &mut AnyConnection, old: &Old) -> Result<Step, Failure> {
    let days = old_days(connection, old)?;
    for (server, day) in &days {
        let columns = sample_columns::server_id.eq(server).and(sample_columns::day.eq(day));
        diesel::delete(sample_columns::table.filter(columns)).execute(connection)?;
        diesel::delete(sample_days::table.find((*server, *day))).execute(connection)?;
    }
    let rows = old_rows(connection, old)?;
    for (server, at_us) in &rows {
        diesel::delete(samples::table.find((*server, *at_us))).execute(connection)?;
    }
    let newest = match old {
        Old::Before(day) => {
            diesel::delete(sample_newest::table.filter(sample_newest::at_us.lt(day * DAY_US))).execute(connection)?
        }
        Old::Of(server) => diesel::delete(sample_newest::table.find(*server)).execute(connection)?,
    };
    Ok(Step { days: days.len(), rows: days.len() + rows.len() + newest })
}

fn old_days(connection: &mut AnyConnection, old: &Old) -> Result<Vec<(i64, i64)>, Failure> {
    let query = sample_days::table.select((sample_days::server_id, sample_days::day)).limit(DAYS);
    Ok(match old {
        Old::Before(day) => query.filter(sample_days::day.lt(*day)).load(connection)?,
        Old::Of(server) => query.filter(sample_days::server_id.eq(*server)).load(connection)?,
    })
}

fn old_rows(connection: &mut AnyConnection, old: &Old) -> Result<Vec<(i64, i64)>, Failure> {
    let query = samples::table.select((samples::server_id, samples::at_us)).limit(ROWS);
    Ok(match old {
        Old::Before(day) => query.filter(samples::at_us.lt(day * DAY_US)).load(connection)?,
        Old::Of(server) => query.filter(samples::server_id.eq(*server)).load(connection)?,
    })
}

/// Who has anything.
pub(super) fn servers(connection: &mut AnyConnection) -> Result<Vec<ServerId>, Failure> {
    let mut servers: BTreeSet<i64> = BTreeSet::new();
    servers.extend(sample_newest::table.select(sample_newest::server_id).load::<i64>(connection)?);
    servers.extend(sample_days::table.select(sample_days::server_id).distinct().load::<i64>(connection)?);
    servers.extend(samples::table.select(samples::server_id).distinct().load::<i64>(connection)?);
    Ok(servers.into_iter().map(ServerId).collect())
}
