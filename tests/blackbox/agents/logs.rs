//! The output of tasks, from where it is written to whoever reads it.

use super::support::{Site, Tally, becomes, check_at_rest, ended, server_becomes, shell};
use crate::support::{bearer, check_problem};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::time::Duration;
use tests::{Backend, Client};

/// Lines as they come.
struct Stream {
    response: Response,
    unread: Vec<u8>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    id: String,
    stream: String,
    text: String,
    continues: bool,
}

/// What comes next.
#[derive(Debug, PartialEq)]
enum Next {
    Line(Line),
    /// The end that the server tells, with the reason if there is one.
    End(Value),
    /// The end without a word.
    Gone,
}

impl Stream {
    async fn open(client: &Client, task: i64, last: Option<&str>) -> Self {
        let request = client.request(Method::GET, &format!("/tasks/{task}/logs?follow=true"));
        let request = request.header("accept", "text/event-stream");
        let request = match last {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, unread: Vec::new() }
    }

    async fn next(&mut self) -> Next {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                let block = String::from_utf8(self.unread.drain(..end + 2).collect()).unwrap();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let data = |text| serde_json::from_str::<Value>(text).unwrap();
                match (field("event"), field("data").map(data)) {
                    (Some("line"), Some(data)) => return Next::Line(Line::read(field("id").unwrap(), &data)),
                    (Some("end"), Some(data)) => return Next::End(data["reason"].clone()),
                    _ => continue,
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(30), self.response.chunk()).await;
            match chunk.unwrap_or_else(|_| panic!("nothing comes")) {
                Ok(Some(chunk)) => self.unread.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return Next::Gone,
            }
        }
    }

    /// So many lines of the program's.
    async fn lines(&mut self, count: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        while lines.len() < count {
            match self.next().await {
                Next::Line(line) if line.stream != "agent" => lines.push(line),
                Next::Line(_) => {}
                end => panic!("after {} lines: {end:?}", lines.len()),
            }
        }
        lines
    }

    /// All lines of the program's up to the end.
    async fn rest(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        loop {
            match self.next().await {
                Next::Line(line) if line.stream != "agent" => lines.push(line),
                Next::Line(_) => {}
                Next::End(reason) => {
                    assert_eq!(reason, Value::Null, "the natural end");
                    return lines;
                }
                Next::Gone => panic!("cut off after {lines:?}"),
            }
        }
    }
}

impl Line {
    fn read(id: &str, data: &Value) -> Self {
        let text = |member: &str| data[member].as_str().unwrap().to_owned();
        assert!(text("at").ends_with('Z'), "{data}");
        Self { id: id.to_owned(), stream: text("stream"), text: text("text"), continues: data["continues"] == true }
    }
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("line {n}")).collect()
}

/// Prints 200 lines, with a pause now and then.
const COUNT: &str = "n=0; while [ $n -lt 200 ]; do echo line $n; n=$((n+1)); [ $((n % 20)) -ne 0 ] || sleep 0.1; done";

#[tokio::test]
async fn who_follows_sees_everything_up_to_the_end() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let tally = Tally::new();
    let gate = tally.file("gate");
    let script = format!("echo early; until [ -e {} ]; do sleep 0.05; done; {COUNT}; echo late >&2", gate.display());
    let task = shell(&admin, &script, json!({ "required_cpu": 0.5 })).await;
    becomes(&admin, task, "running").await;
    let mut stream = Stream::open(&admin, task, None).await;
    assert_eq!(texts(&stream.lines(1).await), ["early"]);
    std::fs::write(gate, "").unwrap();
    let mut lines = stream.rest().await;
    let last = lines.pop().unwrap();
    assert_eq!((last.stream.as_str(), last.text.as_str()), ("stderr", "late"));
    assert_eq!(texts(&lines), numbers(200));
    assert!(lines.iter().all(|line| line.stream == "stdout" && !line.continues));
    assert_eq!(ended(&admin, task).await.at("/status"), "completed");
    // Who comes later sees the same, or the last of it.
    let tail = admin.get(&format!("/tasks/{task}/logs?tail=2&stream=stdout")).await.expect(200);
    assert!(tail.text.ends_with("line 199\n"), "{}", tail.text);
    let all = admin.get(&format!("/tasks/{task}/logs?stream=stdout")).await.expect(200);
    assert_eq!(all.text, format!("early\n{}\n", numbers(200).join("\n")));
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn who_comes_back_misses_nothing_and_sees_nothing_twice() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let task = shell(&admin, COUNT, json!({ "required_cpu": 0.5 })).await;
    becomes(&admin, task, "running").await;
    let (mut seen, mut last) = (Vec::new(), None);
    for count in [1, 30, 7, 50, 19] {
        let mut stream = Stream::open(&admin, task, last.as_deref()).await;
        seen.extend(stream.lines(count).await);
        last = seen.last().map(|line: &Line| line.id.clone());
    }
    // The agent's side may break as well.
    let mut stream = Stream::open(&admin, task, last.as_deref()).await;
    seen.extend(stream.lines(3).await);
    site.line.hang_up();
    while let Next::Line(line) = stream.next().await {
        seen.push(line);
    }
    seen.retain(|line| line.stream != "agent");
    last = seen.last().map(|line| line.id.clone());
    seen.extend(Stream::open(&admin, task, last.as_deref()).await.rest().await);
    assert_eq!(texts(&seen), numbers(200));
    let ids: std::collections::BTreeSet<_> = seen.iter().map(|line| &line.id).collect();
    assert_eq!(ids.len(), 200, "each has an id of its own");
    for wrong in ["no cursor", &"x".repeat(200)] {
        let request = admin.request(Method::GET, &format!("/tasks/{task}/logs")).header("last-event-id", wrong);
        let refused = Client::send(request).await;
        check_problem(&refused, 400, wrong);
    }
    ended(&admin, task).await;
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn what_is_no_text_and_what_is_long_comes_through() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let odd = shell(&admin, r"printf 'before-\377\376-after\nnext\nunfinished'", json!({})).await;
    ended(&admin, odd).await;
    let logs = admin.get(&format!("/tasks/{odd}/logs?stream=stdout")).await.expect(200);
    assert_eq!(logs.text.trim_end(), "before-\u{fffd}\u{fffd}-after\nnext\nunfinished");
    let lines = Stream::open(&admin, odd, None).await.rest().await;
    assert_eq!(texts(&lines), ["before-\u{fffd}\u{fffd}-after", "next", "unfinished"]);

    let long = "head -c 1048576 /dev/zero | tr '\\0' x; echo; echo short";
    let task = shell(&admin, long, json!({ "required_cpu": 1 })).await;
    assert_eq!(ended(&admin, task).await.at("/status"), "completed");
    let logs = admin.get(&format!("/tasks/{task}/logs?stream=stdout")).await.expect(200);
    let (first, rest) = logs.text.split_once('\n').unwrap();
    assert_eq!((first.len(), first.bytes().all(|byte| byte == b'x'), rest), (1 << 20, true, "short\n"));
    let lines = Stream::open(&admin, task, None).await.rest().await;
    let (last, parts) = lines.split_last().unwrap();
    assert_eq!((last.text.as_str(), last.continues), ("short", false));
    assert_eq!(parts.iter().map(|line| line.text.len()).sum::<usize>(), 1 << 20);
    assert!(parts[..parts.len() - 1].iter().all(|line| line.continues) && !parts[parts.len() - 1].continues);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn output_stays_with_an_agent_that_is_away() {
    let site = Site::with(Backend::Sqlite, &["--agent-grace-seconds", "2"]);
    let admin = site.admin();
    let mut agent = site.agent("edge").await;
    let task = shell(&admin, "echo kept", json!({})).await;
    ended(&admin, task).await;
    agent.kill();
    server_becomes(&admin, 1, "offline").await;
    let path = format!("/tasks/{task}/logs");
    let away = admin.get(&path).await;
    check_problem(&away, 503, "the agent is away");
    let detail = away.at("/detail").as_str().unwrap().to_owned();
    assert!(detail.contains("the agent of server 1 cannot be reached") && detail.contains("try again"), "{detail}");
    agent.restart();
    server_becomes(&admin, 1, "online").await;
    assert_eq!(admin.get(&format!("{path}?stream=stdout")).await.expect(200).text, "kept\n");
    // Who may not see the task, or asks for what is not there, is told so.
    check_problem(&admin.anonymous().get(&path).await, 401, "nobody");
    check_problem(&admin.get("/tasks/99/logs").await, 404, "no task");
    check_problem(&admin.get(&format!("{path}?attempt=2")).await, 404, "no attempt");
    check_problem(&admin.get(&format!("{path}?tail=-1")).await, 400, "no number");
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

/// A reader whose token is taken away while it follows.
async fn check_revoked(script: &str) {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let _agent = site.agent("edge").await;
    let task = shell(&admin, script, json!({ "grace_seconds": 0 })).await;
    becomes(&admin, task, "running").await;
    let reader = bearer(&admin, "reader", "viewer", None).await;
    let token = admin.get("/auth/tokens").await.expect(200);
    let rows = token.json.as_array().unwrap();
    let id = rows.iter().find(|row| row["name"] == "reader").unwrap()["id"].clone();
    let mut stream = Stream::open(&reader, task, None).await;
    stream.lines(1).await;
    admin.delete(&format!("/auth/tokens/{id}")).await.expect(204);
    let over = async { while let Next::Line(_) = stream.next().await {} };
    let in_time = tokio::time::timeout(Duration::from_secs(20), over).await;
    assert!(in_time.is_ok(), "it reads on without a token");
}

#[tokio::test]
async fn a_revoked_token_ends_a_quiet_stream() {
    check_revoked("echo first; sleep 1000").await;
}

#[tokio::test]
async fn a_revoked_token_ends_a_busy_stream() {
    check_revoked("while :; do echo line; sleep 0.5; done").await;
}

#[tokio::test]
async fn who_follows_a_task_that_says_nothing_yet_waits() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let task = shell(&admin, "sleep 12; echo at last", json!({})).await;
    becomes(&admin, task, "running").await;
    let lines = Stream::open(&admin, task, None).await.rest().await;
    assert_eq!(texts(&lines), ["at last"]);
    ended(&admin, task).await;
    check_at_rest(&admin, &[agent.leftovers()]).await;
}
