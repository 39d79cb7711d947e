//! Rules that make alerts: what they may say, and what they would have done.

use super::{alerts, hot, measure, registered, rule, rule_of, watching, without_rules};
use crate::{
    maintenance::{in_seconds, plan},
    on_both,
    support::{bearer, check_problem, column, names, total},
};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Backend, Client};

on_both!(
    a_rule_is_made_shown_changed_and_removed,
    default_rules_can_be_removed_for_good,
    what_makes_no_sense_is_refused_by_name,
    a_rule_is_made_once_under_its_key,
    a_preview_tells_what_would_have_fired_and_writes_nothing,
);

async fn a_rule_is_made_shown_changed_and_removed(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    let body = json!({
        "name": "hot", "enabled": false, "condition": hot(), "for_minutes": 5, "severity": "critical",
        "selector": { "zone": "a", "tags": { "env": "prod" } },
        "quiet_hours": [{ "days": ["sat", "fri"], "from": "22:00", "to": "06:00", "utc_offset": "+02:00" }],
    });
    let made = admin.post("/alerts/rules", body).await.expect(201);
    let path = format!("/alerts/rules/{}", made.id());
    assert_eq!((made.header("location"), made.header("etag")), (Some(path.as_str()), Some("\"1\"")));
    let expected = json!({
        "id": made.id(), "name": "hot", "enabled": false,
        "condition": {
            "kind": "metric", "metric": "cpu_usage", "comparison": "gt", "threshold": 90.0, "clear_threshold": 80.0,
            "status": null,
        },
        "for_minutes": 5, "severity": "critical",
        "selector": { "pool_id": null, "cluster": null, "zone": "a", "tags": { "env": "prod" } },
        "quiet_hours": [{ "days": ["fri", "sat"], "from": "22:00", "to": "06:00", "utc_offset": "+02:00" }],
        "target_ids": [], "revision": 1, "created_by": "token:admin", "created_at": made.at("/created_at"),
        "updated_at": made.at("/created_at"),
    });
    assert_eq!(made.json, expected);
    assert_eq!(admin.get(&path).await.expect(200).json, expected);

    let edit = json!({
        "condition": { "threshold": 95, "clear_threshold": null },
        "selector": { "zone": null, "tags": { "env": null, "team": "a" } },
        "quiet_hours": null,
    });
    let changed = admin.patch(&path, edit).await.expect(200);
    assert_eq!(changed.at("/condition/threshold"), 95.0);
    assert_eq!(
        (changed.at("/condition/metric"), changed.at("/condition/clear_threshold")),
        (json!("cpu_usage"), Value::Null)
    );
    assert_eq!((changed.at("/selector/zone"), changed.at("/selector/tags")), (Value::Null, json!({ "team": "a" })));
    assert_eq!((changed.at("/quiet_hours"), changed.header("etag")), (json!([]), Some("\"2\"")));
    let stale = admin.request(Method::PATCH, &path).header("if-match", "\"1\"");
    Client::send(stale.json(&json!({ "enabled": true }))).await.expect(412);
    let stale = admin.request(Method::DELETE, &path).header("if-match", "\"1\"");
    Client::send(stale).await.expect(412);
    let viewer = bearer(&admin, "viewer", "viewer", None).await;
    viewer.get(&path).await.expect(200);
    viewer.patch(&path, json!({ "enabled": true })).await.expect(403);
    viewer.delete(&path).await.expect(403);
    admin.delete(&path).await.expect(204);
    admin.get(&path).await.expect(404);
    let rows = admin.get(&format!("/audit/logs?outcome=success&target=alert_rule:{}", made.id())).await.expect(200);
    assert_eq!(column(&rows, "action"), ["alert_rule.delete", "alert_rule.update", "alert_rule.create"]);
}

async fn default_rules_can_be_removed_for_good(backend: Backend) {
    let mut server = watching(backend);
    let admin = server.admin();
    let rules = admin.get("/alerts/rules").await.expect(200);
    let expected = [
        "Pool over its high watermark",
        "Server offline",
        "SLO violated",
        "Storage usage critical",
        "Storage usage high",
        "Memory usage critical",
        "Memory usage high",
        "CPU usage critical",
        "CPU usage high",
    ];
    assert_eq!(names(&rules), expected);
    assert!(column(&rules, "enabled").iter().all(|enabled| *enabled == true));
    without_rules(&admin).await;
    server.terminate();
    server.restart();
    assert_eq!(total(&server.admin(), "/alerts/rules").await, 0);
}

async fn what_makes_no_sense_is_refused_by_name(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    let rules = total(&admin, "/alerts/rules").await;
    let check = async |more: Value, field: &str| {
        let mut body = rule_of("hot", &hot(), 0);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = admin.post("/alerts/rules", body).await;
        check_problem(&answer, 400, field);
        assert_eq!(answer.at("/errors/0/field"), field, "{}", answer.text);
    };
    let with = |member: &str, value: Value| {
        let mut condition = hot();
        condition[member] = value;
        json!({ "condition": condition })
    };
    check(with("clear_threshold", json!(91)), "condition.clear_threshold").await;
    check(with("threshold", json!(101)), "condition.threshold").await;
    check(with("metric", json!("cpu")), "condition.metric").await;
    check(with("status", json!("offline")), "condition.status").await;
    check(json!({ "condition": { "kind": "metric" } }), "condition.metric").await;
    check(json!({ "condition": { "kind": "server_status", "threshold": 1 } }), "condition.threshold").await;
    check(json!({ "condition": { "kind": "server_status", "status": "online" } }), "condition.status").await;
    check(json!({ "for_minutes": 1441 }), "for_minutes").await;
    check(json!({ "severity": "bad" }), "severity").await;
    check(json!({ "selector": { "pool_id": 99 } }), "selector.pool_id").await;
    check(json!({ "target_ids": [99] }), "target_ids").await;
    check(json!({ "quiet_hours": [{ "from": "24:00", "to": "06:00" }] }), "quiet_hours[0].from").await;
    check(json!({ "quiet_hours": [{ "days": [], "from": "22:00", "to": "06:00" }] }), "quiet_hours[0].days").await;
    let pool = json!({ "condition": { "kind": "pool_saturation" }, "selector": { "zone": "a" } });
    check(pool, "selector.zone").await;
    admin.post("/alerts/rules", rule_of("Server offline", &hot(), 0)).await.expect(409);
    assert_eq!(total(&admin, "/alerts/rules").await, rules);
    for query in ["state=open", "severity=bad", "server_id=0", "limit=0"] {
        admin.get(&format!("/alerts?{query}")).await.expect(400);
    }
}

async fn a_rule_is_made_once_under_its_key(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    let make = || {
        let request = admin.request(Method::POST, "/alerts/rules").header("idempotency-key", "k-1");
        Client::send(request.json(&rule_of("hot", &hot(), 0)))
    };
    let (first, second) = (make().await.expect(201), make().await.expect(201));
    assert_eq!((second.header("idempotency-replayed"), &first.json), (Some("true"), &second.json));
}

async fn a_preview_tells_what_would_have_fired_and_writes_nothing(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    let [busy, calm] = [registered(&admin, "busy").await, registered(&admin, "calm").await];
    let minutes = |values: &[f64]| -> Vec<(f64, f64)> {
        let ago = (1..=values.len()).rev().map(|n| 3600.0 + 60.0 * f64::from(u32::try_from(n).unwrap()));
        ago.zip(values.iter().copied()).collect()
    };
    measure(&admin, busy, &minutes(&[95.0, 99.0, 91.0, 70.0, 95.0, 70.0, 95.0, 96.0, 97.0, 10.0])).await;
    measure(&admin, calm, &minutes(&[95.0, 85.0, 70.0])).await;
    let head = || async { admin.get("/audit/verify").await.at("/head") };
    let before = head().await;
    let mut body = rule_of("hot", &hot(), 2);
    body["days"] = json!(1);
    let viewer = bearer(&admin, "viewer", "viewer", None).await;
    let token = head().await;
    assert_ne!(before, token);
    let shown = viewer.post("/alerts/rules/preview", body.clone()).await.expect(200);
    assert_eq!((shown.at("/days"), shown.at("/fired")), (json!(1), json!(2)));
    let servers = shown.at("/servers");
    assert_eq!(servers.as_array().unwrap().len(), 1);
    assert_eq!((&servers[0]["server_id"], &servers[0]["name"]), (&json!(busy), &json!("busy")));
    let periods = &servers[0]["periods"];
    assert_eq!((&periods[0]["peak"], &periods[1]["peak"]), (&json!(99.0), &json!(97.0)));
    assert!(periods[0]["from"].as_str() < periods[0]["fired_at"].as_str());
    assert!(periods[0]["fired_at"].as_str() < periods[0]["to"].as_str());
    assert_eq!(head().await, token);
    assert_eq!(alerts(&admin, "").await, Vec::<Value>::new());

    let days = |days: i64| {
        let mut body = rule_of("hot", &hot(), 2);
        body["days"] = json!(days);
        viewer.post("/alerts/rules/preview", body)
    };
    for wrong in [0, 31] {
        assert_eq!(days(wrong).await.expect(400).at("/errors/0/field"), "days");
    }
    body["condition"] = json!({ "kind": "server_status" });
    assert_eq!(viewer.post("/alerts/rules/preview", body).await.expect(400).at("/errors/0/field"), "condition.kind");
    // A rule of the same name may be tried out, and maintenance leaves out what was measured in it.
    rule(&admin, rule_of("hot", &hot(), 2)).await;
    plan(&admin, busy, json!({ "title": "x", "scheduled_for": in_seconds(-4300.0), "duration_minutes": 80 })).await;
    assert_eq!(days(1).await.expect(200).at("/fired"), 2, "a window takes no time before it has begun");
}
