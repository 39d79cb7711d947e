//! Reads samples: rows and columns as they are at one moment, so that what is moved from the ones to the others meanwhile
//! is read once.

use super::{
    codec::{day_of, read_hours, read_reading, read_readings, read_times, read_values},
    days::Day,
};
use crate::{
    connection::AnyConnection,
    failure::Failure,
    paging,
    schema::{sample_columns, sample_days, sample_newest, samples},
    values::{corrupt, from_us},
};
use diesel::{connection::SimpleConnection, prelude::*};
use domain::{
    ids::ServerId,
    observability::{Column, Detail, Metric, Piece, Range, Readings, Sample, Wanted},
    page::{Page, PageRequest},
};
use std::collections::{BTreeMap, HashMap};

/// How cursors name the order of samples.
const NEWEST_FIRST: &str = "-recorded_at";

/// Runs reads that belong together at one moment of the database.
pub(super) fn at_once<T>(
    connection: &mut AnyConnection,
    work: impl FnOnce(&mut AnyConnection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    connection.batch_execute(match connection {
        AnyConnection::Sqlite(_) => "BEGIN",
        AnyConnection::Postgresql(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    })?;
    let outcome = work(connection);
    // Nothing was written. Why it failed says more than that it cannot be ended either.
    let ended = connection.batch_execute("ROLLBACK");
    let found = outcome?;
    ended?;
    Ok(found)
}

/// What is stored of one server, still compressed.
#[derive(Default)]
pub(super) struct Stored {
    rows: Vec<(i64, Vec<u8>)>,
    /// Times and values of a day.
    columns: Vec<(Vec<u8>, Vec<u8>)>,
    /// Days of which hours are enough.
    hours: Vec<(i64, Vec<u8>)>,
}

/// The days of a range: those that are told by their hours lie in the middle.
struct Days {
    first: i64,
    last: i64,
    whole: std::ops::Range<i64>,
}

impl Days {
    fn of(range: &Range, detail: Detail) -> Self {
        let (from, to) = (range.from().timestamp_micros() + 1, range.to().timestamp_micros());
        let whole = match detail {
            Detail::Samples => 0..0,
            // The end of a day is not in it, and that of a range is.
            Detail::Hours => day_of(from - 1) + 1..day_of(to + 1),
        };
        Self { first: day_of(from), last: day_of(to), whole }
    }

    fn is_whole(&self, day: i64) -> bool {
        self.whole.contains(&day)
    }
}

/// Reads what is stored of these servers, in their order.
pub(super) fn load(connection: &mut AnyConnection, wanted: &Wanted) -> Result<Vec<(ServerId, Stored)>, Failure> {
    let servers: Vec<i64> = wanted.servers.iter().map(|server| server.0).collect();
    let days = Days::of(&wanted.range, wanted.detail);
    let mut found: HashMap<i64, Stored> = servers.iter().map(|server| (*server, Stored::default())).collect();
    at_once(connection, |connection| {
        load_rows(connection, &servers, &wanted.range, &mut found)?;
        load_columns(connection, &servers, wanted.metric, &days, &mut found)
    })?;
    let of = |server: &ServerId| (*server, found.remove(&server.0).unwrap_or_default());
    Ok(wanted.servers.iter().map(of).collect())
}

fn load_rows(
    connection: &mut AnyConnection,
    servers: &[i64],
    range: &Range,
    found: &mut HashMap<i64, Stored>,
) -> Result<(), Failure> {
    let (from, to) = (range.from().timestamp_micros(), range.to().timestamp_micros());
    let rows: Vec<(i64, i64, Vec<u8>)> = samples::table
        .filter(samples::server_id.eq_any(servers.to_vec()))
        .filter(samples::at_us.gt(from).and(samples::at_us.le(to)))
        .order((samples::server_id.asc(), samples::at_us.asc()))
        .load(connection)?;
    for (server, at_us, readings) in rows {
        found.entry(server).or_default().rows.push((at_us, readings));
    }
    Ok(())
}

fn load_columns(
    connection: &mut AnyConnection,
    servers: &[i64],
    metric: Metric,
    days: &Days,
    found: &mut HashMap<i64, Stored>,
) -> Result<(), Failure> {
    let of = sample_columns::server_id.eq_any(servers.to_vec()).and(sample_columns::metric.eq(metric.code()));
    if !days.whole.is_empty() {
        let whole = sample_columns::day.ge(days.whole.start).and(sample_columns::day.lt(days.whole.end));
        let hours = (sample_columns::server_id, sample_columns::day, sample_columns::hours);
        let hours: Vec<(i64, i64, Vec<u8>)> =
            sample_columns::table.filter(of.clone().and(whole)).select(hours).load(connection)?;
        for (server, day, hours) in hours {
            found.entry(server).or_default().hours.push((day, hours));
        }
    }
    let edges: Vec<i64> = (days.first..=days.last).filter(|day| !days.is_whole(*day)).collect();
    let columns = (sample_columns::server_id, sample_columns::day, sample_columns::readings);
    let columns: Vec<(i64, i64, Vec<u8>)> = sample_columns::table
        .filter(of.and(sample_columns::day.eq_any(edges.clone())))
        .select(columns)
        .load(connection)?;
    let times: Vec<(i64, i64, Vec<u8>)> = sample_days::table
        .filter(sample_days::server_id.eq_any(servers.to_vec()).and(sample_days::day.eq_any(edges)))
        .select((sample_days::server_id, sample_days::day, sample_days::times))
        .load(connection)?;
    let mut times: HashMap<(i64, i64), Vec<u8>> =
        times.into_iter().map(|(server, day, times)| ((server, day), times)).collect();
    for (server, day, readings) in columns {
        let times =
            times.remove(&(server, day)).ok_or_else(|| corrupt(format!("day {day} of {server} has no times")))?;
        found.entry(server).or_default().columns.push((times, readings));
    }
    Ok(())
}

impl Stored {
    /// Takes it out of its compressed form.
    pub(super) fn pieces(&self, metric: Metric) -> Result<Vec<Piece>, Failure> {
        let mut pieces = Vec::with_capacity(self.columns.len() + 2);
        for (times, values) in &self.columns {
            pieces.push(Piece::Samples(column(times, values)?));
        }
        let mut hours = Vec::new();
        for (day, bytes) in &self.hours {
            hours.extend(read_hours(bytes, *day)?);
        }
        if !hours.is_empty() {
            pieces.push(Piece::Hours(hours));
        }
        let present = self.rows.iter().filter_map(|(at_us, bytes)| Some((*at_us, read_reading(bytes, metric)?)));
        let (times, values): (Vec<i64>, Vec<f64>) = present.unzip();
        if !times.is_empty() {
            pieces.push(Piece::Samples(Column { times, values }));
        }
        Ok(pieces)
    }
}

fn column(times: &[u8], values: &[u8]) -> Result<Column, Failure> {
    let (times, (values, places)) = (read_times(times)?, read_values(values)?);
    let times = match places {
        None => times,
        Some(places) => {
            let at = |place: u32| usize::try_from(place).ok().and_then(|place| times.get(place).copied());
            let chosen: Option<Vec<i64>> = places.into_iter().map(at).collect();
            chosen.ok_or_else(|| corrupt("a column has more values than its day has samples".to_owned()))?
        }
    };
    if times.len() != values.len() {
        return Err(corrupt("a column has another number of values than of times".to_owned()));
    }
    Ok(Column { times, values })
}

/// The samples of a server, newest first.
pub(super) fn list(
    connection: &mut AnyConnection,
    server: ServerId,
    page: &PageRequest,
) -> Result<Page<Sample>, Failure> {
    at_once(connection, |connection| {
        let (items, total) = (newest_of(connection, server, page)?, total(connection, server)?);
        Ok(paging::page(items, page, total, NEWEST_FIRST, |sample| sample.at.timestamp_micros()))
    })
}

/// One more than the page has room for, if there are so many.
fn newest_of(connection: &mut AnyConnection, server: ServerId, page: &PageRequest) -> Result<Vec<Sample>, Failure> {
    let before = page.after.as_ref().map_or(i64::MAX, |cursor| cursor.id);
    let room = usize::from(page.limit) + 1;
    let rows: Vec<(i64, Vec<u8>)> = samples::table
        .filter(samples::server_id.eq(server.0).and(samples::at_us.lt(before)))
        .order(samples::at_us.desc())
        .limit(i64::from(page.limit) + 1)
        .select((samples::at_us, samples::readings))
        .load(connection)?;
    let mut found: BTreeMap<i64, Readings> = BTreeMap::new();
    for (at_us, readings) in rows {
        found.insert(at_us, read_readings(&readings)?);
    }
    let days: Vec<(i64, i64)> = sample_days::table
        .filter(sample_days::server_id.eq(server.0).and(sample_days::first_us.lt(before)))
        .order(sample_days::day.desc())
        .select((sample_days::day, sample_days::last_us))
        .load(connection)?;
    for (day, last_us) in days {
        // Enough are known already that are newer than all of this day and of those before it.
        if found.len() >= room && found.keys().nth_back(room - 1).is_some_and(|oldest| *oldest >= last_us) {
            break;
        }
        let samples = Day::load_columns(connection, (server.0, day))?;
        found.extend(samples.range(..before).map(|(at_us, readings)| (*at_us, *readings)));
    }
    let newest = found.into_iter().rev().take(room);
    newest.map(|(at_us, readings)| Ok(Sample { at: from_us(at_us)?, readings })).collect()
}

fn total(connection: &mut AnyConnection, server: ServerId) -> Result<i64, Failure> {
    let rows: i64 = samples::table.filter(samples::server_id.eq(server.0)).count().get_result(connection)?;
    let counts: Vec<i64> =
        sample_days::table.filter(sample_days::server_id.eq(server.0)).select(sample_days::count).load(connection)?;
    Ok(rows + counts.into_iter().sum::<i64>())
}

/// The newest sample of each.
pub(super) fn newest(connection: &mut AnyConnection, servers: &[i64]) -> Result<BTreeMap<ServerId, Sample>, Failure> {
    let rows: Vec<(i64, i64, Vec<u8>)> =
        sample_newest::table.filter(sample_newest::server_id.eq_any(servers.to_vec())).load(connection)?;
    let read = |(server, at_us, readings): (i64, i64, Vec<u8>)| {
        let sample = Sample { at: from_us(at_us)?, readings: read_readings(&readings)? };
        Ok((ServerId(server), sample))
    };
    rows.into_iter().map(read).collect()
}
