use super::*;
use crate::{
    scheduling::{
        AttemptEnd, TaskSpec,
        fixtures::{cores, spec, task},
    },
    testing::START,
};
use chrono::TimeDelta;

/// What can be done to a task, and what it becomes.
#[derive(Debug, Clone, Copy)]
enum Action {
    Place,
    Start,
    Succeed,
    Fail,
    Cancel,
    Retry,
    Expire,
}

use Action::{Cancel, Expire, Fail, Place, Retry, Start, Succeed};
use TaskStatus::{Cancelled, Completed, Failed, Pending, Running, Scheduled, Unknown};

const ACTIONS: [Action; 7] = [Place, Start, Succeed, Fail, Cancel, Retry, Expire];

fn now() -> Timestamp {
    START + TimeDelta::minutes(1)
}

fn act(task: &Task, action: Action) -> Result<Task> {
    match action {
        Place => task.placed(ServerId(7), now()),
        Start => task.started(now()),
        Succeed => task.completed(Success::Yes, now()),
        Fail => task.completed(Success::No, now()),
        Cancel => task.cancelled(now()),
        Retry => task.retried(now()),
        Expire => task.expired(now()),
    }
}

/// A task of two attempts in its first, in any status.
fn in_status(status: TaskStatus, spec: TaskSpec) -> Task {
    let spec = TaskSpec { max_attempts: 2, ..spec };
    let attempt = u32::from(status != Pending);
    let at = (status != Pending).then_some(START);
    let server_id = at.map(|_| ServerId(5));
    Task { status, attempt, server_id, scheduled_at: at, started_at: at, ..task(7, spec) }
}

/// What each action makes of a task in this status; `None` where it is refused.
#[track_caller]
fn check(status: TaskStatus, expected: [Option<TaskStatus>; 7]) {
    for (action, expected) in ACTIONS.into_iter().zip(expected) {
        let deadline = matches!(action, Expire).then_some(now());
        let before = in_status(status, TaskSpec { deadline, ..spec(cores(1)) });
        match act(&before, action) {
            Ok(after) => {
                assert_eq!(Some(after.status), expected, "{action:?} of a {status} task");
                assert_eq!((after.revision, after.updated_at, after.created_at), (2, now(), START));
            }
            Err(Error::Conflict { code, reason }) => {
                assert_eq!(expected, None, "{action:?} of a {status} task is refused: {reason}");
                assert_eq!(code, "illegal_transition");
                assert!(reason.starts_with(&format!("task 7 is {status}; ")), "{reason}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn every_action_is_allowed_in_some_states_and_refused_in_the_others() {
    // In the order of the actions: place, start, succeed, fail, cancel, retry, expire.
    check(Pending, [Some(Scheduled), None, None, None, Some(Cancelled), None, Some(Failed)]);
    check(Scheduled, [None, Some(Running), None, None, Some(Cancelled), None, None]);
    check(Running, [None, None, Some(Completed), Some(Pending), Some(Cancelled), None, None]);
    check(Completed, [None, None, None, None, None, None, None]);
    check(Failed, [None, None, None, None, None, Some(Pending), None]);
    check(Cancelled, [None, None, None, None, None, Some(Pending), None]);
    check(Unknown, [None, None, None, None, Some(Cancelled), None, None]);
}

#[test]
fn a_failed_attempt_is_followed_by_another_until_there_were_enough() {
    let new = task(7, TaskSpec { max_attempts: 2, ..spec(cores(1)) });
    let fail = |task: &Task, server: i64| {
        let running = task.placed(ServerId(server), now()).unwrap().started(now()).unwrap();
        assert_eq!((running.scheduled_at, running.started_at), (Some(now()), Some(now())));
        running.completed(Success::No, now()).unwrap()
    };
    let first = fail(&new, 1);
    assert_eq!((first.status, first.attempt, first.server_id), (Pending, 1, Some(ServerId(1))));
    assert_eq!((first.scheduled_at, first.started_at, first.finished_at), (None, None, None));
    assert_eq!(first.reason.as_deref(), Some("attempt_failed"));
    let second = fail(&first, 2);
    assert_eq!((second.status, second.attempt, second.server_id), (Failed, 2, Some(ServerId(2))));
    assert_eq!(second.finished_at, Some(now()));
    assert_eq!(second.detail.as_deref(), Some("attempt 2 failed; the task may have 2"));
    let third = fail(&second.retried(now()).unwrap(), 3);
    assert_eq!((third.status, third.attempt), (Failed, 3), "a retry is one attempt more");
}

#[test]
fn what_an_agent_runs_is_not_started_or_completed_by_hand() {
    for driver in [TaskDriver::Docker, TaskDriver::Exec] {
        for (status, action) in [(Scheduled, Start), (Running, Succeed), (Running, Fail), (Pending, Start)] {
            let refused = act(&in_status(status, TaskSpec { driver, ..spec(cores(1)) }), action);
            assert!(matches!(refused, Err(Error::Conflict { code: "driven_by_agent", .. })), "{refused:?}");
        }
        assert!(in_status(Running, TaskSpec { driver, ..spec(cores(1)) }).cancelled(now()).is_ok());
    }
}

#[test]
fn a_task_does_not_outlive_its_deadline() {
    let at = |deadline| TaskSpec { deadline: Some(deadline), ..spec(cores(1)) };
    let expired = task(7, at(now())).expired(now()).unwrap();
    assert_eq!(expired.reason.as_deref(), Some("deadline_passed"));
    assert_eq!(expired.finished_at, Some(now()));
    assert!(task(7, at(now() + TimeDelta::microseconds(1))).expired(now()).is_err());
    assert!(task(7, spec(cores(1))).expired(now()).is_err());
    let Err(Error::Conflict { code, reason }) = expired.retried(now()) else { panic!("it would expire again") };
    assert_eq!(code, "deadline_passed");
    assert_eq!(reason, "task 7 had to start by 1970-01-01T00:01:00Z; post it again with a later deadline");
}

#[test]
fn a_new_start_leaves_nothing_of_the_old_end() {
    let barred = crate::fleet::Architecture::Arm64.into();
    let cancelled = Task { barred, ..in_status(Running, spec(cores(1))) }.cancelled(now()).unwrap();
    assert_eq!(cancelled.barred, barred, "it is known as long as nobody has it tried again");
    assert_eq!((cancelled.reason.as_deref(), cancelled.finished_at), (Some("cancelled"), Some(now())));
    let again = cancelled.retried(now()).unwrap();
    assert_eq!((again.reason, again.detail, again.finished_at, again.started_at), (None, None, None, None));
    assert_eq!((again.server_id, again.attempt, again.barred), (Some(ServerId(5)), 1, ArchitectureSet::default()));
}

#[test]
fn an_attempt_holds_its_demand_until_it_ends() {
    assert_eq!(Attempt::opened(&in_status(Pending, spec(cores(2))), now()), None);
    let placed = task(7, spec(cores(2))).placed(ServerId(3), now()).unwrap();
    let opened = Attempt::opened(&placed, now()).unwrap();
    assert_eq!((opened.number, opened.server_id, opened.demand), (1, ServerId(3), cores(2)));
    let end = AttemptStep::End(AttemptEnd::by_hand(AttemptStatus::Cancelled, Some("cancelled")));
    let lost = opened.stepped(&AttemptStep::Start, now()).stepped(&AttemptStep::Lose, now());
    assert!(lost.held && lost.status == AttemptStatus::Unknown);
    let ended = lost.stepped(&AttemptStep::AskEnd, now()).stepped(&end, now());
    assert_eq!(ended.stepped(&AttemptStep::Start, now()), ended, "what has ended has ended");
    assert!(opened.held && !ended.held);
    assert_eq!((ended.started_at, ended.finished_at), (Some(now()), Some(now())));
    assert_eq!(ended.reason.as_deref(), Some("cancelled"));
}
