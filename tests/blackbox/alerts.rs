//! Alerts over HTTP, and when they begin and end by themselves.

mod rules;
mod targets;

use crate::{
    PROGRAM,
    maintenance::{begin, end, in_seconds},
    on_both,
    support::{bearer, column, server_with},
};
use domain::clock::Timestamp;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, Server, ServerOptions, eventually, fresh_postgres, shared_postgres};

on_both!(
    an_alert_fires_is_acknowledged_and_ends,
    how_long_it_held_is_told_by_the_times_of_samples,
    old_samples_neither_fire_nor_end_an_alert,
    a_server_in_maintenance_raises_nothing,
    what_fired_before_maintenance_stays_and_is_judged_anew,
    a_server_that_goes_away_is_missed,
    a_pool_over_its_high_watermark_is_told,
    alerts_end_with_what_they_are_of,
    a_restart_neither_loses_nor_doubles_an_alert,
    changes_are_told_as_events,
);

/// A server that judges alerts each second.
pub(crate) fn watching(backend: Backend) -> Server {
    let database_url = (backend == Backend::Postgres).then(|| fresh_postgres(&shared_postgres()));
    let arguments = ["--alert-interval-seconds", "1"].map(str::to_owned).to_vec();
    Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments })
}

/// Removes the rules of the start, so that a test has none but its own.
pub(crate) async fn without_rules(admin: &Client) {
    for id in column(&admin.get("/alerts/rules").await.expect(200), "id") {
        admin.delete(&format!("/alerts/rules/{id}")).await.expect(204);
    }
}

/// A body of a rule with this condition.
pub(crate) fn rule_of(name: &str, condition: &Value, for_minutes: i64) -> Value {
    json!({ "name": name, "condition": condition, "for_minutes": for_minutes, "severity": "warning" })
}

/// `cpu_usage > 90`, over at 80.
pub(crate) fn hot() -> Value {
    json!({ "kind": "metric", "metric": "cpu_usage", "comparison": "gt", "threshold": 90, "clear_threshold": 80 })
}

pub(crate) async fn rule(admin: &Client, body: Value) -> i64 {
    admin.post("/alerts/rules", body).await.expect(201).id()
}

pub(crate) async fn registered(admin: &Client, name: &str) -> i64 {
    admin.post("/servers", server_with(name, json!({ "status": "online" }))).await.expect(201).id()
}

/// Stores what was measured so many seconds ago.
pub(crate) async fn measure(admin: &Client, server: i64, samples: &[(f64, f64)]) {
    let sample = |(ago, cpu): &(f64, f64)| json!({ "recorded_at": in_seconds(-ago), "cpu_usage": cpu });
    let body: Vec<Value> = samples.iter().map(sample).collect();
    admin.post(&format!("/servers/{server}/metrics"), json!(body)).await.expect(201);
}

pub(crate) async fn alerts(admin: &Client, query: &str) -> Vec<Value> {
    admin.get(&format!("/alerts?{query}")).await.expect(200).json.as_array().unwrap().clone()
}

/// Waits until there is exactly one alert that matches.
pub(crate) async fn one(admin: &Client, query: &str) -> Value {
    eventually(&format!("an alert of {query}"), async || {
        let found = alerts(admin, query).await;
        assert!(found.len() < 2, "{found:?}");
        found.into_iter().next()
    })
    .await
}

/// Waits until an alert is in this state.
pub(crate) async fn becomes(admin: &Client, id: &Value, state: &str) -> Answer {
    eventually(&format!("alert {id} to be {state}"), async || {
        let answer = admin.get(&format!("/alerts/{id}")).await.expect(200);
        (answer.at("/state") == state).then_some(answer)
    })
    .await
}

/// Waits until everything was judged that is there now: an alert of another server comes and goes.
pub(crate) async fn all_is_judged(admin: &Client, name: &str) {
    let probe = registered(admin, name).await;
    measure(admin, probe, &[(0.0, 99.0)]).await;
    let alert = one(admin, &format!("server_id={probe}")).await;
    measure(admin, probe, &[(-0.01, 1.0)]).await;
    becomes(admin, &alert["id"], "resolved").await;
}

async fn an_alert_fires_is_acknowledged_and_ends(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    let hot = rule(&admin, rule_of("hot", &hot(), 0)).await;
    let edge = registered(&admin, "edge-1").await;
    measure(&admin, edge, &[(20.0, 95.5)]).await;
    let alert = one(&admin, &format!("server_id={edge}&rule_id={hot}&severity=warning")).await;
    let id = &alert["id"];
    let shown = becomes(&admin, id, "firing").await;
    let seen = admin.get("/overview").await.expect(200);
    assert_eq!((seen.at("/alerts/0/id"), seen.at("/alerts/1")), (id.clone(), Value::Null), "{}", seen.text);
    assert_eq!(admin.get("/overview?cluster=elsewhere").await.expect(200).at("/alerts"), json!([]));
    assert_eq!(shown.header("etag"), Some("\"1\""));
    let expected = json!({
        "id": id, "rule_id": hot, "rule_name": "hot", "severity": "warning", "state": "firing", "metric": "cpu_usage",
        "subject": { "kind": "server", "id": edge, "name": "edge-1" }, "value": 95.5, "last_value": 95.5,
        "last_sample_at": alert["since"], "no_data": false, "since": alert["since"], "fired_at": alert["since"],
        "acknowledged_at": null, "acknowledged_by": null, "note": null, "ended_at": null, "reason": null,
        "notified_at": null, "revision": 1, "created_at": alert["created_at"], "updated_at": alert["created_at"],
    });
    assert_eq!(alert, expected);
    assert_eq!(column(&Answer { json: shown.at("/history"), ..shown }, "to"), ["pending", "firing"]);

    // What is between the thresholds changes nothing.
    measure(&admin, edge, &[(10.0, 85.0), (9.0, 95.0), (8.0, 81.0)]).await;
    all_is_judged(&admin, "probe").await;
    assert_eq!(alerts(&admin, &format!("server_id={edge}")).await.len(), 1);

    let viewer = bearer(&admin, "viewer", "viewer", None).await;
    viewer.post_empty(&format!("/alerts/{id}/acknowledge")).await.expect(403);
    let taken = admin.post(&format!("/alerts/{id}/acknowledge"), json!({ "note": "on it" })).await.expect(200);
    assert_eq!((taken.at("/state"), taken.at("/note")), (json!("acknowledged"), json!("on it")));
    assert_eq!((taken.at("/acknowledged_by"), taken.at("/revision")), (json!("token:admin"), json!(2)));
    let again = admin.post_empty(&format!("/alerts/{id}/acknowledge")).await.expect(409);
    assert_eq!(again.code(), "illegal_transition");
    assert_eq!(alerts(&admin, "state=firing&state=pending").await, Vec::<Value>::new());

    measure(&admin, edge, &[(0.0, 80.0)]).await;
    let ended = becomes(&viewer, id, "resolved").await;
    assert_eq!((ended.at("/reason"), ended.at("/value")), (json!("cleared"), json!(80.0)));
    assert_eq!((ended.at("/last_value"), ended.at("/no_data")), (Value::Null, json!(false)));
    let to: Vec<Value> = ended.at("/history").as_array().unwrap().iter().map(|change| change["to"].clone()).collect();
    assert_eq!(to, ["pending", "firing", "acknowledged", "resolved"]);
    admin.post_empty(&format!("/alerts/{id}/acknowledge")).await.expect(409);
    admin.post_empty("/alerts/99/acknowledge").await.expect(404);
    admin.get("/alerts/99").await.expect(404);

    let rows = admin.get(&format!("/audit/logs?outcome=success&target=alert:{id}")).await.expect(200);
    assert_eq!(column(&rows, "action"), ["alert.resolve", "alert.acknowledge", "alert.fire"]);
    assert_eq!(column(&rows, "actor"), ["system:alerts", "token:admin", "system:alerts"]);
    assert_eq!(admin.get("/audit/verify").await.at("/valid"), true);
}

async fn how_long_it_held_is_told_by_the_times_of_samples(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    rule(&admin, rule_of("hot", &hot(), 5)).await;
    let [long, short] = [registered(&admin, "long").await, registered(&admin, "short").await];
    // Five minutes come at once, as from an agent that was away.
    measure(&admin, long, &[(310.0, 91.0), (200.0, 92.0), (100.0, 93.0), (5.0, 94.0)]).await;
    measure(&admin, short, &[(310.0, 91.0), (200.0, 80.0), (100.0, 93.0), (5.0, 94.0)]).await;
    let fired = one(&admin, &format!("server_id={long}&state=firing")).await;
    let pending = one(&admin, &format!("server_id={short}&state=pending")).await;
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!((time(&fired["fired_at"]) - time(&fired["since"])).num_seconds(), 305);
    assert!(pending["fired_at"].is_null());
    measure(&admin, short, &[(0.0, 10.0)]).await;
    let ended = becomes(&admin, &pending["id"], "resolved").await;
    assert_eq!((ended.at("/reason"), ended.at("/fired_at")), (json!("cleared"), Value::Null));
    // What never fired is not told.
    let rows = admin.get("/audit/logs?action=alert.").await.expect(200);
    assert_eq!(column(&rows, "target"), [format!("alert:{}", fired["id"])]);
}

async fn old_samples_neither_fire_nor_end_an_alert(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    rule(&admin, rule_of("hot", &hot(), 0)).await;
    let [old, silent] = [registered(&admin, "old").await, registered(&admin, "silent").await];
    measure(&admin, old, &[(301.0, 99.0)]).await;
    // In a moment this one has said nothing for five minutes.
    measure(&admin, silent, &[(297.0, 99.0)]).await;
    let alert = one(&admin, &format!("server_id={silent}")).await;
    let kept = eventually("the sample to be old", async || {
        let answer = admin.get(&format!("/alerts/{}", alert["id"])).await.expect(200);
        (answer.at("/no_data") == true).then_some(answer)
    });
    assert_eq!(kept.await.at("/state"), "firing");
    all_is_judged(&admin, "probe").await;
    assert_eq!(alerts(&admin, &format!("server_id={old}")).await, Vec::<Value>::new());
    assert_eq!(becomes(&admin, &alert["id"], "firing").await.at("/last_value"), 99.0);
}

async fn a_server_in_maintenance_raises_nothing(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    rule(&admin, rule_of("hot", &hot(), 0)).await;
    let edge = registered(&admin, "edge-1").await;
    let window = begin(&admin, edge).await;
    measure(&admin, edge, &[(0.0, 99.0)]).await;
    all_is_judged(&admin, "during").await;
    assert_eq!(alerts(&admin, &format!("server_id={edge}")).await, Vec::<Value>::new());
    end(&admin, window).await;
    // What was measured in it does not count.
    all_is_judged(&admin, "after").await;
    assert_eq!(alerts(&admin, &format!("server_id={edge}")).await, Vec::<Value>::new());
    measure(&admin, edge, &[(0.0, 99.0)]).await;
    one(&admin, &format!("server_id={edge}&state=firing")).await;
}

async fn what_fired_before_maintenance_stays_and_is_judged_anew(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    rule(&admin, rule_of("hot", &hot(), 0)).await;
    let edge = registered(&admin, "edge-1").await;
    measure(&admin, edge, &[(60.0, 99.0)]).await;
    let alert = one(&admin, &format!("server_id={edge}")).await;
    let window = begin(&admin, edge).await;
    measure(&admin, edge, &[(0.0, 1.0)]).await;
    all_is_judged(&admin, "during").await;
    becomes(&admin, &alert["id"], "firing").await;
    end(&admin, window).await;
    measure(&admin, edge, &[(0.0, 1.0)]).await;
    assert_eq!(becomes(&admin, &alert["id"], "resolved").await.at("/reason"), "cleared");
}

async fn a_server_that_goes_away_is_missed(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    rule(&admin, rule_of("away", &json!({ "kind": "server_status", "status": "offline" }), 0)).await;
    // One that is still to come is not missed.
    admin.post("/servers", server_with("to-come", json!({ "status": "offline" }))).await.expect(201);
    let edge = registered(&admin, "edge-1").await;
    let is = |status: &str| json!({ "status": status });
    admin.patch(&format!("/servers/{edge}"), is("offline")).await.expect(200);
    let alert = one(&admin, "state=firing").await;
    assert_eq!(
        (&alert["subject"]["id"], &alert["metric"], &alert["no_data"]),
        (&json!(edge), &Value::Null, &json!(false))
    );
    admin.patch(&format!("/servers/{edge}"), is("online")).await.expect(200);
    assert_eq!(becomes(&admin, &alert["id"], "resolved").await.at("/reason"), "cleared");
}

async fn a_pool_over_its_high_watermark_is_told(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    rule(&admin, rule_of("full", &json!({ "kind": "pool_saturation" }), 0)).await;
    let body = json!({ "name": "edge", "watermarks": { "high": 70, "low": 50 } });
    let pool = admin.post("/pools", body).await.expect(201).id();
    let body = server_with("edge-1", json!({ "status": "online", "pool_id": pool }));
    admin.post("/servers", body).await.expect(201);
    let body = json!({ "name": "big", "required_cpu": 3, "driver": "none", "required_architecture": "universal" });
    let task = admin.post("/tasks", body).await.expect(201).id();
    let alert = one(&admin, &format!("pool_id={pool}&state=firing")).await;
    assert_eq!((&alert["value"], &alert["subject"]["name"]), (&json!(75.0), &json!("edge")));
    admin.post_empty(&format!("/tasks/{task}/cancel")).await.expect(200);
    becomes(&admin, &alert["id"], "resolved").await;
}

async fn alerts_end_with_what_they_are_of(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    let hot_rule = rule(&admin, rule_of("hot", &hot(), 0)).await;
    let [first, second] = [registered(&admin, "a").await, registered(&admin, "b").await];
    for server in [first, second] {
        measure(&admin, server, &[(0.0, 99.0)]).await;
    }
    let [of_first, of_second] = [
        one(&admin, &format!("server_id={first}")).await["id"].clone(),
        one(&admin, &format!("server_id={second}")).await["id"].clone(),
    ];
    admin.delete(&format!("/servers/{first}")).await.expect(204);
    assert_eq!(becomes(&admin, &of_first, "resolved").await.at("/reason"), "subject_deleted");
    let path = format!("/alerts/rules/{hot_rule}");
    admin.patch(&path, json!({ "enabled": false })).await.expect(200);
    let ended = admin.get(&format!("/alerts/{of_second}")).await.expect(200);
    assert_eq!((ended.at("/state"), ended.at("/reason")), (json!("resolved"), json!("rule_disabled")));
    admin.patch(&path, json!({ "enabled": true })).await.expect(200);
    let again = one(&admin, &format!("server_id={second}&state=firing")).await["id"].clone();
    admin.patch(&path, json!({ "selector": { "zone": "elsewhere" } })).await.expect(200);
    assert_eq!(becomes(&admin, &again, "resolved").await.at("/reason"), "not_selected");
    admin.delete(&path).await.expect(204);
    assert_eq!(alerts(&admin, "state=firing").await, Vec::<Value>::new());
}

async fn a_restart_neither_loses_nor_doubles_an_alert(backend: Backend) {
    let mut server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    rule(&admin, rule_of("hot", &hot(), 2)).await;
    let [hot, slow] = [registered(&admin, "a").await, registered(&admin, "b").await];
    measure(&admin, hot, &[(130.0, 95.0), (5.0, 95.0)]).await;
    measure(&admin, slow, &[(110.0, 95.0), (5.0, 95.0)]).await;
    let fired = one(&admin, &format!("server_id={hot}&state=firing")).await;
    let pending = one(&admin, &format!("server_id={slow}&state=pending")).await;
    server.kill();
    server.restart();
    let admin = server.admin();
    measure(&admin, slow, &[(-15.0, 95.0)]).await;
    let after = becomes(&admin, &pending["id"], "firing").await;
    assert_eq!(after.at("/since"), pending["since"]);
    assert_eq!(becomes(&admin, &fired["id"], "firing").await.at("/revision"), fired["revision"]);
    assert_eq!(alerts(&admin, "").await.len(), 2);
}

async fn changes_are_told_as_events(backend: Backend) {
    let server = watching(backend);
    let admin = server.admin();
    without_rules(&admin).await;
    rule(&admin, rule_of("hot", &hot(), 0)).await;
    let edge = registered(&admin, "edge-1").await;
    let stream = admin.request(reqwest::Method::GET, "/events").send().await.unwrap();
    let mut chunks = stream.bytes_stream();
    measure(&admin, edge, &[(30.0, 99.0)]).await;
    let id = one(&admin, "state=firing").await["id"].clone();
    admin.post_empty(&format!("/alerts/{id}/acknowledge")).await.expect(200);
    measure(&admin, edge, &[(0.0, 1.0)]).await;
    let mut text = String::new();
    while !text.contains("alert.resolved") {
        text.push_str(&String::from_utf8_lossy(&chunks.next().await.unwrap().unwrap()));
    }
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: alert.")).collect();
    assert_eq!(events, ["firing", "acknowledged", "resolved"]);
}
