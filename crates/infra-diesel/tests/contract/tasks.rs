//! The port `Tasks`: what is stored of a task and its attempts. How room is taken, counted and told is in the modules
//! below.

mod counting;
mod following;
mod placing;
mod racing;
mod serving;

use crate::{
    on_both,
    store::{
        Store, at, change, check_conflict, check_not_found, check_stale, entry_at, millis, new_server, new_task, once,
        placement, server_in, tags, walk,
    },
};
use domain::{
    Error,
    audit::AuditEntry,
    change::Done,
    clock::Timestamp,
    fleet::{Architecture, NewServer, Server, Servers},
    ids::{PoolId, ServerId, TaskId},
    page::PageRequest,
    pools::Pools,
    scheduling::{
        ArchitectureNeed, ArchitectureSet, Attempt, AttemptEnd, AttemptStatus, AttemptStep, Environment, Mount,
        NewTask, Placed, PortMapping, Priority, Protocol, RestartPolicy, Success, Task, TaskDriver, TaskFilter,
        TaskKind, TaskSpec, TaskStatus, Tasks,
    },
    units::Resources,
};
use std::cell::Cell;

on_both!(
    a_posted_task_is_pending_and_read_back_as_it_was_posted,
    a_task_asks_for_a_pool_that_exists,
    what_is_not_there_is_not_found,
    filters_must_all_match,
    pages_neither_repeat_nor_skip,
    attempts_are_told_newest_first,
    an_update_says_what_becomes_of_the_attempt,
    an_attempt_gives_back_what_it_held_once,
    what_is_barred_to_a_task_is_kept_until_it_is_retried,
    an_update_from_an_old_revision_is_stale,
    a_task_that_holds_room_stays,
    a_deleted_task_is_gone_with_its_attempts,
    servers_and_pools_that_tasks_need_stay,
    a_server_stays_though_its_work_asks_for_nothing,
    every_kind_of_write_is_replayed,
);

/// Every member has a value.
fn full(pool: PoolId) -> TaskSpec {
    let env = [("DB_PASSWORD".to_owned(), "hunter-55".to_owned())].into();
    TaskSpec {
        architecture: ArchitectureNeed::Only(Architecture::Riscv64),
        demand: Resources { cpu_millis: 1, memory_mib: 1 << 40, storage_mib: 0, gpus: 8 },
        kind: TaskKind::Service,
        driver: TaskDriver::Docker,
        image: Some("Registry/Render:2".to_owned()),
        command: vec!["render".to_owned(), "--all".to_owned()],
        env: Environment::parse(env).unwrap(),
        ports: vec![PortMapping { container_port: 80, host_port: Some(8080), protocol: Protocol::Udp }],
        mounts: vec![Mount { source: "data".to_owned(), target: "/data".to_owned(), read_only: true }],
        pool_id: Some(pool),
        labels: tags(&[("zone", "a")]),
        allow_emulation: true,
        priority: Priority::parse(5).unwrap(),
        deadline: Some(at(3600)),
        restart: RestartPolicy::OnFailure,
        max_attempts: 3,
        timeout_seconds: Some(60),
        grace_seconds: Some(10),
        log_limit_mib: Some(64),
        metadata: [("ticket".to_owned(), serde_json::json!({ "id": 7 }))].into(),
        ..new_task("night").spec
    }
}

/// The entry of a task that went on.
fn moved(action: &str, before: &Task, after: &Task) -> AuditEntry {
    entry_at(action, 90).moved(after, before.position(), after.position())
}

/// A task that may be tried three times, placed on this server.
async fn placed(store: &Store, text: &str, server: ServerId) -> Task {
    let spec = TaskSpec { max_attempts: 3, ..new_task(text).spec };
    let task = store.tasks.create(NewTask { spec }, change("task.create")).await.unwrap().value;
    place_again(store, &task, server).await
}

pub(crate) async fn place_again(store: &Store, task: &Task, server: ServerId) -> Task {
    assert_eq!(store.tasks.place(vec![placement(task, server)]).await.unwrap(), [Placed::Held]);
    store.tasks.get(task.id).await.unwrap()
}

pub(crate) async fn write(store: &Store, before: &Task, after: Task, step: AttemptStep) -> Task {
    let change = moved("task.update", before, &after).into();
    store.tasks.update(after, step, change).await.unwrap().value
}

pub(crate) async fn newest_attempt(store: &Store, task: TaskId) -> Attempt {
    store.tasks.attempts(task).await.unwrap().remove(0)
}

fn ended(status: AttemptStatus, reason: Option<&str>) -> AttemptStep {
    AttemptStep::End(AttemptEnd::by_hand(status, reason))
}

/// Fails unless so much is reserved on the server, and all counters agree with what attempts hold.
pub(crate) async fn check_reserved(store: &Store, server: ServerId, expected: Resources) {
    assert_eq!(store.servers.get(server).await.unwrap().reserved, expected, "on server {server}");
    assert_eq!(store.tasks.ledger_check().await.unwrap(), []);
}

async fn a_posted_task_is_pending_and_read_back_as_it_was_posted(store: Store) {
    let pool = store.pool("edge").await;
    for spec in [new_task("plain").spec, full(pool.id)] {
        let new = NewTask { spec };
        let done = store.tasks.create(new.clone(), entry_at("task.create", 5).into()).await.unwrap();
        let task = new.into_task(done.value.id, at(5));
        assert_eq!((task.status, task.attempt, task.revision), (TaskStatus::Pending, 0, 1));
        assert_eq!(done, Done { value: task.clone(), replayed: false });
        assert_eq!(store.tasks.get(task.id).await.unwrap(), task);
        assert_eq!(store.tasks.attempts(task.id).await.unwrap(), []);
        let row = store.last_row().await;
        assert_eq!(row.entry.target, Some(format!("task:{}", task.id)));
        assert_eq!(row.entry.after, Some(serde_json::to_value(&task).unwrap()));
        assert!(!serde_json::to_string(&row).unwrap().contains("hunter-55"), "a secret of its environment");
    }
    store.check_log(&["pool.create", "task.create", "task.create"]).await;
}

async fn a_task_asks_for_a_pool_that_exists(store: Store) {
    let spec = TaskSpec { pool_id: Some(PoolId(7)), ..new_task("night").spec };
    let server = store.server("edge-1").await;
    let refusals = [
        store.tasks.create(NewTask { spec: spec.clone() }, change("task.create")).await,
        store.tasks.create_placed(NewTask { spec }, server.id, change("task.create")).await,
    ];
    for refused in refusals {
        let Err(Error::Invalid { errors }) = refused else { panic!("{refused:?}") };
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "pool_id");
    }
    let stored = store.tasks.list(TaskFilter::default(), PageRequest::default()).await.unwrap();
    assert_eq!(stored.total, 0);
    store.check_log(&["server.create"]).await;
}

async fn what_is_not_there_is_not_found(store: Store) {
    check_not_found(store.tasks.get(TaskId(1)).await);
    check_not_found(store.tasks.attempts(TaskId(1)).await);
    let task = store.task("night").await;
    store.tasks.delete(task.clone(), change("task.delete")).await.unwrap();
    let cancelled = task.cancelled(at(1)).unwrap();
    check_not_found(store.tasks.get(task.id).await);
    check_not_found(store.tasks.attempts(task.id).await);
    check_not_found(store.tasks.update(cancelled, AttemptStep::Keep, change("task.cancel")).await);
    check_not_found(store.tasks.delete(task.clone(), change("task.delete")).await);
    assert!(store.task("night").await.id > task.id, "an id that audit rows name is not given again");
    store.check_log(&["task.create", "task.delete", "task.create"]).await;
}

async fn filters_must_all_match(store: Store) {
    let pool = store.pool("edge").await;
    let new = NewServer { pool_id: Some(pool.id), architecture: Architecture::Riscv64, ..new_server("edge-1") };
    let server = store.servers.create(new, change("server.create")).await.unwrap().value;
    let post = |spec| store.tasks.create(NewTask { spec }, change("task.create"));
    let here = TaskSpec { driver: TaskDriver::None, labels: new_task("here").spec.labels, ..full(pool.id) };
    let night = post(TaskSpec { demand: millis(1), ..here }).await.unwrap().value;
    let night = place_again(&store, &night, server.id).await;
    let plain = post(TaskSpec { pool_id: Some(pool.id), ..new_task("Plain_1").spec }).await.unwrap().value;
    let ended = placed(&store, "Überlauf 100%", server.id).await;
    let ended = write(&store, &ended, ended.cancelled(at(70)).unwrap(), ended_now()).await;
    let keyword = |text: &str| TaskFilter { keyword: Some(text.to_owned()), ..TaskFilter::default() };
    let status = |status| TaskFilter { status: Some(status), ..TaskFilter::default() };
    let on = |id| TaskFilter { server_id: Some(id), ..TaskFilter::default() };
    let within = |id| TaskFilter { pool_id: Some(id), ..TaskFilter::default() };
    let cases: [(TaskFilter, &[&Task]); 15] = [
        (TaskFilter::default(), &[&ended, &plain, &night]),
        (status(TaskStatus::Pending), &[&plain]),
        (status(TaskStatus::Scheduled), &[&night]),
        (status(TaskStatus::Unknown), &[]),
        (on(server.id), &[&ended, &night]),
        (on(ServerId(99)), &[]),
        (within(pool.id), &[&plain, &night]),
        (within(PoolId(99)), &[]),
        (keyword("RENDER"), &[&night]),
        (keyword("nIGHT"), &[&night]),
        (keyword("n_1"), &[&plain]),
        (keyword("ÜBERLAUF 100%"), &[&ended]),
        (keyword("%"), &[&ended]),
        (TaskFilter { status: Some(TaskStatus::Scheduled), ..within(pool.id) }, &[&night]),
        (TaskFilter { keyword: Some("plain".to_owned()), ..on(server.id) }, &[]),
    ];
    for (filter, expected) in cases {
        let page = store.tasks.list(filter.clone(), PageRequest::default()).await.unwrap();
        assert_eq!(page.items.iter().collect::<Vec<_>>(), expected, "{filter:?}");
        assert_eq!(page.total, i64::try_from(expected.len()).unwrap(), "{filter:?}");
        assert_eq!(page.next, None);
    }
}

fn ended_now() -> AttemptStep {
    ended(AttemptStatus::Cancelled, Some("cancelled"))
}

async fn pages_neither_repeat_nor_skip(store: Store) {
    for n in 0..7 {
        store.task(&format!("task-{n}")).await;
    }
    for limit in [1, 2, 7, 8] {
        let list = |page| store.tasks.list(TaskFilter::default(), page);
        let there = list(PageRequest::default()).await.unwrap().items;
        assert!(there.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
        let n = Cell::new(0);
        let meanwhile = || async {
            n.set(n.get() + 1);
            store.task(&format!("new-{limit}-{}", n.get())).await;
        };
        assert_eq!(walk(limit, list, meanwhile).await, there, "{limit} at a time");
    }
}

async fn attempts_are_told_newest_first(store: Store) {
    let (server, other) = (store.server("edge-1").await, store.server("edge-2").await);
    let mut task = placed(&store, "night", server.id).await;
    for (number, at_server) in [(1, &server), (2, &other)] {
        let running = write(&store, &task, task.started(at(70)).unwrap(), AttemptStep::Start).await;
        let failed = running.completed(Success::No, at(80)).unwrap();
        let failed = write(&store, &running, failed, ended(AttemptStatus::Failed, Some("attempt_failed"))).await;
        assert_eq!((failed.status, failed.attempt), (TaskStatus::Pending, number));
        task = place_again(&store, &failed, at_server.id).await;
    }
    let expected = |number, server: &Server, status, reason: Option<&str>, started: Option<Timestamp>| Attempt {
        task_id: task.id,
        number,
        server_id: server.id,
        demand: millis(1000),
        status,
        exit_code: None,
        signal: None,
        reason: reason.map(str::to_owned),
        started_at: started,
        finished_at: started.map(|_| at(80)),
        created_at: at(60),
        held: status == AttemptStatus::Scheduled,
    };
    let failed = |number, server| expected(number, server, AttemptStatus::Failed, Some("attempt_failed"), Some(at(70)));
    let third = expected(3, &other, AttemptStatus::Scheduled, None, None);
    assert_eq!(store.tasks.attempts(task.id).await.unwrap(), [third, failed(2, &server), failed(1, &server)]);
    let elsewhere = store.task("other").await;
    assert_eq!(store.tasks.attempts(elsewhere.id).await.unwrap(), []);
}

async fn an_update_says_what_becomes_of_the_attempt(store: Store) {
    let pool = store.pool("edge").await;
    let server = store.servers.create(server_in(pool.id, "edge-1"), change("server.create")).await.unwrap().value;
    let task = placed(&store, "night", server.id).await;
    let opened = newest_attempt(&store, task.id).await;

    let lost = Task { status: TaskStatus::Unknown, revision: task.revision + 1, updated_at: at(65), ..task.clone() };
    let lost = write(&store, &task, lost, AttemptStep::Keep).await;
    assert_eq!(store.tasks.get(task.id).await.unwrap(), lost);
    assert_eq!(newest_attempt(&store, task.id).await, opened);
    let found = Task { status: TaskStatus::Scheduled, revision: lost.revision + 1, ..lost.clone() };
    let found = write(&store, &lost, found, AttemptStep::Keep).await;

    let running = write(&store, &found, found.started(at(70)).unwrap(), AttemptStep::Start).await;
    assert_eq!(store.tasks.get(task.id).await.unwrap(), running);
    assert_eq!(newest_attempt(&store, task.id).await, opened.stepped(&AttemptStep::Start, at(70)));
    check_reserved(&store, server.id, millis(1000)).await;

    let done = running.completed(Success::Yes, at(80)).unwrap();
    let done = write(&store, &running, done, ended(AttemptStatus::Completed, None)).await;
    assert_eq!(store.tasks.get(task.id).await.unwrap(), done);
    let end = ended(AttemptStatus::Completed, None);
    let finished = opened.stepped(&AttemptStep::Start, at(70)).stepped(&end, at(80));
    assert_eq!(newest_attempt(&store, task.id).await, finished);
    check_reserved(&store, server.id, millis(0)).await;
    let row = store.last_row().await;
    assert_eq!((row.entry.before, row.entry.after), (Some(running.position()), Some(done.position())));
    store.check_chain(8).await;
}

async fn what_is_barred_to_a_task_is_kept_until_it_is_retried(store: Store) {
    let server = store.server("edge-1").await;
    let architectures = |all: &[Architecture]| all.iter().copied().collect::<ArchitectureSet>();
    let task = placed(&store, "night", server.id).await;
    assert_eq!(task.barred, architectures(&[]));
    let running = write(&store, &task, task.started(at(70)).unwrap(), AttemptStep::Start).await;
    let barred = architectures(&[Architecture::Riscv64, server.architecture]);
    let failed = Task { barred, ..running.completed(Success::No, at(80)).unwrap() };
    let failed = write(&store, &running, failed, ended(AttemptStatus::Failed, Some("exec_format"))).await;
    assert_eq!(store.tasks.get(task.id).await.unwrap(), failed);
    let listed = store.tasks.list(TaskFilter::default(), PageRequest::default()).await.unwrap().items;
    assert_eq!(listed, std::slice::from_ref(&failed));
    // Also to a process that begins now.
    store.desk().with(|engine| assert_eq!(engine.dispatch(&failed), None));
    assert_eq!(store.tasks.place(vec![placement(&failed, server.id)]).await.unwrap(), [Placed::Moved]);
    let cancelled = write(&store, &failed, failed.cancelled(at(90)).unwrap(), AttemptStep::Keep).await;
    assert_eq!(store.tasks.get(task.id).await.unwrap().barred, barred);
    let retried = write(&store, &cancelled, cancelled.retried(at(91)).unwrap(), AttemptStep::Keep).await;
    assert_eq!(store.tasks.get(task.id).await.unwrap().barred, architectures(&[]));
    place_again(&store, &retried, server.id).await;
}

async fn an_attempt_gives_back_what_it_held_once(store: Store) {
    let server = store.server("edge-1").await;
    let other = placed(&store, "stays", server.id).await;
    let task = placed(&store, "night", server.id).await;
    check_reserved(&store, server.id, millis(2000)).await;
    let mut last = write(&store, &task, task.cancelled(at(70)).unwrap(), ended_now()).await;
    let attempt = newest_attempt(&store, task.id).await;
    for _ in 0..2 {
        check_reserved(&store, server.id, millis(1000)).await;
        let again = Task { revision: last.revision + 1, updated_at: at(99), ..last.clone() };
        last = write(&store, &last, again, ended(AttemptStatus::Failed, None)).await;
        assert_eq!(newest_attempt(&store, task.id).await, attempt, "what has ended has ended");
    }
    assert!(newest_attempt(&store, other.id).await.held);
    // A task without an attempt has nothing to give back.
    let pending = store.task("pending").await;
    write(&store, &pending, pending.cancelled(at(70)).unwrap(), ended_now()).await;
    check_reserved(&store, server.id, millis(1000)).await;
}

async fn an_update_from_an_old_revision_is_stale(store: Store) {
    let server = store.server("edge-1").await;
    let task = placed(&store, "night", server.id).await;
    let before = Task { revision: task.revision - 1, ..task.clone() };
    let running = write(&store, &task, task.started(at(70)).unwrap(), AttemptStep::Start).await;
    let attempt = newest_attempt(&store, task.id).await;
    for old in [&before, &task] {
        let after = old.cancelled(at(80)).unwrap();
        check_stale(store.tasks.update(after, ended_now(), change("task.cancel")).await, 3);
        check_stale(store.tasks.delete(old.clone(), change("task.delete")).await, 3);
    }
    let ahead = Task { revision: running.revision + 2, ..running.clone() };
    check_stale(store.tasks.update(ahead, ended_now(), change("task.cancel")).await, 3);
    assert_eq!(store.tasks.get(task.id).await.unwrap(), running);
    assert_eq!(newest_attempt(&store, task.id).await, attempt);
    check_reserved(&store, server.id, millis(1000)).await;
    store.check_log(&["server.create", "task.create", "task.dispatch", "task.update"]).await;
}

async fn a_task_that_holds_room_stays(store: Store) {
    let server = store.server("edge-1").await;
    let task = placed(&store, "night", server.id).await;
    let reason = check_conflict(store.tasks.delete(task.clone(), change("task.delete")).await, "task_is_live");
    assert!(reason.contains("\"night\""), "{reason}");
    let running = write(&store, &task, task.started(at(70)).unwrap(), AttemptStep::Start).await;
    check_conflict(store.tasks.delete(running, change("task.delete")).await, "task_is_live");
    assert_eq!(store.tasks.attempts(task.id).await.unwrap().len(), 1);
    check_reserved(&store, server.id, millis(1000)).await;
    store.check_log(&["server.create", "task.create", "task.dispatch", "task.update"]).await;
}

async fn a_deleted_task_is_gone_with_its_attempts(store: Store) {
    let server = store.server("edge-1").await;
    let (task, other) = (placed(&store, "night", server.id).await, placed(&store, "stays", server.id).await);
    let task = write(&store, &task, task.cancelled(at(70)).unwrap(), ended_now()).await;
    let entry = entry_at("task.delete", 90).deleted(&task);
    let done = store.tasks.delete(task.clone(), entry.into()).await.unwrap();
    assert_eq!(done, Done { value: (), replayed: false });
    check_not_found(store.tasks.attempts(task.id).await);
    let row = store.last_row().await;
    assert_eq!(row.entry.before, Some(serde_json::to_value(&task).unwrap()));
    store.sql(&format!("INSERT INTO tasks SELECT {} FROM tasks WHERE id = {}", columns_as(task.id), other.id));
    assert_eq!(store.tasks.attempts(task.id).await.unwrap(), [], "none is left behind");
    assert_eq!(store.tasks.attempts(other.id).await.unwrap().len(), 1);
}

async fn servers_and_pools_that_tasks_need_stay(store: Store) {
    let (pool, server) = (store.pool("edge").await, store.server("edge-1").await);
    let spec = TaskSpec { pool_id: Some(pool.id), ..new_task("picky").spec };
    let picky = store.tasks.create(NewTask { spec }, change("task.create")).await.unwrap().value;
    let task = placed(&store, "night", server.id).await;
    let delete_pool = || store.pools.delete(pool.clone(), change("pool.delete"));
    let delete_server = || store.servers.delete(server.clone(), change("server.delete"));
    check_conflict(delete_pool().await, "pool_in_use");
    let reason = check_conflict(delete_server().await, "server_in_use");
    assert!(reason.contains(&format!("task {} \"night\"", task.id)), "{reason}");
    write(&store, &picky, picky.cancelled(at(70)).unwrap(), AttemptStep::Keep).await;
    write(&store, &task, task.cancelled(at(70)).unwrap(), ended_now()).await;
    delete_pool().await.unwrap();
    delete_server().await.unwrap();
    assert_eq!(store.tasks.get(task.id).await.unwrap().server_id, Some(server.id), "a task outlives its server");
    assert_eq!(store.tasks.attempts(task.id).await.unwrap().len(), 1);
}

async fn a_server_stays_though_its_work_asks_for_nothing(store: Store) {
    let server = store.server("edge-1").await;
    let spec = TaskSpec { demand: millis(0), ..new_task("light").spec };
    let task = store.tasks.create(NewTask { spec }, change("task.create")).await.unwrap().value;
    place_again(&store, &task, server.id).await;
    let reason = check_conflict(store.servers.delete(server.clone(), change("server.delete")).await, "server_in_use");
    assert!(reason.contains("\"light\""), "{reason}");
}

/// The columns of a task, with another id.
fn columns_as(id: TaskId) -> String {
    format!(
        "{id}, spec, status, pool_id, attempt, server_id, reason, detail, search_text, revision, created_at_us, \
         updated_at_us, scheduled_at_us, started_at_us, finished_at_us, barred"
    )
}

async fn every_kind_of_write_is_replayed(store: Store) {
    let server = store.server("edge-1").await;
    let create = || store.tasks.create(new_task("night"), once("task.create", "create", 0));
    let created = create().await.unwrap().value;
    let task = place_again(&store, &created, server.id).await;
    let running = task.started(at(70)).unwrap();
    let start_it = || store.tasks.update(running.clone(), AttemptStep::Start, once("task.start", "start", 0));
    assert_eq!(start_it().await.unwrap(), Done { value: running.clone(), replayed: false });
    let done = running.completed(Success::Yes, at(80)).unwrap();
    let end_it =
        || store.tasks.update(done.clone(), ended(AttemptStatus::Completed, None), once("task.complete", "end", 0));
    assert!(!end_it().await.unwrap().replayed);
    let delete = || store.tasks.delete(done.clone(), once("task.delete", "delete", 0));
    assert!(!delete().await.unwrap().replayed);
    assert_eq!(create().await.unwrap(), Done { value: created, replayed: true });
    assert_eq!(start_it().await.unwrap(), Done { value: running.clone(), replayed: true });
    assert_eq!(end_it().await.unwrap(), Done { value: done.clone(), replayed: true });
    assert!(delete().await.unwrap().replayed);
    check_reserved(&store, server.id, millis(0)).await;
    let actions = ["server.create", "task.create", "task.dispatch", "task.start", "task.complete", "task.delete"];
    store.check_log(&actions).await;
}
