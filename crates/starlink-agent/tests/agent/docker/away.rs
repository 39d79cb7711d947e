//! Engines that go away while containers run.

use super::bed::{Bed, count, ended, in_time, inspect, lines, reason, restarting, shell, until, until_logged, waiting};
use crate::engine::own;
use domain::scheduling::{RestartPolicy, TaskSpec};
use starlink_agent::drivers::Driver;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Containers on an engine that is ended in one of two ways, and started again.
async fn check_restart(end: impl FnOnce(&mut crate::engine::Engine)) {
    let Some(mut engine) = own(&[]) else { return };
    let bed = Bed::on(&engine);
    let job = bed.start(1, shell("echo on; exec sleep 600")).await;
    let service = bed.start(2, restarting(RestartPolicy::Always, "echo on; exec sleep 600")).await;
    let retried = bed.start(3, restarting(RestartPolicy::OnFailure, "echo on; exec sleep 600")).await;
    let cancelled = [(4, RestartPolicy::OnFailure), (5, RestartPolicy::Always)];
    let cancelled = cancelled.map(|(task, restart)| bed.work(task, restarting(restart, "exec sleep 600")));
    let [waiting_job, waiting_service, waiting_retried] = [&job, &service, &retried].map(|work| bed.waiting(work));
    for work in [&job, &service, &retried] {
        until_logged(work, "stdout: on", 1).await;
    }
    for work in &cancelled {
        bed.driver.start(work, &|_| {}).await.unwrap();
        bed.driver.stop(work, Duration::from_secs(1)).await.unwrap();
    }
    end(&mut engine);
    engine.start_again();

    let exit = ended(waiting_job).await;
    assert_eq!((reason(&exit), exit.lost, exit.code), (Some("engine_gone"), false, exit.code), "{exit:?}");
    assert!(matches!(exit.signal, Some(9 | 15)), "{exit:?}");
    // What stays was started again by the engine, and is still waited for.
    for work in [&service, &retried] {
        until_logged(work, "stdout: on", 2).await;
        assert_eq!(lines(work), ["stdout: on", "agent", "stdout: on"]);
    }
    // What was ended on purpose stays ended.
    for work in &cancelled {
        assert_eq!(inspect(&engine.client(), work).await.state.unwrap().running, Some(false));
    }
    for (work, waiting) in [(&service, waiting_service), (&retried, waiting_retried)] {
        assert!(!waiting.is_finished());
        bed.driver.stop(work, Duration::from_secs(1)).await.unwrap();
        assert_eq!(ended(waiting).await.signal, Some(15));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_stopped_takes_its_jobs_with_it_and_starts_what_stays() {
    check_restart(crate::engine::Engine::stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_crashes_takes_its_jobs_with_it_and_starts_what_stays() {
    check_restart(crate::engine::Engine::crash).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_an_engine_that_lets_them() {
    let Some(mut engine) = own(&["--live-restore"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let bed = Bed::at(&engine.socket(), |options| options.allow_mounts = vec![folder.path().to_owned()]);
    let mount = domain::scheduling::Mount {
        source: folder.path().to_str().unwrap().to_owned(),
        target: "/data".to_owned(),
        read_only: false,
    };
    let spec = |script: &str| TaskSpec { mounts: vec![mount.clone()], ..shell(script) };
    let counting = "i=0; until [ -e /data/go ]; do i=$((i+1)); echo $i; echo $i > /data/at; sleep 0.02; done; exit 7";
    let ending = "echo on; until [ -e /data/gone ]; do sleep 0.02; done; echo x > /data/over; exit 5";
    let (long, short) = (bed.start(1, spec(counting)).await, bed.start(2, spec(ending)).await);
    let (waiting_long, waiting_short) = (bed.waiting(&long), bed.waiting(&short));
    until_logged(&long, "stdout: 3", 1).await;
    until_logged(&short, "stdout: on", 1).await;
    engine.stop();
    // It goes on without an engine, and something ends without one.
    std::fs::write(path("gone"), "").unwrap();
    let at = || std::fs::read_to_string(path("at")).unwrap_or_default().trim().parse::<u32>().unwrap_or_default();
    let before = at();
    until("its going on", async || at() > before + 10).await;
    until("an end", async || path("over").exists()).await;
    engine.start_again();
    let exit = ended(waiting_short).await;
    assert_eq!((exit.code, reason(&exit)), (Some(5), None), "{exit:?}");
    std::fs::write(path("go"), "").unwrap();
    let exit = ended(waiting_long).await;
    assert_eq!((exit.code, reason(&exit)), (Some(7), None), "{exit:?}");
    let expected: Vec<String> = (1..=at()).map(|i| format!("stdout: {i}")).collect();
    assert_eq!(lines(&long), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_does_not_come_back_is_given_up_and_what_ran_there_is_unknown() {
    let Some(mut engine) = own(&[]) else { return };
    let bed = Bed::at(&engine.socket(), |options| options.engine_patience = Duration::from_millis(500));
    let work = bed.start(1, shell("echo on; exec sleep 600")).await;
    let waiting = bed.waiting(&work);
    until_logged(&work, "stdout: on", 1).await;
    engine.stop();
    let exit = ended(waiting).await;
    assert_eq!((reason(&exit), exit.lost), (Some("engine_gone"), true), "{exit:?}");
    let failure = bed.driver.start(&bed.work(2, shell("true")), &|_| {}).await.unwrap_err();
    assert_eq!(failure.reason, "engine_gone");
    assert_eq!(bed.driver.stop(&work, Duration::ZERO).await.unwrap_err().reason, "engine_gone");
    assert_eq!(bed.driver.found(&bed.installation).await.unwrap_err().reason, "engine_gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_may_be_there_before_its_engine() {
    let Some(mut engine) = own(&[]) else { return };
    engine.stop();
    let bed = Bed::on(&engine);
    let work = bed.work(1, shell("echo on"));
    let (driver, starting) = (std::sync::Arc::clone(&bed.driver), work.clone());
    let starting = tokio::spawn(async move { driver.start(&starting, &|_| {}).await });
    engine.start_again();
    in_time("the start", starting).await.unwrap().unwrap();
    assert_eq!(ended(waiting(&bed.driver, &work)).await.code, Some(0));
    assert_eq!(count(&lines(&work), "stdout: on"), 1);
}

/// Of the engine that tests use: one that outlives them would hold on to what it was given, frozen containers above all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_of_a_test_leaves_nothing_behind() {
    let Some(engine) = own(&[]) else { return };
    let bed = Bed::on(&engine);
    let work = bed.start(1, shell("exec sleep 600")).await;
    let id = inspect(&engine.client(), &work).await.id.unwrap();
    engine.client().pause_container(&id).await.unwrap();
    let (directory, group) = (engine.socket().parent().unwrap().to_owned(), engine.group().to_owned());
    assert!(!groups(&group).is_empty());
    // In a thread of its own, so that the test fails where it would hang.
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        drop(engine);
        ended.send(())
    });
    in_time("the engine to end", end).await.unwrap();
    assert_eq!(groups(&group), Vec::<PathBuf>::new());
    assert!(!directory.exists());
}

/// The control groups of this name, in whatever hierarchies there are.
fn groups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = root.read_dir().unwrap().map(|entry| entry.unwrap().path()).chain([root.to_owned()]);
    hierarchies.map(|hierarchy| hierarchy.join(name.trim_start_matches('/'))).filter(|group| group.exists()).collect()
}
