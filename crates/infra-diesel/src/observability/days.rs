//! Days of samples as compressed columns: how rows and others are moved into them.
//!
//! What is written is computed from what was read before, without holding anybody up, and is written only if the day is
//! still as it was read: its columns by their revision, its rows by their number and size, since rows come and grow, and
//! nothing of them is changed or goes. One transaction writes the columns and removes the rows, so that whenever the
//! process ends, each sample is there once.

use super::{
    codec::{DAY_US, read_readings, read_times, read_values, write_hours, write_times, write_values},
    take::{Row, note_newest},
};
use crate::{
    connection::{AnyConnection, each},
    failure::Failure,
    schema::{sample_columns, sample_days, samples},
    values::corrupt,
};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Integer},
};
use domain::{
    Error,
    observability::{Metric, Readings, hours_of},
};
use std::collections::{BTreeMap, btree_map::Entry};

/// A server and a day of UTC, counted from 1970.
pub(super) type Key = (i64, i64);

/// A day as it was read.
#[derive(Debug, Default)]
pub(super) struct Day {
    /// 0 if it has no columns yet.
    revision: i64,
    rows: Rows,
    samples: BTreeMap<i64, Readings>,
}

/// How many of a day's samples are rows, and how many bytes their readings have.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Rows {
    count: usize,
    bytes: usize,
}

impl Rows {
    fn of(sizes: impl Iterator<Item = usize>) -> Self {
        sizes.fold(Self::default(), |rows, size| Self { count: rows.count + 1, bytes: rows.bytes + size })
    }
}

/// What is done with a sample of a time that has one already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clash {
    /// It is a duplicate.
    Duplicate,
    /// The metrics that are not there yet are added.
    Merge,
}

/// A day as it is to be written.
pub(super) struct Sealed {
    key: Key,
    /// What the day was when it was read.
    revision: i64,
    rows: Rows,
    count: i64,
    first_us: i64,
    last_us: i64,
    times: Vec<u8>,
    /// Each metric's number, values and hours.
    columns: Vec<(i32, Vec<u8>, Vec<u8>)>,
}

impl Day {
    /// Reads a day: its columns, and its rows besides.
    pub(super) fn load(connection: &mut AnyConnection, key: Key) -> Result<Self, Failure> {
        let mut read = Self { samples: Self::load_columns(connection, key)?, ..Self::default() };
        let header = sample_days::table.find(key).select(sample_days::revision);
        read.revision = header.first(connection).optional()?.unwrap_or_default();
        let rows: Vec<(i64, Vec<u8>)> =
            samples::table.filter(rows_of(key)).select((samples::at_us, samples::readings)).load(connection)?;
        read.rows = Rows::of(rows.iter().map(|(_, readings)| readings.len()));
        for (at_us, readings) in rows {
            read.samples.entry(at_us).or_insert(read_readings(&readings)?);
        }
        Ok(read)
    }

    /// Its samples that are in columns.
    pub(super) fn load_columns(connection: &mut AnyConnection, key: Key) -> Result<BTreeMap<i64, Readings>, Failure> {
        let (server, day) = key;
        let times = sample_days::table.find(key).select(sample_days::times);
        let Some(times) = times.first::<Vec<u8>>(connection).optional()? else { return Ok(BTreeMap::new()) };
        let of = sample_columns::server_id.eq(server).and(sample_columns::day.eq(day));
        let columns = sample_columns::table.filter(of).select((sample_columns::metric, sample_columns::readings));
        samples_of(&read_times(&times)?, &columns.load(connection)?)
    }

    /// Adds a sample; tells how many of its readings are new.
    pub(super) fn add(&mut self, at_us: i64, readings: &Readings, clash: Clash) -> usize {
        let known = match self.samples.entry(at_us) {
            Entry::Vacant(place) => place.insert(Readings::default()),
            Entry::Occupied(_) if clash == Clash::Duplicate => return 0,
            Entry::Occupied(place) => place.into_mut(),
        };
        let mut added = 0;
        for (metric, value) in readings.iter().filter(|(metric, _)| known.get(*metric).is_none()).collect::<Vec<_>>() {
            known.set(metric, Some(value));
            added += 1;
        }
        added
    }

    /// What was measured at a time.
    pub(super) fn at(&self, at_us: i64) -> Option<&Readings> {
        self.samples.get(&at_us)
    }

    /// Compresses it; `None` if there is nothing in it.
    pub(super) fn seal(&self, key: Key) -> Result<Option<Sealed>, Failure> {
        let times: Vec<i64> = self.samples.keys().copied().collect();
        let (Some(first_us), Some(last_us)) = (times.first().copied(), times.last().copied()) else { return Ok(None) };
        let mut columns = Vec::new();
        for metric in Metric::ALL {
            let values: Vec<Option<f64>> = self.samples.values().map(|readings| readings.get(*metric)).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let (at, present): (Vec<i64>, Vec<f64>) =
                times.iter().zip(&values).filter_map(|(time, value)| value.map(|value| (*time, value))).unzip();
            columns.push((metric.code(), write_values(&values)?, write_hours(&hours_of(&at, &present))?));
        }
        Ok(Some(Sealed {
            key,
            revision: self.revision,
            rows: self.rows,
            count: i64::try_from(times.len()).map_err(|error| corrupt(error.to_string()))?,
            first_us,
            last_us,
            times: write_times(&times)?,
            columns,
        }))
    }
}

fn samples_of(times: &[i64], columns: &[(i32, Vec<u8>)]) -> Result<BTreeMap<i64, Readings>, Failure> {
    let mut readings = vec![Readings::default(); times.len()];
    for (code, bytes) in columns {
        let metric = Metric::by_code(*code).ok_or_else(|| corrupt(format!("metric {code} is of a newer version")))?;
        let (values, places) = read_values(bytes)?;
        let mut set = |place: usize, value| {
            if let Some(readings) = readings.get_mut(place) {
                readings.set(metric, Some(value));
            }
        };
        match places {
            None => values.into_iter().enumerate().for_each(|(place, value)| set(place, value)),
            Some(places) => {
                for (place, value) in places.into_iter().zip(values) {
                    set(usize::try_from(place).map_err(|error| corrupt(error.to_string()))?, value);
                }
            }
        }
    }
    Ok(times.iter().copied().zip(readings).collect())
}

/// The rows of a server and day.
#[diesel::dsl::auto_type(no_type_alias)]
fn rows_of(key: Key) -> _ {
    let (server, day): (i64, i64) = key;
    let (start, end): (i64, i64) = (day * DAY_US, (day + 1) * DAY_US);
    samples::server_id.eq(server).and(samples::at_us.ge(start)).and(samples::at_us.lt(end))
}

/// Says that a day has changed since it was read, so that what was computed from it is not so any more.
const MOVED: &str = "sample_day_moved";

/// Whether that is why a write failed.
pub(super) fn has_moved<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Conflict { code: MOVED, .. }))
}

fn check(is_as_read: bool) -> Result<(), Failure> {
    if is_as_read { Ok(()) } else { Err(Error::conflict(MOVED, "more samples came meanwhile; try again").into()) }
}

/// Writes days, and removes their rows; `newest` are samples that no row had.
pub(super) fn write(connection: &mut AnyConnection, days: &[Sealed], newest: &[Row]) -> Result<(), Failure> {
    for day in days {
        check(revision(connection, day.key)? == day.revision)?;
        check(remove_rows(connection, day.key)? == day.rows)?;
        write_header(connection, day)?;
        write_columns(connection, day)?;
    }
    note_newest(connection, newest.iter())
}

const REMOVE: &str = "
    DELETE FROM samples WHERE server_id = $1 AND at_us >= $2 AND at_us < $3 RETURNING length(readings) AS bytes";

#[derive(QueryableByName)]
struct Removed {
    #[diesel(sql_type = Integer)]
    bytes: i32,
}

fn remove_rows(connection: &mut AnyConnection, (server, day): Key) -> Result<Rows, Failure> {
    let query = sql_query(REMOVE)
        .bind::<BigInt, _>(server)
        .bind::<BigInt, _>(day * DAY_US)
        .bind::<BigInt, _>((day + 1) * DAY_US);
    let removed: Vec<Removed> = query.load(connection)?;
    Ok(Rows::of(removed.into_iter().map(|removed| usize::try_from(removed.bytes).unwrap_or_default())))
}

/// The revision of a day's columns, which nobody changes until the transaction ends; 0 if there are none.
fn revision(connection: &mut AnyConnection, key: Key) -> Result<i64, Failure> {
    let header = sample_days::table.find(key).select(sample_days::revision);
    let found: Option<i64> = match connection {
        AnyConnection::Sqlite(c) => header.first(c).optional()?,
        // Another process of this database may be at it as well.
        AnyConnection::Postgresql(c) => header.for_update().first(c).optional()?,
    };
    Ok(found.unwrap_or_default())
}

fn write_header(connection: &mut AnyConnection, day: &Sealed) -> Result<(), Failure> {
    let (server, number) = day.key;
    let set = (
        sample_days::revision.eq(day.revision + 1),
        sample_days::count.eq(day.count),
        sample_days::first_us.eq(day.first_us),
        sample_days::last_us.eq(day.last_us),
        sample_days::times.eq(&day.times),
    );
    let key = (sample_days::server_id.eq(server), sample_days::day.eq(number));
    if day.revision == 0 {
        // On PostgreSQL the key keeps a second process out that has read nothing there either.
        diesel::insert_into(sample_days::table).values((key, set)).execute(connection)?;
    } else {
        diesel::update(sample_days::table.find(day.key)).set(set).execute(connection)?;
    }
    Ok(())
}

fn write_columns(connection: &mut AnyConnection, day: &Sealed) -> Result<(), Failure> {
    let (server, number) = day.key;
    for (metric, readings, hours) in &day.columns {
        let key =
            (sample_columns::server_id.eq(server), sample_columns::metric.eq(metric), sample_columns::day.eq(number));
        let set = (sample_columns::readings.eq(readings), sample_columns::hours.eq(hours));
        each!(connection, c => {
            diesel::insert_into(sample_columns::table)
                .values((key, set))
                .on_conflict((sample_columns::server_id, sample_columns::metric, sample_columns::day))
                .do_update()
                .set(set)
                .execute(c)?
        });
    }
    Ok(())
}
