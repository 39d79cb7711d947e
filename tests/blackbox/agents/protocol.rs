//! The agents' side of the API, spoken by hand: what a server must hold to, whatever an agent says.

use super::support::{Site, available, check_at_rest, enrollment, join_token, shell, shown};
use crate::{
    on_both,
    support::{check_problem, walk},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tests::{Answer, Backend, Client, eventually};

on_both!(
    an_operation_is_told_until_it_was_reported_on,
    what_is_reported_twice_changes_nothing,
    an_agent_that_missed_the_end_is_told_so,
    a_session_is_gone_after_a_restart_of_the_server,
    an_agent_whose_answer_was_lost_may_join_again,
    an_operation_is_cancelled_with_its_task,
);

/// What a machine with so many cores says of itself, and what no server knows yet.
fn inventory(cores: i64) -> Value {
    json!({
        "architecture": "riscv64gc", "agent_version": "9.9.9", "drivers": ["exec"], "quantum_cores": 7,
        "capacity": { "cpu_millis": cores * 1000, "memory_mib": 1024, "storage_mib": 10240, "gpus": 0, "qubits": 3 },
    })
}

fn enroll_body(token: &str, name: &str, protocols: &[u32]) -> Value {
    json!({
        "join_token": token, "name": name, "place": "here", "protocols": protocols, "inventory": inventory(4),
        "mood": "good",
    })
}

/// An agent that is a test.
struct Hand {
    client: Client,
    server: i64,
    session: String,
}

impl Hand {
    /// One that has joined and opened a session.
    async fn join(admin: &Client, name: &str) -> Self {
        let token = join_token(admin, json!({})).await;
        let joined = admin.anonymous().post("/agent/enroll", enroll_body(&token, name, &[1, 99])).await.expect(201);
        let client = admin.with_token(joined.at("/token").as_str().unwrap());
        let mut hand = Self { client, server: joined.at("/server_id").as_i64().unwrap(), session: String::new() };
        hand.open("one").await.expect(200);
        hand
    }

    async fn open(&mut self, session: &str) -> Answer {
        session.clone_into(&mut self.session);
        self.client.post("/agent/session", session_body(session, &[1, 99], "here")).await
    }

    async fn poll(&self, wait: u32) -> Answer {
        self.client.get(&format!("/agent/operations?session={}&wait={wait}", self.session)).await
    }

    async fn report(&self, operation: i64, what: &str, more: Value) -> Answer {
        let mut body = json!({ "session": self.session, "started_at": "2026-01-01T00:00:00Z", "news": [1] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.client.post(&format!("/agent/operations/{operation}/{what}"), body).await
    }

    /// Waits for the next operation to be begun.
    async fn delivery(&self) -> Value {
        eventually("something to do", async || {
            self.poll(5).await.expect(200).at("/operations/0").as_object().cloned().map(Value::Object)
        })
        .await
    }
}

fn session_body(session: &str, protocols: &[u32], place: &str) -> Value {
    json!({
        "session": session, "place": place, "protocols": protocols, "inventory": inventory(4), "since": "yesterday",
    })
}

fn done() -> Value {
    json!({ "ending": "completed", "exit_code": 0, "finished_at": "2026-01-01T00:00:01Z", "aura": "violet" })
}

#[tokio::test]
async fn a_version_is_agreed_on_or_refused_with_both_named() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let token = join_token(&admin, json!({})).await;
    let anonymous = admin.anonymous();
    for versions in [&[99][..], &[], &[0, 2]] {
        let refused = anonymous.post("/agent/enroll", enroll_body(&token, "edge", versions)).await;
        check_problem(&refused, 409, "enroll");
        assert_eq!(refused.code(), "protocol_unsupported");
        let detail = refused.at("/detail").as_str().unwrap().to_owned();
        assert!(detail.contains("[1]") && detail.contains(&format!("{versions:?}")), "{detail}");
    }
    // The refused ones have not used the token.
    let mut hand = Hand::join(&admin, "other").await;
    let joined = anonymous.post("/agent/enroll", enroll_body(&token, "edge", &[1, 99])).await.expect(201);
    assert_eq!(joined.header("location"), Some(&*format!("/servers/{}", joined.at("/server_id"))));
    let refused = hand.client.post("/agent/session", session_body("two", &[99], "here")).await.expect(409);
    assert_eq!(refused.code(), "protocol_unsupported");
    let opened = hand.open("three").await.expect(200);
    assert_eq!((opened.at("/protocol"), opened.at("/server_id")), (json!(1), json!(hand.server)));
    let row = admin.get(&format!("/servers/{}", hand.server)).await.expect(200);
    assert_eq!((row.at("/architecture"), row.at("/total_cpu")), (json!("riscv64"), json!(4.0)), "in the house's words");
}

#[tokio::test]
async fn a_machine_of_an_unknown_architecture_does_not_join() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let token = join_token(&admin, json!({})).await;
    for architecture in ["armv7l", "i686", "", "ppc64le"] {
        let mut body = enroll_body(&token, "old", &[1]);
        body["inventory"]["architecture"] = json!(architecture);
        let refused = admin.anonymous().post("/agent/enroll", body).await;
        check_problem(&refused, 409, architecture);
        assert_eq!(refused.code(), "architecture_unsupported");
    }
    assert!(walk(&admin, "/servers").await.is_empty());
}

async fn an_operation_is_told_until_it_was_reported_on(backend: Backend) {
    let site = Site::start(backend);
    let admin = site.admin();
    let mut hand = Hand::join(&admin, "edge").await;
    let task = shell(&admin, "true", json!({ "env": { "KEY": "s3cret-value" } })).await;
    let first = hand.delivery().await;
    let id = first["id"].as_i64().unwrap();
    assert_eq!((&first["order"]["kind"], &first["order"]["task_id"]), (&json!("run_task"), &json!(task)));
    assert_eq!(first["order"]["spec"]["env"]["KEY"], "s3cret-value", "{first}");
    assert!(first["expires_in_seconds"].as_i64().unwrap() > 0);
    assert_eq!(hand.poll(0).await.expect(200).at("/operations"), json!([]), "it was told a moment ago");
    hand.open("two").await.expect(200);
    assert_eq!(hand.delivery().await["id"], id, "a new session is told again");
    hand.report(id, "started", json!({})).await.expect(204);
    let opened = hand.open("three").await.expect(200);
    assert_eq!(opened.at("/begun"), json!([id]), "it has to account for that");
    assert_eq!(hand.poll(0).await.expect(200).at("/operations"), json!([]));
    admin.post_empty(&format!("/tasks/{task}/cancel")).await.expect(202);
    let told = eventually("the cancellation", async || {
        let told = hand.poll(5).await.expect(200).at("/cancel");
        (told != json!([])).then_some(told)
    });
    assert_eq!(told.await, json!([id]));
    assert!((available(&admin, hand.server).await - 3.9).abs() < 1e-9, "its room is kept until it has ended");
    let end = json!({ "ending": "cancelled", "signal": 15 });
    hand.report(id, "result", end).await.expect(204);
    assert_eq!(shown(&admin, task).await.at("/status"), "cancelled");
    check_at_rest(&admin, &[]).await;
}

async fn what_is_reported_twice_changes_nothing(backend: Backend) {
    let site = Site::start(backend);
    let admin = site.admin();
    let hand = Hand::join(&admin, "edge").await;
    let task = shell(&admin, "true", json!({})).await;
    let id = hand.delivery().await["id"].as_i64().unwrap();
    hand.report(id, "progress", json!({ "message": "pulling image: 40 %\u{7}" })).await.expect(204);
    let operation = admin.get(&format!("/operations/{id}")).await.expect(200);
    assert_eq!(operation.at("/progress"), "pulling image: 40 %");
    for _ in 0..2 {
        hand.report(id, "started", json!({})).await.expect(204);
    }
    let running = shown(&admin, task).await;
    assert_eq!((running.at("/status"), running.at("/revision")), (json!("running"), json!(3)));
    for _ in 0..3 {
        hand.report(id, "result", done()).await.expect(204);
    }
    let ended = shown(&admin, task).await;
    assert_eq!((ended.at("/status"), ended.at("/revision")), (json!("completed"), json!(4)));
    let rows = walk(&admin, &format!("/audit/logs?target=task:{task}&action=task.ended")).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["actor"], "agent:edge");
    check_at_rest(&admin, &[]).await;
}

async fn an_agent_that_missed_the_end_is_told_so(backend: Backend) {
    let site = Site::start(backend);
    let admin = site.admin();
    let (hand, other) = (Hand::join(&admin, "edge").await, Hand::join(&admin, "other").await);
    admin.post_empty(&format!("/servers/{}/cordon", other.server)).await.expect(200);
    shell(&admin, "true", json!({})).await;
    let id = hand.delivery().await["id"].as_i64().unwrap();
    for what in ["started", "result", "progress"] {
        let refused = other.report(id, what, json!({ "ending": "completed", "message": "x" })).await;
        check_problem(&refused, 404, what);
        other.report(99, what, json!({ "ending": "completed", "message": "x" })).await.expect(404);
    }
    hand.report(id, "result", done()).await.expect(204);
    let late = hand.report(id, "result", json!({ "ending": "failed", "exit_code": 1 })).await;
    check_problem(&late, 409, "another result");
    assert_eq!(late.code(), "operation_closed");
    assert_eq!(hand.report(id, "started", json!({})).await.expect(409).code(), "operation_closed");
    let operation = admin.get(&format!("/operations/{id}")).await.expect(200);
    assert_eq!((operation.at("/state"), operation.at("/result/exit_code")), (json!("succeeded"), json!(0)));
    check_at_rest(&admin, &[]).await;
}

async fn a_session_is_gone_after_a_restart_of_the_server(backend: Backend) {
    let mut site = Site::start(backend);
    let mut hand = Hand::join(&site.admin(), "edge").await;
    site.server.kill();
    site.restart();
    let token = hand.client.clone();
    hand.client = Client::new(&site.server.base, Some(&bearer_of(&token)));
    for answer in [hand.poll(5).await, hand.report(1, "started", json!({})).await] {
        check_problem(&answer, 409, "an old session");
        assert_eq!(answer.code(), "session_gone");
    }
    hand.open("two").await.expect(200);
    hand.poll(0).await.expect(200);
}

/// The token of a client, as its requests carry it.
fn bearer_of(client: &Client) -> String {
    let request = client.request(Method::GET, "/").build().unwrap();
    let value = request.headers()["authorization"].to_str().unwrap();
    value.strip_prefix("Bearer ").unwrap().to_owned()
}

#[tokio::test]
async fn one_session_takes_over_from_another_only_in_the_same_place() {
    let site = Site::with(Backend::Sqlite, &["--agent-grace-seconds", "2"]);
    let mut hand = Hand::join(&site.admin(), "edge").await;
    let copy = |session| hand.client.post("/agent/session", session_body(session, &[1], "elsewhere"));
    let refused = copy("copy").await;
    check_problem(&refused, 409, "a copy");
    assert_eq!(refused.code(), "agent_already_running");
    hand.poll(0).await.expect(200);
    assert_eq!(hand.open("again").await.expect(200).at("/server_id"), hand.server);
    let old = hand.client.get("/agent/operations?session=one&wait=0").await.expect(409);
    assert_eq!(old.code(), "session_gone");
    // Once it has been silent for long enough, whoever has its token may have its place.
    let moved = eventually("the place to be free", async || {
        let answer = hand.client.post("/agent/session", session_body("moved", &[1], "elsewhere")).await;
        (answer.status == 200).then_some(answer)
    });
    moved.await;
    assert_eq!(hand.poll(0).await.expect(409).code(), "session_gone");
}

#[tokio::test]
async fn an_agents_token_opens_nothing_else() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let hand = Hand::join(&admin, "edge").await;
    let document = admin.get("/openapi.json").await.expect(200);
    let mut tried = 0;
    for (path, item) in document.at("/paths").as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            let path = path.replace("{id}", "1").replace("{source}", "1");
            let answer = Client::send(hand.client.request(method.clone(), &path).json(&json!({}))).await;
            let theirs = path.starts_with("/agent/");
            let public = admin.anonymous().request(method.clone(), &path).json(&json!({}));
            if !theirs && Client::send(public).await.status == 401 && path != "/auth/me" && path != "/auth/logout" {
                tried += 1;
                // A body is read before anybody asks whose it is.
                let refused = answer.status == 403 || (method == Method::POST && [400, 415].contains(&answer.status));
                assert!(refused, "{method} {path}: {}", answer.text);
            }
        }
    }
    assert!(tried > 40, "{tried} is not the API");
    // Nor does anybody else's token do what agents do.
    let body = session_body("one", &[1], "here");
    check_problem(&admin.post("/agent/session", body.clone()).await, 403, "an admin");
    check_problem(&admin.anonymous().post("/agent/session", body).await, 401, "nobody");
    check_problem(&admin.get("/agent/operations?session=one").await, 403, "an admin");
}

#[tokio::test]
async fn a_waiting_agent_is_told_at_once() {
    let mut site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let hand = Hand::join(&admin, "edge").await;
    let began = Instant::now();
    assert_eq!(hand.poll(0).await.expect(200).at("/operations"), json!([]));
    assert!(began.elapsed() < Duration::from_secs(1), "who does not want to wait does not");
    let (waiting, placed) = tokio::join!(
        async {
            let answer = hand.poll(25).await.expect(200);
            (answer, Instant::now())
        },
        async {
            // So that it waits already.
            eventually("the poll to be heard", async || (began.elapsed() > Duration::from_millis(300)).then_some(()))
                .await;
            let at = Instant::now();
            shell(&admin, "true", json!({})).await;
            at
        }
    );
    let (answer, told) = waiting;
    assert_eq!(answer.at("/operations/0/order/kind"), "run_task", "{}", answer.text);
    assert!(told - placed < Duration::from_secs(1), "it took {:?}", told - placed);
    let poll = hand.client.request(Method::GET, &format!("/agent/operations?session={}&wait=25", hand.session));
    let waiting = tokio::spawn(Client::try_send(poll));
    let client = hand.client.clone();
    // The next call is answered after the poll was taken in.
    client.get("/agent/operations?session=other").await.expect(409);
    let (took, status) = tokio::task::spawn_blocking(move || site.server.terminate()).await.unwrap();
    assert!(status.success() && took < Duration::from_secs(3), "{status}, {took:?}");
    if let Ok(answer) = waiting.await.unwrap() {
        assert!(answer.status == 200 || answer.status == 503, "{}", answer.text);
    }
}

async fn an_agent_whose_answer_was_lost_may_join_again(backend: Backend) {
    let site = Site::start(backend);
    let admin = site.admin();
    let made = enrollment(&admin, json!({})).await;
    let token = made.at("/token").as_str().unwrap().to_owned();
    let join = async |place: &str| {
        let mut body = enroll_body(&token, "edge", &[1]);
        body["place"] = json!(place);
        admin.anonymous().post("/agent/enroll", body).await
    };
    let lost = join("here").await.expect(201);
    let elsewhere = join("elsewhere").await;
    check_problem(&elsewhere, 401, "the token is used up for anybody else");
    let joined = join("here").await.expect(201);
    assert_eq!(joined.at("/server_id"), lost.at("/server_id"));
    let uses = admin.get(&format!("/enrollments/{}", made.id())).await.expect(200);
    assert_eq!((uses.at("/uses"), uses.at("/max_uses")), (json!(1), json!(1)));
    let open = async |joined: &Answer| {
        let client = admin.with_token(joined.at("/token").as_str().unwrap());
        client.post("/agent/session", session_body("one", &[1], "here")).await
    };
    check_problem(&open(&lost).await, 401, "nobody has that token");
    let seen = async || admin.get("/servers/1").await.expect(200).at("/last_seen_at");
    let at_first = seen().await;
    open(&joined).await.expect(200);
    eventually("it to be heard of", async || (seen().await != at_first).then_some(())).await;
    check_problem(&join("here").await, 401, "its answer has arrived");
    open(&joined).await.expect(200);
    let rows = walk(&admin, "/audit/logs?action=agent.enroll&target=server:1").await;
    assert_eq!(rows.len(), 2);
    assert!(rows[0]["message"].as_str().unwrap().contains("once more"), "{}", rows[0]);
    check_at_rest(&admin, &[]).await;
}

async fn an_operation_is_cancelled_with_its_task(backend: Backend) {
    let site = Site::start(backend);
    let admin = site.admin();
    let hand = Hand::join(&admin, "edge").await;
    let task = shell(&admin, "true", json!({})).await;
    let id = hand.delivery().await["id"].as_i64().unwrap();
    let path = format!("/operations/{id}/cancel");
    let asked = admin.post_empty(&path).await.expect(202);
    assert_eq!((asked.at("/id"), asked.at("/cancel_requested")), (json!(id), json!(true)), "{}", asked.text);
    assert_eq!(shown(&admin, task).await.at("/reason"), "cancelling");
    check_problem(&admin.post_empty(&path).await, 409, "it is being cancelled already");
    let waiting = admin.request(Method::POST, &format!("/tasks/{task}/cancel")).header("prefer", "wait=1");
    check_problem(&Client::send(waiting).await, 409, "nor by its task");
    hand.report(id, "result", json!({ "ending": "cancelled", "signal": 15 })).await.expect(204);
    assert_eq!(shown(&admin, task).await.at("/status"), "cancelled");
    let over = admin.post_empty(&path).await;
    check_problem(&over, 409, "it has ended");
    assert_eq!(over.code(), "illegal_transition");
    admin.post_empty("/operations/99/cancel").await.expect(404);

    // What its task does next is none of an old operation's business.
    admin.post_empty(&format!("/tasks/{task}/retry")).await.expect(200);
    let next = hand.delivery().await["id"].as_i64().unwrap();
    check_problem(&admin.post_empty(&path).await, 409, "it has ended");
    let ends = async {
        eventually("the cancellation", async || (hand.poll(5).await.at("/cancel") == json!([next])).then_some(()))
            .await;
        hand.report(next, "result", json!({ "ending": "cancelled" })).await.expect(204);
    };
    let waiting = admin.request(Method::POST, &format!("/operations/{next}/cancel")).header("prefer", "wait=20");
    let (settled, ()) = tokio::join!(Client::send(waiting), ends);
    assert_eq!(settled.expect(200).at("/state"), "cancelled");
    check_at_rest(&admin, &[]).await;
}
