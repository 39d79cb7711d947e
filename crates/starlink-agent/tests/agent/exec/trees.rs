use super::rig::{Machine, groups, heard, is_running, kill, shim_of, until};
use starlink_agent::{drivers::Driver, work::Work};
use std::{fs, time::Duration};

/// Starts a daemon of the classic kind: in a session of its own, with nobody as its parent, deaf to requests.
const DAEMON: &str = "setsid sh -c 'trap \"\" TERM HUP; echo daemon $$ > daemon; while :; do sleep 0.05; done' & ";

/// Waits for the daemon, says its number, and goes on.
fn with_daemon(rest: &str) -> String {
    format!("({DAEMON}); until [ -s daemon ]; do sleep 0.01; done; cat daemon; {rest}")
}

async fn daemon(work: &Work) -> i32 {
    heard(work, "daemon").await.parse().unwrap()
}

async fn check_end(mut machine: Machine) {
    let work = machine.shell(&with_daemon("exit 4"));
    let exit = machine.run(&work).await;
    assert_eq!((exit.code, exit.signal), (Some(4), None));
    assert!(!is_running(daemon(&work).await));
    machine.remove(&work).await;
}

async fn check_stop(mut machine: Machine) {
    let work = machine.shell(&with_daemon("sleep 1000"));
    machine.start(&work).await.unwrap();
    let daemon = daemon(&work).await;
    assert!(is_running(daemon));
    machine.stop(&work, Duration::from_millis(100)).await;
    assert!(!is_running(daemon));
    assert_eq!(machine.wait(&work).await.signal, Some(15));
    let groups = groups(&work.folder);
    machine.remove(&work).await;
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

#[tokio::test]
async fn a_daemon_ends_with_its_program() {
    check_end(Machine::new()).await;
}

#[tokio::test]
async fn a_daemon_ends_with_its_program_without_control_groups_too() {
    check_end(Machine::without_groups()).await;
}

#[tokio::test]
async fn a_daemon_is_ended_with_its_program() {
    check_stop(Machine::new()).await;
}

#[tokio::test]
async fn a_daemon_is_ended_with_its_program_without_control_groups_too() {
    check_stop(Machine::without_groups()).await;
}

#[tokio::test]
async fn a_tree_is_given_its_grace() {
    let mut machine = Machine::new();
    // The program ends at once, its child takes its time.
    let child = "sh -c 'trap \"sleep 0.3; echo tidied up; exit\" TERM; echo child; while :; do sleep 0.01; done' &";
    let work = machine.shell(&format!("trap 'exit 3' TERM; {child} while :; do sleep 0.01; done"));
    machine.start(&work).await.unwrap();
    heard(&work, "child").await;
    machine.stop(&work, Duration::from_secs(20)).await;
    assert_eq!(machine.wait(&work).await.code, Some(3));
    heard(&work, "tidied up").await;
}

#[tokio::test]
async fn a_shim_that_is_killed_is_lost_and_leaves_nothing_behind() {
    let mut machine = Machine::new();
    if !machine.driver.limits().tree {
        return;
    }
    let work = machine.shell(&with_daemon("echo main $$; sleep 1000"));
    machine.start(&work).await.unwrap();
    let processes = [daemon(&work).await, heard(&work, "main").await.parse().unwrap()];
    assert!(processes.iter().all(|pid| is_running(*pid)));
    kill(shim_of(&work.folder).unwrap(), "KILL");
    let exit = machine.wait(&work).await;
    assert!(exit.lost && exit.code.is_none() && exit.signal.is_none(), "{exit:?}");
    assert_eq!(exit.failure.as_ref().unwrap().reason, "agent_lost");
    assert!(exit.failure.as_ref().unwrap().detail.contains("its shim was killed"), "{exit:?}");
    assert!(processes.iter().all(|pid| !is_running(*pid)));
    // It stays lost, is not run again, and its log has ended.
    machine.restart();
    machine.start(&work).await.unwrap();
    assert_eq!(machine.wait(&work).await, exit);
    assert_eq!(
        super::rig::lines(&work, domain::fleet::protocol::LogQuery { follow: true, ..super::rig::query() }).await.len(),
        2
    );
    let groups = groups(&work.folder);
    machine.remove(&work).await;
    assert!(!groups.is_empty() && groups.iter().all(|group| !group.exists()));
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_its_session_with_it_without_control_groups() {
    let mut machine = Machine::without_groups();
    let deaf = |name: &str| format!("trap \"\" HUP TERM; echo {name} $$; while :; do sleep 0.05; done");
    // The grandchild is in a session of its own, but it has a parent that is not.
    let script = r#"sh -c 'setsid sh -c "$1" & eval "$0"' "$0" "$1" & echo main $$; wait"#;
    let work = machine.work(&["sh", "-c", script, &deaf("child"), &deaf("grandchild")]);
    machine.start(&work).await.unwrap();
    let mut processes = Vec::new();
    for name in ["main", "child", "grandchild"] {
        processes.push(heard(&work, &format!("{name} ")).await.parse().unwrap());
    }
    assert!(processes.iter().all(|pid| is_running(*pid)));
    kill(shim_of(&work.folder).unwrap(), "KILL");
    assert!(machine.wait(&work).await.lost);
    assert!(processes.iter().all(|pid| !is_running(*pid)));
    machine.remove(&work).await;
}

#[tokio::test]
async fn a_program_does_not_outlive_its_shim_even_while_there_is_no_agent() {
    let mut machine = Machine::without_groups();
    let work = machine.shell("trap '' TERM HUP; echo main $$; while :; do sleep 0.05; done");
    machine.start(&work).await.unwrap();
    let main: i32 = heard(&work, "main").await.parse().unwrap();
    kill(shim_of(&work.folder).unwrap(), "KILL");
    until("the end of the program", || !is_running(main)).await;
}

#[tokio::test]
async fn a_program_that_signals_its_whole_group_does_not_reach_its_shim() {
    // As root, because nobody else may signal the shim anyway.
    let mut machine = Machine::with(|options| options.allow_root = true);
    let exit = machine.run_shell("kill -KILL 0; sleep 1000").await;
    assert_eq!((exit.signal, exit.lost), (Some(9), false));
}

#[tokio::test]
async fn bombs_are_contained_and_cleared_away() {
    let mut machine = Machine::with(|options| options.processes = 40);
    if !machine.driver.limits().processes {
        return;
    }
    let work = machine.shell("bomb() { bomb & bomb; }; trap '' TERM; bomb 2>/dev/null & echo lit; exec sleep 1000");
    machine.start(&work).await.unwrap();
    heard(&work, "lit").await;
    let pids = groups(&work.folder).into_iter().find(|group| group.join("pids.max").exists()).unwrap();
    assert_eq!(fs::read_to_string(pids.join("pids.max")).unwrap().trim(), "40");
    let refused = || fs::read_to_string(pids.join("pids.events")).is_ok_and(|events| events.trim() != "max 0");
    until("the limit", refused).await;
    machine.stop(&work, Duration::from_millis(50)).await;
    assert_eq!(machine.wait(&work).await.signal, Some(9));
    machine.remove(&work).await;
    assert!(!pids.exists());
}

#[tokio::test]
async fn a_program_that_starts_more_and_more_is_ended_without_control_groups_too() {
    let mut machine = Machine::without_groups();
    // Each starts another one in a session of its own, and ends: there is always one, and never the same.
    let script = "echo hop >> hops; (exec setsid sh \"$0\") & exit";
    let work = machine.work(&[
        "sh",
        "-c",
        "printf '%s' \"$1\" > hop.sh; sh hop.sh & until [ -s hops ]; do sleep 0.01; done; echo ready; sleep 1000",
        "sh",
        script,
    ]);
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    machine.stop(&work, Duration::from_millis(50)).await;
    let hops = fs::read(work.folder.join("run/hops")).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fs::read(work.folder.join("run/hops")).unwrap(), hops, "nobody hops any more");
    machine.driver.remove(&work).await.unwrap();
}
