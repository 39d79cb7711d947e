//! The program as its users see it.

use super::{
    rig::Rig,
    server::{FakeServer, JOIN_TOKEN, TOKEN},
};
use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::timeout,
};

/// What a program said until it ended, and its exit code.
async fn said(mut child: Child) -> (i32, String) {
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = async { tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err), child.wait()) };
    let (_, _, status) = timeout(Duration::from_secs(10), read).await.unwrap();
    (status.unwrap().code().unwrap_or(-1), format!("{out}{err}"))
}

fn command(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starlink-agent"));
    let (what, rest) = arguments.split_first().unwrap();
    command.arg(what).arg("--state-dir").arg(state).args(rest);
    // Whatever engine this machine has is none of a test's business.
    command.args(["--docker-socket", "/nonexistent/docker.sock"]).env_remove("STARLINK_JOIN_TOKEN");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn start(state: &Path, arguments: &[&str]) -> Child {
    command(state, arguments).spawn().unwrap()
}

fn terminate(child: &Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
}

#[tokio::test]
async fn it_joins_stops_when_told_and_needs_nothing_but_its_state_to_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let server = FakeServer::start().await;
    let mut joining = command(&state, &["join", "--server", &server.url(), "--name", "edge-9"]);
    let child = joining.env("STARLINK_JOIN_TOKEN", JOIN_TOKEN).spawn().unwrap();
    server.connected().await;
    let second = start(&state, &["run"]);
    let (code, text) = said(second).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("is in use by process"), "{text}");
    let began = Instant::now();
    terminate(&child);
    let (code, text) = said(child).await;
    assert_eq!(code, 0, "{text}");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(text.contains("as server 7 \"edge-1\"") && !text.contains(TOKEN) && !text.contains(JOIN_TOKEN), "{text}");
    server.change(|state| state.calls.clear());
    let child = start(&state, &["run"]);
    server.connected().await;
    terminate(&child);
    assert_eq!(said(child).await.0, 0);
    let state = server.state();
    assert_eq!((state.enrolled.len(), state.sessions.len()), (1, 2));
    assert_eq!(state.enrolled[0].name.as_str(), "edge-9");
}

#[tokio::test]
async fn what_cannot_work_is_said_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::start().await;
    let check = async |arguments: &[&str], wanted: &str| {
        let (code, text) = said(start(&directory.path().join("state"), arguments)).await;
        assert!(code == 2 && text.contains(wanted), "{arguments:?}: {code} {text}");
        assert!(!text.contains("slj_wrong"), "{text}");
    };
    check(&["run"], "--server URL").await;
    check(&["run", "--server", "https://a.example"], "starlink-agent join").await;
    check(&["join", "--server", "http://192.0.2.1:8000", "--token", "slj_wrong"], "--insecure-http").await;
    check(&["join", "--server", "nonsense", "--token", "slj_wrong"], "https://starlink.example.org").await;
    check(&["join", "--server", &server.url(), "--token", "slj_wrong"], "does not let this machine join").await;
    check(&["join", "--server", "https://a.example", "--ca", "/nonexistent", "--token", "slj_wrong"], "--ca").await;
    check(&["run", "--log-level", "verbose"], "is not a level").await;
    check(&["run", "--nonsense"], "--nonsense").await;
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_and_that_is_said() {
    let mut rig = Rig::joined().await;
    let url = rig.server.url();
    rig.server.down().await;
    let child = start(&rig.path, &["run", "--server", &url]);
    // It says so within a moment; it is not told otherwise that it does.
    let mut child = child;
    let mut stdout = child.stdout.take().unwrap();
    let mut text = String::new();
    while !text.contains("no contact with the server") {
        let mut buffer = [0; 1024];
        let length = timeout(Duration::from_secs(10), stdout.read(&mut buffer)).await.unwrap().unwrap();
        assert!(length > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(text.contains(&url) && text.contains("refused"), "{text}");
    rig.server.up().await;
    rig.server.connected().await;
    terminate(&child);
    let status = timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}
