//! The agent is cut off at every step of an operation, as by `kill -9`: at most one run, and exactly one end.

use super::{
    rig::{Rig, run, work},
    server::{Act, When},
};
use domain::fleet::protocol::{End, Ending};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// Counts steps, of driver and server alike, and lets the agent crash at one of them.
#[derive(Default)]
struct Crash {
    at: AtomicUsize,
    steps: AtomicUsize,
    now: Notify,
}

impl Crash {
    fn is_now(&self) -> bool {
        let crashes = self.steps.fetch_add(1, Ordering::SeqCst) == self.at.load(Ordering::SeqCst);
        if crashes {
            self.now.notify_one();
        }
        crashes
    }

    /// Sets the step of the next crash, counted from now on.
    fn arm(&self, at: usize) {
        self.steps.store(0, Ordering::SeqCst);
        self.at.store(at, Ordering::SeqCst);
    }
}

fn set_up(rig: &Rig) -> Arc<Crash> {
    let crash = Arc::<Crash>::default();
    let (machine, server) = (crash.clone(), crash.clone());
    rig.machine.hook(move |step| !matches!(step, "find") && machine.is_now());
    rig.server.hook(move |request, when| {
        // Polls come in any number; what matters of them is what is done with their answer.
        let counts = request.method == "POST" || when == When::AfterHandling && request.path == "/agent/session";
        if counts && server.is_now() { Act::Hang } else { Act::Go }
    });
    crash
}

/// Runs an agent until the operation has ended or the crash has come. Says whether it was the crash.
async fn live(rig: &Rig, crash: &Crash) -> bool {
    let agent = rig.agent().await;
    tokio::select! {
        () = rig.server.until("it is over", |state| state.operations[&1].closed) => {
            // What comes after the report counts as well.
            tokio::select! {
                biased;
                () = crash.now.notified() => return true,
                () = rig.machine.until("nothing is left", |table| table.works.is_empty() && is_removed(&table.steps)) => {}
            }
            agent.stop().await;
            false
        }
        () = crash.now.notified() => {
            drop(agent);
            true
        }
    }
}

fn is_removed(steps: &[String]) -> bool {
    steps.iter().rfind(|step| *step != "find").is_some_and(|step| step == "removed")
}

async fn settle(rig: &Rig) -> End {
    rig.machine.unhook();
    rig.server.unhook();
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    rig.machine.until("nothing is left of it", |table| table.works.is_empty()).await;
    agent.stop().await;
    let op = rig.server.op(1);
    assert_eq!(op.results.len(), 1, "{op:?}");
    end
}

fn check(rig: &Rig, end: &End, ending: Ending, context: &str) {
    let steps = rig.machine.table().steps.clone();
    match rig.machine.runs() {
        0 => assert!(matches!(end.ending, Ending::Unknown | Ending::Cancelled), "{context}: {end:?} {steps:#?}"),
        1 => assert_eq!(end.ending, ending, "{context}: {end:?} {steps:#?}"),
        runs => panic!("{context}: {runs} runs {steps:#?}"),
    }
}

/// Crashes at each step of an operation in turn, and then never. Returns how many steps there are.
async fn crash_everywhere(behaviour: &str, ending: Ending) -> usize {
    for at in 0.. {
        let rig = Rig::joined().await;
        rig.server.order(1, run(11, behaviour));
        let crash = set_up(&rig);
        crash.arm(at);
        let has_crashed = live(&rig, &crash).await;
        let end = settle(&rig).await;
        check(&rig, &end, ending, &format!("{behaviour} crashing at step {at}"));
        if !has_crashed {
            return at;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_crash_at_any_step_neither_repeats_nor_loses_an_operation() {
    // Session, start, wait, started, ended, result, remove: before and after each.
    let steps = crash_everywhere("quick", Ending::Completed).await;
    assert!(steps > 8, "{steps}");
    crash_everywhere("failing", Ending::Failed).await;
}

#[tokio::test]
async fn a_crash_at_any_step_neither_repeats_nor_loses_what_runs_no_task() {
    for at in 0.. {
        let rig = Rig::joined().await;
        rig.server.order(1, json!({ "kind": "container", "engine_id": "abc", "op": "stop" }));
        let crash = set_up(&rig);
        crash.arm(at);
        let agent = rig.agent().await;
        let has_crashed = tokio::select! {
            biased;
            () = crash.now.notified() => true,
            () = rig.server.until("it is over", |state| state.operations[&1].closed) => false,
        };
        drop(agent);
        rig.machine.unhook();
        rig.server.unhook();
        let agent = rig.agent().await;
        let end = rig.server.ended(1).await;
        agent.stop().await;
        let done = rig.machine.table().deeds.len();
        assert!(done <= 1, "done {done} times, crashing at step {at}");
        let truly = match end.ending {
            Ending::Completed => done == 1,
            // Nobody can tell, and that is what is told.
            Ending::Unknown => end.detail.as_deref().is_some_and(|detail| detail.contains("not done again")),
            _ => false,
        };
        assert!(truly, "crashing at step {at}: {end:?}, done {done} times");
        assert_eq!(rig.server.op(1).results.len(), 1);
        if !has_crashed {
            assert!(at > 3, "{at}");
            return;
        }
    }
}

#[tokio::test]
async fn two_crashes_in_a_row_do_not_either() {
    let mut pairs = 0;
    for first in 0..13 {
        for second in 0..13 {
            let rig = Rig::joined().await;
            rig.server.order(1, run(11, "quick"));
            rig.server.change(|state| state.operations.get_mut(&1).unwrap().again_and_again = true);
            let crash = set_up(&rig);
            crash.arm(first);
            if live(&rig, &crash).await {
                crash.arm(second);
                pairs += usize::from(live(&rig, &crash).await);
            }
            let end = settle(&rig).await;
            check(&rig, &end, Ending::Completed, &format!("crashing at step {first} and then at {second}"));
        }
    }
    assert!(pairs > 50, "{pairs}");
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_cancel_does_not_either() {
    for at in 0.. {
        let rig = Rig::joined().await;
        rig.server.order(1, run(11, "long"));
        let agent = rig.agent().await;
        rig.server.running(1).await;
        let crash = set_up(&rig);
        crash.arm(at);
        rig.server.cancel(1);
        let has_crashed = tokio::select! {
            () = rig.machine.until("nothing is left", |table| table.works.is_empty() && is_removed(&table.steps)) => false,
            () = crash.now.notified() => true,
        };
        drop(agent);
        let end = settle(&rig).await;
        check(&rig, &end, Ending::Cancelled, &format!("a cancel crashing at step {at}"));
        assert_eq!(rig.machine.runs(), 1);
        if !has_crashed {
            assert!(at > 4, "{at}");
            return;
        }
    }
}

#[tokio::test]
async fn what_was_removed_by_hand_while_the_agent_was_away_is_not_run_again() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    drop(agent);
    rig.machine.forget(&work(11));
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.reason.as_deref()), (Ending::Unknown, Some("agent_lost")));
    agent.stop().await;
    assert_eq!(rig.machine.runs(), 1);
}

#[tokio::test]
async fn a_result_that_could_not_be_told_is_told_after_a_restart() {
    let mut rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    rig.server.down().await;
    rig.machine.exit(&work(11), super::driver::exit(0));
    rig.machine.until("it has ended", |table| table.steps.last().is_some_and(|step| step == "ended")).await;
    while !rig.journal().contains("completed") {
        tokio::task::yield_now().await;
    }
    drop(agent);
    rig.server.up().await;
    let agent = rig.agent().await;
    let end = rig.server.ended(1).await;
    assert_eq!(end.ending, Ending::Completed);
    agent.stop().await;
}
