//! Logs, over a WebSocket that the agent opens.

use super::{
    rig::{Rig, quick, run, work},
    server::FakeServer,
};
use domain::{
    clock::Clock,
    containers::ImageName,
    fleet::protocol::{ImageQuery, LogLine, LogQuery, LogStream, StreamOrder, StreamSource},
    ids::TaskId,
};
use futures_util::StreamExt;
use starlink_agent::{
    agent::{Agent, SystemClock},
    logs, streams,
};
use std::{path::PathBuf, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

type Socket = WebSocketStream<TcpStream>;

fn query(follow: bool, after: Option<&str>) -> LogQuery {
    LogQuery { task_id: TaskId(11), attempt: 1, follow, after: after.map(str::to_owned), tail: None }
}

/// An agent with work whose log can be written to.
async fn logging() -> (Rig, Agent, PathBuf) {
    logging_with_pings(quick().session.ping).await
}

async fn logging_with_pings(ping: Duration) -> (Rig, Agent, PathBuf) {
    let mut rig = Rig::joined().await;
    rig.periods.session.ping = ping;
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    let folder = rig.path.join("work").join(work(11).to_string());
    (rig, agent, folder)
}

fn say(folder: &std::path::Path, text: &str) {
    let mut writer = logs::Writer::open(folder, logs::limit_bytes(None));
    writer.append(LogStream::Stdout, SystemClock.now(), text.as_bytes());
    assert_eq!(writer.lost(), 0);
}

async fn opened(server: &mut FakeServer) -> (String, Socket) {
    timeout(Duration::from_secs(10), server.sockets.recv()).await.unwrap().unwrap()
}

async fn heard(socket: &mut Socket) -> Message {
    loop {
        let message = timeout(Duration::from_secs(10), socket.next()).await.unwrap().unwrap().unwrap();
        if !message.is_ping() && !message.is_pong() {
            return message;
        }
    }
}

async fn line(socket: &mut Socket) -> LogLine {
    let message = heard(socket).await;
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

async fn closed(socket: &mut Socket) -> (u16, String) {
    match heard(socket).await {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        message => panic!("{message:?}"),
    }
}

#[tokio::test]
async fn output_is_followed_and_gone_on_with_after_a_break() {
    let (mut rig, agent, folder) = logging().await;
    say(&folder, "one\ntwo\n");
    rig.server.order_stream("first", query(true, None));
    let (id, mut socket) = opened(&mut rig.server).await;
    assert_eq!(id, "first");
    assert_eq!(line(&mut socket).await.text, "one");
    let two = line(&mut socket).await;
    assert_eq!((two.text.as_str(), two.stream), ("two", LogStream::Stdout));
    say(&folder, "three\n");
    assert_eq!(line(&mut socket).await.text, "three");
    // The connection breaks; whoever reads goes on after the last line that he is sure of.
    drop(socket);
    say(&folder, "four\n");
    rig.server.order_stream("second", query(true, Some(&two.cursor)));
    let (_, mut socket) = opened(&mut rig.server).await;
    assert_eq!(line(&mut socket).await.text, "three");
    assert_eq!(line(&mut socket).await.text, "four");
    logs::finish(&folder).unwrap();
    assert_eq!(closed(&mut socket).await, (1000, "end".to_owned()));
    agent.stop().await;
}

#[tokio::test]
async fn the_longest_lines_come_through() {
    let (mut rig, agent, folder) = logging().await;
    // Each of these characters is six in JSON.
    let long = "\u{1}".repeat(logs::LONGEST_PIECE);
    say(&folder, &format!("{long}\n{long}rest\n"));
    rig.server.order_stream("long", query(false, None));
    let (_, mut socket) = opened(&mut rig.server).await;
    for (text, continues) in [(long.as_str(), false), (long.as_str(), true), ("rest", false)] {
        let line = line(&mut socket).await;
        assert!(line.text == text && line.continues == continues, "{} {}", line.text.len(), line.continues);
    }
    assert_eq!(closed(&mut socket).await.0, 1000);
    agent.stop().await;
}

#[tokio::test]
async fn a_stream_ends_when_the_server_closes_it_or_does_not_answer() {
    let (mut rig, agent, folder) = logging().await;
    say(&folder, "one\n");
    rig.server.order_stream("closed", query(true, None));
    let (_, mut socket) = opened(&mut rig.server).await;
    line(&mut socket).await;
    socket.close(None).await.unwrap();
    while timeout(Duration::from_secs(10), socket.next()).await.unwrap().is_some() {}
    // Nobody reads, so that no ping is answered.
    rig.server.order_stream("silent", query(true, None));
    let (_, mut socket) = opened(&mut rig.server).await;
    line(&mut socket).await;
    tokio::time::sleep(rig.periods.session.ping * 5).await;
    let rest = async {
        while let Some(Ok(message)) = socket.next().await {
            assert!(message.is_ping());
        }
    };
    timeout(Duration::from_secs(10), rest).await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn what_cannot_be_streamed_is_closed_with_the_reason() {
    let (mut rig, agent, folder) = logging().await;
    say(&folder, "one\n");
    rig.server.order_stream("unknown", LogQuery { task_id: TaskId(99), ..query(false, None) });
    let (_, mut socket) = opened(&mut rig.server).await;
    assert_eq!(closed(&mut socket).await, (4404, "unknown_work".to_owned()));
    rig.server.order_stream("cursor", query(false, Some("nonsense")));
    let (_, mut socket) = opened(&mut rig.server).await;
    assert_eq!(closed(&mut socket).await.0, 4400);
    let order = StreamOrder { id: "newer".to_owned(), source: StreamSource::Unknown };
    rig.server.change(|state| state.streams.push_back(order));
    let (_, mut socket) = opened(&mut rig.server).await;
    assert_eq!(closed(&mut socket).await, (4501, "unsupported".to_owned()));
    agent.stop().await;
}

#[tokio::test]
async fn there_are_so_many_streams_at_once_and_no_more() {
    // Most of them are not read, which must not show.
    let (mut rig, agent, folder) = logging_with_pings(Duration::from_mins(1)).await;
    say(&folder, "one\n");
    let mut sockets = Vec::new();
    for number in 0..streams::MOST_WATCHED {
        rig.server.order_stream(&format!("s{number}"), query(true, None));
        let (_, mut socket) = opened(&mut rig.server).await;
        line(&mut socket).await;
        sockets.push(socket);
    }
    rig.server.order_stream("one-more", query(true, None));
    let (_, mut socket) = opened(&mut rig.server).await;
    assert_eq!(closed(&mut socket).await, (4503, "busy".to_owned()));
    // What is over at once still finds a place.
    let name = ImageName::parse("nginx").unwrap();
    let order = StreamOrder { id: "image".to_owned(), source: StreamSource::Image(ImageQuery { name }) };
    rig.server.change(|state| state.streams.push_back(order));
    let (_, mut socket) = opened(&mut rig.server).await;
    assert_ne!(closed(&mut socket).await.0, 4503);
    drop(sockets.pop());
    // As soon as the agent has noticed that one is gone.
    for number in 0.. {
        rig.server.order_stream(&format!("again{number}"), query(false, None));
        let (_, mut socket) = opened(&mut rig.server).await;
        if heard(&mut socket).await.is_text() {
            break;
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_stream_is_opened_once_however_often_it_is_ordered() {
    let (mut rig, agent, folder) = logging().await;
    say(&folder, "one\n");
    for id in ["a", "a", "b"] {
        rig.server.order_stream(id, query(false, None));
    }
    for wanted in ["a", "b"] {
        let (id, mut socket) = opened(&mut rig.server).await;
        assert_eq!(id, wanted);
        line(&mut socket).await;
        assert_eq!(closed(&mut socket).await.0, 1000);
    }
    assert!(rig.server.sockets.try_recv().is_err());
    agent.stop().await;
}

#[tokio::test]
async fn an_engine_is_asked_for_an_image() {
    let mut rig = Rig::joined().await;
    let agent = rig.agent().await;
    let mut answers = Vec::new();
    for name in ["alpine", "nothing", "trouble"] {
        let name = ImageName::parse(name).unwrap();
        let source = StreamSource::Image(ImageQuery { name: name.clone() });
        rig.server.order_source(name.as_str(), source);
        let (_, mut socket) = opened(&mut rig.server).await;
        let mut heard = Vec::new();
        loop {
            match self::heard(&mut socket).await {
                Message::Close(frame) => break heard.push(frame.unwrap().reason.to_string()),
                message => heard.push(message.into_text().unwrap().to_string()),
            }
        }
        answers.push(heard);
    }
    let alpine = r#"{"id":"sha256:a1","platform":"linux/arm64"}"#;
    assert_eq!(answers, [vec![alpine, "end"], vec!["end"], vec!["engine_gone: the engine is away"]]);
    agent.stop().await;
}
