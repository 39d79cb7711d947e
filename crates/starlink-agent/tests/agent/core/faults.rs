//! The network and the server fail in every way.

use super::{
    driver::exit,
    http::Response,
    rig::{Rig, inventory, run, work},
    server::{Act, When},
};
use domain::fleet::protocol::Ending;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

fn rhythm(call: usize) -> usize {
    call.wrapping_mul(0x9E37_79B9)
}

/// Lets every call fail in this way now and then, and checks that every operation is run once, and its end told once.
async fn check(act: impl Fn() -> Act + Send + Sync + 'static, when: When) {
    let rig = Rig::joined().await;
    (1..=8).for_each(|id| rig.server.order(id, run(id, if id % 2 == 0 { "quick" } else { "long" })));
    let calls = AtomicUsize::new(0);
    rig.server.hook(move |_, now| {
        // Two of three fail, in no rhythm that the agent's own could fall into.
        let fails = now == when && !(rhythm(calls.fetch_add(1, Ordering::Relaxed)) % 65_536).is_multiple_of(3);
        if fails { act() } else { Act::Go }
    });
    let agent = rig.agent().await;
    for id in (1..=8).step_by(2) {
        rig.server.running(id).await;
        rig.machine.exit(&work(id), exit(0));
    }
    for id in 1..=8 {
        assert_eq!(rig.server.ended(id).await.ending, Ending::Completed);
    }
    rig.server.unhook();
    rig.machine.until("nothing is left", |table| table.works.is_empty()).await;
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 8);
    assert!(rig.server.state().operations.values().all(|op| op.results.len() == 1));
}

#[tokio::test]
async fn connections_that_break_off_before_a_call_is_handled() {
    check(|| Act::Drop, When::BeforeHandling).await;
}

#[tokio::test]
async fn connections_that_break_off_after_a_call_was_handled() {
    check(|| Act::Drop, When::AfterHandling).await;
}

#[tokio::test]
async fn a_server_that_fails() {
    check(|| Act::Answer(Response::problem(500, "internal")), When::BeforeHandling).await;
    check(|| Act::Answer(Response::problem(503, "unavailable")), When::AfterHandling).await;
}

#[tokio::test]
async fn something_in_between_that_answers_instead_of_the_server() {
    let page = |status| Response { status, body: "<html>go away</html>".to_owned() };
    for status in [302, 401, 404, 409, 200] {
        check(move || Act::Answer(page(status)), When::BeforeHandling).await;
    }
}

#[tokio::test]
async fn a_server_that_is_slow() {
    check(|| Act::Wait(Duration::from_millis(3)), When::AfterHandling).await;
}

#[tokio::test]
async fn a_session_that_is_gone_is_opened_anew_and_what_runs_is_told_again() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    for count in 2..5 {
        rig.server.change(|state| state.session = None);
        rig.server.until("it is told again", |state| state.operations[&1].started == count).await;
        assert_eq!(rig.server.state().sessions.len(), count);
    }
    rig.machine.exit(&work(11), exit(0));
    assert_eq!(rig.server.ended(1).await.ending, Ending::Completed);
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 1);
}

#[tokio::test]
async fn work_ends_while_the_server_is_away_and_is_told_when_it_is_back() {
    let mut rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    rig.server.down().await;
    rig.machine.exit(&work(11), exit(3));
    rig.machine.until("it has ended", |table| table.steps.last().is_some_and(|step| step == "ended")).await;
    rig.server.up().await;
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.exit_code), (Ending::Failed, Some(3)));
    // The server is sure to hear of the machine anew.
    assert!(rig.server.state().sessions.len() > 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_result_does_not_wait_for_the_next_poll() {
    let mut rig = Rig::joined().await;
    rig.periods.session.poll = Duration::from_hours(1);
    let agent = rig.agent().await;
    rig.server.connected().await;
    rig.server.order(1, run(11, "quick"));
    assert_eq!(rig.server.ended(1).await.ending, Ending::Completed);
    agent.stop().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_asked_less_and_less_often() {
    let mut rig = Rig::joined().await;
    rig.periods.runner.patience.most = Duration::from_millis(50);
    rig.server.hook(|_, _| Act::Drop);
    let agent = rig.agent().await;
    let began = std::time::Instant::now();
    let count = |calls: &[String]| calls.iter().filter(|call| call.contains("session")).count();
    rig.server.until("it was asked often", |state| count(&state.calls) >= 40).await;
    // 25 ms each in the long run.
    assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
    agent.stop().await;
}

#[tokio::test]
async fn a_machine_that_changes_is_told_of_once() {
    let rig = Rig::joined().await;
    let agent = rig.agent().await;
    rig.server.connected().await;
    let mut grown = inventory();
    grown.capacity.memory_mib *= 2;
    rig.inventory.lock().unwrap().clone_from(&grown);
    rig.server.until("it is told", |state| !state.inventories.is_empty()).await;
    let mut shrunk = inventory();
    shrunk.drivers.clear();
    rig.inventory.lock().unwrap().clone_from(&shrunk);
    rig.server.until("it is told again", |state| state.inventories.len() > 1).await;
    assert_eq!(rig.server.state().inventories, [grown, shrunk.clone()]);
    // A new session has it already.
    rig.server.change(|state| state.session = None);
    rig.server.until("a new session", |state| state.sessions.len() == 2).await;
    agent.stop().await;
    let state = rig.server.state();
    assert_eq!(state.sessions[1].inventory, shrunk);
    assert_eq!(state.inventories.len(), 2);
}
