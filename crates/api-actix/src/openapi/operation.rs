//! One operation of the document, made from what was found about it.

use serde_json::{Map, Value, json};

use super::{
    assemble::OperationNote,
    facts::{Fact, Found, Presence, SchemaOf},
    responses,
    schemas::Schemas,
};

/// The operation object.
pub(super) fn describe(found: &Found, note: &OperationNote, schemas: &mut Schemas) -> Value {
    let mut operation = Map::new();
    let raw = &found.raw;
    operation.insert("operationId".to_owned(), json!(raw.operation_id));
    operation.insert("tags".to_owned(), json!(raw.tags));
    operation.insert("summary".to_owned(), json!(raw.summary));
    operation.insert("description".to_owned(), json!(description(found, note)));
    if raw.deprecated {
        operation.insert("deprecated".to_owned(), json!(true));
    }
    operation.insert("security".to_owned(), security(found));
    let parameters = parameters(found, schemas);
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), Value::Array(parameters));
    }
    if let Some(body) = body(found, schemas) {
        operation.insert("requestBody".to_owned(), body);
    }
    operation.insert("responses".to_owned(), answers(found, note, schemas));
    Value::Object(operation)
}

fn description(found: &Found, note: &OperationNote) -> String {
    let own = found.raw.description.clone().unwrap_or_default();
    match &note.sentence {
        Some(sentence) => format!("{own}\n\n{sentence}"),
        None => own,
    }
}

fn security(found: &Found) -> Value {
    if found.facts.iter().any(|fact| matches!(fact, Fact::Authenticated)) {
        json!([{ "bearer": [] }, { "session": [] }])
    } else {
        json!([])
    }
}

fn parameters(found: &Found, schemas: &mut Schemas) -> Vec<Value> {
    let mut parameters = Vec::new();
    for fact in &found.facts {
        match fact {
            Fact::Path { name, description, schema } => parameters.push(json!({
                "name": name, "in": "path", "required": true, "description": description, "schema": schema,
            })),
            Fact::Query(schema) => parameters.extend(query(*schema, schemas)),
            Fact::Header { name, description, schema } => parameters.push(json!({
                "name": name, "in": "header", "required": false, "description": description, "schema": schema,
            })),
            Fact::IfMatch => parameters.push(json!({
                "name": "If-Match", "in": "header", "required": false,
                "description": "The `ETag` the resource had when it was read; if it has changed since, the answer is 412.",
                "schema": { "type": "string", "pattern": r#"^(\*|"[0-9]{1,18}")$"# },
                "example": "\"7\"",
            })),
            Fact::Once => parameters.push(json!({
                "name": "Idempotency-Key", "in": "header", "required": false,
                "description": "Any text of your own; within 24 hours the same key with the same request is carried out once and answered the same.",
                "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
            })),
            Fact::Authenticated | Fact::Body(..) | Fact::Packed(..) | Fact::Answer(_) => {}
        }
    }
    parameters
}

fn query(schema: SchemaOf, schemas: &mut Schemas) -> Vec<Value> {
    let object = schemas.request(schema);
    let required = |name: &str| object["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    let members = object["properties"].as_object().cloned().unwrap_or_default();
    members
        .into_iter()
        .map(|(name, schema)| {
            let (schema, description) = query_schema(schema);
            let mut parameter = json!({ "name": name, "in": "query", "required": required(&name), "schema": schema });
            if let (Some(description), Some(parameter)) = (description, parameter.as_object_mut()) {
                parameter.insert("description".to_owned(), description);
            }
            parameter
        })
        .collect()
}

/// A query string has no `null`, and says what a parameter means beside its schema.
fn query_schema(mut schema: Value) -> (Value, Option<Value>) {
    let mut description = None;
    if let Some(members) = schema.as_object_mut() {
        members.remove("nullable");
        description = members.remove("description");
        if members.get("default").is_some_and(Value::is_null) {
            members.remove("default");
        }
        if let Some(values) = members.get_mut("enum").and_then(Value::as_array_mut) {
            values.retain(|value| !value.is_null());
        }
        let choices = members.get("anyOf").and_then(Value::as_array).cloned().unwrap_or_default();
        let real: Vec<_> = choices.iter().filter(|choice| !means_null(choice)).cloned().collect();
        if let ([only], true) = (real.as_slice(), real.len() < choices.len()) {
            return (only.clone(), description);
        }
    }
    (schema, description)
}

/// How schemars writes `null` for `OpenAPI` 3.0.
fn means_null(schema: &Value) -> bool {
    schema["type"] == "null" || schema["enum"].as_array().is_some_and(|values| values.iter().all(Value::is_null))
}

fn body(found: &Found, schemas: &mut Schemas) -> Option<Value> {
    let packed =
        found.facts.iter().find_map(|fact| if let Fact::Packed(kind, text) = fact { Some((kind, text)) } else { None });
    if let Some((kind, text)) = packed {
        let content = json!({ *kind: { "schema": { "type": "string", "format": "binary" } } });
        return Some(json!({ "required": true, "description": text, "content": content }));
    }
    let (schema, presence) = found.facts.iter().find_map(|fact| match fact {
        Fact::Body(schema, presence) => Some((*schema, *presence)),
        Fact::Authenticated
        | Fact::Packed(..)
        | Fact::Path { .. }
        | Fact::Query(_)
        | Fact::Header { .. }
        | Fact::IfMatch
        | Fact::Once
        | Fact::Answer(_) => None,
    })?;
    let media = json!({ "schema": schemas.request(schema) });
    let content = if found.method == "patch" {
        json!({ "application/merge-patch+json": media, "application/json": media })
    } else {
        json!({ "application/json": media })
    };
    Some(json!({ "required": presence == Presence::Required, "content": content }))
}

fn answers(found: &Found, note: &OperationNote, schemas: &mut Schemas) -> Value {
    let mut answers = Map::new();
    for fact in &found.facts {
        if let Fact::Answer(answer) = fact {
            answers.insert(answer.status.to_string(), responses::success(answer, found, schemas));
        }
    }
    for status in responses::failures(found).into_iter().chain(note.statuses.iter().copied()) {
        answers.insert(status.to_string(), responses::failure_ref(status));
    }
    Value::Object(answers)
}
