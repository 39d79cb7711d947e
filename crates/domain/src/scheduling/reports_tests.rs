use super::*;
use crate::{
    fleet::{
        Architecture, MockOperations, MockServers, Server,
        operations::{Operation, OperationKind, OperationState},
    },
    ids::TaskId,
    scheduling::{
        ArchitectureSet, MockTasks, TaskDriver, TaskSpec,
        fixtures::{cores, server, spec, task},
    },
    testing::{START, TestClock},
};

const HERE: ServerId = ServerId(5);
const ID: OperationId = OperationId(9);

fn end(ending: Ending) -> End {
    End {
        ending,
        exit_code: None,
        signal: None,
        reason: None,
        detail: None,
        outcome: None,
        started_at: None,
        finished_at: None,
    }
}

/// A task of two attempts that an agent runs, in its first.
fn on_server(status: TaskStatus) -> Task {
    let spec = TaskSpec { driver: TaskDriver::Exec, max_attempts: 2, ..spec(cores(1)) };
    let started_at = (status == TaskStatus::Running).then_some(START);
    Task { status, attempt: 1, server_id: Some(HERE), started_at, ..task(7, spec) }
}

fn operation(state: OperationState) -> Operation {
    Operation {
        id: ID,
        server_id: HERE,
        kind: OperationKind::RunTask,
        task_id: Some(TaskId(7)),
        attempt: Some(1),
        deed: None,
        state,
        cancel_requested: false,
        progress: None,
        result: None,
        created_at: START,
        started_at: None,
        finished_at: None,
    }
}

fn reports(tasks: MockTasks, operation: Operation) -> WorkReports {
    reports_of(tasks, MockServers::new(), operation)
}

fn reports_of(tasks: MockTasks, servers: MockServers, operation: Operation) -> WorkReports {
    let mut operations = MockOperations::new();
    operations.expect_get().returning(move |_| Ok(operation.clone()));
    WorkReports::new(Arc::new(tasks), Arc::new(servers), Arc::new(operations), TestClock::start())
}

fn agent() -> Actor {
    Actor::system("agent")
}

#[track_caller]
fn check_end(ending: Ending, asked: bool, attempts: u32, task: TaskStatus, attempt: AttemptStatus) {
    let before = on_server(TaskStatus::Running);
    let spec = TaskSpec { max_attempts: attempts, ..(*before.spec).clone() };
    let after = Task { spec: Arc::new(spec), ..before }.ended_by(&end(ending), asked, START).unwrap();
    let told = AttemptEnd::told_by(&end(ending), asked);
    assert_eq!((after.status, told.status), (task, attempt), "{ending} {asked} {attempts}");
    assert_eq!(after.reason, told.reason);
}

#[test]
fn each_ending_has_its_status() {
    check_end(Ending::Completed, false, 1, TaskStatus::Completed, AttemptStatus::Completed);
    check_end(Ending::Completed, true, 1, TaskStatus::Completed, AttemptStatus::Completed);
    check_end(Ending::Failed, false, 1, TaskStatus::Failed, AttemptStatus::Failed);
    check_end(Ending::Failed, false, 2, TaskStatus::Pending, AttemptStatus::Failed);
    check_end(Ending::Failed, true, 2, TaskStatus::Cancelled, AttemptStatus::Cancelled);
    check_end(Ending::Cancelled, true, 2, TaskStatus::Cancelled, AttemptStatus::Cancelled);
    check_end(Ending::Expired, false, 2, TaskStatus::Pending, AttemptStatus::Failed);
    check_end(Ending::Unknown, false, 1, TaskStatus::Failed, AttemptStatus::Failed);
}

#[test]
fn an_agents_reason_is_a_word_or_none() {
    let told =
        |reason: &str| AttemptEnd::told_by(&End { reason: Some(reason.to_owned()), ..end(Ending::Failed) }, false);
    assert_eq!(told("out_of_memory").reason.as_deref(), Some("out_of_memory"));
    for odd in ["", "Two Words", "<script>", &"x".repeat(65)] {
        assert_eq!(told(odd).reason.as_deref(), Some("attempt_failed"), "{odd}");
    }
    assert_eq!(AttemptEnd::told_by(&end(Ending::Expired), false).reason.as_deref(), Some("expired"));
    assert_eq!(AttemptEnd::told_by(&end(Ending::Unknown), false).reason.as_deref(), Some("agent_lost"));
}

#[test]
fn what_ended_before_anybody_said_that_it_began_has_begun() {
    let minute = chrono::TimeDelta::minutes(1);
    let check = |told: Timestamp, expected: Timestamp| {
        let scheduled = Task { scheduled_at: Some(START + minute), ..on_server(TaskStatus::Scheduled) };
        let told = End { started_at: Some(told), ..end(Ending::Completed) };
        let after = scheduled.ended_by(&told, false, START + minute * 3).unwrap();
        assert_eq!(after.started_at, Some(expected));
    };
    check(START + minute * 2, START + minute * 2);
    // Its agent's clock may be wrong.
    check(START, START + minute);
    check(START + minute * 9, START + minute * 3);
    let never = on_server(TaskStatus::Scheduled).ended_by(&end(Ending::Expired), false, START).unwrap();
    assert_eq!(never.started_at, None);
}

#[test]
fn a_lost_task_goes_on_where_it_was() {
    let lost = on_server(TaskStatus::Scheduled).lost(START).unwrap();
    assert_eq!((lost.status, lost.reason.as_deref()), (TaskStatus::Unknown, Some("contact_lost")));
    assert_eq!(lost.found(START).unwrap().status, TaskStatus::Scheduled);
    let running = on_server(TaskStatus::Running).lost(START).unwrap();
    assert_eq!(running.found(START), None, "it was begun: only its agent knows");
    let back = running.found_running(START).unwrap();
    assert_eq!((back.status, back.reason, back.started_at), (TaskStatus::Running, None, Some(START)));
    assert_eq!(on_server(TaskStatus::Pending).lost(START), None);
    assert_eq!(on_server(TaskStatus::Completed).lost(START), None);
}

#[test]
fn a_second_cancellation_is_refused_and_the_first_is_remembered() {
    let asked = on_server(TaskStatus::Scheduled).cancelling(START).unwrap();
    assert_eq!((asked.status, asked.reason.as_deref()), (TaskStatus::Scheduled, Some("cancelling")));
    assert!(matches!(asked.cancelling(START), Err(Error::Conflict { code: "illegal_transition", .. })));
    assert_eq!(asked.found_running(START).unwrap().reason.as_deref(), Some("cancelling"));
    let lost = asked.lost(START).unwrap();
    assert_eq!((lost.status, lost.reason.as_deref()), (TaskStatus::Unknown, Some("cancelling")));
    for back in [lost.found(START).unwrap(), lost.found_running(START).unwrap()] {
        assert_eq!(back.reason.as_deref(), Some("cancelling"), "{:?}", back.status);
    }
    assert!(on_server(TaskStatus::Completed).cancelling(START).is_err());
    let given_up = lost.given_up(START).unwrap();
    assert_eq!((given_up.status, given_up.reason.as_deref()), (TaskStatus::Cancelled, Some("cancelled")));
    for status in [TaskStatus::Scheduled, TaskStatus::Running, TaskStatus::Completed] {
        let refused = on_server(status).given_up(START);
        assert!(matches!(refused, Err(Error::Conflict { code: "illegal_transition", .. })), "{status}");
    }
}

#[tokio::test]
async fn a_report_is_for_the_agents_own_open_operation_only() {
    let refused = async |operation: Operation, task: Task| {
        let mut tasks = MockTasks::new();
        tasks.expect_get().returning(move |_| Ok(task.clone()));
        reports(tasks, operation).started(&agent(), HERE, ID).await.unwrap_err()
    };
    let running = on_server(TaskStatus::Running);
    let elsewhere = Operation { server_id: ServerId(6), ..operation(OperationState::Queued) };
    assert!(matches!(refused(elsewhere, running.clone()).await, Error::NotFound { .. }));
    let over = operation(OperationState::Failed);
    assert!(matches!(refused(over, running.clone()).await, Error::Conflict { code: "operation_closed", .. }));
    let retried = Task { attempt: 2, ..running.clone() };
    let open = operation(OperationState::Queued);
    assert!(matches!(refused(open.clone(), retried).await, Error::Conflict { code: "operation_closed", .. }));
    let cancelled = on_server(TaskStatus::Cancelled);
    assert!(matches!(refused(open, cancelled).await, Error::Conflict { code: "operation_closed", .. }));
}

#[tokio::test]
async fn a_repeated_report_changes_nothing() {
    let mut tasks = MockTasks::new();
    tasks.expect_get().returning(|_| Ok(on_server(TaskStatus::Running)));
    reports(tasks, operation(OperationState::Running)).started(&agent(), HERE, ID).await.unwrap();
    let told = end(Ending::Completed);
    let over = Operation { result: Some(told.clone()), ..operation(OperationState::Succeeded) };
    reports(MockTasks::new(), over.clone()).ended(&agent(), HERE, ID, &told).await.unwrap();
    let other = reports(MockTasks::new(), over).ended(&agent(), HERE, ID, &end(Ending::Failed)).await;
    assert!(matches!(other, Err(Error::Conflict { code: "operation_closed", .. })));
}

#[tokio::test]
async fn silence_and_return_touch_what_an_agent_runs_and_nothing_else() {
    let by_hand = Task { spec: Arc::new(spec(cores(1))), ..on_server(TaskStatus::Running) };
    let lost_before = on_server(TaskStatus::Unknown);
    let held = vec![by_hand, lost_before, on_server(TaskStatus::Running)];
    let mut tasks = MockTasks::new();
    let shown = held.clone();
    tasks.expect_held_on().returning(move |_| Ok(shown.clone()));
    tasks.expect_update().times(1).returning(|task, step, change| {
        assert_eq!((task.status, step), (TaskStatus::Unknown, AttemptStep::Lose));
        assert_eq!(change.entry.action, "task.lost");
        Ok(crate::change::Done { value: task, replayed: false })
    });
    reports(tasks, operation(OperationState::Running)).lose(&agent(), HERE).await.unwrap();

    let mut tasks = MockTasks::new();
    tasks.expect_held_on().returning(move |_| Ok(held.clone()));
    tasks.expect_update().times(1).returning(|task, step, _| {
        assert_eq!((task.status, step), (TaskStatus::Scheduled, AttemptStep::Find));
        Ok(crate::change::Done { value: task, replayed: false })
    });
    reports(tasks, operation(OperationState::Queued)).found_again(&agent(), HERE).await.unwrap();
}

/// What is written when an attempt ends for this reason, whose server is as told.
async fn written(reason: &str, asked: bool, host: Result<Server>) -> Task {
    let mut servers = MockServers::new();
    servers.expect_get().times(usize::from(reason == "exec_format")).return_once(|_| host);
    let mut tasks = MockTasks::new();
    tasks.expect_get().returning(|_| Ok(on_server(TaskStatus::Running)));
    let (sender, receiver) = std::sync::mpsc::channel();
    tasks.expect_update().times(1).returning(move |task, _, _| {
        sender.send(task.clone()).unwrap();
        Ok(crate::change::Done { value: task, replayed: false })
    });
    let open = Operation { cancel_requested: asked, ..operation(OperationState::Running) };
    let told = End { reason: Some(reason.to_owned()), ..end(Ending::Failed) };
    reports_of(tasks, servers, open).ended(&agent(), HERE, ID, &told).await.unwrap();
    receiver.recv().unwrap()
}

#[tokio::test]
async fn an_exec_format_error_bars_the_architecture_of_the_server_and_nothing_else_does() {
    let host = || Ok(Server { architecture: Architecture::Riscv64, ..server(HERE.0, cores(1)) });
    let after = written("exec_format", false, host()).await;
    assert_eq!((after.status, after.barred), (TaskStatus::Pending, Architecture::Riscv64.into()));
    let free = |task: &Task| (task.status, task.barred) == (TaskStatus::Pending, ArchitectureSet::default());
    assert!(free(&written("image_missing", false, host()).await));
    assert!(free(&written("exec_format", false, Err(Error::not_found("server", HERE))).await), "it is gone");
    let cancelled = written("exec_format", true, host()).await;
    assert_eq!((cancelled.status, cancelled.barred), (TaskStatus::Cancelled, ArchitectureSet::default()));
}
