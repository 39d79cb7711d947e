//! The one writer of a process: batches in which commands fail, order, and the end.

use crate::{
    on_both,
    store::{Store, at_once, change, check_conflict, entry_at, new_server},
};
use domain::{
    Error,
    audit::AuditLog,
    fleet::{ServerFilter, ServerSort, Servers},
    page::PageRequest,
};
use std::{collections::BTreeSet, sync::Arc};

on_both!(
    a_command_that_fails_takes_nothing_else_with_it,
    commands_of_one_caller_are_recorded_in_their_order,
    the_head_that_watchers_see_is_the_last_row,
    closing_finishes_what_waits,
    a_closed_database_refuses_writes,
);

async fn a_command_that_fails_takes_nothing_else_with_it(store: Store) {
    let store = Arc::new(store);
    let outcomes =
        at_once(
            (0..300).map(|n| {
                let store = Arc::clone(&store);
                async move {
                    store.servers.create(new_server(&format!("server-{}", n % 100)), change("server.create")).await
                }
            }),
        );
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (100, 200));
    for outcome in refused {
        check_conflict(outcome, "name_taken");
    }
    let mut targets = BTreeSet::new();
    for server in made.into_iter().map(|outcome| outcome.unwrap().value) {
        assert_eq!(store.servers.get(server.id).await.unwrap(), server);
        targets.insert(format!("server:{}", server.id));
    }
    let recorded: BTreeSet<String> = store.log().await.into_iter().filter_map(|row| row.entry.target).collect();
    assert_eq!(recorded, targets, "a row for each that was made, and for no other");
    store.check_chain(100).await;
}

async fn commands_of_one_caller_are_recorded_in_their_order(store: Store) {
    let store = Arc::new(store);
    at_once((0..8).map(|caller| {
        let store = Arc::clone(&store);
        async move {
            for n in 0..20 {
                store.audit.record(entry_at(&format!("caller-{caller}.note"), n)).await.unwrap();
            }
        }
    }))
    .await;
    let rows = store.log().await;
    for caller in 0..8 {
        let of_caller = rows.iter().filter(|row| row.entry.action == format!("caller-{caller}.note"));
        let times: Vec<_> = of_caller.map(|row| row.entry.created_at).collect();
        assert_eq!(times.len(), 20);
        assert!(times.is_sorted(), "caller {caller}");
    }
    store.check_chain(160).await;
}

async fn the_head_that_watchers_see_is_the_last_row(store: Store) {
    let mut head = store.database.head();
    for n in 1..=5 {
        store.server(&format!("edge-{n}")).await;
        assert!(head.has_changed().unwrap());
        assert_eq!(*head.borrow_and_update(), store.audit.head().await.unwrap());
    }
    // What is not recorded is no news.
    store.database.ready().await.unwrap();
    check_conflict(store.servers.create(new_server("edge-1"), change("server.create")).await, "name_taken");
    assert!(!head.has_changed().unwrap());
}

async fn closing_finishes_what_waits(store: Store) {
    let store = Arc::new(store);
    let writes: Vec<_> = (0..400)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store.servers.create(new_server(&format!("server-{n}")), change("server.create")).await
            })
        })
        .collect();
    // Some are committed, some wait, some have not begun.
    while store.database.head().borrow().seq == 0 {
        tokio::task::yield_now().await;
    }
    store.database.close().await;
    let mut made = 0;
    for write in writes {
        match write.await.unwrap() {
            Ok(_) => made += 1,
            Err(Error::Unavailable { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let list = store.list(ServerFilter::default(), ServerSort::NEWEST_FIRST, PageRequest::default());
    assert_eq!(list.await.unwrap().total, i64::try_from(made).unwrap(), "who was told so, and nobody else");
    store.check_chain(made).await;
}

async fn a_closed_database_refuses_writes(store: Store) {
    let server = store.server("edge-1").await;
    store.database.close().await;
    store.database.close().await;
    let refused = store.servers.create(new_server("edge-2"), change("server.create")).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    assert!(store.database.ready().await.is_err());
    assert_eq!(store.servers.get(server.id).await.unwrap(), server, "reads go on");
    assert!(store.audit.verify(Vec::new()).await.unwrap().valid);
}
