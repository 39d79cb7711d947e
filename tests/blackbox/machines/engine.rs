//! A machine's container engine is stopped, and started again, under its agent.

use super::support::{Site, check_end, unasked};
use crate::agents::support::{attempt, ended, shell, shown};
use serde_json::{Value, json};
use tests::{Backend, Client, eventually, machines};

/// Waits until a machine has these drivers. It says what it is whenever its agent opens a session.
async fn has_drivers(admin: &Client, drivers: Value) {
    eventually(&format!("the drivers to be {drivers}"), async || {
        let row = admin.get("/servers/1").await.expect(200);
        (row.at("/status") == "online" && row.at("/drivers") == drivers).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_is_stopped_takes_its_containers_with_it_and_no_new_ones_until_it_is_back() {
    let Some(machines) = machines() else { return };
    let mut machine = machines.alone(2).await;
    let mut site = Site::start(machines, Backend::Sqlite, &[]);
    let admin = site.admin();
    let agent = site.agent(&machine, "c").await;
    has_drivers(&admin, json!(["docker", "exec"])).await;
    let container = site.container(&site.waiting("container", "exit 0"), json!({})).await;
    let process = shell(&admin, &site.waiting("process", "exit 6"), json!({})).await;
    site.runs(container, "container").await;
    site.runs(process, "process").await;

    machine.stop_engine();
    site.restart();
    let admin = site.admin();
    has_drivers(&admin, json!(["exec"])).await;
    let later = site.container(&site.tally.script("later", "exit 7"), unasked()).await;
    eventually("a reason to wait", async || {
        let task = shown(&admin, later).await;
        assert_eq!(task.at("/status"), "pending", "{}", task.text);
        (task.at("/pending_reasons/0/code") == "driver_missing").then_some(())
    })
    .await;
    // Nobody can say yet what became of its containers.
    assert_eq!(shown(&admin, container).await.at("/status"), "running");

    machine.start_engine();
    let end = ended(&admin, container).await;
    assert_eq!((end.at("/status"), end.at("/reason")), (json!("failed"), json!("engine_gone")), "{}", end.text);
    assert!(end.at("/detail").as_str().unwrap().contains("container engine was away"), "{}", end.text);
    assert_eq!((attempt(&admin, container).await["held"].clone(), site.tally.runs("container")), (json!(false), 1));
    site.restart();
    has_drivers(&site.admin(), json!(["docker", "exec"])).await;
    check_end(&site, later, "later", 7).await;
    site.open("process");
    check_end(&site, process, "process", 6).await;
    site.check_at_rest(&[(&machine, &agent)]).await;
}
