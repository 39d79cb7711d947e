//! What is done that runs no task.

use super::rig::{Rig, run};
use domain::fleet::protocol::Ending;
use serde_json::{Value, json};

fn stop(container: &str) -> Value {
    json!({ "kind": "container", "engine_id": container, "op": "stop", "grace_seconds": 3 })
}

fn pull(name: &str) -> Value {
    json!({ "kind": "image_pull", "name": name })
}

#[tokio::test]
async fn what_is_delivered_again_and_again_is_done_once_and_told_once() {
    let rig = Rig::joined().await;
    rig.server.order(1, stop("abc"));
    rig.server.change(|state| state.operations.get_mut(&1).unwrap().again_and_again = true);
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.reason, end.exit_code), (Ending::Completed, None, None));
    assert!(end.started_at.is_some() && end.finished_at.is_some());
    agent.stop().await;
    assert_eq!(rig.machine.table().deeds.len(), 1);
}

#[tokio::test]
async fn the_number_of_something_else_does_nothing() {
    for other in [stop("def"), pull("alpine"), run(11, "quick")] {
        let rig = Rig::joined().await;
        rig.server.order(1, stop("abc"));
        let agent = rig.agent().await;
        rig.server.ended(1).await;
        rig.server.order(1, other.clone());
        rig.server.change(|state| state.operations.get_mut(&1).unwrap().again_and_again = true);
        let end = rig.server.ended(1).await;
        assert_eq!(end.ending, Ending::Failed, "{other}");
        assert!(end.detail.unwrap().contains("restored from a backup"), "{other}");
        agent.stop().await;
        assert_eq!(rig.machine.table().deeds.len(), 1, "{other}");
        assert_eq!(rig.machine.runs(), 0, "{other}");
    }
}

#[tokio::test]
async fn a_pull_ends_when_it_is_cancelled() {
    let rig = Rig::joined().await;
    rig.server.order(1, pull("slow"));
    let agent = rig.agent().await;
    rig.server.until("it is pulled", |state| !state.operations[&1].progress.is_empty()).await;
    rig.server.cancel(1);
    assert_eq!(rig.server.ended(1).await.ending, Ending::Cancelled);
    agent.stop().await;
}

#[tokio::test]
async fn what_the_engine_says_against_it_is_told() {
    let rig = Rig::joined().await;
    rig.server.order(1, pull("missing"));
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.reason.as_deref()), (Ending::Failed, Some("image_missing")));
    assert_eq!(end.detail.as_deref(), Some("there is no such image"));
    agent.stop().await;
}
