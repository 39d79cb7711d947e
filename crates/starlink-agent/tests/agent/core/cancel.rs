//! Somebody asks for the end of an operation, in each of its phases.

use super::{
    driver::exit,
    rig::{Rig, run, work},
};
use domain::fleet::protocol::Ending;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn what_runs_is_ended_with_the_grace_that_its_task_gives() {
    let rig = Rig::joined().await;
    let mut order = run(11, "long");
    order["spec"]["grace_seconds"] = json!(77);
    rig.server.order(1, order);
    rig.server.order(2, run(12, "long"));
    let agent = rig.agent().await;
    for id in [1, 2] {
        rig.server.running(id).await;
        rig.server.cancel(id);
        let end = rig.server.ended(id).await;
        assert_eq!((end.ending, end.signal, end.reason), (Ending::Cancelled, Some(15), None));
    }
    assert_eq!(rig.machine.table().graces, [Duration::from_secs(77), rig.periods.runner.grace]);
    rig.machine.until("nothing is left of it", |table| table.works.is_empty()).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_pull_is_broken_off() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "slow"));
    let agent = rig.agent().await;
    rig.server.until("it is pulled", |state| !state.operations[&1].progress.is_empty()).await;
    rig.server.cancel(1);
    assert_eq!(rig.server.ended(1).await.ending, Ending::Cancelled);
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 0);
}

#[tokio::test]
async fn what_waits_for_its_turn_is_not_begun() {
    let rig = Rig::joined().await;
    (1..=16).for_each(|id| rig.server.order(id, run(id, "slow")));
    let agent = rig.agent().await;
    rig.server.until("all are pulled", |state| state.operations.values().all(|op| !op.progress.is_empty())).await;
    rig.server.order(17, run(17, "quick"));
    rig.server.until("it is delivered", |state| state.operations[&17].deliveries > 0).await;
    rig.server.cancel(17);
    assert_eq!(rig.server.ended(17).await.ending, Ending::Cancelled);
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 0);
}

#[tokio::test]
async fn what_was_never_delivered_is_reported_as_cancelled() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "quick"));
    rig.server.cancel(1);
    let agent = rig.agent().await;
    assert_eq!(rig.server.ended(1).await.ending, Ending::Cancelled);
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 0);
}

#[tokio::test]
async fn what_has_ended_by_itself_is_told_as_it_ended() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    drop(agent);
    rig.machine.exit(&work(11), exit(0));
    rig.server.cancel(1);
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.exit_code), (Ending::Completed, Some(0)));
    agent.stop().await;
}

#[tokio::test]
async fn ending_is_tried_until_the_engine_does_it() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    rig.machine.table().stubborn = 3;
    rig.server.cancel(1);
    assert_eq!(rig.server.ended(1).await.ending, Ending::Cancelled);
    assert_eq!(rig.machine.table().graces.len(), 4);
    agent.stop().await;
}

#[tokio::test]
async fn work_that_the_server_has_given_up_is_ended_and_removed() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    rig.server.order(2, run(12, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    rig.server.running(2).await;
    agent.stop().await;
    rig.server.change(|state| {
        state.operations.get_mut(&1).unwrap().closed = true;
        state.operations.remove(&2);
    });
    let agent = rig.agent().await;
    rig.machine.until("nothing is left of it", |table| table.works.is_empty()).await;
    agent.stop().await;
    assert_eq!(rig.server.op(1).results, []);
    assert_eq!(rig.machine.runs(), 2);
}
