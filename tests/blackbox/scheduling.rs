//! Tasks over HTTP: their life, and what they may not do in it.

mod body;
mod fire;
mod kills;
mod ledger;
mod permissions;
mod plans;
mod quotas;
mod repeats;
mod secrets;
mod support;
mod waiting;

use crate::{
    on_both, server,
    support::{column, names, walk},
};
use reqwest::Method;
use serde_json::{Value, json};
use support::{act, becomes, check_books, cores, online, online_with, pool, pool_cores, refusals, shown, task};
use tests::{Backend, Client};

on_both!(
    a_task_without_an_agent_lives_and_leaves_its_trail,
    what_a_state_does_not_allow_is_refused_with_its_sentence,
    a_failed_attempt_is_followed_by_another_while_there_are_any_left,
    a_retry_makes_another_attempt,
    a_task_is_cancelled_wherever_it_is,
    a_task_that_holds_room_is_not_removed,
    a_task_with_an_agent_is_not_driven_by_hand,
    tasks_are_found_and_paged,
);

async fn a_task_without_an_agent_lives_and_leaves_its_trail(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", Some(3.0)).await;
    let edge = online_with(&admin, "edge", json!({ "pool_id": pool })).await;
    let more = json!({ "required_memory": 2.5, "required_storage": 10, "labels": {}, "metadata": { "a": [1, null] } });
    let made = admin.post("/tasks", task("t").cpu(1.5).with(more).0).await.expect(201);
    assert_eq!((made.header("location"), made.header("etag")), (Some("/tasks/1"), Some("\"1\"")));
    let mut expected = json!({
        "id": 1, "name": "t", "required_architecture": "universal", "required_cpu": 1.5, "required_memory": 2.5,
        "required_storage": 10.0, "required_gpu": 0, "kind": "job", "driver": "none", "image": null, "image_digest": null,
        "image_platforms": null, "verify_image": true, "command": [],
        "env": {}, "ports": [], "mounts": [], "pool_id": null, "labels": {}, "allow_emulation": false, "priority": 3,
        "deadline": null, "restart": "no", "max_attempts": 1, "timeout_seconds": null, "grace_seconds": null,
        "log_limit": null, "metadata": { "a": [1, null] }, "status": "pending", "attempt": 0, "server_id": null,
        "reason": null, "detail": null, "barred_architectures": [], "pending_reasons": null, "revision": 1,
        "created_at": made.at("/created_at"), "updated_at": made.at("/created_at"), "scheduled_at": null,
        "started_at": null, "finished_at": null,
    });
    expected["required_server_id"] = Value::Null;
    assert_eq!(made.json, expected);

    let scheduled = becomes(&admin, 1, "scheduled").await;
    assert_eq!((scheduled.at("/server_id"), scheduled.at("/attempt")), (json!(edge), json!(1)));
    assert_eq!((scheduled.header("etag"), scheduled.at("/scheduled_at").is_string()), (Some("\"2\""), true));
    check_reserved(&admin, edge, pool, [1.5, 2.5, 10.0]).await;
    let running = act(&admin, 1, "start").await.expect(200);
    assert_eq!((running.at("/status"), running.at("/started_at").is_string()), (json!("running"), true));
    assert_eq!(running.header("etag"), Some("\"3\""));
    check_reserved(&admin, edge, pool, [1.5, 2.5, 10.0]).await;
    let completed = act(&admin, 1, "complete").await.expect(200);
    assert_eq!((completed.at("/status"), completed.at("/finished_at").is_string()), (json!("completed"), true));
    assert_eq!(shown(&admin, 1).await.json, completed.json);
    check_reserved(&admin, edge, pool, [0.0, 0.0, 0.0]).await;

    let attempts = admin.get("/tasks/1/attempts").await.expect(200);
    let attempt = json!([{
        "number": 1, "server_id": edge, "status": "completed", "exit_code": null, "signal": null, "reason": null,
        "held": false, "created_at": completed.at("/scheduled_at"), "started_at": completed.at("/started_at"),
        "finished_at": completed.at("/finished_at"),
    }]);
    assert_eq!(attempts.json, attempt);
    let trail = admin.get("/audit/logs?target=task:1").await.expect(200);
    assert_eq!(column(&trail, "action"), ["task.complete", "task.start", "task.dispatch", "task.create"]);
    assert_eq!(column(&trail, "actor"), ["token:admin", "token:admin", "system:scheduler", "token:admin"]);
    let position = |status: &str, revision: i64, server: Value, attempt: i64| {
        json!({
            "status": status, "attempt": attempt, "server_id": server, "reason": null, "revision": revision,
        })
    };
    assert_eq!(trail.at("/2/before"), position("pending", 1, Value::Null, 0));
    assert_eq!(trail.at("/2/after"), position("scheduled", 2, json!(edge), 1));
    check_books(&admin).await;
}

/// Cores, memory and storage that are reserved on the server and, as it is the only one, in its pool.
async fn check_reserved(admin: &Client, server: i64, pool: i64, expected: [f64; 3]) {
    let server = admin.get(&format!("/servers/{server}")).await.expect(200);
    let pool = admin.get(&format!("/pools/{pool}")).await.expect(200);
    for (resource, expected) in ["cpu", "memory", "storage"].into_iter().zip(expected) {
        let number = |pointer: &str| server.at(pointer).as_f64().unwrap();
        let [total, reserved, available] =
            ["total", "reserved", "available"].map(|kind| number(&format!("/{kind}_{resource}")));
        assert_eq!((reserved, available), (expected, total - expected), "{resource} of {}", server.text);
        assert_eq!(pool.at(&format!("/capacity/{resource}/reserved")), expected, "{resource} of {}", pool.text);
    }
}

/// A task that has come to this state; of 100 cores one is enough for it.
async fn task_in(admin: &Client, state: &str) -> i64 {
    if state == "pending" {
        return task("too large").cpu(500.0).post(admin).await;
    }
    let id = task(state).scheduled(admin).await;
    let steps: &[&str] = match state {
        "scheduled" => &[],
        "running" => &["start"],
        "completed" => &["start", "complete"],
        "failed" => &["start", "complete?success=false"],
        "cancelled" => &["cancel"],
        other => panic!("no task is brought to {other}"),
    };
    for step in steps {
        act(admin, id, step).await.expect(200);
    }
    assert_eq!(shown(admin, id).await.at("/status"), state);
    id
}

async fn what_a_state_does_not_allow_is_refused_with_its_sentence(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    online(&admin, "edge", 100.0).await;
    let (place, start) = ("only a pending task can be placed", "only a scheduled task can be started");
    let (complete, retry) = ("only a running task can be completed", "only a failed or cancelled task can be retried");
    let cancel = "only a task that has not ended can be cancelled";
    for (state, refused) in [
        ("pending", &[("start", start), ("complete", complete), ("retry", retry)][..]),
        ("scheduled", &[("dry-run", place), ("complete?success=false", complete), ("retry", retry)]),
        ("running", &[("dispatch", place), ("dry-run", place), ("start", start), ("retry", retry)]),
        (
            "completed",
            &[("dispatch", place), ("start", start), ("complete", complete), ("cancel", cancel), ("retry", retry)],
        ),
        ("failed", &[("dispatch", place), ("start", start), ("complete?success=true", complete), ("cancel", cancel)]),
        (
            "cancelled",
            &[("dispatch", place), ("dry-run", place), ("start", start), ("complete", complete), ("cancel", cancel)],
        ),
    ] {
        let id = task_in(&admin, state).await;
        let before = shown(&admin, id).await;
        for (action, rule) in refused {
            let answer = act(&admin, id, action).await.expect(409);
            assert_eq!(answer.code(), "illegal_transition", "{action} of a task that is {state}");
            assert_eq!(answer.at("/detail"), format!("task {id} is {state}; {rule}"), "{action}");
        }
        assert_eq!(shown(&admin, id).await.json, before.json, "{state}");
    }
    for action in ["dispatch", "dry-run", "start", "complete", "cancel", "retry"] {
        assert_eq!(act(&admin, 987, action).await.expect(404).at("/detail"), "there is no task 987", "{action}");
    }
    admin.get("/tasks/987/attempts").await.expect(404);
    check_books(&admin).await;
}

async fn a_failed_attempt_is_followed_by_another_while_there_are_any_left(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 1.0).await;
    let id = task("t").attempts(2).scheduled(&admin).await;
    act(&admin, id, "start").await.expect(200);
    let again = act(&admin, id, "complete?success=false").await.expect(200);
    assert_eq!((again.at("/status"), again.at("/reason")), (json!("pending"), json!("attempt_failed")));
    assert_eq!(again.at("/detail"), "attempt 1 failed; the task may have 2");
    assert_eq!((again.at("/scheduled_at"), again.at("/started_at")), (Value::Null, Value::Null));
    let second = becomes(&admin, id, "scheduled").await;
    assert_eq!((second.at("/attempt"), second.at("/reason")), (json!(2), Value::Null));
    assert_eq!(cores(&admin, edge).await, (json!(1.0), json!(0.0)));
    act(&admin, id, "start").await.expect(200);
    let failed = act(&admin, id, "complete?success=false").await.expect(200);
    assert_eq!((failed.at("/status"), failed.at("/finished_at").is_string()), (json!("failed"), true));
    assert_eq!(failed.at("/detail"), "attempt 2 failed; the task may have 2");
    let attempts = admin.get(&format!("/tasks/{id}/attempts")).await.expect(200);
    assert_eq!(column(&attempts, "number"), [2, 1]);
    assert_eq!(column(&attempts, "status"), ["failed", "failed"]);
    assert_eq!(column(&attempts, "reason"), ["attempt_failed", "attempt_failed"]);
    assert_eq!(column(&attempts, "held"), [false, false]);
    assert_eq!(cores(&admin, edge).await, (json!(0.0), json!(1.0)));
    check_books(&admin).await;
}

async fn a_retry_makes_another_attempt(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 4.0).await;
    for ended in ["failed", "cancelled"] {
        let id = task_in(&admin, ended).await;
        let again = act(&admin, id, "retry").await.expect(200);
        assert_eq!((again.at("/status"), again.at("/finished_at")), (json!("pending"), Value::Null), "{ended}");
        let placed = becomes(&admin, id, "scheduled").await;
        assert_eq!((placed.at("/attempt"), placed.at("/server_id")), (json!(2), json!(edge)), "{ended}");
        let attempts = admin.get(&format!("/tasks/{id}/attempts")).await.expect(200);
        assert_eq!(column(&attempts, "status"), ["scheduled", ended]);
        assert_eq!(column(&attempts, "held"), [true, false]);
    }
    assert_eq!(cores(&admin, edge).await, (json!(2.0), json!(2.0)));
    check_books(&admin).await;
}

async fn a_task_is_cancelled_wherever_it_is(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", Some(200.0)).await;
    let edge = online_with(&admin, "edge", json!({ "total_cpu": 100, "pool_id": pool })).await;
    for (state, attempts) in [("pending", 0), ("scheduled", 1), ("running", 1)] {
        let id = task_in(&admin, state).await;
        let cancelled = act(&admin, id, "cancel").await.expect(200);
        assert_eq!((cancelled.at("/status"), cancelled.at("/reason")), (json!("cancelled"), json!("cancelled")));
        assert!(cancelled.at("/finished_at").is_string(), "{state}");
        let found = admin.get(&format!("/tasks/{id}/attempts")).await.expect(200);
        assert_eq!(column(&found, "status"), vec![json!("cancelled"); attempts], "{state}");
        assert_eq!(cores(&admin, edge).await, (json!(0.0), json!(100.0)), "{state}");
        assert_eq!(pool_cores(&admin, pool).await, 0.0, "{state}");
    }
    check_books(&admin).await;
}

async fn a_task_that_holds_room_is_not_removed(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    online(&admin, "edge", 100.0).await;
    for state in ["scheduled", "running"] {
        let id = task_in(&admin, state).await;
        let refused = admin.delete(&format!("/tasks/{id}")).await.expect(409);
        assert_eq!(refused.code(), "task_is_live", "{state}");
        assert!(refused.at("/detail").as_str().unwrap().contains("cancel it first"), "{}", refused.text);
    }
    for state in ["pending", "completed", "failed", "cancelled"] {
        let id = task_in(&admin, state).await;
        let (path, etag) = (format!("/tasks/{id}"), shown(&admin, id).await.header("etag").unwrap().to_owned());
        let stale = admin.request(Method::DELETE, &path).header("if-match", "\"77\"");
        assert_eq!(Client::send(stale).await.expect(412).code(), "stale", "{state}");
        Client::send(admin.request(Method::DELETE, &path).header("if-match", etag)).await.expect(204);
        admin.get(&path).await.expect(404);
        admin.get(&format!("{path}/attempts")).await.expect(404);
        admin.delete(&path).await.expect(404);
        let trail = admin.get(&format!("/audit/logs?target=task:{id}&limit=1")).await.expect(200);
        assert_eq!(trail.at("/0/action"), "task.delete");
    }
    check_books(&admin).await;
}

async fn a_task_with_an_agent_is_not_driven_by_hand(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    online(&admin, "edge", 100.0).await;
    for more in [
        json!({
            "image": "nginx:1.27", "required_architecture": "amd64", "verify_image": false,
            "ports": [{ "container_port": 80 }],
        }),
        json!({ "command": ["/bin/true"] }),
    ] {
        let id = task("t").with(more).post(&admin).await;
        assert_eq!(refusals(&admin, id).await, ["driver_missing"], "no server has an agent");
        for action in ["start", "complete"] {
            assert_eq!(act(&admin, id, action).await.expect(409).code(), "driven_by_agent", "{action}");
        }
        act(&admin, id, "cancel").await.expect(200);
    }
}

async fn tasks_are_found_and_paged(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", None).await;
    let edge = online_with(&admin, "edge", json!({ "pool_id": pool })).await;
    task("a_1").scheduled(&admin).await;
    task("ab1").cpu(50.0).pool(pool).post(&admin).await;
    task("Задача").pool(pool).scheduled(&admin).await;
    let image = json!({ "image": "ghcr.io/Acme/web:1", "required_architecture": "arm64", "verify_image": false });
    task("d").with(image).post(&admin).await;
    let gone = task("e").scheduled(&admin).await;
    act(&admin, gone, "cancel").await.expect(200);
    let check = async |query: &[(&str, &str)], expected: &[&str]| {
        let found = Client::send(admin.request(Method::GET, "/tasks").query(query)).await.expect(200);
        assert_eq!(names(&found), expected, "{query:?}");
        assert_eq!(found.header("x-total-count"), Some(expected.len().to_string().as_str()), "{query:?}");
        for reasons in column(&found, "pending_reasons") {
            assert_eq!(reasons, Value::Null);
        }
    };
    check(&[], &["e", "d", "Задача", "ab1", "a_1"]).await;
    check(&[("status", "pending")], &["d", "ab1"]).await;
    check(&[("status", "cancelled")], &["e"]).await;
    check(&[("status", "unknown")], &[]).await;
    check(&[("server_id", &edge.to_string())], &["e", "Задача", "a_1"]).await;
    check(&[("server_id", &edge.to_string()), ("status", "scheduled")], &["Задача", "a_1"]).await;
    check(&[("pool_id", &pool.to_string())], &["Задача", "ab1"]).await;
    check(&[("keyword", "A_")], &["a_1"]).await;
    check(&[("keyword", "ЗАДАЧ")], &["Задача"]).await;
    check(&[("keyword", "acme/WEB")], &["d"]).await;
    check(&[("keyword", "%")], &[]).await;
    let ids: Vec<Value> = walk(&admin, "/tasks?limit=2").await.iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [5, 4, 3, 2, 1]);
    let first = admin.get("/tasks?limit=2").await.expect(200);
    task("f").post(&admin).await;
    let rest = walk(&admin, &crate::support::next(&first).unwrap()).await;
    assert_eq!(rest.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), [3, 2, 1], "none twice, none left out");
}
