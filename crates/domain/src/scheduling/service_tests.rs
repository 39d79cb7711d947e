use super::*;
use crate::{
    containers::{MockEngines, MockRegistries},
    feed::{Fact, Follower, State},
    fleet::Server,
    identity::{Role, Room, Scopes},
    scheduling::{
        Engine, MockTasks,
        fixtures::{cores, server, spec, task},
    },
    testing::{START, TestClock, alice, once},
};
use chrono::TimeDelta;
use std::sync::Mutex;

#[path = "service_dispatch_tests.rs"]
mod dispatching;
#[path = "service_image_tests.rs"]
mod images;
#[path = "service_plan_tests.rs"]
mod planning;

const ID: TaskId = TaskId(7);
const SERVER: ServerId = ServerId(1);

/// A desk that knows one server of so many cores, and these tasks.
fn desk(capacity: i64, tasks: &[Task]) -> Arc<Desk> {
    let desk = Desk::new(Engine::default(), Box::new(|| {}));
    let pending = tasks.iter().cloned().map(Arc::new).collect();
    desk.reset(&State {
        servers: vec![Arc::new(server(SERVER.0, cores(capacity)))],
        pools: Vec::new(),
        pending,
        operations: Vec::new(),
    });
    Arc::new(desk)
}

fn service_of(tasks: Arc<dyn Tasks>, desk: &Arc<Desk>) -> TaskService {
    service_asking(MockRegistries::new(), tasks, desk)
}

/// A service that asks this registry about images.
fn service_asking(registries: MockRegistries, tasks: Arc<dyn Tasks>, desk: &Arc<Desk>) -> TaskService {
    let images = Arc::new(ImageService::new(Arc::new(registries), Arc::new(MockEngines::new())));
    let (clock, seal) = (TestClock::start(), Seal::new(&[7; 32]));
    TaskService::new(TaskPorts { tasks, desk: desk.clone(), images, clock, seal })
}

/// A service over this mock, where no key was used before.
fn service(mut mock: MockTasks, desk: &Arc<Desk>) -> TaskService {
    mock.expect_answered().returning(|_, _| Ok(None));
    service_of(Arc::new(mock), desk)
}

/// A service whose database fails the test at the first call.
fn idle() -> TaskService {
    service_of(Arc::new(MockTasks::new()), &desk(4, &[]))
}

/// A mock with nothing to catch up with, and this task.
fn stored(task: &Task) -> MockTasks {
    let (mut mock, task) = (MockTasks::new(), task.clone());
    mock.expect_catch_up().returning(|| Ok(()));
    mock.expect_get().returning(move |id| {
        assert_eq!(id, task.id);
        Ok(task.clone())
    });
    mock
}

fn operator() -> Actor {
    alice(Role::Operator)
}

fn stale() -> Error {
    Error::Stale { what: "task 7".to_owned(), current: 99 }
}

fn free(desk: &Desk) -> i64 {
    desk.with(|engine| engine.fleet().free(SERVER)).unwrap().cpu_millis
}

/// How many tasks wait, and how many are decided about.
fn counts(desk: &Desk) -> (usize, usize) {
    desk.with(|engine| (engine.waiting_count(), engine.claim_count()))
}

fn pending() -> Task {
    task(ID.0, TaskSpec { max_attempts: 2, ..spec(cores(1)) })
}

fn in_status(status: TaskStatus) -> Task {
    let scheduled = pending().placed(SERVER, START).unwrap();
    let running = || scheduled.started(START).unwrap();
    match status {
        TaskStatus::Pending => pending(),
        TaskStatus::Scheduled => scheduled,
        TaskStatus::Running => running(),
        TaskStatus::Completed => running().completed(Success::Yes, START).unwrap(),
        TaskStatus::Cancelled => scheduled.cancelled(START).unwrap(),
        TaskStatus::Failed | TaskStatus::Unknown => Task { status, ..running() },
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Start,
    Succeed,
    Fail,
    Cancel,
    Retry,
}

async fn act(tasks: &TaskService, actor: &Actor, act: Act, once: Option<Once>) -> Result<Done<Task>> {
    match act {
        Act::Start => tasks.task_start(actor, ID, once).await,
        Act::Succeed => tasks.task_complete(actor, ID, Success::Yes, once).await,
        Act::Fail => tasks.task_complete(actor, ID, Success::No, once).await,
        Act::Cancel => tasks.task_cancel(actor, ID, once).await,
        Act::Retry => tasks.task_retry(actor, ID, once).await,
    }
}

const ACTS: [Act; 5] = [Act::Start, Act::Succeed, Act::Fail, Act::Cancel, Act::Retry];

#[tokio::test]
async fn who_may_not_change_tasks_changes_nothing() {
    let fleet_only = Actor { scopes: Scopes::only([Room::Fleet]), ..operator() };
    let tasks = idle();
    for actor in [alice(Role::Viewer), alice(Role::Approver), fleet_only] {
        let mut outcomes = vec![
            tasks.task_create(&actor, spec(cores(1)), None, None).await.err(),
            tasks.task_create(&actor, spec(cores(1)), Some("token"), Some(once())).await.err(),
            tasks.task_dispatch(&actor, ID, None, None).await.err(),
            tasks.task_delete(&actor, ID, None).await.err(),
            tasks.ledger_mend(&actor, None).await.err(),
        ];
        for each in ACTS {
            outcomes.push(act(&tasks, &actor, each, None).await.err());
        }
        for outcome in outcomes {
            assert!(matches!(outcome, Some(Error::Forbidden { .. })), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn who_may_not_see_tasks_reads_nothing() {
    let (tasks, actor) = (idle(), Actor { scopes: Scopes::only([Room::Fleet]), ..alice(Role::Admin) });
    let outcomes = [
        tasks.task_dry_run(&actor, spec(cores(1))).await.err(),
        tasks.task_list(&actor, TaskFilter::default(), PageRequest::default()).await.err(),
        tasks.task_get(&actor, ID).await.err(),
        tasks.task_plan(&actor, ID).await.err(),
        tasks.task_attempt_list(&actor, ID).await.err(),
        tasks.ledger_check(&actor).await.err(),
    ];
    for outcome in outcomes {
        assert!(matches!(outcome, Some(Error::Forbidden { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_task_that_is_posted_carries_its_entry_and_its_key() {
    let mut mock = MockTasks::new();
    mock.expect_create().times(1).returning(|new, change| {
        let entry = &change.entry;
        assert_eq!((entry.action.as_str(), entry.actor.as_str()), ("task.create", "user:alice"));
        assert_eq!((entry.request_id.as_deref(), entry.created_at), (Some("r-1"), START));
        assert_eq!(change.once, Some(once()));
        Ok(Done { value: new.into_task(ID, entry.created_at), replayed: true })
    });
    let tasks = service(mock, &desk(4, &[]));
    let done = tasks.task_create(&operator(), spec(cores(1)), None, Some(once())).await.unwrap();
    assert_eq!((done.value, done.replayed), (task(ID.0, spec(cores(1))), true));
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_refused() {
    let due = |seconds| TaskSpec { deadline: Some(START + TimeDelta::seconds(seconds)), ..spec(cores(1)) };
    let tasks = idle();
    for seconds in [-1, 0] {
        let refusals = [
            tasks.task_create(&operator(), due(seconds), None, None).await.err(),
            tasks.task_create(&operator(), due(seconds), Some("token"), None).await.err(),
            tasks.task_dry_run(&operator(), due(seconds)).await.err(),
        ];
        for refused in refusals {
            let Some(Error::Invalid { errors }) = refused else { panic!("{refused:?}") };
            assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["deadline"]);
        }
    }
    let mut mock = MockTasks::new();
    mock.expect_create().times(1).returning(|new, _| Ok(Done { value: new.into_task(ID, START), replayed: false }));
    service(mock, &desk(4, &[])).task_create(&operator(), due(1), None, None).await.unwrap();
}

/// Does something to a task in this status, and fails unless this becomes of its attempt, or else unless it is refused
/// and nothing is written.
async fn check_step(status: TaskStatus, what: Act, expected: Option<AttemptStep>) {
    let before = in_status(status);
    let (mut mock, position) = (stored(&before), before.position());
    let step = expected.clone();
    mock.expect_update().times(usize::from(expected.is_some())).returning(move |task, found, change| {
        assert_eq!(Some(found), step, "{status} {what:?}");
        let entry = change.entry;
        assert_eq!((entry.before, entry.after), (Some(position.clone()), Some(task.position())));
        assert_eq!((entry.target.as_deref(), entry.actor.as_str()), (Some("task:7"), "user:alice"));
        assert_eq!(change.once, Some(once()));
        Ok(Done { value: task, replayed: true })
    });
    let outcome = act(&service(mock, &desk(4, &[])), &operator(), what, Some(once())).await;
    match outcome {
        Ok(done) => assert!(expected.is_some() && done.replayed && done.value.revision == before.revision + 1),
        Err(Error::Conflict { code: "illegal_transition", .. }) => assert_eq!(expected, None, "{status} {what:?}"),
        Err(error) => panic!("{status} {what:?}: {error:?}"),
    }
}

#[tokio::test]
async fn each_change_says_what_becomes_of_the_attempt_or_writes_nothing() {
    use TaskStatus::{Cancelled, Completed, Failed, Pending, Running, Scheduled, Unknown};
    let ends = |status, reason| Some(AttemptStep::End(AttemptEnd::by_hand(status, reason)));
    let (start, keep) = (Some(AttemptStep::Start), Some(AttemptStep::Keep));
    let succeed = ends(AttemptStatus::Completed, None);
    let fail = ends(AttemptStatus::Failed, Some("attempt_failed"));
    let cancel = ends(AttemptStatus::Cancelled, Some("cancelled"));
    let none = || None::<AttemptStep>;
    let table = [
        (Pending, [none(), none(), none(), keep.clone(), none()]),
        (Scheduled, [start, none(), none(), cancel.clone(), none()]),
        (Running, [none(), succeed, fail, cancel.clone(), none()]),
        (Unknown, [none(), none(), none(), cancel, none()]),
        (Completed, [none(), none(), none(), none(), none()]),
        (Failed, [none(), none(), none(), none(), keep.clone()]),
        (Cancelled, [none(), none(), none(), none(), keep]),
    ];
    for (status, steps) in table {
        for (what, expected) in ACTS.into_iter().zip(steps) {
            check_step(status, what, expected).await;
        }
    }
}

#[tokio::test]
async fn a_stale_update_is_computed_again_from_the_newest_state() {
    let mut mock = MockTasks::new();
    // Meanwhile it is placed, so that its attempt is to be ended too.
    let states = [pending(), in_status(TaskStatus::Scheduled), in_status(TaskStatus::Running)];
    let mut reads = states.clone().into_iter();
    mock.expect_get().times(3).returning(move |_| Ok(reads.next().unwrap()));
    let steps = Arc::new(Mutex::new(Vec::new()));
    let kept = steps.clone();
    mock.expect_update().times(3).returning(move |task, step, change| {
        let mut kept = kept.lock().unwrap();
        assert_eq!(task, states[kept.len()].cancelled(START).unwrap());
        assert_eq!(change.entry.before, Some(states[kept.len()].position()));
        assert_eq!(change.once, Some(once()));
        kept.push(step != AttemptStep::Keep);
        if kept.len() < 3 { Err(stale()) } else { Ok(Done { value: task, replayed: false }) }
    });
    let tasks = service(mock, &desk(4, &[]));
    let done = tasks.task_cancel(&operator(), ID, Some(once())).await.unwrap();
    assert_eq!((done.value.status, done.value.revision), (TaskStatus::Cancelled, 4));
    assert_eq!(*steps.lock().unwrap(), [false, true, true]);
}

#[tokio::test]
async fn a_change_gives_up_when_others_are_always_faster() {
    let mut mock = stored(&pending());
    mock.expect_update().times(TRIES).returning(|_, _, _| Err(stale()));
    let outcome = service(mock, &desk(4, &[])).task_cancel(&operator(), ID, None).await;
    assert!(matches!(outcome, Err(Error::Conflict { code: "busy", .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_change_that_fails_otherwise_is_not_tried_again() {
    let mut mock = stored(&pending());
    mock.expect_update().times(1).returning(|_, _, _| Err(Error::not_found("task", ID)));
    let outcome = service(mock, &desk(4, &[])).task_cancel(&operator(), ID, None).await;
    assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_task_that_an_agent_drives_is_not_started_or_completed_by_hand() {
    let driven = |task: Task| {
        let spec = TaskSpec { driver: crate::scheduling::TaskDriver::Exec, ..(*task.spec).clone() };
        Task { spec: Arc::new(spec), ..task }
    };
    for (status, what) in
        [(TaskStatus::Scheduled, Act::Start), (TaskStatus::Running, Act::Succeed), (TaskStatus::Running, Act::Fail)]
    {
        let tasks = service(stored(&driven(in_status(status))), &desk(4, &[]));
        let outcome = act(&tasks, &operator(), what, None).await;
        assert!(matches!(outcome, Err(Error::Conflict { code: "driven_by_agent", .. })), "{what:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_task_is_deleted_at_the_revision_that_was_seen() {
    let ended = in_status(TaskStatus::Cancelled);
    let refused = service(stored(&ended), &desk(4, &[])).task_delete(&operator(), ID, Some(1)).await;
    assert!(matches!(refused, Err(Error::Stale { current: 3, .. })), "{refused:?}");
    for seen in [None, Some(3)] {
        let (mut mock, expected) = (stored(&ended), ended.clone());
        mock.expect_delete().times(1).returning(move |task, change| {
            assert_eq!(task, expected);
            assert_eq!((change.entry.action.as_str(), change.entry.target.as_deref()), ("task.delete", Some("task:7")));
            assert_eq!(change.entry.before, Some(serde_json::to_value(&task).unwrap()));
            Ok(Done { value: (), replayed: false })
        });
        service(mock, &desk(4, &[])).task_delete(&operator(), ID, seen).await.unwrap();
    }
}

#[tokio::test]
async fn the_ledger_is_mended_under_the_name_and_key_of_who_asked() {
    let mut mock = MockTasks::new();
    mock.expect_ledger_mend().times(1).returning(|change| {
        assert_eq!((change.entry.action.as_str(), change.entry.actor.as_str()), ("ledger.mend", "user:alice"));
        assert_eq!(change.once, Some(once()));
        Ok(Done { value: vec![], replayed: false })
    });
    mock.expect_ledger_check().times(1).returning(|| Ok(vec![]));
    let tasks = service(mock, &desk(4, &[]));
    tasks.ledger_mend(&operator(), Some(once())).await.unwrap();
    tasks.ledger_check(&alice(Role::Viewer)).await.unwrap();
}
