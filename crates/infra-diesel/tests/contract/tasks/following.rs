//! A desk that follows a database knows what is committed, by whomever, and counts nothing twice.

use super::{ended_now, placed, write};
use crate::{
    on_both,
    store::{Process, Store, at, at_once, change, entry_at, millis, new_pool, new_task, placement, server_in},
};
use domain::{
    fleet::{Server, Servers},
    ids::ServerId,
    pools::{NewPool, Pools, Quotas},
    scheduling::{AttemptStep, Desk, NewTask, Placement, Task, TaskSpec, Tasks},
    units::Resources,
};
use std::sync::Arc;

on_both!(
    what_this_process_commits_is_known_before_it_answers,
    what_another_process_commits_is_known_after_catching_up,
    a_claim_becomes_a_reservation_without_being_counted_twice,
    a_claim_becomes_a_reservation_though_another_process_wrote,
    commits_that_share_a_transaction_are_all_known,
    everything_is_told_anew_where_it_is_asked_for,
);

fn free(desk: &Desk, server: ServerId) -> Resources {
    desk.with(|engine| engine.fleet().free(server)).expect("the server is known")
}

fn cpu(desk: &Desk, server: ServerId) -> i64 {
    free(desk, server).cpu_millis
}

/// How many tasks wait, and how many are decided about.
fn counts(desk: &Desk) -> (usize, usize) {
    desk.with(|engine| (engine.waiting_count(), engine.claim_count()))
}

fn decide(desk: &Desk) -> Vec<Placement> {
    let entry =
        |before: &Task, after: &Task| entry_at("task.dispatch", 60).moved(after, before.position(), after.position());
    desk.next(at(60), 100, entry)
}

/// Fails unless the desk knows of these servers what one knows that was just told everything.
async fn check_like_new(process: &Process, desk: &Desk, servers: &[Server]) {
    let fresh = process.desk();
    process.tasks.catch_up().await.unwrap();
    for server in servers {
        assert_eq!(free(desk, server.id), free(&fresh, server.id), "on {}", server.name);
    }
    assert_eq!(counts(desk), counts(&fresh));
}

async fn what_this_process_commits_is_known_before_it_answers(store: Store) {
    let desk = store.desk();
    store.tasks.catch_up().await.unwrap();
    let server = store.server("edge-1").await;
    assert_eq!(cpu(&desk, server.id), 4000);
    let task = store.task("night").await;
    assert_eq!(counts(&desk), (1, 0));
    store.tasks.place(vec![placement(&task, server.id)]).await.unwrap();
    assert_eq!((cpu(&desk, server.id), counts(&desk)), (3000, (0, 0)));
    let task = store.tasks.get(task.id).await.unwrap();
    write(&store, &task, task.cancelled(at(70)).unwrap(), ended_now()).await;
    assert_eq!((cpu(&desk, server.id), counts(&desk)), (4000, (0, 0)));
    let task = store.tasks.create_placed(new_task("at once"), server.id, change("task.create")).await.unwrap().value;
    assert_eq!((cpu(&desk, server.id), counts(&desk)), (3000, (0, 0)));
    write(&store, &task, task.cancelled(at(70)).unwrap(), ended_now()).await;
    let pending = store.task("pending").await;
    store.tasks.delete(pending, change("task.delete")).await.unwrap();
    assert_eq!(counts(&desk), (0, 0));
    store.servers.delete(server.clone(), change("server.delete")).await.unwrap();
    assert_eq!(desk.with(|engine| engine.fleet().free(server.id)), None);
    check_like_new(&store, &desk, &[]).await;
}

async fn what_another_process_commits_is_known_after_catching_up(store: Store) {
    let (desk, other) = (store.desk(), store.second_process());
    store.tasks.catch_up().await.unwrap();
    let quotas = Quotas { cpu_millis: Some(2500), ..Quotas::default() };
    let pool = NewPool { quotas, ..new_pool("edge") };
    let pool = other.pools.create(pool, change("pool.create")).await.unwrap().value;
    let server = other.servers.create(server_in(pool.id, "edge-1"), change("server.create")).await.unwrap().value;
    let tasks = [other.task("one").await, other.task("two").await, other.task("three").await];
    store.tasks.catch_up().await.unwrap();
    let left = || desk.with(|engine| engine.fleet().left(pool.id).unwrap().cpu_millis);
    assert_eq!((cpu(&desk, server.id), left(), counts(&desk)), (4000, Some(2500), (3, 0)));

    other.tasks.place(vec![placement(&tasks[0], server.id)]).await.unwrap();
    store.tasks.catch_up().await.unwrap();
    assert_eq!((cpu(&desk, server.id), left(), counts(&desk)), (3000, Some(1500), (2, 0)));

    // Of what it decides meanwhile, only what is still so is kept.
    let decided = decide(&desk);
    assert_eq!(decided.iter().map(|placement| placement.task.id).collect::<Vec<_>>(), [tasks[1].id]);
    let cancelled = tasks[1].cancelled(at(70)).unwrap();
    other.tasks.update(cancelled, AttemptStep::Keep, change("task.cancel")).await.unwrap();
    store.tasks.catch_up().await.unwrap();
    assert_eq!((cpu(&desk, server.id), left(), counts(&desk)), (3000, Some(1500), (1, 0)));
    check_like_new(&store, &desk, &[server]).await;
}

async fn a_claim_becomes_a_reservation_without_being_counted_twice(store: Store) {
    let (pool, desk) = (store.pool("edge").await, store.desk());
    let first = store.servers.create(server_in(pool.id, "edge-1"), change("server.create")).await.unwrap().value;
    let second = store.servers.create(server_in(pool.id, "edge-2"), change("server.create")).await.unwrap().value;
    store.tasks.catch_up().await.unwrap();
    for n in 0..3 {
        store.task(&format!("task-{n}")).await;
    }
    let placements = decide(&desk);
    assert_eq!((placements.len(), counts(&desk)), (3, (0, 3)));
    let claimed = [free(&desk, first.id), free(&desk, second.id)];
    assert_eq!(claimed[0].plus(claimed[1]).cpu_millis, 5000);
    store.tasks.place(placements).await.unwrap();
    assert_eq!([free(&desk, first.id), free(&desk, second.id)], claimed);
    assert_eq!(counts(&desk), (0, 0));
    check_like_new(&store, &desk, &[first, second]).await;
}

async fn a_claim_becomes_a_reservation_though_another_process_wrote(store: Store) {
    let (desk, other) = (store.desk(), store.second_process());
    let server = store.server("edge-1").await;
    store.tasks.catch_up().await.unwrap();
    let (_, second) = (store.task("one").await, store.task("two").await);
    let placements = decide(&desk);
    assert_eq!((cpu(&desk, server.id), counts(&desk)), (2000, (0, 2)));
    // What is told is everything, and while the second is only claimed, its claim stands.
    other.server("edge-2").await;
    store.tasks.place(placements[..1].to_vec()).await.unwrap();
    assert_eq!((cpu(&desk, server.id), counts(&desk)), (2000, (0, 1)));
    other.server("edge-3").await;
    store.tasks.catch_up().await.unwrap();
    assert_eq!((cpu(&desk, server.id), counts(&desk)), (2000, (0, 1)));
    desk.with(|engine| engine.unclaim(second.id));
    assert_eq!((cpu(&desk, server.id), counts(&desk)), (3000, (1, 0)));
    check_like_new(&store, &desk, &[server]).await;
}

async fn commits_that_share_a_transaction_are_all_known(store: Store) {
    let desk = store.desk();
    store.tasks.catch_up().await.unwrap();
    let servers = [store.server("edge-1").await, store.server("edge-2").await];
    let store = Arc::new(store);
    for round in 0..5 {
        let work = (0..12).map(|n| {
            let (store, server) = (store.clone(), servers[n % 2].id);
            async move {
                let spec = TaskSpec { demand: millis(250), ..new_task(&format!("{round}-{n}")).spec };
                let task = store.tasks.create(NewTask { spec }, change("task.create")).await.unwrap().value;
                let task = super::place_again(&store, &task, server).await;
                if n < 10 {
                    write(&store, &task, task.cancelled(at(70)).unwrap(), ended_now()).await;
                }
            }
        });
        at_once(work).await;
        assert_eq!(counts(&desk), (0, 0));
        check_like_new(&store, &desk, &servers).await;
        // One of each six stays.
        for server in &servers {
            assert_eq!(cpu(&desk, server.id), 4000 - 250 * (round + 1), "on {}", server.name);
        }
        assert_eq!(store.tasks.ledger_check().await.unwrap(), []);
    }
}

async fn everything_is_told_anew_where_it_is_asked_for(store: Store) {
    let desk = store.desk();
    let server = store.server("edge-1").await;
    placed(&store, "night", server.id).await;
    store.tasks.catch_up().await.unwrap();
    store.sql("UPDATE servers SET cpu_millis = 2000");
    store.tasks.catch_up().await.unwrap();
    assert_eq!(cpu(&desk, server.id), 3000, "what was changed past the product is not noticed by itself");
    store.tasks.tell_anew().await.unwrap();
    assert_eq!(cpu(&desk, server.id), 1000);
}
