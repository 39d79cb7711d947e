//! Why a task waits, what ends its waiting, and who is first.

use super::support::{act, becomes, check_books, codes, online, online_with, pool, refusals, shown, task};
use crate::{on_both, server, support::column};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tests::{Backend, Client};

on_both!(
    the_reasons_have_numbers_and_the_nearest_miss_comes_first,
    every_reason_has_its_words,
    without_a_server_that_is_the_reason,
    whatever_makes_room_wakes_the_task_that_waits,
    a_task_that_does_not_fit_does_not_block_those_behind_it,
    priority_then_deadline_then_age_decide_who_gets_the_last_core,
    a_task_fails_when_its_deadline_passes_while_it_waits,
);

async fn the_reasons_have_numbers_and_the_nearest_miss_comes_first(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let near = online(&admin, "near", 4.0).await;
    task("filler").cpu(1.5).scheduled(&admin).await;
    let full = online_with(&admin, "full", json!({ "total_cpu": 8, "total_memory": 1 })).await;
    online_with(&admin, "arm", json!({ "total_cpu": 64, "total_memory": 1, "architecture": "arm64" })).await;
    let more = json!({ "required_memory": 2, "required_architecture": "x86_64" });
    let id = task("t").cpu(4.0).with(more).post(&admin).await;
    refusals(&admin, id).await;
    let pending = shown(&admin, id).await;
    let reason = |code: &str, servers: i64, (id, name): (i64, &str), detail: &str| {
        let nearest = json!({ "server_id": id, "name": name });
        json!({ "code": code, "servers": servers, "nearest": nearest, "detail": detail })
    };
    let expected = json!([
        reason("insufficient_cpu", 1, (near, "near"), "needs 4 cores, 2.5 free"),
        reason("insufficient_memory", 2, (full, "full"), "needs 2 GiB of memory, 1 free"),
        reason("architecture_mismatch", 1, (3, "arm"), "is arm64, the task needs x86_64"),
    ]);
    assert_eq!(pending.at("/pending_reasons"), expected);
    assert_eq!((pending.at("/status"), pending.at("/server_id")), (json!("pending"), Value::Null));
    assert_eq!(column(&admin.get("/tasks?status=pending").await, "pending_reasons"), [Value::Null]);
}

async fn every_reason_has_its_words(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let (own, other) = (pool(&admin, "own", Some(1.0)).await, pool(&admin, "other", None).await);
    let more = json!({ "total_cpu": 2, "total_gpu": 1, "total_storage": 5, "pool_id": own, "tags": { "zone": "a" } });
    let edge = online_with(&admin, "edge", more).await;
    let check = async |more: Value, code: &str, detail: &str| {
        let found = admin.post("/tasks/dry-run", task("t").with(more.clone()).0).await.expect(200);
        assert_eq!(found.at("/placement"), Value::Null, "{more}");
        assert_eq!(found.at("/candidates/0/reasons"), json!([{ "code": code, "detail": detail }]), "{more}");
    };
    check(json!({ "required_gpu": 2 }), "insufficient_gpu", "needs 2 GPUs, 1 free").await;
    check(json!({ "required_storage": 7.5 }), "insufficient_storage", "needs 7.5 GiB of storage, 5 free").await;
    check(json!({ "required_cpu": 1.2 }), "quota_cpu", "needs 1.2 cores, 1 of 1 left in the quota of pool \"own\"")
        .await;
    check(json!({ "labels": { "zone": "b" } }), "labels_mismatch", "lacks the tag zone=b").await;
    let pools = "is in pool \"own\", the task must run in pool \"other\"";
    check(json!({ "pool_id": other }), "pool_mismatch", pools).await;
    let agent = "has no agent that offers the driver exec";
    check(json!({ "command": ["x"] }), "driver_missing", agent).await;
    for (status, code, detail) in [
        ("offline", "offline", "is offline"),
        ("maintenance", "maintenance", "is under maintenance"),
        ("provisioning", "provisioning", "is still being set up"),
    ] {
        admin.patch(&format!("/servers/{edge}"), json!({ "status": status })).await.expect(200);
        check(json!({}), code, detail).await;
    }
    admin.patch(&format!("/servers/{edge}"), json!({ "status": "online" })).await.expect(200);
    admin.post_empty(&format!("/servers/{edge}/cordon")).await.expect(200);
    check(json!({}), "cordoned", "is cordoned: it takes no new work").await;
}

async fn without_a_server_that_is_the_reason(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let id = task("t").post(&admin).await;
    let pending = shown(&admin, id).await;
    let detail = "there is no server yet; register one";
    let reason = json!({ "code": "no_servers", "servers": 0, "nearest": null, "detail": detail });
    assert_eq!(pending.at("/pending_reasons"), json!([reason]));
    let refused = act(&admin, id, "dispatch").await.expect(409);
    assert_eq!(refused.code(), "no_capacity");
    assert!(refused.at("/detail").as_str().unwrap().contains("register one"), "{}", refused.text);
    online(&admin, "first", 1.0).await;
    let placed = becomes(&admin, id, "scheduled").await;
    assert_eq!(placed.at("/pending_reasons"), Value::Null);
}

async fn whatever_makes_room_wakes_the_task_that_waits(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", Some(1.0)).await;
    let edge = online_with(&admin, "edge", json!({ "total_cpu": 1, "pool_id": pool })).await;
    let (server_path, pool_path) = (format!("/servers/{edge}"), format!("/pools/{pool}"));

    admin.post_empty(&format!("{server_path}/cordon")).await.expect(200);
    let first = task("first").post(&admin).await;
    assert_eq!(refusals(&admin, first).await, ["cordoned"]);
    admin.post_empty(&format!("{server_path}/uncordon")).await.expect(200);
    becomes(&admin, first, "scheduled").await;

    let second = task("second").post(&admin).await;
    assert_eq!(refusals(&admin, second).await, ["insufficient_cpu", "quota_cpu"]);
    admin.patch(&server_path, json!({ "total_cpu": 4 })).await.expect(200);
    assert_eq!(refusals(&admin, second).await, ["quota_cpu"], "a larger server alone does not help");
    admin.patch(&pool_path, json!({ "quotas": { "cpu": 2 } })).await.expect(200);
    becomes(&admin, second, "scheduled").await;

    let third = task("third").post(&admin).await;
    assert_eq!(refusals(&admin, third).await, ["quota_cpu"]);
    act(&admin, first, "start").await.expect(200);
    act(&admin, first, "complete").await.expect(200);
    becomes(&admin, third, "scheduled").await;

    let fourth = task("fourth").post(&admin).await;
    assert_eq!(refusals(&admin, fourth).await, ["quota_cpu"]);
    online(&admin, "outside", 1.0).await;
    assert_eq!(becomes(&admin, fourth, "scheduled").await.at("/server_id"), edge + 1);

    let fifth = task("fifth").post(&admin).await;
    refusals(&admin, fifth).await;
    act(&admin, second, "cancel").await.expect(200);
    becomes(&admin, fifth, "scheduled").await;

    let sixth = task("sixth").with(json!({ "labels": { "zone": "a" } })).post(&admin).await;
    refusals(&admin, sixth).await;
    admin.patch(&pool_path, json!({ "quotas": null })).await.expect(200);
    assert!(refusals(&admin, sixth).await.contains(&"labels_mismatch".to_owned()));
    admin.patch(&server_path, json!({ "tags": { "zone": "a" } })).await.expect(200);
    becomes(&admin, sixth, "scheduled").await;

    admin.patch(&server_path, json!({ "status": "maintenance" })).await.expect(200);
    let seventh = task("seventh").post(&admin).await;
    refusals(&admin, seventh).await;
    admin.patch(&server_path, json!({ "status": "online" })).await.expect(200);
    becomes(&admin, seventh, "scheduled").await;
    check_books(&admin).await;
}

async fn a_task_that_does_not_fit_does_not_block_those_behind_it(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    online(&admin, "edge", 4.0).await;
    let large = task("large").cpu(5.0).with(json!({ "priority": 5 })).post(&admin).await;
    refusals(&admin, large).await;
    let small = task("small").with(json!({ "priority": 1 })).post(&admin).await;
    becomes(&admin, small, "scheduled").await;
    assert_eq!(refusals(&admin, large).await, ["insufficient_cpu"]);
}

/// The tasks that have the server, in the order in which they get it; each ends when the next is to be seen.
async fn order_of(admin: &Client, server: i64, count: usize) -> Vec<i64> {
    let mut order = Vec::new();
    while order.len() < count {
        let query = format!("/tasks?status=scheduled&server_id={server}");
        let placed = tests::eventually("the next task to be placed", async || {
            let found = column(&admin.get(&query).await.expect(200), "id");
            assert!(found.len() <= 1, "one core, and {found:?}");
            found.first().and_then(Value::as_i64)
        });
        let id = placed.await;
        order.push(id);
        act(admin, id, "start").await.expect(200);
        act(admin, id, "complete").await.expect(200);
    }
    order
}

async fn priority_then_deadline_then_age_decide_who_gets_the_last_core(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 1.0).await;
    admin.post_empty(&format!("/servers/{edge}/cordon")).await.expect(200);
    let mut ids = Vec::new();
    for (priority, deadline) in [
        (1, Some("2998-01-01T00:00:00Z")),
        (3, None),
        (3, None),
        (3, Some("2999-01-02T00:00:00Z")),
        (5, None),
        (3, Some("2999-01-01T00:00:00Z")),
        (5, Some("2999-12-01T00:00:00Z")),
        (1, None),
    ] {
        let more = json!({ "priority": priority, "deadline": deadline });
        ids.push(task(&format!("p{priority}")).with(more).post(&admin).await);
    }
    for id in &ids {
        assert_eq!(refusals(&admin, *id).await, ["cordoned"]);
    }
    admin.post_empty(&format!("/servers/{edge}/uncordon")).await.expect(200);
    let expected: Vec<i64> = [6, 4, 5, 3, 1, 2, 0, 7].into_iter().map(|n: usize| ids[n]).collect();
    assert_eq!(order_of(&admin, edge, ids.len()).await, expected);
    check_books(&admin).await;
}

async fn a_task_fails_when_its_deadline_passes_while_it_waits(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let made = admin.post("/pools", json!({ "name": "clock" })).await.expect(201);
    let now: DateTime<Utc> = serde_json::from_value(made.at("/created_at")).unwrap();
    let deadline = now + TimeDelta::milliseconds(1500);
    let late = task("late").with(json!({ "deadline": deadline })).post(&admin).await;
    let later = task("later").with(json!({ "deadline": now + TimeDelta::days(1) })).post(&admin).await;
    assert_eq!(codes(&shown(&admin, late).await.at("/pending_reasons")), ["no_servers"]);
    let failed = becomes(&admin, late, "failed").await;
    assert_eq!((failed.at("/reason"), failed.at("/attempt")), (json!("deadline_passed"), json!(0)));
    assert!(failed.at("/detail").as_str().unwrap().contains("before its deadline"), "{}", failed.text);
    let finished: DateTime<Utc> = serde_json::from_value(failed.at("/finished_at")).unwrap();
    assert!(finished >= deadline && finished < deadline + TimeDelta::seconds(20), "{finished} for {deadline}");
    let trail = admin.get(&format!("/audit/logs?target=task:{late}")).await.expect(200);
    assert_eq!(column(&trail, "action"), ["task.expire", "task.create"]);
    assert_eq!(trail.at("/0/actor"), "system:scheduler");
    assert_eq!(act(&admin, late, "retry").await.expect(409).code(), "deadline_passed");
    // What comes too late is not placed any more, and what has time is.
    online(&admin, "edge", 4.0).await;
    becomes(&admin, later, "scheduled").await;
    assert_eq!(shown(&admin, late).await.json, failed.json);
}
