//! Every schema of the document, made by schemars.
//!
//! A type looks different to who writes it and to who reads it: an `Option` may be left out of a request, but is always
//! there (possibly `null`) in an answer. So there are two generators, and a type that is used both ways and
//! differs gets a second name, `…Input`, for requests.

use std::collections::BTreeSet;

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::facts::SchemaOf;

const ANSWER_REF: &str = "#/components/schemas/";
/// Where references of requests point until [`Schemas::finish`] knows their final names.
const REQUEST_REF: &str = "#/components/requests/";

/// The generators for requests and answers.
pub(super) struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let requests =
            SchemaSettings::openapi3().for_deserialize().with(|s| s.definitions_path = "/components/requests".into());
        let answers = SchemaSettings::openapi3().for_serialize();
        Self { requests: requests.into_generator(), answers: answers.into_generator() }
    }

    /// The schema of something that clients send.
    pub(super) fn request(&mut self, schema: SchemaOf) -> Value {
        transformed(&mut self.requests, schema)
    }

    /// The schema of something that clients receive.
    pub(super) fn answer(&mut self, schema: SchemaOf) -> Value {
        transformed(&mut self.answers, schema)
    }

    /// Gives every definition its final name and corrects the references to it in `document`.
    pub(super) fn finish(mut self, document: &mut Value) -> Map<String, Value> {
        let mut definitions = self.answers.take_definitions(true);
        let requests = self.requests.take_definitions(true);
        let renamed = differing(&requests, &definitions);
        for (name, mut schema) in requests {
            rewrite(&mut schema, &renamed);
            definitions.insert(final_name(&name, &renamed), schema);
        }
        rewrite(document, &renamed);
        definitions
    }
}

fn transformed(generator: &mut SchemaGenerator, schema: SchemaOf) -> Value {
    let mut schema: Schema = schema(generator);
    for transform in generator.transforms_mut() {
        transform.transform(&mut schema);
    }
    schema.to_value()
}

/// Names whose definitions differ between requests and answers, directly or in what they refer to.
fn differing(requests: &Map<String, Value>, answers: &Map<String, Value>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    loop {
        let before = names.len();
        for (name, schema) in requests {
            let mut schema = schema.clone();
            rewrite(&mut schema, &names);
            if answers.get(name).is_some_and(|answer| *answer != schema) {
                names.insert(name.clone());
            }
        }
        if names.len() == before {
            return names;
        }
    }
}

fn final_name(name: &str, renamed: &BTreeSet<String>) -> String {
    if renamed.contains(name) { format!("{name}Input") } else { name.to_owned() }
}

/// Points references of requests to the final names.
fn rewrite(value: &mut Value, renamed: &BTreeSet<String>) {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix(REQUEST_REF) {
                *text = format!("{ANSWER_REF}{}", final_name(name, renamed));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, renamed)),
        Value::Object(members) => members.values_mut().for_each(|member| rewrite(member, renamed)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
