//! The values of a task's environment are in the store and nowhere else (FC-26).

use super::support::{TaskDraft, act, becomes, online, server_with_arguments, task};
use crate::{on_both, support::bearer};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tests::{Answer, Backend, Client};

on_both!(the_values_of_an_environment_are_in_the_store_alone);

/// `Z` keeps it apart from what else may be in a file.
const SECRET: &str = "hunter-55-Z";

fn secretive(name: &str) -> TaskDraft {
    task(name).with(json!({ "env": { "DB_PASSWORD": SECRET, "EMPTY": "" } }))
}

/// Every way to send such a task that is refused.
async fn refusals(admin: &Client) -> Vec<Answer> {
    let mut answers = Vec::new();
    for body in [
        secretive("").0,
        secretive("t").cpu(-1.0).0,
        secretive("t").with(json!({ "unknown": 1 })).0,
        secretive("t").with(json!({ "env": { "": SECRET } })).0,
        secretive("t").with(json!({ "env": { "DB": format!("{SECRET}\0") } })).0,
        secretive("t").with(json!({ "env": { "DB": format!("{SECRET}{}", "x".repeat(33_000)) } })).0,
        secretive("t").with(json!({ "env": { "DB": [SECRET] } })).0,
        secretive("t").with(json!({ "env": { "DB": { SECRET: SECRET } } })).0,
        secretive("t").with(json!({ "env": [format!("DB={SECRET}")] })).0,
        secretive("t").with(json!({ "env": { format!("DB={SECRET}"): "" } })).0,
        secretive("t").with(json!({ "env": { format!("DB={SECRET}"): 1 } })).0,
        secretive("t").with(json!({ "env": SECRET })).0,
        secretive("t").with(json!({ "plan_token": "0" })).0,
        secretive("t").with(json!({ "pool_id": 77 })).0,
    ] {
        for path in ["/tasks", "/tasks/dry-run"] {
            answers.push(admin.post(path, body.clone()).await);
        }
    }
    let broken = format!(r#"{{"name":"t","env":{{"DB_PASSWORD":"{SECRET}"#);
    let request = admin.request(Method::POST, "/tasks").header("content-type", "application/json").body(broken);
    answers.push(Client::send(request).await);
    let viewer = bearer(admin, "viewer", "viewer", None).await;
    answers.push(viewer.post("/tasks", secretive("t").0).await);
    let refused = answers.iter().filter(|answer| answer.status >= 400).count();
    assert!(refused >= answers.len() - 1, "only the dry run in a pool that is not there finds nothing wrong");
    answers
}

/// Every answer to a task that is accepted.
async fn life(admin: &Client) -> Vec<Answer> {
    let (mut answers, body) = (Vec::new(), secretive("good").0);
    let post = |body: Value| {
        let request = admin.request(Method::POST, "/tasks").header("idempotency-key", "k").json(&body);
        async move { Client::send(request).await }
    };
    answers.push(admin.post("/tasks/dry-run", body.clone()).await.expect(200));
    answers.push(post(body.clone()).await.expect(201));
    let id = answers[1].id();
    assert_eq!(answers[1].at("/env"), json!({ "DB_PASSWORD": "(hidden)", "EMPTY": "(hidden)" }));
    answers.push(act(admin, id, "dry-run").await.expect(200));
    answers.push(act(admin, id, "dispatch").await.expect(409));
    online(admin, "edge", 2.0).await;
    answers.push(becomes(admin, id, "scheduled").await);
    answers.push(post(body).await.expect(201));
    for path in ["/tasks", "/tasks?keyword=hunter-55", &format!("/tasks/{id}/attempts"), "/audit/logs", "/metrics"] {
        answers.push(admin.get(path).await.expect(200));
    }
    assert_eq!(answers[7].json, json!([]), "what is hidden cannot be searched for");
    for action in ["start", "complete?success=false", "retry", "cancel"] {
        answers.push(act(admin, id, action).await.expect(200));
    }
    let plan = admin.post("/tasks/dry-run", secretive("planned").0).await.expect(200);
    let planned = secretive("planned").with(json!({ "plan_token": plan.at("/plan_token") })).0;
    answers.extend([plan, admin.post("/tasks", planned).await.expect(201)]);
    let gone = secretive("gone").cpu(1000.0).post(admin).await;
    answers.push(admin.delete(&format!("/tasks/{gone}")).await.expect(204));
    answers
}

async fn the_values_of_an_environment_are_in_the_store_alone(backend: Backend) {
    let mut server = server_with_arguments(backend, &["--log", "json", "--log-level", "trace"]);
    let admin = server.admin();
    let mut events = admin.request(Method::GET, "/events").header("last-event-id", 0).send().await.unwrap();
    let mut answers = refusals(&admin).await;
    answers.extend(life(&admin).await);
    admin.post("/pools", json!({ "name": "last" })).await.expect(201);
    let mut told = String::new();
    while !told.contains("pool.created") {
        let chunk = tokio::time::timeout(Duration::from_secs(30), events.chunk()).await.unwrap().unwrap().unwrap();
        told.push_str(&String::from_utf8_lossy(&chunk));
    }
    drop(events);
    assert!(told.contains("event: task.created") && told.contains("event: task.deleted"), "{told}");
    answers.push(admin.get("/audit/export").await.expect(200));
    answers.push(admin.get("/audit/export?format=csv").await.expect(200));
    for answer in &answers {
        assert!(!answer.text.contains(SECRET), "{}", answer.text);
    }
    assert!(!told.contains(SECRET), "{told}");
    let tables = server.sql().dump();
    let with_secret: Vec<&str> = tables
        .iter()
        .filter(|(_, rows)| format!("{rows:?}").contains(SECRET))
        .map(|(table, _)| table.as_str())
        .collect();
    assert_eq!(with_secret, ["tasks"], "whoever runs the task needs it, and nobody else");
    server.terminate();
    let log = server.log();
    assert!(log.contains("\"TRACE\"") && log.contains("/tasks"), "the most talkative level is on");
    assert!(!log.contains(SECRET), "{}", log.lines().find(|line| line.contains(SECRET)).unwrap_or_default());
}
