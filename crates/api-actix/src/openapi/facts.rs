//! What extractors and replies know about the operation they are part of.
//!
//! Paperclip calls `update_parameter` of every argument type and `update_response` of the return type of each
//! handler, with an operation that already has its id. Ours note a [`Fact`] under that id. Notes are taken only
//! while [`collect`] runs; a worker that registers the same routes later takes none.

use std::{cell::RefCell, collections::BTreeMap};

use paperclip::{
    actix::{Mountable, web::ServiceConfig},
    v2::models::{DefaultOperationRaw, DefaultPathItemRaw, HttpMethod},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

/// Makes the schema of one type with the generator that is to hold its definitions.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Registers routes; run once for the document and once in each worker.
pub type Routes = fn(&mut ServiceConfig<'_>);

/// Whether a request must have a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Without it the request is refused.
    Required,
    /// Without it every member has its default.
    Optional,
}

/// What an answer carries.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// No body.
    Empty,
    /// One JSON document.
    Json(SchemaOf),
    /// A JSON array of such documents.
    JsonArray(SchemaOf),
    /// One JSON document, or such documents one after the other, as these media types do.
    JsonOrRaw(SchemaOf, &'static [&'static str]),
    /// Bytes of one of these media types.
    Raw(&'static [&'static str]),
}

/// A header that an answer carries; `X-Request-Id` is on every answer and not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerHeader {
    /// The revision of what is answered.
    Etag,
    /// Where the new thing is.
    Location,
    /// Where the next page is.
    Link,
    /// How many rows the whole list has.
    TotalCount,
    /// The session of a browser.
    SetCookie,
    /// The head of the audit log's chain.
    AuditHead,
}

/// An answer to a request that went well.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// 101 or 2xx.
    pub status: u16,
    /// What it means.
    pub description: &'static str,
    /// Its body.
    pub content: Content,
    /// Its headers.
    pub headers: &'static [AnswerHeader],
}

/// One thing that an extractor or a reply knows about its operation.
#[derive(Debug, Clone)]
pub enum Fact {
    /// It is for callers who are known.
    Authenticated,
    /// It reads a part of the path.
    Path {
        /// As in the template.
        name: &'static str,
        /// What it says.
        description: &'static str,
        /// What it may be.
        schema: Value,
    },
    /// It reads the members of this object from the query string.
    Query(SchemaOf),
    /// It reads a header of its own.
    Header {
        /// The header's name.
        name: &'static str,
        /// What it says.
        description: &'static str,
        /// What it may be.
        schema: Value,
    },
    /// It honours `If-Match`.
    IfMatch,
    /// It honours `Idempotency-Key`.
    Once,
    /// It reads a JSON body.
    Body(SchemaOf, Presence),
    /// It reads a body of this media type, which is bytes for the document, with this description.
    Packed(&'static str, &'static str),
    /// It answers like this.
    Answer(Answer),
}

/// An operation as it was found, with what its parts noted.
#[derive(Debug)]
pub struct Found {
    /// The template, without regular expressions.
    pub path: String,
    /// In lower case, as in the document.
    pub method: &'static str,
    /// What paperclip read from the handler's attributes and comments.
    pub raw: DefaultOperationRaw,
    /// What the extractors and the reply noted.
    pub facts: Vec<Fact>,
}

thread_local! {
    static NOTES: RefCell<Option<BTreeMap<String, Vec<Fact>>>> = const { RefCell::new(None) };
}

/// Notes `fact` about `operation`.
pub fn note(operation: &DefaultOperationRaw, fact: Fact) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            notes.entry(operation.operation_id.clone().unwrap_or_default()).or_default().push(fact);
        }
    });
}

/// The schema of `T`, by reference where it has a name.
pub fn named<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The schema of `T` itself, for what is taken apart rather than referred to.
pub fn inline<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// Finds every operation of `routes` with the facts about it.
#[must_use]
pub fn collect(routes: Routes) -> Vec<Found> {
    NOTES.set(Some(BTreeMap::new()));
    let mut paths: BTreeMap<String, DefaultPathItemRaw> = BTreeMap::new();
    drop(actix_web::App::new().configure(|config| {
        let mut config = ServiceConfig::from(config);
        routes(&mut config);
        config.update_operations(&mut paths);
    }));
    let notes = NOTES.take().unwrap_or_default();
    let mut found = Vec::new();
    for (path, item) in paths {
        for (method, raw) in item.methods {
            let facts = raw.operation_id.as_ref().and_then(|id| notes.get(id)).cloned().unwrap_or_default();
            found.push(Found { path: template(&path), method: method_name(method), raw, facts });
        }
    }
    found
}

/// The path without regular expressions: `/files/{tail:.*}` is documented as `/files/{tail}`.
#[must_use]
pub fn template(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let (mut depth, mut expression) = (0_u32, false);
    for c in path.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 1 => expression = true,
            _ => {}
        }
        if depth == 0 {
            expression = false;
        }
        if !expression {
            out.push(c);
        }
    }
    out
}

fn method_name(method: HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "get",
        HttpMethod::Put => "put",
        HttpMethod::Post => "post",
        HttpMethod::Delete => "delete",
        HttpMethod::Options => "options",
        HttpMethod::Head => "head",
        HttpMethod::Patch => "patch",
    }
}

#[cfg(test)]
mod tests {
    use super::template;

    #[test]
    fn regular_expressions_are_not_documented() {
        let check = |path: &str, expected: &str| assert_eq!(template(path), expected);
        check("/servers/{id}", "/servers/{id}");
        check("/files/{tail:.*}", "/files/{tail}");
        check(r"/a/{x:\d{1,3}}/b:c", "/a/{x}/b:c");
    }
}
