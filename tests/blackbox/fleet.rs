//! Servers over HTTP.

use crate::{on_both, server};
use serde_json::{Value, json};
use tests::{Backend, Client};

on_both!(a_server_is_registered_shown_changed_and_removed, spellings_of_architectures_are_normalised);

/// A body that registers a server.
fn body(name: &str) -> Value {
    json!({ "name": name, "architecture": "amd64", "total_cpu": 4, "total_memory": 8, "total_storage": 100 })
}

async fn a_server_is_registered_shown_changed_and_removed(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let made = admin.post("/servers", body("edge-1")).await.expect(201);
    assert_eq!(made.header("location"), Some("/servers/1"));
    assert_eq!(made.header("etag"), Some("\"1\""));
    assert_eq!(made.at("/status"), "offline");
    let changed = admin.patch("/servers/1", json!({ "zone": "z1", "status": "online" })).await.expect(200);
    assert_eq!((changed.at("/zone"), changed.at("/schedulable")), (json!("z1"), json!(true)));
    assert_eq!(admin.get("/servers/1").await.expect(200).json, changed.json);
    admin.delete("/servers/1").await.expect(204);
    admin.get("/servers/1").await.expect(404);
    let trail = admin.get("/audit/logs?target=server:1").await.expect(200);
    let actions: Vec<_> = trail.json.as_array().unwrap().iter().map(|row| row["action"].clone()).collect();
    assert_eq!(actions, ["server.delete", "server.update", "server.create"]);
    assert_eq!(admin.get("/audit/verify").await.at("/valid"), true);
}

async fn spellings_of_architectures_are_normalised(backend: Backend) {
    let server = server(backend);
    let admin: Client = server.admin();
    for (n, (spelling, name)) in
        [("amd64", "x86_64"), ("x64", "x86_64"), ("AArch64", "arm64"), ("arm64/v8", "arm64"), ("riscv64gc", "riscv64")]
            .into_iter()
            .enumerate()
    {
        let mut body = body(&format!("s{n}"));
        body["architecture"] = json!(spelling);
        assert_eq!(admin.post("/servers", body).await.expect(201).at("/architecture"), name, "{spelling}");
    }
    let mut wrong = body("s9");
    wrong["architecture"] = json!("armv7l");
    assert_eq!(admin.post("/servers", wrong).await.expect(400).at("/errors/0/field"), "architecture");
}
