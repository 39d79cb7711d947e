//! Starting and stopping: what is refused, what is told, what stays.

use crate::{PROGRAM, on_both, server};
use domain::{
    audit::{AuditEntry, Head, Seal},
    identity::Actor,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tests::{Backend, Client, Finished, Server, ServerOptions, Sql, fresh_postgres, run, shared_postgres, wait_for};

on_both!(
    a_database_of_a_newer_version_is_refused,
    a_broken_chain_is_told_loudly_and_does_not_prevent_the_start,
    a_cut_tail_is_noticed_by_the_head_file,
    a_lost_audit_key_is_told_loudly,
    a_removed_head_file_is_told,
    a_lost_first_token_stays_until_another_is_made,
    a_stop_answers_open_requests_ends_streams_and_keeps_the_token,
    what_machines_ask_all_day_long_is_logged_only_when_it_goes_wrong,
);

fn body(name: &str) -> Value {
    json!({ "name": name, "architecture": "x86_64", "total_cpu": 4, "total_memory": 8, "total_storage": 100 })
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A start that is to fail, in a directory of its own.
async fn start(directory: &TempDir, arguments: &[&str]) -> Finished {
    let data = directory.path().join("data");
    let given: &[&str] = &["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    // What is given twice is refused by the command line.
    let given = if arguments.contains(&"--listen") { [&given[..1], &given[3..]].concat() } else { given.to_vec() };
    run(PROGRAM, &[&given, arguments].concat()).await
}

#[track_caller]
fn check_said(finished: &Finished, wanted: &[&str]) {
    let text = finished.text();
    for part in wanted {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert!(!text.contains("panicked") && !text.contains("internal fault"), "{text}");
}

#[tokio::test]
async fn port_0_takes_a_free_one_and_secrets_are_their_owners_alone() {
    let server = server(Backend::Sqlite);
    let port: u16 = server.base.rsplit_once(':').unwrap().1.parse().unwrap();
    assert_ne!(port, 0);
    server.admin().get("/healthz").await.expect(200);
    assert_eq!(mode(&server.data_dir()), 0o700);
    assert_eq!(mode(&server.data_dir().join("admin.token")), 0o600);
    assert_eq!(mode(&server.data_dir().join("audit.key")), 0o600);
    assert!(!server.log().contains(&server.admin_secret()), "{}", server.log());
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_told_who_holds_it() {
    let server = server(Backend::Sqlite);
    let second = server.command(&["serve", "--listen", "127.0.0.1:0"]).await.expect(1);
    check_said(&second, &["is in use by process", &server.pid().to_string()]);
    server.admin().get("/readyz").await.expect(200);
}

/// A request whose body is not there yet, but whose head the server has read.
fn open_request(server: &Server, body: &str) -> TcpStream {
    let address = server.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (token, length) = (server.admin_secret(), body.len());
    write!(
        stream,
        "POST /servers HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    )
    .unwrap();
    let mut said = String::new();
    BufReader::new(stream.try_clone().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 100"), "{said}");
    stream
}

async fn a_stop_answers_open_requests_ends_streams_and_keeps_the_token(backend: Backend) {
    let mut server = server(backend);
    let (admin, secret) = (server.admin(), server.admin_secret());
    let mut events = admin.request(reqwest::Method::GET, "/events").send().await.unwrap();
    assert_eq!(events.chunk().await.unwrap().unwrap(), ": watching\n\n");
    let body = body("late").to_string();
    let mut request = open_request(&server, &body);
    let began = Instant::now();
    server.ask_to_stop();
    wait_for("the server to begin to stop", || server.log().contains("stopping").then_some(()));
    request.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = request.read_to_string(&mut answer);
    assert!(answer.contains("HTTP/1.1 201"), "{answer}\n{}", server.log());
    while events.chunk().await.unwrap().is_some() {}
    assert!(server.wait_until_ended().success());
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    server.restart();
    assert_eq!(server.admin_secret(), secret);
    assert_eq!(server.admin().get("/servers").await.expect(200).at("/0/name"), "late");
    assert!(server.log().contains("the audit log is intact"), "{}", server.log());
}

#[tokio::test]
async fn plain_http_for_other_machines_is_refused_without_a_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let refused = start(&directory, &["--listen", "0.0.0.0:0"]).await.expect(2);
    check_said(&refused, &["listen", "plain HTTP", "tls_cert", "behind_proxy"]);
    let arguments = ["--listen", "0.0.0.0:0", "--behind-proxy"].map(str::to_owned).to_vec();
    let server = Server::start_with(ServerOptions { program: PROGRAM.into(), arguments, ..ServerOptions::default() });
    let port = server.base.rsplit_once(':').unwrap().1;
    Client::new(&format!("http://127.0.0.1:{port}"), None).get("/healthz").await.expect(200);
}

/// `site.crt` and `site.key` for this machine.
fn certificate(directory: &TempDir) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (cert, key) = (path("site.crt"), path("site.key"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key)
}

#[tokio::test]
async fn https_is_served_as_http_1_and_http_2() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(&directory);
    let arguments = ["--tls-cert", &cert, "--tls-key", &key].map(str::to_owned).to_vec();
    let server = Server::start_with(ServerOptions { program: PROGRAM.into(), arguments, ..ServerOptions::default() });
    assert!(server.base.starts_with("https://"), "{}", server.base);
    let admin = Client::trusting(&server.base, Some(&server.admin_secret()), Path::new(&cert));
    admin.post("/servers", body("edge")).await.expect(201);
    let untrusting = Client::new(&server.base, None);
    assert!(Client::try_send(untrusting.request(reqwest::Method::GET, "/healthz")).await.is_err());
    assert_eq!(first_frame_of_http_2(server.base.strip_prefix("https://").unwrap(), &cert), 4, "no SETTINGS frame");
}

/// The type of the first frame that a server sends to a client that offers HTTP/2 alone.
fn first_frame_of_http_2(address: &str, cert: &str) -> u8 {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connection = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    head[3]
}

#[tokio::test]
async fn unusable_certificates_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(&directory);
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("garbage"), "no certificate").unwrap();
    let other = tempfile::tempdir().unwrap();
    let (_, foreign) = certificate(&other);
    for (cert, key, wanted) in [
        (&path("absent"), &key, "absent"),
        (&path("garbage"), &key, "garbage contains no certificate"),
        (&cert, &cert, "contains no private key"),
        (&cert, &foreign, "does not belong to the first certificate"),
    ] {
        let refused = start(&directory, &["--tls-cert", cert, "--tls-key", key]).await.expect(1);
        check_said(&refused, &[wanted]);
    }
    check_said(&start(&directory, &["--tls-cert", &cert]).await.expect(2), &["tls_cert", "tls_key"]);
}

#[tokio::test]
async fn an_unknown_setting_is_named_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("starlink.toml");
    fs::write(&file, "workers = 2\nlisten_on = \"127.0.0.1:0\"\n").unwrap();
    let refused = start(&directory, &["--config", file.to_str().unwrap()]).await.expect(2);
    check_said(&refused, &["listen_on", "starlink.toml:2", "no such setting"]);
}

async fn a_database_of_a_newer_version_is_refused(backend: Backend) {
    let mut server = server(backend);
    assert!(server.terminate().1.success());
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99999999999999')";
    server.sql().run(newer);
    let before = server.sql().dump();
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"]] {
        let refused = server.command(command).await.expect(1);
        check_said(&refused, &["newer version", "99999999999999"]);
    }
    assert_eq!(server.sql().dump(), before);
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused_and_left_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    Sql::open(&format!("sqlite:{}", path("foreign.db")))
        .run("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('soup')");
    fs::write(path("text.db"), "this is a text and no database at all\n".repeat(200)).unwrap();
    for (file, wanted) in [("foreign.db", "recipes"), ("text.db", "no SQLite database")] {
        let (before, url) = (fs::read(path(file)).unwrap(), format!("sqlite:{}", path(file)));
        let target = format!("sqlite:{}", path("target.db"));
        check_said(&start(&directory, &["--database-url", &url]).await.expect(1), &["refusing to touch", wanted]);
        let data = path("data");
        for command in [
            &["migrate", "--data-dir", &data, "--database-url", &url][..],
            &["copy", "--data-dir", &data, "--from", &url, "--to", &target],
        ] {
            check_said(&run(PROGRAM, command).await.expect(1), &["refusing to touch", wanted]);
        }
        assert!(fs::read(path(file)).unwrap() == before, "{file} was changed");
    }
    let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["data", "foreign.db", "text.db"], "something was left behind");
}

#[tokio::test]
async fn an_audit_key_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("audit.key");
    fs::write(&key, "ab".repeat(32)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let refused = start(&directory, &["--audit-key-file", key.to_str().unwrap()]).await.expect(1);
    check_said(&refused, &["audit.key", "644", "chmod 600"]);
}

async fn a_lost_audit_key_is_told_loudly(backend: Backend) {
    let mut server = server(backend);
    server.admin().post("/servers", body("edge")).await.expect(201);
    assert!(server.terminate().1.success());
    fs::remove_file(server.data_dir().join("audit.key")).unwrap();
    server.restart();
    wait_for("the log to tell", || server.log().contains("THE AUDIT LOG IS BROKEN").then_some(()));
    assert!(server.log().contains("the audit key was not there"), "{}", server.log());
    server.admin().get("/servers").await.expect(200);
    assert_eq!(server.admin().get("/audit/verify").await.at("/valid"), false);
}

/// Restarts a server whose database was edited while it was stopped; what the check of the log finds.
async fn found_after(backend: Backend, edit: &str) -> (Server, Value) {
    let mut server = server(backend);
    for n in 0..5 {
        server.admin().post("/servers", body(&format!("s{n}"))).await.expect(201);
    }
    assert!(server.terminate().1.success());
    server.sql().run(edit);
    server.restart();
    wait_for("the log to tell", || server.log().contains("THE AUDIT LOG IS BROKEN").then_some(()));
    let found = server.admin().get("/audit/verify").await.expect(200).json;
    server.admin().post("/servers", body("after")).await.expect(201);
    assert_eq!(found["valid"], false);
    (server, found)
}

async fn a_broken_chain_is_told_loudly_and_does_not_prevent_the_start(backend: Backend) {
    let (server, found) = found_after(backend, "UPDATE audit_logs SET actor = 'user:mallory' WHERE seq = 3").await;
    assert_eq!(found["broken_at"], 3);
    assert!(server.log().contains("at row 3: its column actor was edited"), "{}", server.log());
}

async fn a_cut_tail_is_noticed_by_the_head_file(backend: Backend) {
    let edit = "DELETE FROM audit_logs WHERE seq > 3; \
                UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM audit_logs WHERE seq = 3)";
    let (server, found) = found_after(backend, edit).await;
    assert_eq!(found["broken_at"], 4, "{found}");
    assert!(server.log().contains("cut off"), "{}", server.log());
}

/// Puts one row in the place of the whole log, as the server would have sealed it a long time ago.
fn age_the_log(server: &Server) {
    let digits = fs::read_to_string(server.data_dir().join("audit.key")).unwrap();
    let key: Vec<u8> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2).unwrap(), 16).unwrap()).collect();
    let at = "2026-01-02T03:04:05.000006Z".parse().unwrap();
    let entry = AuditEntry::new(&Actor::system("test"), "pool.create", at);
    let row = Seal::new(&key.try_into().unwrap()).row(&Head::default(), &entry);
    let (micros, actor, action, outcome) = (at.timestamp_micros(), row.actor, row.action, row.outcome);
    server.sql().run(&format!(
        "DELETE FROM audit_logs; \
         INSERT INTO audit_logs (seq, created_at_us, actor, action, target, outcome, canonical, hash) \
         VALUES (1, {micros}, '{actor}', '{action}', NULL, '{outcome}', '{}', '{}'); \
         UPDATE audit_head SET seq = 1, hash = '{}'",
        row.canonical, row.hash, row.hash
    ));
}

async fn a_removed_head_file_is_told(backend: Backend) {
    const TOLD: &str = "no head of it is noted in audit.heads";
    let mut server = server(backend);
    let heads = server.data_dir().join("audit.heads");
    wait_for("the head to be noted at once", || heads.exists().then_some(()));
    assert!(server.terminate().1.success());
    fs::remove_file(&heads).unwrap();
    server.restart();
    assert!(!server.log().contains(TOLD), "this log has just begun: {}", server.log());
    assert!(server.terminate().1.success());

    age_the_log(&server);
    fs::remove_file(&heads).unwrap();
    server.restart();
    assert!(server.log().contains(TOLD), "{}", server.log());
    assert_eq!(server.admin().get("/audit/verify").await.expect(200).at("/valid"), true);
    assert!(server.terminate().1.success());
    server.restart();
    assert!(!server.log().contains(TOLD), "{}", server.log());
}

/// The names of the tokens, and what the log has on them.
fn tokens(server: &Server) -> (Vec<String>, Vec<String>) {
    let mut sql = server.sql();
    let names = sql.texts("SELECT name AS value FROM tokens ORDER BY id");
    (names, sql.texts("SELECT action AS value FROM audit_logs WHERE action LIKE 'token.%' ORDER BY seq"))
}

async fn a_lost_first_token_stays_until_another_is_made(backend: Backend) {
    let mut server = server(backend);
    assert!(server.terminate().1.success());
    let file = server.data_dir().join("admin.token");
    fs::remove_file(&file).unwrap();
    server.restart();
    assert!(!file.exists() && server.log().contains("starlink-server token create"), "{}", server.log());
    assert_eq!(tokens(&server), (vec!["admin".to_owned()], vec!["token.create".to_owned()]));
    let made = server.command(&["token", "create", "--name", "rescue", "--role", "admin"]).await.expect(0);
    let rescued = Client::new(&server.base, Some(made.out.trim()));
    let listed = rescued.get("/auth/tokens").await.expect(200);
    assert_eq!((listed.at("/0/name"), listed.at("/1/name")), (json!("rescue"), json!("admin")));
    rescued.delete(&format!("/auth/tokens/{}", listed.at("/1/id"))).await.expect(204);
}

/// A server with a data directory of its own on this database; all that is made in `shared` is the audit key.
fn beside(shared: &TempDir, url: &str) -> Server {
    let key = shared.path().join("audit.key").display().to_string();
    Server::start_with(ServerOptions {
        program: PROGRAM.into(),
        database_url: Some(url.to_owned()),
        arguments: vec!["--audit-key-file".to_owned(), key],
    })
}

#[tokio::test]
async fn a_server_on_the_database_of_another_leaves_its_unused_token_alone() {
    let (shared, url) = (tempfile::tempdir().unwrap(), fresh_postgres(&shared_postgres()));
    let (first, second) = (beside(&shared, &url), beside(&shared, &url));
    assert!(!second.data_dir().join("admin.token").exists());
    assert!(second.log().contains("starlink-server token create"), "{}", second.log());
    first.admin().get("/auth/me").await.expect(200);
    Client::new(&second.base, Some(&first.admin_secret())).get("/auth/me").await.expect(200);
}

#[tokio::test]
async fn servers_that_begin_at_once_on_one_database_share_one_first_token() {
    let (shared, url) = (tempfile::tempdir().unwrap(), fresh_postgres(&shared_postgres()));
    // The first start is not among those that race: bringing the schema up to date is not what this is about.
    let mut first = beside(&shared, &url);
    assert!(first.terminate().1.success());
    first.sql().run("DELETE FROM tokens");
    let servers: Vec<Server> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| beside(&shared, &url))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let holders: Vec<_> = servers.iter().filter(|server| server.data_dir().join("admin.token").exists()).collect();
    assert_eq!((holders.len(), tokens(&first).0), (1, vec!["admin".to_owned()]));
    let secret = holders[0].admin_secret();
    for server in &servers {
        Client::new(&server.base, Some(&secret)).get("/auth/me").await.expect(200);
    }
}

#[tokio::test]
async fn a_first_token_that_could_not_be_written_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let in_the_way = directory.path().join("data/admin.token");
    fs::create_dir_all(&in_the_way).unwrap();
    fs::set_permissions(directory.path().join("data"), Permissions::from_mode(0o700)).unwrap();
    check_said(&start(&directory, &[]).await.expect(1), &["cannot write", "admin.token"]);
    fs::remove_dir(&in_the_way).unwrap();
    let server = Server::start_in(directory, ServerOptions { program: PROGRAM.into(), ..ServerOptions::default() });
    server.admin().get("/auth/me").await.expect(200);
    assert_eq!(tokens(&server).0, ["admin"]);
    assert_eq!(tokens(&server).1, ["token.create", "token.delete", "token.create"]);
}

async fn what_machines_ask_all_day_long_is_logged_only_when_it_goes_wrong(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for path in ["/healthz", "/readyz", "/metrics", "/pools"] {
        admin.get(path).await.expect(200);
    }
    let anonymous = admin.anonymous();
    for path in ["/metrics", "/agent/operations?session=s"] {
        anonymous.get(path).await.expect(401);
    }
    let log = server.log();
    let told = |line: &str| {
        let words = line.split(' ').filter(|word| word.starts_with("path=") || word.starts_with("status="));
        words.collect::<Vec<_>>().join(" ")
    };
    let asked: Vec<String> = log.lines().filter(|line| line.contains("request answered")).map(told).collect();
    assert_eq!(asked, ["path=/pools status=200", "path=/metrics status=401", "path=/agent/operations status=401"]);
}
