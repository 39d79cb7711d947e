use super::*;
use crate::{
    containers::{EngineId, RunsTask},
    ids::TaskId,
};
use serde_json::json;

fn container(state: ContainerState, is_ours: bool) -> Observed {
    let observed: Observed =
        serde_json::from_value(json!({ "engine_id": "a", "name": "web", "image": "web:1", "state": state })).unwrap();
    let runs = is_ours.then_some(RunsTask { task_id: TaskId(7), attempt: 1 });
    Observed { engine_id: EngineId::parse("a").unwrap(), runs, ..observed }
}

fn every_action() -> Vec<ContainerAction> {
    vec![
        ContainerAction::Start,
        ContainerAction::Stop { grace_seconds: None },
        ContainerAction::Restart { grace_seconds: Some(1) },
        ContainerAction::Pause,
        ContainerAction::Unpause,
        ContainerAction::Kill { signal: None },
        ContainerAction::Remove { kill: false, volumes: false },
        ContainerAction::Remove { kill: true, volumes: true },
    ]
}

fn code(result: Result<()>) -> Option<&'static str> {
    match result {
        Ok(()) => None,
        Err(Error::Conflict { code, .. }) => Some(code),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_was_not_started_here_is_left_alone_unless_somebody_insists() {
    for action in every_action() {
        let state = if action == ContainerAction::Start { ContainerState::Exited } else { ContainerState::Running };
        let refused = code(judge(&container(state, false), &action, Insistence::None));
        assert_eq!(refused, Some("container_foreign"), "{action:?}");
    }
    let stop = ContainerAction::Stop { grace_seconds: None };
    assert_eq!(code(judge(&container(ContainerState::Running, false), &stop, Insistence::Force)), None);
}

#[test]
fn a_container_of_a_task_goes_with_its_task() {
    for action in every_action() {
        for insistence in [Insistence::None, Insistence::Force] {
            let running = container(ContainerState::Running, true);
            let refusal = judge(&running, &action, insistence);
            let by_task = matches!(action, ContainerAction::Start | ContainerAction::Remove { .. });
            assert_eq!(code(refusal) == Some("container_of_task"), by_task, "{action:?}");
        }
    }
}

/// Which actions a state takes.
fn check(state: ContainerState, words: &[&str]) {
    let taken: Vec<String> = every_action()
        .into_iter()
        .filter(|action| judge(&container(state, false), action, Insistence::Force).is_ok())
        .map(|action| match action {
            ContainerAction::Remove { kill: true, .. } => "remove!".to_owned(),
            action => action.word().to_owned(),
        })
        .collect();
    assert_eq!(taken, words, "{state}");
}

#[test]
fn a_state_takes_what_makes_sense_in_it() {
    check(ContainerState::Created, &["start", "restart", "remove", "remove!"]);
    check(ContainerState::Running, &["stop", "restart", "pause", "kill", "remove!"]);
    check(ContainerState::Paused, &["stop", "restart", "unpause", "kill", "remove!"]);
    check(ContainerState::Restarting, &["stop", "restart", "kill", "remove!"]);
    check(ContainerState::Removing, &[]);
    check(ContainerState::Exited, &["start", "restart", "remove", "remove!"]);
    check(ContainerState::Dead, &["remove", "remove!"]);
    let all = ["start", "stop", "restart", "pause", "unpause", "kill", "remove", "remove!"];
    check(ContainerState::Unknown, &all);
}

#[test]
fn a_refusal_says_what_to_do() {
    let pause = judge(&container(ContainerState::Running, false), &ContainerAction::Pause, Insistence::None);
    assert!(pause.unwrap_err().to_string().contains("say \"force\": true to pause it"));
    let remove = ContainerAction::Remove { kill: false, volumes: false };
    let remove = judge(&container(ContainerState::Running, true), &remove, Insistence::Force);
    assert!(remove.unwrap_err().to_string().contains("POST /tasks/7/cancel"));
}
