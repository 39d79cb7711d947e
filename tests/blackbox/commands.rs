//! The commands besides `serve`, beside a running server and without one.

use crate::{PROGRAM, on_both, server};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tests::{Backend, Client, Finished, Server, Sql, eventually, fresh_postgres, run, shared_postgres};

on_both!(
    tokens_are_made_beside_a_running_server_and_without_one,
    a_backup_under_load_is_whole_and_restores_while_the_server_runs,
    a_backup_of_a_stopped_server_restores_without_one,
    a_restore_of_what_is_no_backup_changes_nothing,
    a_restore_under_load_loses_no_write_in_between,
    migrate_may_be_repeated,
);

fn body(name: &str) -> Value {
    json!({ "name": name, "architecture": "x86_64", "total_cpu": 4, "total_memory": 8, "total_storage": 100, "tags": { "a": "b" } })
}

fn file(server: &Server, name: &str) -> PathBuf {
    server.data_dir().join(name)
}

async fn names(admin: &Client) -> Vec<String> {
    let listed = admin.get("/servers?limit=200").await.expect(200);
    let mut names: Vec<_> =
        listed.json.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

async fn check_log(admin: &Client) {
    let found = admin.get("/audit/verify").await.expect(200);
    assert_eq!(found.at("/valid"), true, "{}", found.text);
}

#[track_caller]
fn check_said(finished: &Finished, wanted: &[&str]) {
    let text = finished.text();
    assert!(wanted.iter().all(|part| text.contains(part)), "{wanted:?} are not all in: {text}");
    assert!(!text.contains("panicked") && !text.contains("internal fault"), "{text}");
}

async fn migrate_may_be_repeated(backend: Backend) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let url = match backend {
        Backend::Sqlite => format!("sqlite:{data}/starlink.db"),
        Backend::Postgres => fresh_postgres(&shared_postgres()),
    };
    let arguments = ["migrate", "--data-dir", &data, "--database-url", &url];
    check_said(&run(PROGRAM, &arguments).await.expect(0), &["applied migration", "the schema is current"]);
    let again = run(PROGRAM, &arguments).await.expect(0);
    assert_eq!(again.out, "the schema is current\n");
}

async fn tokens_are_made_beside_a_running_server_and_without_one(backend: Backend) {
    let mut server = server(backend);
    let made =
        server.command(&["token", "create", "--name", "ci", "--role", "viewer", "--scope", "fleet"]).await.expect(0);
    let viewer = server.admin().with_token(made.out.trim());
    viewer.get("/servers").await.expect(200);
    viewer.post("/servers", body("no")).await.expect(403);
    viewer.get("/pools").await.expect(403);
    let taken = server.command(&["token", "create", "--name", "ci", "--role", "viewer"]).await.expect(1);
    check_said(&taken, &["ci"]);
    assert_eq!(taken.out, "");
    assert!(server.terminate().1.success());
    let made = server.command(&["token", "create", "--name", "ops", "--role", "operator"]).await.expect(0);
    server.restart();
    let operator = server.admin().with_token(made.out.trim());
    operator.post("/servers", body("yes")).await.expect(201);
    operator.get("/auth/tokens").await.expect(403);
    let trail = server.admin().get("/audit/logs?action=token.create").await.expect(200);
    assert_eq!((trail.at("/0/actor"), trail.at("/1/actor")), (json!("system:cli"), json!("system:cli")));
    check_log(&server.admin()).await;
}

/// Writers whose answers are looked at.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    next: AtomicUsize,
    made: AtomicUsize,
}

impl Load {
    /// Makes servers until it is stopped; only these answers are allowed.
    async fn run(self: Arc<Self>, admin: Client, allowed: &'static [u16]) {
        while !self.stop.load(Ordering::Relaxed) {
            let name = format!("load-{}", self.next.fetch_add(1, Ordering::Relaxed));
            let answer = admin.post("/servers", body(&name)).await;
            assert!(allowed.contains(&answer.status), "{}", answer.text);
            self.made.fetch_add(usize::from(answer.status == 201), Ordering::Relaxed);
        }
    }

    async fn wait_for_more(&self) {
        let enough = self.made.load(Ordering::Relaxed) + 20;
        eventually("more writes", async || (self.made.load(Ordering::Relaxed) >= enough).then_some(())).await;
    }
}

async fn a_backup_under_load_is_whole_and_restores_while_the_server_runs(backend: Backend) {
    let server = server(backend);
    let (admin, load) = (server.admin(), Arc::new(Load::default()));
    admin.post("/servers", body("kept")).await.expect(201);
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(load.clone().run(admin.clone(), &[201]))).collect();
    load.wait_for_more().await;
    let copy = file(&server, "copy.db");
    let told = server.command(&["backup", copy.to_str().unwrap()]).await.expect(0);
    check_said(&told, &["servers:", "wrote", "audit.key"]);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    load.wait_for_more().await;
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let mut saved = Sql::open(&format!("sqlite:{}", copy.display()));
    let rows = "audit_logs WHERE action = 'server.create'";
    assert_eq!(saved.count("servers"), saved.count(rows), "the copy is not one moment");
    let kept = saved.texts("SELECT name AS value FROM servers ORDER BY name");
    assert!(kept.len() > 20 && kept.len() < names(&admin).await.len());
    let second = server.command(&["backup", copy.to_str().unwrap()]).await.expect(1);
    check_said(&second, &["exists already"]);

    server.command(&["restore", copy.to_str().unwrap()]).await.expect(0);
    let total = |answer: tests::Answer| answer.header("x-total-count").map(str::to_owned);
    eventually("the restored state", async || {
        (total(admin.get("/servers?limit=1").await)? == kept.len().to_string()).then_some(())
    })
    .await;
    check_log(&admin).await;
    let trail = admin.get("/audit/logs?action=database.restore").await.expect(200);
    assert_eq!(trail.json.as_array().unwrap().len(), 1);
    admin.post("/servers", body("after")).await.expect(201);
    check_log(&admin).await;
}

async fn a_backup_of_a_stopped_server_restores_without_one(backend: Backend) {
    let mut server = server(backend);
    server.admin().post("/servers", body("kept")).await.expect(201);
    assert!(server.terminate().1.success());
    let copy = file(&server, "copy.db").display().to_string();
    server.command(&["backup", &copy]).await.expect(0);
    server.restart();
    // As many rows as the restore will add, so that a row of the old chain stands where one of the new will.
    server.admin().post("/servers", body("gone")).await.expect(201);
    server.command(&["restore", &copy]).await.expect(0);
    check_log(&server.admin()).await;
    assert_eq!(names(&server.admin()).await, ["kept"]);
    server.admin().post("/servers", body("gone too")).await;
    assert!(server.terminate().1.success());
    check_said(&server.command(&["restore", &copy]).await.expect(0), &["restored", "servers: 1 rows"]);
    server.restart();
    assert_eq!(names(&server.admin()).await, ["kept"]);
    check_log(&server.admin()).await;
    assert!(!server.log().contains("BROKEN"), "{}", server.log());
}

async fn a_restore_of_what_is_no_backup_changes_nothing(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    admin.post("/servers", body("kept")).await.expect(201);
    let (whole, damaged) = (file(&server, "whole.db"), file(&server, "damaged.db"));
    server.command(&["backup", whole.to_str().unwrap()]).await.expect(0);
    let mut bytes = fs::read(&whole).unwrap();
    for byte in bytes.iter_mut().skip(4096) {
        *byte ^= 0x5a;
    }
    fs::write(&damaged, bytes).unwrap();
    let (foreign, text, absent) = (file(&server, "foreign.db"), file(&server, "text.db"), file(&server, "absent.db"));
    Sql::open(&format!("sqlite:{}", foreign.display())).run("CREATE TABLE recipes (name TEXT)");
    fs::write(&text, "no database\n".repeat(500)).unwrap();
    let before = server.sql().dump();
    for (path, wanted) in [(damaged, ""), (foreign, "recipes"), (text, "no SQLite database"), (absent, "absent.db")] {
        let old = fs::read(&path).ok();
        let refused = server.command(&["restore", path.to_str().unwrap()]).await.expect(1);
        check_said(&refused, &[wanted]);
        assert!(fs::read(&path).ok() == old, "{} was changed", path.display());
        assert_eq!(server.sql().dump(), before, "{}", refused.text());
    }
    let left = fs::read_dir(server.data_dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains("restoring")), "a working copy was left behind");
    check_log(&admin).await;
}

async fn a_restore_under_load_loses_no_write_in_between(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for n in 0..30 {
        admin.post("/servers", body(&format!("kept-{n}"))).await.expect(201);
    }
    let copy = file(&server, "copy.db").display().to_string();
    server.command(&["backup", &copy]).await.expect(0);
    let load = Arc::new(Load::default());
    let clients: Vec<_> = (0..8).map(|_| tokio::spawn(load.clone().run(admin.clone(), &[201, 503]))).collect();
    load.wait_for_more().await;
    server.command(&["restore", &copy]).await.expect(0);
    load.wait_for_more().await;
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    check_log(&admin).await;
    let mut sql = server.sql();
    assert_eq!(sql.count("servers WHERE name LIKE 'kept-%'"), 30);
    let target = "target = 'server:' || CAST(servers.id AS TEXT)";
    let told =
        format!("servers WHERE (SELECT count(*) FROM audit_logs WHERE action = 'server.create' AND {target}) = 1");
    assert_eq!(sql.count(&told), sql.count("servers"));
}

#[tokio::test]
async fn a_copy_goes_to_postgres_and_back_without_a_difference() {
    let mut server = server(Backend::Sqlite);
    let admin = server.admin();
    // More than one statement inserts, and texts of every kind.
    for n in 0..600 {
        let mut body = body(&format!("s{n}"));
        body["tags"] = json!({ "place": format!("K\u{f6}ln \u{1F680} '\"{n}") });
        admin.post("/servers", body).await.expect(201);
    }
    admin.anonymous().get("/servers").await.expect(401);
    assert!(server.terminate().1.success());
    let (first, middle, last) =
        (server.url(), fresh_postgres(&shared_postgres()), format!("sqlite:{}", file(&server, "back.db").display()));
    check_said(
        &server.command(&["copy", "--from", &first, "--to", &middle]).await.expect(0),
        &["compared each of them"],
    );
    server.command(&["copy", "--from", &middle, "--to", &last]).await.expect(0);
    let dump = |url: &str| Sql::open(url).dump();
    assert!(dump(&first).iter().any(|(table, rows)| table == "servers" && rows.len() == 600));
    assert_eq!(dump(&first), dump(&middle));
    assert_eq!(dump(&first), dump(&last));
    let refused = server.command(&["copy", "--from", &first, "--to", &middle]).await.expect(1);
    check_said(&refused, &["has data already"]);
    assert_eq!(dump(&first), dump(&middle));

    // The chain goes on in the new database with the key that came along; ids go on as well.
    let key = server.data_dir().join("audit.key").display().to_string();
    let arguments = vec!["--audit-key-file".to_owned(), key];
    let options = tests::ServerOptions { program: PROGRAM.into(), database_url: Some(middle), arguments };
    let moved = Server::start_with(options);
    let admin = Client::new(&moved.base, Some(&server.admin_secret()));
    check_log(&admin).await;
    admin.post("/servers", body("new")).await.expect(201);
    check_log(&admin).await;
}

#[tokio::test]
async fn exit_codes_tell_wrong_commands_from_failed_ones_and_passwords_stay_secret() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let nowhere = "postgres://starlink:hunter2@127.0.0.1:1/db";
    let checked = run(PROGRAM, &["check-config", "--data-dir", &data, "--database-url", nowhere]).await.expect(0);
    check_said(
        &checked,
        &["database_url = \"postgres://starlink:***@127.0.0.1:1/db\"", "the configuration can be used"],
    );
    let mut everything = vec![checked];
    for command in
        [&["serve"][..], &["migrate"], &["backup", "x.db"], &["token", "create", "--name", "a", "--role", "viewer"]]
    {
        let settings = ["--data-dir", &data, "--database-url", nowhere];
        everything.push(run(PROGRAM, &[command, &settings].concat()).await.expect(1));
    }
    let target = format!("sqlite:{}", directory.path().join("x.db").display());
    everything.push(run(PROGRAM, &["copy", "--data-dir", &data, "--from", nowhere, "--to", &target]).await.expect(1));
    // A password that should have been percent-encoded makes the database's library read parts of it as something else.
    for torn in ["postgres://starlink:hunter2/x@127.0.0.1:1/db", "postgres://starlink:hunter2#@127.0.0.1:1/db"] {
        everything.push(run(PROGRAM, &["migrate", "--data-dir", &data, "--database-url", torn]).await.expect(1));
    }
    everything.push(
        run(PROGRAM, &["migrate", "--data-dir", &data, "--database-url", "mysql://a:hunter2@b/c"]).await.expect(2),
    );
    everything.push(run(PROGRAM, &["frobnicate"]).await.expect(2));
    everything.push(run(PROGRAM, &["check-config", "--workers", "many"]).await.expect(2));
    for said in everything {
        assert!(!said.text().contains("hunter2"), "{}", said.text());
    }
    let version = run(PROGRAM, &["version"]).await.expect(0);
    assert!(version.out.starts_with("starlink-server "), "{}", version.out);
}
