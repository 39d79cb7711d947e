//! Schemas of the parts of a task that no attribute describes.

use super::limits::{MAX_TOKEN, MAX_WORD, MAX_WORDS};
use crate::rooms::dto;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// A line without control characters.
const LINE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// A plan token.
pub(super) fn plan_token(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "maxLength": MAX_TOKEN, "pattern": LINE })
}

pub(super) fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_WORD, "pattern": LINE })
}

pub(super) fn absolute_path(_: &mut SchemaGenerator) -> Schema {
    let pattern = r"^/[^\u0000-\u001f\u007f-\u009f]*$";
    json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_WORD, "pattern": pattern })
}

pub(super) fn architecture(generator: &mut SchemaGenerator) -> Schema {
    let spellings = dto::architecture(generator);
    let spellings = spellings.get("enum").and_then(Value::as_array).cloned().unwrap_or_default();
    let all: Vec<Value> = spellings.into_iter().chain(["universal".into(), Value::Null]).collect();
    json_schema!({ "type": ["string", "null"], "enum": all })
}

pub(super) fn command(_: &mut SchemaGenerator) -> Schema {
    let word = json_schema!({ "type": "string", "maxLength": MAX_WORD, "pattern": r"^[^\u0000]*$" });
    json_schema!({ "type": ["array", "null"], "maxItems": MAX_WORDS, "items": word })
}

pub(super) fn environment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["object", "null"],
        "maxProperties": 256,
        "description": "Names have 1 to 255 bytes, no `=` and no control character. Values are never shown again.",
        "additionalProperties": { "type": "string", "maxLength": 32_768, "pattern": r"^[^\u0000]*$" },
    })
}

pub(super) fn log_limit(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["number", "null"], "minimum": 0, "exclusiveMinimum": true, "maximum": 1_073_741_824 })
}
