//! Puts the document together and refuses one that would be incomplete.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    document::{Document, DocumentError},
    facts::{Fact, Found, Routes, collect},
    operation, responses,
    schemas::Schemas,
};

/// What is said about an operation besides what its handler shows.
#[derive(Debug, Clone, Default)]
pub struct OperationNote {
    /// Ends the description; such as which role is needed.
    pub sentence: Option<String>,
    /// Failures that cannot be seen from the handler's arguments, such as 401 of a login.
    pub statuses: Vec<u16>,
}

/// An operation that paperclip does not see.
#[derive(Debug, Clone)]
pub struct Handmade {
    /// The template.
    pub path: &'static str,
    /// In lower case.
    pub method: &'static str,
    /// The operation object; it may refer to `#/components/responses/Problem404` and the like.
    pub operation: Value,
}

/// All that the document is made of.
pub struct Blueprint {
    /// Where the operations are found.
    pub routes: Routes,
    /// The tags, in order, with their descriptions.
    pub tags: Vec<(&'static str, &'static str)>,
    /// Operations that are documented by hand.
    pub handmade: Vec<Handmade>,
    /// What is said about the operation with this id.
    pub notes: fn(&str) -> OperationNote,
}

/// Puts the document together.
///
/// # Errors
/// Everything that is wrong or missing, such as an operation without description.
pub fn assemble(blueprint: &Blueprint) -> Result<Document, DocumentError> {
    let operations = collect(blueprint.routes);
    let mut schemas = Schemas::new();
    let mut statuses = BTreeSet::from([400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 429, 500, 503, 507]);
    let mut paths: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    let mut faults = Vec::new();
    for found in &operations {
        let note = (blueprint.notes)(found.raw.operation_id.as_deref().unwrap_or_default());
        faults.extend(incomplete(found));
        statuses.extend(note.statuses.iter().copied());
        let value = operation::describe(found, &note, &mut schemas);
        paths.entry(found.path.clone()).or_default().insert(found.method.to_owned(), value);
    }
    for made in &blueprint.handmade {
        let methods = paths.entry(made.path.to_owned()).or_default();
        if methods.insert(made.method.to_owned(), made.operation.clone()).is_some() {
            faults.push(format!("{} {} is documented by hand and by its handler", made.method, made.path));
        }
    }
    let mut document = json!({
        "openapi": "3.0.3",
        "info": info(),
        "servers": [{ "url": "/" }],
        "tags": blueprint.tags.iter().map(|(name, text)| json!({ "name": name, "description": text })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "securitySchemes": security_schemes(),
            "headers": responses::shared_headers(),
            "responses": responses::shared_failures(&statuses, &mut schemas),
        },
    });
    let definitions = schemas.finish(&mut document);
    document["components"]["schemas"] = Value::Object(definitions);
    faults.extend(super::document::faults(&document));
    if faults.is_empty() { Document::new(document) } else { Err(DocumentError::Incomplete { faults }) }
}

fn info() -> Value {
    json!({
        "title": "StarLink Orchestration API",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Servers, pools and tasks of a fleet. JSON in and out; what goes wrong is answered as \
            `application/problem+json` (RFC 9457) with a stable `code`. Lists come in pages: `limit`, `cursor`, and the next \
            page in the `Link` header. Send `If-Match` to change only what you have seen, and `Idempotency-Key` to repeat a \
            `POST` safely.",
        "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
    })
}

fn security_schemes() -> Value {
    json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "An API token." },
        "session": { "type": "apiKey", "in": "cookie", "name": "starlink_session", "description": "The console's session." },
    })
}

/// What the handler does not say.
fn incomplete(found: &Found) -> Vec<String> {
    let place = format!("{} {}", found.method, found.path);
    let mut faults = Vec::new();
    for name in super::document::path_parameters(&found.path) {
        let read = found.facts.iter().any(|fact| matches!(fact, Fact::Path { name: known, .. } if *known == name));
        if !read {
            faults.push(format!("{place}: no extractor reads the path parameter {name}"));
        }
    }
    if !found.facts.iter().any(|fact| matches!(fact, Fact::Answer(_))) {
        faults.push(format!("{place}: the handler's result does not tell how it answers"));
    }
    faults
}
