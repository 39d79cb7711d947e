//! Containers that run, end, and are ended.

use super::bed::{Bed, count, ended, in_time, inspect, lines, reason, restarting, shell, until, until_logged, waiting};
use crate::engine::shared;
use domain::{
    scheduling::{PortMapping, Protocol, RestartPolicy, TaskSpec},
    units::Resources,
};
use starlink_agent::drivers::Driver;
use std::time::{Duration, Instant};

fn demand(cpu_millis: i64, memory_mib: i64) -> Resources {
    Resources { cpu_millis, memory_mib, ..Resources::default() }
}

#[tokio::test]
async fn exit_codes_and_output_are_told() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let (exit, log) = bed.run(shell("echo out; sleep 0.1; echo err >&2; exit 3")).await;
    assert_eq!((exit.code, exit.signal, reason(&exit), exit.lost), (Some(3), None, None, false));
    assert!(exit.started_at.unwrap() <= exit.finished_at.unwrap());
    assert_eq!(log, ["stdout: out", "stderr: err"]);
    let (exit, log) = bed.run(shell("exit 0")).await;
    assert_eq!((exit.code, reason(&exit), log.len()), (Some(0), None, 0));
}

#[tokio::test]
async fn a_signal_is_told_with_its_code() {
    let Some(engine) = shared() else { return };
    let (exit, _) = Bed::on(engine).run(shell("kill -9 $$")).await;
    assert_eq!((exit.code, exit.signal, reason(&exit)), (Some(137), Some(9), None));
}

#[tokio::test]
async fn memory_that_was_not_asked_for_ends_it() {
    let Some(engine) = shared() else { return };
    let spec = TaskSpec { demand: demand(0, 16), ..shell("x=$(yes | head -c 200000000); echo $?") };
    let (exit, _) = Bed::on(engine).run(spec).await;
    assert_eq!(reason(&exit), Some("out_of_memory"), "{exit:?}");
    assert!(exit.failure.unwrap().detail.contains("16 MiB"));
}

#[tokio::test]
async fn time_that_is_over_ends_it() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let began = Instant::now();
    let (exit, log) = bed.run(TaskSpec { timeout_seconds: Some(1), ..shell("echo on; sleep 60") }).await;
    assert_eq!((reason(&exit), log), (Some("timed_out"), vec!["stdout: on".to_owned()]));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(exit.finished_at.unwrap() - exit.started_at.unwrap() >= chrono::TimeDelta::seconds(1));
}

#[tokio::test]
async fn the_time_of_all_runs_together_is_limited() {
    let Some(engine) = shared() else { return };
    let spec = TaskSpec { timeout_seconds: Some(2), ..restarting(RestartPolicy::Always, "echo on; sleep 0.7") };
    let (exit, log) = Bed::on(engine).run(spec).await;
    assert_eq!(reason(&exit), Some("timed_out"), "{exit:?}");
    assert!(count(&log, "stdout: on") >= 2, "{log:?}");
}

#[tokio::test]
async fn time_that_was_over_while_the_agent_was_away_is_over() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.start(1, TaskSpec { timeout_seconds: Some(1), ..shell("sleep 60") }).await;
    let waiting = bed.waiting(&work);
    until("the first start to be noted", async || work.folder.join("container.json").exists()).await;
    waiting.abort();
    let started = inspect(&engine.client(), &work).await.state.unwrap().started_at.unwrap();
    let over = chrono::DateTime::parse_from_rfc3339(&started).unwrap() + chrono::TimeDelta::milliseconds(1100);
    until("the time to be over", async || over < domain::clock::Clock::now(&super::bed::Wall)).await;
    let exit = in_time("the end", bed.restarted().wait(&work)).await;
    assert_eq!(reason(&exit), Some("timed_out"), "{exit:?}");
}

#[tokio::test]
async fn a_start_is_done_once() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.start(1, shell("echo ran; sleep 0.3")).await;
    let id = inspect(&engine.client(), &work).await.id;
    bed.driver.start(&work, &|_| {}).await.unwrap();
    bed.end(&work).await;
    bed.restarted().start(&work, &|_| {}).await.unwrap();
    let exit = bed.end(&work).await;
    assert_eq!((exit.code, lines(&work)), (Some(0), vec!["stdout: ran".to_owned()]));
    assert_eq!(inspect(&engine.client(), &work).await.id, id);
    assert_eq!(bed.driver.found(&bed.installation).await.unwrap(), [work.id]);
}

#[tokio::test]
async fn a_container_that_was_only_made_is_started() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.start(1, shell("echo ran")).await;
    bed.end(&work).await;
    let made = inspect(&engine.client(), &work).await;
    bed.driver.remove(&work).await.unwrap();
    let options =
        bollard::query_parameters::CreateContainerOptions { name: Some(work.id.to_string()), ..Default::default() };
    let config = bollard::models::ContainerCreateBody {
        image: made.config.as_ref().unwrap().image.clone(),
        cmd: Some(vec!["echo".to_owned(), "again".to_owned()]),
        labels: made.config.unwrap().labels,
        ..Default::default()
    };
    engine.client().create_container(Some(options), config).await.unwrap();
    let exit = bed.end(&work).await;
    assert_eq!(reason(&exit), Some("start_failed"), "{exit:?}");
    bed.driver.start(&work, &|_| {}).await.unwrap();
    assert_eq!(bed.end(&work).await.code, Some(0));
}

#[tokio::test]
async fn an_agent_that_is_restarted_finds_its_container_running_and_ended() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.start(1, shell("echo one; until [ -e /tmp/go ]; do sleep 0.05; done; echo two; exit 4")).await;
    let waiting_before = bed.waiting(&work);
    until_logged(&work, "stdout: one", 1).await;
    waiting_before.abort();
    let driver = bed.restarted();
    let waiting_after = waiting(&driver, &work);
    let touched = exec(engine, &work.id.to_string(), &["touch", "/tmp/go"]).await;
    let exit = ended(waiting_after).await;
    assert_eq!((exit.code, touched), (Some(4), Some(0)));
    let again = bed.restarted().wait(&work).await;
    assert_eq!((again, lines(&work)), (exit, vec!["stdout: one".to_owned(), "stdout: two".to_owned()]));
}

async fn exec(engine: &crate::engine::Engine, container: &str, command: &[&str]) -> Option<i64> {
    use futures_util::StreamExt;
    let client = engine.client();
    let config = bollard::models::ExecConfig {
        cmd: Some(command.iter().map(|&text| text.to_owned()).collect()),
        attach_stdout: Some(true),
        ..Default::default()
    };
    let id = client.create_exec(container, config).await.unwrap().id;
    if let bollard::exec::StartExecResults::Attached { mut output, .. } = client.start_exec(&id, None).await.unwrap() {
        while output.next().await.is_some() {}
    }
    client.inspect_exec(&id).await.unwrap().exit_code
}

#[tokio::test]
async fn what_is_told_to_stop_ends_in_time_whether_it_wants_to_or_not() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let willing = bed.start(1, shell("trap 'echo bye; exit 5' TERM; echo on; while :; do sleep 0.05; done")).await;
    let stubborn = bed.start(2, shell("trap '' TERM; echo on; while :; do sleep 0.05; done")).await;
    let (waiting_willing, waiting_stubborn) = (bed.waiting(&willing), bed.waiting(&stubborn));
    until_logged(&willing, "stdout: on", 1).await;
    until_logged(&stubborn, "stdout: on", 1).await;
    bed.driver.stop(&willing, Duration::from_secs(20)).await.unwrap();
    let exit = ended(waiting_willing).await;
    assert_eq!((exit.code, lines(&willing)), (Some(5), vec!["stdout: on".to_owned(), "stdout: bye".to_owned()]));
    bed.driver.stop(&stubborn, Duration::from_secs(1)).await.unwrap();
    let state = inspect(&engine.client(), &stubborn).await.state.unwrap();
    assert_eq!((state.running, ended(waiting_stubborn).await.signal), (Some(false), Some(9)));
    // Again, and what is not there.
    bed.driver.stop(&stubborn, Duration::from_secs(1)).await.unwrap();
    bed.driver.remove(&stubborn).await.unwrap();
    bed.driver.stop(&stubborn, Duration::from_secs(1)).await.unwrap();
    bed.driver.remove(&stubborn).await.unwrap();
}

#[tokio::test]
async fn what_is_told_to_stop_between_two_runs_does_not_begin_again() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.start(1, restarting(RestartPolicy::OnFailure, "exit 6")).await;
    let waiting = bed.waiting(&work);
    let client = engine.client();
    until("some restarts", async || inspect(&client, &work).await.restart_count >= Some(3)).await;
    bed.driver.stop(&work, Duration::from_secs(1)).await.unwrap();
    let exit = ended(waiting).await;
    assert_eq!((exit.code, reason(&exit)), (Some(6), None), "{exit:?}");
    let policy = inspect(&client, &work).await.host_config.unwrap().restart_policy.unwrap();
    assert_eq!(policy.name, Some(bollard::models::RestartPolicyNameEnum::NO));
}

#[tokio::test]
async fn a_container_that_somebody_removed_is_gone_and_one_that_never_was_is_lost() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.start(1, shell("echo on; sleep 60")).await;
    let waiting = bed.waiting(&work);
    until_logged(&work, "stdout: on", 1).await;
    let force = bollard::query_parameters::RemoveContainerOptions { force: true, ..Default::default() };
    engine.client().remove_container(&work.id.to_string(), Some(force)).await.unwrap();
    let exit = ended(waiting).await;
    assert_eq!((reason(&exit), exit.lost), (Some("container_gone"), false));
    let exit = bed.restarted().wait(&work).await;
    assert_eq!((reason(&exit), exit.lost), (Some("container_gone"), true));
    let exit = bed.end(&bed.work(2, shell("true"))).await;
    assert_eq!((reason(&exit), exit.lost), (Some("agent_lost"), true));
}

#[tokio::test]
async fn limits_and_safety_are_what_the_engine_was_told() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let work = bed.start(1, TaskSpec { demand: demand(250, 64), grace_seconds: Some(7), ..shell("sleep 60") }).await;
    let container = inspect(&engine.client(), &work).await;
    let host = container.host_config.unwrap();
    assert_eq!((host.nano_cpus, host.memory, host.memory_swap), (Some(250_000_000), Some(64 << 20), Some(64 << 20)));
    assert_eq!((host.pids_limit, host.init, host.privileged), (Some(4096), Some(true), Some(false)));
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
    assert_eq!((host.network_mode.as_deref(), host.pid_mode.as_deref()), (Some("default"), Some("")));
    assert_eq!(container.config.unwrap().stop_timeout, Some(7));
    bed.driver.remove(&work).await.unwrap();
}

#[tokio::test]
async fn a_port_is_reachable_on_the_machine() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let port = PortMapping { container_port: 80, host_port: Some(18080), protocol: Protocol::Tcp };
    let work =
        bed.start(1, TaskSpec { ports: vec![port], ..shell("while echo hello | nc -l -p 80; do :; done") }).await;
    until("an answer", async || {
        let output = engine.in_network(&["busybox", "nc", "-w", "1", "127.0.0.1", "18080"]);
        output.stdout == b"hello\n"
    })
    .await;
    let second = bed.work(2, TaskSpec { ports: vec![port], ..shell("true") });
    let failure = bed.driver.start(&second, &|_| {}).await.unwrap_err();
    assert_eq!(failure.reason, "start_failed");
    assert!(failure.detail.contains("18080"), "{failure}");
    bed.driver.remove(&second).await.unwrap();
    bed.driver.remove(&work).await.unwrap();
}
