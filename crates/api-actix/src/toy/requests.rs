//! Each wrong input is answered with the right problem document.

use actix_web::{
    dev::Service,
    http::StatusCode,
    test::{TestRequest, call_service, init_service, read_body},
};
use serde_json::{Value, json};

use super::{api, app};

/// What came back.
struct Answer {
    status: StatusCode,
    headers: actix_web::http::header::HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(request: TestRequest) -> Answer {
    let api = api();
    let service = init_service(app(&api)).await;
    let response = call_service(&service, request.to_request()).await;
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = read_body(response).await;
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    Answer { status, headers, body }
}

fn post(body: &str) -> TestRequest {
    TestRequest::post().uri("/servers").insert_header(("content-type", "application/json")).set_payload(body.to_owned())
}

async fn refused(request: TestRequest, status: u16, code: &str) -> Answer {
    let answer = send(request).await;
    assert_eq!((answer.status.as_u16(), answer.body["code"].as_str()), (status, Some(code)), "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.body["type"], format!("urn:starlink:problem:{code}"));
    assert_eq!(answer.body["status"], status);
    assert_eq!(answer.body["request_id"], answer.header("x-request-id"));
    assert!(answer.body["title"].is_string() && answer.body["detail"].is_string());
    answer
}

async fn invalid(request: TestRequest, field: &str, reason: &str) {
    let answer = refused(request, 400, "invalid").await;
    let error = &answer.body["errors"][0];
    assert_eq!(error["field"], field, "{}", answer.body);
    assert!(error["reason"].as_str().unwrap().contains(reason), "{}", answer.body);
}

#[actix_web::test]
async fn wrong_body_is_refused_by_field() {
    invalid(post("{"), "", "not valid JSON").await;
    invalid(post(""), "", "not valid JSON").await;
    invalid(post(r#"{"name":"a"} x"#), "", "trailing characters").await;
    invalid(post(r#"{"name":"a","limits":{"cpu":1e999}}"#), "", "number out of range").await;
    invalid(post(r#"{"name":"a","limits":{"cpu":NaN}}"#), "", "not valid JSON").await;
    invalid(post(&"[".repeat(5000)), "", "").await;
    invalid(post(&format!(r#"{{"name":{}"#, "[".repeat(5000))), "name", "").await;
    invalid(post(r#"["a", null, null]"#), "", "expected an object").await;
    invalid(post(r#"{"name":"a","limits":[1]}"#), "limits", "expected an object").await;
    invalid(post("null"), "", "is not valid").await;
    invalid(post("{}"), "name", "is required").await;
    invalid(post(r#"{"name":7}"#), "name", "expected a string").await;
    invalid(post(r#"{"name":"a","nam":1}"#), "nam", "is not known").await;
    invalid(post(r#"{"name":"a","limits":{"cp":1}}"#), "limits.cp", "is not known").await;
    invalid(post(r#"{"name":"a","limits":{"cpu":"x"}}"#), "limits.cpu", "expected f64").await;
    invalid(post(r#"{"name":"a","name":"b"}"#), "name", "is given twice").await;
    invalid(post(r#"{"name":"a","architecture":"vax"}"#), "architecture", "unknown variant").await;
}

#[actix_web::test]
async fn other_media_types_are_refused() {
    let of = |kind: &str| {
        TestRequest::post().uri("/servers").insert_header(("content-type", kind)).set_payload(r#"{"name":"a"}"#)
    };
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "application/merge-patch+json",
        "nonsense",
    ] {
        refused(of(kind), 415, "unsupported_media_type").await;
    }
    refused(TestRequest::post().uri("/servers").set_payload("{}"), 415, "unsupported_media_type").await;
    refused(of("application/json").insert_header(("content-encoding", "gzip")), 415, "unsupported_media_type").await;
    for kind in
        ["application/json", "application/json; charset=UTF-8", "Application/JSON", "application/vnd.starlink+json"]
    {
        assert_eq!(send(of(kind)).await.status, StatusCode::CREATED, "{kind}");
    }
}

#[actix_web::test]
async fn body_that_may_be_absent() {
    let cordon = || TestRequest::post().uri("/pools/1/cordon");
    assert_eq!(send(cordon()).await.body["location"], Value::Null);
    let json = ("content-type", "application/json");
    assert_eq!(send(cordon().insert_header(json).set_payload(r#"{"reason":"rain"}"#)).await.body["location"], "rain");
    refused(cordon().set_payload(r#"{"reason":"rain"}"#), 415, "unsupported_media_type").await;
    invalid(cordon().insert_header(json).set_payload(r#"{"raison":"rain"}"#), "raison", "is not known").await;
}

#[actix_web::test]
async fn merge_patch_tells_null_from_absent() {
    let patch = |body: &str| {
        let kind = ("content-type", "application/merge-patch+json");
        TestRequest::patch().uri("/servers/7").insert_header(kind).set_payload(body.to_owned())
    };
    assert_eq!(send(patch("{}")).await.body["location"], "cellar");
    assert_eq!(send(patch(r#"{"location":null}"#)).await.body["location"], Value::Null);
    assert_eq!(send(patch(r#"{"location":"attic"}"#)).await.body["location"], "attic");
    assert_eq!(send(patch("{}").insert_header(("if-match", "\"3\""))).await.header("etag"), "\"4\"");
    refused(patch("{}").insert_header(("if-match", "\"2\"")), 412, "stale").await;
    refused(patch("{}").insert_header(("if-match", "W/\"3\"")), 412, "stale").await;
    invalid(patch("{}").insert_header(("if-match", "3")), "If-Match", "with its quotes").await;
}

#[actix_web::test]
async fn query_is_refused_by_parameter() {
    let list = |query: &str| TestRequest::get().uri(&format!("/servers?{query}"));
    invalid(list("limt=1"), "limt", "it takes architecture, cursor, limit, tag").await;
    invalid(list("limit=x"), "limit", "is not valid").await;
    invalid(list("limit=0"), "limit", "from 1 to 1000").await;
    invalid(list("limit=1&limit=2"), "limit", "is not valid").await;
    invalid(list("architecture=vax"), "architecture", "unknown variant").await;
    invalid(list("cursor=x"), "cursor", "Link header").await;
    invalid(TestRequest::get().uri("/servers/7?x=1"), "x", "takes none").await;
    invalid(TestRequest::get().uri("/servers/x"), "id", "positive integer").await;
}

#[actix_web::test]
async fn list_leads_to_its_next_page() {
    let answer = send(TestRequest::get().uri("/servers?limit=1&tag=a&tag=b%3Ac")).await;
    assert_eq!(answer.header("x-total-count"), "5000");
    assert!(
        answer.header("link").starts_with("</servers?limit=1&tag=a&tag=b%3Ac&cursor="),
        "{}",
        answer.header("link")
    );
    assert!(answer.header("link").ends_with(">; rel=\"next\""));
    assert_eq!(answer.body[0]["tags"], json!(["a", "b:c"]));
}

#[actix_web::test]
async fn only_what_is_documented_is_served() {
    refused(TestRequest::get().uri("/nowhere"), 404, "not_found").await;
    refused(TestRequest::get().uri("/hidden"), 404, "not_found").await;
    assert_eq!(send(TestRequest::get().uri("/console")).await.body, "console");
    let answer = refused(TestRequest::delete().uri("/servers"), 405, "method_not_allowed").await;
    assert_eq!(answer.header("allow"), "GET, HEAD, POST");
    refused(TestRequest::default().method("BREW".parse().unwrap()).uri("/servers/7"), 405, "method_not_allowed").await;
    refused(TestRequest::get().uri("/servers").insert_header(("accept", "text/html")), 406, "not_acceptable").await;
    assert_eq!(
        send(TestRequest::get().uri("/servers/export").insert_header(("accept", "text/*"))).await.body,
        "id\n7\n"
    );
}

#[actix_web::test]
async fn errors_of_the_domain_have_their_status() {
    refused(post(r#"{"name":"taken"}"#), 409, "name_taken").await;
    refused(TestRequest::get().uri("/servers/8"), 404, "not_found").await;
    let answer = refused(TestRequest::get().uri("/servers/503"), 503, "unavailable").await;
    assert_eq!((answer.header("retry-after"), answer.body["detail"].as_str()), ("1", Some("the agent is away")));
    let answer = refused(TestRequest::get().uri("/servers/500"), 500, "internal").await;
    assert!(!answer.body.to_string().contains("cellar"));
    let service = init_service(app(&api())).await;
    let error = service.call(TestRequest::get().uri("/servers/501").to_request()).await.map(|_| ()).unwrap_err();
    let response = error.error_response();
    assert_eq!((response.status().as_u16(), response.headers().contains_key("x-request-id")), (500, true));
    let nobody = |request: TestRequest| request.insert_header(("x-toy-anonymous", "1"));
    let answer = refused(nobody(TestRequest::get().uri("/servers")), 401, "unauthenticated").await;
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    refused(nobody(post("{")), 401, "unauthenticated").await;
    assert_eq!(send(nobody(TestRequest::get().uri("/healthz"))).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn fingerprint_tells_requests_apart() {
    let keyed = |body: &str| post(body).insert_header(("idempotency-key", "k1"));
    let first = send(keyed(r#"{"name":"a"}"#)).await;
    assert_eq!(first.header("idempotency-replayed"), "true");
    assert_eq!((first.header("location"), first.header("etag")), ("/servers/7", "\"1\""));
    assert_eq!(send(keyed(r#"{"name":"a"}"#)).await.body, first.body);
    assert_ne!(send(keyed(r#"{"name":"b"}"#)).await.body, first.body);
    invalid(post("{}").insert_header(("idempotency-key", "a b")), "Idempotency-Key", "visible ASCII").await;
}

#[actix_web::test]
async fn every_answer_has_its_headers() {
    let answer = send(TestRequest::get().uri("/healthz").insert_header(("x-request-id", "mine"))).await;
    assert_eq!(answer.header("x-request-id"), "mine");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let answer = send(TestRequest::get().uri("/healthz").insert_header(("x-request-id", "not mine"))).await;
    assert_eq!(answer.header("x-request-id"), "made-1");
}

#[actix_web::test]
async fn documentation_is_served() {
    let document = send(TestRequest::get().uri("/openapi.json")).await;
    assert_eq!(document.body["openapi"], "3.0.3");
    let again = TestRequest::get().uri("/openapi.json").insert_header(("if-none-match", document.header("etag")));
    assert_eq!(send(again).await.status, StatusCode::NOT_MODIFIED);
    let page = send(TestRequest::get().uri("/docs")).await;
    assert!(page.header("content-security-policy").contains("script-src 'self';"));
    for file in ["swagger-ui-bundle.js", "swagger-ui.css", "start.js"] {
        assert!(page.body.as_str().unwrap().contains(file));
        assert_eq!(send(TestRequest::get().uri(&format!("/docs/{file}"))).await.status, StatusCode::OK, "{file}");
    }
}
