//! Pieces of requests and answers that several rooms have.

use chrono::{Datelike, SubsecRound};
use domain::{
    clock::Timestamp,
    error::Checks,
    patch::Patch,
    text::{self, Name},
};
use schemars::{Schema, SchemaGenerator, json_schema};
use std::collections::BTreeMap;

/// The longest single-line text besides names, in characters.
pub(crate) const MAX_LINE: usize = 128;
/// The longest description, in characters.
pub(crate) const MAX_DESCRIPTION: usize = 4096;

/// A visible line: no control characters, no space at either end.
const NAME_PATTERN: &str =
    "^[^\\u0000-\\u0020\\u007f-\\u00a0]([^\\u0000-\\u001f\\u007f-\\u009f]*[^\\u0000-\\u0020\\u007f-\\u00a0])?$";
/// A line without control characters.
const LINE_PATTERN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// The spellings of architectures that are told; others of the same are accepted too.
const ARCHITECTURES: [&str; 8] = ["x86_64", "amd64", "x64", "arm64", "aarch64", "arm64/v8", "riscv64", "riscv64gc"];

/// A name.
pub(crate) fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": text::MAX_NAME, "pattern": NAME_PATTERN })
}

/// A single line.
pub(crate) fn line(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "maxLength": MAX_LINE, "pattern": LINE_PATTERN })
}

/// A text of several lines.
pub(crate) fn description(_: &mut SchemaGenerator) -> Schema {
    let pattern = "^[^\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]*$";
    json_schema!({ "type": ["string", "null"], "maxLength": MAX_DESCRIPTION, "pattern": pattern })
}

/// An architecture in a request, in any common spelling.
pub(crate) fn architecture(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ARCHITECTURES })
}

/// Tags or labels.
pub(crate) fn tags(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["object", "null"],
        "maxProperties": text::MAX_TAGS,
        "description": "Keys have 1 to 63 letters, digits, `.`, `_`, `-` or `/` and start with a letter or digit.",
        "additionalProperties": { "type": "string", "maxLength": text::MAX_TAG_VALUE, "pattern": LINE_PATTERN },
    })
}

/// A merge patch of tags or labels.
pub(crate) fn tags_patch(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["object", "null"],
        "description": "A value sets a key, `null` removes it; `null` for the whole removes all.",
        "additionalProperties": { "type": ["string", "null"], "maxLength": text::MAX_TAG_VALUE, "pattern": LINE_PATTERN },
    })
}

/// Cores.
pub(crate) fn cores(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "number", "minimum": 0.001, "maximum": 1_000_000 })
}

/// GiB, at least a MiB.
pub(crate) fn gib(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "number", "minimum": 0.000_976_562_5, "maximum": 1_073_741_824 })
}

/// GiB, also none.
pub(crate) fn gib_or_none(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "number", "minimum": 0, "maximum": 1_073_741_824 })
}

/// A number of GPUs.
pub(crate) fn gpus(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_GPUS })
}

/// The most GPUs in a server.
pub(crate) const MAX_GPUS: i64 = 100_000;

/// Rows on a page.
pub(crate) fn limit(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["integer", "null"], "format": "int64", "minimum": 1, "maximum": domain::page::MAX_LIMIT })
}

/// A capacity of at least the smallest unit.
pub(crate) fn at_least_one(amount: Result<i64, String>, least: &str) -> Result<i64, String> {
    match amount {
        Ok(amount) if amount < 1 => Err(format!("must be at least {least}")),
        amount => amount,
    }
}

/// A number of GPUs.
pub(crate) fn gpu_count(gpus: i64) -> Result<i64, String> {
    if (0..=MAX_GPUS).contains(&gpus) { Ok(gpus) } else { Err(format!("must be from 0 to {MAX_GPUS}")) }
}

/// Checks an optional line.
pub(crate) fn optional_line(checks: &mut Checks, field: &str, text: Option<String>) -> Option<String> {
    text.and_then(|text| checks.take(field, text::line(text, MAX_LINE)))
}

/// Checks a time: to the microsecond, as it is kept, and in the years that RFC 3339 can say.
pub(crate) fn moment(at: Timestamp) -> Result<Timestamp, String> {
    if at.year() > 9999 { Err("must be before the year 10000".to_owned()) } else { Ok(at.trunc_subsecs(6)) }
}

/// Checks a patched line.
pub(crate) fn patched_line(checks: &mut Checks, field: &str, patch: Patch<String>) -> Patch<String> {
    patched(checks, field, patch, |text| text::line(text, MAX_LINE))
}

/// Checks a patched member that can be cleared.
pub(crate) fn patched<T, U>(
    checks: &mut Checks,
    field: &str,
    patch: Patch<T>,
    convert: impl FnOnce(T) -> Result<U, String>,
) -> Patch<U> {
    checks.take(field, patch.try_map(convert)).unwrap_or_default()
}

/// Checks a patched member that always has a value.
pub(crate) fn replaced<T, U>(
    checks: &mut Checks,
    field: &str,
    patch: Patch<T>,
    convert: impl FnOnce(T) -> Result<U, String>,
) -> Option<U> {
    let value = patch.required().and_then(|value| value.map(convert).transpose());
    checks.take(field, value).flatten()
}

/// Checks a patched name.
pub(crate) fn replaced_name(checks: &mut Checks, patch: Patch<String>) -> Option<Name> {
    replaced(checks, "name", patch, Name::parse)
}

/// The longest keyword, in characters.
pub(crate) const MAX_KEYWORD: usize = 128;

/// Checks a keyword.
pub(crate) fn keyword(checks: &mut Checks, text: Option<String>) -> Option<String> {
    let short = |text: String| {
        let long = text.chars().count() > MAX_KEYWORD;
        if long { Err(format!("must be at most {MAX_KEYWORD} characters long")) } else { Ok(text) }
    };
    text.and_then(|text| checks.take("keyword", short(text)))
}

/// Checks an id that refers to something.
pub(crate) fn reference(checks: &mut Checks, field: &str, id: Option<i64>) -> Option<i64> {
    id.and_then(|id| checks.take(field, if id >= 1 { Ok(id) } else { Err("must be a positive integer".to_owned()) }))
}

/// Checks the pairs that a merge patch sets.
pub(crate) fn patched_tags(
    checks: &mut Checks,
    field: &str,
    patch: Patch<BTreeMap<String, Option<String>>>,
) -> Patch<BTreeMap<String, Option<String>>> {
    patched(checks, field, patch, |pairs| {
        let set = pairs.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
        text::Tags::parse(set).map(|_| pairs)
    })
}

/// Pairs as they are shown.
pub(crate) fn shown(tags: &text::Tags) -> BTreeMap<String, String> {
    tags.as_map().clone()
}

/// The part of a list that is wanted, where there are no filters.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
pub(crate) struct Paging {
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

impl Paging {
    /// The domain's word for it, for a list that is sorted by `sort`.
    pub(crate) fn parse(self, sort: &str) -> domain::Result<domain::page::PageRequest> {
        domain::page::PageRequest::parse(self.limit, self.cursor.as_deref(), sort)
    }
}
