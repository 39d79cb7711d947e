//! Which operations there are, and which tasks hold something on a server.

use super::{about, end_it, listed, placed, posted, start_it};
use crate::{
    on_both,
    store::{Store, at, check_not_found, walk},
    tasks::{place_again, write},
};
use domain::{
    fleet::{
        Operations, Server,
        operations::{OperationFilter, OperationState},
        protocol::Ending,
    },
    ids::{OperationId, ServerId},
    page::PageRequest,
    scheduling::{AttemptStep, Task, TaskStatus, Tasks},
};
use std::cell::Cell;

on_both!(
    what_holds_something_on_a_server_is_found,
    filters_must_all_match,
    pages_neither_repeat_nor_skip,
    what_is_not_there_is_not_found,
);

async fn what_holds_something_on_a_server_is_found(store: Store) {
    let (server, other) = (store.joined("edge-1").await, store.joined("edge-2").await);
    let hand = place_again(&store, &store.task("by hand").await, server.id).await;
    let night = start_it(&store, &placed(&store, "night", server.id).await).await;
    let elsewhere = placed(&store, "elsewhere", other.id).await;
    let lost = placed(&store, "lost", server.id).await;
    let lost = write(&store, &lost, lost.lost(at(70)).unwrap(), AttemptStep::Lose).await;
    posted(&store, "pending").await;
    end_it(&store, &placed(&store, "ended", server.id).await, Ending::Completed, false).await;
    // Its first attempt was here, and its second holds something elsewhere.
    let moved = end_it(&store, &placed(&store, "moved", server.id).await, Ending::Failed, false).await;
    let moved = place_again(&store, &moved, other.id).await;
    assert_eq!(store.tasks.held_on(server.id).await.unwrap(), [hand, night, lost]);
    assert_eq!(store.tasks.held_on(other.id).await.unwrap(), [elsewhere, moved]);
    assert_eq!(store.tasks.held_on(ServerId(99)).await.unwrap(), []);
}

async fn filters_must_all_match(store: Store) {
    let (one, two): (Server, Server) = (store.joined("one").await, store.joined("two").await);
    let a = placed(&store, "a", one.id).await;
    let b = start_it(&store, &placed(&store, "b", one.id).await).await;
    let c = end_it(&store, &placed(&store, "c", two.id).await, Ending::Completed, false).await;
    let c = end_it(&store, &run_again(&store, &c, one.id).await, Ending::Failed, false).await;
    let ids = async |filter| {
        let found = listed(&store, filter).await;
        found.into_iter().map(|found| (found.task_id.unwrap(), found.attempt.unwrap())).collect::<Vec<_>>()
    };
    let all = OperationFilter::default();
    let on = |server: &Server| OperationFilter { server_id: Some(server.id), ..OperationFilter::default() };
    let state = |state| OperationFilter { state: Some(state), ..OperationFilter::default() };
    let (first, second) = ((c.id, 1), (c.id, 2));
    assert_eq!(ids(all).await, [second, first, (b.id, 1), (a.id, 1)]);
    assert_eq!(ids(on(&one)).await, [second, (b.id, 1), (a.id, 1)]);
    assert_eq!(ids(on(&two)).await, [first]);
    assert_eq!(ids(about(c.id)).await, [second, first]);
    assert_eq!(ids(state(OperationState::Queued)).await, [(a.id, 1)]);
    assert_eq!(ids(state(OperationState::Running)).await, [(b.id, 1)]);
    assert_eq!(ids(state(OperationState::Succeeded)).await, [first]);
    assert_eq!(ids(state(OperationState::Failed)).await, [second]);
    assert_eq!(ids(state(OperationState::Expired)).await, []);
    assert_eq!(ids(OperationFilter { task_id: Some(c.id), ..on(&one) }).await, [second]);
    assert_eq!(ids(OperationFilter { state: Some(OperationState::Queued), ..about(c.id) }).await, []);
}

/// A task that has ended, run again.
async fn run_again(store: &Store, task: &Task, server: ServerId) -> Task {
    let pending = Task { status: TaskStatus::Pending, revision: task.revision + 1, finished_at: None, ..task.clone() };
    let pending = write(store, task, pending, AttemptStep::Keep).await;
    place_again(store, &pending, server).await
}

async fn pages_neither_repeat_nor_skip(store: Store) {
    let server = store.joined("edge-1").await;
    let n = Cell::new(0);
    let another = || async {
        n.set(n.get() + 1);
        let task = placed(&store, &format!("task-{}", n.get()), server.id).await;
        end_it(&store, &task, Ending::Completed, false).await;
    };
    for _ in 0..5 {
        another().await;
    }
    for limit in [1, 2, 5] {
        let list = |page| store.operations.list(OperationFilter::default(), page);
        let there = list(PageRequest::default()).await.unwrap().items;
        assert!(there.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
        assert_eq!(walk(limit, list, another).await, there, "{limit} at a time");
    }
}

async fn what_is_not_there_is_not_found(store: Store) {
    check_not_found(store.operations.get(OperationId(1)).await);
    assert_eq!(listed(&store, OperationFilter::default()).await, []);
}
