//! Lists are made from memory, and yet show what is committed, by whomever.

use crate::{
    on_both,
    store::{Process, Store, change},
};
use domain::{
    fleet::{Server, ServerFilter, ServerSort, Servers},
    page::PageRequest,
};

on_both!(
    a_list_shows_what_this_process_did_last,
    a_list_shows_what_another_process_did,
    processes_in_turns_see_each_other,
);

async fn names(process: &Process) -> Vec<String> {
    let sort = ServerSort::parse("id").unwrap();
    let page = process.list(ServerFilter::default(), sort, PageRequest::default()).await.unwrap();
    page.items.iter().map(|server| server.name.to_string()).collect()
}

async fn a_list_shows_what_this_process_did_last(store: Store) {
    assert_eq!(names(&store).await, [""; 0]);
    let first = store.server("edge-1").await;
    store.server("edge-2").await;
    assert_eq!(names(&store).await, ["edge-1", "edge-2"]);
    store.servers.delete(first, change("server.delete")).await.unwrap();
    assert_eq!(names(&store).await, ["edge-2"]);
}

async fn a_list_shows_what_another_process_did(store: Store) {
    let server = store.server("edge-1").await;
    assert_eq!(names(&store).await, ["edge-1"]);
    let other = store.second_process();
    other.server("edge-2").await;
    assert_eq!(names(&store).await, ["edge-1", "edge-2"]);
    let renamed = Server { name: domain::text::Name::parse("west-1").unwrap(), revision: 2, ..server };
    other.servers.update(renamed, change("server.update")).await.unwrap();
    assert_eq!(names(&store).await, ["west-1", "edge-2"]);
}

/// A write of one's own after another's must not hide the other's.
async fn processes_in_turns_see_each_other(store: Store) {
    let other = store.second_process();
    let mut expected = Vec::new();
    for n in 0..6 {
        let name = format!("edge-{n}");
        if n % 2 == 0 {
            store.server(&name).await
        } else {
            other.server(&name).await
        };
        expected.push(name);
        if n == 2 {
            assert_eq!(names(&store).await, expected);
            assert_eq!(names(&other).await, expected);
        }
    }
    assert_eq!((names(&store).await, names(&other).await), (expected.clone(), expected));
}
