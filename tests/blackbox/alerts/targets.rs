//! Who is told of alerts: webhooks, Slack and mail servers that are played over real sockets.

use super::{becomes, hot, measure, one, registered, rule, rule_of, without_rules};
use crate::{
    PROGRAM, on_both,
    support::{bearer, check_problem, column},
};
use domain::digest::hex;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use std::sync::{Arc, Mutex};
use tests::{Backend, Client, Server, ServerOptions, eventually, fresh_postgres, shared_postgres};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

on_both!(
    a_webhook_is_tried_until_it_answers_and_is_signed,
    slack_gets_a_text_and_a_mail_server_gets_a_mail,
    secrets_of_targets_are_shown_once_and_nowhere_else,
    a_target_is_changed_removed_and_refused,
    nothing_goes_where_it_must_not,
    what_is_on_its_way_survives_a_kill,
);

/// A server that judges each second, and may tell this machine.
fn telling(backend: Backend) -> Server {
    let database_url = (backend == Backend::Postgres).then(|| fresh_postgres(&shared_postgres()));
    let arguments = ["--alert-interval-seconds", "1", "--alert-private-targets"].map(str::to_owned).to_vec();
    Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments })
}

/// A request as it came: its head and its body.
type Got = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers each request with the next of these answers, and then with the last one; its URL.
async fn hook(answers: &'static [&'static str]) -> (String, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, got) = (listener.local_addr().unwrap().port(), Got::default());
    let seen = got.clone();
    tokio::spawn(async move {
        for turn in 0_usize.. {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answers.get(turn).or(answers.last()).unwrap();
            let request = serve(stream, answer).await;
            seen.lock().unwrap().push(request);
        }
    });
    (format!("http://127.0.0.1:{port}/hooks/T0-SECRET"), got)
}

async fn serve(stream: TcpStream, answer: &str) -> (String, String) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// A mail server that takes everything; its port.
async fn mail_server() -> (u16, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, got) = (listener.local_addr().unwrap().port(), Got::default());
    let seen = got.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mail = receive(stream).await;
            seen.lock().unwrap().push(mail);
        }
    });
    (port, got)
}

async fn receive(stream: TcpStream) -> (String, String) {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"220 played\r\n").await.unwrap();
    let (mut envelope, mut mail, mut in_mail) = (String::new(), String::new(), false);
    let mut line = String::new();
    while stream.read_line(&mut line).await.unwrap() > 0 {
        let answer = match line.trim_end() {
            "." if in_mail => {
                in_mail = false;
                Some("250 taken\r\n")
            }
            _ if in_mail => {
                mail.push_str(&line);
                None
            }
            "DATA" => {
                in_mail = true;
                Some("354 go on\r\n")
            }
            "QUIT" => Some("221 bye\r\n"),
            _ => {
                envelope.push_str(&line);
                Some("250 ok\r\n")
            }
        };
        if let Some(answer) = answer {
            stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
        }
        if line.trim_end() == "QUIT" {
            break;
        }
        line.clear();
    }
    (envelope, mail)
}

async fn target(admin: &Client, body: Value) -> (i64, Value) {
    let made = admin.post("/alerts/targets", body).await.expect(201);
    (made.id(), made.at("/signing_key"))
}

/// A rule that tells these targets, and an alert of it that fires.
async fn fire(admin: &Client, targets: &[i64]) -> (i64, Value) {
    without_rules(admin).await;
    let mut body = rule_of("hot", &hot(), 0);
    body["target_ids"] = json!(targets);
    rule(admin, body).await;
    let edge = registered(admin, "edge-1").await;
    measure(admin, edge, &[(30.0, 95.5)]).await;
    (edge, one(admin, "state=firing").await["id"].clone())
}

/// Waits until an alert has so many messages, all of which came to an end.
async fn deliveries(admin: &Client, alert: &Value, count: usize) -> Vec<Value> {
    eventually(&format!("{count} messages of alert {alert}"), async || {
        let found = admin.get(&format!("/alerts/{alert}")).await.expect(200).at("/deliveries");
        let found = found.as_array().unwrap().clone();
        let ended = found.iter().all(|delivery| !delivery["finished_at"].is_null());
        (found.len() == count && ended).then_some(found)
    })
    .await
}

async fn a_webhook_is_tried_until_it_answers_and_is_signed(backend: Backend) {
    let server = telling(backend);
    let admin = server.admin();
    let later = "503 Unavailable\r\nRetry-After: 1";
    let (url, got) = hook(Box::leak(Box::new([later, later, "204 No Content"]))).await;
    let (id, key) = target(&admin, json!({ "name": "ops", "kind": "webhook", "url": url })).await;
    let (edge, alert) = fire(&admin, &[id]).await;
    let told = deliveries(&admin, &alert, 1).await;
    let tries = told[0]["tries"].as_array().unwrap();
    let statuses: Vec<&Value> = tries.iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [503, 503, 204]);
    assert_eq!((&told[0]["state"], &told[0]["event"]), (&json!("delivered"), &json!("alert.firing")));
    assert!(tries[0]["error"].is_string() && tries[2]["error"].is_null());

    measure(&admin, edge, &[(0.0, 1.0)]).await;
    becomes(&admin, &alert, "resolved").await;
    let told = deliveries(&admin, &alert, 2).await;
    assert_eq!(told[1]["event"], "alert.resolved");
    let got = got.lock().unwrap().clone();
    let bodies: Vec<Value> = got.iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(bodies[0], bodies[2], "the same message under the same id");
    assert_eq!((&bodies[0]["id"], &bodies[0]["alert_id"]), (&told[0]["id"], &alert));
    assert_eq!((&bodies[0]["value"], &bodies[0]["subject"]["name"]), (&json!(95.5), &json!("edge-1")));
    assert_eq!((&bodies[3]["event"], &bodies[3]["reason"]), (&json!("alert.resolved"), &json!("cleared")));
    for (head, body) in got {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("x-starlink-signature:")).unwrap();
        let (_, signature) = line.split_once("t=").unwrap();
        let (at, mac) = signature.split_once(",v1=").unwrap();
        let mut own = Hmac::<Sha256>::new_from_slice(key.as_str().unwrap().as_bytes()).unwrap();
        own.update(format!("{at}.{body}").as_bytes());
        assert_eq!(mac.trim(), hex(&own.finalize().into_bytes()));
    }
}

async fn slack_gets_a_text_and_a_mail_server_gets_a_mail(backend: Backend) {
    let server = telling(backend);
    let admin = server.admin();
    let ((url, texts), (port, mails)) = (hook(&["200 OK"]).await, mail_server().await);
    let (slack, key) = target(&admin, json!({ "name": "chat", "kind": "slack", "url": url })).await;
    assert_eq!(key, Value::Null);
    let body = json!({
        "name": "mail", "kind": "email", "host": "127.0.0.1", "port": port, "tls": "none",
        "from": "starlink@example.com", "to": ["ops@example.com"],
    });
    let (mail, _) = target(&admin, body).await;
    let (_, alert) = fire(&admin, &[slack, mail]).await;
    let told = deliveries(&admin, &alert, 2).await;
    assert!(told.iter().all(|delivery| delivery["state"] == "delivered"), "{told:?}");
    let text: Value = serde_json::from_str(&texts.lock().unwrap()[0].1).unwrap();
    assert!(text["text"].as_str().unwrap().starts_with("[warning] hot: server edge-1\ncpu_usage is 95.5"), "{text}");
    let (envelope, mail) = mails.lock().unwrap()[0].clone();
    assert!(envelope.contains("MAIL FROM:<starlink@example.com>") && envelope.contains("RCPT TO:<ops@example.com>"));
    assert!(mail.contains("Subject: [warning] hot: server edge-1") && mail.contains("the threshold 90"), "{mail}");
}

async fn secrets_of_targets_are_shown_once_and_nowhere_else(backend: Backend) {
    let server = telling(backend);
    let admin = server.admin();
    let (url, _) = hook(&["410 Gone"]).await;
    let attempt = || {
        let request = admin.request(Method::POST, "/alerts/targets").header("idempotency-key", "k-1");
        Client::send(request.json(&json!({ "name": "ops", "kind": "webhook", "url": url })))
    };
    let made = attempt().await.expect(201);
    let key = made.at("/signing_key").as_str().unwrap().to_owned();
    assert_eq!(attempt().await.expect(409).code(), "already_created");
    let mail = json!({
        "name": "mail", "kind": "email", "host": "127.0.0.1", "port": 1, "user": "me", "password": "pw-SECRET",
        "from": "starlink@example.com", "to": ["ops@example.com"],
    });
    target(&admin, mail).await;
    let path = format!("/alerts/targets/{}", made.id());
    admin.patch(&path, json!({ "name": "ops-2" })).await.expect(200);
    let tested = admin.post_empty(&format!("{path}/test")).await.expect(200);
    assert_eq!((tested.at("/state"), tested.at("/tries/0/status")), (json!("failed"), json!(410)));
    admin.post_empty("/alerts/targets/2/test").await.expect(200);
    for read in [path.as_str(), "/alerts/targets", "/audit/logs?limit=1000", "/audit/export?format=jsonl"] {
        let text = admin.get(read).await.expect(200).text;
        for secret in [key.as_str(), "T0-SECRET", "pw-SECRET"] {
            assert!(!text.contains(secret), "{read} shows {secret}");
        }
    }
    assert!(!tested.text.contains("T0-SECRET"));
    let log = server.log();
    assert!(!log.contains(&key) && !log.contains("T0-SECRET") && !log.contains("pw-SECRET"));
}

async fn a_target_is_changed_removed_and_refused(backend: Backend) {
    let server = telling(backend);
    let admin = server.admin();
    let body = json!({ "name": "ops", "kind": "slack", "url": "https://hooks.example.com/a" });
    let made = admin.post("/alerts/targets", body.clone()).await.expect(201);
    let path = format!("/alerts/targets/{}", made.id());
    assert_eq!((made.header("location"), made.header("etag")), (Some(path.as_str()), Some("\"1\"")));
    assert_eq!(admin.post("/alerts/targets", body).await.expect(409).code(), "name_taken");
    let changed =
        admin.patch(&path, json!({ "url": "https://other.example.com/b", "enabled": false })).await.expect(200);
    assert_eq!((changed.at("/origin"), changed.at("/enabled")), (json!("https://other.example.com"), json!(false)));
    let stale = admin.request(Method::PATCH, &path).header("if-match", "\"1\"");
    Client::send(stale.json(&json!({ "enabled": true }))).await.expect(412);
    let mut told = rule_of("told", &hot(), 0);
    told["target_ids"] = json!([made.id()]);
    let told = rule(&admin, told).await;
    assert_eq!(admin.delete(&path).await.expect(409).code(), "target_in_use");
    admin.patch(&format!("/alerts/rules/{told}"), json!({ "target_ids": null })).await.expect(200);
    let operator = bearer(&admin, "operator", "operator", None).await;
    operator.get(&path).await.expect(200);
    operator.post_empty(&format!("{path}/test")).await.expect(403);
    operator.delete(&path).await.expect(403);
    admin.delete(&path).await.expect(204);
    admin.get(&path).await.expect(404);
    let check = async |body: Value, field: &str| {
        let answer = admin.post("/alerts/targets", body).await;
        check_problem(&answer, 400, field);
        assert_eq!(answer.at("/errors/0/field"), field, "{}", answer.text);
    };
    check(json!({ "name": "x", "kind": "slack" }), "url").await;
    check(json!({ "name": "x", "kind": "slack", "url": "ftp://a/" }), "url").await;
    check(json!({ "name": "x", "kind": "webhook", "url": "https://me:pw@a/" }), "url").await;
    check(json!({ "name": "x", "kind": "email", "from": "a@b", "to": ["a@b"] }), "host").await;
    check(json!({ "name": "x", "kind": "email", "host": "h", "from": "a@b", "to": [] }), "to").await;
    let rows = admin.get(&format!("/audit/logs?outcome=success&target=alert_target:{}", made.id())).await.expect(200);
    assert_eq!(column(&rows, "action"), ["alert_target.delete", "alert_target.update", "alert_target.create"]);
}

async fn nothing_goes_where_it_must_not(backend: Backend) {
    // One that may tell this machine still tells nobody at a link-local address, and follows no redirect.
    let server = telling(backend);
    let admin = server.admin();
    let test = async |admin: &Client, name: &str, url: &str| {
        let (id, _) = target(admin, json!({ "name": name, "kind": "slack", "url": url })).await;
        admin.post_empty(&format!("/alerts/targets/{id}/test")).await.expect(200).json
    };
    let metadata = test(&admin, "metadata", "http://169.254.169.254/latest/meta-data/").await;
    assert_eq!((&metadata["state"], &metadata["tries"][0]["status"]), (&json!("failed"), &Value::Null));
    let (elsewhere, got) = hook(&["200 OK"]).await;
    let answer = format!("307 Temporary Redirect\r\nLocation: {elsewhere}");
    let (url, _) = hook(Box::leak(Box::new([&*Box::leak(answer.into_boxed_str())]))).await;
    let redirected = test(&admin, "redirected", &url).await;
    assert_eq!((&redirected["state"], &redirected["tries"][0]["status"]), (&json!("failed"), &json!(307)));
    // Without the setting, this machine is out of reach, whatever it is called.
    let strict = super::watching(backend);
    let admin = strict.admin();
    let port = elsewhere.rsplit(':').next().unwrap().to_owned();
    for (name, host) in [("a", "http://127.0.0.1"), ("b", "https://127.0.0.1"), ("c", "https://localhost")] {
        let tested = test(&admin, name, &format!("{host}:{port}")).await;
        assert_eq!((&tested["state"], &tested["tries"][0]["status"]), (&json!("failed"), &Value::Null), "{host}");
    }
    assert!(got.lock().unwrap().is_empty());
}

async fn what_is_on_its_way_survives_a_kill(backend: Backend) {
    let mut server = telling(backend);
    let admin = server.admin();
    let later = "503 Unavailable\r\nRetry-After: 2";
    let (url, got) = hook(Box::leak(Box::new([later, "200 OK"]))).await;
    let (id, _) = target(&admin, json!({ "name": "ops", "kind": "webhook", "url": url })).await;
    let (_, alert) = fire(&admin, &[id]).await;
    eventually("the first try to be written down", async || {
        let found = admin.get(&format!("/alerts/{alert}")).await.expect(200);
        found.at("/deliveries/0/tries/0/status").is_number().then_some(())
    })
    .await;
    server.kill();
    server.restart();
    let told = deliveries(&server.admin(), &alert, 1).await;
    assert_eq!((&told[0]["state"], told[0]["tries"].as_array().unwrap().len()), (&json!("delivered"), 2));
    assert_eq!(got.lock().unwrap().len(), 2);
}
