//! The port `Containers`, and operations that run no task.

use crate::{
    on_both,
    store::{Store, at, change, check_not_found, check_stale, entry_at, once},
};
use domain::{
    change::Change,
    containers::{
        Container, ContainerAction, ContainerFilter, ContainerState, ContainerUsage, Containers, EngineId, Observed,
        Usage,
        wire::{ContainerOrder, ContainerReport},
    },
    feed::{Fact, Follower, State},
    fleet::{
        Operations, Servers,
        operations::{Deed, Operation, OperationFilter, OperationState},
        protocol::{End, Ending},
    },
    ids::{ContainerId, OperationId, ServerId, TaskId},
    page::{Cursor, PageRequest},
};
use serde_json::json;
use std::sync::{Arc, Mutex};

on_both!(
    what_is_reported_is_listed_newest_first,
    a_container_keeps_its_id_and_shows_its_newest_state,
    what_is_gone_is_forgotten_and_comes_back_as_another,
    a_full_report_forgets_what_it_does_not_name,
    what_is_used_is_shown_until_it_ends,
    a_report_confirms_what_its_session_has_told_in_full,
    no_more_are_kept_than_are_told_of,
    filters_find_what_they_say,
    pages_neither_repeat_nor_skip,
    containers_go_with_their_server,
    an_order_is_told_to_who_follows_and_kept_under_its_key,
    an_order_goes_on_only_from_where_it_was,
);

fn id(text: &str) -> EngineId {
    EngineId::parse(text).unwrap()
}

fn container(engine_id: &str, name: &str, more: &serde_json::Value) -> Observed {
    let mut value =
        json!({ "engine_id": engine_id, "name": name, "image": format!("acme/{name}:1"), "state": "running" });
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

fn told(containers: Vec<Observed>) -> ContainerReport {
    ContainerReport { session: String::new(), containers, gone: Vec::new(), present: None, usage: None }
}

/// Running containers with these ids and names.
pub(crate) fn report(containers: &[(&str, &str)]) -> ContainerReport {
    told(containers.iter().map(|(id, name)| container(id, name, &json!({}))).collect())
}

fn usage(engine_id: &str, memory_bytes: u64) -> ContainerUsage {
    let usage = Usage {
        at: at(5),
        cpu_percent: Some(12.5),
        machine_cpu_percent: Some(3.125),
        memory_bytes,
        memory_limit_bytes: None,
        memory_percent: None,
        network_in_bytes: 1,
        network_out_bytes: 2,
        disk_read_bytes: 3,
        disk_write_bytes: 4,
        pids: Some(5),
    };
    ContainerUsage { engine_id: id(engine_id), usage }
}

async fn listed(store: &Store, filter: ContainerFilter) -> Vec<Container> {
    let page = store.containers.list(filter, PageRequest::default()).await.unwrap();
    assert_eq!(page.total, i64::try_from(page.items.len()).unwrap());
    page.items
}

async fn all(store: &Store) -> Vec<Container> {
    listed(store, ContainerFilter::default()).await
}

fn names(containers: &[Container]) -> Vec<&str> {
    containers.iter().map(|container| container.observed.name.as_str()).collect()
}

async fn what_is_reported_is_listed_newest_first(store: Store) {
    let (one, two) = (store.joined("one").await, store.joined("two").await);
    check_not_found(store.containers.report(ServerId(99), report(&[("a", "a")]), at(1)).await);
    store.containers.report(one.id, report(&[("a", "web"), ("b", "db")]), at(1)).await.unwrap();
    store.containers.report(two.id, report(&[("a", "cache")]), at(2)).await.unwrap();
    let found = all(&store).await;
    assert_eq!(names(&found), ["cache", "db", "web"]);
    assert_eq!((found[0].server_id, found[0].reported_at), (two.id, at(2)));
    assert_eq!((found[2].server_id, found[2].reported_at), (one.id, at(1)));
    assert_eq!(store.containers.get(found[0].id).await.unwrap(), found[0]);
    check_not_found(store.containers.get(ContainerId(99)).await);
    store.check_chain(4).await;
}

async fn a_container_keeps_its_id_and_shows_its_newest_state(store: Store) {
    let server = store.joined("one").await.id;
    store.containers.report(server, report(&[("a", "web")]), at(1)).await.unwrap();
    let [before] = all(&store).await.try_into().unwrap();
    let ended = json!({ "state": "exited", "exit_code": 3, "labels": { "l": "v\u{1f680}" }, "name": "web2" });
    store.containers.report(server, told(vec![container("a", "web", &ended)]), at(2)).await.unwrap();
    store.containers.report(server, told(vec![container("a", "web", &ended)]), at(3)).await.unwrap();
    let [after] = all(&store).await.try_into().unwrap();
    assert_eq!(after.id, before.id);
    assert_eq!((after.observed.state, after.observed.exit_code), (ContainerState::Exited, Some(3)));
    assert_eq!(names(&[after]), ["web2"]);
}

async fn what_is_gone_is_forgotten_and_comes_back_as_another(store: Store) {
    let server = store.joined("one").await.id;
    store.containers.report(server, report(&[("a", "web"), ("b", "db")]), at(1)).await.unwrap();
    let before = all(&store).await;
    let gone = ContainerReport { gone: vec![id("b"), id("unknown")], ..told(Vec::new()) };
    store.containers.report(server, gone.clone(), at(2)).await.unwrap();
    store.containers.report(server, gone, at(2)).await.unwrap();
    assert_eq!(names(&all(&store).await), ["web"]);
    store.containers.report(server, report(&[("b", "db")]), at(3)).await.unwrap();
    let after = all(&store).await;
    assert!(after[0].id > before[0].id, "an id is never given twice");
}

async fn a_full_report_forgets_what_it_does_not_name(store: Store) {
    let (one, two) = (store.joined("one").await.id, store.joined("two").await.id);
    for server in [one, two] {
        store.containers.report(server, report(&[("a", "web"), ("b", "db")]), at(1)).await.unwrap();
    }
    let full = ContainerReport { present: Some(vec![id("b"), id("c")]), ..report(&[("c", "new")]) };
    store.containers.report(one, full, at(2)).await.unwrap();
    assert_eq!(names(&all(&store).await), ["new", "db", "web", "db"]);
    let nothing = ContainerReport { present: Some(Vec::new()), ..told(Vec::new()) };
    store.containers.report(one, nothing, at(3)).await.unwrap();
    assert_eq!(names(&all(&store).await), ["db", "web"]);
}

async fn what_is_used_is_shown_until_it_ends(store: Store) {
    let server = store.joined("one").await.id;
    store.containers.report(server, report(&[("a", "web"), ("b", "db")]), at(1)).await.unwrap();
    let counted =
        |bytes| ContainerReport { usage: Some(vec![usage("a", bytes), usage("gone", 1)]), ..told(Vec::new()) };
    store.containers.report(server, counted(100), at(2)).await.unwrap();
    store.containers.report(server, counted(u64::from(u32::MAX) * 4), at(3)).await.unwrap();
    let counted = usage("a", 7);
    let later = ContainerUsage { usage: Usage { at: at(7), ..counted.usage }, ..counted };
    let [db, web] = all(&store).await.try_into().unwrap();
    assert_eq!((db.usage, web.usage), (None, Some(usage("a", u64::from(u32::MAX) * 4).usage)));
    let ended = container("a", "web", &json!({ "state": "exited" }));
    store.containers.report(server, told(vec![ended]), at(4)).await.unwrap();
    assert_eq!(all(&store).await[1].usage, None);
    // What was counted before it was started again is of another run.
    let again = container("a", "web", &json!({ "started_at": at(6) }));
    store.containers.report(server, told(vec![again]), at(7)).await.unwrap();
    assert_eq!(all(&store).await[1].usage, None);
    store
        .containers
        .report(server, ContainerReport { usage: Some(vec![later]), ..told(Vec::new()) }, at(8))
        .await
        .unwrap();
    assert!(all(&store).await[1].usage.is_some());
}

async fn a_report_confirms_what_its_session_has_told_in_full(store: Store) {
    let server = store.joined("one").await.id;
    let of = |session: &str, report: ContainerReport| ContainerReport { session: session.to_owned(), ..report };
    let whole = |session: &str| {
        let present = Some(vec![id("a"), id("b")]);
        of(session, ContainerReport { present, ..report(&[("a", "web"), ("b", "db")]) })
    };
    let confirmed = async |expected| {
        let found = all(&store).await;
        assert!(found.iter().all(|container| container.reported_at == at(expected)), "{expected}: {found:?}");
    };
    store.containers.report(server, whole("s1"), at(1)).await.unwrap();
    let nothing = || ContainerReport { usage: Some(Vec::new()), ..told(Vec::new()) };
    store.containers.report(server, of("s1", nothing()), at(9)).await.unwrap();
    confirmed(9).await;
    // Back after a day, it has only begun to tell: whatever it has not come to may be gone.
    store.containers.report(server, of("s2", report(&[("a", "web")])), at(70)).await.unwrap();
    store.containers.report(server, of("s2", nothing()), at(71)).await.unwrap();
    confirmed(9).await;
    store.containers.report(server, whole("s2"), at(72)).await.unwrap();
    store.containers.report(server, of("s2", nothing()), at(73)).await.unwrap();
    confirmed(73).await;
}

async fn no_more_are_kept_than_are_told_of(store: Store) {
    let server = store.joined("one").await.id;
    let some = |from: usize| told((from..from + 1_000).map(|n| container(&format!("c{n}"), "n", &json!({}))).collect());
    for from in 0..6 {
        store.containers.report(server, some(from * 1_000), at(1)).await.unwrap();
    }
    let page = PageRequest { limit: 1, after: None };
    assert_eq!(store.containers.list(ContainerFilter::default(), page).await.unwrap().total, 5_000);
}

async fn filters_find_what_they_say(store: Store) {
    let (one, two) = (store.joined("one").await.id, store.joined("two").await.id);
    let ours = json!({ "runs": { "task_id": 7, "attempt": 2 } });
    let composed = json!({ "state": "exited", "labels": { "com.docker.compose.project": "shop" } });
    let of_one = vec![container("a", "web", &ours), container("b", "50%_off", &composed)];
    store.containers.report(one, told(of_one), at(1)).await.unwrap();
    store.containers.report(two, report(&[("c", "Cache")]), at(1)).await.unwrap();
    let filter = ContainerFilter::default;
    let table = [
        (ContainerFilter { servers: vec![one], ..filter() }, vec!["50%_off", "web"]),
        (ContainerFilter { servers: vec![one, two], ..filter() }, vec!["Cache", "50%_off", "web"]),
        (ContainerFilter { state: Some(ContainerState::Exited), ..filter() }, vec!["50%_off"]),
        (ContainerFilter { project: Some("shop".to_owned()), ..filter() }, vec!["50%_off"]),
        (ContainerFilter { task_id: Some(TaskId(7)), ..filter() }, vec!["web"]),
        (ContainerFilter { managed: Some(true), ..filter() }, vec!["web"]),
        (ContainerFilter { managed: Some(false), ..filter() }, vec!["Cache", "50%_off"]),
        (ContainerFilter { keyword: Some("CACHE".to_owned()), ..filter() }, vec!["Cache"]),
        (ContainerFilter { keyword: Some("%_".to_owned()), ..filter() }, vec!["50%_off"]),
        (ContainerFilter { keyword: Some("acme/w".to_owned()), ..filter() }, vec!["web"]),
        (ContainerFilter { keyword: Some("nothing\0".to_owned()), ..filter() }, vec![]),
    ];
    for (filter, expected) in table {
        assert_eq!(names(&listed(&store, filter.clone()).await), expected, "{filter:?}");
    }
}

async fn pages_neither_repeat_nor_skip(store: Store) {
    let server = store.joined("one").await.id;
    let some = |from: usize| {
        told((from..from + 5).map(|n| container(&format!("c{n}"), &format!("n{n}"), &json!({}))).collect())
    };
    store.containers.report(server, some(0), at(1)).await.unwrap();
    let page = async |after: Option<Cursor>| {
        store.containers.list(ContainerFilter::default(), PageRequest { limit: 2, after }).await.unwrap()
    };
    let first = page(None).await;
    store.containers.report(server, some(5), at(2)).await.unwrap();
    let second = page(first.next.clone()).await;
    let third = page(second.next.clone()).await;
    assert_eq!(
        (names(&first.items), names(&second.items), names(&third.items)),
        (vec!["n4", "n3"], vec!["n2", "n1"], vec!["n0"])
    );
    assert_eq!((first.total, second.total, third.next), (5, 10, None));
}

async fn containers_go_with_their_server(store: Store) {
    let server = store.joined("one").await;
    store.containers.report(server.id, report(&[("a", "web")]), at(1)).await.unwrap();
    let server = store.servers.get(server.id).await.unwrap();
    store.servers.delete(server, change("server.delete")).await.unwrap();
    assert_eq!(all(&store).await, []);
}

#[derive(Default)]
struct Ears(Mutex<Vec<Operation>>);

impl Follower for Ears {
    fn reset(&self, state: &State) {
        let open = state.operations.iter().map(|operation| (**operation).clone());
        *self.0.lock().unwrap() = open.collect();
    }

    fn follow(&self, facts: &[Fact]) {
        let told = facts.iter().filter_map(|fact| match fact {
            Fact::Operation(operation) => Some((**operation).clone()),
            _ => None,
        });
        self.0.lock().unwrap().extend(told);
    }
}

fn stop(server: ServerId) -> Operation {
    let order = ContainerOrder { engine_id: id("a"), action: ContainerAction::Stop { grace_seconds: Some(3) } };
    Operation::to_do(server, Deed::Container { container_id: ContainerId(4), name: "web".to_owned(), order }, at(10))
}

async fn an_order_is_told_to_who_follows_and_kept_under_its_key(store: Store) {
    let server = store.joined("one").await.id;
    let ears = Arc::new(Ears::default());
    store.database.follow(ears.clone());
    store.operations.catch_up().await.unwrap();
    let keyed = once("container.stop", "k", 10);
    let first = store.operations.create(stop(server), keyed.clone()).await.unwrap();
    let again = store.operations.create(stop(server), keyed.clone()).await.unwrap();
    assert_eq!((first.replayed, again.replayed, &again.value), (false, true, &first.value));
    assert_eq!(store.operations.get(first.value.id).await.unwrap(), first.value);
    assert_eq!(*ears.0.lock().unwrap(), std::slice::from_ref(&first.value));
    assert_eq!(store.operations.answered(keyed.once.unwrap(), at(11)).await.unwrap(), Some(first.value.clone()));
    let open = store.second_process();
    let ears = Arc::new(Ears::default());
    open.database.follow(ears.clone());
    open.operations.catch_up().await.unwrap();
    assert_eq!(*ears.0.lock().unwrap(), [first.value], "whoever starts hears of what is open");
    assert_eq!(store.last_row().await.entry.action, "container.stop");
}

async fn an_order_goes_on_only_from_where_it_was(store: Store) {
    let server = store.joined("one").await.id;
    let queued = store.operations.create(stop(server), change("container.stop")).await.unwrap().value;
    let running = queued.begun(at(20)).unwrap();
    let started = || Change::from(entry_at("operation.started", 20));
    assert_eq!(store.operations.update(queued.clone(), running.clone(), started()).await.unwrap().value, running);
    check_stale(store.operations.update(queued.clone(), running.clone(), started()).await, 0);
    let end = End { started_at: None, ..End::without_code(Ending::Failed, "no such container") };
    let failed = running.ended(&end, at(30));
    store.operations.update(running, failed.clone(), started()).await.unwrap();
    assert_eq!(failed.state, OperationState::Failed);
    assert_eq!(store.operations.get(queued.id).await.unwrap(), failed);
    let missing = Operation { id: OperationId(99), ..failed.clone() };
    check_not_found(store.operations.update(missing.clone(), missing, started()).await);
    let found = store.operations.list(OperationFilter::default(), PageRequest::default()).await.unwrap();
    assert_eq!(found.items, [failed]);
}
