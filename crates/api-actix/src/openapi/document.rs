//! The finished document: its bytes, and what it promises for each operation, by which requests are judged.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::web::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Handlers leave something unsaid, or references lead nowhere.
    #[error("the OpenAPI document is incomplete: {}", faults.join("; "))]
    Incomplete {
        /// One sentence for each fault.
        faults: Vec<String>,
    },
    /// It cannot be written down.
    #[error("the OpenAPI document cannot be written")]
    Json(#[from] serde_json::Error),
}

/// What the document promises for one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The operation's id.
    pub operation_id: String,
    /// The query parameters it knows.
    pub query: BTreeSet<String>,
    /// Those of them that are no free text, so that an empty value means nothing.
    pub typed: BTreeSet<String>,
    /// The media types it may answer with when all goes well; none if those answers have no body.
    pub produces: BTreeSet<String>,
}

/// The finished document.
#[derive(Debug)]
pub struct Document {
    value: Value,
    bytes: Bytes,
    etag: String,
    promises: BTreeMap<String, BTreeMap<String, Promise>>,
}

impl Document {
    pub(super) fn new(value: Value) -> Result<Self, DocumentError> {
        let bytes = serde_json::to_vec(&value)?;
        let digest = Sha256::digest(&bytes);
        let etag = digest.iter().take(16).fold("\"".to_owned(), |etag, byte| format!("{etag}{byte:02x}")) + "\"";
        let promises = operations(&value).fold(
            BTreeMap::new(),
            |mut all: BTreeMap<_, BTreeMap<_, _>>, (path, method, operation)| {
                all.entry(path.to_owned()).or_default().insert(method.to_uppercase(), promise(operation));
                all
            },
        );
        Ok(Self { value, bytes: bytes.into(), etag, promises })
    }

    /// The document as JSON.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The document as it is served.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Changes whenever the document does; with its quotes.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// What is promised below this path template, by method in upper case.
    #[must_use]
    pub fn promises(&self, template: &str) -> Option<&BTreeMap<String, Promise>> {
        self.promises.get(template)
    }

    /// What is promised for a request: its path template, as registered, and its method. `HEAD` counts as `GET`.
    #[must_use]
    pub fn promise(&self, pattern: &str, method: &str) -> Option<&Promise> {
        self.promises.get(&super::facts::template(pattern))?.get(if method == "HEAD" { "GET" } else { method })
    }

    /// The ids of all operations.
    pub fn operation_ids(&self) -> impl Iterator<Item = &str> {
        self.promises.values().flat_map(BTreeMap::values).map(|promise| promise.operation_id.as_str())
    }
}

fn promise(operation: &Value) -> Promise {
    let parameters = || operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query");
    let name = |parameter: &Value| parameter["name"].as_str().map(str::to_owned);
    let query = parameters().filter_map(name).collect();
    let typed = parameters().filter(|parameter| !is_free_text(&parameter["schema"])).filter_map(name).collect();
    let answers = operation["responses"].as_object().into_iter().flatten();
    let produces = answers
        .filter(|(status, _)| status.starts_with('2'))
        .filter_map(|(_, answer)| answer["content"].as_object())
        .flat_map(|content| content.keys().cloned())
        .collect();
    Promise { operation_id: operation["operationId"].as_str().unwrap_or_default().to_owned(), query, typed, produces }
}

fn is_free_text(schema: &Value) -> bool {
    let plain = |schema: &Value| schema["type"] == "string" && schema["enum"].is_null() && schema["format"].is_null();
    plain(schema) || (schema["type"] == "array" && plain(&schema["items"]))
}

/// Every operation with its path and method.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten();
        methods
            .filter(|(method, _)| METHODS.contains(&method.as_str()))
            .map(|(method, value)| (path.as_str(), method.as_str(), value))
    })
}

/// The names between braces.
pub(super) fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

/// Everything that is missing or leads nowhere.
pub(super) fn faults(document: &Value) -> Vec<String> {
    let tags: BTreeSet<_> =
        document["tags"].as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str()).collect();
    let mut ids = BTreeSet::new();
    let mut faults = Vec::new();
    for (path, method, operation) in operations(document) {
        let mut fault = |what: String| faults.push(format!("{method} {path}: {what}"));
        for member in ["operationId", "summary", "description"] {
            if operation[member].as_str().is_none_or(|text| text.trim().is_empty()) {
                fault(format!("has no {member}"));
            }
        }
        if let Some(id) = operation["operationId"].as_str()
            && !ids.insert(id)
        {
            fault(format!("operationId {id} is used twice"));
        }
        match operation["tags"].as_array().map(Vec::as_slice) {
            Some([tag]) if tag.as_str().is_some_and(|tag| tags.contains(tag)) => {}
            _ => fault("has not exactly one of the declared tags".to_owned()),
        }
        let named = |name: &str| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            parameters.filter(|p| p["name"] == name).count()
        };
        for name in path_parameters(path).filter(|name| named(name) != 1) {
            fault(format!("path parameter {name} is not documented exactly once"));
        }
    }
    dangling(document, document, &mut faults);
    faults
}

fn dangling(value: &Value, document: &Value, faults: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                let found = target.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
                if found.is_none() {
                    faults.push(format!("{target} leads nowhere"));
                }
            }
            members.values().for_each(|member| dangling(member, document, faults));
        }
        Value::Array(items) => items.iter().for_each(|item| dangling(item, document, faults)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
