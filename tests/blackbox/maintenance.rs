//! Maintenance windows over HTTP, and what they do by themselves.

mod kills;
mod refused;

use crate::{
    on_both, server,
    support::{bearer, column, server_with, walk},
};
use chrono::{SecondsFormat, TimeDelta};
use domain::clock::{Clock, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use starlink_agent::agent::SystemClock;
use tests::{Answer, Backend, Client, eventually};

on_both!(
    a_window_is_planned_shown_changed_and_called_off,
    a_window_begins_and_ends_by_itself,
    what_waits_for_a_server_in_a_window_is_placed_after_it,
    overlapping_windows_let_the_server_go_together,
    what_an_operator_took_out_of_use_stays_so,
    the_status_of_a_server_is_not_changed_in_a_window,
    windows_are_listed_filtered_and_paged,
    a_window_is_planned_once_under_its_key,
);

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// The time so many seconds from now, as a request has it.
pub(crate) fn in_seconds(seconds: f64) -> String {
    let by = TimeDelta::from_std(std::time::Duration::from_secs_f64(seconds.abs())).unwrap();
    let at = if seconds < 0.0 { now() - by } else { now() + by };
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A body that plans a window which begins so many seconds from now.
pub(crate) fn window(seconds: f64, minutes: i64) -> Value {
    json!({ "title": "disks", "scheduled_for": in_seconds(seconds), "duration_minutes": minutes })
}

pub(crate) async fn plan(admin: &Client, server: i64, body: Value) -> Answer {
    admin.post(&format!("/servers/{server}/maintenance"), body).await.expect(201)
}

/// Plans a window that has begun, and lasts until somebody ends it.
pub(crate) async fn begin(admin: &Client, server: i64) -> i64 {
    let made = plan(admin, server, window(-1.0, 600)).await;
    assert_eq!(made.at("/status"), "in_progress", "{}", made.text);
    made.id()
}

pub(crate) async fn end(admin: &Client, id: i64) -> Answer {
    admin.patch(&format!("/maintenance/{id}"), json!({ "status": "completed" })).await.expect(200)
}

pub(crate) async fn status_of(admin: &Client, server: i64) -> Value {
    admin.get(&format!("/servers/{server}")).await.expect(200).at("/status")
}

/// Waits until a window is in this status.
pub(crate) async fn window_becomes(admin: &Client, id: i64, status: &str) -> Answer {
    eventually(&format!("window {id} to be {status}"), async || {
        let answer = admin.get(&format!("/maintenance/{id}")).await.expect(200);
        (answer.at("/status") == status).then_some(answer)
    })
    .await
}

/// A server without an agent, to which its operator gave this status.
async fn registered(admin: &Client, name: &str, status: &str) -> i64 {
    admin.post("/servers", server_with(name, json!({ "status": status }))).await.expect(201).id()
}

async fn trail(admin: &Client, target: &str) -> Vec<Value> {
    let mut actions = column(&admin.get(&format!("/audit/logs?target={target}")).await.expect(200), "action");
    actions.reverse();
    actions
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

async fn a_window_is_planned_shown_changed_and_called_off(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = registered(&admin, "edge-1", "online").await;
    let body = json!({
        "title": "new disks", "description": "slots 3 and 4\nand 7", "scheduled_for": "2035-01-02T03:04:05.1234567+01:00",
        "duration_minutes": 90,
    });
    let made = plan(&admin, edge, body).await;
    assert_eq!((made.header("location"), made.header("etag")), (Some("/maintenance/1"), Some("\"1\"")));
    let expected = json!({
        "id": 1, "server_id": edge, "title": "new disks", "description": "slots 3 and 4\nand 7",
        "scheduled_for": "2035-01-02T02:04:05.123456Z", "duration_minutes": 90, "status": "scheduled",
        "started_at": null, "ended_at": null, "note": null, "revision": 1, "created_by": "token:admin",
        "created_at": made.at("/created_at"), "updated_at": made.at("/created_at"),
    });
    assert_eq!(made.json, expected);
    assert_eq!(admin.get("/maintenance/1").await.expect(200).json, expected);

    let patch = json!({ "title": "disks", "description": null, "duration_minutes": 1440, "scheduled_for": "2035-01-03T00:00:00Z" });
    let changed = admin.patch("/maintenance/1", patch.clone()).await.expect(200);
    for (member, value) in patch.as_object().unwrap() {
        assert_eq!(&changed.json[member], value);
    }
    assert_eq!(changed.header("etag"), Some("\"2\""));
    let stale = admin.request(Method::PATCH, "/maintenance/1").header("if-match", "\"1\"");
    Client::send(stale.json(&json!({ "title": "mine" }))).await.expect(412);
    let fresh = admin.request(Method::PATCH, "/maintenance/1").header("if-match", "\"2\"");
    let off = Client::send(fresh.json(&json!({ "status": "cancelled", "description": "no disks" }))).await.expect(200);
    assert_eq!((off.at("/status"), off.at("/description")), (json!("cancelled"), json!("no disks")));
    assert_eq!((off.at("/started_at"), off.at("/ended_at"), off.at("/note")), (Value::Null, Value::Null, Value::Null));
    let noted = admin.patch("/maintenance/1", json!({ "description": "they came too late" })).await.expect(200);
    assert_eq!((noted.at("/status"), noted.at("/revision")), (json!("cancelled"), json!(4)));
    assert_eq!(
        trail(&admin, "maintenance:1").await,
        ["maintenance.create", "maintenance.update", "maintenance.cancel", "maintenance.update"]
    );
    let untouched = admin.get(&format!("/servers/{edge}")).await.expect(200);
    assert_eq!((untouched.at("/status"), untouched.at("/revision")), (json!("online"), json!(1)));

    let viewer = bearer(&admin, "viewer", "viewer", None).await;
    viewer.get("/maintenance/1").await.expect(200);
    viewer.patch("/maintenance/1", json!({ "title": "x" })).await.expect(403);
    viewer.post(&format!("/servers/{edge}/maintenance"), window(60.0, 5)).await.expect(403);
    admin.delete(&format!("/servers/{edge}")).await.expect(204);
    admin.get("/maintenance/1").await.expect(404);
    admin.patch("/maintenance/1", json!({ "title": "x" })).await.expect(404);
    admin.post(&format!("/servers/{edge}/maintenance"), window(60.0, 5)).await.expect(404);
}

async fn a_window_begins_and_ends_by_itself(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let [early, late] = [registered(&admin, "a", "provisioning").await, registered(&admin, "b", "online").await];
    // The one is to begin in a moment; the other has begun a minute ago but for a moment, and so is about to end.
    let begins = plan(&admin, early, window(2.0, 60)).await;
    assert_eq!(begins.at("/status"), "scheduled");
    let ends = plan(&admin, late, window(-52.0, 1)).await;
    assert_eq!((ends.at("/status"), ends.header("etag")), (json!("in_progress"), Some("\"2\"")));
    assert_eq!(ends.at("/started_at"), ends.at("/created_at"), "it did not begin before it was planned");
    assert_eq!(status_of(&admin, late).await, "maintenance");

    let begun = window_becomes(&admin, begins.id(), "in_progress").await;
    assert_eq!(status_of(&admin, early).await, "maintenance");
    let waited = time(&begun.at("/started_at")) - time(&begun.at("/scheduled_for"));
    assert!(TimeDelta::zero() <= waited && waited < TimeDelta::seconds(10), "{waited}");
    let ended = window_becomes(&admin, ends.id(), "completed").await;
    assert_eq!(status_of(&admin, late).await, "online");
    assert!(time(&ended.at("/ended_at")) >= time(&ended.at("/scheduled_for")) + TimeDelta::minutes(1));
    let early_end = end(&admin, begins.id()).await;
    assert_eq!(early_end.at("/status"), "completed");
    assert_eq!(status_of(&admin, early).await, "provisioning");

    for (id, target) in [(begins.id(), early), (ends.id(), late)] {
        let window = trail(&admin, &format!("maintenance:{id}")).await;
        assert_eq!(window, ["maintenance.create", "maintenance.start", "maintenance.complete"]);
        let server = trail(&admin, &format!("server:{target}")).await;
        assert_eq!(server, ["server.create", "server.enter_maintenance", "server.leave_maintenance"]);
    }
    let by = async |query: &str| column(&admin.get(&format!("/audit/logs?{query}")).await.expect(200), "actor");
    assert_eq!(by("action=maintenance.start").await, ["system:fleet", "token:admin"]);
    assert_eq!(by("action=maintenance.complete").await, ["token:admin", "system:fleet"]);
    assert_eq!(admin.get("/audit/verify").await.at("/valid"), true);
}

async fn what_waits_for_a_server_in_a_window_is_placed_after_it(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = registered(&admin, "edge-1", "online").await;
    let post =
        async |name: &str| admin.post("/tasks", json!({ "name": name, "required_cpu": 1 })).await.expect(201).id();
    let before = post("before").await;
    let is = async |id: i64, status: &str| {
        eventually(&format!("task {id} to be {status}"), async || {
            let task = admin.get(&format!("/tasks/{id}")).await.expect(200);
            (task.at("/status") == status).then_some(task)
        })
        .await
    };
    is(before, "scheduled").await;
    let window = begin(&admin, edge).await;
    admin.post_empty(&format!("/tasks/{before}/start")).await.expect(200);
    let after = post("after").await;
    let reasons = eventually("a reason to wait", async || {
        let task = admin.get(&format!("/tasks/{after}")).await.expect(200);
        assert_eq!(task.at("/status"), "pending");
        task.at("/pending_reasons").as_array().filter(|reasons| !reasons.is_empty()).cloned()
    });
    assert_eq!(reasons.await[0]["code"], "maintenance");
    let refused = admin.post_empty(&format!("/tasks/{after}/dispatch")).await.expect(409);
    assert_eq!(refused.code(), "no_capacity");
    assert_eq!(is(before, "running").await.at("/server_id"), edge, "what runs keeps running");
    end(&admin, window).await;
    assert_eq!(is(after, "scheduled").await.at("/server_id"), edge);
}

async fn overlapping_windows_let_the_server_go_together(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = registered(&admin, "edge-1", "offline").await;
    let short = plan(&admin, edge, window(-52.0, 1)).await.id();
    let [first, second] = [begin(&admin, edge).await, begin(&admin, edge).await];
    window_becomes(&admin, short, "completed").await;
    assert_eq!(status_of(&admin, edge).await, "maintenance");
    let off = admin.patch(&format!("/maintenance/{second}"), json!({ "status": "cancelled" })).await.expect(200);
    assert!(off.at("/started_at").is_string() && off.at("/ended_at").is_string(), "{}", off.text);
    assert_eq!(status_of(&admin, edge).await, "maintenance");
    end(&admin, first).await;
    assert_eq!(status_of(&admin, edge).await, "offline", "as its operator had it");
    let actions = trail(&admin, &format!("server:{edge}")).await;
    assert_eq!(actions, ["server.create", "server.enter_maintenance", "server.leave_maintenance"]);
}

async fn what_an_operator_took_out_of_use_stays_so(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = registered(&admin, "edge-1", "maintenance").await;
    for status in ["completed", "cancelled"] {
        let window = begin(&admin, edge).await;
        admin.patch(&format!("/maintenance/{window}"), json!({ "status": status })).await.expect(200);
        assert_eq!(status_of(&admin, edge).await, "maintenance");
    }
    assert_eq!(trail(&admin, &format!("server:{edge}")).await, ["server.create"]);
    admin.patch(&format!("/servers/{edge}"), json!({ "status": "online" })).await.expect(200);
}

async fn the_status_of_a_server_is_not_changed_in_a_window(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for before in ["online", "maintenance"] {
        let edge = registered(&admin, before, before).await;
        let path = format!("/servers/{edge}");
        let window = begin(&admin, edge).await;
        for status in ["online", "offline", "provisioning"] {
            let refused = admin.patch(&path, json!({ "status": status, "zone": "z" })).await.expect(409);
            assert_eq!(refused.code(), "maintenance_in_progress");
            let detail = refused.at("/detail").as_str().unwrap().to_owned();
            assert!(detail.contains(&format!("PATCH /maintenance/{window}")) && detail.contains("disks"), "{detail}");
        }
        let same = admin.patch(&path, json!({ "status": "maintenance", "location": "Rack 3" })).await.expect(200);
        assert_eq!((same.at("/status"), same.at("/location")), (json!("maintenance"), json!("Rack 3")));
        assert_eq!(same.at("/zone"), Value::Null);
        end(&admin, window).await;
        assert_eq!(status_of(&admin, edge).await, before);
        admin.patch(&path, json!({ "status": "offline" })).await.expect(200);
    }
}

async fn windows_are_listed_filtered_and_paged(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let [a, b] = [registered(&admin, "a", "online").await, registered(&admin, "b", "online").await];
    plan(&admin, a, window(600.0, 5)).await;
    let over = begin(&admin, a).await;
    end(&admin, over).await;
    begin(&admin, b).await;
    let off = plan(&admin, b, window(600.0, 5)).await.id();
    admin.patch(&format!("/maintenance/{off}"), json!({ "status": "cancelled" })).await.expect(200);
    let check = async |query: &str, expected: &[i64]| {
        let found = admin.get(&format!("/maintenance{query}")).await.expect(200);
        assert_eq!(column(&found, "id"), expected, "{query}");
        assert_eq!(found.header("x-total-count"), Some(expected.len().to_string().as_str()), "{query}");
    };
    check("", &[4, 3, 2, 1]).await;
    check("?upcoming_only=false", &[4, 3, 2, 1]).await;
    check("?upcoming_only=true", &[3, 1]).await;
    check(&format!("?server_id={a}"), &[2, 1]).await;
    check(&format!("?server_id={a}&server_id={b}"), &[4, 3, 2, 1]).await;
    check(&format!("?server_id={a}&upcoming_only=true"), &[1]).await;
    check("?server_id=99", &[]).await;
    for (n, status) in ["scheduled", "completed", "in_progress", "cancelled"].into_iter().enumerate() {
        check(&format!("?status={status}"), &[i64::try_from(n).unwrap() + 1]).await;
    }
    let ids: Vec<Value> = walk(&admin, "/maintenance?limit=1").await.iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [4, 3, 2, 1]);
    for (query, field) in
        [("status=over", "status"), ("server_id=0", "server_id"), ("upcoming_only=soon", "upcoming_only")]
    {
        let refused = admin.get(&format!("/maintenance?{query}")).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), field, "{query}");
    }
}

async fn a_window_is_planned_once_under_its_key(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = registered(&admin, "edge-1", "online").await;
    let body = window(-1.0, 600);
    let post = || {
        let request = admin.request(Method::POST, &format!("/servers/{edge}/maintenance"));
        Client::send(request.header("idempotency-key", "w-1").json(&body))
    };
    let first = post().await.expect(201);
    end(&admin, first.id()).await;
    let again = post().await.expect(201);
    assert_eq!((again.header("idempotency-replayed"), &again.json), (Some("true"), &first.json));
    assert_eq!(status_of(&admin, edge).await, "online");
    assert_eq!(walk(&admin, "/maintenance").await.len(), 1);
}
