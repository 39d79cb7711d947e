//! Programs in containers, with somebody at the other end.

use super::stand::{Made, Stand, Stream};
use crate::{
    docker::bed::{PATIENCE, until},
    engine::shared,
};
use bollard::{Docker, query_parameters::TopOptions};
use domain::{
    containers::{
        EngineId,
        wire::{ExecQuery, ExecSaying, ExecWish, TerminalSize},
    },
    fleet::protocol::StreamSource,
};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;

fn query(id: &EngineId, script: &str) -> ExecQuery {
    let command = ["sh", "-c", script].map(str::to_owned).into();
    ExecQuery { engine_id: id.clone(), command, tty: false, user: None, folder: None, size: None }
}

fn with_terminal(id: &EngineId, script: &str) -> ExecQuery {
    let size = Some(TerminalSize { rows: 33, columns: 101 });
    ExecQuery { tty: true, size, ..query(id, script) }
}

/// What was heard of a program.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    output: String,
    errors: String,
    started: bool,
    code: Option<i64>,
    closed: Option<(u16, String)>,
}

impl Heard {
    async fn take(&mut self, stream: &mut Stream) {
        match stream.message().await {
            Message::Binary(bytes) => match bytes.split_first().unwrap() {
                (1, bytes) => self.output.push_str(&String::from_utf8_lossy(bytes)),
                (2, bytes) => self.errors.push_str(&String::from_utf8_lossy(bytes)),
                other => panic!("{other:?}"),
            },
            Message::Text(text) => match serde_json::from_str(&text).unwrap() {
                ExecSaying::Started => self.started = true,
                ExecSaying::Exited { code } => self.code = code,
            },
            Message::Close(frame) => {
                let frame = frame.unwrap();
                self.closed = Some((frame.code.into(), frame.reason.to_string()));
            }
            other => panic!("{other:?}"),
        }
    }

    async fn until(&mut self, stream: &mut Stream, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(self.closed.is_none() && began.elapsed() < PATIENCE, "waited in vain: {self:?}");
            self.take(stream).await;
        }
    }

    async fn all(stream: &mut Stream) -> Self {
        let mut heard = Self::default();
        heard.until(stream, |heard| heard.closed.is_some()).await;
        heard
    }
}

fn wish(wish: &ExecWish) -> Message {
    Message::text(serde_json::to_string(wish).unwrap())
}

/// A container in which nothing but its own program runs.
async fn idle(client: Docker) -> Made {
    let made = Made::shell(client, "exec sleep 1000").await;
    made.start().await;
    made
}

/// The command lines of what runs in a container.
async fn running(made: &Made) -> Vec<String> {
    let top = made.client.top_processes(made.id.as_str(), None::<TopOptions>).await.unwrap();
    let rows = top.processes.unwrap_or_default();
    rows.into_iter().filter_map(|row| row.last().cloned()).collect()
}

#[tokio::test]
async fn output_and_code_come_back() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = idle(engine.client()).await;
    for (script, code) in [("true", 0), ("exit 3", 3), ("nothing-of-this-name", 127)] {
        let mut stream = stand.open(StreamSource::ContainerExec(query(&made.id, script))).await;
        let heard = Heard::all(&mut stream).await;
        assert_eq!((heard.started, heard.code), (true, Some(code)), "{script}: {heard:?}");
        assert_eq!(heard.closed, Some((1000, "end".to_owned())));
    }
    let script = r"echo out; printf 'a\377b' >&2; pwd; id -u";
    let query = ExecQuery { user: Some("7:7".to_owned()), folder: Some("/tmp".to_owned()), ..query(&made.id, script) };
    let heard = Heard::all(&mut stand.open(StreamSource::ContainerExec(query)).await).await;
    assert_eq!((heard.output.as_str(), heard.errors.as_str()), ("out\n/tmp\n7\n", "a\u{fffd}b"));
    made.remove().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_as_shells_do() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = idle(engine.client()).await;
    for (command, tty, code) in
        [("nothing-of-this-name", false, 127), ("nothing-of-this-name", true, 127), ("/tmp", false, 126)]
    {
        let query = ExecQuery { command: vec![command.to_owned()], tty, ..query(&made.id, "") };
        let heard = Heard::all(&mut stand.open(StreamSource::ContainerExec(query)).await).await;
        assert_eq!((heard.started, heard.code, heard.output.as_str()), (false, Some(code), ""), "{heard:?}");
        assert!(heard.errors.contains(command), "{heard:?}");
        assert_eq!(heard.closed, Some((1000, "end".to_owned())));
    }
    made.remove().await;
}

#[tokio::test]
async fn input_reaches_the_program_and_ends() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = idle(engine.client()).await;
    let mut stream = stand.open(StreamSource::ContainerExec(query(&made.id, "cat; echo done"))).await;
    let mut heard = Heard::default();
    // More than fits into what lies between.
    for number in 0..40 {
        stream.say(Message::binary(format!("{number:02}{}\n", "x".repeat(50_000)).into_bytes())).await;
        let so_far = 50_003 * (number + 1);
        heard.until(&mut stream, |heard| heard.output.len() >= so_far).await;
    }
    stream.say(wish(&ExecWish::EndInput)).await;
    heard.until(&mut stream, |heard| heard.closed.is_some()).await;
    assert!(heard.output.ends_with("x\ndone\n") && heard.output.len() == 40 * 50_003 + 5 && heard.code == Some(0));
    made.remove().await;
}

#[tokio::test]
async fn a_terminal_has_a_size_and_echoes() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = idle(engine.client()).await;
    let script = "while read line; do echo \"<$line> $(busybox stty size)\"; done; exit 4";
    let mut stream = stand.open(StreamSource::ContainerExec(with_terminal(&made.id, script))).await;
    let mut heard = Heard::default();
    heard.until(&mut stream, |heard| heard.started).await;
    stream.say(Message::binary(&b"one\r"[..])).await;
    heard.until(&mut stream, |heard| heard.output.contains("<one> 33 101\r\n")).await;
    stream.say(wish(&ExecWish::Resize(TerminalSize { rows: 7, columns: 40 }))).await;
    until("the new size", async || {
        stream.say(Message::binary(&b"two\r"[..])).await;
        let seen = heard.output.matches("<two>").count();
        heard.until(&mut stream, |heard| heard.output.matches("<two>").count() > seen).await;
        heard.output.contains("<two> 7 40\r\n")
    })
    .await;
    stream.say(wish(&ExecWish::EndInput)).await;
    heard.until(&mut stream, |heard| heard.closed.is_some()).await;
    assert_eq!(heard.code, Some(4));
    made.remove().await;
}

#[tokio::test]
async fn a_program_ends_with_whoever_is_at_the_other_end() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = idle(engine.client()).await;
    let scripts = [
        "exec sleep 2001",
        "sleep 2002 & sleep 2003",
        // Neither a hang-up nor the end of a parent ends these.
        "trap '' HUP; (sleep 2004; true) & sleep 2005; true",
    ];
    let mut streams = Vec::new();
    for script in scripts {
        for query in [query(&made.id, script), with_terminal(&made.id, script)] {
            let mut stream = stand.open(StreamSource::ContainerExec(query)).await;
            Heard::default().until(&mut stream, |heard| heard.started).await;
            streams.push(stream);
        }
    }
    let sleeping = async || running(&made).await.iter().filter(|line| line.contains("sleep 200")).count();
    until("all sleep", async || sleeping().await >= 12).await;
    let began = Instant::now();
    drop(streams);
    until("none sleeps", async || sleeping().await == 0).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // The container's own program goes on.
    assert_eq!(running(&made).await, ["sleep 1000"]);
    made.remove().await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_by_itself_goes_on() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = idle(engine.client()).await;
    let script = "sleep 3001 </dev/null >/dev/null 2>&1 &";
    let heard = Heard::all(&mut stand.open(StreamSource::ContainerExec(query(&made.id, script))).await).await;
    assert_eq!((heard.code, heard.closed), (Some(0), Some((1000, "end".to_owned()))));
    assert!(running(&made).await.contains(&"sleep 3001".to_owned()));
    made.remove().await;
}

#[tokio::test]
async fn who_does_not_read_holds_up_only_his_own_program() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = idle(engine.client()).await;
    let endless = query(&made.id, "yes 0123456789012345678901234567890123456789; true");
    let mut stream = stand.open(StreamSource::ContainerExec(endless)).await;
    let mut heard = Heard::default();
    heard.until(&mut stream, |heard| heard.output.len() > 1_000_000).await;
    let other = query(&made.id, "echo quick");
    let quick = Heard::all(&mut stand.open(StreamSource::ContainerExec(other)).await).await;
    assert_eq!(quick.output, "quick\n");
    drop(stream);
    until("it has ended", async || running(&made).await == ["sleep 1000"]).await;
    made.remove().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_the_reason() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::shell(engine.client(), "true").await;
    let mut refusal = async |query| stand.open(StreamSource::ContainerExec(query)).await.end().await;
    assert_eq!(refusal(query(&made.id, "true")).await, (4409, "not_running".to_owned()));
    let missing = EngineId::parse("nothing-of-this-name").unwrap();
    assert_eq!(refusal(query(&missing, "true")).await, (4404, "unknown_container".to_owned()));
    let command = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    for words in
        [command(&[]), command(&[""]), command(&["a\0"]), command(&["x"; 257]), command(&[&"x".repeat(40_000)])]
    {
        assert_eq!(refusal(ExecQuery { command: words, ..query(&made.id, "") }).await.0, 4400);
    }
    let folder = Some("relative".to_owned());
    assert_eq!(refusal(ExecQuery { folder, ..query(&made.id, "true") }).await.0, 4400);
    made.remove().await;
}

#[tokio::test]
async fn there_are_so_many_programs_at_once_and_no_more() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = idle(engine.client()).await;
    let mut streams = Vec::new();
    for _ in 0..starlink_agent::streams::MOST_EXECS {
        let mut stream = stand.open(StreamSource::ContainerExec(query(&made.id, "exec sleep 4000"))).await;
        Heard::default().until(&mut stream, |heard| heard.started).await;
        streams.push(stream);
    }
    let mut one_more = stand.open(StreamSource::ContainerExec(query(&made.id, "true"))).await;
    assert_eq!(one_more.end().await, (4503, "busy".to_owned()));
    drop(streams);
    until("all have ended", async || running(&made).await == ["sleep 1000"]).await;
    made.remove().await;
}
