//! What becomes of one operation.

use super::{
    driver::{exit, killed},
    rig::{Rig, run, work},
};
use domain::fleet::protocol::Ending;
use serde_json::json;
use std::time::Duration;

async fn check(behaviour: &str, ending: Ending, reason: Option<&str>) {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, behaviour));
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.reason.as_deref()), (ending, reason), "{behaviour}: {end:?}");
    assert!(end.finished_at.is_some());
    rig.machine
        .until("nothing is left of it", |table| table.works.is_empty() && table.steps.ends_with(&["removed".into()]))
        .await;
    agent.stop().await;
    assert!(!rig.journal().contains("hunter-55") || rig.journal().contains("reported"));
}

#[tokio::test]
async fn its_end_is_told_truly() {
    check("quick", Ending::Completed, None).await;
    check("failing", Ending::Failed, Some("exit_code")).await;
    check("broken", Ending::Failed, Some("image_missing")).await;
}

#[tokio::test]
async fn the_server_hears_what_it_is_at_that_it_runs_and_how_it_ended() {
    let rig = Rig::joined().await;
    let agent = rig.agent().await;
    rig.server.order(1, run(11, "slow"));
    rig.server.until("it is pulled", |state| state.operations[&1].progress == ["pulling image: 40 %"]).await;
    rig.server.order(2, run(12, "long"));
    rig.server.running(2).await;
    assert!(!rig.server.op(1).running);
    rig.machine.exit(&work(12), killed(9));
    let end = rig.server.ended(2).await;
    assert_eq!((end.ending, end.signal), (Ending::Failed, Some(9)));
    agent.stop().await;
}

#[tokio::test]
async fn what_is_delivered_again_and_again_runs_once() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    rig.server.change(|state| state.operations.get_mut(&1).unwrap().again_and_again = true);
    let agent = rig.agent().await;
    rig.server.until("it was delivered often", |state| state.operations[&1].deliveries > 5).await;
    rig.machine.exit(&work(11), exit(0));
    rig.server.ended(1).await;
    // The answer that says so is lost to the server as well: it delivers what has ended.
    rig.server.change(|state| state.operations.get_mut(&1).unwrap().closed = false);
    rig.server.until("it is told again", |state| state.operations[&1].closed).await;
    let results = rig.server.op(1).results;
    assert_eq!(results.len(), 2);
    assert_eq!(results[0], results[1]);
    assert_eq!(rig.machine.runs(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn the_server_is_not_asked_without_a_pause() {
    let mut rig = Rig::joined().await;
    rig.periods.session.pause = Duration::from_millis(100);
    rig.server.order(1, run(11, "slow"));
    rig.server.change(|state| state.operations.get_mut(&1).unwrap().again_and_again = true);
    let began = std::time::Instant::now();
    let agent = rig.agent().await;
    rig.server.until("it was delivered often", |state| state.operations[&1].deliveries > 4).await;
    assert!(began.elapsed() > Duration::from_millis(300));
    agent.stop().await;
}

#[tokio::test]
async fn what_comes_too_late_is_not_begun() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "quick"));
    rig.server.change(|state| state.operations.get_mut(&1).unwrap().expires_in_seconds = 0);
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.reason.as_deref()), (Ending::Expired, Some("expired")));
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 0);
}

#[tokio::test]
async fn a_time_of_day_that_jumps_changes_nothing() {
    let rig = Rig::joined().await;
    rig.clock.jump(-100 * 86_400);
    // Sixteen pulls have every place, so that the next one waits.
    (1..=16).for_each(|id| rig.server.order(id, run(id, "slow")));
    let agent = rig.agent().await;
    rig.server.until("all are pulled", |state| state.operations.values().all(|op| !op.progress.is_empty())).await;
    rig.server.order(17, run(17, "quick"));
    rig.server.until("it is delivered", |state| state.operations[&17].deliveries > 0).await;
    rig.clock.jump(200 * 86_400);
    assert!(!rig.server.op(17).closed);
    rig.server.cancel(1);
    assert_eq!(rig.server.ended(17).await.ending, Ending::Completed);
    agent.stop().await;
}

#[tokio::test]
async fn what_waits_too_long_for_its_turn_is_not_begun() {
    let rig = Rig::joined().await;
    (1..=16).for_each(|id| rig.server.order(id, run(id, "slow")));
    let agent = rig.agent().await;
    rig.server.until("all are pulled", |state| state.operations.values().all(|op| !op.progress.is_empty())).await;
    rig.server.order(17, run(17, "quick"));
    rig.server.change(|state| state.operations.get_mut(&17).unwrap().expires_in_seconds = 1);
    let end = rig.server.ended(17).await;
    assert_eq!(end.ending, Ending::Expired);
    agent.stop().await;
}

#[tokio::test]
async fn what_the_agent_is_too_old_for_is_told_and_hides_nothing_else() {
    let rig = Rig::joined().await;
    rig.server.order(1, json!({"kind": "fly", "to": "moon"}));
    let mut order = run(12, "quick");
    order["spec"]["restart"] = json!("when the moon is full");
    rig.server.order(2, order);
    rig.server.order(3, run(13, "quick"));
    let mut order = run(14, "quick");
    order["spec"]["driver"] = json!("exec");
    rig.server.order(4, order);
    let agent = rig.agent().await;
    for id in [1, 2, 4] {
        let end = rig.server.ended(id).await;
        assert_eq!((end.ending, end.reason.as_deref()), (Ending::Failed, Some("unsupported")), "{id}");
    }
    assert_eq!(rig.server.ended(3).await.ending, Ending::Completed);
    agent.stop().await;
}

#[tokio::test]
async fn a_number_that_was_another_ones_begins_nothing() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "quick"));
    let agent = rig.agent().await;
    rig.server.ended(1).await;
    rig.server.order(1, run(99, "quick"));
    rig.server.change(|state| state.operations.get_mut(&1).unwrap().again_and_again = true);
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.reason.as_deref()), (Ending::Failed, Some("start_failed")));
    assert!(end.detail.unwrap().contains("restored from a backup"));
    assert_eq!(rig.machine.runs(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn work_goes_on_while_the_agent_is_away() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    let began = std::time::Instant::now();
    agent.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(!rig.server.op(1).closed);
    let agent = rig.agent().await;
    rig.server.until("it is told again that it runs", |state| state.operations[&1].started == 2).await;
    agent.stop().await;
    rig.machine.exit(&work(11), exit(0));
    let agent = rig.agent().await;
    assert_eq!(rig.server.ended(1).await.ending, Ending::Completed);
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 1);
}

#[tokio::test]
async fn a_pull_that_a_stop_interrupts_is_begun_again() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "slow"));
    let agent = rig.agent().await;
    rig.server.until("it is pulled", |state| !state.operations[&1].progress.is_empty()).await;
    agent.stop().await;
    assert!(rig.journal().contains("retracted"));
    rig.server.change(|state| state.operations.get_mut(&1).unwrap().order = run(11, "quick"));
    let agent = rig.agent().await;
    assert_eq!(rig.server.ended(1).await.ending, Ending::Completed);
    agent.stop().await;
}
