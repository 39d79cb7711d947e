//! Output: each line once, whatever is restarted or killed.

use super::bed::{
    Bed, PATIENCE, count, ended, in_time, inspect, lines, restarting, shell, until, until_logged, waiting,
};
use crate::engine::shared;
use domain::{ids::TaskId, scheduling::RestartPolicy};
use starlink_agent::{
    drivers::Driver,
    work::{Work, WorkId},
};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Alternating: a line of each run, and a mark between two. The engine counts a run when it has decided on it, and it may
/// be told to stop before that.
fn check_runs(log: &[String], line: &str, counted: i64) {
    let runs = count(log, line);
    assert!((counted - 1..=counted).contains(&i64::try_from(runs).unwrap()), "{runs} of {counted}");
    let expected: Vec<&str> = (0..2 * runs - 1).map(|index| if index % 2 == 0 { line } else { "agent" }).collect();
    assert_eq!(log, expected);
}

#[tokio::test]
async fn fc_13_each_run_is_logged_once_with_a_mark_between_two() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.work(1, restarting(RestartPolicy::Always, "echo hello; sleep 0.2"));
    bed.driver.start(&work, &|_| {}).await.unwrap();
    let waiting = bed.waiting(&work);
    until_logged(&work, "stdout: hello", 6).await;
    bed.driver.stop(&work, Duration::from_secs(1)).await.unwrap();
    ended(waiting).await;
    let runs = inspect(&engine.client(), &work).await.restart_count.unwrap() + 1;
    check_runs(&lines(&work), "stdout: hello", runs);
    bed.driver.remove(&work).await.unwrap();
}

#[tokio::test]
async fn fc_13_runs_that_the_agent_missed_are_logged_once_too() {
    let Some(engine) = shared() else { return };
    let (bed, client) = (Bed::on(engine), engine.client());
    let work = bed.start(1, restarting(RestartPolicy::Always, "echo hello")).await;
    let missed = async |runs| until("runs", async || inspect(&client, &work).await.restart_count >= Some(runs)).await;
    missed(2).await;
    let waiting_before = bed.waiting(&work);
    until_logged(&work, "stdout: hello", 3).await;
    waiting_before.abort();
    missed(4).await;
    let driver = bed.restarted();
    let waiting_after = waiting(&driver, &work);
    until_logged(&work, "stdout: hello", 5).await;
    driver.stop(&work, Duration::from_secs(1)).await.unwrap();
    ended(waiting_after).await;
    let runs = inspect(&client, &work).await.restart_count.unwrap() + 1;
    check_runs(&lines(&work), "stdout: hello", runs);
    bed.driver.remove(&work).await.unwrap();
}

#[tokio::test]
async fn fc_13_a_restart_by_hand_is_followed() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.start(1, shell("echo up; exec sleep 60")).await;
    let waiting = bed.waiting(&work);
    until_logged(&work, "stdout: up", 1).await;
    for runs in 2..=3 {
        let options = bollard::query_parameters::RestartContainerOptions { t: Some(1), ..Default::default() };
        engine.client().restart_container(&work.id.to_string(), Some(options)).await.unwrap();
        until_logged(&work, "stdout: up", runs).await;
        assert!(!waiting.is_finished());
    }
    let client = engine.client();
    client.stop_container(&work.id.to_string(), None).await.unwrap();
    let exit = ended(waiting).await;
    assert_eq!(exit.signal, Some(15), "{exit:?}");
    check_runs(&lines(&work), "stdout: up", 3);
    bed.driver.remove(&work).await.unwrap();
}

#[tokio::test]
async fn any_bytes_come_through() {
    let Some(engine) = shared() else { return };
    let script = r"printf 'before-\377\376-after\n'; yes x | tr -d '\n' | head -c 50000; echo; echo; printf 'no end'";
    let (exit, log) = Bed::on(engine).run(shell(script)).await;
    assert_eq!(exit.code, Some(0));
    let row = format!("stdout: {}", "x".repeat(50_000));
    assert_eq!(log, ["stdout: before-\u{fffd}\u{fffd}-after", row.as_str(), "stdout: ", "stdout: no end"]);
}

#[tokio::test]
async fn a_log_keeps_to_its_limit_however_much_is_written() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let mut spec = shell("yes 0123456789012345678901234567890123456789 | head -n 100000; echo last");
    spec.log_limit_mib = Some(1);
    let work = bed.start(1, spec).await;
    assert_eq!(bed.end(&work).await.code, Some(0));
    let size = |folder: &Path| -> u64 {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    assert!(size(&work.folder.join("log")) <= 1 << 20);
    assert_eq!(lines(&work).last().map(String::as_str), Some("stdout: last"));
    bed.driver.remove(&work).await.unwrap();
}

/// What [`an_agent_that_is_killed_at_any_moment_loses_and_repeats_nothing`] kills.
#[tokio::test]
#[ignore = "is started by another test"]
async fn waits_until_it_is_killed() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let bed = Bed::at(Path::new(&variable("STARLINK_TEST_SOCKET")), |_| {});
    let installation = variable("STARLINK_TEST_INSTALLATION").as_str().into();
    let id = WorkId { installation, task: TaskId(1), attempt: 1 };
    let folder = variable("STARLINK_TEST_FOLDER").into();
    bed.driver.wait(&Work { id, spec: shell(CHATTY).into(), folder }).await;
}

/// Two streams, each in an order of its own, and now and then more than the agent takes at once.
const CHATTY: &str = "for i in $(seq 150); do for n in $(seq 40); do echo o$i.$n; done; \
                      for n in $(seq 10); do echo e$i.$n >&2; done; sleep 0.01; done";

#[tokio::test]
async fn an_agent_that_is_killed_at_any_moment_loses_and_repeats_nothing() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.start(1, shell(CHATTY)).await;
    let began = Instant::now();
    let mut kills = 0;
    while inspect(&engine.client(), &work).await.state.unwrap().running == Some(true) && began.elapsed() < PATIENCE {
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "docker::output::waits_until_it_is_killed", "--ignored"])
            .env("STARLINK_TEST_SOCKET", engine.socket())
            .env("STARLINK_TEST_INSTALLATION", &*bed.installation)
            .env("STARLINK_TEST_FOLDER", &work.folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // A little later in the agent's life each time.
        tokio::time::sleep(Duration::from_millis(20 + 13 * kills)).await;
        agent.kill().unwrap();
        agent.wait().unwrap();
        kills += 1;
    }
    assert_eq!(in_time("the end", bed.restarted().wait(&work)).await.code, Some(0));
    let log = lines(&work);
    let of = |stream: &str, letter: &str, last: usize| {
        let lines = log.iter().filter_map(|line| line.strip_prefix(stream)).collect::<Vec<_>>();
        let expected = (1..=150).flat_map(|i| (1..=last).map(move |n| format!("{letter}{i}.{n}"))).collect::<Vec<_>>();
        let differs = lines.iter().zip(&expected).position(|(line, expected)| line != expected);
        let around = differs.map(|index| &lines[index.saturating_sub(3)..(index + 3).min(lines.len())]);
        assert_eq!((around, lines.len()), (None, expected.len()), "after {kills} kills");
    };
    of("stdout: ", "o", 40);
    of("stderr: ", "e", 10);
    assert!(kills > 3, "{kills}");
    assert_eq!(count(&log, "agent"), 0);
    bed.driver.remove(&work).await.unwrap();
}
