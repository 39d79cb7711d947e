//! The document of the toy API is complete.

use serde_json::{Value, json};

use super::{api, blueprint};
use crate::{
    mount::Api,
    openapi::{Blueprint, Handmade},
};

fn operation(document: &Value, pointer: &str) -> Value {
    document["paths"].pointer(pointer).unwrap().clone()
}

fn statuses(operation: &Value) -> Vec<String> {
    operation["responses"].as_object().unwrap().keys().cloned().collect()
}

/// For a look at it, and for validators: `TOY_OPENAPI=/tmp/toy.json cargo test`.
#[test]
fn document_can_be_built() {
    let api = api();
    if let Ok(path) = std::env::var("TOY_OPENAPI") {
        std::fs::write(path, serde_json::to_vec_pretty(api.document().value()).unwrap()).unwrap();
    }
    assert_eq!(api.document().operation_ids().count(), 8);
    let text = api.document().value().to_string();
    assert!(!text.contains("/components/requests/"));
}

#[test]
fn operation_answers_exactly_what_it_can() {
    let document = api().document().value().clone();
    let check =
        |pointer: &str, expected: &[&str]| assert_eq!(statuses(&operation(&document, pointer)), expected, "{pointer}");
    check("/~1healthz/get", &["200", "400", "401", "406", "429", "500", "503"]);
    check("/~1servers/get", &["200", "400", "401", "403", "406", "429", "500", "503"]);
    check("/~1servers/post", &["201", "400", "401", "403", "406", "409", "413", "415", "429", "500", "503", "507"]);
    check("/~1servers~1{id}/delete", &["204", "400", "401", "403", "404", "409", "412", "429", "500", "503", "507"]);
}

#[test]
fn caller_decides_about_security() {
    let document = api().document().value().clone();
    assert_eq!(operation(&document, "/~1healthz/get/security"), json!([]));
    assert_eq!(operation(&document, "/~1servers/get/security"), json!([{ "bearer": [] }, { "session": [] }]));
}

#[test]
fn query_parameters_come_from_the_members() {
    let document = api().document().value().clone();
    let parameters = operation(&document, "/~1servers/get/parameters");
    let named = |name: &str| parameters.as_array().unwrap().iter().find(|p| p["name"] == name).unwrap().clone();
    assert_eq!(
        named("limit"),
        json!({ "name": "limit", "in": "query", "required": false, "description": "The most rows.",
            "schema": { "type": "integer", "format": "int64", "minimum": 1, "maximum": 1000 } })
    );
    assert_eq!(named("architecture")["schema"], json!({ "$ref": "#/components/schemas/Architecture" }));
    assert_eq!(named("tag")["schema"]["type"], "array");
}

#[test]
fn option_may_be_left_out_of_a_request_but_not_of_an_answer() {
    let document = api().document().value().clone();
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    assert_eq!(schema("ServerCreate")["required"], json!(["name"]));
    assert_eq!(schema("ServerCreate")["additionalProperties"], false);
    assert_eq!(schema("ServerCreate")["properties"]["name"]["maxLength"], 63);
    assert_eq!(schema("ServerView")["required"], json!(["id", "location", "architecture", "limits", "tags"]));
    assert_eq!(schema("ServerView")["properties"]["location"]["nullable"], true);
    assert_eq!(schema("ServerView")["properties"]["limits"]["$ref"], "#/components/schemas/Limits");
    assert_eq!(schema("Limits")["required"], json!(["cpu"]));
    assert_eq!(schema("LimitsInput")["required"], Value::Null);
    assert_eq!(schema("LimitsInput")["properties"]["cpu"]["nullable"], true);
    assert!(schema("ServerCreate").to_string().contains("#/components/schemas/LimitsInput"));
    assert_eq!(schema("ServerPatch")["required"], Value::Null);
}

#[test]
fn bodies_and_headers_are_told() {
    let document = api().document().value().clone();
    let content = operation(&document, "/~1servers~1{id}/patch/requestBody/content");
    assert_eq!(
        content.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["application/json", "application/merge-patch+json"]
    );
    assert_eq!(operation(&document, "/~1pools~1{id}~1cordon/post/requestBody/required"), false);
    let headers = operation(&document, "/~1servers/post/responses/201/headers");
    assert_eq!(
        headers.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["ETag", "Idempotency-Replayed", "Location", "X-Request-Id"]
    );
    let streamed = operation(&document, "/~1servers~1export/get/responses/200/content");
    assert_eq!(streamed.as_object().unwrap().keys().collect::<Vec<_>>(), ["application/x-ndjson", "text/csv"]);
}

#[test]
fn incomplete_document_is_refused() {
    let made = Handmade {
        path: "/streams/{id}",
        method: "get",
        operation: json!({ "$ref": "#/nowhere", "tags": ["unheard"] }),
    };
    let blueprint = Blueprint { handmade: vec![made], ..blueprint() };
    let faults = Api::build(&blueprint, &[]).map(|_| ()).unwrap_err().to_string();
    for fault in
        ["has no operationId", "has no summary", "declared tags", "path parameter id", "#/nowhere leads nowhere"]
    {
        assert!(faults.contains(fault), "{fault}: {faults}");
    }
}
