use super::*;
use bollard::models::ContainerConfig;
use std::{collections::HashMap, sync::Arc};

const INSPECTED: &str = r#"{
  "Id": "0a1253b11755",
  "State": {"Status": "running", "Running": true, "Paused": false, "Restarting": false, "OOMKilled": false,
    "Dead": false, "Pid": 13168, "ExitCode": 0, "Error": "",
    "StartedAt": "2026-11-25T09:43:29.944063424Z", "FinishedAt": "2026-11-25T09:43:29.422179413Z"},
  "Config": {"Labels": {"org.starlink.installation": "0a1b", "org.starlink.task": "7", "org.starlink.attempt": "1"}}
}"#;

fn identity() -> Identity {
    Identity { installation: Arc::from("0a1b"), task: 7, attempt: 1 }
}

#[test]
fn what_the_engine_says_is_read() {
    let seen = Seen::read(serde_json::from_str(INSPECTED).unwrap(), &identity()).unwrap();
    assert_eq!((seen.id.as_str(), seen.phase, seen.ran_before()), ("0a1253b11755", Phase::Running, true));
    assert_eq!(seen.started_at.unwrap().to_rfc3339(), "2026-11-25T09:43:29.944063424+00:00");
}

#[test]
fn a_container_with_other_labels_is_not_ours() {
    for other in [
        Identity { installation: Arc::from("0a1c"), ..identity() },
        Identity { task: 8, ..identity() },
        Identity { attempt: 2, ..identity() },
    ] {
        assert_eq!(Seen::read(serde_json::from_str(INSPECTED).unwrap(), &other), None);
    }
    assert_eq!(Seen::read(ContainerInspectResponse::default(), &identity()), None);
}

fn seen(status: Status, code: i64, change: impl FnOnce(&mut ContainerState)) -> Seen {
    let mut state = ContainerState { status: Some(status), exit_code: Some(code), ..ContainerState::default() };
    state.started_at = Some("2026-11-25T09:00:00Z".to_owned());
    state.finished_at = Some("0001-01-01T00:00:00Z".to_owned());
    change(&mut state);
    let labels: HashMap<String, String> = identity().labels();
    let config = ContainerConfig { labels: Some(labels), ..ContainerConfig::default() };
    let container =
        ContainerInspectResponse { state: Some(state), config: Some(config), ..ContainerInspectResponse::default() };
    Seen::read(container, &identity()).unwrap()
}

#[test]
fn phases_follow_the_engines_words() {
    for (status, phase) in [
        (Status::CREATED, Phase::Created),
        (Status::RUNNING, Phase::Running),
        (Status::PAUSED, Phase::Running),
        (Status::RESTARTING, Phase::Between),
        (Status::REMOVING, Phase::Removing),
        (Status::EXITED, Phase::Ended),
        (Status::DEAD, Phase::Ended),
        (Status::EMPTY, Phase::Ended),
    ] {
        assert_eq!(seen(status, 0, |_| {}).phase, phase, "{status}");
    }
    assert_eq!(seen(Status::EMPTY, 0, |state| state.running = Some(true)).phase, Phase::Running);
    assert!(!seen(Status::RUNNING, 0, |_| {}).ran_before(), "Go's zero is no time");
}

fn check(seen: &Seen, signal: Option<i64>, reason: Option<&str>) {
    let exit = seen.exit(64);
    assert_eq!(exit.signal, signal, "{seen:?}");
    assert_eq!(exit.failure.as_ref().map(|failure| failure.reason), reason, "{seen:?}");
}

#[test]
fn ends_are_read_from_code_memory_and_error() {
    check(&seen(Status::EXITED, 0, |_| {}), None, None);
    check(&seen(Status::EXITED, 3, |_| {}), None, None);
    check(&seen(Status::EXITED, 137, |_| {}), Some(9), None);
    check(&seen(Status::EXITED, 143, |_| {}), Some(15), None);
    check(&seen(Status::EXITED, 139, |_| {}), Some(11), None);
    check(&seen(Status::EXITED, 128, |_| {}), None, None);
    check(&seen(Status::EXITED, 255, |_| {}), None, None);
    check(&seen(Status::EXITED, 145, |_| {}), None, None);
    check(&seen(Status::EXITED, 137, |state| state.oom_killed = Some(true)), Some(9), Some("out_of_memory"));
    check(&seen(Status::EXITED, 1, |state| state.oom_killed = Some(true)), None, Some("out_of_memory"));
    check(&seen(Status::EXITED, 0, |state| state.oom_killed = Some(true)), None, None);
    let error = |text: &str| seen(Status::EXITED, 128, |state| state.error = Some(text.to_owned()));
    check(&error("driver failed: port is already allocated"), None, Some("start_failed"));
    check(&error("OCI runtime create failed: exec format error"), None, Some("exec_format"));
}

#[test]
fn last_words_tell_a_program_that_never_began() {
    let reason = |words: &str| never_began(words).map(|failure| failure.reason);
    assert_eq!(reason("[FATAL tini (7)] exec /bin/x failed: Exec format error\n"), Some("exec_format"));
    assert_eq!(reason("standard_init_linux.go:228: exec user process caused: exec format error"), Some("exec_format"));
    assert_eq!(reason("[FATAL tini (7)] exec /bin/x failed: No such file or directory\n"), Some("start_failed"));
    assert_eq!(reason("ERROR (catatonit:2): failed to exec pid1: No such file or directory"), Some("start_failed"));
    assert_eq!(reason("ls: x: No such file or directory\n"), None);
    assert_eq!(reason(""), None);
    assert_eq!(
        never_began("starting\n[FATAL tini (7)] exec /nosuch failed: Permission denied\n").unwrap().detail,
        "[FATAL tini (7)] exec /nosuch failed: Permission denied"
    );
}
