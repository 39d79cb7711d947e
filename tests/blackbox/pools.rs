//! Pools over HTTP.

use crate::{
    on_both, server,
    support::{column, names, server_with, total, walk},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{Backend, Client};

on_both!(
    a_pool_is_made_shown_changed_and_removed,
    quotas_and_watermarks_are_patched_member_by_member,
    a_pool_tells_what_its_servers_have_together,
    a_pool_with_servers_is_not_removed,
    of_pools_made_at_once_under_one_name_there_is_one,
    pools_are_found_and_paged,
);

async fn a_pool_is_made_shown_changed_and_removed(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let made = admin.post("/pools", json!({ "name": "edge" })).await.expect(201);
    assert_eq!((made.header("location"), made.header("etag")), (Some("/pools/1"), Some("\"1\"")));
    let expected = json!({
        "id": 1, "name": "edge", "type": "compute", "strategy": "spread", "state": "open", "description": null,
        "quotas": { "cpu": null, "memory": null, "storage": null, "gpu": null },
        "watermarks": { "high": null, "low": null, "cpu": null, "memory": null, "storage": null, "gpu": null },
        "labels": {}, "server_count": 0, "revision": 1,
        "capacity": {
            "cpu": { "total": 0.0, "reserved": 0.0, "used": null },
            "memory": { "total": 0.0, "reserved": 0.0, "used": null },
            "storage": { "total": 0.0, "reserved": 0.0, "used": null },
            "gpu": { "total": 0, "reserved": 0, "used": null },
        },
        "created_at": made.at("/created_at"), "updated_at": made.at("/updated_at"),
    });
    assert_eq!(made.json, expected);
    assert_eq!(admin.get("/pools/1").await.expect(200).json, expected);
    let patch = json!({ "name": "core", "type": "gpu", "strategy": "binpack", "description": "two\nlines", "labels": { "a": "b" } });
    let changed = admin.patch("/pools/1", patch.clone()).await.expect(200);
    for (member, value) in patch.as_object().unwrap() {
        assert_eq!(&changed.json[member], value);
    }
    assert_eq!(changed.header("etag"), Some("\"2\""));
    let stale = admin.request(reqwest::Method::DELETE, "/pools/1").header("if-match", "\"1\"");
    Client::send(stale).await.expect(412);
    admin.delete("/pools/1").await.expect(204);
    admin.get("/pools/1").await.expect(404);
    admin.patch("/pools/1", json!({})).await.expect(404);
    let trail = admin.get("/audit/logs?target=pool:1").await.expect(200);
    assert_eq!(column(&trail, "action"), ["pool.delete", "pool.update", "pool.create"]);
}

async fn check_patch(admin: &Client, patch: Value, pointer: &str, expected: Value) {
    let after = admin.patch("/pools/1", patch.clone()).await.expect(200);
    assert_eq!(after.at(pointer), expected, "{patch}");
    assert_eq!(admin.get("/pools/1").await.expect(200).json, after.json, "{patch}");
}

async fn quotas_and_watermarks_are_patched_member_by_member(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let body = json!({ "name": "p", "quotas": { "cpu": 1.67, "memory": 8, "gpu": 2 }, "watermarks": { "high": 80, "low": 60 } });
    let made = admin.post("/pools", body).await.expect(201);
    assert_eq!(made.at("/quotas"), json!({ "cpu": 1.67, "memory": 8.0, "storage": null, "gpu": 2 }));
    let quotas = |cpu: Value, storage: Value| json!({ "cpu": cpu, "memory": 8.0, "storage": storage, "gpu": 2 });
    check_patch(&admin, json!({ "quotas": { "cpu": 0 } }), "/quotas", quotas(json!(0.0), Value::Null)).await;
    check_patch(
        &admin,
        json!({ "quotas": { "cpu": null, "storage": 0.5 } }),
        "/quotas",
        quotas(Value::Null, json!(0.5)),
    )
    .await;
    check_patch(&admin, json!({ "quotas": {} }), "/quotas", quotas(Value::Null, json!(0.5))).await;
    let none = json!({ "cpu": null, "memory": null, "storage": null, "gpu": null });
    check_patch(&admin, json!({ "quotas": null }), "/quotas", none).await;
    check_patch(&admin, json!({ "watermarks": { "high": 90 } }), "/watermarks/high", json!(90.0)).await;
    check_patch(&admin, json!({ "watermarks": { "low": null } }), "/watermarks/low", json!(90.0)).await;
    check_patch(
        &admin,
        json!({ "watermarks": { "cpu": { "high": 50 } } }),
        "/watermarks/cpu",
        json!({ "high": 50.0, "low": 50.0 }),
    )
    .await;
    check_patch(&admin, json!({ "watermarks": { "cpu": null } }), "/watermarks/cpu", Value::Null).await;
    check_patch(&admin, json!({ "watermarks": null }), "/watermarks/high", Value::Null).await;
    let before = admin.get("/pools/1").await.expect(200).json;
    for (patch, field) in [
        (json!({ "quotas": { "cpu": -1 } }), "quotas.cpu"),
        (json!({ "quotas": { "gpu": 1.5 } }), "quotas.gpu"),
        (json!({ "quotas": { "disk": 1 } }), "quotas.disk"),
        (json!({ "watermarks": { "high": 101 } }), "watermarks.high"),
        (json!({ "watermarks": { "low": 10 } }), "watermarks"),
        (json!({ "watermarks": { "high": 50, "low": 60 } }), "watermarks"),
        (json!({ "watermarks": { "gpu": { "high": 1, "low": 2 } } }), "watermarks.gpu"),
        (json!({ "labels": { "not a key": "x" } }), "labels"),
        (json!({ "type": "Compute" }), "type"),
        (json!({ "name": null }), "name"),
        (json!({ "state": "saturated" }), "state"),
    ] {
        let refused = admin.patch("/pools/1", patch.clone()).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), field, "{patch}");
    }
    assert_eq!(admin.get("/pools/1").await.expect(200).json, before);
}

async fn a_pool_tells_what_its_servers_have_together(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for name in ["one", "empty"] {
        admin.post("/pools", json!({ "name": name })).await.expect(201);
    }
    for (name, cpu, memory, gpu) in [("a", 0.1, 0.5, 1), ("b", 0.2, 1.25, 0), ("c", 1.67, 2.0, 3)] {
        let more = json!({ "pool_id": 1, "total_cpu": cpu, "total_memory": memory, "total_gpu": gpu });
        admin.post("/servers", server_with(name, more)).await.expect(201);
    }
    admin.post("/servers", server_with("elsewhere", json!({}))).await.expect(201);
    let of = |total: Value, none: Value| json!({ "total": total, "reserved": none, "used": null });
    let expected = json!({
        "cpu": of(json!(1.97), json!(0.0)), "memory": of(json!(3.75), json!(0.0)),
        "storage": of(json!(300.0), json!(0.0)), "gpu": of(json!(4), json!(0)),
    });
    let shown = admin.get("/pools/1").await.expect(200);
    assert_eq!((shown.at("/capacity"), shown.at("/server_count")), (expected.clone(), json!(3)));
    let listed = admin.get("/pools").await.expect(200);
    assert_eq!((listed.at("/1/capacity"), listed.at("/0/server_count")), (expected, json!(0)));
    admin.patch("/servers/3", json!({ "total_cpu": 0.7 })).await.expect(200);
    admin.delete("/servers/2").await.expect(204);
    let changed = admin.patch("/pools/1", json!({ "description": "x" })).await.expect(200);
    assert_eq!((changed.at("/capacity/cpu/total"), changed.at("/server_count")), (json!(0.8), json!(2)));
}

async fn a_pool_with_servers_is_not_removed(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    admin.post("/pools", json!({ "name": "p" })).await.expect(201);
    for name in ["edge-1", "edge-2"] {
        admin.post("/servers", server_with(name, json!({ "pool_id": 1 }))).await.expect(201);
    }
    let refused = admin.delete("/pools/1").await.expect(409);
    assert_eq!(refused.code(), "pool_not_empty");
    let detail = refused.at("/detail").as_str().unwrap().to_owned();
    assert!(detail.contains("edge-1") && detail.contains("edge-2"), "{detail}");
    for id in [1, 2] {
        admin.delete(&format!("/servers/{id}")).await.expect(204);
    }
    // Whoever comes first, no server is left in a pool that is gone.
    let racing = join_all((0..8).map(|n| {
        let admin = admin.clone();
        async move {
            if n == 4 {
                admin.delete("/pools/1").await.status
            } else {
                admin.post("/servers", server_with(&format!("r{n}"), json!({ "pool_id": 1 }))).await.status
            }
        }
    }));
    let statuses = racing.await;
    assert!(statuses.iter().all(|status| [201, 204, 400, 409].contains(status)), "{statuses:?}");
    let servers = walk(&admin, "/servers").await;
    let there = admin.get("/pools/1").await.status == 200;
    assert!(there || servers.is_empty(), "{statuses:?}");
}

async fn of_pools_made_at_once_under_one_name_there_is_one(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let answers = join_all((0..16).map(|_| admin.post("/pools", json!({ "name": "same" })))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(answers.iter().all(|answer| answer.status == 201 || answer.code() == "name_taken"));
    assert_eq!(total(&admin, "/pools").await, 1);
    assert_eq!(total(&admin, "/audit/logs?action=pool.create").await, 1);
}

async fn pools_are_found_and_paged(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for (name, kind) in [("a_1", "gpu"), ("ab1", "compute"), ("Склад", "gpu"), ("d", "storage"), ("e", "network")]
    {
        admin.post("/pools", json!({ "name": name, "type": kind })).await.expect(201);
    }
    let check = async |query: &[(&str, &str)], expected: &[&str]| {
        let found = Client::send(admin.request(reqwest::Method::GET, "/pools").query(query)).await.expect(200);
        assert_eq!(names(&found), expected, "{query:?}");
    };
    check(&[], &["e", "d", "Склад", "ab1", "a_1"]).await;
    check(&[("type", "gpu")], &["Склад", "a_1"]).await;
    check(&[("keyword", "A_")], &["a_1"]).await;
    check(&[("keyword", "СКЛ"), ("type", "gpu")], &["Склад"]).await;
    check(&[("keyword", "СКЛ"), ("type", "storage")], &[]).await;
    let ids: Vec<Value> = walk(&admin, "/pools?limit=2").await.iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [5, 4, 3, 2, 1]);
}
