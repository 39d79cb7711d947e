//! The answers of an operation: those that went well as the reply noted them, and a problem document for exactly the
//! statuses that the operation can answer.

use std::collections::BTreeSet;

use actix_web::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    facts::{Answer, AnswerHeader, Content, Fact, Found, named},
    schemas::Schemas,
};
use crate::problem::Problem;

/// The statuses other than success that an operation with these facts can answer.
pub(super) fn failures(found: &Found) -> BTreeSet<u16> {
    // Unknown query parameters are refused everywhere, so everything can answer 400.
    let mut statuses = BTreeSet::from([400, 429, 500, 503]);
    if matches!(found.method, "post" | "put" | "patch" | "delete") {
        statuses.extend([409, 507]);
    }
    for fact in &found.facts {
        match fact {
            Fact::Authenticated => statuses.extend([401, 403]),
            Fact::Path { .. } => statuses.extend([404]),
            Fact::IfMatch => statuses.extend([412]),
            Fact::Body(..) | Fact::Packed(..) => statuses.extend([413, 415]),
            Fact::Answer(Answer {
                content: Content::Json(_) | Content::JsonArray(_) | Content::JsonOrRaw(..) | Content::Raw(_),
                ..
            }) => {
                statuses.extend([406]);
            }
            Fact::Answer(Answer { content: Content::Empty, .. })
            | Fact::Query(_)
            | Fact::Header { .. }
            | Fact::Once => {}
        }
    }
    statuses
}

/// A reference to the shared problem response of `status`.
pub(super) fn failure_ref(status: u16) -> Value {
    json!({ "$ref": format!("#/components/responses/Problem{status}") })
}

/// The shared problem responses of these statuses.
pub(super) fn shared_failures(statuses: &BTreeSet<u16>, schemas: &mut Schemas) -> Map<String, Value> {
    let problem = schemas.answer(named::<Problem>);
    statuses
        .iter()
        .map(|status| {
            let response = json!({
                "description": failure_sentence(*status),
                "headers": failure_headers(*status),
                "content": { "application/problem+json": { "schema": problem } },
            });
            (format!("Problem{status}"), response)
        })
        .collect()
}

/// The headers that responses refer to.
pub(super) fn shared_headers() -> Value {
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    let number = |description: &str| json!({ "description": description, "schema": { "type": "integer", "format": "int64", "minimum": 0 } });
    json!({
        "RequestId": text("Names this request in the log; the request's own `X-Request-Id` if it had one."),
        "ETag": text("The revision of the resource, in quotes; send it back as `If-Match`."),
        "Location": text("Where the new resource is."),
        "Link": text("`<…>; rel=\"next\"` if there is a next page."),
        "TotalCount": number("How many rows the whole list has."),
        "SetCookie": text("The session's cookie: `HttpOnly`, `SameSite=Strict`."),
        "AuditHead": text("The number and the hash of the last row, as `seq:hash`."),
        "Replayed": text("`true` if this is the answer to an earlier request with the same `Idempotency-Key`."),
        "RetryAfter": number("Seconds after which it is worth trying again."),
        "Authenticate": text("`Bearer`: send a token."),
    })
}

/// The response object of an answer that went well.
pub(super) fn success(answer: &Answer, found: &Found, schemas: &mut Schemas) -> Value {
    let mut response = json!({ "description": answer.description, "headers": success_headers(answer, found) });
    let content = match answer.content {
        Content::Empty => None,
        Content::Json(schema) => Some(json!({ "application/json": { "schema": schemas.answer(schema) } })),
        Content::JsonArray(schema) => {
            let schema = schemas.answer(schema);
            Some(json!({ "application/json": { "schema": { "type": "array", "items": schema } } }))
        }
        Content::JsonOrRaw(schema, types) => {
            let mut content = raw(types);
            content.insert("application/json".to_owned(), json!({ "schema": schemas.answer(schema) }));
            Some(Value::Object(content))
        }
        Content::Raw(types) => Some(Value::Object(raw(types))),
    };
    if let (Some(content), Some(response)) = (content, response.as_object_mut()) {
        response.insert("content".to_owned(), content);
    }
    response
}

fn raw(types: &[&str]) -> Map<String, Value> {
    types.iter().map(|kind| ((*kind).to_owned(), json!({ "schema": raw_schema(kind) }))).collect()
}

/// What bytes of this media type are. Of a stream of events each event is described, with its fields as they are sent.
fn raw_schema(kind: &str) -> Value {
    if kind != "text/event-stream" {
        return json!({ "type": "string" });
    }
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "properties": {
            "id": text("Grows from event to event; send it back as `Last-Event-ID`."),
            "event": text("The kind of change, such as `server.updated`."),
            "data": text("A JSON document with `id`, `kind`, `target` and `at`."),
        },
    })
}

fn success_headers(answer: &Answer, found: &Found) -> Value {
    let mut headers = vec![("X-Request-Id", "RequestId")];
    headers.extend(answer.headers.iter().map(|header| match header {
        AnswerHeader::Etag => ("ETag", "ETag"),
        AnswerHeader::Location => ("Location", "Location"),
        AnswerHeader::Link => ("Link", "Link"),
        AnswerHeader::TotalCount => ("X-Total-Count", "TotalCount"),
        AnswerHeader::SetCookie => ("Set-Cookie", "SetCookie"),
        AnswerHeader::AuditHead => ("X-Audit-Head", "AuditHead"),
    }));
    if found.facts.iter().any(|fact| matches!(fact, Fact::Once)) {
        headers.push(("Idempotency-Replayed", "Replayed"));
    }
    header_refs(&headers)
}

fn failure_headers(status: u16) -> Value {
    let mut headers = vec![("X-Request-Id", "RequestId")];
    match status {
        401 => headers.push(("WWW-Authenticate", "Authenticate")),
        429 | 503 => headers.push(("Retry-After", "RetryAfter")),
        _ => {}
    }
    header_refs(&headers)
}

fn header_refs(headers: &[(&str, &str)]) -> Value {
    let refs = headers
        .iter()
        .map(|(name, component)| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{component}") })));
    Value::Object(refs.collect())
}

fn failure_sentence(status: u16) -> &'static str {
    match status {
        400 => "The request is malformed or invalid; `errors` names what is wrong.",
        401 => "Nobody knows who is asking.",
        403 => "The one who asks may not.",
        404 => "There is no such thing.",
        406 => "None of the accepted media types can be had.",
        409 => "The state does not allow it.",
        412 => "`If-Match` does not name the current revision.",
        413 => "The body is too large.",
        415 => "The body is not of a supported media type.",
        429 => "Too much in too short a time.",
        500 => "A fault of the product; the log tells more under the request id.",
        503 => "A part that is needed does not answer at the moment.",
        507 => "The product's own disk is full; nothing was changed.",
        other => StatusCode::from_u16(other)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("The request failed."),
    }
}
