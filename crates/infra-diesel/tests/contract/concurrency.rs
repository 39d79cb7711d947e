//! Two processes that write to the same database.

use crate::{
    on_both,
    store::{Process, Store, at_once, change, check_conflict, entry_at, new_server},
};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query, sql_types::BigInt};
use domain::{
    Error,
    audit::AuditLog,
    fleet::{Server, Servers},
    identity::Tokens,
};
use infra_diesel::DatabaseUrl;
use std::sync::Arc;

on_both!(
    two_processes_append_to_one_chain,
    two_processes_that_want_the_same_names_do_not_deadlock,
    two_processes_that_change_the_same_rows_do_not_deadlock,
    pruning_while_another_process_writes_keeps_the_chain,
);

fn two(store: &Store) -> [Arc<Process>; 2] {
    [Arc::new(store.second_process()), Arc::new(store.second_process())]
}

#[derive(QueryableByName)]
struct Deadlocks {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Fails if `PostgreSQL` had to break a deadlock: that takes a second, and one of the two batches starts over.
#[track_caller]
fn check_no_deadlock(store: &Store) {
    let DatabaseUrl::Postgres(url) = &store.url else { return };
    let mut connection = PgConnection::establish(url).unwrap();
    let query = "SELECT deadlocks AS count FROM pg_stat_database WHERE datname = current_database()";
    let found: Deadlocks = sql_query(query).get_result(&mut connection).unwrap();
    assert_eq!(found.count, 0, "deadlocks");
}

async fn two_processes_append_to_one_chain(store: Store) {
    let processes = two(&store);
    at_once((0..400).map(|n| {
        let process = Arc::clone(&processes[n % 2]);
        async move { process.server(&format!("server-{n}")).await }
    }))
    .await;
    store.check_chain(400).await;
    check_no_deadlock(&store);
}

async fn two_processes_that_want_the_same_names_do_not_deadlock(store: Store) {
    let processes = two(&store);
    for round in 0..10 {
        // One asks for them in order, the other from the end.
        let outcomes =
            at_once((0..80).map(|n| {
                let process = Arc::clone(&processes[n % 2]);
                let number = if n % 2 == 0 { n / 2 } else { 39 - n / 2 };
                async move {
                    process.servers.create(new_server(&format!("{round}-{number}")), change("server.create")).await
                }
            }));
        let (made, refused): (Vec<_>, Vec<_>) = outcomes.await.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 40);
        for outcome in refused {
            check_conflict(outcome, "name_taken");
        }
    }
    store.check_chain(400).await;
    check_no_deadlock(&store);
}

async fn two_processes_that_change_the_same_rows_do_not_deadlock(store: Store) {
    let processes = two(&store);
    let (a, b, token) = (store.server("a").await, store.server("b").await, store.token("ci").await);
    let updates = at_once((0..40).map(|n| {
        let process = Arc::clone(&processes[n % 2]);
        let mut ids = [a.id, b.id];
        if n % 2 == 1 {
            ids.reverse();
        }
        let token = token.id;
        async move {
            let mut done = 0;
            for id in ids {
                let server = process.servers.get(id).await.unwrap();
                let next = Server { revision: server.revision + 1, ..server };
                match process.servers.update(next, change("server.update")).await {
                    Ok(_) => done += 1,
                    Err(Error::Stale { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
                process.tokens.touch(vec![(token, crate::store::at(i64::from(done)))]).await.unwrap();
            }
            done
        }
    }));
    let done: u32 = updates.await.into_iter().sum();
    let revisions = store.servers.get(a.id).await.unwrap().revision + store.servers.get(b.id).await.unwrap().revision;
    assert_eq!(revisions, 2 + i64::from(done), "every update that was confirmed counts, and no other");
    store.check_chain(3 + usize::try_from(done).unwrap()).await;
    check_no_deadlock(&store);
}

async fn pruning_while_another_process_writes_keeps_the_chain(store: Store) {
    let [writing, pruning] = two(&store);
    let writes = tokio::spawn(async move {
        for n in 0..60 {
            at_once((0..4).map(|k| {
                let writing = Arc::clone(&writing);
                async move { writing.audit.record(entry_at(&format!("test.{k}"), n)).await.unwrap() }
            }))
            .await;
        }
    });
    let mut gone = 0;
    for n in 0..20 {
        gone += pruning.audit.prune(crate::store::at(n * 3), entry_at("audit.prune", 1000)).await.unwrap();
        let verdict = pruning.audit.verify(Vec::new()).await.unwrap();
        assert!(verdict.valid, "{verdict:?}");
    }
    writes.await.unwrap();
    let verdict = store.audit.verify(Vec::new()).await.unwrap();
    assert!(verdict.valid, "{verdict:?}");
    assert_eq!(verdict.checked + gone, verdict.head.seq);
    check_no_deadlock(&store);
}
