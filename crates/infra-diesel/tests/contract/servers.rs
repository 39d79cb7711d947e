//! The port `Servers`.

use crate::{
    on_both,
    store::{
        Store, at, at_once, change, check_conflict, check_not_found, check_stale, entry_at, new_server, once,
        resources, server_in, start, tags, walk,
    },
};
use domain::{
    Error,
    change::{Done, Recorded},
    fleet::{
        Architecture, Driver, Inventory, NewServer, Server, ServerFilter, ServerSort, ServerStatus, Servers, SortKey,
    },
    ids::{PoolId, ServerId},
    page::PageRequest,
    units::Resources,
};
use std::{cell::Cell, sync::Arc};

on_both!(
    a_registered_server_is_read_back_as_it_was_registered,
    a_name_belongs_to_one_server,
    a_server_starts_in_a_pool_that_exists,
    what_is_not_there_is_not_found,
    an_update_writes_all_that_an_operator_decides,
    an_update_leaves_alone_what_others_decide,
    an_update_from_an_old_revision_is_stale,
    of_racing_updates_one_wins,
    a_confirmed_server_is_the_answer_for_its_key,
    a_deleted_server_is_gone_with_its_tags,
    a_server_with_reservations_stays,
    filters_must_all_match,
    pages_neither_repeat_nor_skip_in_any_order,
);

/// Every member has a value.
fn full(name: &str, pool: PoolId) -> NewServer {
    NewServer {
        architecture: Architecture::Riscv64,
        status: ServerStatus::Provisioning,
        capacity: Resources { cpu_millis: 1_000_000_000, memory_mib: i64::MAX, storage_mib: 0, gpus: 8 },
        gpu_model: Some("H100".to_owned()),
        location: Some("Rack 7".to_owned()),
        cluster: Some("west".to_owned()),
        zone: Some("west-1a".to_owned()),
        pool_id: Some(pool),
        tags: tags(&[("env", "prod"), ("team", "")]),
        ..new_server(name)
    }
}

fn next(server: &Server) -> Server {
    Server { revision: server.revision + 1, updated_at: at(60), ..server.clone() }
}

async fn a_registered_server_is_read_back_as_it_was_registered(store: Store) {
    let pool = store.pool("edge").await;
    let new = full("edge-1", pool.id);
    let Done { value: server, replayed } =
        store.servers.create(new.clone(), entry_at("server.create", 5).into()).await.unwrap();
    assert!(!replayed);
    assert_eq!(server, new.into_server(server.id, at(5)));
    assert_eq!(store.servers.get(server.id).await.unwrap(), server);
    let row = store.last_row().await;
    assert_eq!(row.entry.target, Some(format!("server:{}", server.id)));
    assert_eq!(row.entry.after, Some(serde_json::to_value(&server).unwrap()));
    store.check_log(&["pool.create", "server.create"]).await;
}

async fn a_name_belongs_to_one_server(store: Store) {
    let first = store.server("edge-1").await;
    let second = store.server("edge-2").await;
    let reason =
        check_conflict(store.servers.create(new_server("edge-1"), change("server.create")).await, "name_taken");
    assert!(reason.contains("\"edge-1\""), "{reason}");
    let renamed = Server { name: first.name.clone(), ..next(&second) };
    check_conflict(store.servers.update(renamed, change("server.update")).await, "name_taken");
    assert_eq!(store.servers.get(second.id).await.unwrap(), second);
    let cased = store.server("Edge-1").await;
    assert_ne!(cased.id, first.id, "names differ by their case");
    store.check_log(&["server.create", "server.create", "server.create"]).await;
}

async fn a_server_starts_in_a_pool_that_exists(store: Store) {
    let refused = store.servers.create(server_in(PoolId(7), "edge-1"), change("server.create")).await;
    let Err(Error::Invalid { errors }) = refused else { panic!("{refused:?}") };
    assert_eq!(errors[0].field, "pool_id");
    store.check_log(&[]).await;
}

async fn what_is_not_there_is_not_found(store: Store) {
    check_not_found(store.servers.get(ServerId(1)).await);
    check_not_found(store.servers.check_there(ServerId(1)).await);
    let server = store.server("edge-1").await;
    store.servers.check_there(server.id).await.unwrap();
    // Also once it is in memory.
    store.list(ServerFilter::default(), ServerSort::NEWEST_FIRST, PageRequest::default()).await.unwrap();
    store.servers.check_there(server.id).await.unwrap();
    store.servers.delete(server.clone(), change("server.delete")).await.unwrap();
    check_not_found(store.servers.get(server.id).await);
    check_not_found(store.servers.check_there(server.id).await);
    check_not_found(store.servers.update(next(&server), change("server.update")).await);
    check_not_found(store.servers.delete(server, change("server.delete")).await);
    store.check_log(&["server.create", "server.delete"]).await;
}

async fn an_update_writes_all_that_an_operator_decides(store: Store) {
    let pool = store.pool("edge").await;
    let mut server = store.servers.create(full("edge-1", pool.id), change("server.create")).await.unwrap().value;
    let bare = Server {
        name: crate::store::name("edge-2"),
        architecture: Architecture::Arm64,
        status: ServerStatus::Maintenance,
        capacity: resources(1),
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        tags: tags(&[]),
        cordoned: true,
        ..next(&server)
    };
    let new = full("edge-3", pool.id).into_server(server.id, start());
    for after in [bare.clone(), Server { revision: 3, updated_at: at(61), ..new }] {
        let change = entry_at("server.update", 60).changed(&server, &after).into();
        let done = store.servers.update(after.clone(), change).await.unwrap();
        assert_eq!(done, Done { value: after.clone(), replayed: false });
        assert_eq!(store.servers.get(server.id).await.unwrap(), after);
        let row = store.last_row().await;
        assert_eq!(row.entry.before, Some(serde_json::to_value(&server).unwrap()));
        assert_eq!(row.entry.target, Some(after.target()));
        let tagged = ServerFilter { tags: vec![("env".to_owned(), "prod".to_owned())], ..ServerFilter::default() };
        let found = store.list(tagged, ServerSort::NEWEST_FIRST, PageRequest::default()).await.unwrap();
        assert_eq!(found.total, i64::from(after.tags != bare.tags), "the index of tags follows");
        server = after;
    }
}

async fn an_update_leaves_alone_what_others_decide(store: Store) {
    let (pool, other) = (store.pool("edge").await, store.pool("core").await);
    let server = store.servers.create(server_in(pool.id, "edge-1"), change("server.create")).await.unwrap().value;
    store.sql(
        "UPDATE servers SET reserved_cpu_millis = 500, reserved_memory_mib = 1, reserved_storage_mib = 2, \
         reserved_gpus = 1, os = 'Debian 12', kernel = '6.1', agent_version = '0.1', last_seen_at_us = 1000001, \
         drivers = '[\"docker\",\"exec\"]', emulated_architectures = '[\"arm64\"]'",
    );
    let reported = Server {
        reserved: Resources { cpu_millis: 500, memory_mib: 1, storage_mib: 2, gpus: 1 },
        inventory: Inventory {
            emulated_architectures: vec![Architecture::Arm64],
            drivers: vec![Driver::Docker, Driver::Exec],
            os: Some("Debian 12".to_owned()),
            kernel: Some("6.1".to_owned()),
            agent_version: Some("0.1".to_owned()),
            last_seen_at: chrono::DateTime::from_timestamp_micros(1_000_001),
        },
        ..server.clone()
    };
    assert_eq!(store.servers.get(server.id).await.unwrap(), reported);
    let asked = Server { pool_id: Some(other.id), zone: Some("z".to_owned()), ..next(&server) };
    let after = store.servers.update(asked.clone(), change("server.update")).await.unwrap().value;
    let expected =
        Server { reserved: reported.reserved, inventory: reported.inventory, pool_id: server.pool_id, ..asked };
    assert_eq!(after, expected);
    assert_eq!(store.servers.get(server.id).await.unwrap(), expected);
}

async fn an_update_from_an_old_revision_is_stale(store: Store) {
    let server = store.server("edge-1").await;
    let after = store.servers.update(next(&server), change("server.update")).await.unwrap().value;
    check_stale(store.servers.update(next(&server), change("server.update")).await, 2);
    check_stale(store.servers.update(next(&next(&after)), change("server.update")).await, 2);
    check_stale(store.servers.delete(server, change("server.delete")).await, 2);
    assert_eq!(store.servers.get(after.id).await.unwrap(), after);
    store.check_log(&["server.create", "server.update"]).await;
}

async fn of_racing_updates_one_wins(store: Store) {
    let server = store.server("edge-1").await;
    let store = Arc::new(store);
    let outcomes = at_once((0..20).map(|n| {
        let (store, server) = (Arc::clone(&store), Server { zone: Some(format!("zone-{n}")), ..next(&server) });
        async move { store.servers.update(server, change("server.update")).await }
    }));
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.await.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 19));
    for outcome in lost {
        check_stale(outcome, 2);
    }
    assert_eq!(store.servers.get(server.id).await.unwrap(), won.into_iter().next().unwrap().unwrap().value);
    store.check_log(&["server.create", "server.update"]).await;
}

async fn a_confirmed_server_is_the_answer_for_its_key(store: Store) {
    let server = store.server("edge-1").await;
    let confirm = |server: &Server| store.servers.confirm(server.clone(), once("server.cordon", "k-1", 0));
    let (before, missing) = (next(&server), Server { id: ServerId(99), ..server.clone() });
    check_stale(confirm(&before).await, 1);
    check_not_found(confirm(&missing).await);
    assert_eq!(confirm(&server).await.unwrap(), Done { value: server.clone(), replayed: false });
    let after = store.servers.update(next(&server), change("server.update")).await.unwrap().value;
    assert_eq!(confirm(&server).await.unwrap(), Done { value: server.clone(), replayed: true });
    assert_eq!(store.servers.get(server.id).await.unwrap(), after);
    check_stale(store.servers.confirm(server, change("server.cordon")).await, 2);
    store.check_log(&["server.create", "server.update"]).await;
}

async fn a_deleted_server_is_gone_with_its_tags(store: Store) {
    let tagged = NewServer { tags: tags(&[("env", "prod")]), ..new_server("edge-1") };
    let server = store.servers.create(tagged.clone(), change("server.create")).await.unwrap().value;
    let change_of = |server: &Server| entry_at("server.delete", 1).deleted(server).into();
    store.servers.delete(server.clone(), change_of(&server)).await.unwrap();
    let filter = ServerFilter { tags: vec![("env".to_owned(), "prod".to_owned())], ..ServerFilter::default() };
    let found = store.list(filter, ServerSort::NEWEST_FIRST, PageRequest::default()).await.unwrap();
    assert_eq!((found.total, found.items.len()), (0, 0));
    let again = store.servers.create(tagged, change("server.create")).await.unwrap().value;
    assert!(again.id > server.id, "an id that audit rows name is not given again");
    store.check_log(&["server.create", "server.delete", "server.create"]).await;
}

async fn a_server_with_reservations_stays(store: Store) {
    let server = store.server("edge-1").await;
    for column in ["reserved_cpu_millis", "reserved_memory_mib", "reserved_storage_mib", "reserved_gpus"] {
        store.sql(&format!("UPDATE servers SET {column} = 1"));
        let reason =
            check_conflict(store.servers.delete(server.clone(), change("server.delete")).await, "server_in_use");
        assert!(reason.contains("edge-1"), "{reason}");
        store.sql(&format!("UPDATE servers SET {column} = 0"));
    }
    store.servers.delete(server, change("server.delete")).await.unwrap();
}

async fn filters_must_all_match(store: Store) {
    let pool = store.pool("edge").await;
    let west = store.servers.create(full("west-1", pool.id), change("server.create")).await.unwrap().value;
    let plain = store.server("plain-1").await;
    let text = |text: &str| Some(text.to_owned());
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let all = ServerFilter {
        architecture: Some(Architecture::Riscv64),
        status: Some(ServerStatus::Provisioning),
        keyword: text("RACK"),
        pool_id: Some(pool.id),
        cluster: text("west"),
        zone: text("west-1a"),
        tags: pairs(&[("env", "prod"), ("team", "")]),
    };
    let none = ServerFilter::default();
    let cases: [(ServerFilter, &[&Server]); 14] = [
        (none.clone(), &[&plain, &west]),
        (ServerFilter { architecture: all.architecture, ..none.clone() }, &[&west]),
        (ServerFilter { status: Some(ServerStatus::Online), ..none.clone() }, &[&plain]),
        (ServerFilter { keyword: text("h100"), ..none.clone() }, &[&west]),
        (ServerFilter { keyword: text("env:pr"), ..none.clone() }, &[&west]),
        (ServerFilter { keyword: text("-1"), ..none.clone() }, &[&plain, &west]),
        (ServerFilter { pool_id: Some(pool.id), ..none.clone() }, &[&west]),
        (ServerFilter { pool_id: Some(PoolId(99)), ..none.clone() }, &[]),
        (ServerFilter { cluster: text("WEST"), ..none.clone() }, &[]),
        (ServerFilter { zone: text("west-1a"), ..none.clone() }, &[&west]),
        (ServerFilter { tags: pairs(&[("env", "prod"), ("team", "core")]), ..none.clone() }, &[]),
        (ServerFilter { tags: pairs(&[("team", "")]), ..none.clone() }, &[&west]),
        (all.clone(), &[&west]),
        (ServerFilter { status: Some(ServerStatus::Online), ..all }, &[]),
    ];
    for (filter, expected) in cases {
        let page = store.list(filter.clone(), ServerSort::NEWEST_FIRST, PageRequest::default()).await.unwrap();
        assert_eq!(page.items.iter().collect::<Vec<_>>(), expected, "{filter:?}");
        assert_eq!(page.total, i64::try_from(expected.len()).unwrap(), "{filter:?}");
        assert_eq!(page.next, None);
    }
}

async fn pages_neither_repeat_nor_skip_in_any_order(store: Store) {
    let count = Cell::new(0);
    let insert = || async {
        let n = count.get();
        count.set(n + 1);
        // Names and sizes on both sides of every cursor, with ties.
        let (letter, size) = (["a", "m", "z"][n % 3], i64::try_from(n % 4).unwrap());
        let new = NewServer { capacity: resources(size), ..new_server(&format!("{letter}-{n}")) };
        store.servers.create(new, change("server.create")).await.unwrap();
    };
    for _ in 0..8 {
        insert().await;
    }
    for text in ["id", "-id", "name", "-name", "total_cpu", "-total_cpu", "total_memory", "-total_memory"] {
        let sort = ServerSort::parse(text).unwrap();
        let list = |page| store.list(ServerFilter::default(), sort, page);
        for limit in [1, 3] {
            let there = list(PageRequest { limit: 1000, after: None }).await.unwrap();
            assert_eq!(there.total, i64::try_from(count.get()).unwrap());
            check_order(&there.items, sort);
            let enough = count.get() + 6;
            let meanwhile = || async {
                if count.get() < enough {
                    insert().await;
                }
            };
            let seen = walk(limit, list, meanwhile).await;
            check_order(&seen, sort);
            let seen: Vec<Server> = seen.into_iter().filter(|server| there.items.contains(server)).collect();
            assert_eq!(seen, there.items, "{limit} at a time, sorted by {text}");
        }
    }
}

#[track_caller]
fn check_order(servers: &[Server], sort: ServerSort) {
    let key = |server: &Server| {
        let (name, capacity) = (server.name.as_str().to_owned(), server.capacity);
        let key = match sort.key {
            SortKey::Id => (0, String::new()),
            SortKey::Name => (0, name),
            SortKey::TotalCpu => (capacity.cpu_millis, String::new()),
            SortKey::TotalMemory => (capacity.memory_mib, String::new()),
        };
        (key, server.id)
    };
    let ordered = |pair: &[Server]| (key(&pair[0]) < key(&pair[1])) != sort.descending;
    assert!(servers.windows(2).all(ordered), "sorted by {}: {servers:?}", sort.as_str());
}
