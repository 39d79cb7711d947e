//! Agents that are killed, and containers that are ended from outside.

use super::support::{Site, check_end, container_ends, container_name, label, process_ends};
use crate::agents::support::{attempt, becomes, ended, shell, shown};
use serde_json::json;
use tests::{Backend, Client, machines};

async fn cancel(admin: &Client, task: i64) {
    let asked = admin.post_empty(&format!("/tasks/{task}/cancel")).await.expect(202);
    assert_eq!((asked.at("/status"), asked.at("/reason")), (json!("running"), json!("cancelling")));
}

#[tokio::test]
async fn what_runs_while_its_agent_is_killed_is_run_once_and_told_truly() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(0).await;
    let site = Site::start(machines, Backend::Postgres, &[]);
    let admin = site.admin();
    let mut agent = site.agent(&machine, "a").await;
    // One of each ends while nobody looks, and one of each goes on.
    let container = site.container(&site.waiting("container", "exit 5"), json!({})).await;
    let process = shell(&admin, &site.waiting("process", "exit 6"), json!({})).await;
    let lasting = [
        site.container(&site.waiting("container-2", "exit 0"), json!({})).await,
        shell(&admin, &site.waiting("process-2", "exit 7"), json!({})).await,
    ];
    let all = [(container, "container"), (process, "process"), (lasting[0], "container-2"), (lasting[1], "process-2")];
    for (task, name) in all {
        site.runs(task, name).await;
    }
    agent.kill();
    for name in ["container", "process"] {
        site.open(name);
    }
    container_ends(&machine, &agent, container).await;
    process_ends(&agent, process).await;
    agent.restart();
    check_end(&site, container, "container", 5).await;
    check_end(&site, process, "process", 6).await;
    for task in lasting {
        assert_eq!(shown(&admin, task).await.at("/status"), "running");
    }
    for name in ["container-2", "process-2"] {
        site.open(name);
    }
    check_end(&site, lasting[0], "container-2", 0).await;
    check_end(&site, lasting[1], "process-2", 7).await;
    site.check_at_rest(&[(&machine, &agent)]).await;
}

#[tokio::test]
async fn a_container_that_is_cancelled_ends_and_is_removed() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(1).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let admin = site.admin();
    let agent = site.agent(&machine, "b").await;
    let willing = site.container(&site.waiting("willing", "exit 0"), json!({})).await;
    let stubborn = format!("trap '' TERM; {}", site.waiting("stubborn", "exit 0"));
    let stubborn = site.container(&stubborn, json!({ "grace_seconds": 1 })).await;
    for (task, name) in [(willing, "willing"), (stubborn, "stubborn")] {
        site.runs(task, name).await;
    }
    let [first, second] = [willing, stubborn].map(|task| container_name(&agent, task));
    assert_eq!(machine.engine().running(&label(&agent)).await, [first, second]);
    for (task, name) in [(willing, "willing"), (stubborn, "stubborn")] {
        cancel(&admin, task).await;
        becomes(&admin, task, "cancelled").await;
        let told = attempt(&admin, task).await;
        assert_eq!((&told["status"], &told["reason"]), (&json!("cancelled"), &json!("cancelled")), "{told}");
        assert_eq!(site.tally.runs(name), 1);
    }
    site.check_at_rest(&[(&machine, &agent)]).await;
}

#[tokio::test]
async fn a_container_that_somebody_removed_is_told_as_gone() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(0).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let admin = site.admin();
    let agent = site.agent(&machine, "a").await;
    let task = site.container(&site.waiting("run", "exit 0"), json!({})).await;
    let other = site.container(&site.waiting("other", "exit 3"), json!({})).await;
    site.runs(task, "run").await;
    site.runs(other, "other").await;
    machine.engine().remove(&container_name(&agent, task)).await;
    let end = ended(&admin, task).await;
    assert_eq!((end.at("/status"), end.at("/reason")), (json!("failed"), json!("container_gone")), "{}", end.text);
    assert!(end.at("/detail").as_str().unwrap().contains("not by this agent"), "{}", end.text);
    let told = attempt(&admin, task).await;
    assert_eq!((&told["exit_code"], &told["held"]), (&json!(null), &json!(false)), "{told}");
    assert_eq!(site.tally.runs("run"), 1);
    site.open("other");
    check_end(&site, other, "other", 3).await;
    site.check_at_rest(&[(&machine, &agent)]).await;
}
