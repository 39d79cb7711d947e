use super::rig::{Machine, env, heard, lines, out, program, query, said};
use domain::{fleet::protocol::LogStream, scheduling::RestartPolicy};
use starlink_agent::{drivers::Driver, work::Failure};
use std::{
    fs,
    time::{Duration, Instant},
};

#[tokio::test]
async fn a_program_ends_with_its_code() {
    let mut machine = Machine::new();
    for (command, code) in
        [(&["true"][..], 0), (&["false"], 1), (&["sh", "-c", "exit 3"], 3), (&["/bin/sh", "-c", "exit 255"], 255)]
    {
        let work = machine.work(command);
        let exit = machine.run(&work).await;
        assert_eq!((exit.code, exit.signal, &exit.failure, exit.lost), (Some(code), None, &None, false), "{command:?}");
        assert!(exit.started_at.unwrap() <= exit.finished_at.unwrap());
        assert_eq!(machine.wait(&work).await, exit, "it is told again");
    }
}

#[tokio::test]
async fn a_program_ends_by_a_signal() {
    let mut machine = Machine::new();
    // 40 is none that has a name.
    for signal in [9, 15, 11, 40] {
        let exit = machine.run_shell(&format!("kill -{signal} $$; sleep 1000")).await;
        assert_eq!((exit.code, exit.signal, exit.failure), (None, Some(signal), None));
    }
}

async fn check_refused(machine: &mut Machine, command: &[&str], reason: &str, words: &str) -> Failure {
    let work = machine.work(command);
    let failure = machine.start(&work).await.unwrap_err();
    assert_eq!(failure.reason, reason, "{failure}");
    assert!(failure.detail.contains(words), "{failure}");
    let exit = machine.wait(&work).await;
    assert_eq!((exit.failure.as_ref(), exit.started_at, exit.lost), (Some(&failure), None, false));
    assert_eq!(machine.start(&work).await.unwrap_err(), failure, "it is not tried again");
    machine.remove(&work).await;
    failure
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let mut machine = Machine::new();
    check_refused(&mut machine, &["no-such-program-here"], "start_failed", "no such program: no-such-program-here")
        .await;
    check_refused(&mut machine, &["/no/such/program"], "start_failed", "no such program: /no/such/program").await;
    check_refused(&mut machine, &["/etc/passwd"], "start_failed", "permission denied").await;
    check_refused(&mut machine, &["/"], "start_failed", "permission denied").await;
    let (_folder, script) = program(b"#!/no/such/interpreter\n", 0o755);
    check_refused(&mut machine, &[&script], "start_failed", "interpreter or loader").await;
    check_refused(&mut machine, &["echo", "nul\0"], "start_failed", "NUL").await;
    let (_folder, private) = program(b"#!/bin/sh\n", 0o000);
    check_refused(&mut machine, &[&private], "start_failed", "permission denied").await;
}

#[tokio::test]
async fn a_program_for_another_architecture_is_told_as_such() {
    let mut machine = Machine::new();
    let (_folder, text) = program(b"exit 0\n", 0o755);
    check_refused(&mut machine, &[&text], "exec_format", "Exec format error").await;
    // A true program, but for a processor that this machine does not have.
    let mut bytes = fs::read(fs::canonicalize("/bin/true").unwrap()).unwrap();
    let other: u16 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    bytes[18..20].copy_from_slice(&other.to_le_bytes());
    let (_folder, foreign) = program(&bytes, 0o755);
    let handled = fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|handlers| {
        handlers.flatten().any(|handler| handler.file_name().to_string_lossy().starts_with("qemu-"))
    });
    if !handled {
        check_refused(&mut machine, &[&foreign], "exec_format", "another architecture").await;
    }
}

#[tokio::test]
async fn mounts_are_refused() {
    let mut machine = Machine::new();
    let work = machine.work_with(&["true"], |spec| {
        spec.mounts =
            vec![domain::scheduling::Mount { source: "/tmp".to_owned(), target: "/tmp".to_owned(), read_only: true }];
    });
    assert_eq!(machine.start(&work).await.unwrap_err().reason, "unsupported");
}

#[tokio::test]
async fn a_program_that_is_asked_to_end_may_do_so_in_its_own_way() {
    let mut machine = Machine::new();
    let work = machine.shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    let since = Instant::now();
    machine.stop(&work, Duration::from_secs(20)).await;
    assert!(since.elapsed() < Duration::from_secs(10), "nobody waits for the grace to be over");
    let exit = machine.wait(&work).await;
    assert_eq!((exit.code, exit.failure), (Some(7), None));
    assert_eq!(out(&work).await, ["ready", "bye"]);
    machine.stop(&work, Duration::ZERO).await;
}

#[tokio::test]
async fn a_program_that_does_not_end_is_ended_after_the_grace() {
    let mut machine = Machine::new();
    let work = machine.shell("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    let since = Instant::now();
    machine.stop(&work, Duration::from_millis(300)).await;
    assert!(since.elapsed() >= Duration::from_millis(300));
    assert_eq!(machine.wait(&work).await.signal, Some(9));
}

#[tokio::test]
async fn a_second_request_may_shorten_the_grace() {
    let mut machine = Machine::new();
    let work = machine.shell("trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done");
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    let patient = machine.driver.stop(&work, Duration::from_secs(1000));
    let impatient = async {
        heard(&work, "asked").await;
        machine.stop(&work, Duration::from_millis(10)).await;
    };
    let (patient, ()) = tokio::join!(patient, impatient);
    patient.unwrap();
    assert_eq!(machine.wait(&work).await.signal, Some(9));
}

#[tokio::test]
async fn a_halted_program_is_ended_as_well() {
    let mut machine = Machine::new();
    let work = machine.shell("echo ready; kill -STOP $$; sleep 1000");
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    machine.stop(&work, Duration::from_secs(20)).await;
    assert_eq!(machine.wait(&work).await.signal, Some(15));
}

#[tokio::test]
async fn a_shim_that_is_asked_to_end_asks_its_program() {
    let mut machine = Machine::new();
    let work = machine.work_with(&["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done"], |spec| {
        spec.grace_seconds = Some(0);
    });
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    super::rig::kill(super::rig::shim_of(&work.folder).unwrap(), "TERM");
    let exit = machine.wait(&work).await;
    assert_eq!((exit.signal, exit.lost), (Some(9), false));
}

#[tokio::test]
async fn a_program_runs_no_longer_than_it_may() {
    let mut machine = Machine::new();
    let work = machine.work_with(&["sh", "-c", "trap '' TERM; while :; do sleep 0.01; done"], |spec| {
        spec.timeout_seconds = Some(1);
        spec.grace_seconds = Some(0);
    });
    let since = Instant::now();
    let exit = machine.run(&work).await;
    assert!(since.elapsed() >= Duration::from_secs(1));
    assert_eq!((exit.signal, exit.failure.unwrap().reason), (Some(9), "timed_out"));

    // Also while it waits to be started again; and a limit that nobody lives to see is none.
    let [often, never] = [Some(1), Some(u64::MAX)].map(|limit| {
        machine.work_with(&["false"], |spec| {
            spec.timeout_seconds = limit;
            spec.restart = if limit == Some(1) { RestartPolicy::OnFailure } else { RestartPolicy::Never };
        })
    });
    let exit = machine.run(&often).await;
    assert_eq!((exit.code, exit.failure.unwrap().reason), (Some(1), "timed_out"));
    let exit = machine.run(&never).await;
    assert_eq!((exit.code, exit.failure), (Some(1), None));
}

/// Fails until it was run so often.
fn fails_until(run: u32) -> String {
    format!("printf hello; echo x >> runs; [ $(wc -l < runs) -ge {run} ]")
}

#[tokio::test]
async fn a_program_that_fails_is_started_again_until_it_does_not() {
    let mut machine = Machine::new();
    let script = fails_until(3);
    let work = machine.work_with(&["sh", "-c", &script], |spec| spec.restart = RestartPolicy::OnFailure);
    let exit = machine.run(&work).await;
    assert_eq!((exit.code, &exit.failure), (Some(0), &None));
    assert_eq!(out(&work).await, ["hello"; 3]);
    let marks = ["started again (run 2): ended with code 1", "started again (run 3): ended with code 1"];
    assert_eq!(said(&work, LogStream::Agent).await, marks);
    assert!(
        exit.finished_at.unwrap() - exit.started_at.unwrap() >= chrono::TimeDelta::milliseconds(300),
        "0.1 s, 0.2 s"
    );
}

#[tokio::test]
async fn a_program_is_not_started_again_unless_it_is_to_be() {
    let mut machine = Machine::new();
    for (policy, script) in [(RestartPolicy::Never, "echo x; false"), (RestartPolicy::OnFailure, "echo x; true")] {
        let work = machine.work_with(&["sh", "-c", script], |spec| spec.restart = policy);
        machine.run(&work).await;
        assert_eq!(out(&work).await, ["x"], "{policy}");
    }
    // What could never be started is no failure of the program.
    let work = machine.work_with(&["no-such-program-here"], |spec| spec.restart = RestartPolicy::Always);
    assert_eq!(machine.start(&work).await.unwrap_err().reason, "start_failed");
}

#[tokio::test]
async fn a_program_that_is_always_started_again_ends_when_it_is_asked_to() {
    let mut machine = Machine::new();
    let work = machine.work_with(&["sh", "-c", "echo hello"], |spec| spec.restart = RestartPolicy::Always);
    machine.start(&work).await.unwrap();
    heard(&work, "started again (run 4)").await;
    machine.stop(&work, Duration::from_secs(20)).await;
    let exit = machine.wait(&work).await;
    assert!(exit.failure.is_none() && (exit.code == Some(0) || exit.signal == Some(15)), "{exit:?}");
    let told = lines(&work, query()).await;
    let texts: Vec<_> = told.iter().map(|line| line.text.as_str()).collect();
    let runs = texts.iter().filter(|text| **text == "hello").count();
    assert!(runs >= 3, "{texts:?}");
    assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "between two runs there is a mark: {texts:?}");
    assert_eq!(texts.len() - runs, runs - usize::from(texts.last() == Some(&"hello")), "{texts:?}");
}

#[tokio::test]
async fn a_run_has_what_the_run_before_left_in_its_folder_and_nothing_else_of_it() {
    let mut machine = Machine::new();
    let script = fails_until(2);
    let work = machine.work_with(&["sh", "-c", &script], |spec| {
        spec.restart = RestartPolicy::OnFailure;
        spec.env = env(&[("A", "b")]);
    });
    machine.run(&work).await;
    assert_eq!(fs::read_to_string(work.folder.join("run/runs")).unwrap(), "x\nx\n");
}
