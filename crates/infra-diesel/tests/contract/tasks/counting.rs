//! The ledger: what servers and pools say is reserved is what attempts hold, or somebody is told.

use super::{check_reserved, ended_now, placed, write};
use crate::{
    on_both,
    store::{Store, at, change, entry_at, millis, once, placement, server_in},
};
use domain::{
    change::Done,
    fleet::{Server, Servers},
    pools::Pool,
    scheduling::{AttemptStep, Placed, Success, Tasks, ledger::Discrepancy},
    units::Resources,
};

on_both!(
    what_agrees_is_neither_told_nor_recorded,
    a_wrong_counter_is_told_and_changes_nothing,
    mending_sets_counters_right_and_records_what_they_were,
    mending_under_a_key_is_replayed,
    who_follows_hears_of_the_mending,
    a_counter_that_is_too_low_keeps_no_task_from_ending,
);

/// A server in a pool that holds a core for a task, and one without a pool that holds two.
async fn world(store: &Store) -> (Pool, Server, Server) {
    let pool = store.pool("edge").await;
    let server = store.servers.create(server_in(pool.id, "edge-1"), change("server.create")).await.unwrap().value;
    let other = store.server("alone").await;
    placed(store, "one", server.id).await;
    placed(store, "two", other.id).await;
    let running = placed(store, "three", other.id).await;
    write(store, &running, running.started(at(70)).unwrap(), AttemptStep::Start).await;
    let ended = placed(store, "four", server.id).await;
    write(store, &ended, ended.cancelled(at(70)).unwrap(), ended_now()).await;
    (pool, server, other)
}

/// Has three of the four counters say what is not so.
fn spoil(store: &Store, (pool, server, _): &(Pool, Server, Server)) -> Vec<Discrepancy> {
    store.sql(&format!("UPDATE servers SET reserved_cpu_millis = 3000, reserved_gpus = 1 WHERE id = {}", server.id));
    store.sql(&format!("UPDATE pools SET reserved_cpu_millis = 0, reserved_memory_mib = 7 WHERE id = {}", pool.id));
    let of_server = Resources { cpu_millis: 3000, gpus: 1, ..Resources::default() };
    let of_pool = Resources { memory_mib: 7, ..Resources::default() };
    vec![
        Discrepancy { target: format!("server:{}", server.id), reserved: of_server, held: millis(1000) },
        Discrepancy { target: format!("pool:{}", pool.id), reserved: of_pool, held: millis(1000) },
    ]
}

async fn what_agrees_is_neither_told_nor_recorded(store: Store) {
    assert_eq!(store.tasks.ledger_check().await.unwrap(), [], "where there is nothing");
    let (_, server, other) = world(&store).await;
    let rows = store.log().await.len();
    assert_eq!(store.tasks.ledger_check().await.unwrap(), []);
    let done = store.tasks.ledger_mend(change("ledger.mend")).await.unwrap();
    assert_eq!(done, Done { value: vec![], replayed: false });
    check_reserved(&store, server.id, millis(1000)).await;
    check_reserved(&store, other.id, millis(2000)).await;
    store.check_chain(rows).await;
}

async fn a_wrong_counter_is_told_and_changes_nothing(store: Store) {
    let world = world(&store).await;
    let found = spoil(&store, &world);
    let rows = store.log().await.len();
    for _ in 0..2 {
        assert_eq!(store.tasks.ledger_check().await.unwrap(), found);
    }
    store.check_chain(rows).await;
    // Every resource of every counter is compared, also where nothing is held.
    store.tasks.ledger_mend(change("ledger.mend")).await.unwrap();
    let idle = store.server("idle").await;
    for column in ["reserved_cpu_millis", "reserved_memory_mib", "reserved_storage_mib", "reserved_gpus"] {
        store.sql(&format!("UPDATE servers SET {column} = 1 WHERE id = {}", idle.id));
        let [one] = store.tasks.ledger_check().await.unwrap().try_into().unwrap();
        assert_eq!((one.target, one.held), (format!("server:{}", idle.id), Resources::default()), "{column}");
        store.sql(&format!("UPDATE servers SET {column} = 0 WHERE id = {}", idle.id));
    }
}

async fn mending_sets_counters_right_and_records_what_they_were(store: Store) {
    let world = world(&store).await;
    let found = spoil(&store, &world);
    let rows = store.log().await.len();
    let done = store.tasks.ledger_mend(entry_at("ledger.mend", 99).into()).await.unwrap();
    assert_eq!(done, Done { value: found.clone(), replayed: false });
    let entry = store.last_row().await.entry;
    assert_eq!((entry.action.as_str(), entry.created_at), ("ledger.mend", at(99)));
    let recorded: Vec<Discrepancy> = serde_json::from_str(&entry.message.unwrap()).unwrap();
    assert_eq!(recorded, found);
    check_reserved(&store, world.1.id, millis(1000)).await;
    check_reserved(&store, world.2.id, millis(2000)).await;
    store.check_chain(rows + 1).await;
    assert_eq!(store.tasks.ledger_mend(change("ledger.mend")).await.unwrap().value, []);
    store.check_chain(rows + 1).await;
}

async fn mending_under_a_key_is_replayed(store: Store) {
    let world = world(&store).await;
    let found = spoil(&store, &world);
    let mend = || store.tasks.ledger_mend(once("ledger.mend", "k-1", 0));
    assert_eq!(mend().await.unwrap(), Done { value: found.clone(), replayed: false });
    let rows = store.log().await.len();
    let again = spoil(&store, &world);
    assert_eq!(mend().await.unwrap(), Done { value: found, replayed: true });
    assert_eq!(store.tasks.ledger_check().await.unwrap(), again, "a replay mends nothing");
    store.check_chain(rows).await;
}

async fn who_follows_hears_of_the_mending(store: Store) {
    let world = world(&store).await;
    let desk = store.desk();
    spoil(&store, &world);
    store.tasks.catch_up().await.unwrap();
    let free = || desk.with(|engine| engine.fleet().free(world.1.id).unwrap().cpu_millis);
    assert_eq!(free(), 1000);
    store.tasks.ledger_mend(change("ledger.mend")).await.unwrap();
    assert_eq!(free(), 3000);
}

async fn a_counter_that_is_too_low_keeps_no_task_from_ending(store: Store) {
    let server = store.server("edge-1").await;
    let task = placed(&store, "night", server.id).await;
    let task = write(&store, &task, task.started(at(70)).unwrap(), AttemptStep::Start).await;
    store.sql("UPDATE servers SET reserved_cpu_millis = 0");
    let done = task.completed(Success::Yes, at(80)).unwrap();
    write(&store, &task, done, ended_now()).await;
    check_reserved(&store, server.id, millis(0)).await;
    let next = store.task("next").await;
    assert_eq!(store.tasks.place(vec![placement(&next, server.id)]).await.unwrap(), [Placed::Held]);
}
