//! An agent with an engine, and a server that orders streams of it.

use crate::{
    core::rig::Rig,
    docker::bed::{PATIENCE, Wall, in_time},
    engine::images::BUSYBOX,
};
use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig, RestartPolicy, RestartPolicyNameEnum},
    query_parameters::{CreateContainerOptions, RemoveContainerOptions, RestartContainerOptions},
};
use domain::{
    containers::{
        EngineId, LogCursor,
        wire::{ContainerLogQuery, LogBatch},
    },
    fleet::protocol::{LogLine, LogStream, StreamSource},
};
use futures_util::{SinkExt, StreamExt};
use starlink_agent::{
    agent::Agent,
    drivers::docker::{DockerDriver, DockerOptions},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// An agent whose driver has an engine.
pub(crate) struct Stand {
    rig: Rig,
    _agent: Agent,
    opened: usize,
}

impl Stand {
    /// One with the engine that has this socket.
    pub(crate) async fn at(socket: &Path) -> Self {
        let mut rig = Rig::joined().await;
        // Some of the tests do not read for a while.
        rig.periods.session.ping = Duration::from_mins(1);
        let options = DockerOptions::new(socket.to_owned());
        rig.driver = Some(Arc::new(DockerDriver::new(options, Arc::new(Wall))));
        let agent = rig.agent().await;
        Self { rig, _agent: agent, opened: 0 }
    }

    /// Orders a stream.
    pub(crate) async fn open(&mut self, source: StreamSource) -> Stream {
        self.opened += 1;
        let id = format!("s{}", self.opened);
        self.rig.server.order_source(&id, source);
        let (opened, socket) = in_time("the stream", self.rig.server.sockets.recv()).await.unwrap();
        assert_eq!(opened, id);
        Stream { socket, lines: Vec::new(), dropped: 0, batches: 0 }
    }

    /// Orders the output of a container.
    pub(crate) async fn logs(&mut self, query: ContainerLogQuery) -> Stream {
        self.open(StreamSource::ContainerLogs(query)).await
    }

    /// All that there is of it.
    pub(crate) async fn all(&mut self, query: ContainerLogQuery) -> Vec<LogLine> {
        let mut stream = self.logs(query).await;
        assert_eq!(stream.end().await, (1000, "end".to_owned()));
        stream.lines
    }
}

/// A stream that was opened.
pub(crate) struct Stream {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) lines: Vec<LogLine>,
    pub(crate) dropped: u64,
    pub(crate) batches: usize,
}

impl Stream {
    /// The next message.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            let message = in_time("a message", self.socket.next()).await.unwrap().unwrap();
            if !message.is_ping() && !message.is_pong() {
                return message;
            }
        }
    }

    /// Sends something.
    pub(crate) async fn say(&mut self, message: Message) {
        in_time("sending", self.socket.send(message)).await.unwrap();
    }

    /// Takes in batches until something is so of the lines.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&[LogLine]) -> bool) {
        while !is_so(&self.lines) {
            match timeout(PATIENCE, self.message()).await {
                Ok(Message::Text(text)) => self.take(&text),
                other => panic!("waited in vain for {what}: {other:?}, {:#?}", shown(&self.lines)),
            }
        }
    }

    /// Takes in batches until there are so many of a line.
    pub(crate) async fn until_said(&mut self, text: &str, times: usize) {
        let is_so = |lines: &[LogLine]| lines.iter().filter(|line| line.text == text).count() >= times;
        self.until(&format!("{times} × {text}"), is_so).await;
    }

    /// Takes in all batches until it is closed, and tells how.
    pub(crate) async fn end(&mut self) -> (u16, String) {
        loop {
            match self.message().await {
                Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
                Message::Text(text) => self.take(&text),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The cursor of the last line.
    pub(crate) fn cursor(&self) -> Option<String> {
        self.lines.last().map(|line| line.cursor.clone())
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_quiet(&mut self, time: Duration) -> bool {
        timeout(time, self.socket.next()).await.is_err()
    }

    fn take(&mut self, text: &str) {
        let batch: LogBatch = serde_json::from_str(text).unwrap();
        assert!(!batch.lines.is_empty() && batch.lines.len() <= 512);
        self.batches += 1;
        self.dropped += batch.dropped;
        let before = self.lines.last().map(|line| cursor(&line.cursor));
        let cursors: Vec<_> = before.into_iter().chain(batch.lines.iter().map(|line| cursor(&line.cursor))).collect();
        assert!(cursors.is_sorted_by(|earlier, later| earlier < later), "{batch:#?}");
        self.lines.extend(batch.lines);
    }
}

/// Reads a cursor.
pub(crate) fn cursor(text: &str) -> LogCursor {
    assert!(text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    LogCursor::parse(text).unwrap()
}

/// Lines as `stream: text`, those that go on with `…`; what the agent says as `agent`.
pub(crate) fn shown(lines: &[LogLine]) -> Vec<String> {
    let show = |line: &LogLine| match line.stream {
        LogStream::Agent => "agent".to_owned(),
        stream => format!("{stream}: {}{}", line.text, if line.continues { "…" } else { "" }),
    };
    lines.iter().map(show).collect()
}

/// What the lines of one stream make up.
pub(crate) fn joined(lines: &[LogLine], stream: LogStream) -> String {
    let of_stream = lines.iter().filter(|line| line.stream == stream);
    of_stream.flat_map(|line| [line.text.as_str(), if line.continues { "" } else { "\n" }]).collect()
}

/// A query for all that there is.
pub(crate) fn everything(id: &EngineId) -> ContainerLogQuery {
    ContainerLogQuery { engine_id: id.clone(), follow: false, after: None, since: None, tail: None }
}

/// The same, going on with what comes.
pub(crate) fn following(id: &EngineId) -> ContainerLogQuery {
    ContainerLogQuery { follow: true, ..everything(id) }
}

/// A container that somebody else made.
pub(crate) struct Made {
    pub(crate) client: Docker,
    pub(crate) id: EngineId,
}

impl Made {
    /// Makes one that runs this in a shell.
    pub(crate) async fn shell(client: Docker, script: &str) -> Self {
        Self::with(client, script, |_| {}).await
    }

    /// The same, started again whenever it ends.
    pub(crate) async fn restarting(client: Docker, script: &str) -> Self {
        let policy = RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None };
        Self::with(client, script, |body| {
            body.host_config = Some(HostConfig { restart_policy: Some(policy), ..HostConfig::default() });
        })
        .await
    }

    /// Makes one with something changed.
    pub(crate) async fn with(client: Docker, script: &str, change: impl FnOnce(&mut ContainerCreateBody)) -> Self {
        let mut body = ContainerCreateBody {
            image: Some(BUSYBOX.to_owned()),
            cmd: Some(["sh", "-c", script].map(str::to_owned).into()),
            ..ContainerCreateBody::default()
        };
        change(&mut body);
        let made = client.create_container(None::<CreateContainerOptions>, body).await.unwrap();
        Self { client, id: EngineId::parse(made.id).unwrap() }
    }

    pub(crate) async fn start(&self) {
        self.client.start_container(self.id.as_str(), None).await.unwrap();
    }

    pub(crate) async fn restart(&self) {
        let options = RestartContainerOptions { t: Some(0), ..RestartContainerOptions::default() };
        self.client.restart_container(self.id.as_str(), Some(options)).await.unwrap();
    }

    /// Runs it to its end.
    pub(crate) async fn run(self) -> Self {
        self.start().await;
        self.ended().await;
        self
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        crate::docker::bed::until("the end", async || {
            let state = self.client.inspect_container(self.id.as_str(), None).await.unwrap().state.unwrap();
            state.running == Some(false)
        })
        .await;
    }

    pub(crate) async fn remove(&self) {
        let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        self.client.remove_container(self.id.as_str(), Some(options)).await.unwrap();
    }
}
