//! Secrets stay secret, and refusals are told (FC-26).

use crate::{
    PROGRAM, on_both, server,
    support::{bearer, server_body, total, walk},
};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tests::{Backend, Client, Server, ServerOptions, fresh_postgres, shared_postgres};

on_both!(
    no_secret_is_in_the_trail_the_log_the_events_an_error_or_the_database,
    every_refusal_has_a_row_that_says_who_and_why,
    a_flood_of_refusals_makes_few_rows,
);

const PASSWORD: &str = "correct-horse-9f3a";
const OTHERS: [&str; 4] = ["reg-s3cret-77", "sk-test-4242", "hunter-55", "another-horse-11"];
const DSN_PASSWORD: &str = "p@ss/w#rd-88";
const DSN_ENCODED: &str = "p%40ss%2Fw%23rd-88";
/// A password that somebody sent as a number.
const NUMBER: i64 = 7_242_424_242;

/// A server that logs all there is to log, and whose database URL has a password where it can have one.
fn talkative(backend: Backend) -> Server {
    let url = (backend == Backend::Postgres).then(|| fresh_postgres(&shared_postgres()));
    let database_url = url.map(|url| {
        let (user, host) = url.split_once('@').unwrap();
        format!("{user}:{DSN_ENCODED}@{host}")
    });
    let arguments = ["--log", "json", "--log-level", "trace"].map(str::to_owned).to_vec();
    Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments })
}

/// Requests with secrets in them, good and bad; the texts of the errors, and the secrets that the product made.
async fn exercise(admin: &Client) -> (Vec<String>, Vec<String>) {
    let user = |name: &str, password: Value| json!({ "name": name, "role": "admin", "password": password });
    let mut errors = Vec::new();
    for (path, body) in [
        ("/auth/users", user("", json!(PASSWORD))),
        ("/auth/users", user("carol", json!(NUMBER))),
        ("/auth/users", user("carol", json!([PASSWORD]))),
        ("/auth/users", user("carol", json!({ PASSWORD: 1 }))),
        ("/auth/users", json!({ "name": "carol", "role": PASSWORD, "password": PASSWORD })),
        ("/auth/users", json!({ "name": "carol", "role": "admin", "password": PASSWORD, "registry": OTHERS[0] })),
        ("/auth/login", json!({ "name": "alice", "password": PASSWORD, "cookie": OTHERS[1] })),
        ("/auth/login", json!({ "name": "alice", "password": NUMBER })),
        ("/servers", json!({ "name": "x", "env": { "DB_PASSWORD": OTHERS[2] } })),
        ("/servers", json!({ "name": "x", "architecture": OTHERS[1], "total_cpu": OTHERS[2] })),
    ] {
        errors.push(admin.post(path, body).await.expect(400).text);
    }
    let broken = format!(r#"{{"name":"alice","password":"{PASSWORD}"#);
    let request = admin.request(Method::POST, "/auth/login").header("content-type", "application/json").body(broken);
    errors.push(Client::send(request).await.expect(400).text);
    let id = admin.post("/auth/users", user("alice", json!(PASSWORD))).await.expect(201).id();
    errors.push(admin.post("/auth/users", user("alice", json!(PASSWORD))).await.expect(409).text);
    let anonymous = admin.anonymous();
    let login = |password: &str| {
        anonymous.post("/auth/login", json!({ "name": "alice", "password": password, "cookie": false }))
    };
    let session = login(PASSWORD).await.expect(200).at("/token").as_str().unwrap().to_owned();
    errors.push(login(OTHERS[3]).await.expect(401).text);
    admin.with_token(&session).get("/auth/me").await.expect(200);
    let made = admin.post("/auth/tokens", json!({ "name": "ci", "role": "viewer" })).await.expect(201);
    let token = made.at("/secret").as_str().unwrap().to_owned();
    let viewer = admin.with_token(&token);
    errors.push(viewer.delete("/servers/1").await.expect(403).text);
    errors.push(viewer.with_token(OTHERS[0]).get("/servers").await.expect(401).text);
    let ticket = viewer.post_empty("/auth/tickets").await.expect(200).at("/ticket").as_str().unwrap().to_owned();
    admin.patch(&format!("/auth/users/{id}"), json!({ "password": OTHERS[3] })).await.expect(200);
    errors.push(admin.with_token(&session).get("/auth/me").await.expect(401).text);
    (errors, vec![session, token, ticket])
}

async fn no_secret_is_in_the_trail_the_log_the_events_an_error_or_the_database(backend: Backend) {
    let mut server = talkative(backend);
    let admin = server.admin();
    let mut events = admin.request(Method::GET, "/events").send().await.unwrap();
    let (errors, mut made) = exercise(&admin).await;
    let mut told = String::new();
    admin.post("/pools", json!({ "name": "last" })).await.expect(201);
    while !told.contains("pool.created") {
        let chunk = tokio::time::timeout(Duration::from_secs(30), events.chunk()).await.unwrap().unwrap().unwrap();
        told.push_str(&String::from_utf8_lossy(&chunk));
    }
    drop(events);
    let (lines, table) = (admin.get("/audit/export").await, admin.get("/audit/export?format=csv").await);
    let database = format!("{:?}", server.sql().dump());
    made.push(server.admin_secret());
    server.terminate();
    let mut places = vec![
        ("the export".to_owned(), lines.text),
        ("the export as CSV".to_owned(), table.text),
        ("the events".to_owned(), told),
        ("the database".to_owned(), database),
        ("the log".to_owned(), server.log()),
    ];
    places.extend(errors.into_iter().map(|text| ("an error".to_owned(), text)));
    for file in
        std::fs::read_dir(server.data_dir()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    {
        if !file.ends_with("admin.token") {
            places.push((
                file.display().to_string(),
                String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned(),
            ));
        }
    }
    let fixed = [&OTHERS[..], &[PASSWORD, DSN_PASSWORD, DSN_ENCODED]].concat();
    let secrets = fixed.iter().map(|text| (*text).to_owned()).chain(made).chain([NUMBER.to_string()]);
    for secret in secrets {
        for (place, text) in &places {
            if let Some(at) = text.find(&secret) {
                panic!(
                    "{secret} is in {place}: {}",
                    String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(300)..at + secret.len()])
                );
            }
        }
    }
    check_log(&server.log());
}

/// Every line is a JSON object, and the most talkative level really is on.
fn check_log(log: &str) {
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    for level in ["TRACE", "DEBUG", "INFO"] {
        assert!(lines.iter().any(|line| line["level"] == level), "no line at level {level}");
    }
}

async fn every_refusal_has_a_row_that_says_who_and_why(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    admin.post("/servers", server_body("edge")).await.expect(201);
    admin.post("/auth/users", json!({ "name": "alice", "role": "viewer", "password": PASSWORD })).await.expect(201);
    let anonymous = admin.anonymous();
    anonymous.post("/auth/login", json!({ "name": "alice", "password": "wrong-password" })).await.expect(401);
    anonymous.post("/auth/login", json!({ "name": "nobody\u{7}", "password": "wrong-password" })).await.expect(401);
    let viewer = bearer(&admin, "reader", "viewer", None).await;
    let request = viewer.request(Method::DELETE, "/servers/1").header("x-request-id", "refused-1");
    Client::send(request).await.expect(403);
    anonymous.get("/servers").await.expect(401);
    admin.with_token("slt_made-up").get("/pools/7").await.expect(401);
    let rows = walk(&admin, "/audit/logs?outcome=refused").await;
    let told: Vec<[&str; 3]> = rows
        .iter()
        .map(|row| ["actor", "action", "target"].map(|member| row[member].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(
        told,
        [
            ["anonymous", "pool.get", "pool:7"],
            ["anonymous", "server.list", "-"],
            ["token:reader", "server.delete", "server:1"],
            ["user:nobody", "session.create", "-"],
            ["user:alice", "session.create", "-"],
        ]
    );
    for (row, reason) in
        rows.iter().zip(["not known", "send a valid token", "operator or admin", "wrong user name", "wrong user name"])
    {
        let message = row["message"].as_str().unwrap();
        assert!(message.contains(reason) && message.contains("127.0.0.1"), "{message}");
        assert!(row["request_id"].is_string() && row["before"].is_null() && row["after"].is_null(), "{row}");
    }
    assert_eq!(rows[2]["request_id"], "refused-1");
    assert_eq!(total(&admin, "/servers").await, 1);
}

async fn a_flood_of_refusals_makes_few_rows(backend: Backend) {
    let mut server = server(backend);
    let admin = server.admin();
    let anonymous = admin.anonymous();
    let flood = stream::iter(0..2000).map(|n| {
        let client = if n % 3 == 0 { anonymous.clone() } else { anonymous.with_token(&format!("slt_{n}")) };
        async move {
            let path = ["/servers/", "/pools/", "/auth/users/", "/auth/tokens/"][n % 4];
            client.get(&format!("{path}{}", n + 1)).await.expect(401);
        }
    });
    flood.buffer_unordered(32).collect::<Vec<()>>().await;
    let during = total(&admin, "/audit/logs?outcome=refused").await;
    assert!((1..=20).contains(&during), "{during} rows");
    server.terminate();
    server.restart();
    let rows = walk(&server.admin(), "/audit/logs?outcome=refused").await;
    assert!(rows.len() <= 40, "{} rows", rows.len());
    let more = |row: &Value| row["message"].as_str()?.rsplit("; ").next()?.split(' ').next()?.parse::<usize>().ok();
    let repeats: usize = rows.iter().filter_map(more).sum();
    assert_eq!(repeats + usize::try_from(during).unwrap(), 2000, "none of them is lost");
    assert_eq!(server.admin().get("/audit/verify").await.at("/valid"), true);
}
