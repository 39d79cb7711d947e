//! Taking room: where there still is, and for nothing that is not as it was planned for.

use super::{check_reserved, place_again};
use crate::{
    on_both,
    store::{
        Store, change, check_conflict, check_not_found, check_stale, entry_at, millis, new_pool, new_server, new_task,
        once, placement, server_in,
    },
};
use domain::{
    change::{Done, Once},
    fleet::{Architecture, NewServer, Server, Servers},
    ids::ServerId,
    page::PageRequest,
    pools::{NewPool, Pool, Pools, Quotas},
    scheduling::{
        ArchitectureNeed, AttemptStatus, NewTask, Placed, Placement, Task, TaskFilter, TaskSpec, TaskStatus, Tasks,
    },
    units::Resources,
};

on_both!(
    placements_take_room_on_servers_and_in_pools,
    no_more_is_given_out_than_there_is,
    what_moved_takes_nothing_else_with_it,
    a_task_is_never_placed_twice,
    a_server_that_changed_its_architecture_takes_no_task_of_another,
    a_placement_under_a_key_is_replayed,
    a_single_placement_that_moved_is_stale,
    a_task_is_stored_with_its_place,
    a_task_whose_place_has_gone_is_not_stored,
    a_task_with_its_place_is_stored_once_under_its_key,
);

async fn pool_of(store: &Store, name: &str, cpu_millis: Option<i64>) -> Pool {
    let quotas = Quotas { cpu_millis, ..Quotas::default() };
    store.pools.create(NewPool { quotas, ..new_pool(name) }, change("pool.create")).await.unwrap().value
}

async fn server_of(store: &Store, new: NewServer) -> Server {
    store.servers.create(new, change("server.create")).await.unwrap().value
}

async fn place(store: &Store, placements: &[Placement]) -> Vec<Placed> {
    store.tasks.place(placements.to_vec()).await.unwrap()
}

/// A task that asks for some of everything.
async fn broad(store: &Store, name: &str, demand: Resources) -> Task {
    let spec = TaskSpec { demand, ..new_task(name).spec };
    store.tasks.create(NewTask { spec }, change("task.create")).await.unwrap().value
}

async fn check_untouched(store: &Store, task: &Task) {
    assert_eq!(store.tasks.get(task.id).await.unwrap(), *task);
    assert_eq!(store.tasks.attempts(task.id).await.unwrap(), []);
}

async fn placements_take_room_on_servers_and_in_pools(store: Store) {
    let pool = pool_of(&store, "edge", None).await;
    let servers = [
        server_of(&store, server_in(pool.id, "edge-1")).await,
        server_of(&store, server_in(pool.id, "edge-2")).await,
        store.server("alone").await,
    ];
    let demand = |n| Resources { cpu_millis: 100 * n, memory_mib: 10 * n, storage_mib: n, gpus: n % 2 };
    let mut tasks = Vec::new();
    for n in 1..=4 {
        tasks.push(broad(&store, &format!("task-{n}"), demand(n)).await);
    }
    // The first server gets the first and the last of them.
    let on = [&servers[0], &servers[1], &servers[2], &servers[0]];
    let placements: Vec<Placement> = tasks.iter().zip(on).map(|(task, on)| placement(task, on.id)).collect();
    let rows = store.log().await.len();
    assert_eq!(place(&store, &placements).await, [const { Placed::Held }; 4]);
    for placement in &placements {
        assert_eq!(store.tasks.get(placement.task.id).await.unwrap(), placement.task);
        assert_eq!(store.tasks.attempts(placement.task.id).await.unwrap(), std::slice::from_ref(&placement.attempt));
    }
    check_reserved(&store, servers[0].id, demand(1).plus(demand(4))).await;
    check_reserved(&store, servers[1].id, demand(2)).await;
    check_reserved(&store, servers[2].id, demand(3)).await;
    let log = store.log().await;
    let recorded = log.iter().skip(rows).map(|row| &row.entry);
    assert!(recorded.eq(placements.iter().map(|placement| &placement.entry)), "a row for each, as it was given");
    store.check_chain(rows + 4).await;
}

async fn no_more_is_given_out_than_there_is(store: Store) {
    let pool = pool_of(&store, "edge", Some(5000)).await;
    let (first, second) =
        (server_of(&store, server_in(pool.id, "edge-1")).await, server_of(&store, server_in(pool.id, "edge-2")).await);
    let mut placements = Vec::new();
    for n in 0..8 {
        let on = if n < 5 { &first } else { &second };
        placements.push(placement(&store.task(&format!("task-{n}")).await, on.id));
    }
    // Four cores are all that the first server has; the fifth that the quota allows is the second server's.
    let answers = place(&store, &placements).await;
    let held = answers.iter().map(|placed| *placed == Placed::Held);
    assert!(held.eq([true, true, true, true, false, true, false, false]), "{answers:?}");
    check_reserved(&store, first.id, millis(4000)).await;
    check_reserved(&store, second.id, millis(1000)).await;
    for (placement, answer) in placements.iter().zip(&answers) {
        let task = store.tasks.get(placement.task.id).await.unwrap();
        let expected = if *answer == Placed::Held { TaskStatus::Scheduled } else { TaskStatus::Pending };
        assert_eq!(task.status, expected);
    }
    // What asks for nothing of the resource that is used up has room.
    let modest = broad(&store, "modest", Resources { memory_mib: 2048, ..Resources::default() }).await;
    assert_eq!(place(&store, &[placement(&modest, first.id)]).await, [Placed::Held]);
}

/// What happens to a task, its server or its pool after it was planned.
const CHANGES: [(&str, &str); 11] = [
    ("the task has changed", "UPDATE tasks SET revision = 2 WHERE id = {task}"),
    ("the task is not pending", "UPDATE tasks SET status = 'cancelled' WHERE id = {task}"),
    ("the task is gone", "DELETE FROM tasks WHERE id = {task}"),
    ("the server is cordoned", "UPDATE servers SET cordoned = TRUE WHERE id = {server}"),
    ("the server is offline", "UPDATE servers SET status = 'offline' WHERE id = {server}"),
    ("the server is maintained", "UPDATE servers SET status = 'maintenance' WHERE id = {server}"),
    ("the server is set up", "UPDATE servers SET status = 'provisioning' WHERE id = {server}"),
    ("the server is gone", "DELETE FROM servers WHERE id = {server}"),
    ("the server is smaller", "UPDATE servers SET cpu_millis = 999 WHERE id = {server}"),
    ("the quota is lower", "UPDATE pools SET quota_cpu_millis = 999 WHERE id = {pool}"),
    ("the pool is saturated", "UPDATE pools SET state = 'saturated' WHERE id = {pool}"),
];

async fn what_moved_takes_nothing_else_with_it(store: Store) {
    for (n, (what, sql)) in CHANGES.iter().enumerate() {
        let pool = pool_of(&store, &format!("pool-{n}"), Some(1000)).await;
        let (server, good) =
            (server_of(&store, server_in(pool.id, &format!("s-{n}"))).await, store.server(&format!("g-{n}")).await);
        let tasks = [store.task("first").await, store.task("moves").await, store.task("last").await];
        let on = [good.id, server.id, good.id];
        let placements: Vec<Placement> = tasks.iter().zip(on).map(|(task, on)| placement(task, on)).collect();
        let ids = [("{task}", tasks[1].id.0), ("{server}", server.id.0), ("{pool}", pool.id.0)];
        store.sql(&ids.iter().fold((*sql).to_owned(), |sql, (name, id)| sql.replace(name, &id.to_string())));
        let before = store.tasks.get(tasks[1].id).await.ok();
        let rows = store.log().await.len();

        assert_eq!(place(&store, &placements).await, [Placed::Held, Placed::Moved, Placed::Held], "{what}");
        check_reserved(&store, good.id, millis(2000)).await;
        if let Ok(server) = store.servers.get(server.id).await {
            assert!(server.reserved.is_zero(), "{what}");
        }
        match before {
            Some(before) => check_untouched(&store, &before).await,
            None => check_not_found(store.tasks.get(tasks[1].id).await),
        }
        store.check_chain(rows + 2).await;
    }
}

async fn a_task_is_never_placed_twice(store: Store) {
    let (server, other) = (store.server("edge-1").await, store.server("edge-2").await);
    let task = store.task("night").await;
    let (here, there) = (placement(&task, server.id), placement(&task, other.id));
    let answers = place(&store, &[here.clone(), here.clone(), there.clone()]).await;
    assert_eq!(answers, [Placed::Held, Placed::Moved, Placed::Moved]);
    for again in [&here, &there] {
        assert_eq!(place(&store, std::slice::from_ref(again)).await, [Placed::Moved]);
        check_stale(store.tasks.place_one(again.clone(), None).await, 2);
    }
    assert_eq!(store.tasks.get(task.id).await.unwrap(), here.task);
    assert_eq!(store.tasks.attempts(task.id).await.unwrap(), [here.attempt]);
    check_reserved(&store, server.id, millis(1000)).await;
    check_reserved(&store, other.id, millis(0)).await;
    store.check_log(&["server.create", "server.create", "task.create", "task.dispatch"]).await;
}

async fn a_server_that_changed_its_architecture_takes_no_task_of_another(store: Store) {
    let server = store.server("edge-1").await;
    let architecture = ArchitectureNeed::Only(Architecture::X86_64);
    let new = NewTask { spec: TaskSpec { architecture, ..new_task("night").spec } };
    let task = store.tasks.create(new, change("task.create")).await.unwrap().value;
    let planned = placement(&task, server.id);
    let changed = Server { architecture: Architecture::Riscv64, revision: server.revision + 1, ..server.clone() };
    store.servers.update(changed, change("server.update")).await.unwrap();
    assert_eq!(place(&store, &[planned]).await, [Placed::Moved]);
    check_untouched(&store, &task).await;
    check_reserved(&store, server.id, millis(0)).await;
}

fn key(text: &str) -> Option<Once> {
    once("", text, 0).once
}

async fn a_placement_under_a_key_is_replayed(store: Store) {
    let server = store.server("edge-1").await;
    let task = store.task("night").await;
    let placement = placement(&task, server.id);
    let place_it = || store.tasks.place_one(placement.clone(), key("k-1"));
    assert_eq!(place_it().await.unwrap(), Done { value: placement.task.clone(), replayed: false });
    assert_eq!(place_it().await.unwrap(), Done { value: placement.task.clone(), replayed: true });
    let row = store.last_row().await;
    assert_eq!(row.entry, placement.entry);
    store
        .tasks
        .update(placement.task.cancelled(crate::store::at(70)).unwrap(), super::ended_now(), change("task.cancel"))
        .await
        .unwrap();
    assert_eq!(place_it().await.unwrap(), Done { value: placement.task.clone(), replayed: true });
    check_reserved(&store, server.id, millis(0)).await;
    store.check_log(&["server.create", "task.create", "task.dispatch", "task.cancel"]).await;
}

async fn a_single_placement_that_moved_is_stale(store: Store) {
    let server = store.server("edge-1").await;
    let task = store.task("night").await;
    let cordoned = server.with_cordon(true, crate::store::at(1)).unwrap();
    let cordoned = store.servers.update(cordoned, change("server.cordon")).await.unwrap().value;
    check_stale(store.tasks.place_one(placement(&task, server.id), key("k-1")).await, 1);
    check_stale(store.tasks.place_one(placement(&task, ServerId(99)), None).await, 1);
    check_untouched(&store, &task).await;
    // The key was not used up.
    let open = cordoned.with_cordon(false, crate::store::at(2)).unwrap();
    store.servers.update(open, change("server.uncordon")).await.unwrap();
    assert!(!store.tasks.place_one(placement(&task, server.id), key("k-1")).await.unwrap().replayed);
    let actions = ["server.create", "task.create", "server.cordon", "server.uncordon", "task.dispatch"];
    store.check_log(&actions).await;
}

async fn a_task_is_stored_with_its_place(store: Store) {
    let pool = pool_of(&store, "edge", Some(1000)).await;
    let server = server_of(&store, server_in(pool.id, "edge-1")).await;
    let change = entry_at("task.create", 5).into();
    let Done { value: task, replayed } = store.tasks.create_placed(new_task("night"), server.id, change).await.unwrap();
    assert!(!replayed);
    let at = crate::store::at(5);
    assert_eq!(task, new_task("night").into_task(task.id, at).placed(server.id, at).unwrap());
    assert_eq!(store.tasks.get(task.id).await.unwrap(), task);
    let attempts = store.tasks.attempts(task.id).await.unwrap();
    assert_eq!(attempts, [domain::scheduling::Attempt::opened(&task, at).unwrap()]);
    check_reserved(&store, server.id, millis(1000)).await;
    let row = store.last_row().await;
    assert_eq!(row.entry.target, Some(format!("task:{}", task.id)));
    assert_eq!(row.entry.after, Some(serde_json::to_value(&task).unwrap()));
    store.check_log(&["pool.create", "server.create", "task.create"]).await;
}

async fn a_task_whose_place_has_gone_is_not_stored(store: Store) {
    let create = |server| store.tasks.create_placed(new_task("night"), server, change("task.create"));
    let changes = CHANGES.iter().filter(|(_, sql)| !sql.contains("{task}"));
    for (n, (what, sql)) in changes.enumerate() {
        let pool = pool_of(&store, &format!("pool-{n}"), Some(1000)).await;
        let server = server_of(&store, server_in(pool.id, &format!("s-{n}"))).await;
        store.sql(&sql.replace("{server}", &server.id.0.to_string()).replace("{pool}", &pool.id.0.to_string()));
        let rows = store.log().await.len();
        let reason = check_conflict(create(server.id).await, "plan_stale");
        assert!(reason.contains("plan again"), "{reason}");
        assert_eq!(store.tasks.list(TaskFilter::default(), PageRequest::default()).await.unwrap().total, 0, "{what}");
        assert_eq!(store.tasks.ledger_check().await.unwrap(), []);
        store.check_chain(rows).await;
    }
    // The last core of a server is given once.
    let server = server_of(&store, NewServer { capacity: millis(1000), ..new_server("small") }).await;
    assert_eq!(create(server.id).await.unwrap().value.status, TaskStatus::Scheduled);
    check_conflict(create(server.id).await, "plan_stale");
    check_reserved(&store, server.id, millis(1000)).await;
}

async fn a_task_with_its_place_is_stored_once_under_its_key(store: Store) {
    let server = server_of(&store, NewServer { capacity: millis(1000), ..new_server("small") }).await;
    let create = || store.tasks.create_placed(new_task("night"), server.id, once("task.create", "k-1", 0));
    let first = create().await.unwrap();
    assert_eq!(create().await.unwrap(), Done { value: first.value.clone(), replayed: true });
    check_reserved(&store, server.id, millis(1000)).await;
    store.check_log(&["server.create", "task.create"]).await;
    let attempt = &store.tasks.attempts(first.value.id).await.unwrap()[0];
    assert_eq!((attempt.status, attempt.held), (AttemptStatus::Scheduled, true));
    let next = store.task("next").await;
    assert_eq!(place(&store, &[placement(&next, server.id)]).await, [Placed::Moved]);
    let room = store.server("large").await;
    place_again(&store, &next, room.id).await;
}
