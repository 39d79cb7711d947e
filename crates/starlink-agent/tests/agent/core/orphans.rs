//! What is found on the machine and belongs to nobody.

use super::rig::{Rig, run, work};
use domain::{fleet::protocol::Ending, ids::TaskId};
use starlink_agent::work::WorkId;
use std::fs;

fn make_folder(rig: &Rig, id: &WorkId) {
    fs::create_dir_all(rig.path.join("work").join(id.to_string())).unwrap();
}

#[tokio::test]
async fn only_orphans_of_this_very_agent_are_removed() {
    let rig = Rig::joined().await;
    let theirs = WorkId { installation: "ffff".into(), task: TaskId(1), attempt: 1 };
    let (ours, neighbours) = (work(1), work(2));
    for id in [&theirs, &ours, &neighbours] {
        rig.machine.put(id);
    }
    make_folder(&rig, &theirs);
    make_folder(&rig, &ours);
    let agent = rig.agent().await;
    rig.machine.until("the orphan is gone", |table| !table.works.contains_key(&ours)).await;
    let finds = rig.machine.table().steps.iter().filter(|step| *step == "find").count();
    rig.machine
        .until("it was looked again", |table| table.steps.iter().filter(|step| *step == "find").count() > finds)
        .await;
    agent.stop().await;
    let left: Vec<WorkId> = rig.machine.table().works.keys().cloned().collect();
    assert_eq!(left, [neighbours, theirs]);
}

#[tokio::test]
async fn what_the_server_believes_to_run_and_nobody_knows_is_lost() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    agent.stop().await;
    fs::remove_file(rig.path.join("journal")).unwrap();
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.reason.as_deref()), (Ending::Unknown, Some("agent_lost")));
    assert!(rig.machine.is_empty(), "it is gone before the server is told so");
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 1);
}

#[tokio::test]
async fn what_was_found_running_without_a_journal_is_not_run_again() {
    let rig = Rig::joined().await;
    // It was begun, the server had not heard so yet, and the journal is gone.
    make_folder(&rig, &work(11));
    rig.machine.put(&work(11));
    rig.server.order(1, run(11, "quick"));
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.reason.as_deref()), (Ending::Unknown, Some("agent_lost")));
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 0);
    assert!(rig.machine.is_empty());
}

#[tokio::test]
async fn an_engine_that_is_away_is_waited_for() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    // The crash comes between the start and the line that says so.
    rig.machine.hook(|step| step == "started");
    let agent = rig.agent().await;
    rig.machine.until("it is started", |table| table.steps.iter().any(|step| step == "started")).await;
    drop(agent);
    rig.machine.unhook();
    rig.machine.table().away = true;
    let agent = rig.agent().await;
    let finds = |steps: &[String]| steps.iter().filter(|step| *step == "find").count();
    rig.machine.until("it was looked for", |table| finds(&table.steps) > 4).await;
    assert!(!rig.server.op(1).running && !rig.server.op(1).closed);
    rig.machine.table().away = false;
    rig.server.running(1).await;
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 1);
}
