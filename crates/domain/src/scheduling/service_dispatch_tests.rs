//! Placing one task by hand.

use super::*;
use async_trait::async_trait;
use std::{future::Future, task::Poll};
use tokio::sync::Notify;

/// Tells the desk that a placement was committed, as the database does before it answers.
fn told(desk: &Desk, placement: &Placement) {
    let reserved = desk.with(|engine| cores(4).minus(engine.fleet().free(SERVER).unwrap()));
    desk.follow(&[Fact::Task(Arc::new(placement.task.clone())), Fact::ServerReserved(SERVER, reserved)]);
}

async fn dispatch(mock: MockTasks, desk: &Arc<Desk>, plan_token: Option<&str>) -> Result<Done<Task>> {
    service(mock, desk).task_dispatch(&operator(), ID, plan_token, Some(once())).await
}

#[tokio::test]
async fn a_task_is_placed_before_its_turn() {
    let first = task(1, TaskSpec { priority: crate::scheduling::Priority::parse(5).unwrap(), ..spec(cores(4)) });
    let desk = desk(4, &[first, pending()]);
    let (mut mock, known) = (stored(&pending()), desk.clone());
    mock.expect_place_one().times(1).returning(move |placement, key| {
        let entry = &placement.entry;
        assert_eq!((entry.action.as_str(), entry.actor.as_str()), ("task.dispatch", "user:alice"));
        assert_eq!((&entry.before, &entry.after), (&Some(pending().position()), &Some(placement.task.position())));
        assert_eq!((placement.attempt.server_id, key), (SERVER, Some(once())));
        assert_eq!((free(&known), counts(&known)), (3000, (1, 1)), "its room is claimed while it is written");
        told(&known, &placement);
        Ok(Done { value: placement.task, replayed: false })
    });
    let done = dispatch(mock, &desk, None).await.unwrap();
    assert_eq!(done, Done { value: pending().placed(SERVER, START).unwrap(), replayed: false });
    assert_eq!((free(&desk), counts(&desk)), (3000, (1, 0)));
}

#[tokio::test]
async fn dispatching_a_scheduled_task_changes_nothing_and_keeps_the_answer_under_its_key() {
    let scheduled = in_status(TaskStatus::Scheduled);
    let desk = desk(4, &[]);
    for token in [None, Some("whatever")] {
        let mut mock = stored(&scheduled);
        mock.expect_confirm().times(1).returning(|task, change| {
            assert_eq!(change.once, Some(once()));
            Ok(Done { value: task, replayed: false })
        });
        let done = dispatch(mock, &desk, token).await.unwrap();
        assert_eq!(done, Done { value: scheduled.clone(), replayed: false });
        assert_eq!((free(&desk), counts(&desk)), (4000, (0, 0)));
    }
}

#[tokio::test]
async fn what_is_neither_pending_nor_scheduled_is_not_dispatched() {
    use TaskStatus::{Cancelled, Completed, Failed, Running, Unknown};
    for status in [Running, Completed, Failed, Cancelled, Unknown] {
        let desk = desk(4, &[]);
        let outcome = dispatch(stored(&in_status(status)), &desk, None).await;
        assert!(matches!(outcome, Err(Error::Conflict { code: "illegal_transition", .. })), "{status}: {outcome:?}");
        assert_eq!((free(&desk), counts(&desk)), (4000, (0, 0)));
    }
}

#[tokio::test]
async fn a_task_that_fits_nowhere_is_told_why() {
    let desk = desk(0, &[pending()]);
    let outcome = dispatch(stored(&pending()), &desk, None).await;
    let Err(Error::Capacity { reason }) = outcome else { panic!("{outcome:?}") };
    for part in ["\"render\"", "insufficient_cpu", "edge-1", "needs 1 core, 0 free"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(counts(&desk), (1, 0));
}

#[tokio::test]
async fn a_task_whose_deadline_has_passed_is_not_refused_without_a_reason() {
    let due = Task { spec: Arc::new(TaskSpec { deadline: Some(START), ..(*pending().spec).clone() }), ..pending() };
    let desk = desk(4, std::slice::from_ref(&due));
    assert_eq!(desk.expired(START, 100).len(), 1);
    let outcome = dispatch(stored(&due), &desk, None).await;
    let Err(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("deadline"), "{error}");
}

#[tokio::test]
async fn a_stale_placement_is_decided_again() {
    let desk = desk(4, &[pending()]);
    let newer = Task { revision: 3, ..pending() };
    let mut reads = [pending(), newer.clone(), newer.clone()].into_iter();
    let mut mock = MockTasks::new();
    mock.expect_catch_up().returning(|| Ok(()));
    mock.expect_get().times(3).returning(move |_| Ok(reads.next().unwrap()));
    let (known, mut tries) = (desk.clone(), 0);
    mock.expect_place_one().times(3).returning(move |placement, _| {
        assert_eq!(counts(&known), (0, 1), "each time one claim");
        tries += 1;
        match tries {
            1 => known.follow(&[Fact::Task(Arc::new(newer.clone()))]),
            2 => assert_eq!(placement.task.revision, 4),
            _ => {
                told(&known, &placement);
                return Ok(Done { value: placement.task, replayed: false });
            }
        }
        Err(stale())
    });
    let done = dispatch(mock, &desk, None).await.unwrap();
    assert_eq!(done.value.revision, 4);
    assert_eq!((free(&desk), counts(&desk)), (3000, (0, 0)));
}

#[tokio::test]
async fn a_dispatch_gives_up_when_others_are_always_faster() {
    let desk = desk(4, &[pending()]);
    let mut mock = stored(&pending());
    mock.expect_place_one().times(TRIES).returning(|_, _| Err(stale()));
    let outcome = dispatch(mock, &desk, None).await;
    assert!(matches!(outcome, Err(Error::Conflict { code: "busy", .. })), "{outcome:?}");
    assert_eq!((free(&desk), counts(&desk)), (4000, (1, 0)));
}

#[tokio::test]
async fn a_placement_that_fails_or_is_replayed_gives_its_claim_back() {
    let outcomes: [fn() -> Result<Done<Task>>; 3] = [
        || Err(Error::unavailable("the database does not answer", "down")),
        || Err(Error::not_found("task", ID)),
        || Ok(Done { value: in_status(TaskStatus::Scheduled), replayed: true }),
    ];
    for outcome in outcomes {
        let desk = desk(4, &[pending()]);
        let mut mock = stored(&pending());
        mock.expect_place_one().times(1).returning(move |_, _| outcome());
        let found = dispatch(mock, &desk, None).await;
        assert_eq!(found.is_ok(), outcome().is_ok());
        assert_eq!((free(&desk), counts(&desk)), (4000, (1, 0)));
    }
}

#[tokio::test]
async fn nothing_is_decided_on_what_may_be_out_of_date() {
    let desk = desk(4, &[pending()]);
    let mut mock = MockTasks::new();
    mock.expect_get().returning(|_| Ok(pending()));
    mock.expect_catch_up().returning(|| Err(Error::unavailable("the state could not be read", "down")));
    let outcome = dispatch(mock, &desk, None).await;
    assert!(matches!(outcome, Err(Error::Unavailable { .. })), "{outcome:?}");
    assert_eq!((free(&desk), counts(&desk)), (4000, (1, 0)));
}

#[tokio::test]
async fn a_task_is_dispatched_as_it_was_planned() {
    let desk = desk(4, &[pending()]);
    let plan = service(stored(&pending()), &desk).task_plan(&alice(Role::Viewer), ID).await.unwrap();
    assert_eq!(plan.plan.placement.map(|(server, _)| server), Some(SERVER));
    let mut mock = stored(&pending());
    let known = desk.clone();
    mock.expect_place_one().times(1).returning(move |placement, _| {
        told(&known, &placement);
        Ok(Done { value: placement.task, replayed: false })
    });
    dispatch(mock, &desk, Some(&plan.plan_token)).await.unwrap();
}

#[tokio::test]
async fn a_task_is_not_dispatched_by_a_plan_of_another_state() {
    let desk = desk(4, &[pending()]);
    let plan = service(stored(&pending()), &desk).task_plan(&operator(), ID).await.unwrap();
    desk.follow(&[Fact::ServerReserved(SERVER, cores(1))]);
    for token in [plan.plan_token.as_str(), "", "made up"] {
        let outcome = dispatch(stored(&pending()), &desk, Some(token)).await;
        assert!(matches!(outcome, Err(Error::Conflict { code: "plan_stale", .. })), "{outcome:?}");
        assert_eq!((free(&desk), counts(&desk)), (3000, (1, 0)), "nothing is claimed");
    }
}

/// A database that takes its time to say that somebody was faster.
struct Slow {
    task: Task,
    go_on: Notify,
}

#[async_trait]
impl Tasks for Slow {
    async fn create(&self, _: NewTask, _: Change) -> Result<Done<Task>> {
        unreachable!()
    }
    async fn create_placed(&self, _: NewTask, _: ServerId, _: Change) -> Result<Done<Task>> {
        self.go_on.notified().await;
        Err(plan_stale())
    }
    async fn list(&self, _: TaskFilter, _: PageRequest) -> Result<Page<Task>> {
        unreachable!()
    }
    async fn get(&self, _: TaskId) -> Result<Task> {
        Ok(self.task.clone())
    }
    async fn attempts(&self, _: TaskId) -> Result<Vec<Attempt>> {
        unreachable!()
    }
    async fn place(&self, _: Vec<Placement>) -> Result<Vec<crate::scheduling::Placed>> {
        unreachable!()
    }
    async fn place_one(&self, _: Placement, _: Option<Once>) -> Result<Done<Task>> {
        self.go_on.notified().await;
        Err(Error::not_found("task", ID))
    }
    async fn held_on(&self, _: ServerId) -> Result<Vec<Task>> {
        unreachable!()
    }
    async fn update(&self, _: Task, _: AttemptStep, _: Change) -> Result<Done<Task>> {
        unreachable!()
    }
    async fn confirm(&self, _: Task, _: Change) -> Result<Done<Task>> {
        unreachable!()
    }
    async fn delete(&self, _: Task, _: Change) -> Result<Done<()>> {
        unreachable!()
    }
    async fn answered(&self, _: Once, _: crate::clock::Timestamp) -> Result<Option<Task>> {
        Ok(None)
    }
    async fn catch_up(&self) -> Result<()> {
        Ok(())
    }
    async fn tell_anew(&self) -> Result<()> {
        Ok(())
    }
    async fn ledger_check(&self) -> Result<Vec<Discrepancy>> {
        unreachable!()
    }
    async fn ledger_mend(&self, _: Change) -> Result<Done<Vec<Discrepancy>>> {
        unreachable!()
    }
}

/// Asks, hangs up while the database is at work, and lets that come to its end.
async fn hang_up<T>(database: &Slow, desk: &Desk, request: impl Future<Output = T>) {
    {
        let mut request = std::pin::pin!(request);
        let asked = std::future::poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_pending()));
        assert!(asked.await, "the database is at work");
        assert_eq!(free(desk), 3000, "the room is claimed");
    }
    database.go_on.notify_waiters();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_hangs_up_leaves_nothing_claimed() {
    let desk = desk(4, &[pending()]);
    let database = Arc::new(Slow { task: pending(), go_on: Notify::new() });
    let tasks = service_of(database.clone(), &desk);
    let actor = operator();
    hang_up(&database, &desk, tasks.task_dispatch(&actor, ID, None, None)).await;
    assert_eq!((free(&desk), counts(&desk)), (4000, (1, 0)), "the task waits again");
}

#[tokio::test]
async fn who_hangs_up_while_posting_by_plan_leaves_nothing_claimed() {
    let desk = desk(4, &[]);
    let database = Arc::new(Slow { task: pending(), go_on: Notify::new() });
    let tasks = service_of(database.clone(), &desk);
    let actor = operator();
    let token = tasks.task_dry_run(&actor, spec(cores(1))).await.unwrap().plan_token;
    hang_up(&database, &desk, tasks.task_create(&actor, spec(cores(1)), Some(&token), None)).await;
    assert_eq!((free(&desk), counts(&desk)), (4000, (0, 0)));
}
