//! Takes samples in: requests that wait are stored by one statement together, whoever they come from.

use super::codec::{day_of, read_times, write_readings};
use crate::{
    connection::AnyConnection,
    failure::Failure,
    feed::Trace,
    schema::{sample_days, sample_newest, samples},
    store::{Store, stopping},
    writer::Command,
};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Binary},
};
use domain::{
    Error, Result,
    ids::ServerId,
    observability::{Kept, Sample},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::oneshot;

/// How many samples are stored by one statement.
pub(super) const STEP: usize = 2000;

/// A sample of a server as it stands in a row.
#[derive(Debug, Clone, PartialEq, Eq, Insertable, Queryable)]
#[diesel(table_name = samples)]
pub(super) struct Row {
    pub(super) server_id: i64,
    pub(super) at_us: i64,
    pub(super) readings: Vec<u8>,
}

impl Row {
    pub(super) fn new(server: ServerId, sample: &Sample) -> Self {
        let at_us = sample.at.timestamp_micros();
        Self { server_id: server.0, at_us, readings: write_readings(&sample.readings) }
    }
}

/// What waits to be stored.
#[derive(Default)]
pub(super) struct Intake {
    waiting: Mutex<Vec<Request>>,
}

struct Request {
    rows: Vec<Row>,
    answer: oneshot::Sender<Result<Vec<Kept>>>,
}

impl Intake {
    /// Stores rows, and tells of each whether it is new.
    pub(super) async fn store(self: &Arc<Self>, store: &Store, rows: Vec<Row>) -> Result<Vec<Kept>> {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Request { rows, answer });
        // Whichever of these commands comes first takes all that waits then; the others find nothing.
        store.command(Box::new(Drain { intake: self.clone(), taken: Vec::new(), outcome: None })).await?;
        answered.await.map_err(|_closed| stopping())?
    }
}

/// Stores all that waits when its turn comes.
struct Drain {
    intake: Arc<Intake>,
    taken: Vec<Request>,
    outcome: Option<Result<Vec<Kept>>>,
}

impl Drain {
    /// Takes all that waits; once, since it may be run again.
    fn take(&mut self) {
        if self.taken.is_empty() {
            self.taken = std::mem::take(&mut *self.intake.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Command for Drain {
    fn run(&mut self, connection: &mut AnyConnection) -> Result<Trace, Failure> {
        self.take();
        let rows: Vec<&Row> = self.taken.iter().flat_map(|request| &request.rows).collect();
        self.outcome = Some(Ok(insert(connection, &rows)?));
        Ok(Trace::default())
    }

    fn fail(&mut self, error: Error) {
        // It may not have come to run at all, and nobody else may come who tells those that wait.
        self.take();
        self.outcome = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        let mut kept = match self.outcome {
            Some(Ok(kept)) => Ok(kept.into_iter()),
            Some(Err(error)) => Err(error),
            None => return,
        };
        for Request { rows, answer } in self.taken {
            let outcome = match &mut kept {
                Ok(kept) => Ok(kept.take(rows.len()).collect()),
                Err(error) => Err(again(error)),
            };
            // Whoever asked may have hung up; what is stored stays.
            let _ = answer.send(outcome);
        }
    }
}

/// The same failure for somebody else; its cause is in the log already.
fn again(error: &Error) -> Error {
    match error {
        Error::StorageFull { .. } => Error::StorageFull { source: None },
        Error::Unavailable { reason, .. } => Error::Unavailable { reason: reason.clone(), source: None },
        other => Error::internal(other.to_string()),
    }
}

/// Inserts rows that are new, and tells of each whether it was.
fn insert(connection: &mut AnyConnection, rows: &[&Row]) -> Result<Vec<Kept>, Failure> {
    let sealed = Sealed::load(connection, rows)?;
    let mut seen = BTreeSet::new();
    let mut fresh: Vec<&Row> = Vec::with_capacity(rows.len());
    for row in rows {
        if !sealed.has(row) && seen.insert((row.server_id, row.at_us)) {
            fresh.push(row);
        }
    }
    let mut stored = BTreeSet::new();
    for some in fresh.chunks(STEP) {
        stored.extend(insert_some(connection, some)?);
    }
    note_newest(connection, fresh.iter().copied().filter(|row| stored.contains(&(row.server_id, row.at_us))))?;
    let told = |row: &&Row| {
        let is_new = stored.remove(&(row.server_id, row.at_us));
        if is_new { Kept::New } else { Kept::Duplicate }
    };
    Ok(rows.iter().map(told).collect())
}

const INSERT_POSTGRES: &str = "
    INSERT INTO samples (server_id, at_us, readings) SELECT * FROM unnest($1, $2, $3)
    ON CONFLICT DO NOTHING RETURNING server_id, at_us";

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = BigInt)]
    server_id: i64,
    #[diesel(sql_type = BigInt)]
    at_us: i64,
}

/// The keys of those that were not there.
pub(super) fn insert_some(connection: &mut AnyConnection, rows: &[&Row]) -> Result<Vec<(i64, i64)>, Failure> {
    match connection {
        AnyConnection::Sqlite(c) => {
            let mut stored = Vec::with_capacity(rows.len());
            for row in rows {
                let new = diesel::insert_into(samples::table).values(*row).on_conflict_do_nothing().execute(c)?;
                if new > 0 {
                    stored.push((row.server_id, row.at_us));
                }
            }
            Ok(stored)
        }
        AnyConnection::Postgresql(c) => {
            let (mut servers, mut times, mut readings) = (Vec::new(), Vec::new(), Vec::new());
            for row in rows {
                servers.push(row.server_id);
                times.push(row.at_us);
                readings.push(row.readings.as_slice());
            }
            let insert = sql_query(INSERT_POSTGRES)
                .bind::<Array<BigInt>, _>(servers)
                .bind::<Array<BigInt>, _>(times)
                .bind::<Array<Binary>, _>(readings);
            let stored: Vec<Stored> = insert.load(c)?;
            Ok(stored.into_iter().map(|stored| (stored.server_id, stored.at_us)).collect())
        }
    }
}

/// The times that are in compressed days already.
pub(super) struct Sealed {
    times: HashMap<(i64, i64), BTreeSet<i64>>,
}

impl Sealed {
    /// Reads the days in which a row could be there already: most rows are newer than all that their day has.
    pub(super) fn load(connection: &mut AnyConnection, rows: &[&Row]) -> Result<Self, Failure> {
        let mut spans = Spans::new();
        for row in rows {
            let span = spans.entry((row.server_id, day_of(row.at_us))).or_insert((row.at_us, row.at_us));
            *span = (span.0.min(row.at_us), span.1.max(row.at_us));
        }
        let mut times = HashMap::new();
        for (server, day, found) in overlapping(connection, &spans)? {
            times.insert((server, day), read_times(&found)?.into_iter().collect());
        }
        Ok(Self { times })
    }

    pub(super) fn has(&self, row: &Row) -> bool {
        self.times.get(&(row.server_id, day_of(row.at_us))).is_some_and(|times| times.contains(&row.at_us))
    }
}

/// The first and the last of what is asked for, by server and day.
type Spans = BTreeMap<(i64, i64), (i64, i64)>;

/// Days that have samples where some are asked for, and perhaps a few more.
fn overlapping(connection: &mut AnyConnection, spans: &Spans) -> Result<Vec<(i64, i64, Vec<u8>)>, Failure> {
    let columns = (sample_days::server_id, sample_days::day, sample_days::times);
    match connection {
        AnyConnection::Sqlite(c) => {
            let mut found = Vec::new();
            for ((server, day), (first, last)) in spans {
                let overlaps = sample_days::first_us.le(*last).and(sample_days::last_us.ge(*first));
                let row = sample_days::table.find((*server, *day)).filter(overlaps).select(columns);
                found.extend(row.first(c).optional()?);
            }
            Ok(found)
        }
        AnyConnection::Postgresql(c) => {
            let servers: BTreeSet<i64> = spans.keys().map(|(server, _)| *server).collect();
            let days: BTreeSet<i64> = spans.keys().map(|(_, day)| *day).collect();
            let first = spans.values().map(|(first, _)| *first).min().unwrap_or(i64::MAX);
            let named = sample_days::server_id.eq_any(servers).and(sample_days::day.eq_any(days));
            let query = sample_days::table.filter(named.and(sample_days::last_us.ge(first)));
            Ok(query.select(columns).load(c)?)
        }
    }
}

const NEWEST_POSTGRES: &str = "
    INSERT INTO sample_newest (server_id, at_us, readings) SELECT * FROM unnest($1, $2, $3)
    ON CONFLICT (server_id) DO UPDATE SET at_us = excluded.at_us, readings = excluded.readings
    WHERE excluded.at_us >= sample_newest.at_us";

/// Notes the newest of what was stored, where it is newer than all before it, or is that one with more readings.
pub(super) fn note_newest<'a>(
    connection: &mut AnyConnection,
    rows: impl Iterator<Item = &'a Row>,
) -> Result<(), Failure> {
    let mut newest: BTreeMap<i64, &Row> = BTreeMap::new();
    for row in rows {
        let known = newest.entry(row.server_id).or_insert(row);
        if row.at_us > known.at_us {
            *known = row;
        }
    }
    match connection {
        AnyConnection::Sqlite(c) => {
            for row in newest.into_values() {
                use diesel::{query_dsl::methods::FilterDsl, upsert::excluded};
                let values = (
                    sample_newest::server_id.eq(row.server_id),
                    sample_newest::at_us.eq(row.at_us),
                    sample_newest::readings.eq(&row.readings),
                );
                let set = (
                    sample_newest::at_us.eq(excluded(sample_newest::at_us)),
                    sample_newest::readings.eq(excluded(sample_newest::readings)),
                );
                diesel::insert_into(sample_newest::table)
                    .values(values)
                    .on_conflict(sample_newest::server_id)
                    .do_update()
                    .set(set)
                    .filter(sample_newest::at_us.le(excluded(sample_newest::at_us)))
                    .execute(c)?;
            }
        }
        AnyConnection::Postgresql(c) => {
            let rows: Vec<&Row> = newest.into_values().collect();
            if !rows.is_empty() {
                sql_query(NEWEST_POSTGRES)
                    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.server_id).collect::<Vec<_>>())
                    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.at_us).collect::<Vec<_>>())
                    .bind::<Array<Binary>, _>(rows.iter().map(|row| row.readings.as_slice()).collect::<Vec<_>>())
                    .execute(c)?;
            }
        }
    }
    Ok(())
}
