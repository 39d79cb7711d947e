//! The images of a real engine: listed, pulled from a real registry, and removed where nothing uses them.

use super::support::Site;
use crate::agents::support::server_named;
use serde_json::{Value, json};
use test_engine::{images, registry::Registry};
use tests::{Answer, Backend, Client, machines};

async fn post(admin: &Client, path: &str, body: Value) -> Answer {
    Client::send(admin.request(reqwest::Method::POST, path).header("Prefer", "wait=20").json(&body)).await
}

/// The image of this name that an engine has.
async fn listed(admin: &Client, host: &Value, name: &str) -> Option<Value> {
    let found = admin.get(&format!("/api/images?host={host}")).await.expect(200);
    let has_name = |image: &&Value| image["names"].as_array().unwrap().contains(&json!(name));
    found.json.as_array().unwrap().iter().find(has_name).cloned()
}

#[tokio::test]
async fn images_are_pulled_listed_with_what_uses_them_and_removed_as_planned() {
    let Some(machines) = machines() else { return };
    // Another test's images would come and go meanwhile.
    let machine = machines.alone(1).await;
    let Some(registry) = Registry::start_at(machines.address(), machines.free_port()).await else { return };
    let (native, _, _) = images::architectures();
    registry.push("acme/pulled", Some("1"), &images::for_registry(native)).await;
    let site = Site::start(machines, Backend::Sqlite, &["--insecure-registry", &registry.host()]);
    let _agent = site.agent(&machine, "b").await;
    let admin = site.admin();
    let host = server_named(&admin, "b").await.unwrap()["id"].clone();
    let name = registry.name("acme/pulled:1");

    let missing = registry.name("acme/missing:1");
    let failed = post(&admin, "/api/images/pull", json!({ "host": host, "image": missing })).await.expect(200);
    let told = (failed.at("/operation/state"), failed.at("/operation/reason"));
    assert_eq!(told, (json!("failed"), json!("image_missing")), "{}", failed.text);

    let pulled = post(&admin, "/api/images/pull", json!({ "host": host, "image": name })).await.expect(200);
    assert_eq!(pulled.at("/operation/state"), "succeeded", "{}", pulled.text);
    let image = listed(&admin, &host, &name).await.unwrap();
    assert_eq!((&image["id"], &image["platform"]), (&pulled.at("/image_id"), &json!(format!("linux/{native}"))));
    let digest = pulled.at("/digest").as_str().unwrap().to_owned();
    assert_eq!(image["digests"], json!([format!("{}@{digest}", registry.name("acme/pulled"))]), "{image:#}");
    assert!(image["size_bytes"].as_u64().unwrap() > 500_000, "{image:#}");

    // A container that has ended uses its image, too.
    let container = machine.engine().run(&name, "uses-it", &["true"]).await;
    let used = listed(&admin, &host, &name).await.unwrap();
    assert_eq!(used["used_by"], json!([container]), "{used:#}");
    let dry = json!({ "host": host, "unused": true, "dry_run": true });
    let ids = |answer: &Answer| -> Vec<Value> {
        answer.at("/plan/remove").as_array().unwrap().iter().map(|image| image["id"].clone()).collect()
    };
    let before = post(&admin, "/api/images/prune", dry.clone()).await.expect(200);
    assert!(!ids(&before).contains(&image["id"]), "{}", before.text);
    assert!(listed(&admin, &host, images::LYING).await.is_some(), "a dry run removes nothing");

    machine.engine().remove(&container).await;
    let stale = json!({ "host": host, "unused": true, "plan_token": before.at("/plan/plan_token") });
    assert_eq!(post(&admin, "/api/images/prune", stale).await.expect(409).code(), "plan_stale");
    let plan = post(&admin, "/api/images/prune", dry).await.expect(200);
    assert!(ids(&plan).contains(&image["id"]), "{}", plan.text);
    let real = json!({ "host": host, "unused": true, "plan_token": plan.at("/plan/plan_token") });
    let pruned = post(&admin, "/api/images/prune", real).await.expect(200);
    assert_eq!(pruned.at("/done/operation/state"), "succeeded", "{}", pruned.text);
    let removed = pruned.at("/done/removed").as_array().unwrap().clone();
    assert_eq!((removed.len(), pruned.at("/done/kept")), (ids(&plan).len(), json!([])), "{}", pruned.text);
    let freed = pruned.at("/done/freed_bytes").as_u64().unwrap();
    let most = plan.at("/plan/frees_at_most_bytes").as_u64().unwrap();
    assert!(freed > 500_000 && freed <= most, "{freed} of {most}");
    assert_eq!(listed(&admin, &host, &name).await, None);
    let log = admin.get("/audit/logs?action=image.").await.expect(200);
    let actions: Vec<Value> = log.json.as_array().unwrap().iter().map(|row| row["action"].clone()).collect();
    assert_eq!(actions, ["image.prune", "image.pull", "image.pull"]);
    // Other tests find on the machine what they expect there.
    machine.engine().restore_images();
}
