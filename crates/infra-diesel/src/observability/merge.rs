//! Adds readings to samples that may be there with other metrics, as long as those are rows.

use super::{
    codec::add_readings,
    take::{Row, STEP, Sealed, insert_some, note_newest},
};
use crate::{connection::AnyConnection, failure::Failure, schema::samples};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Binary},
};
use domain::Error;
use std::collections::BTreeMap;

/// What became of rows.
pub(super) struct Added {
    /// How many readings of each row are new, in their order.
    pub(super) counts: Vec<usize>,
    /// The places of those whose times are in compressed days; nothing of them is stored yet.
    pub(super) sealed: Vec<usize>,
}

/// A row that is there, or is to be there.
struct Place {
    readings: Vec<u8>,
    is_new: bool,
    has_changed: bool,
}

/// Adds rows, the first of each metric first.
pub(super) fn add(connection: &mut AnyConnection, rows: &[Row]) -> Result<Added, Failure> {
    let sealed = Sealed::load(connection, &rows.iter().collect::<Vec<_>>())?;
    let (sealed, open): (Vec<usize>, Vec<usize>) =
        (0..rows.len()).partition(|place| rows.get(*place).is_some_and(|row| sealed.has(row)));
    let mut counts = vec![0; rows.len()];
    for some in open.chunks(STEP) {
        let some: Vec<(usize, &Row)> = some.iter().filter_map(|place| Some((*place, rows.get(*place)?))).collect();
        let mut places = there(connection, &some)?;
        for (place, row) in some {
            let known = places.entry((row.server_id, row.at_us)).or_insert_with(|| Place {
                readings: Vec::new(),
                is_new: true,
                has_changed: false,
            });
            let added = add_readings(&mut known.readings, &row.readings);
            known.has_changed |= added > 0;
            if let Some(count) = counts.get_mut(place) {
                *count = added;
            }
        }
        write(connection, places)?;
    }
    Ok(Added { counts, sealed })
}

type Places = BTreeMap<(i64, i64), Place>;

const THERE_POSTGRES: &str = "
    SELECT server_id, at_us, readings FROM samples JOIN unnest($1, $2) AS wanted (server_id, at_us)
    USING (server_id, at_us) FOR UPDATE OF samples";

#[derive(QueryableByName)]
struct There {
    #[diesel(sql_type = BigInt)]
    server_id: i64,
    #[diesel(sql_type = BigInt)]
    at_us: i64,
    #[diesel(sql_type = Binary)]
    readings: Vec<u8>,
}

/// The rows of these servers and times that are there; nobody changes them until the transaction ends.
fn there(connection: &mut AnyConnection, rows: &[(usize, &Row)]) -> Result<Places, Failure> {
    let found: Vec<There> = match connection {
        AnyConnection::Sqlite(c) => {
            let mut found = Vec::new();
            for (_, Row { server_id, at_us, .. }) in rows {
                let readings = samples::table.find((server_id, at_us)).select(samples::readings);
                let readings = readings.first(c).optional()?;
                found.extend(readings.map(|readings| There { server_id: *server_id, at_us: *at_us, readings }));
            }
            found
        }
        AnyConnection::Postgresql(c) => {
            let (servers, times): (Vec<i64>, Vec<i64>) = rows.iter().map(|(_, row)| (row.server_id, row.at_us)).unzip();
            sql_query(THERE_POSTGRES).bind::<Array<BigInt>, _>(servers).bind::<Array<BigInt>, _>(times).load(c)?
        }
    };
    let place = |there: There| {
        let place = Place { readings: there.readings, is_new: false, has_changed: false };
        ((there.server_id, there.at_us), place)
    };
    Ok(found.into_iter().map(place).collect())
}

/// Says that another process stored a sample of the same server and time meanwhile.
const RACED: &str = "sample_raced";

fn write(connection: &mut AnyConnection, places: Places) -> Result<(), Failure> {
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for ((server_id, at_us), place) in places.into_iter().filter(|(_, place)| place.has_changed) {
        let row = Row { server_id, at_us, readings: place.readings };
        if place.is_new { new.push(row) } else { changed.push(row) }
    }
    if insert_some(connection, &new.iter().collect::<Vec<_>>())?.len() < new.len() {
        return Err(Error::conflict(RACED, "another sample of this time came meanwhile; try again").into());
    }
    update(connection, &changed)?;
    note_newest(connection, new.iter().chain(&changed))
}

/// Whether that is why a write failed.
pub(super) fn has_raced<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Conflict { code: RACED, .. }))
}

const UPDATE_POSTGRES: &str = "
    UPDATE samples SET readings = more.readings FROM unnest($1, $2, $3) AS more (server_id, at_us, readings)
    WHERE samples.server_id = more.server_id AND samples.at_us = more.at_us";

fn update(connection: &mut AnyConnection, rows: &[Row]) -> Result<(), Failure> {
    match connection {
        AnyConnection::Sqlite(c) => {
            for row in rows {
                diesel::update(samples::table.find((row.server_id, row.at_us)))
                    .set(samples::readings.eq(&row.readings))
                    .execute(c)?;
            }
        }
        AnyConnection::Postgresql(c) => {
            if !rows.is_empty() {
                sql_query(UPDATE_POSTGRES)
                    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.server_id).collect::<Vec<_>>())
                    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.at_us).collect::<Vec<_>>())
                    .bind::<Array<Binary>, _>(rows.iter().map(|row| row.readings.as_slice()).collect::<Vec<_>>())
                    .execute(c)?;
            }
        }
    }
    Ok(())
}
