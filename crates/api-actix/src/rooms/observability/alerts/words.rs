//! The words of alerts, as they stand in the API document.

use domain::observability::alerts::{AlertReason, AlertState, Comparison, Condition, Day, Severity, SubjectKind};
use schemars::{Schema, SchemaGenerator, json_schema};

pub(super) use super::super::words::optional_metric;
use super::super::words::words;

words! {
    severity: Severity, "string";
    optional_severity: Severity, ["string", "null"];
    state: AlertState, "string";
    optional_state: AlertState, ["string", "null"];
    optional_comparison: Comparison, ["string", "null"];
    optional_reason: AlertReason, ["string", "null"];
    subject_kind: SubjectKind, "string";
}

pub(super) fn kind(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Condition::KINDS })
}

pub(super) fn status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": [Condition::OFFLINE] })
}

pub(super) fn time_of_day(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$" })
}

/// A distance from UTC.
const OFFSET_PATTERN: &str = "^(Z|[+-]((0[0-9]|1[0-3]):[0-5][0-9]|14:00))$";

pub(super) fn utc_offset(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": OFFSET_PATTERN })
}

pub(super) fn optional_offset(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "pattern": OFFSET_PATTERN })
}

fn day_words() -> Vec<&'static str> {
    Day::ALL.iter().map(|day| day.as_str()).collect()
}

pub(super) fn days(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": day_words() } })
}

pub(super) fn optional_days(_: &mut SchemaGenerator) -> Schema {
    let item = json_schema!({ "type": "string", "enum": day_words() });
    json_schema!({ "type": ["array", "null"], "minItems": 1, "maxItems": Day::ALL.len(), "items": item })
}
