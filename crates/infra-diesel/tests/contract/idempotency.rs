//! Idempotency keys: the same key and request get the same answer for 24 hours.

use crate::{
    on_both,
    store::{Store, at_once, check_conflict, new_pool, new_server, new_token, new_user, once},
};
use domain::{
    change::{Change, Done, Once},
    fleet::{Server, Servers},
    identity::{Tokens, Users},
    pools::Pools,
};
use std::sync::Arc;

on_both!(
    of_fifty_twins_one_commits,
    a_replay_gets_the_answer_of_then,
    every_kind_of_write_is_replayed,
    a_key_stands_for_one_request,
    callers_do_not_share_keys,
    a_write_that_failed_may_be_tried_again_under_its_key,
    answers_are_forgotten_after_a_day,
    of_twins_in_two_processes_one_commits,
);

const DAY: i64 = 24 * 3600;

async fn of_fifty_twins_one_commits(store: Store) {
    let store = Arc::new(store);
    let outcomes = at_once((0..50).map(|_| {
        let store = Arc::clone(&store);
        async move { store.servers.create(new_server("edge-1"), once("server.create", "k-1", 0)).await.unwrap() }
    }));
    check_one_original(&outcomes.await);
    store.check_log(&["server.create"]).await;
}

#[track_caller]
fn check_one_original(outcomes: &[Done<Server>]) {
    assert_eq!(outcomes.iter().filter(|done| !done.replayed).count(), 1);
    assert!(outcomes.iter().all(|done| done.value == outcomes[0].value), "all get the same answer");
}

async fn a_replay_gets_the_answer_of_then(store: Store) {
    let create = |seconds| store.servers.create(new_server("edge-1"), once("server.create", "k-1", seconds));
    let first = create(0).await.unwrap().value;
    let changed = Server { revision: 2, zone: Some("west".to_owned()), ..first.clone() };
    let update = || store.servers.update(changed.clone(), once("server.update", "k-2", 1));
    assert_eq!(update().await.unwrap(), Done { value: changed.clone(), replayed: false });
    assert_eq!(update().await.unwrap(), Done { value: changed.clone(), replayed: true });
    let delete = || store.servers.delete(changed.clone(), once("server.delete", "k-3", 2));
    assert_eq!(delete().await.unwrap(), Done { value: (), replayed: false });
    assert_eq!(delete().await.unwrap(), Done { value: (), replayed: true });
    assert_eq!(create(3).await.unwrap(), Done { value: first, replayed: true });
    store.check_log(&["server.create", "server.update", "server.delete"]).await;
}

async fn every_kind_of_write_is_replayed(store: Store) {
    for replayed in [false, true] {
        assert_eq!(store.pools.create(new_pool("a"), once("pool.create", "p", 0)).await.unwrap().replayed, replayed);
        assert_eq!(store.users.create(new_user("a"), once("user.create", "u", 0)).await.unwrap().replayed, replayed);
        assert_eq!(store.tokens.create(new_token("a"), once("token.create", "t", 0)).await.unwrap().replayed, replayed);
    }
    let token = store.tokens.create(new_token("a"), once("token.create", "t", 0)).await.unwrap().value;
    for replayed in [false, true] {
        let done = store.tokens.delete(token.clone(), once("token.delete", "d", 0)).await.unwrap();
        assert_eq!(done.replayed, replayed);
    }
    store.check_log(&["pool.create", "user.create", "token.create", "token.delete"]).await;
}

fn with(key: Once) -> Change {
    Change { once: Some(key), ..once("server.create", "", 0) }
}

fn key() -> Once {
    once("", "k-1", 0).once.unwrap()
}

async fn a_key_stands_for_one_request(store: Store) {
    store.servers.create(new_server("edge-1"), with(key())).await.unwrap();
    let other = Once { fingerprint: "e".repeat(64), ..key() };
    check_conflict(store.servers.create(new_server("edge-2"), with(other)).await, "idempotency_key_reused");
    store.check_log(&["server.create"]).await;
}

async fn callers_do_not_share_keys(store: Store) {
    store.servers.create(new_server("edge-1"), with(key())).await.unwrap();
    let other = Once { caller: "token:other".to_owned(), fingerprint: "e".repeat(64), ..key() };
    assert!(!store.servers.create(new_server("edge-2"), with(other)).await.unwrap().replayed);
    let cased = Once { key: "K-1".to_owned(), ..key() };
    assert!(!store.servers.create(new_server("edge-3"), with(cased)).await.unwrap().replayed);
}

async fn a_write_that_failed_may_be_tried_again_under_its_key(store: Store) {
    let server = store.server("edge-1").await;
    let create = || store.servers.create(new_server("edge-1"), with(key()));
    check_conflict(create().await, "name_taken");
    store.servers.delete(server, once("server.delete", "other", 0)).await.unwrap();
    assert!(!create().await.unwrap().replayed);
    assert!(create().await.unwrap().replayed);
}

async fn answers_are_forgotten_after_a_day(store: Store) {
    let create = |name: &str, seconds| store.servers.create(new_server(name), once("server.create", "k-1", seconds));
    let first = create("edge-1", 0).await.unwrap().value;
    for seconds in [DAY - 1, 0, -1, -DAY, -10 * DAY] {
        let done = create("edge-1", seconds).await.unwrap();
        assert_eq!(done, Done { value: first.clone(), replayed: true }, "after {seconds} s; the clock may be set back");
    }
    let second = create("edge-2", DAY).await.unwrap();
    assert!(!second.replayed);
    assert_ne!(second.value, first);
    let third = create("edge-2", 2 * DAY - 1).await.unwrap();
    assert_eq!(third, Done { value: second.value, replayed: true }, "the new answer is kept for a day of its own");
    check_conflict(create("edge-2", 2 * DAY).await, "name_taken");
    store.check_log(&["server.create", "server.create"]).await;
}

async fn of_twins_in_two_processes_one_commits(store: Store) {
    let processes = [Arc::new(store.second_process()), Arc::new(store.second_process())];
    for round in 0..30 {
        let (name, key) = (format!("edge-{round}"), format!("k-{round}"));
        let outcomes = at_once((0..6).map(|n| {
            let process = Arc::clone(&processes[n % 2]);
            let (new, change) = (new_server(&name), once("server.create", &key, 0));
            async move { process.servers.create(new, change).await.unwrap() }
        }));
        check_one_original(&outcomes.await);
    }
    store.check_chain(30).await;
}
