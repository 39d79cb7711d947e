//! The stream of changes.

use crate::{
    maintenance::{begin, end},
    on_both, server,
    support::{bearer, server_body},
};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::time::Duration;
use tests::{Backend, Client};

on_both!(
    changes_are_told_as_they_happen,
    a_reader_goes_on_where_it_stopped_also_over_a_restart,
    a_watcher_sees_the_rooms_of_its_token_alone,
    a_stream_ends_with_the_server,
    a_stream_ends_with_the_token_that_opened_it,
    a_stream_goes_on_after_a_restore,
);

/// An open stream.
struct Stream {
    response: Response,
    unread: String,
}

/// One event: its id, its kind, and its data.
#[derive(Debug, PartialEq)]
struct Event(i64, String, Value);

impl Stream {
    async fn open(client: &Client, last: Option<i64>) -> Self {
        let request = client.request(Method::GET, "/events");
        let request = match last {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        let mut stream = Self { response, unread: String::new() };
        assert_eq!(stream.block().await.as_deref(), Some(": watching"), "the stream shows at once that it is open");
        stream
    }

    /// The next lines up to an empty one; `None` when the server ends the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.unread = rest;
                return Some(block);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(30), self.response.chunk()).await;
            // A stream may end in order or with the connection.
            let chunk = chunk.unwrap_or_else(|_| panic!("nothing comes")).ok().flatten()?;
            self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            if block.starts_with(':') {
                continue;
            }
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap();
            let data: Value = serde_json::from_str(field("data")).unwrap();
            let (id, kind) = (field("id").parse().unwrap(), field("event").to_owned());
            assert_eq!((&data["id"], &data["kind"]), (&json!(id), &json!(kind)));
            return Some(Event(id, kind, data));
        }
    }

    async fn check_next(&mut self, kind: &str, target: &str) -> i64 {
        let Event(id, told, data) = self.event().await.unwrap();
        assert_eq!((told.as_str(), data["target"].as_str()), (kind, Some(target)), "{data}");
        assert!(data["at"].as_str().unwrap().ends_with('Z'));
        id
    }
}

async fn changes_are_told_as_they_happen(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let mut stream = Stream::open(&admin, None).await;
    admin.post("/servers", server_body("edge")).await.expect(201);
    let first = stream.check_next("server.created", "server:1").await;
    admin.patch("/servers/1", json!({ "zone": "z" })).await.expect(200);
    stream.check_next("server.updated", "server:1").await;
    admin.patch("/servers/1", json!({ "zone": 1 })).await.expect(400);
    admin.post_empty("/servers/1/cordon").await.expect(200);
    admin.post_empty("/servers/1/cordon").await.expect(200);
    stream.check_next("server.updated", "server:1").await;
    let window = begin(&admin, 1).await;
    end(&admin, window).await;
    let target = format!("maintenance:{window}");
    stream.check_next("maintenance.created", &target).await;
    for _ in ["it begins", "it ends"] {
        stream.check_next("maintenance.updated", &target).await;
        stream.check_next("server.updated", "server:1").await;
    }
    admin.delete("/servers/1").await.expect(204);
    assert!(stream.check_next("server.deleted", "server:1").await > first);
}

async fn a_reader_goes_on_where_it_stopped_also_over_a_restart(backend: Backend) {
    let mut server = server(backend);
    let admin = server.admin();
    let mut stream = Stream::open(&admin, None).await;
    for n in 0..5 {
        admin.post("/pools", json!({ "name": format!("p{n}") })).await.expect(201);
    }
    stream.check_next("pool.created", "pool:1").await;
    let seen = stream.check_next("pool.created", "pool:2").await;
    drop(stream);
    server.terminate();
    server.restart();
    let admin = server.admin();
    let mut stream = Stream::open(&admin, Some(seen)).await;
    for n in 3..=5 {
        stream.check_next("pool.created", &format!("pool:{n}")).await;
    }
    admin.delete("/pools/5").await.expect(204);
    stream.check_next("pool.deleted", "pool:5").await;
    let mut whole = Stream::open(&admin, Some(0)).await;
    whole.check_next("token.created", "token:1").await;
    for wrong in ["x", "-1", "1.5"] {
        let refused =
            Client::send(admin.request(Method::GET, "/events").header("last-event-id", wrong)).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), "Last-Event-ID", "{wrong}");
    }
}

async fn a_watcher_sees_the_rooms_of_its_token_alone(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let fleet = bearer(&admin, "fleet", "viewer", Some(&["fleet"])).await;
    let mut stream = Stream::open(&fleet, Some(0)).await;
    admin.post("/pools", json!({ "name": "p" })).await.expect(201);
    admin.post("/servers", server_body("edge")).await.expect(201);
    admin.post("/auth/users", json!({ "name": "u", "role": "viewer", "password": "12345678" })).await.expect(201);
    admin.delete("/servers/1").await.expect(204);
    stream.check_next("server.created", "server:1").await;
    stream.check_next("server.deleted", "server:1").await;
    fleet.anonymous().get("/events").await.expect(401);
}

async fn a_stream_ends_with_the_server(backend: Backend) {
    let mut server = server(backend);
    let admin = server.admin();
    let mut streams = vec![Stream::open(&admin, None).await, Stream::open(&admin, Some(0)).await];
    let (took, status) = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    for stream in &mut streams {
        while stream.event().await.is_some() {}
    }
}

async fn a_stream_ends_with_the_token_that_opened_it(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let made = admin.post("/auth/tokens", json!({ "name": "watcher", "role": "viewer" })).await.expect(201);
    let watcher = admin.with_token(made.at("/secret").as_str().unwrap());
    let mut stream = Stream::open(&watcher, None).await;
    admin.post("/pools", json!({ "name": "p" })).await.expect(201);
    stream.check_next("pool.created", "pool:1").await;
    admin.delete(&format!("/auth/tokens/{}", made.id())).await.expect(204);
    admin.post("/pools", json!({ "name": "q" })).await.expect(201);
    // That the token was removed may still be told, but nothing after.
    while let Some(Event(_, kind, data)) = stream.event().await {
        assert_eq!(kind, "token.deleted", "a revoked token opens nothing any more: {data}");
    }
}

async fn a_stream_goes_on_after_a_restore(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let fleet = bearer(&admin, "fleet", "viewer", Some(&["fleet"])).await;
    admin.post("/pools", json!({ "name": "kept" })).await.expect(201);
    let copy = server.data_dir().join("copy.db").display().to_string();
    server.command(&["backup", &copy]).await.expect(0);
    // With one row more, the row of the restore gets the number that was read last; with more, numbers go back.
    for more in [1, 4] {
        let (mut all, mut scoped) = (Stream::open(&admin, None).await, Stream::open(&fleet, None).await);
        let mut last = 0;
        for n in 1..=more {
            let made = admin.post("/servers", server_body(&format!("gone-{n}"))).await.expect(201);
            let target = format!("server:{}", made.id());
            last = all.check_next("server.created", &target).await;
            scoped.check_next("server.created", &target).await;
        }
        server.command(&["restore", &copy]).await.expect(0);
        let made = admin.post("/servers", server_body("after")).await.expect(201);
        // A reader that comes again names a row of the log that is no more.
        let mut again = if more > 2 { Some(Stream::open(&admin, Some(last)).await) } else { None };
        for stream in [&mut all, &mut scoped].into_iter().chain(again.as_mut()) {
            let Event(restored, kind, data) = stream.event().await.unwrap();
            assert_eq!((kind.as_str(), &data["target"]), ("database.restored", &Value::Null));
            assert!(restored <= last, "{restored} after {last}");
            let created = stream.check_next("server.created", &format!("server:{}", made.id())).await;
            assert_eq!(created, restored + 1);
        }
    }
}
