use super::*;
use crate::{
    feed::{Fact, Follower, State},
    fleet::Server,
    ids::ServerId,
    scheduling::{
        Engine, MockTasks, Placement, TaskSpec, TaskStatus,
        fixtures::{cores, server, spec, task},
    },
    testing::{START, TestClock},
    units::Resources,
};
use chrono::TimeDelta;
use std::{collections::BTreeMap, sync::Mutex};

const SERVER: ServerId = ServerId(1);

/// A desk that knows one server of so many cores, and these tasks.
fn desk(capacity: i64, tasks: &[Task]) -> Arc<Desk> {
    let desk = Desk::new(Engine::default(), Box::new(|| {}));
    desk.reset(&state(capacity, 0, tasks));
    Arc::new(desk)
}

/// The same as it is told, with so many cores reserved.
fn state(capacity: i64, reserved: i64, tasks: &[Task]) -> State {
    let server = Server { reserved: cores(reserved), ..server(SERVER.0, cores(capacity)) };
    let pending = tasks.iter().cloned().map(Arc::new).collect();
    State { servers: vec![Arc::new(server)], pools: Vec::new(), pending, operations: Vec::new() }
}

fn pending(count: i64) -> Vec<Task> {
    (1..=count).map(|id| task(id, spec(cores(1)))).collect()
}

fn due(id: i64, minutes: i64) -> Task {
    task(id, TaskSpec { deadline: Some(START + TimeDelta::minutes(minutes)), ..spec(cores(1)) })
}

/// A mock that has nothing to catch up with.
fn tasks() -> MockTasks {
    let mut mock = MockTasks::new();
    mock.expect_catch_up().returning(|| Ok(()));
    mock
}

fn scheduler(mock: MockTasks, desk: &Arc<Desk>) -> Scheduler {
    scheduler_at(mock, desk, TimeDelta::zero())
}

fn scheduler_at(mock: MockTasks, desk: &Arc<Desk>, after: TimeDelta) -> Scheduler {
    let clock = TestClock::start();
    clock.advance(after);
    Scheduler::new(Arc::new(mock), desk.clone(), clock)
}

/// Holds what `holds` says, and tells the desk of it before it answers, as the database does.
fn database<H>(desk: &Arc<Desk>, holds: H) -> impl FnMut(Vec<Placement>) -> Result<Vec<Placed>> + Send + use<H>
where
    H: Fn(TaskId) -> bool + Send + 'static,
{
    let (desk, mut reserved) = (desk.clone(), Resources::default());
    move |placements| {
        let (mut facts, mut answers) = (Vec::new(), Vec::new());
        for placement in placements {
            if !holds(placement.task.id) {
                answers.push(Placed::Moved);
                continue;
            }
            reserved = reserved.plus(placement.attempt.demand);
            facts.push(Fact::Task(Arc::new(placement.task)));
            answers.push(Placed::Held);
        }
        facts.push(Fact::ServerReserved(SERVER, reserved));
        desk.follow(&facts);
        Ok(answers)
    }
}

fn free(desk: &Desk) -> i64 {
    desk.with(|engine| engine.fleet().free(SERVER)).unwrap().cpu_millis
}

/// How many tasks wait, and how many are decided about.
fn counts(desk: &Desk) -> (usize, usize) {
    desk.with(|engine| (engine.waiting_count(), engine.claim_count()))
}

fn down() -> Error {
    Error::unavailable("the database does not answer", "down")
}

#[tokio::test]
async fn what_fits_is_placed_and_recorded_and_the_rest_waits() {
    let desk = desk(1, &pending(2));
    let (mut mock, mut hold) = (tasks(), database(&desk, |_| true));
    mock.expect_place().times(1).returning(move |placements| {
        let [placement] = placements.as_slice() else { panic!("{placements:?}") };
        let (task, entry) = (&placement.task, &placement.entry);
        assert_eq!((task.id, task.revision, task.status), (TaskId(1), 2, TaskStatus::Scheduled));
        assert_eq!((task.server_id, placement.attempt.server_id), (Some(SERVER), SERVER));
        assert_eq!((entry.action.as_str(), entry.actor.as_str()), ("task.dispatch", "system:scheduler"));
        assert_eq!((&entry.target, &entry.after), (&Some("task:1".to_owned()), &Some(task.position())));
        hold(placements)
    });
    let patience = START + crate::scheduling::PATIENCE;
    assert_eq!(scheduler(mock, &desk).run().await.unwrap(), Again::At(Some(patience)));
    assert_eq!((free(&desk), counts(&desk)), (0, (1, 0)));
}

#[tokio::test]
async fn nothing_is_written_where_nothing_fits_or_waits() {
    let check = async |desk: Arc<Desk>, expected: Again| {
        assert_eq!(scheduler(tasks(), &desk).run().await.unwrap(), expected);
    };
    check(desk(2, &[]), Again::At(None)).await;
    check(desk(0, &pending(1)), Again::At(Some(START + crate::scheduling::PATIENCE))).await;
    check(desk(0, &[due(1, 3)]), Again::At(Some(START + TimeDelta::minutes(3)))).await;
}

#[tokio::test]
async fn nothing_is_decided_on_what_may_be_out_of_date() {
    let desk = desk(2, &[due(1, 0), due(2, 9)]);
    let mut mock = MockTasks::new();
    mock.expect_catch_up().times(1).returning(|| Err(down()));
    let outcome = scheduler(mock, &desk).run().await;
    assert!(matches!(outcome, Err(Error::Unavailable { .. })), "{outcome:?}");
    assert_eq!(counts(&desk), (2, 0));
}

#[tokio::test]
async fn a_place_that_fails_gives_every_claim_back() {
    let desk = desk(3, &pending(5));
    let (mut mock, mut hold, mut tries) = (tasks(), database(&desk, |_| true), 0);
    mock.expect_place().times(2).returning(move |placements| {
        assert_eq!(placements.iter().map(|placement| placement.task.id.0).collect::<Vec<_>>(), [1, 2, 3]);
        tries += 1;
        if tries == 1 { Err(down()) } else { hold(placements) }
    });
    let scheduler = scheduler(mock, &desk);
    assert!(matches!(scheduler.run().await, Err(Error::Unavailable { .. })));
    assert_eq!((free(&desk), counts(&desk)), (3000, (5, 0)));
    scheduler.run().await.unwrap();
    assert_eq!((free(&desk), counts(&desk)), (0, (2, 0)), "the same was decided again");
}

#[tokio::test]
async fn a_placement_that_moved_is_given_up_and_decided_again() {
    let desk = desk(3, &pending(3));
    let (mut mock, mut tries) = (tasks(), 0);
    let (mut first, mut second) = (database(&desk, |id| id != TaskId(2)), database(&desk, |_| true));
    mock.expect_place().times(2).returning(move |placements| {
        tries += 1;
        if tries == 1 { first(placements) } else { second(placements) }
    });
    let scheduler = scheduler(mock, &desk);
    assert_eq!(scheduler.run().await.unwrap(), Again::Now);
    assert_eq!((free(&desk), counts(&desk)), (1000, (1, 0)), "those that hold stay");
    desk.follow(&[Fact::ServerReserved(SERVER, cores(2))]);
    assert_eq!(scheduler.run().await.unwrap(), Again::At(None));
    assert_eq!(counts(&desk), (0, 0));
}

#[tokio::test]
async fn what_moves_twice_in_a_row_is_known_wrongly_and_told_anew() {
    let desk = desk(3, &pending(3));
    let mut mock = tasks();
    mock.expect_place().times(2).returning(|placements| Ok(vec![Placed::Moved; placements.len()]));
    let known = desk.clone();
    mock.expect_tell_anew().times(1).returning(move || {
        // They are given up before, or what is told would take them for decided about.
        assert_eq!(counts(&known), (3, 0));
        known.reset(&state(3, 3, &pending(3)));
        Ok(())
    });
    let scheduler = scheduler(mock, &desk);
    assert_eq!(scheduler.run().await.unwrap(), Again::Now);
    assert_eq!((free(&desk), counts(&desk)), (3000, (3, 0)));
    assert_eq!(scheduler.run().await.unwrap(), Again::Later);
    assert_eq!((free(&desk), counts(&desk)), (0, (3, 0)));
    // With what is known now, nothing is tried in vain.
    assert!(matches!(scheduler.run().await.unwrap(), Again::At(_)));
}

#[tokio::test]
async fn that_different_tasks_move_one_after_the_other_is_nothing_special() {
    let desk = desk(1, &pending(3));
    let (mut mock, known) = (tasks(), desk.clone());
    mock.expect_place().times(3).returning(move |placements| {
        // Somebody cancelled it at the last moment.
        known.follow(&placements.iter().map(|placement| Fact::TaskGone(placement.task.id)).collect::<Vec<_>>());
        Ok(vec![Placed::Moved; placements.len()])
    });
    let scheduler = scheduler(mock, &desk);
    for expected in [Again::Now, Again::Now, Again::At(None)] {
        assert_eq!(scheduler.run().await.unwrap(), expected);
    }
    assert_eq!((free(&desk), counts(&desk)), (1000, (0, 0)));
}

#[tokio::test]
async fn claims_are_given_back_though_nothing_can_be_told_anew() {
    let desk = desk(3, &pending(3));
    let mut mock = tasks();
    mock.expect_place().times(2).returning(|placements| Ok(vec![Placed::Moved; placements.len()]));
    mock.expect_tell_anew().times(1).returning(|| Err(down()));
    let scheduler = scheduler(mock, &desk);
    scheduler.run().await.unwrap();
    assert!(matches!(scheduler.run().await, Err(Error::Unavailable { .. })));
    assert_eq!((free(&desk), counts(&desk)), (3000, (3, 0)));
}

#[tokio::test]
async fn a_long_queue_is_placed_in_batches() {
    let desk = desk(1000, &pending(i64::try_from(BATCH).unwrap() + 10));
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let (mut mock, mut hold, kept) = (tasks(), database(&desk, |_| true), sizes.clone());
    mock.expect_place().returning(move |placements| {
        kept.lock().unwrap().push(placements.len());
        hold(placements)
    });
    let scheduler = scheduler(mock, &desk);
    assert_eq!(scheduler.run().await.unwrap(), Again::Now);
    assert_eq!(scheduler.run().await.unwrap(), Again::At(None));
    assert_eq!(*sizes.lock().unwrap(), [BATCH, 10]);
}

#[tokio::test]
async fn what_waited_past_its_deadline_fails_and_is_not_placed() {
    let desk = desk(3, &[due(1, 5), due(2, 6), due(3, 9)]);
    let mut mock = tasks();
    let expired = Arc::new(Mutex::new(BTreeMap::new()));
    let (keep, known) = (expired.clone(), desk.clone());
    mock.expect_update().times(2).returning(move |task, step, change| {
        assert_eq!((task.status, task.revision, &step), (TaskStatus::Failed, 2, &AttemptStep::Keep));
        assert_eq!((task.reason.as_deref(), task.finished_at), (Some("deadline_passed"), Some(START + minutes(6))));
        assert_eq!((change.entry.action.as_str(), change.entry.after), ("task.expire", Some(task.position())));
        known.follow(&[Fact::Task(Arc::new(task.clone()))]);
        keep.lock().unwrap().insert(task.id, change.entry.actor);
        Ok(crate::change::Done { value: task, replayed: false })
    });
    mock.expect_place().times(1).returning(database(&desk, |_| true));
    assert_eq!(scheduler_at(mock, &desk, minutes(6)).run().await.unwrap(), Again::At(None));
    let system = "system:scheduler".to_owned();
    assert_eq!(*expired.lock().unwrap(), [(TaskId(1), system.clone()), (TaskId(2), system)].into());
    assert_eq!((free(&desk), counts(&desk)), (2000, (0, 0)));
}

fn minutes(minutes: i64) -> TimeDelta {
    TimeDelta::minutes(minutes)
}

#[tokio::test]
async fn a_task_that_somebody_changed_or_deleted_before_its_deadline_delays_nobody() {
    let desk = desk(1, &[due(1, 5), due(2, 5), task(3, spec(cores(1)))]);
    let (mut mock, known) = (tasks(), desk.clone());
    mock.expect_update().times(2).returning(move |task, _, _| {
        if task.id == TaskId(2) {
            return Err(Error::not_found("task", task.id));
        }
        known.follow(&[Fact::TaskGone(TaskId(1))]);
        Err(Error::Stale { what: "task 1".to_owned(), current: 7 })
    });
    mock.expect_place().times(1).returning(database(&desk, |_| true));
    let scheduler = scheduler_at(mock, &desk, minutes(5));
    assert_eq!(scheduler.run().await.unwrap(), Again::At(None));
    assert_eq!(counts(&desk), (0, 0), "what is not there is not told of again");
}

#[tokio::test]
async fn nothing_is_placed_while_deadlines_cannot_be_kept() {
    let desk = desk(1, &[due(1, 5), task(2, spec(cores(1)))]);
    let mut mock = tasks();
    mock.expect_update().times(1).returning(|_, _, _| Err(down()));
    let outcome = scheduler_at(mock, &desk, minutes(5)).run().await;
    assert!(matches!(outcome, Err(Error::Unavailable { .. })), "{outcome:?}");
    assert_eq!((free(&desk), counts(&desk)), (1000, (2, 0)));
}
