//! Images that are looked up in a registry before a task is taken in, and pulled from it.

use super::support::{Site, container_name, from_image};
use crate::agents::support::{attempt, ended, server_named, shell, shown};
use serde_json::{Value, json};
use test_engine::{images, manifests, registry::Registry};
use tests::{Backend, machines};

#[tokio::test]
async fn every_attempt_runs_the_image_that_its_tag_meant_at_first() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(0).await;
    let Some(registry) = Registry::start_at(machines.address(), machines.free_port()).await else { return };
    let (native, foreign, _) = images::architectures();
    let [here, elsewhere] = [native, foreign].map(images::for_registry);
    let platforms = [native, foreign].map(|word| format!("linux/{word}"));
    let entries = [
        (&*platforms[0], registry.push("acme/app", None, &here).await),
        (&*platforms[1], registry.push("acme/app", None, &elsewhere).await),
    ];
    let index = manifests::index(manifests::INDEX, &entries);
    registry.push_manifest("acme/app", "1", &index).await;

    let site = Site::start(machines, Backend::Sqlite, &["--insecure-registry", &registry.host()]);
    let agent = site.agent(&machine, "a").await;
    let admin = site.admin();
    let folder = site.tally.folder().to_str().unwrap().to_owned();
    let name = registry.name("acme/app:1");
    let body = json!({ "driver": "docker", "image": name, "max_attempts": 2,
        "mounts": [{ "source": folder, "target": folder }] });
    let task = shell(&admin, &site.waiting("app", "exit 1"), body).await;
    site.runs(task, "app").await;
    let row = shown(&admin, task).await;
    let mut expected = platforms.clone();
    expected.sort();
    assert_eq!(row.at("/image_platforms"), json!(expected));
    assert_eq!(row.at("/image_digest"), json!(index.digest()));

    let pinned = format!("{}@{}", registry.name("acme/app"), index.digest());
    let engine = machine.engine().client();
    let container = engine.inspect_container(&container_name(&agent, task), None).await.unwrap();
    assert_eq!(container.config.unwrap().image, Some(pinned.clone()));

    // The tag is somebody else's now, and the engine has nothing any more: the next attempts must not care.
    registry.push("acme/app", Some("1"), &elsewhere).await;
    site.open("app");
    ended(&admin, task).await;
    assert_eq!(attempt(&admin, task).await["number"], 2);
    site.check_at_rest(&[(&machine, &agent)]).await;
    machine.engine().remove_image(&pinned).await;
    admin.post(&format!("/tasks/{task}/retry"), json!({})).await.expect(200);
    ended(&admin, task).await;
    let last = attempt(&admin, task).await;
    assert_eq!((&last["number"], &last["exit_code"]), (&json!(3), &json!(1)), "{last}");
    assert_eq!(engine.inspect_image(&pinned).await.unwrap().architecture.as_deref(), Some(native));
    site.check_at_rest(&[(&machine, &agent)]).await;
}

#[tokio::test]
async fn an_image_that_only_one_engine_has_is_run_there() {
    let Some(machines) = machines() else { return };
    let both = [machines.shared(0).await, machines.shared(1).await];
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let admin = site.admin();
    let agents = [site.agent(&both[0], "a").await, site.agent(&both[1], "b").await];
    both[1].engine().tag_image(images::BUSYBOX, "starlink-test.invalid/own").await;
    let there = server_named(&admin, "b").await.unwrap()["id"].clone();
    for _ in 0..3 {
        let task = shell(&admin, "exit 4", from_image("starlink-test.invalid/own")).await;
        assert_eq!(shown(&admin, task).await.at("/image_digest"), Value::Null);
        ended(&admin, task).await;
        let last = attempt(&admin, task).await;
        assert_eq!((&last["server_id"], &last["exit_code"]), (&there, &json!(4)), "{last}");
    }
    both[1].engine().remove_image("starlink-test.invalid/own").await;
    site.check_at_rest(&[(&both[0], &agents[0]), (&both[1], &agents[1])]).await;
}
