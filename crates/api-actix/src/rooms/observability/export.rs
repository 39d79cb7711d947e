//! Streams samples as a table, one server after the other.

use crate::{reply::Media, spreadsheet::cell};
use actix_web::web::Bytes;
use chrono::DateTime;
use domain::{
    Error, Result,
    observability::{Column, SampleService, Selection},
};
use futures_util::{Stream, stream};
use std::sync::Arc;

/// A table of samples.
#[derive(Debug)]
pub(super) struct TrendMedia;

impl Media for TrendMedia {
    const TYPES: &'static [&'static str] = &["text/csv"];
    const DESCRIPTION: &'static str = "The series, or with `export=csv` every sample.";
}

const COLUMNS: [&str; 5] = ["recorded_at", "host_id", "host_name", "metric", "value"];

/// The parts of the table.
pub(super) fn stream(samples: Arc<SampleService>, selection: Selection) -> impl Stream<Item = Result<Bytes>> {
    let selection = Arc::new(selection);
    // The first part is the head of the table.
    stream::try_unfold(None, move |place: Option<usize>| {
        let (samples, selection) = (samples.clone(), selection.clone());
        async move {
            let Some(place) = place else { return Ok(Some((written([COLUMNS.map(str::to_owned)])?, Some(0)))) };
            let Some(server) = selection.servers.get(place) else { return Ok(None) };
            let column = samples.export_step(&selection, server.id).await?;
            let (id, name, metric) = (server.id.to_string(), cell(server.name.as_str()), selection.metric.as_str());
            let rows = rows(column, &id, &name, metric);
            Ok(Some((written(rows)?, Some(place + 1))))
        }
    })
}

fn rows(column: Column, id: &str, name: &str, metric: &str) -> impl Iterator<Item = [String; 5]> {
    column.times.into_iter().zip(column.values).map(move |(time, value)| {
        let at = DateTime::from_timestamp_micros(time).unwrap_or_default();
        let at = at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        [at, id.to_owned(), name.to_owned(), metric.to_owned(), value.to_string()]
    })
}

fn written(rows: impl IntoIterator<Item = [String; 5]>) -> Result<Bytes> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).map_err(Error::internal)?;
    }
    Ok(writer.into_inner().map_err(|error| Error::internal(error.to_string()))?.into())
}
