//! Who may post, place and end tasks, and who may only look.

use super::support::{act, online, refusals, shown, task};
use crate::{
    on_both, server,
    support::{bearer, check_problem, total},
};
use reqwest::Method;
use serde_json::json;
use tests::{Backend, Client};

on_both!(who_may_not_change_tasks_may_look_at_them, a_token_opens_the_rooms_of_its_scopes_alone);

const LOOKS: [(&str, &str); 6] = [
    ("GET", "/tasks"),
    ("GET", "/tasks/1"),
    ("GET", "/tasks/1/attempts"),
    ("GET", "/scheduling/ledger"),
    ("POST", "/tasks/1/dry-run"),
    ("POST", "/tasks/dry-run"),
];
const CHANGES: [(&str, &str); 8] = [
    ("POST", "/tasks"),
    ("POST", "/tasks/1/dispatch"),
    ("POST", "/tasks/1/start"),
    ("POST", "/tasks/1/complete"),
    ("POST", "/tasks/1/cancel"),
    ("POST", "/tasks/1/retry"),
    ("POST", "/scheduling/ledger/mend"),
    ("DELETE", "/tasks/1"),
];

async fn check_refused(client: &Client, (method, path): (&str, &str), needs: &str) {
    let request = client.request(Method::from_bytes(method.as_bytes()).unwrap(), path);
    let has_body = path == "/tasks" || path == "/tasks/dry-run";
    let request = if has_body && method == "POST" { request.json(&task("t").0) } else { request };
    let answer = Client::send(request).await;
    check_problem(&answer, 403, &format!("{method} {path}"));
    assert!(answer.at("/detail").as_str().unwrap().contains(needs), "{}", answer.text);
}

async fn check_allowed(client: &Client, (method, path): (&str, &str)) {
    let request = client.request(Method::from_bytes(method.as_bytes()).unwrap(), path);
    let request = if path == "/tasks/dry-run" { request.json(&task("t").0) } else { request };
    Client::send(request).await.expect(200);
}

async fn who_may_not_change_tasks_may_look_at_them(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pending = task("t").post(&admin).await;
    let before = shown(&admin, pending).await;
    for role in ["viewer", "approver"] {
        let client = bearer(&admin, role, role, None).await;
        for look in LOOKS {
            check_allowed(&client, look).await;
        }
        for change in CHANGES {
            check_refused(&client, change, "operator or admin").await;
        }
    }
    assert_eq!(shown(&admin, pending).await.json, before.json);
    assert_eq!(
        (total(&admin, "/tasks").await, total(&admin, "/audit/logs?action=task.create&outcome=success").await),
        (1, 1)
    );
    let operator = bearer(&admin, "operator", "operator", None).await;
    online(&operator, "edge", 4.0).await;
    let own = task("u").scheduled(&operator).await;
    act(&operator, own, "start").await.expect(200);
    act(&operator, own, "complete").await.expect(200);
    operator.delete(&format!("/tasks/{own}")).await.expect(204);
}

async fn a_token_opens_the_rooms_of_its_scopes_alone(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pending = task("t").post(&admin).await;
    let fleet = bearer(&admin, "fleet", "operator", Some(&["fleet", "pools"])).await;
    for call in LOOKS.into_iter().chain(CHANGES) {
        check_refused(&fleet, call, "scheduling").await;
    }
    fleet.get("/servers").await.expect(200);
    let tasks = bearer(&admin, "tasks", "operator", Some(&["scheduling"])).await;
    for look in LOOKS {
        check_allowed(&tasks, look).await;
    }
    tasks.get("/servers").await.expect(403);
    tasks.get("/pools").await.expect(403);
    assert_eq!(refusals(&tasks, pending).await, ["no_servers"]);
    act(&tasks, pending, "cancel").await.expect(200);
    tasks.post_empty("/scheduling/ledger/mend").await.expect(200);
    let me = tasks.get("/auth/me").await.expect(200);
    assert_eq!(me.at("/scopes"), json!(["scheduling"]));
    assert_eq!(admin.anonymous().get("/tasks").await.status, 401);
}
