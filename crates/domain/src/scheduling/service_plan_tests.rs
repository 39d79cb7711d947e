//! Looking where a task would go, and posting it there.

use super::*;

/// A mock with nothing to catch up with.
fn current() -> MockTasks {
    let mut mock = MockTasks::new();
    mock.expect_catch_up().returning(|| Ok(()));
    mock
}

async fn token(desk: &Arc<Desk>, spec: &TaskSpec) -> String {
    service(current(), desk).task_dry_run(&alice(Role::Viewer), spec.clone()).await.unwrap().plan_token
}

async fn post(mock: MockTasks, desk: &Arc<Desk>, spec: TaskSpec, token: &str) -> Result<Done<Task>> {
    service(mock, desk).task_create(&operator(), spec, Some(token), Some(once())).await
}

#[track_caller]
fn check_stale(outcome: &Result<Done<Task>>) {
    assert!(matches!(outcome, Err(Error::Conflict { code: "plan_stale", .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_dry_run_writes_and_claims_nothing() {
    let desk = desk(4, &[pending()]);
    let run = service(current(), &desk).task_dry_run(&alice(Role::Viewer), spec(cores(3))).await.unwrap();
    assert_eq!(run.plan.placement.map(|(server, _)| server), Some(SERVER));
    assert_eq!(run.plan_token, token(&desk, &spec(cores(3))).await, "asked twice, answered the same");
    assert_eq!((free(&desk), counts(&desk)), (4000, (1, 0)));
    let mut mock = MockTasks::new();
    mock.expect_catch_up().times(1).returning(|| Err(Error::unavailable("the state could not be read", "down")));
    let outcome = service(mock, &desk).task_dry_run(&operator(), spec(cores(3))).await;
    assert!(matches!(outcome, Err(Error::Unavailable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_task_posted_by_plan_is_placed_as_planned() {
    let desk = desk(4, &[]);
    let token = token(&desk, &spec(cores(3))).await;
    let (mut mock, known) = (current(), desk.clone());
    mock.expect_create_placed().times(1).returning(move |new, server, change| {
        assert_eq!((server, free(&known)), (SERVER, 1000), "its room is claimed while it is written");
        assert_eq!((change.entry.action.as_str(), change.once), ("task.create", Some(once())));
        let task = new.into_task(ID, START).placed(server, START).unwrap();
        known.follow(&[Fact::Task(Arc::new(task.clone())), Fact::ServerReserved(SERVER, cores(3))]);
        Ok(Done { value: task, replayed: false })
    });
    let done = post(mock, &desk, spec(cores(3)), &token).await.unwrap();
    assert_eq!((done.value.status, done.value.server_id), (TaskStatus::Scheduled, Some(SERVER)));
    assert_eq!((free(&desk), counts(&desk)), (1000, (0, 0)), "what was claimed is reserved now");
}

#[tokio::test]
async fn a_task_posted_by_plan_that_cannot_be_written_gives_its_claim_back() {
    let outcomes: [fn() -> Result<Done<Task>>; 3] = [
        || Err(plan_stale()),
        || Err(Error::unavailable("the database does not answer", "down")),
        || Ok(Done { value: in_status(TaskStatus::Running), replayed: true }),
    ];
    for outcome in outcomes {
        let desk = desk(4, &[]);
        let token = token(&desk, &spec(cores(3))).await;
        let mut mock = current();
        mock.expect_create_placed().times(1).returning(move |_, _, _| outcome());
        assert_eq!(post(mock, &desk, spec(cores(3)), &token).await.is_ok(), outcome().is_ok());
        assert_eq!((free(&desk), counts(&desk)), (4000, (0, 0)));
    }
}

#[tokio::test]
async fn a_claim_for_a_task_that_is_posted_is_counted_once_though_everything_is_told_anew() {
    let desk = desk(4, &[]);
    let token = token(&desk, &spec(cores(3))).await;
    let (mut mock, known) = (current(), desk.clone());
    mock.expect_create_placed().times(1).returning(move |new, server, _| {
        // Another process wrote meanwhile, so what is told is everything.
        let reserved = Server { reserved: cores(3), ..crate::scheduling::fixtures::server(SERVER.0, cores(4)) };
        known.reset(&State { servers: vec![Arc::new(reserved)], ..State::default() });
        Ok(Done { value: new.into_task(ID, START).placed(server, START).unwrap(), replayed: false })
    });
    post(mock, &desk, spec(cores(3)), &token).await.unwrap();
    assert_eq!(free(&desk), 1000);
}

#[tokio::test]
async fn a_task_is_not_posted_by_a_plan_of_another_state_or_task() {
    let desk = desk(4, &[]);
    let old = token(&desk, &spec(cores(3))).await;
    let other = token(&desk, &spec(cores(2))).await;
    desk.follow(&[Fact::ServerReserved(SERVER, cores(1))]);
    for token in [old.as_str(), other.as_str(), "", "made up"] {
        check_stale(&post(current(), &desk, spec(cores(3)), token).await);
        assert_eq!(free(&desk), 3000, "nothing is claimed");
    }
}

#[tokio::test]
async fn a_plan_is_good_though_an_unrelated_server_changed() {
    let desk = desk(4, &[]);
    let token = token(&desk, &spec(cores(3))).await;
    desk.follow(&[Fact::Server(Arc::new(server(2, cores(1)))), Fact::ServerReserved(ServerId(2), cores(1))]);
    let mut mock = current();
    mock.expect_create_placed().times(1).returning(|new, server, _| {
        Ok(Done { value: new.into_task(ID, START).placed(server, START).unwrap(), replayed: false })
    });
    assert_eq!(post(mock, &desk, spec(cores(3)), &token).await.unwrap().value.server_id, Some(SERVER));
}

#[tokio::test]
async fn a_task_that_was_shown_to_fit_nowhere_is_posted_to_wait() {
    let desk = desk(4, &[]);
    let token = token(&desk, &spec(cores(9))).await;
    let mut mock = current();
    mock.expect_create().times(1).returning(|new, change| {
        assert_eq!(change.once, Some(once()));
        Ok(Done { value: new.into_task(ID, START), replayed: false })
    });
    let done = post(mock, &desk, spec(cores(9)), &token).await.unwrap();
    assert_eq!(done.value.status, TaskStatus::Pending);
    desk.follow(&[Fact::Server(Arc::new(server(2, cores(9))))]);
    check_stale(&post(current(), &desk, spec(cores(9)), &token).await);
}

#[tokio::test]
async fn only_a_pending_task_is_planned_for() {
    use TaskStatus::{Cancelled, Completed, Failed, Running, Scheduled, Unknown};
    for status in [Scheduled, Running, Completed, Failed, Cancelled, Unknown] {
        let outcome = service(stored(&in_status(status)), &desk(4, &[])).task_plan(&operator(), ID).await;
        assert!(matches!(outcome, Err(Error::Conflict { code: "illegal_transition", .. })), "{status}");
    }
    let desk = desk(4, &[pending()]);
    let run = service(stored(&pending()), &desk).task_plan(&alice(Role::Viewer), ID).await.unwrap();
    assert_eq!(run.plan.placement.map(|(server, _)| server), Some(SERVER));
    assert_eq!((free(&desk), counts(&desk)), (4000, (1, 0)));
}

#[tokio::test]
async fn a_pending_task_is_shown_with_the_reasons() {
    let large = Task { spec: Arc::new(spec(cores(9))), ..pending() };
    let desk = desk(4, std::slice::from_ref(&large));
    let details = service(stored(&large), &desk).task_get(&alice(Role::Viewer), ID).await.unwrap();
    assert_eq!(details.task, large);
    let reasons: Vec<(&str, usize)> = details.pending_reasons.iter().map(|it| (it.code, it.servers)).collect();
    assert_eq!(reasons, [("insufficient_cpu", 1)]);
    // What is not pending has no reasons, and needs nobody to have caught up.
    let mut mock = MockTasks::new();
    mock.expect_get().returning(|_| Ok(in_status(TaskStatus::Running)));
    let details = service(mock, &desk).task_get(&operator(), ID).await.unwrap();
    assert_eq!(details, TaskDetails { task: in_status(TaskStatus::Running), pending_reasons: vec![] });
}

#[tokio::test]
async fn a_task_that_is_about_to_be_placed_is_shown_without_reasons() {
    let whole = Task { spec: Arc::new(spec(cores(4))), ..pending() };
    let desk = desk(4, std::slice::from_ref(&whole));
    let tasks = service(stored(&whole), &desk);
    assert_eq!(tasks.task_get(&operator(), ID).await.unwrap().pending_reasons, []);
    assert_eq!(desk.with(|engine| engine.next(START, 1)).len(), 1);
    assert_eq!(tasks.task_get(&operator(), ID).await.unwrap().pending_reasons, [], "its room is its own");
}
