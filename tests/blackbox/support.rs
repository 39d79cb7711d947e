//! What several of these tests need: things to make, pages to walk, and patience.

use serde_json::{Value, json};
use tests::{Answer, Client};

/// A body that registers a server.
pub(crate) fn server_body(name: &str) -> Value {
    json!({ "name": name, "architecture": "amd64", "total_cpu": 4, "total_memory": 8, "total_storage": 100 })
}

/// Such a body with other members as well.
pub(crate) fn server_with(name: &str, more: Value) -> Value {
    let mut body = server_body(name);
    let (Some(members), Value::Object(more)) = (body.as_object_mut(), more) else { unreachable!("these are objects") };
    members.extend(more);
    body
}

/// One member of each row of a list.
pub(crate) fn column(answer: &Answer, member: &str) -> Vec<Value> {
    answer.json.as_array().unwrap().iter().map(|row| row[member].clone()).collect()
}

/// The names of the rows of a list.
pub(crate) fn names(answer: &Answer) -> Vec<String> {
    column(answer, "name").iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// Where the next page is, if there is one.
pub(crate) fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    assert_eq!(rest, "; rel=\"next\"");
    Some(target.to_owned())
}

/// The rows of every page from this one on.
pub(crate) async fn walk(client: &Client, path: &str) -> Vec<Value> {
    let (mut rows, mut path) = (Vec::new(), Some(path.to_owned()));
    while let Some(page) = path {
        let answer = client.get(&page).await.expect(200);
        rows.extend(answer.json.as_array().unwrap().clone());
        path = next(&answer);
    }
    rows
}

/// How many rows a list has in all.
pub(crate) async fn total(client: &Client, path: &str) -> i64 {
    let answer = client.get(path).await.expect(200);
    answer.header("x-total-count").unwrap().parse().unwrap()
}

/// A client with a new token of this role, and the scopes if it has not all.
pub(crate) async fn bearer(admin: &Client, name: &str, role: &str, scopes: Option<&[&str]>) -> Client {
    let body = json!({ "name": name, "role": role, "scopes": scopes });
    let made = admin.post("/auth/tokens", body).await.expect(201);
    admin.with_token(made.at("/secret").as_str().unwrap())
}

/// The problem document of an answer, which must be complete and agree with the answer.
#[track_caller]
pub(crate) fn check_problem(answer: &Answer, status: u16, case: &str) {
    let problem = &answer.json;
    assert_eq!(answer.status, status, "{case}: {}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{case}");
    let mut members: Vec<&str> = problem.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["code", "detail", "errors", "request_id", "status", "title", "type"], "{case}");
    assert_eq!(problem["status"], status, "{case}");
    assert_eq!(problem["type"], format!("urn:starlink:problem:{}", answer.code()), "{case}");
    for member in ["title", "detail", "code", "request_id"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{case}: {member} of {problem}");
    }
    assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "{case}");
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(!errors.is_empty(), status == 400, "{case}: {problem}");
    for error in errors {
        assert!(
            error["field"].is_string() && error["reason"].as_str().is_some_and(|r| !r.is_empty()),
            "{case}: {problem}"
        );
    }
}
