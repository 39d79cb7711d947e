//! What a task may say of itself.

use super::support::{TaskDraft, shown, task};
use crate::{
    on_both, server,
    support::{check_problem, total},
};
use serde_json::{Value, json};
use tests::Backend;

on_both!(
    what_is_left_out_has_its_default,
    every_member_comes_back_as_it_was_sent,
    demand_is_rounded_up,
    every_fault_is_named_at_once,
    what_is_too_large_or_does_not_go_together_is_refused_by_name,
);

/// Members of a task whose image nobody is asked about.
fn unasked(mut more: Value) -> Value {
    let image = json!({ "image": "a", "required_architecture": "x64", "verify_image": false });
    more.as_object_mut().unwrap().extend(image.as_object().unwrap().clone());
    more
}

async fn what_is_left_out_has_its_default(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let bare = TaskDraft(json!({ "name": "bare" }));
    for (more, pointer, expected) in [
        (json!({}), "/driver", json!("none")),
        (json!({}), "/required_cpu", json!(0.0)),
        (json!({}), "/required_architecture", json!("universal")),
        (json!({ "command": [] }), "/driver", json!("none")),
        (json!({ "command": ["/bin/true"] }), "/driver", json!("exec")),
        (json!({ "command": ["/bin/true"], "driver": "none" }), "/driver", json!("none")),
        (unasked(json!({})), "/driver", json!("docker")),
        (unasked(json!({ "command": ["x"] })), "/driver", json!("docker")),
        (json!({}), "/verify_image", json!(true)),
        (json!({}), "/image_platforms", Value::Null),
        (json!({ "required_architecture": "AArch64" }), "/required_architecture", json!("arm64")),
        (json!({ "driver": null, "kind": null, "env": null, "deadline": null }), "/kind", json!("job")),
    ] {
        let made = admin.post("/tasks", bare.clone().with(more.clone()).0).await.expect(201);
        assert_eq!(made.at(pointer), expected, "{more}");
    }
}

async fn every_member_comes_back_as_it_was_sent(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = admin.post("/pools", json!({ "name": "p" })).await.expect(201).id();
    let sent = json!({
        "name": "Web / 1", "required_architecture": "riscv64", "required_cpu": 0.25, "required_memory": 0.5,
        "required_storage": 10.0, "required_gpu": 2, "kind": "service", "driver": "docker",
        "image": "ghcr.io/acme/web@sha256:0123", "verify_image": false, "command": ["sh", "-c", "echo 1\necho \"2\"", ""],
        "ports": [
            { "container_port": 80, "host_port": 8080, "protocol": "tcp" },
            { "container_port": 80, "host_port": 8080, "protocol": "udp" },
            { "container_port": 65535, "host_port": null, "protocol": "tcp" },
        ],
        "mounts": [
            { "source": "/srv/data", "target": "/data", "read_only": true },
            { "source": "volume", "target": "/var", "read_only": false },
        ],
        "pool_id": pool, "labels": { "zone": "z1", "rack/no": "" }, "allow_emulation": true, "priority": 5,
        "deadline": "2999-12-31T23:59:59.123456Z", "restart": "on-failure", "max_attempts": 100,
        "timeout_seconds": 31_536_000, "grace_seconds": 0, "log_limit": 0.5,
        "metadata": { "owner": "x", "deep": { "a": [1, -2.5, true, null, "\u{0}é"] } },
    });
    let body = TaskDraft(sent.clone()).with(json!({ "env": { "A": "secret", "B": "" } })).0;
    let made = admin.post("/tasks", body).await.expect(201);
    for (member, value) in sent.as_object().unwrap() {
        assert_eq!(&made.json[member], value, "{member}");
    }
    assert_eq!(made.at("/env"), json!({ "A": "(hidden)", "B": "(hidden)" }));
    let mut later = shown(&admin, made.id()).await.json;
    later["pending_reasons"] = Value::Null;
    assert_eq!(later, made.json);
    let defaulted = unasked(json!({
        "driver": "docker", "ports": [{ "container_port": 80 }], "mounts": [{ "source": "v", "target": "/v" }],
        "deadline": "2999-01-01T01:00:00.1234567+01:00",
    }));
    let made = admin.post("/tasks", task("t").with(defaulted).0).await.expect(201);
    assert_eq!(made.at("/ports/0"), json!({ "container_port": 80, "host_port": null, "protocol": "tcp" }));
    assert_eq!(made.at("/mounts/0/read_only"), false);
    assert_eq!(made.at("/deadline"), "2999-01-01T00:00:00.123456Z");
}

async fn demand_is_rounded_up(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let more =
        json!({ "required_cpu": 0.0001, "required_memory": 0.0001, "required_storage": 1.0001, "log_limit": 1e-9 });
    let made = admin.post("/tasks", task("t").with(more).0).await.expect(201);
    let mib = 1.0 / 1024.0;
    assert_eq!(made.at("/required_cpu"), 0.001);
    assert_eq!((made.at("/required_memory"), made.at("/log_limit")), (json!(mib), json!(mib)));
    assert_eq!(made.at("/required_storage"), 1.0 + mib);
    let made = admin.post("/tasks", task("t").cpu(0.1 + 0.2).0).await.expect(201);
    assert_eq!(made.at("/required_cpu"), 0.301, "a task never gets less than it asked for");
}

async fn every_fault_is_named_at_once(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let body = json!({
        "name": " x", "required_cpu": -1, "required_memory": 1e300, "required_gpu": -1, "image": "a b",
        "driver": "exec",
        "ports": [{ "container_port": 0 }, { "container_port": 1, "host_port": 65536 }], "pool_id": 0,
        "mounts": [{ "source": "", "target": "here" }], "env": { "A=B": "x" }, "labels": { " ": "x" }, "priority": 6,
        "max_attempts": 101, "timeout_seconds": 0, "grace_seconds": -1, "log_limit": 0,
        "metadata": { "x": "y".repeat(17_000) }, "deadline": "9999-12-31T23:59:59-01:00", "plan_token": "a\nb",
    });
    let refused = admin.post("/tasks", body).await;
    check_problem(&refused, 400, "everything wrong");
    let fields: Vec<Value> = refused.at("/errors").as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(
        fields,
        [
            "name",
            "required_cpu",
            "required_memory",
            "required_gpu",
            "image",
            "env",
            "ports[0].container_port",
            "ports[1].host_port",
            "pool_id",
            "labels",
            "priority",
            "deadline",
            "max_attempts",
            "timeout_seconds",
            "grace_seconds",
            "metadata",
            "command",
            "log_limit",
            "mounts[0].source",
            "mounts[0].target",
            "plan_token",
        ]
    );
    assert_eq!(total(&admin, "/tasks").await, 0);
}

/// Members that make a task no task, with the field that the refusal names.
fn wrong() -> Vec<(Value, &'static str)> {
    let deep = (0..8).fold(json!(1), |inner, _| json!({ "x": inner }));
    vec![
        (json!({ "image": "nginx", "verify_image": false }), "required_architecture"),
        (
            json!({ "image": "nginx", "verify_image": false, "required_architecture": "universal" }),
            "required_architecture",
        ),
        (json!({ "required_architecture": "armv7l" }), "required_architecture"),
        (json!({ "required_architecture": "" }), "required_architecture"),
        (json!({ "image": "a", "required_architecture": "amd64", "driver": "exec", "command": ["x"] }), "image"),
        (json!({ "driver": "docker" }), "image"),
        (json!({ "driver": "exec" }), "command"),
        (json!({ "driver": "exec", "command": [""] }), "command"),
        (json!({ "command": vec!["x"; 257] }), "command"),
        (json!({ "command": ["x", "y".repeat(4097)] }), "command[1]"),
        (json!({ "command": ["a\u{0}b"] }), "command[0]"),
        (json!({ "ports": [{ "container_port": 80 }] }), "ports"),
        (json!({ "mounts": vec![json!({ "source": "a", "target": "/a" }); 65] }), "mounts"),
        (
            json!({ "mounts": [{ "source": "a", "target": "/a" }, { "source": "b", "target": "/a" }] }),
            "mounts[1].target",
        ),
        (json!({ "mounts": [{ "source": "a", "target": "/a", "mode": "rw" }] }), "mounts[0].mode"),
        (json!({ "metadata": { "x": deep } }), "metadata"),
        (json!({ "metadata": [] }), "metadata"),
        (json!({ "env": { "A": "x\u{0}" } }), "env"),
        (json!({ "env": { "A": 1 } }), "env"),
        (json!({ "labels": { "a": null } }), "labels.a"),
        (json!({ "deadline": "2001-01-01T00:00:00Z" }), "deadline"),
        (json!({ "deadline": "tomorrow" }), "deadline"),
        (json!({ "restart": "never" }), "restart"),
        (json!({ "kind": "cron" }), "kind"),
        (json!({ "priority": 2.5 }), "priority"),
        (json!({ "pool_id": 4711 }), "pool_id"),
        (json!({ "required_gpu": 0.5 }), "required_gpu"),
        (json!({ "status": "running" }), "status"),
        (json!({ "id": 1 }), "id"),
    ]
}

/// The same for tasks with an image.
fn wrong_with_image() -> Vec<(Value, &'static str)> {
    let cases = [
        (json!({ "ports": vec![json!({ "container_port": 80 }); 65] }), "ports"),
        (
            json!({ "ports": [{ "container_port": 80, "host_port": 1 }, { "container_port": 81, "host_port": 1 }] }),
            "ports[1].host_port",
        ),
        (json!({ "ports": [[80, 80, "tcp"]] }), "ports[0]"),
        (json!({ "ports": [{ "container_port": 80, "protocol": "sctp" }] }), "ports[0].protocol"),
        (json!({ "ports": [{ "host_port": 80 }] }), "ports[0].container_port"),
    ];
    let image = TaskDraft(unasked(json!({})));
    cases.into_iter().map(|(more, field)| (image.clone().with(more).0, field)).collect()
}

async fn what_is_too_large_or_does_not_go_together_is_refused_by_name(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for (more, field) in wrong().into_iter().chain(wrong_with_image()) {
        let refused = admin.post("/tasks", task("t").with(more.clone()).0).await;
        check_problem(&refused, 400, &more.to_string());
        let fields: Vec<Value> = refused.at("/errors").as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
        assert_eq!(fields, [field], "{}", refused.text);
    }
    for (body, field) in
        [(json!({}), "name"), (json!({ "name": "t", "plan_token": "x", "plan_token_": 1 }), "plan_token_")]
    {
        assert_eq!(admin.post("/tasks", body).await.expect(400).at("/errors/0/field"), field);
    }
    // A dry run makes a token, it takes none.
    let refused = admin.post("/tasks/dry-run", task("t").with(json!({ "plan_token": "x" })).0).await.expect(400);
    assert_eq!(refused.at("/errors/0/field"), "plan_token");
    assert_eq!(total(&admin, "/tasks").await, 0);
    assert_eq!(total(&admin, "/audit/logs?action=task.").await, 0);
}
