//! Two processes that want the same room: one gets it, and nothing is taken twice.

use super::{check_reserved, ended_now, placed};
use crate::{
    on_both,
    store::{Process, Store, at, at_once, change, millis, new_pool, new_server, new_task, once, placement, server_in},
};
use domain::{
    Error,
    clock::{Clock, Timestamp},
    fleet::{NewServer, Servers},
    page::PageRequest,
    pools::{NewPool, Pools, Quotas},
    scheduling::{NewTask, Placed, Scheduler, Task, TaskFilter, TaskSpec, TaskStatus, Tasks},
};
use infra_diesel::DieselTasks;
use std::{sync::Arc, time::Duration};

on_both!(
    of_two_that_want_the_last_core_exactly_one_gets_it,
    of_two_that_want_the_last_of_a_quota_exactly_one_gets_it,
    a_task_that_two_place_is_placed_once,
    a_task_that_two_end_gives_its_room_back_once,
    two_schedulers_place_each_task_once,
);

const ROUNDS: i64 = 15;

fn two(store: &Store) -> [Arc<Process>; 2] {
    [Arc::new(store.second_process()), Arc::new(store.second_process())]
}

/// Whether it was placed; fails if it was not for any other reason than that somebody was faster.
#[track_caller]
fn won<T: std::fmt::Debug>(outcome: Result<T, Error>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(Error::Stale { .. } | Error::Conflict { code: "plan_stale", .. }) => false,
        Err(error) => panic!("{error:?}"),
    }
}

async fn of_two_that_want_the_last_core_exactly_one_gets_it(store: Store) {
    let processes = two(&store);
    for round in 0..ROUNDS {
        let small = NewServer { capacity: millis(1000), ..new_server(&format!("small-{round}")) };
        let server = store.servers.create(small, change("server.create")).await.unwrap().value.id;
        let mut tasks = Vec::new();
        for n in 0..6 {
            tasks.push(store.task(&format!("task-{round}-{n}")).await);
        }
        let outcomes = at_once(tasks.into_iter().enumerate().map(|(n, task)| {
            let process = Arc::clone(&processes[n % 2]);
            async move {
                match n / 2 {
                    0 => process.tasks.place(vec![placement(&task, server)]).await.unwrap() == [Placed::Held],
                    1 => won(process.tasks.place_one(placement(&task, server), None).await),
                    _ => {
                        let change = change("task.create");
                        won(process.tasks.create_placed(new_task("new"), server, change).await)
                    }
                }
            }
        }));
        assert_eq!(outcomes.await.into_iter().filter(|won| *won).count(), 1, "round {round}");
        check_reserved(&store, server, millis(1000)).await;
    }
}

async fn of_two_that_want_the_last_of_a_quota_exactly_one_gets_it(store: Store) {
    let processes = two(&store);
    for round in 0..ROUNDS {
        let quotas = Quotas { cpu_millis: Some(1000), ..Quotas::default() };
        let pool = NewPool { quotas, ..new_pool(&format!("pool-{round}")) };
        let pool = store.pools.create(pool, change("pool.create")).await.unwrap().value;
        let mut planned = Vec::new();
        for n in 0..4 {
            let name = format!("edge-{round}-{n}");
            let server = store.servers.create(server_in(pool.id, &name), change("server.create")).await.unwrap();
            planned.push(placement(&store.task(&name).await, server.value.id));
        }
        let outcomes = at_once(planned.into_iter().enumerate().map(|(n, placement)| {
            let process = Arc::clone(&processes[n % 2]);
            async move { process.tasks.place(vec![placement]).await.unwrap() }
        }));
        assert_eq!(outcomes.await.concat().iter().filter(|placed| **placed == Placed::Held).count(), 1);
        assert_eq!(store.tasks.ledger_check().await.unwrap(), []);
    }
}

async fn a_task_that_two_place_is_placed_once(store: Store) {
    let processes = two(&store);
    let servers = [store.server("edge-1").await.id, store.server("edge-2").await.id];
    for round in 0..ROUNDS {
        let task = store.task(&format!("task-{round}")).await;
        let outcomes = at_once((0..4).map(|n| {
            let (process, placement) = (Arc::clone(&processes[n % 2]), placement(&task, servers[n % 2]));
            async move { won(process.tasks.place_one(placement, None).await) }
        }));
        assert_eq!(outcomes.await.into_iter().filter(|won| *won).count(), 1);
        assert_eq!(store.tasks.attempts(task.id).await.unwrap().len(), 1);
        let task = store.tasks.get(task.id).await.unwrap();
        store.tasks.update(task.cancelled(at(70)).unwrap(), ended_now(), change("task.cancel")).await.unwrap();
        check_reserved(&store, servers[0], millis(0)).await;
        check_reserved(&store, servers[1], millis(0)).await;
    }
}

async fn a_task_that_two_end_gives_its_room_back_once(store: Store) {
    let processes = two(&store);
    let server = store.server("edge-1").await;
    placed(&store, "stays", server.id).await;
    for round in 0..ROUNDS {
        let task = placed(&store, &format!("task-{round}"), server.id).await;
        let cancelled = task.cancelled(at(70)).unwrap();
        let outcomes = at_once((0..4).map(|n| {
            let (process, cancelled) = (Arc::clone(&processes[n % 2]), cancelled.clone());
            // Twins under one key, and others without.
            let change = if n < 2 { once("task.cancel", &format!("k-{round}"), 0) } else { change("task.cancel") };
            async move { process.tasks.update(cancelled, ended_now(), change).await }
        }));
        let (done, stale): (Vec<_>, Vec<_>) = outcomes.await.into_iter().partition(Result::is_ok);
        assert!(stale.into_iter().all(|outcome| !won(outcome)));
        assert_eq!(done.into_iter().filter(|done| !done.as_ref().unwrap().replayed).count(), 1);
        check_reserved(&store, server.id, millis(1000)).await;
    }
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        at(60)
    }

    fn uptime(&self) -> Duration {
        Duration::from_mins(1)
    }
}

/// A scheduler in a process of its own, which may be behind the other.
fn scheduler(store: &Store) -> Arc<Scheduler> {
    let process = store.second_process();
    let tasks = Arc::new(DieselTasks::new(process.database.clone()));
    Arc::new(Scheduler::new(tasks, process.desk(), Arc::new(Noon)))
}

async fn two_schedulers_place_each_task_once(store: Store) {
    let schedulers = [scheduler(&store), scheduler(&store)];
    for n in 0..5 {
        store.server(&format!("edge-{n}")).await;
    }
    let mut tasks: Vec<Task> = Vec::new();
    for n in 0..50 {
        let spec = TaskSpec { demand: millis(100 + 200 * (n % 3)), ..new_task(&format!("task-{n}")).spec };
        tasks.push(store.tasks.create(NewTask { spec }, change("task.create")).await.unwrap().value);
    }
    let pending = TaskFilter { status: Some(TaskStatus::Pending), ..TaskFilter::default() };
    for _ in 0..100 {
        at_once(schedulers.iter().cloned().map(|scheduler| async move { scheduler.run().await.unwrap() })).await;
        if store.tasks.list(pending.clone(), PageRequest::default()).await.unwrap().total == 0 {
            break;
        }
    }
    for task in tasks {
        let attempts = store.tasks.attempts(task.id).await.unwrap();
        assert_eq!(attempts.len(), 1, "{}", task.spec.name);
    }
    assert_eq!(store.tasks.ledger_check().await.unwrap(), []);
    // The servers and tasks, and one row for each placement.
    store.check_chain(5 + 50 + 50).await;
}
