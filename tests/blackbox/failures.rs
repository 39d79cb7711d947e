//! When the database is away, locked or full: honest answers, and recovery without help.

use crate::{PROGRAM, server};
use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    os::unix::fs::symlink,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tests::{Answer, Backend, Client, Cluster, Server, ServerOptions, Tmpfs, eventually, fresh_postgres};

fn body(name: &str) -> Value {
    json!({ "name": name, "architecture": "x86_64", "total_cpu": 4, "total_memory": 8, "total_storage": 100 })
}

/// The database is not to be had, and the answer says so and when to come again.
#[track_caller]
fn check_unavailable(answer: &Answer) {
    assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.header("retry-after").is_some_and(|value| value.parse::<u32>().is_ok()), "{:?}", answer.headers);
}

async fn wait_until_ready(admin: &Client) {
    eventually("the server to be ready", async || (admin.get("/readyz").await.status == 200).then_some(())).await;
}

/// Writers that never let go, and what they were told.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    next: AtomicUsize,
    made: Mutex<BTreeMap<String, i64>>,
    refused: Mutex<Vec<Answer>>,
}

impl Load {
    async fn write(self: Arc<Self>, admin: Client) {
        while !self.stop.load(Ordering::Relaxed) {
            let name = format!("s{}", self.next.fetch_add(1, Ordering::Relaxed));
            let answer = admin.post("/servers", body(&name)).await;
            if answer.status == 201 {
                self.made.lock().unwrap().insert(name, answer.id());
            } else {
                self.refused.lock().unwrap().push(answer);
            }
        }
    }

    async fn read(self: Arc<Self>, admin: Client) {
        while !self.stop.load(Ordering::Relaxed) {
            let answer = admin.get("/servers?limit=1").await;
            if answer.status != 200 {
                self.refused.lock().unwrap().push(answer);
            }
        }
    }

    fn made(&self) -> usize {
        self.made.lock().unwrap().len()
    }

    async fn wait_for_more(&self) {
        let enough = self.made() + 20;
        eventually("more writes", async || (self.made() >= enough).then_some(())).await;
    }
}

/// Runs `away` and `back` on a cluster of its own while a server on it is written to and read from.
async fn check_outage(away: fn(&Cluster), back: fn(&Cluster)) {
    let cluster = Arc::new(Cluster::start(&[]));
    let database_url = Some(fresh_postgres(&cluster.url));
    let server = Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments: Vec::new() });
    let (admin, load) = (server.admin(), Arc::new(Load::default()));
    let mut clients: Vec<_> = (0..8).map(|_| tokio::spawn(load.clone().write(admin.clone()))).collect();
    clients.extend((0..2).map(|_| tokio::spawn(load.clone().read(admin.clone()))));
    load.wait_for_more().await;

    let down = cluster.clone();
    tokio::task::spawn_blocking(move || away(&down)).await.unwrap();
    eventually("a refusal", async || (!load.refused.lock().unwrap().is_empty()).then_some(())).await;
    let unready =
        eventually("the server to be unready", async || Some(admin.get("/readyz").await).filter(|a| a.status != 200))
            .await;
    check_unavailable(&unready);
    assert_eq!(admin.get("/healthz").await.status, 200);

    let up = cluster.clone();
    tokio::task::spawn_blocking(move || back(&up)).await.unwrap();
    load.wait_for_more().await;
    wait_until_ready(&admin).await;
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    load.refused.lock().unwrap().iter().for_each(check_unavailable);
    let mut sql = server.sql();
    for (name, id) in load.made.lock().unwrap().iter() {
        assert_eq!(sql.count(&format!("servers WHERE id = {id} AND name = '{name}'")), 1, "{name} was acknowledged");
    }
    assert_eq!(admin.get("/audit/verify").await.at("/valid"), true);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn a_restart_of_postgres_under_load_costs_503_and_nothing_else() {
    check_outage(Cluster::stop, Cluster::restart).await;
}

#[tokio::test]
async fn a_crash_of_postgres_under_load_costs_503_and_nothing_else() {
    check_outage(Cluster::crash, Cluster::restart).await;
}

#[tokio::test]
async fn a_quick_restart_of_postgres_is_survived_by_idle_connections() {
    let cluster = Cluster::start(&[]);
    let database_url = Some(fresh_postgres(&cluster.url));
    let server = Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments: Vec::new() });
    let admin = server.admin();
    admin.post("/servers", body("before")).await.expect(201);
    admin.get("/servers").await.expect(200);
    cluster.restart();
    admin.get("/servers").await.expect(200);
    admin.post("/servers", body("after")).await.expect(201);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_keeps_reads_and_recovers() {
    let disk = match Tmpfs::mount(6) {
        Ok(disk) => disk,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "a_full_disk… could not mount a disk: {why}");
            eprintln!("NOT RUN: a_full_disk_refuses_writes_keeps_reads_and_recovers could not mount a disk: {why}");
            return;
        }
    };
    let directory = tempfile::tempdir().unwrap();
    symlink(disk.path(), directory.path().join("data")).unwrap();
    let options = ServerOptions { program: PROGRAM.into(), ..ServerOptions::default() };
    let server = Server::start_in(directory, options);
    let admin = server.admin();
    admin.post("/servers", body("before")).await.expect(201);

    let ballast = disk.fill();
    let full = eventually("the disk to be noticed", async || {
        let name = format!("s{:?}", Instant::now()).replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        Some(admin.post("/servers", body(&name)).await).filter(|answer| answer.status != 201)
    })
    .await;
    assert_eq!((full.status, full.code()), (507, "storage_full"), "{}", full.text);
    let unready = admin.get("/readyz").await;
    assert_eq!((unready.status, unready.code()), (507, "storage_full"), "{}", unready.text);
    assert_eq!(admin.get("/servers").await.expect(200).at("/0/name"), "before");
    admin.get("/audit/logs").await.expect(200);
    let servers = server.sql().count("servers");

    std::fs::remove_file(ballast).unwrap();
    admin.post("/servers", body("after")).await.expect(201);
    wait_until_ready(&admin).await;
    assert_eq!(server.sql().count("servers"), servers + 1);
    assert_eq!(admin.get("/audit/verify").await.at("/valid"), true);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn a_locked_sqlite_file_refuses_writes_after_five_seconds_and_keeps_reads() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    let mut other = SqliteConnection::establish(server.sqlite_file().to_str().unwrap()).unwrap();
    // The server may be writing something of its own at this moment.
    other.batch_execute("PRAGMA busy_timeout = 20000; BEGIN EXCLUSIVE").unwrap();
    let began = Instant::now();
    let (refused, listed) = tokio::join!(admin.post("/servers", body("no")), admin.get("/servers"));
    check_unavailable(&refused);
    assert!(began.elapsed() >= Duration::from_secs(4), "it gave up after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(12), "it gave up after {:?}", began.elapsed());
    listed.expect(200);
    check_unavailable(&admin.get("/readyz").await);
    other.batch_execute("ROLLBACK").unwrap();
    admin.post("/servers", body("yes")).await.expect(201);
    wait_until_ready(&admin).await;
    assert_eq!(server.sql().texts("SELECT name AS value FROM servers"), ["yes"]);
}

#[tokio::test]
async fn a_removed_sqlite_file_is_noticed_and_nothing_is_acknowledged_into_the_void() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    admin.post("/servers", body("before")).await.expect(201);
    let (file, away) = (server.sqlite_file(), server.data_dir().join("moved.db"));
    std::fs::rename(&file, &away).unwrap();
    check_unavailable(&admin.post("/servers", body("lost")).await);
    check_unavailable(&admin.get("/servers").await);
    check_unavailable(&admin.get("/readyz").await);
    assert!(!file.exists(), "a new, empty database took the place of the one that is gone");
    std::fs::rename(&away, &file).unwrap();
    admin.post("/servers", body("after")).await.expect(201);
    wait_until_ready(&admin).await;
    assert_eq!(server.sql().texts("SELECT name AS value FROM servers ORDER BY name"), ["after", "before"]);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
