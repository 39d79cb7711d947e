//! Streams the audit log, a thousand rows at a time, up to the head that it had at the beginning.

use super::dto::{AuditRowView, ExportFormat};
use crate::{openapi::facts::AnswerHeader, reply::Media, spreadsheet::cell};
use actix_web::web::Bytes;
use domain::{
    Error, Result,
    audit::{AuditFilter, AuditRow, AuditService, Head},
};
use futures_util::{Stream, stream};
use std::sync::Arc;

/// An export.
#[derive(Debug)]
pub(super) struct ExportMedia;

impl Media for ExportMedia {
    const TYPES: &'static [&'static str] = &["application/x-ndjson", "text/csv"];
    const DESCRIPTION: &'static str = "The rows, oldest first.";
    const HEADERS: &'static [AnswerHeader] = &[AnswerHeader::AuditHead];
}

const COLUMNS: [&str; 12] = [
    "seq",
    "created_at",
    "actor",
    "on_behalf_of",
    "action",
    "target",
    "outcome",
    "before",
    "after",
    "message",
    "request_id",
    "hash",
];

/// Where an export is.
enum Stage {
    Start,
    After(i64),
    End,
}

/// The parts of an export.
pub(super) fn stream(
    audit: Arc<AuditService>,
    filter: AuditFilter,
    format: ExportFormat,
    head: Head,
) -> impl Stream<Item = Result<Bytes>> {
    stream::try_unfold(Stage::Start, move |stage| {
        let (audit, filter, head) = (Arc::clone(&audit), filter.clone(), head.clone());
        async move {
            let seq = match stage {
                Stage::Start if format == ExportFormat::Csv => {
                    return Ok(Some((csv(&[COLUMNS.map(str::to_owned)])?, Stage::After(0))));
                }
                Stage::Start => 0,
                Stage::After(seq) => seq,
                Stage::End => return Ok(None),
            };
            let mut rows = audit.export_step(filter, seq).await?;
            rows.retain(|row| row.seq <= head.seq);
            let Some(last) = rows.last().map(|row| row.seq) else {
                return Ok((format == ExportFormat::Jsonl).then(|| (head_line(&head), Stage::End)));
            };
            Ok(Some((written(rows, format)?, Stage::After(last))))
        }
    })
}

fn written(rows: Vec<AuditRow>, format: ExportFormat) -> Result<Bytes> {
    match format {
        ExportFormat::Jsonl => {
            let mut lines = Vec::new();
            for row in rows {
                serde_json::to_writer(&mut lines, &AuditRowView::from(row)).map_err(Error::internal)?;
                lines.push(b'\n');
            }
            Ok(lines.into())
        }
        ExportFormat::Csv => csv(&rows.into_iter().map(record).collect::<Vec<_>>()),
    }
}

fn head_line(head: &Head) -> Bytes {
    let line = serde_json::json!({ "head": { "seq": head.seq, "hash": head.hash } });
    format!("{line}\n").into()
}

fn record(row: AuditRow) -> [String; 12] {
    let AuditRow { seq, entry, hash } = row;
    let json = |value: Option<serde_json::Value>| value.map(|value| value.to_string()).unwrap_or_default();
    let text = |value: Option<String>| value.map(|text| cell(&text)).unwrap_or_default();
    [
        seq.to_string(),
        entry.created_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        cell(&entry.actor),
        text(entry.on_behalf_of),
        cell(&entry.action),
        text(entry.target),
        entry.outcome.as_str().to_owned(),
        json(entry.before),
        json(entry.after),
        text(entry.message),
        text(entry.request_id),
        hash,
    ]
}

fn csv(records: &[[String; 12]]) -> Result<Bytes> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.write_record(record).map_err(Error::internal)?;
    }
    Ok(writer.into_inner().map_err(|error| Error::internal(error.to_string()))?.into())
}
