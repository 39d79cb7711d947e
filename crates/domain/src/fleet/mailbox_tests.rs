use super::*;
use crate::{
    fleet::{operations::OperationKind, protocol::LogQuery},
    ids::TaskId,
    testing::START,
};
use std::sync::atomic::{AtomicUsize, Ordering};

const A: ServerId = ServerId(1);

fn operation(id: i64, state: OperationState, cancel_requested: bool) -> Arc<Operation> {
    Arc::new(Operation {
        id: OperationId(id),
        server_id: A,
        kind: OperationKind::RunTask,
        task_id: Some(TaskId(id)),
        attempt: Some(1),
        deed: None,
        state,
        cancel_requested,
        progress: None,
        result: None,
        created_at: START,
        started_at: None,
        finished_at: None,
    })
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn mailbox() -> Mailbox {
    Mailbox::new(Box::new(|_| {}))
}

fn ids(operations: &[Arc<Operation>]) -> Vec<i64> {
    operations.iter().map(|operation| operation.id.0).collect()
}

use OperationState::{Queued, Running, Succeeded};

#[test]
fn what_was_told_is_told_again_late_or_to_a_new_session() {
    let mailbox = mailbox();
    mailbox.follow(&[Fact::Operation(operation(1, Queued, false))]);
    assert_eq!(ids(&mailbox.take(A, "one", s(0)).begin), [1]);
    assert!(mailbox.take(A, "one", s(29)).is_empty());
    assert_eq!(ids(&mailbox.take(A, "one", s(30)).begin), [1]);
    assert_eq!(ids(&mailbox.take(A, "two", s(31)).begin), [1]);
    assert!(mailbox.take(ServerId(2), "three", s(31)).is_empty());
}

#[test]
fn what_runs_is_not_told_until_its_end_is_asked_for() {
    let mailbox = mailbox();
    mailbox.follow(&[Fact::Operation(operation(1, Running, false))]);
    assert!(mailbox.take(A, "one", s(0)).is_empty());
    assert_eq!(mailbox.begun(A), [OperationId(1)]);
    mailbox.follow(&[Fact::Operation(operation(1, Running, true))]);
    assert_eq!(mailbox.take(A, "one", s(1)).cancel, [OperationId(1)]);
    assert!(mailbox.take(A, "one", s(2)).is_empty());
    assert_eq!(mailbox.take(A, "one", s(31)).cancel, [OperationId(1)]);
    mailbox.follow(&[Fact::Operation(operation(1, Succeeded, true))]);
    assert!(mailbox.take(A, "two", s(99)).is_empty());
}

#[test]
fn a_cancellation_does_not_wait_until_the_order_would_be_repeated() {
    let mailbox = mailbox();
    mailbox.follow(&[Fact::Operation(operation(1, Queued, false))]);
    assert_eq!(ids(&mailbox.take(A, "one", s(0)).begin), [1]);
    mailbox.follow(&[Fact::Operation(operation(1, Queued, true))]);
    let due = mailbox.take(A, "one", s(1));
    assert_eq!((due.cancel, due.begin), (vec![OperationId(1)], Vec::new()));
}

#[test]
fn an_answer_is_bounded_and_the_rest_comes_next() {
    let mailbox = mailbox();
    let facts: Vec<Fact> = (0..50).map(|id| Fact::Operation(operation(id, Queued, false))).collect();
    mailbox.follow(&facts);
    let first = ids(&mailbox.take(A, "one", s(0)).begin);
    let second = ids(&mailbox.take(A, "one", s(0)).begin);
    assert_eq!((first.len(), second.len()), (32, 18));
    assert_eq!([first, second].concat(), (0..50).collect::<Vec<i64>>());
}

#[test]
fn a_reset_keeps_what_was_told_and_rings_for_everybody() {
    let rung = Arc::new(AtomicUsize::new(0));
    let counted = rung.clone();
    let mailbox = Mailbox::new(Box::new(move |_| _ = counted.fetch_add(1, Ordering::Relaxed)));
    mailbox.follow(&[Fact::Operation(operation(1, Queued, false)), Fact::Operation(operation(2, Queued, false))]);
    assert_eq!(ids(&mailbox.take(A, "one", s(0)).begin), [1, 2]);
    let before = rung.load(Ordering::Relaxed);
    let operations = vec![operation(2, Queued, false), operation(3, Queued, false)];
    mailbox.reset(&State { operations, ..State::default() });
    assert!(rung.load(Ordering::Relaxed) > before);
    assert_eq!(ids(&mailbox.take(A, "one", s(1)).begin), [3]);
    mailbox.follow(&[Fact::ServerGone(A)]);
    assert!(mailbox.take(A, "two", s(2)).is_empty());
}

#[test]
fn a_stream_is_ordered_until_it_is_open() {
    let mailbox = mailbox();
    let query = LogQuery { task_id: TaskId(1), attempt: 1, follow: true, after: None, tail: None };
    for id in ["a", "b"] {
        mailbox.order_stream(A, id.to_owned(), StreamSource::Logs(query.clone()));
    }
    mailbox.forget_stream(A, "a");
    let ids = |due: Due| due.streams.into_iter().map(|stream| stream.id).collect::<Vec<_>>();
    assert_eq!(ids(mailbox.take(A, "one", s(0))), ["b"]);
    assert!(mailbox.take(A, "one", s(29)).is_empty());
    // The answer was lost with the session.
    assert_eq!(ids(mailbox.take(A, "two", s(29))), ["b"]);
    assert_eq!(ids(mailbox.take(A, "two", s(59))), ["b"]);
    mailbox.forget_stream(A, "b");
    assert!(mailbox.take(A, "three", s(99)).is_empty());
}
