//! What no window can be, and what no window becomes: each is told why, and nothing changes.

use super::{begin, in_seconds, plan, registered, window};
use crate::{on_both, server, support::check_problem};
use serde_json::{Value, json};
use tests::{Backend, Client};

on_both!(what_is_no_window_is_refused_by_name, a_window_becomes_nothing_that_it_cannot);

async fn what_is_no_window_is_refused_by_name(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = registered(&admin, "edge-1", "online").await;
    let with = |member: &str, value: Value| {
        let mut body = window(600.0, 30);
        body[member] = value;
        body
    };
    for (body, field) in [
        (with("title", json!("")), "title"),
        (with("title", json!("two\nlines")), "title"),
        (with("title", Value::Null), "title"),
        (with("description", json!("x".repeat(4097))), "description"),
        (with("duration_minutes", json!(0)), "duration_minutes"),
        (with("duration_minutes", json!(1441)), "duration_minutes"),
        (with("duration_minutes", json!(1.5)), "duration_minutes"),
        (with("scheduled_for", json!("tomorrow")), "scheduled_for"),
        (with("scheduled_for", json!(in_seconds(-1800.0))), "scheduled_for"),
        (with("scheduled_for", json!("2999-01-01T00:00:00Z")), "scheduled_for"),
        (with("scheduled_for", json!("0001-01-01T00:00:00Z")), "scheduled_for"),
        (with("status", json!("in_progress")), "status"),
        (json!({ "title": "disks", "duration_minutes": 5 }), "scheduled_for"),
    ] {
        let refused = admin.post(&format!("/servers/{edge}/maintenance"), body.clone()).await;
        check_problem(&refused, 400, &body.to_string());
        assert_eq!(refused.at("/errors/0/field"), field, "{body}");
    }
    let late = admin.post(&format!("/servers/{edge}/maintenance"), window(-3600.0, 30)).await.expect(400);
    let reason = late.at("/errors/0/reason").as_str().unwrap().to_owned();
    assert!(reason.contains("give a later time"), "{reason}");
    check_problem(&admin.post("/servers/99/maintenance", window(60.0, 5)).await, 404, "no such server");
    assert_eq!(admin.get("/maintenance").await.expect(200).json, json!([]));
}

/// Fails unless the window refuses the patch like that and stays as it is.
async fn check(admin: &Client, id: i64, patch: Value, expected: Result<&str, &str>, word: &str) {
    let window = format!("/maintenance/{id}");
    let before = admin.get(&window).await.expect(200).json;
    let refused = admin.patch(&window, patch.clone()).await;
    let detail = match expected {
        Ok(code) => {
            check_problem(&refused, 409, &patch.to_string());
            assert_eq!(refused.code(), code, "{patch}");
            refused.at("/detail")
        }
        Err(field) => {
            check_problem(&refused, 400, &patch.to_string());
            assert_eq!(refused.at("/errors/0/field"), field, "{patch}");
            refused.at("/errors/0/reason")
        }
    };
    assert!(detail.as_str().unwrap().contains(word), "{patch}: {detail}");
    assert_eq!(admin.get(&window).await.expect(200).json, before, "{patch}");
}

async fn a_window_becomes_nothing_that_it_cannot(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = registered(&admin, "edge-1", "online").await;
    let to = |status: &str| json!({ "status": status });
    let transition = Ok("illegal_transition");
    let ahead = plan(&admin, edge, window(3600.0, 30)).await.id();
    check(&admin, ahead, to("completed"), transition, "has not begun").await;
    check(&admin, ahead, to("in_progress"), transition, "begins by itself").await;
    check(&admin, ahead, to("over"), Err("status"), "").await;
    check(&admin, ahead, json!({ "status": null }), Err("status"), "null").await;
    check(&admin, ahead, json!({ "title": null }), Err("title"), "null").await;
    check(&admin, ahead, json!({ "scheduled_for": in_seconds(-1900.0) }), Err("scheduled_for"), "later time").await;
    check(&admin, ahead, json!({ "started_at": in_seconds(0.0) }), Err("started_at"), "").await;
    check(&admin, ahead, json!({ "server_id": 2 }), Err("server_id"), "").await;

    let running = plan(&admin, edge, window(-600.0, 30)).await.id();
    check(&admin, running, to("scheduled"), transition, "has begun").await;
    check(&admin, running, json!({ "scheduled_for": in_seconds(60.0) }), transition, "start cannot be moved").await;
    check(&admin, running, json!({ "duration_minutes": 10 }), Err("duration_minutes"), "\"completed\"").await;
    admin
        .patch(&format!("/maintenance/{running}"), json!({ "duration_minutes": 11, "title": "fans" }))
        .await
        .expect(200);

    let over = begin(&admin, edge).await;
    admin.patch(&format!("/maintenance/{over}"), to("completed")).await.expect(200);
    check(&admin, over, to("cancelled"), transition, "plan another window").await;
    check(&admin, over, to("in_progress"), transition, "plan another window").await;
    check(&admin, over, json!({ "duration_minutes": 60 }), transition, "title and description").await;
    // What leaves all as it is, is no change to be refused.
    admin.patch(&format!("/maintenance/{over}"), to("completed")).await.expect(200);
}
