//! The port `Operations`, and what becomes of an operation with the attempt that it is about.

mod listing;
mod walking;

use crate::{
    on_both,
    store::{
        Process, Store, agents_task, at, at_once, change, check_conflict, check_not_found, millis, new_task, placement,
    },
    tasks::{check_reserved, newest_attempt, place_again, write},
};
use domain::{
    clock::Timestamp,
    feed::{Fact, Follower, State},
    fleet::{
        Mailbox, Operations, Servers,
        operations::{Operation, OperationFilter, OperationKind, OperationState},
        protocol::{End, Ending},
    },
    ids::{OperationId, ServerId, TaskId},
    page::PageRequest,
    scheduling::{
        Attempt, AttemptEnd, AttemptStatus, AttemptStep, NewTask, Placed, Task, TaskDriver, TaskSpec, TaskStatus, Tasks,
    },
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

on_both!(
    an_operation_is_opened_with_its_placement,
    a_task_with_its_place_has_its_operation_from_the_start,
    what_its_user_runs_has_no_operation,
    a_placement_that_moved_opens_nothing,
    who_follows_knows_what_is_open,
    an_operation_goes_on_with_its_attempt,
    what_has_ended_has_ended,
    of_two_that_end_an_attempt_one_gives_its_room_back,
    an_end_that_was_asked_for_keeps_the_room_until_it_comes,
    what_is_lost_keeps_its_room_and_may_be_found,
    a_lost_attempt_that_ends_gives_its_room_back_once,
    a_retry_opens_another_operation,
    a_deleted_task_takes_its_operations_with_it,
    an_operation_outlives_its_server,
    progress_is_noted_while_an_operation_is_open,
);

/// What is open, as somebody knows who follows.
#[derive(Default)]
struct Known(Mutex<BTreeMap<OperationId, Operation>>);

impl Follower for Known {
    fn reset(&self, state: &State) {
        let open = state.operations.iter().map(|operation| (operation.id, Operation::clone(operation)));
        *self.0.lock().unwrap() = open.collect();
    }

    fn follow(&self, facts: &[Fact]) {
        let mut known = self.0.lock().unwrap();
        for fact in facts {
            match fact {
                Fact::Operation(operation) if operation.state.is_open() => {
                    known.insert(operation.id, Operation::clone(operation));
                }
                Fact::Operation(operation) => {
                    known.remove(&operation.id).expect("what ends was open");
                }
                _ => {}
            }
        }
    }
}

impl Known {
    async fn by(process: &Process) -> Arc<Self> {
        let known = Arc::new(Self::default());
        process.database.follow(known.clone());
        process.operations.catch_up().await.unwrap();
        known
    }

    fn open(&self) -> Vec<Operation> {
        self.0.lock().unwrap().values().cloned().collect()
    }
}

async fn posted(store: &Store, text: &str) -> Task {
    store.tasks.create(agents_task(text), change("task.create")).await.unwrap().value
}

async fn placed(store: &Store, text: &str, server: ServerId) -> Task {
    let task = posted(store, text).await;
    place_again(store, &task, server).await
}

/// Every operation that matches, newest first.
async fn listed(store: &Store, filter: OperationFilter) -> Vec<Operation> {
    let page = store.operations.list(filter, PageRequest::default()).await.unwrap();
    assert_eq!(page.total, i64::try_from(page.items.len()).unwrap());
    page.items
}

fn about(task: TaskId) -> OperationFilter {
    OperationFilter { task_id: Some(task), ..OperationFilter::default() }
}

/// The only operation of a task.
async fn operation(store: &Store, task: &Task) -> Operation {
    let [operation] = listed(store, about(task.id)).await.try_into().unwrap();
    assert_eq!(store.operations.get(operation.id).await.unwrap(), operation);
    operation
}

fn queued(id: OperationId, server: ServerId, task: &Task, at: Timestamp) -> Operation {
    Operation {
        id,
        server_id: server,
        kind: OperationKind::RunTask,
        task_id: Some(task.id),
        attempt: Some(task.attempt),
        deed: None,
        state: OperationState::Queued,
        cancel_requested: false,
        progress: None,
        result: None,
        created_at: at,
        started_at: None,
        finished_at: None,
    }
}

/// What an agent says of an end.
pub(crate) fn end(ending: Ending) -> End {
    End {
        ending,
        exit_code: Some(137),
        signal: Some(9),
        reason: (ending == Ending::Failed).then(|| "out_of_memory".to_owned()),
        detail: Some("the kernel's words\nin lines".to_owned()),
        outcome: None,
        started_at: Some(at(71)),
        finished_at: Some(at(79)),
    }
}

fn ended(end: &End, asked: bool) -> AttemptStep {
    AttemptStep::End(AttemptEnd::told_by(end, asked))
}

/// The end of a task's newest attempt, as its agent says.
async fn end_it(store: &Store, task: &Task, ending: Ending, asked: bool) -> Task {
    let end = end(ending);
    write(store, task, task.ended_by(&end, asked, at(80)).unwrap(), ended(&end, asked)).await
}

async fn start_it(store: &Store, task: &Task) -> Task {
    write(store, task, task.found_running(at(70)).unwrap(), AttemptStep::Start).await
}

async fn an_operation_is_opened_with_its_placement(store: Store) {
    let (one, two) = (store.joined("one").await, store.joined("two").await);
    let known = Known::by(&store).await;
    let mut tasks = Vec::new();
    for (n, driver) in [TaskDriver::Docker, TaskDriver::None, TaskDriver::Exec, TaskDriver::Docker].iter().enumerate() {
        let spec = TaskSpec { driver: *driver, ..new_task(&format!("task-{n}")).spec };
        tasks.push(store.tasks.create(NewTask { spec }, change("task.create")).await.unwrap().value);
    }
    let on = [&one, &one, &two, &one];
    let placements: Vec<_> = tasks.iter().zip(on).map(|(task, on)| placement(task, on.id)).collect();
    assert_eq!(store.tasks.place(placements.clone()).await.unwrap(), [const { Placed::Held }; 4]);
    for (task, server) in tasks.iter().zip(on) {
        let task = store.tasks.get(task.id).await.unwrap();
        if task.spec.driver == TaskDriver::None {
            assert_eq!(listed(&store, about(task.id)).await, []);
        } else {
            let found = operation(&store, &task).await;
            assert_eq!(found, queued(found.id, server.id, &task, at(60)));
        }
    }
    let single = posted(&store, "single").await;
    let single = store.tasks.place_one(placement(&single, two.id), None).await.unwrap().value;
    let found = operation(&store, &single).await;
    assert_eq!(found, queued(found.id, two.id, &single, at(60)));
    let mut all = listed(&store, OperationFilter::default()).await;
    all.reverse();
    assert_eq!((all.len(), known.open()), (4, all));
}

async fn a_task_with_its_place_has_its_operation_from_the_start(store: Store) {
    let server = store.joined("edge-1").await;
    let known = Known::by(&store).await;
    let task = store.tasks.create_placed(agents_task("night"), server.id, change("task.create")).await.unwrap().value;
    let found = operation(&store, &task).await;
    assert_eq!(found, queued(found.id, server.id, &task, crate::store::start()));
    assert_eq!(known.open(), [found]);
    store.check_log(&["enrollment.create", "agent.enroll", "task.create"]).await;
}

async fn what_its_user_runs_has_no_operation(store: Store) {
    let server = store.joined("edge-1").await;
    let task = place_again(&store, &store.task("by hand").await, server.id).await;
    let running = write(&store, &task, task.started(at(70)).unwrap(), AttemptStep::Start).await;
    let end = AttemptStep::End(AttemptEnd::by_hand(AttemptStatus::Cancelled, Some("cancelled")));
    write(&store, &running, running.cancelled(at(80)).unwrap(), end).await;
    assert_eq!(listed(&store, OperationFilter::default()).await, []);
    check_reserved(&store, server.id, millis(0)).await;
}

async fn a_placement_that_moved_opens_nothing(store: Store) {
    let server = store.joined("edge-1").await;
    let task = posted(&store, "night").await;
    let plan = placement(&task, server.id);
    assert_eq!(store.tasks.place(vec![plan.clone(), plan.clone()]).await.unwrap(), [Placed::Held, Placed::Moved]);
    assert_eq!(store.tasks.place(vec![plan]).await.unwrap(), [Placed::Moved]);
    // Where it is only a server in name, no agent runs it.
    let by_hand = store.server("plain").await;
    check_conflict(
        store.tasks.create_placed(agents_task("lost"), by_hand.id, change("task.create")).await,
        "plan_stale",
    );
    assert_eq!(listed(&store, OperationFilter::default()).await.len(), 1);
}

async fn who_follows_knows_what_is_open(store: Store) {
    let server = store.joined("edge-1").await;
    let mailbox = Arc::new(Mailbox::new(Box::new(|_| {})));
    store.database.follow(mailbox.clone());
    let known = Known::by(&store).await;
    let (first, second) = (placed(&store, "first", server.id).await, placed(&store, "second", server.id).await);
    let (one, two) = (operation(&store, &first).await, operation(&store, &second).await);
    let due = mailbox.take(server.id, "session", Duration::from_secs(1));
    assert_eq!(due.begin, [Arc::new(one.clone()), Arc::new(two.clone())]);

    // Another process hears of it when it catches up, and of what it then does this one when it does.
    let other = store.second_process();
    let theirs = Known::by(&other).await;
    assert_eq!(theirs.open(), [one, two.clone()]);
    let first = start_it(&store, &first).await;
    let running = operation(&store, &first).await;
    other.operations.catch_up().await.unwrap();
    assert_eq!((known.open(), theirs.open()), (vec![running.clone(), two.clone()], vec![running, two.clone()]));
    let told = end(Ending::Completed);
    let after = first.ended_by(&told, false, at(80)).unwrap();
    other.tasks.update(after, ended(&told, false), change("task.ended")).await.unwrap();
    assert_eq!(theirs.open(), std::slice::from_ref(&two));
    store.operations.catch_up().await.unwrap();
    assert_eq!(known.open(), [two]);
    // What was told is not told again so soon, whatever was told anew in between.
    assert!(mailbox.take(server.id, "session", Duration::from_secs(2)).is_empty());
    store.tasks.tell_anew().await.unwrap();
    assert!(mailbox.take(server.id, "session", Duration::from_secs(3)).is_empty());
}

async fn an_operation_goes_on_with_its_attempt(store: Store) {
    let server = store.joined("edge-1").await;
    let known = Known::by(&store).await;
    let task = placed(&store, "night", server.id).await;
    let (before, opened) = (operation(&store, &task).await, newest_attempt(&store, task.id).await);
    store.operations.progress(before.id, "pulling image: 40 %".to_owned()).await.unwrap();

    let running = start_it(&store, &task).await;
    let expected = Operation { state: OperationState::Running, started_at: Some(at(70)), ..before.clone() };
    assert_eq!(operation(&store, &running).await, expected);
    assert_eq!(known.open(), std::slice::from_ref(&expected));
    let attempt = opened.stepped(&AttemptStep::Start, at(70));
    assert_eq!(newest_attempt(&store, task.id).await, attempt);
    check_reserved(&store, server.id, millis(1000)).await;

    let done = end_it(&store, &running, Ending::Failed, false).await;
    assert_eq!((done.status, done.reason.as_deref()), (TaskStatus::Pending, Some("out_of_memory")));
    let told = end(Ending::Failed);
    let expected =
        Operation { state: OperationState::Failed, result: Some(told.clone()), finished_at: Some(at(80)), ..expected };
    assert_eq!(operation(&store, &running).await, expected);
    assert_eq!(known.open(), []);
    let finished = Attempt {
        status: AttemptStatus::Failed,
        exit_code: Some(137),
        signal: Some(9),
        reason: Some("out_of_memory".to_owned()),
        finished_at: Some(at(80)),
        held: false,
        ..attempt
    };
    assert_eq!(newest_attempt(&store, task.id).await, finished);
    check_reserved(&store, server.id, millis(0)).await;
}

async fn what_has_ended_has_ended(store: Store) {
    let server = store.joined("edge-1").await;
    placed(&store, "stays", server.id).await;
    let task = start_it(&store, &placed(&store, "night", server.id).await).await;
    let mut last = end_it(&store, &task, Ending::Completed, false).await;
    let (attempt, there) = (newest_attempt(&store, task.id).await, operation(&store, &task).await);
    let known = Known::by(&store).await;
    let steps = [
        ended(&end(Ending::Failed), true),
        AttemptStep::Start,
        AttemptStep::AskEnd,
        AttemptStep::Lose,
        AttemptStep::Find,
    ];
    for step in steps {
        let again = Task { revision: last.revision + 1, updated_at: at(99), ..last.clone() };
        last = write(&store, &last, again, step).await;
        assert_eq!(newest_attempt(&store, task.id).await, attempt);
        assert_eq!(operation(&store, &task).await, there);
        check_reserved(&store, server.id, millis(1000)).await;
    }
    assert_eq!(known.open().len(), 1);
}

async fn of_two_that_end_an_attempt_one_gives_its_room_back(store: Store) {
    let server = store.joined("edge-1").await;
    let processes = [Arc::new(store.second_process()), Arc::new(store.second_process())];
    let known = Known::by(&store).await;
    for round in 0..10 {
        let task = placed(&store, &format!("task-{round}"), server.id).await;
        let outcomes = at_once((0..4).map(|n| {
            let (process, task) = (Arc::clone(&processes[n % 2]), task.clone());
            async move {
                let told = end(if n / 2 == 0 { Ending::Completed } else { Ending::Failed });
                let after = task.ended_by(&told, false, at(80)).unwrap();
                process.tasks.update(after, ended(&told, false), change("task.ended")).await
            }
        }));
        assert_eq!(outcomes.await.into_iter().flatten().count(), 1, "round {round}");
        check_reserved(&store, server.id, millis(0)).await;
        let (attempt, closed) = (newest_attempt(&store, task.id).await, operation(&store, &task).await);
        let word = if attempt.status == AttemptStatus::Completed { "succeeded" } else { "failed" };
        assert_eq!(closed.state.as_str(), word, "both say the same");
        store.operations.catch_up().await.unwrap();
        assert_eq!(known.open(), []);
    }
}

async fn an_end_that_was_asked_for_keeps_the_room_until_it_comes(store: Store) {
    let server = store.joined("edge-1").await;
    let known = Known::by(&store).await;
    let running = start_it(&store, &placed(&store, "night", server.id).await).await;
    let (before, attempt) = (operation(&store, &running).await, newest_attempt(&store, running.id).await);
    let asked = write(&store, &running, running.cancelling(at(75)).unwrap(), AttemptStep::AskEnd).await;
    assert_eq!(asked.status, TaskStatus::Running);
    let expected = Operation { cancel_requested: true, ..before };
    assert_eq!(operation(&store, &asked).await, expected);
    assert_eq!(known.open(), [expected]);
    assert_eq!(newest_attempt(&store, asked.id).await, attempt);
    check_reserved(&store, server.id, millis(1000)).await;
    check_conflict(store.tasks.delete(asked.clone(), change("task.delete")).await, "task_is_live");

    let cancelled = end_it(&store, &asked, Ending::Cancelled, true).await;
    assert_eq!(cancelled.status, TaskStatus::Cancelled);
    assert_eq!(operation(&store, &cancelled).await.state, OperationState::Cancelled);
    assert_eq!(newest_attempt(&store, asked.id).await.status, AttemptStatus::Cancelled);
    check_reserved(&store, server.id, millis(0)).await;
}

async fn what_is_lost_keeps_its_room_and_may_be_found(store: Store) {
    let server = store.joined("edge-1").await;
    let task = placed(&store, "night", server.id).await;
    let (before, attempt) = (operation(&store, &task).await, newest_attempt(&store, task.id).await);
    let lost = write(&store, &task, task.lost(at(70)).unwrap(), AttemptStep::Lose).await;
    assert_eq!(lost.status, TaskStatus::Unknown);
    let unknown = Attempt { status: AttemptStatus::Unknown, ..attempt.clone() };
    assert_eq!(newest_attempt(&store, task.id).await, unknown);
    assert_eq!(operation(&store, &task).await, before, "that contact is lost says nothing about the work");
    check_reserved(&store, server.id, millis(1000)).await;
    let found = write(&store, &lost, lost.found(at(75)).unwrap(), AttemptStep::Find).await;
    assert_eq!(newest_attempt(&store, task.id).await, attempt);
    check_reserved(&store, server.id, millis(1000)).await;
    end_it(&store, &found, Ending::Completed, false).await;
    check_reserved(&store, server.id, millis(0)).await;
}

async fn a_lost_attempt_that_ends_gives_its_room_back_once(store: Store) {
    let server = store.joined("edge-1").await;
    placed(&store, "stays", server.id).await;
    let running = start_it(&store, &placed(&store, "night", server.id).await).await;
    let lost = write(&store, &running, running.lost(at(75)).unwrap(), AttemptStep::Lose).await;
    let mut newest = end_it(&store, &lost, Ending::Unknown, false).await;
    assert_eq!(operation(&store, &newest).await.state, OperationState::Unknown);
    assert_eq!(newest_attempt(&store, newest.id).await.status, AttemptStatus::Failed);
    for _ in 0..2 {
        check_reserved(&store, server.id, millis(1000)).await;
        let again = Task { revision: newest.revision + 1, ..newest.clone() };
        newest = write(&store, &newest, again, ended(&end(Ending::Completed), false)).await;
    }
}

async fn a_retry_opens_another_operation(store: Store) {
    let (server, other) = (store.joined("edge-1").await, store.joined("edge-2").await);
    let known = Known::by(&store).await;
    let failed = end_it(&store, &placed(&store, "night", server.id).await, Ending::Failed, false).await;
    let first = operation(&store, &failed).await;
    let again = place_again(&store, &failed, other.id).await;
    let [second, old] = listed(&store, about(again.id)).await.try_into().unwrap();
    assert_eq!((old, second.clone()), (first, queued(second.id, other.id, &again, at(60))));
    assert_eq!((second.attempt, known.open()), (Some(2), vec![second]));
    let running = start_it(&store, &again).await;
    let states: Vec<_> = listed(&store, about(again.id)).await.into_iter().map(|operation| operation.state).collect();
    assert_eq!(states, [OperationState::Running, OperationState::Failed]);
    end_it(&store, &running, Ending::Completed, false).await;
    check_reserved(&store, server.id, millis(0)).await;
    check_reserved(&store, other.id, millis(0)).await;
}

async fn a_deleted_task_takes_its_operations_with_it(store: Store) {
    let server = store.joined("edge-1").await;
    let (task, other) = (placed(&store, "night", server.id).await, placed(&store, "stays", server.id).await);
    check_conflict(store.tasks.delete(task.clone(), change("task.delete")).await, "task_is_live");
    let gone = operation(&store, &task).await;
    let task = end_it(&store, &task, Ending::Completed, false).await;
    store.tasks.delete(task.clone(), change("task.delete")).await.unwrap();
    check_not_found(store.operations.get(gone.id).await);
    assert_eq!(listed(&store, OperationFilter::default()).await, [operation(&store, &other).await]);
    assert_eq!(listed(&store, about(task.id)).await, []);
}

async fn an_operation_outlives_its_server(store: Store) {
    let server = store.joined("edge-1").await;
    let task = end_it(&store, &placed(&store, "night", server.id).await, Ending::Completed, false).await;
    store.servers.delete(server.clone(), change("server.delete")).await.unwrap();
    let found = operation(&store, &task).await;
    assert_eq!((found.server_id, found.result), (server.id, Some(end(Ending::Completed))));
}

async fn progress_is_noted_while_an_operation_is_open(store: Store) {
    let server = store.joined("edge-1").await;
    let task = placed(&store, "night", server.id).await;
    let before = operation(&store, &task).await;
    let known = Known::by(&store).await;
    let rows = store.log().await.len();
    let progress = |id, text: &str| store.operations.progress(id, text.to_owned());
    for text in ["pulling image: 40 %", "pulling image: 80 %", ""] {
        progress(before.id, text).await.unwrap();
        let expected = Operation { progress: Some(text.to_owned()), ..before.clone() };
        assert_eq!(operation(&store, &task).await, expected);
    }
    assert_eq!(known.open(), std::slice::from_ref(&before), "nobody is woken up by it");
    progress(OperationId(99), "no matter").await.unwrap();
    store.check_chain(rows).await;
    end_it(&store, &task, Ending::Completed, false).await;
    let closed = operation(&store, &task).await;
    progress(before.id, "too late").await.unwrap();
    assert_eq!((closed.progress.clone(), operation(&store, &task).await), (None, closed));
}
