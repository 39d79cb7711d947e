//! Images that tasks name: what is refused, what is taken in, and where it may go.

pub(crate) mod live;

use crate::{
    agents::support::join_token,
    server,
    support::{check_problem, total, walk},
};
use serde_json::{Value, json};
use test_engine::{
    images,
    manifests::{self, INDEX},
    registry::Registry,
};
use tests::{Backend, Client};

/// Pushes `name` for these architectures, with an attestation for each.
async fn push(registry: &Registry, repository: &str, tag: &str, architectures: &[&str]) -> String {
    let mut entries = Vec::new();
    for architecture in architectures {
        let image = images::for_registry(architecture);
        registry.push(repository, None, &image).await;
        let [_, _, manifest] = image;
        entries.push((format!("linux/{architecture}"), manifest.clone()));
        entries.push(("unknown/unknown".to_owned(), manifest));
    }
    let entries: Vec<_> = entries.iter().map(|(platform, manifest)| (platform.as_str(), manifest)).collect();
    let index = manifests::index(INDEX, &entries);
    registry.push_manifest(repository, tag, &index).await;
    index.digest()
}

/// An agent that says that it is on such a machine, with a container engine.
async fn join(admin: &Client, architecture: &str) {
    let inventory = json!({
        "architecture": architecture, "agent_version": "9.9.9", "drivers": ["docker"],
        "capacity": { "cpu_millis": 4000, "memory_mib": 1024, "storage_mib": 10240, "gpus": 0 },
    });
    let body = json!({
        "join_token": join_token(admin, json!({})).await, "name": architecture, "place": "here", "protocols": [1],
        "inventory": inventory,
    });
    admin.anonymous().post("/agent/enroll", body).await.expect(201);
}

fn task(image: &str, more: &Value) -> Value {
    let mut body = json!({ "name": "t", "driver": "docker", "image": image });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn fc_03_a_task_may_go_where_its_image_runs_and_attestations_are_no_platforms() {
    let Some(registry) = Registry::start().await else { return };
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    for architecture in ["x86_64", "arm64", "riscv64"] {
        join(&admin, architecture).await;
    }
    push(&registry, "acme/app", "1", &["amd64", "arm64"]).await;
    let run = admin.post("/tasks/dry-run", task(&registry.name("acme/app:1"), &json!({}))).await.expect(200);
    let candidates = run.at("/candidates").as_array().unwrap().clone();
    let fits = |name: &str| candidates.iter().find(|one| one["name"] == name).unwrap()["fits"] == true;
    assert_eq!(["x86_64", "arm64", "riscv64"].map(fits), [true, true, false], "{}", run.text);
    let refused = candidates.iter().find(|one| one["name"] == "riscv64").unwrap();
    let reasons = json!([{
        "code": "architecture_mismatch", "detail": "is riscv64, the task's image has linux/amd64, linux/arm64",
    }]);
    assert_eq!(refused["reasons"], reasons);
    assert!(!run.text.contains("unknown"), "{}", run.text);
    // What was seen is what is done.
    let more = json!({ "plan_token": run.at("/plan_token") });
    let made = admin.post("/tasks", task(&registry.name("acme/app:1"), &more)).await.expect(201);
    assert_eq!(made.at("/status"), "scheduled");
    assert_eq!(made.at("/image_platforms"), json!(["linux/amd64", "linux/arm64"]));
}

#[tokio::test]
async fn an_image_with_nothing_in_common_with_the_fleet_is_waited_for() {
    let Some(registry) = Registry::start().await else { return };
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    join(&admin, "x86_64").await;
    let digest = push(&registry, "acme/edge", "1", &["arm64", "riscv64"]).await;
    let made = admin.post("/tasks", task(&registry.name("acme/edge:1"), &json!({}))).await.expect(201);
    assert_eq!(made.at("/image_digest"), json!(digest));
    let shown = admin.get(&format!("/tasks/{}", made.id())).await.expect(200);
    assert_eq!(shown.at("/pending_reasons/0/code"), "architecture_mismatch");
    let detail = shown.at("/pending_reasons/0/detail");
    assert_eq!(detail, "is x86_64, the task's image has linux/arm64, linux/riscv64", "{}", shown.text);
    join(&admin, "riscv64").await;
    tests::eventually("the task to be placed", async || {
        let shown = admin.get(&format!("/tasks/{}", made.id())).await.expect(200);
        (shown.at("/status") == "scheduled").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_an_image_lacks_or_nobody_knows_is_not_taken_in() {
    let Some(registry) = Registry::start().await else { return };
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    push(&registry, "acme/app", "1", &["amd64", "arm64"]).await;
    let image = registry.name("acme/app:1");
    let lacking = admin.post("/tasks", task(&image, &json!({ "required_architecture": "riscv64" }))).await;
    check_problem(&lacking, 400, "an architecture that the image lacks");
    assert_eq!(lacking.at("/errors/0/field"), "required_architecture");
    assert!(lacking.text.contains("it has linux/amd64, linux/arm64"), "{}", lacking.text);
    let missing = admin.post("/tasks", task(&registry.name("acme/none:1"), &json!({}))).await;
    check_problem(&missing, 409, "an image that is not there");
    assert_eq!(missing.code(), "image_missing");
    let away = registry.name("acme/other:1");
    drop(registry);
    for path in ["/tasks", "/tasks/dry-run"] {
        let silent = admin.post(path, task(&away, &json!({ "required_architecture": "arm64" }))).await;
        check_problem(&silent, 503, "a registry that is away");
        assert!(silent.text.contains("verify_image"), "{}", silent.text);
    }
    assert_eq!(total(&admin, "/tasks").await, 0);

    let word = json!({ "required_architecture": "arm64", "verify_image": false });
    let made = admin.post("/tasks", task(&away, &word)).await.expect(201);
    assert_eq!((made.at("/image_platforms"), made.at("/verify_image")), (Value::Null, json!(false)));
    let rows = walk(&admin, &format!("/audit/logs?target=task:{}", made.id())).await;
    assert!(rows[0]["message"].as_str().unwrap().contains("verify_image is false"), "{rows:?}");
}
