//! Programs that are run in a container by hand.

use super::agent::{Site, Socket, open};
use crate::support::{bearer, check_problem, walk};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tests::{Client, Server, ServerOptions, eventually};
use tokio_tungstenite::tungstenite::{self, Message};

/// A new ticket of this client's.
pub(crate) async fn ticket(client: &Client) -> String {
    client.post_empty("/auth/tickets").await.expect(200).at("/ticket").as_str().unwrap().to_owned()
}

impl Site {
    fn exec(&self, query: &str) -> String {
        self.path(&format!("exec?command=sh&command=-c&command=ls&force=true{query}"))
    }

    async fn run(&self, query: &str) -> Socket {
        let secret = ticket(&self.admin).await;
        open(&self.server.base, &self.exec(&format!("{query}&ticket={secret}")), &[]).await.unwrap()
    }

    /// Why a WebSocket was not opened: the status and the code of the problem.
    async fn refused(&self, path: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
        match open(&self.server.base, path, headers).await {
            Err(tungstenite::Error::Http(answer)) => {
                let problem: Value =
                    serde_json::from_slice(answer.body().as_deref().unwrap_or_default()).unwrap_or_default();
                (answer.status().as_u16(), problem["code"].as_str().unwrap_or_default().to_owned())
            }
            other => panic!("{path} was not refused: {:?}", other.map(|_| ())),
        }
    }

    /// The audit rows about programs, oldest first: the action and what was written.
    async fn trail(&self) -> Vec<Value> {
        let target = format!("container:{}", self.container);
        let mut rows = walk(&self.admin, &format!("/audit/logs?target={target}&outcome=success")).await;
        rows.reverse();
        rows
    }
}

/// The next message that is not about whether anybody is there.
pub(crate) async fn next(socket: &mut Socket) -> Message {
    let next = async {
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), next).await.unwrap_or_else(|_elapsed| panic!("nothing comes"))
}

pub(crate) async fn closed(socket: &mut Socket) -> (u16, String) {
    match next(socket).await {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.as_str().to_owned()),
        other => panic!("not closed: {other:?}"),
    }
}

/// What a message says in words, if it does.
pub(crate) fn json_of(message: &Message) -> Value {
    message.to_text().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn text(value: &Value) -> Message {
    Message::text(value.to_string())
}

#[tokio::test]
async fn a_program_is_run_by_ticket_and_what_became_of_it_is_written_down() {
    let arguments = ["--log", "json", "--log-level", "trace"].map(str::to_owned).to_vec();
    let options = ServerOptions { program: crate::PROGRAM.into(), arguments, ..ServerOptions::default() };
    let site = Site::on(Server::start_with(options)).await;
    let secret = ticket(&site.admin).await;
    let path = site.exec(&format!("&tty=true&rows=30&cols=90&user=nobody&workdir=/srv&ticket={secret}"));
    let mut socket = open(&site.server.base, &path, &[]).await.unwrap();
    assert_eq!(next(&mut socket).await, text(&json!({ "kind": "started" })));
    socket.send(Message::binary(b"a\xff\x00b".to_vec())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary(b"\x02a\xff\x00b".to_vec()));
    socket.send(text(&json!({ "kind": "input", "text": "ls\n" }))).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary(b"\x02ls\n".to_vec()));
    socket.send(text(&json!({ "kind": "resize", "rows": 24, "columns": 80 }))).await.unwrap();
    let resize = json!({ "kind": "resize", "rows": 24, "columns": 80 });
    let heard = |messages: &[Message]| messages.iter().any(|message| json_of(message) == resize);
    site.agent.shown.says("the new size", heard).await;
    assert_eq!(site.trail().await.iter().filter(|row| row["action"] == "container.exec_end").count(), 0);
    socket.send(Message::binary(b"exit".to_vec())).await.unwrap();
    assert_eq!(json_of(&next(&mut socket).await), json!({ "kind": "exited", "code": 7 }));
    assert_eq!(closed(&mut socket).await.0, 1000);
    let trail = site.trail().await;
    let [.., begin, end] = &trail[..] else { panic!("{trail:?}") };
    assert_eq!((&begin["action"], &end["action"]), (&json!("container.exec"), &json!("container.exec_end")));
    assert_eq!(begin["after"]["command"], json!(["sh", "-c", "ls"]));
    assert_eq!((&begin["after"]["user"], &begin["after"]["force"]), (&json!("nobody"), &json!(true)));
    assert_eq!(end["after"]["exit_code"], 7);
    assert_eq!(begin["actor"], end["actor"]);
    // It is good once, and nobody who reads the log can use it before.
    assert_eq!(site.refused(&path, &[]).await, (401, "unauthenticated".to_owned()));
    assert!(!site.server.log().contains(&secret), "the ticket is in the log");
}

#[tokio::test]
async fn who_may_not_run_programs_does_not() {
    let site = Site::start().await;
    let viewer = bearer(&site.admin, "viewer", "viewer", None).await;
    let secret = ticket(&viewer).await;
    let path = site.exec(&format!("&ticket={secret}"));
    assert_eq!(site.refused(&path, &[]).await, (403, "forbidden".to_owned()));
    assert_eq!(site.refused(&site.exec(""), &[]).await, (401, "unauthenticated".to_owned()));
    assert_eq!(site.refused(&site.exec("&ticket=slw_nonsense"), &[]).await, (401, "unauthenticated".to_owned()));
    // A page of somebody else's must not run programs with the cookie of whoever looks at it.
    let user = json!({ "name": "alice", "role": "operator", "password": "alice-password" });
    site.admin.post("/auth/users", user).await.expect(201);
    let login = json!({ "name": "alice", "password": "alice-password" });
    let login = site.admin.anonymous().post("/auth/login", login).await.expect(200);
    let cookie = login.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let own = site.server.base.clone();
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let refused = site.refused(&site.exec(""), &[("cookie", &cookie), ("origin", origin)]).await;
        assert_eq!(refused, (403, "forbidden".to_owned()), "{origin}");
    }
    assert!(site.trail().await.iter().all(|row| row["action"] != "container.exec"), "nothing was begun");
    let headers = [("cookie", cookie.as_str()), ("origin", own.as_str())];
    let mut socket = open(&site.server.base, &site.exec(""), &headers).await.unwrap();
    assert_eq!(next(&mut socket).await, text(&json!({ "kind": "started" })));
}

#[tokio::test]
async fn what_cannot_be_run_is_answered_before_anything_is_opened() {
    let site = Site::start().await;
    let token = format!("Bearer {}", site.server.admin_secret());
    let admin = [("authorization", token.as_str())];
    let foreign = site.path("exec?command=ls");
    assert_eq!(site.refused(&foreign, &admin).await, (409, "container_foreign".to_owned()));
    let long = site.path(&format!("exec?command={}", "x".repeat(33 * 1024)));
    let many = site.path(&format!("exec?{}", vec!["command=x"; 257].join("&")));
    for wrong in [
        site.path("exec"),
        site.path("exec?command="),
        site.exec("&rows=0"),
        site.exec("&user=%00"),
        site.exec("&workdir=srv"),
        long,
        many,
    ] {
        assert_eq!(site.refused(&wrong, &admin).await, (400, "invalid".to_owned()), "{}", wrong.len());
    }
    let unknown = site.exec("").replace(&format!("/{}/", site.container), "/999/");
    assert_eq!(site.refused(&unknown, &admin).await, (404, "not_found".to_owned()));
    check_problem(&site.admin.get(&site.exec("")).await, 400, "no WebSocket");
    assert!(site.trail().await.iter().all(|row| row["action"] != "container.exec"), "nothing was begun");
    let server = site.admin.get("/api/containers").await.expect(200).at("/0/server_id").clone();
    let cases = [
        (4404, 4404, format!("the container engine of server {server} does not have this container any more")),
        (4409, 4409, "the container does not run; start it first".to_owned()),
        (1011, 1011, "in the engine's words".to_owned()),
        (4503, 1011, format!("the agent of server {server} has no place for another stream; close one, or try again")),
    ];
    for (code, told, words) in &cases {
        site.agent.shown.refuse(Some((*code, "in the \u{1b}engine's words")));
        let mut socket = site.run("").await;
        assert_eq!(closed(&mut socket).await, (*told, words.clone()));
    }
    let trail = site.trail().await;
    let ends: Vec<_> = trail.iter().filter(|row| row["action"] == "container.exec_end").collect();
    assert_eq!(ends.len(), 4);
    assert!(ends.iter().zip(&cases).all(|(row, (.., words))| row["message"] == **words), "{ends:?}");
}

#[tokio::test]
async fn whoever_goes_takes_the_program_along_and_it_is_written_down() {
    let mut site = Site::start().await;
    let last = async |site: &Site, why: &str| {
        eventually(why, async || {
            let trail = site.trail().await;
            let end = trail.last().filter(|row| row["action"] == "container.exec_end")?;
            end["message"].as_str().is_some_and(|message| message.contains(why)).then_some(())
        })
        .await;
    };
    let mut vanishing = site.run("").await;
    next(&mut vanishing).await;
    drop(vanishing);
    last(&site, "the client closed the connection").await;
    let mut confused = site.run("").await;
    next(&mut confused).await;
    confused.send(Message::text("{\"kind\":\"dance\"}")).await.unwrap();
    assert_eq!(closed(&mut confused).await.0, 4400);
    last(&site, "cannot be understood").await;
    let mut cut = site.run("").await;
    next(&mut cut).await;
    site.agent.shown.cut();
    assert_eq!(closed(&mut cut).await, (1011, "the agent has gone".to_owned()));
    last(&site, "the agent has gone").await;
    let mut left = site.run("").await;
    next(&mut left).await;
    site.server.ask_to_stop();
    assert_eq!(closed(&mut left).await, (1001, "the server stops".to_owned()));
    site.server.wait_until_ended();
    site.server.restart();
    site.admin = site.server.admin();
    last(&site, "the server stops").await;
}

#[tokio::test]
async fn who_may_run_programs_no_more_is_cut_off() {
    let site = Site::start().await;
    let operator = bearer(&site.admin, "operator", "operator", None).await;
    let secret = ticket(&operator).await;
    let mut socket = open(&site.server.base, &site.exec(&format!("&ticket={secret}")), &[]).await.unwrap();
    next(&mut socket).await;
    let tokens = site.admin.get("/auth/tokens").await.expect(200);
    let id = tokens.json.as_array().unwrap().iter().find(|token| token["name"] == "operator").unwrap()["id"].clone();
    site.admin.delete(&format!("/auth/tokens/{id}")).await.expect(204);
    assert_eq!(closed(&mut socket).await.0, 1008);
}
