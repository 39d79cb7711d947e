//! The port `Pools`.

use crate::{
    on_both,
    store::{
        Store, at, change, check_conflict, check_not_found, check_stale, entry_at, name, new_pool, server_in, tags,
        walk,
    },
};
use domain::{
    change::Done,
    fleet::{Server, Servers},
    ids::PoolId,
    page::PageRequest,
    pools::{
        Capacity, NewPool, Pool, PoolFilter, PoolState, PoolStrategy, PoolSummary, PoolType, Pools, Quotas, Watermark,
        Watermarks,
    },
    units::Resources,
};
use std::cell::Cell;

on_both!(
    a_pool_is_read_back_as_it_was_made,
    a_name_belongs_to_one_pool,
    what_is_not_there_is_not_found,
    an_update_writes_all_but_the_state,
    an_update_from_an_old_revision_is_stale,
    a_pool_with_servers_stays,
    servers_are_summed_up,
    filters_must_all_match,
    pages_neither_repeat_nor_skip,
);

/// Every member has a value.
fn full(text: &str) -> NewPool {
    let mark = |high, low| Some(Watermark { high, low });
    NewPool {
        kind: PoolType::Gpu,
        quotas: Quotas { cpu_millis: Some(0), memory_mib: Some(i64::MAX), storage_mib: Some(1), gpus: Some(2) },
        watermarks: Watermarks {
            all: mark(80.5, 0.1),
            cpu: mark(100.0, 0.0),
            memory: mark(33.333_333_333_333_336, 1e-7),
            storage: mark(1.0, 1.0),
            gpu: mark(2.0, 1.0),
        },
        strategy: PoolStrategy::Binpack,
        labels: tags(&[("env", "prod")]),
        description: Some("At the\nedge".to_owned()),
        ..new_pool(text)
    }
}

fn next(pool: &Pool) -> Pool {
    Pool { revision: pool.revision + 1, updated_at: at(60), ..pool.clone() }
}

fn empty(pool: Pool) -> PoolSummary {
    PoolSummary { pool, capacity: Capacity::default() }
}

async fn a_pool_is_read_back_as_it_was_made(store: Store) {
    for new in [full("edge"), new_pool("core")] {
        let done = store.pools.create(new.clone(), entry_at("pool.create", 5).into()).await.unwrap();
        let pool = new.into_pool(done.value.id, at(5));
        assert_eq!(done, Done { value: pool.clone(), replayed: false });
        let row = store.last_row().await;
        assert_eq!(row.entry.target, Some(format!("pool:{}", pool.id)));
        assert_eq!(row.entry.after, Some(serde_json::to_value(&pool).unwrap()));
        assert_eq!(store.pools.get(pool.id).await.unwrap(), empty(pool));
    }
    store.check_log(&["pool.create", "pool.create"]).await;
}

async fn a_name_belongs_to_one_pool(store: Store) {
    let (first, second) = (store.pool("edge").await, store.pool("core").await);
    let reason = check_conflict(store.pools.create(new_pool("edge"), change("pool.create")).await, "name_taken");
    assert!(reason.contains("\"edge\""), "{reason}");
    let renamed = Pool { name: first.name, ..next(&second) };
    check_conflict(store.pools.update(renamed, change("pool.update")).await, "name_taken");
    assert_eq!(store.pools.get(second.id).await.unwrap().pool, second);
    store.check_log(&["pool.create", "pool.create"]).await;
}

async fn what_is_not_there_is_not_found(store: Store) {
    check_not_found(store.pools.get(PoolId(1)).await);
    let pool = store.pool("edge").await;
    store.pools.delete(pool.clone(), change("pool.delete")).await.unwrap();
    check_not_found(store.pools.get(pool.id).await);
    check_not_found(store.pools.update(next(&pool), change("pool.update")).await);
    check_not_found(store.pools.delete(pool.clone(), change("pool.delete")).await);
    assert!(store.pool("edge").await.id > pool.id, "an id that audit rows name is not given again");
    store.check_log(&["pool.create", "pool.delete", "pool.create"]).await;
}

async fn an_update_writes_all_but_the_state(store: Store) {
    let pool = store.pools.create(full("edge"), change("pool.create")).await.unwrap().value;
    store.sql("UPDATE pools SET state = 'saturated'");
    let bare = Pool { updated_at: at(60), created_at: pool.created_at, ..new_pool("core").into_pool(pool.id, at(0)) };
    let rich = Pool { name: name("edge"), ..full("edge").into_pool(pool.id, at(0)) };
    for (revision, asked) in [(2, bare), (3, rich)] {
        let asked = Pool { revision, ..asked };
        let expected = Pool { state: PoolState::Saturated, ..asked.clone() };
        let done = store.pools.update(asked, change("pool.update")).await.unwrap();
        assert_eq!(done, Done { value: expected.clone(), replayed: false });
        assert_eq!(store.pools.get(pool.id).await.unwrap().pool, expected);
    }
}

async fn an_update_from_an_old_revision_is_stale(store: Store) {
    let pool = store.pool("edge").await;
    let after = store.pools.update(next(&pool), change("pool.update")).await.unwrap().value;
    check_stale(store.pools.update(next(&pool), change("pool.update")).await, 2);
    check_stale(store.pools.delete(pool, change("pool.delete")).await, 2);
    assert_eq!(store.pools.get(after.id).await.unwrap().pool, after);
    store.check_log(&["pool.create", "pool.update"]).await;
}

async fn a_pool_with_servers_stays(store: Store) {
    let pool = store.pool("edge").await;
    let mut servers: Vec<Server> = Vec::new();
    for n in 1..=4 {
        let new = server_in(pool.id, &format!("server-{n}"));
        servers.push(store.servers.create(new, change("server.create")).await.unwrap().value);
    }
    let delete = || store.pools.delete(pool.clone(), change("pool.delete"));
    let reason = check_conflict(delete().await, "pool_not_empty");
    assert!(reason.contains("(server-1, server-2, server-3 and others)"), "{reason}");
    store.servers.delete(servers.remove(0), change("server.delete")).await.unwrap();
    let reason = check_conflict(delete().await, "pool_not_empty");
    assert!(reason.contains("(server-2, server-3, server-4)"), "{reason}");
    for server in servers {
        store.servers.delete(server, change("server.delete")).await.unwrap();
    }
    delete().await.unwrap();
    assert_eq!(store.last_row().await.entry.action, "pool.delete");
}

async fn servers_are_summed_up(store: Store) {
    let (edge, empty_one) = (store.pool("edge").await, store.pool("empty").await);
    for name in ["edge-1", "edge-2"] {
        store.servers.create(server_in(edge.id, name), change("server.create")).await.unwrap();
    }
    store.server("elsewhere").await;
    store.sql("UPDATE servers SET reserved_cpu_millis = 500, reserved_memory_mib = 3, reserved_storage_mib = 5, reserved_gpus = 1");
    let of = |cpu_millis, memory_mib, storage_mib, gpus| Resources { cpu_millis, memory_mib, storage_mib, gpus };
    let capacity = Capacity { server_count: 2, total: of(8000, 4096, 20_480, 2), reserved: of(1000, 6, 10, 2) };
    let summary = PoolSummary { pool: edge.clone(), capacity };
    assert_eq!(store.pools.get(edge.id).await.unwrap(), summary);
    let listed = store.pools.list(PoolFilter::default(), PageRequest::default()).await.unwrap();
    assert_eq!(listed.items, [empty(empty_one), summary]);
}

async fn filters_must_all_match(store: Store) {
    let rich = store.pools.create(full("West"), change("pool.create")).await.unwrap().value;
    let plain = store.pool("plain").await;
    let filter = |kind, keyword: Option<&str>| PoolFilter { kind, keyword: keyword.map(str::to_owned) };
    let cases: [(PoolFilter, &[&Pool]); 6] = [
        (filter(None, None), &[&plain, &rich]),
        (filter(Some(PoolType::Gpu), None), &[&rich]),
        (filter(Some(PoolType::Network), None), &[]),
        (filter(None, Some("wEST")), &[&rich]),
        (filter(None, Some("EDGE")), &[&rich]),
        (filter(Some(PoolType::Compute), Some("west")), &[]),
    ];
    for (filter, expected) in cases {
        let page = store.pools.list(filter.clone(), PageRequest::default()).await.unwrap();
        assert_eq!(page.items.iter().map(|summary| &summary.pool).collect::<Vec<_>>(), expected, "{filter:?}");
        assert_eq!(page.total, i64::try_from(expected.len()).unwrap(), "{filter:?}");
    }
}

async fn pages_neither_repeat_nor_skip(store: Store) {
    for n in 0..7 {
        store.pool(&format!("pool-{n}")).await;
    }
    for limit in [1, 2, 7, 8] {
        let list = |page| store.pools.list(PoolFilter::default(), page);
        let there = list(PageRequest::default()).await.unwrap().items;
        assert!(there.windows(2).all(|pair| pair[0].pool.id > pair[1].pool.id), "newest first");
        let n = Cell::new(0);
        let meanwhile = || async {
            n.set(n.get() + 1);
            store.pool(&format!("new-{limit}-{}", n.get())).await;
        };
        assert_eq!(walk(limit, list, meanwhile).await, there, "{limit} at a time");
    }
}
