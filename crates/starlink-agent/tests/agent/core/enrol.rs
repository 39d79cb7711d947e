//! Joining, and who may run on what state.

use super::{
    rig::{Rig, run, state},
    server::{Act, TOKEN, When},
};
use domain::fleet::protocol::Ending;
use starlink_agent::{
    agent::{Agent, Options, StartError},
    session::Stopped,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_machine_joins_once_and_keeps_its_token_to_itself() {
    let rig = Rig::new().await;
    rig.server.order(1, run(11, "quick"));
    let agent = rig.joining(Rig::good_token()).await.unwrap();
    assert_eq!(rig.server.ended(1).await.ending, Ending::Completed);
    agent.stop().await;
    assert_eq!(mode(&rig.path), 0o700);
    for name in ["token", "server.json", "journal", "lock"] {
        assert_eq!(mode(&rig.path.join(name)), 0o600, "{name}");
    }
    assert_eq!(fs::read_to_string(rig.path.join("token")).unwrap().trim(), TOKEN);
    // A second start needs no join token, and uses none.
    let agent = rig.joining(Rig::good_token()).await.unwrap();
    rig.server.until("a second session", |state| state.sessions.len() == 2).await;
    agent.stop().await;
    let agent = rig.agent().await;
    rig.server.until("a third session", |state| state.sessions.len() == 3).await;
    agent.stop().await;
    let state = rig.server.state();
    let [joined] = state.enrolled.as_slice() else { panic!("{:?}", state.enrolled) };
    assert_eq!((joined.name.as_str(), joined.protocols.as_slice()), ("edge-1", [1].as_slice()));
    assert!(state.sessions.iter().all(|session| session.place == joined.place), "{:?}", state.sessions);
    assert_ne!(state.sessions[0].session, state.sessions[1].session);
}

#[tokio::test]
async fn joining_goes_on_until_the_server_answers() {
    let mut rig = Rig::new().await;
    rig.server.down().await;
    let agent = rig.joining(Rig::good_token()).await.unwrap();
    rig.server.up().await;
    let calls = AtomicUsize::new(0);
    rig.server.hook(move |_, when| match (calls.fetch_add(1, Ordering::Relaxed), when) {
        // The third one is handled, and its answer is lost.
        (0 | 1, When::BeforeHandling) | (3, When::AfterHandling) => Act::Drop,
        _ => Act::Go,
    });
    rig.server.connected().await;
    agent.stop().await;
    let state = rig.server.state();
    assert_eq!(state.enrolled.len(), 2);
    assert_eq!(state.enrolled[0].place, state.enrolled[1].place, "so that the server can tell that it is the same");
}

#[tokio::test]
async fn a_join_token_that_is_refused_ends_the_agent() {
    let rig = Rig::new().await;
    let mut agent = rig.joining("slj_another").await.unwrap();
    let stopped = agent.ended().await;
    assert!(matches!(stopped, Stopped::JoinRefused(_)), "{stopped:?}");
    assert!(!stopped.to_string().contains("slj_another"));
    drop(agent);
    let refusal = Agent::start(rig.options(&rig.path).await).err().unwrap();
    assert!(matches!(refusal, StartError::NotJoined) && refusal.to_string().contains("starlink-agent join"));
}

#[tokio::test]
async fn a_token_that_is_refused_ends_the_agent_and_what_runs_goes_on() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let mut agent = rig.agent().await;
    rig.server.running(1).await;
    rig.server.change(|state| {
        state.token = "sla_another".to_owned();
        state.session = None;
    });
    let stopped = agent.ended().await;
    assert!(matches!(&stopped, Stopped::TokenRefused(_)) && stopped.to_string().contains("starlink-agent join"));
    drop(agent);
    assert!(!rig.machine.is_empty());
    // With a join token it becomes a new server.
    let agent = rig.joining(Rig::good_token()).await.unwrap();
    rig.server.connected().await;
    agent.stop().await;
    assert_eq!(fs::read_to_string(rig.path.join("token")).unwrap().trim(), "sla_another");
    let state = rig.server.state();
    assert_eq!(state.sessions.last().unwrap().place, state.enrolled[0].place);
    assert_ne!(state.sessions[0].place, state.enrolled[0].place);
}

#[tokio::test]
async fn a_copy_is_in_another_place_and_does_nothing_while_the_other_lives() {
    let rig = Rig::joined().await;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    let copy = rig.path.with_file_name("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["token", "server.json", "journal"] {
        fs::copy(rig.path.join(name), copy.join(name)).unwrap();
    }
    let calls = AtomicUsize::new(0);
    rig.server.hook(move |request, when| {
        let refused = request.path == "/agent/session" && when == When::BeforeHandling;
        if refused && calls.fetch_add(1, Ordering::Relaxed) < 5 {
            return Act::Answer(super::http::Response::problem(409, "agent_already_running"));
        }
        Act::Go
    });
    let steps = rig.machine.table().steps.len();
    let second = Agent::start(rig.options(&copy).await).unwrap();
    rig.server
        .until("it asks again", |state| state.calls.iter().filter(|call| call.contains("session")).count() > 4)
        .await;
    let table = rig.machine.table().steps.split_off(steps);
    assert!(table.iter().all(|step| step == "find"), "only the first one looks for orphans: {table:?}");
    agent.stop().await;
    rig.server.until("it takes over", |state| state.sessions.len() == 2).await;
    second.stop().await;
    let state = rig.server.state();
    assert_ne!(state.sessions[0].place, state.sessions[1].place);
}

#[tokio::test]
async fn a_server_that_is_another_installation_gets_nothing() {
    let rig = Rig::joined().await;
    let agent = rig.agent().await;
    rig.server.connected().await;
    agent.stop().await;
    rig.server.change(|state| state.installation = "ffff".to_owned());
    let mut agent = rig.agent().await;
    let stopped = agent.ended().await;
    assert!(matches!(stopped, Stopped::OtherInstallation { .. }), "{stopped:?}");
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_is_said() {
    let rig = Rig::joined().await;
    rig.server.hook(|request, _| match request.path.as_str() {
        "/agent/session" => Act::Answer(super::http::Response::problem(409, "protocol_unsupported")),
        _ => Act::Go,
    });
    let mut agent = rig.agent().await;
    let stopped = agent.ended().await;
    assert!(matches!(&stopped, Stopped::Unsupported(_)) && stopped.to_string().contains("speaks [1]"), "{stopped}");
}

#[tokio::test]
async fn one_agent_at_a_time_uses_a_state_directory() {
    let rig = Rig::joined().await;
    let agent = rig.agent().await;
    rig.server.connected().await;
    assert!(starlink_agent::state::StateDir::open(&rig.path).is_err());
    agent.stop().await;
    drop(state(&rig.path).await);
}

#[tokio::test]
async fn half_a_state_directory_is_told() {
    let rig = Rig::joined().await;
    fs::remove_file(rig.path.join("server.json")).unwrap();
    let Options { .. } = rig.options(&rig.path).await;
    let refusal = Agent::start(rig.options(&rig.path).await).err().unwrap();
    assert!(refusal.to_string().contains("server.json"), "{refusal}");
}
