use super::*;
use crate::{DieselServers, migrate};
use domain::{
    feed::{Fact, State},
    fleet::{ServerFilter, ServerSort, Servers},
    page::PageRequest,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// A fresh database on `SQLite`; its file goes with the directory.
fn fresh() -> (Database, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::Sqlite(directory.path().join("starlink.db"));
    migrate(&url, directory.path()).unwrap();
    (Database::open(url, Seal::new(&[7; 32]), DatabaseOptions::default()).unwrap(), directory)
}

fn insert(name: &str) -> impl Fn(&mut AnyConnection) -> Result<(), Failure> + Send + use<> {
    let name = name.to_owned();
    move |connection| {
        let text = format!(
            "INSERT INTO servers (name, architecture, status, cpu_millis, memory_mib, storage_mib, gpus, tags, \
             revision, created_at_us, updated_at_us) VALUES ('{name}', 'arm64', 'online', 1, 1, 0, 0, '{{}}', 1, 0, 0)"
        );
        sql_query(text).execute(connection)?;
        Ok(())
    }
}

async fn names(servers: &DieselServers) -> Vec<String> {
    let sort = ServerSort::parse("id").unwrap();
    let page = servers.list(ServerFilter::default(), sort, PageRequest::default()).await.unwrap();
    page.items.iter().map(|server| server.name.to_string()).collect()
}

#[tokio::test]
async fn a_write_that_panics_takes_nothing_else_down() {
    let (database, _directory) = fresh();
    let panicked = database.write_silently(|connection| -> Result<(), Failure> {
        insert("half-done")(connection)?;
        panic!("a fault of ours")
    });
    assert!(matches!(panicked.await, Err(Error::Internal { .. })));
    database.write_silently(insert("edge-1")).await.unwrap();
    database.ready().await.unwrap();
    assert_eq!(names(&DieselServers::new(database)).await, ["edge-1"], "what the panic left half done is not there");
}

/// Panics when it is told something, until it was told everything anew.
#[derive(Default)]
struct Faint {
    resets: AtomicUsize,
}

impl Follower for Faint {
    fn reset(&self, _: &State) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    fn follow(&self, _: &[Fact]) {
        panic!("a fault of ours");
    }
}

#[tokio::test]
async fn a_follower_that_panics_is_told_everything_anew() {
    let (database, _directory) = fresh();
    let faint = Arc::new(Faint::default());
    database.follow(faint.clone());
    database.catch_up().await.unwrap();
    database.catch_up().await.unwrap();
    assert_eq!(faint.resets.load(Ordering::Relaxed), 1, "what is known need not be told again");
    let told = database.submit(|_| Ok(((), Trace::default().telling(Fact::ServerGone(domain::ids::ServerId(1))))));
    told.await.unwrap();
    database.catch_up().await.unwrap();
    assert_eq!(faint.resets.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_can_be_read_is_listed_while_nothing_can_be_written() {
    let (database, _directory) = fresh();
    let servers = DieselServers::new(database.clone());
    database.write_silently(insert("edge-1")).await.unwrap();
    database.close().await;
    assert_eq!(names(&servers).await, ["edge-1"]);
}
