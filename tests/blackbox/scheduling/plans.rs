//! A dry run says what the real call then does, and proves it with a token.

use super::support::{
    act, check_books, codes, cores, online, online_with, pool, refusals, shown, task, without_scheduler,
};
use crate::{
    on_both, server,
    support::{bearer, total},
};
use serde_json::{Value, json};
use tests::{Answer, Backend, Client};

on_both!(
    a_dry_run_shows_every_server_and_writes_nothing,
    a_task_goes_where_its_dry_run_said,
    a_stored_task_goes_where_its_dry_run_said,
    a_plan_token_is_of_one_task_and_one_state,
    a_plan_that_finds_nothing_has_a_token_too,
    a_stored_task_is_not_placed_with_a_stale_plan,
);

/// Servers of several kinds: three that would do, more or less, and three that would not.
async fn fleet(admin: &Client) {
    let pool = pool(admin, "quota", Some(0.5)).await;
    online_with(admin, "small", json!({ "total_cpu": 2 })).await;
    online_with(admin, "large", json!({ "total_cpu": 16 })).await;
    online_with(admin, "arm", json!({ "total_cpu": 32, "architecture": "arm64" })).await;
    online_with(admin, "pooled", json!({ "total_cpu": 64, "pool_id": pool })).await;
    online_with(admin, "medium", json!({ "total_cpu": 8 })).await;
    let cordoned = online_with(admin, "cordoned", json!({ "total_cpu": 128, "total_memory": 0.5 })).await;
    admin.post_empty(&format!("/servers/{cordoned}/cordon")).await.expect(200);
}

/// What is posted in these tests.
fn body() -> Value {
    task("t").with(json!({ "required_memory": 1, "required_architecture": "x86_64", "env": { "A": "b" } })).0
}

async fn dry_run(client: &Client, body: &Value) -> Answer {
    client.post("/tasks/dry-run", body.clone()).await.expect(200)
}

fn with_token(body: &Value, token: &Value) -> Value {
    let mut body = body.clone();
    body["plan_token"] = token.clone();
    body
}

async fn a_dry_run_shows_every_server_and_writes_nothing(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    fleet(&admin).await;
    let viewer = bearer(&admin, "viewer", "viewer", None).await;
    let before = (admin.get("/audit/verify").await.json, server.sql().dump().len());
    let found = dry_run(&viewer, &body()).await;
    assert_eq!(found.at("/placement"), json!({ "server_id": 2, "name": "large", "rank": 1 }));
    let shown = |name: &str, id: i64, rank: Value, reasons: Value| {
        let fits = rank.is_number();
        json!({ "server_id": id, "name": name, "fits": fits, "rank": rank, "reasons": reasons })
    };
    let reason = |code: &str, detail: &str| json!({ "code": code, "detail": detail });
    let expected = json!([
        shown("large", 2, json!(1), json!([])),
        shown("medium", 5, json!(2), json!([])),
        shown("small", 1, json!(3), json!([])),
        shown("arm", 3, Value::Null, json!([reason("architecture_mismatch", "is arm64, the task needs x86_64")])),
        shown(
            "pooled",
            4,
            Value::Null,
            json!([reason("quota_cpu", "needs 1 core, 0.5 of 0.5 left in the quota of pool \"quota\"")])
        ),
        shown(
            "cordoned",
            6,
            Value::Null,
            json!([
                reason("cordoned", "is cordoned: it takes no new work"),
                reason("insufficient_memory", "needs 1 GiB of memory, 0.5 free"),
            ])
        ),
    ]);
    assert_eq!(found.at("/candidates"), expected);
    assert_eq!(dry_run(&viewer, &body()).await.json, found.json, "the same twice, with the same token");
    assert_eq!((admin.get("/audit/verify").await.json, server.sql().dump().len()), before);
    assert_eq!((total(&admin, "/tasks").await, cores(&admin, 2).await.0), (0, json!(0.0)));
    assert!(!found.text.contains("\"b\""), "{}", found.text);
}

async fn a_task_goes_where_its_dry_run_said(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    fleet(&admin).await;
    for n in 1..=12 {
        let plan = dry_run(&admin, &body()).await;
        let expected = plan.at("/placement/server_id");
        let made = admin.post("/tasks", with_token(&body(), &plan.at("/plan_token"))).await.expect(201);
        assert_eq!((made.at("/status"), made.at("/server_id")), (json!("scheduled"), expected), "task {n}");
        assert_eq!((made.at("/attempt"), made.header("etag")), (json!(1), Some("\"2\"")));
        assert_eq!(shown(&admin, n).await.json, made.json);
    }
    assert_eq!(total(&admin, "/audit/logs?action=task.").await, 12, "created and placed is one change");
    check_books(&admin).await;
}

async fn a_stored_task_goes_where_its_dry_run_said(backend: Backend) {
    let server = without_scheduler(backend);
    let admin = server.admin();
    fleet(&admin).await;
    for n in 1..=12 {
        let id = admin.post("/tasks", body()).await.expect(201).id();
        let head = admin.get("/audit/verify").await.at("/head");
        let plan = act(&admin, id, "dry-run").await.expect(200);
        assert_eq!(plan.json, dry_run(&admin, &body()).await.json, "the same for a body and a task");
        assert_eq!(shown(&admin, id).await.at("/pending_reasons"), json!([]), "about to be placed");
        assert_eq!(admin.get("/audit/verify").await.at("/head"), head);
        // With the token and without it alike.
        let token = if n % 2 == 0 { json!({ "plan_token": plan.at("/plan_token") }) } else { json!({}) };
        let placed = admin.post(&format!("/tasks/{id}/dispatch"), token).await.expect(200);
        assert_eq!(
            (placed.at("/status"), placed.at("/server_id")),
            (json!("scheduled"), plan.at("/placement/server_id"))
        );
        assert_eq!(act(&admin, id, "dispatch").await.expect(200).json, placed.json, "placing it again changes nothing");
        assert_eq!(act(&admin, id, "dry-run").await.expect(409).code(), "illegal_transition");
    }
    check_books(&admin).await;
}

async fn a_plan_token_is_of_one_task_and_one_state(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    fleet(&admin).await;
    let check_stale = async |body: &Value, token: Value, case: &str| {
        let refused = admin.post("/tasks", with_token(body, &token)).await.expect(409);
        assert_eq!(refused.code(), "plan_stale", "{case}");
        assert!(refused.at("/detail").as_str().unwrap().contains("plan again"), "{case}: {}", refused.text);
    };
    let token = dry_run(&admin, &body()).await.at("/plan_token");
    check_stale(&body(), json!("0".repeat(64)), "forged").await;
    check_stale(&body(), json!(""), "empty").await;
    let mut cut = token.as_str().unwrap().to_owned();
    cut.pop();
    check_stale(&body(), json!(cut), "cut").await;
    for (member, value) in [
        ("required_cpu", json!(1.001)),
        ("name", json!("other")),
        ("env", json!({ "A": "c" })),
        ("priority", json!(4)),
        ("metadata", json!({ "x": 1 })),
    ] {
        let mut other = body();
        other[member] = value;
        check_stale(&other, token.clone(), member).await;
    }
    admin.patch("/servers/2", json!({ "total_cpu": 15 })).await.expect(200);
    check_stale(&body(), token, "less room where it would go").await;
    let token = dry_run(&admin, &body()).await.at("/plan_token");
    online(&admin, "better", 200.0).await;
    check_stale(&body(), token, "a better server").await;
    // What happens where it does not go is nobody's business.
    let token = dry_run(&admin, &body()).await.at("/plan_token");
    admin.patch("/servers/3", json!({ "zone": "z", "total_cpu": 31 })).await.expect(200);
    assert_eq!((total(&admin, "/tasks").await, total(&admin, "/audit/logs?action=task.").await), (0, 0));
    admin.post("/tasks", with_token(&body(), &token)).await.expect(201);
    check_stale(&body(), token, "used: the room is taken").await;
    assert_eq!(total(&admin, "/tasks").await, 1);
    check_books(&admin).await;
}

async fn a_plan_that_finds_nothing_has_a_token_too(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 2.0).await;
    let body = task("t").cpu(3.0).0;
    let nowhere = dry_run(&admin, &body).await;
    assert_eq!(nowhere.at("/placement"), Value::Null);
    let pending = admin.post("/tasks", with_token(&body, &nowhere.at("/plan_token"))).await.expect(201);
    assert_eq!(pending.at("/status"), "pending", "as planned");
    admin.patch(&format!("/servers/{edge}"), json!({ "total_cpu": 2.5 })).await.expect(200);
    let refused = admin.post("/tasks", with_token(&body, &nowhere.at("/plan_token"))).await.expect(409);
    assert_eq!((refused.code(), total(&admin, "/tasks").await), ("plan_stale", 1));
}

async fn a_stored_task_is_not_placed_with_a_stale_plan(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 2.0).await;
    let id = task("t").cpu(3.0).post(&admin).await;
    refusals(&admin, id).await;
    let dispatch = |token: Value| {
        let admin = admin.clone();
        async move { admin.post(&format!("/tasks/{id}/dispatch"), json!({ "plan_token": token })).await.expect(409) }
    };
    let plan = act(&admin, id, "dry-run").await.expect(200);
    let pending = shown(&admin, id).await;
    assert_eq!(codes(&plan.at("/candidates/0/reasons")), codes(&pending.at("/pending_reasons")));
    let refused = dispatch(plan.at("/plan_token")).await;
    assert_eq!(refused.code(), "no_capacity", "the plan still holds: it fits nowhere");
    let detail = refused.at("/detail").as_str().unwrap().to_owned();
    assert!(detail.contains("insufficient_cpu") && detail.contains("needs 3 cores, 2 free"), "{detail}");
    assert_eq!(dispatch(json!("f".repeat(64))).await.code(), "plan_stale");
    admin.patch(&format!("/servers/{edge}"), json!({ "total_cpu": 2.5 })).await.expect(200);
    assert_eq!(dispatch(plan.at("/plan_token")).await.code(), "plan_stale");
    let refused = admin.post(&format!("/tasks/{id}/dispatch"), json!({ "token": "x" })).await.expect(400);
    assert_eq!(refused.at("/errors/0/field"), "token");
    assert_eq!(shown(&admin, id).await.at("/revision"), 1, "nothing of it was stored");
}
