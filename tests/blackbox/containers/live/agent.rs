//! An agent that is a test: it has one container, and shows of it what the test wants.

use crate::{agents::support::join_token, server};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{Backend, Client, Server, eventually};
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A server, and an agent with a container.
pub(super) struct Site {
    pub(super) server: Server,
    pub(super) admin: Client,
    pub(super) agent: Agent,
    /// Our id of the container.
    pub(super) container: i64,
}

impl Site {
    pub(super) async fn start() -> Self {
        Self::on(server(Backend::Sqlite)).await
    }

    pub(super) async fn on(server: Server) -> Self {
        let admin = server.admin();
        let agent = Agent::join(&admin).await;
        let list = admin.get("/api/containers").await.expect(200);
        let container = list.at("/0/id").as_i64().unwrap();
        Self { server, admin, agent, container }
    }

    pub(super) fn path(&self, rest: &str) -> String {
        format!("/api/containers/{}/{rest}", self.container)
    }
}

/// The agent.
pub(super) struct Agent {
    pub(super) client: Client,
    pub(super) shown: Arc<Shown>,
    poller: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

/// What it shows, and what it was asked for.
pub(super) struct Shown {
    lines: Mutex<Vec<Value>>,
    grown: watch::Sender<()>,
    cuts: watch::Sender<u32>,
    removed: watch::Sender<bool>,
    /// The sources of all streams that were ordered.
    asked: Mutex<Vec<Value>>,
    /// With what streams are closed at once.
    refusal: Mutex<Option<(u16, &'static str)>>,
    readings: Mutex<VecDeque<Value>>,
    /// What was said to programs.
    pub(super) heard: Mutex<Vec<Message>>,
}

impl Agent {
    async fn join(admin: &Client) -> Self {
        let inventory = json!({
            "architecture": "x86_64", "agent_version": "9.9.9", "drivers": ["docker"],
            "capacity": { "cpu_millis": 4000, "memory_mib": 1024, "storage_mib": 10240, "gpus": 0 },
        });
        let token = join_token(admin, json!({})).await;
        let body = json!({
            "join_token": token, "name": "edge", "place": "here", "protocols": [1], "inventory": inventory,
        });
        let joined = admin.anonymous().post("/agent/enroll", body).await.expect(201);
        let token = joined.at("/token").as_str().unwrap().to_owned();
        let client = admin.with_token(&token);
        let session = json!({ "session": "one", "place": "here", "protocols": [1], "inventory": inventory });
        client.post("/agent/session", session).await.expect(200);
        let container = json!({ "engine_id": "c1", "name": "web", "image": "acme/web:1", "state": "running" });
        let report = json!({ "session": "one", "containers": [container], "present": ["c1"] });
        client.post("/agent/containers", report).await.expect(204);
        let shown = Arc::new(Shown {
            lines: Mutex::default(),
            grown: watch::Sender::new(()),
            cuts: watch::Sender::new(0),
            removed: watch::Sender::new(false),
            asked: Mutex::default(),
            refusal: Mutex::default(),
            readings: Mutex::default(),
            heard: Mutex::default(),
        });
        let poller = tokio::spawn(poll(client.clone(), token, shown.clone()));
        Self { client, shown, poller }
    }

    /// Says nothing any more.
    pub(super) fn go(&self) {
        self.poller.abort();
        self.shown.cut();
    }
}

impl Shown {
    /// Has the container write lines.
    pub(super) fn write(&self, lines: impl IntoIterator<Item = Value>) {
        let mut all = self.lines.lock().unwrap();
        for mut line in lines {
            let number = all.len() + 1;
            line["cursor"] = json!(format!("{number:x}-1-1-0-0"));
            all.push(line);
        }
        drop(all);
        self.grown.send_replace(());
    }

    /// Has it write so many numbered ones, each of about so many bytes.
    pub(super) fn write_numbered(&self, count: usize, bytes: usize) {
        let first = self.lines.lock().unwrap().len();
        let padding = "x".repeat(bytes);
        self.write((first..first + count).map(|n| line("stdout", &format!("{n} {padding}"))));
    }

    /// Breaks off all streams.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends all streams as they end when the container is removed.
    pub(super) fn remove(&self) {
        self.removed.send_replace(true);
    }

    /// Closes whatever is ordered from now on.
    pub(super) fn refuse(&self, refusal: Option<(u16, &'static str)>) {
        *self.refusal.lock().unwrap() = refusal;
    }

    /// Has readings of what the container uses.
    pub(super) fn read(&self, readings: impl IntoIterator<Item = Value>) {
        self.readings.lock().unwrap().extend(readings);
    }

    /// What was ordered that follows, as far as it is known.
    pub(super) fn follows(&self) -> Vec<Value> {
        self.asked.lock().unwrap().iter().filter(|source| source["follow"] == true).cloned().collect()
    }

    pub(super) async fn says(&self, what: &str, there: impl Fn(&[Message]) -> bool) {
        eventually(what, async || there(&self.heard.lock().unwrap()).then_some(())).await;
    }
}

pub(super) fn line(stream: &str, text: &str) -> Value {
    json!({ "at": "2026-01-01T00:00:00.5Z", "stream": stream, "text": text, "continues": false })
}

pub(super) fn reading(cpu: Option<f64>) -> Value {
    json!({
        "at": "2026-01-01T00:00:01Z", "cpu_percent": cpu, "machine_cpu_percent": cpu, "memory_bytes": 1000,
        "memory_limit_bytes": 4000, "memory_percent": 25.0, "pids": 3,
    })
}

async fn poll(client: Client, token: String, shown: Arc<Shown>) {
    loop {
        let Ok(due) =
            Client::try_send(client.request(reqwest::Method::GET, "/agent/operations?session=one&wait=5")).await
        else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        for stream in due.json["streams"].as_array().into_iter().flatten() {
            let (id, source) = (stream["id"].as_str().unwrap().to_owned(), stream["source"].clone());
            shown.asked.lock().unwrap().push(source.clone());
            let path = format!("/agent/streams/{id}");
            let (base, token, shown) = (client.base().to_owned(), token.clone(), shown.clone());
            tokio::spawn(async move {
                // Whoever ordered it may have gone.
                if let Ok(socket) = open(&base, &path, &[("authorization", &format!("Bearer {token}"))]).await {
                    serve(socket, source, shown).await;
                }
            });
        }
    }
}

/// Opens a WebSocket of the server at `base`.
pub(crate) async fn open(
    base: &str,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, tungstenite::Error> {
    let url = format!("{}{path}", base.replacen("http", "ws", 1));
    let mut request = url.into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    Ok(connect_async(request).await?.0)
}

async fn close(mut socket: Socket, code: u16, reason: &str) {
    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
    let _ = socket.close(Some(frame)).await;
    while let Some(Ok(_)) = socket.next().await {}
}

async fn serve(socket: Socket, source: Value, shown: Arc<Shown>) {
    let refusal = *shown.refusal.lock().unwrap();
    if let Some((code, reason)) = refusal {
        return close(socket, code, reason).await;
    }
    let mut cuts = shown.cuts.subscribe();
    let cut = async {
        cuts.borrow_and_update();
        cuts.changed().await
    };
    let serving = async {
        match source["kind"].as_str() {
            Some("container_logs") => serve_lines(socket, &source, &shown).await,
            Some("container_stats") => serve_readings(socket, &shown).await,
            Some("container_exec") => serve_program(socket, &shown).await,
            _ => close(socket, 4501, "unsupported").await,
        }
    };
    tokio::select! {
        _ = cut => {}
        () = serving => {}
    }
}

async fn serve_lines(mut socket: Socket, source: &Value, shown: &Shown) {
    let (mut grown, mut removed) = (shown.grown.subscribe(), shown.removed.subscribe());
    let total = shown.lines.lock().unwrap().len();
    let after = source["after"].as_str().map(|after| after.split('-').next().unwrap());
    let after = after.map_or(0, |after| usize::from_str_radix(after, 16).unwrap());
    let tail = source["tail"].as_u64().map_or(total, |tail| usize::try_from(tail).unwrap());
    let mut place = after.max(total.saturating_sub(tail));
    loop {
        grown.borrow_and_update();
        let lines: Vec<_> = shown.lines.lock().unwrap().iter().skip(place).take(200).cloned().collect();
        if !lines.is_empty() {
            place += lines.len();
            let batch = json!({ "dropped": 0, "lines": lines }).to_string();
            if socket.send(Message::text(batch)).await.is_err() {
                return;
            }
            continue;
        }
        if source["follow"] != true || *removed.borrow() {
            return close(socket, 1000, "end").await;
        }
        tokio::select! {
            _ = grown.changed() => {}
            _ = removed.changed() => {}
            heard = socket.next() => if !matches!(heard, Some(Ok(_))) {
                return;
            },
        }
    }
}

async fn serve_readings(mut socket: Socket, shown: &Shown) {
    loop {
        let reading = shown.readings.lock().unwrap().pop_front();
        match reading {
            Some(reading) => _ = socket.send(Message::text(reading.to_string())).await,
            None => return close(socket, 1000, "end").await,
        }
    }
}

/// A program that says again what it hears, and ends when it hears `exit`.
async fn serve_program(mut socket: Socket, shown: &Shown) {
    let _ = socket.send(Message::text("{\"kind\":\"started\"}")).await;
    while let Some(Ok(message)) = socket.next().await {
        if matches!(message, Message::Ping(_) | Message::Pong(_)) {
            continue;
        }
        shown.heard.lock().unwrap().push(message.clone());
        if let Message::Binary(input) = message {
            if &input[..] == b"exit" {
                let _ = socket.send(Message::text("{\"kind\":\"exited\",\"code\":7}")).await;
                return close(socket, 1000, "end").await;
            }
            let output = [b"\x02", &input[..]].concat();
            let _ = socket.send(Message::binary(output)).await;
        }
    }
}

/// Events as they come.
pub(crate) struct Events {
    response: reqwest::Response,
    unread: Vec<u8>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl Event {
    pub(crate) fn text(&self) -> &str {
        self.data["text"].as_str().unwrap()
    }
}

impl Events {
    pub(crate) async fn open(client: &Client, path: &str, last: Option<&str>) -> Self {
        let mut request = client.request(reqwest::Method::GET, path).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{:?}", response.text().await);
        Self { response, unread: Vec::new() }
    }

    /// The next one; nothing, if the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                let block = String::from_utf8(self.unread.drain(..end + 2).collect()).unwrap();
                if block.starts_with(':') {
                    continue;
                }
                let fields: Vec<_> = block.lines().filter(|line| !line.is_empty()).collect();
                let field = |name: &str| {
                    let mut found = fields.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    let first = found.next().map(str::to_owned);
                    assert_eq!(found.next(), None, "{block}");
                    first
                };
                let event = Event {
                    id: field("id"),
                    kind: field("event").unwrap(),
                    data: serde_json::from_str(&field("data").unwrap()).unwrap(),
                };
                assert_eq!(fields.len(), 2 + usize::from(event.id.is_some()), "{block}");
                return Some(event);
            }
            let chunk = tokio::time::timeout(Duration::from_mins(1), self.response.chunk()).await;
            match chunk.unwrap_or_else(|_elapsed| panic!("nothing comes")) {
                Ok(Some(chunk)) => self.unread.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The texts of the next lines.
    pub(super) async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            let event = self.next().await.unwrap();
            assert_eq!(event.kind, "line", "{event:?}");
            texts.push(event.text().to_owned());
        }
        texts
    }

    /// Reads numbered lines from this one on until so many are accounted for: how many of these are missing.
    pub(super) async fn count(&mut self, from: u64, total: u64) -> u64 {
        let (mut next, mut dropped) = (from, 0);
        while next < total {
            let event = self.next().await.unwrap();
            if event.kind == "dropped" {
                let lines = event.data["lines"].as_u64().unwrap();
                (next, dropped) = (next + lines, dropped + lines);
            } else {
                let number: u64 = event.text().split(' ').next().unwrap().parse().unwrap();
                assert_eq!(number, next, "after {dropped} dropped");
                next += 1;
            }
        }
        assert_eq!(next, total);
        dropped
    }
}
