//! The tables of samples, which are in a database of their own on `SQLite`.

use super::tables::{Copied, chunks, differs, tables};
use crate::{connection::AnyConnection, failure::Failure, schema, values::corrupt};
use diesel::{
    connection::{DefaultLoadingMode, SimpleConnection},
    pg::PgRowByRowLoadingMode,
    prelude::*,
};

tables! {
    samples (server_id, at_us) { server_id: i64, at_us: i64, readings: Vec<u8> }
    sample_days (server_id, day) {
        server_id: i64, day: i64, revision: i64, count: i64, first_us: i64, last_us: i64, times: Vec<u8>,
    }
    sample_columns (server_id, metric, day) {
        server_id: i64, metric: i32, day: i64, readings: Vec<u8>, hours: Vec<u8>,
    }
    sample_newest (server_id) { server_id: i64, at_us: i64, readings: Vec<u8> }
}

/// Whether anything was ever measured.
pub(super) fn has_data(connection: &mut AnyConnection) -> Result<bool, Failure> {
    Ok(count(connection)?.iter().any(|(_, rows)| *rows > 0))
}
