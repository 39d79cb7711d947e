//! The same request twice is carried out once (FC-23).

use crate::{
    on_both, server,
    support::{bearer, server_body, total},
};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client};

on_both!(
    twins_at_the_same_instant_make_one_server_and_get_the_same_answer,
    another_body_under_a_used_key_is_refused,
    a_refused_request_does_not_use_up_its_key,
    a_secret_is_not_shown_again,
    a_key_belongs_to_its_caller,
    an_answer_is_repeated_over_a_restart_and_whatever_happened_since,
    acting_twice_under_one_key_acts_once,
);

async fn post(client: &Client, path: &str, key: &str, body: &Value) -> Answer {
    Client::send(client.request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

async fn twins_at_the_same_instant_make_one_server_and_get_the_same_answer(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for round in 1..=20 {
        let (key, body) = (format!("round-{round}"), server_body(&format!("s{round}")));
        let answers = join_all((0..32).map(|_| post(&admin, "/servers", &key, &body))).await;
        let first = answers[0].clone().expect(201);
        for answer in &answers {
            assert_eq!((answer.status, &answer.json), (201, &first.json), "round {round}");
            assert_eq!(answer.header("location"), first.header("location"));
        }
        let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed") == Some("true")).count();
        assert_eq!(replayed, 31, "round {round}");
        assert_eq!(total(&admin, "/servers").await, round);
    }
    assert_eq!(total(&admin, "/audit/logs?action=server.create").await, 20);
}

async fn another_body_under_a_used_key_is_refused(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    post(&admin, "/servers", "k", &server_body("a")).await.expect(201);
    assert_eq!(post(&admin, "/servers", "k", &server_body("b")).await.expect(409).code(), "idempotency_key_reused");
    assert_eq!(post(&admin, "/pools", "k", &json!({ "name": "a" })).await.expect(409).code(), "idempotency_key_reused");
    assert_eq!(total(&admin, "/servers").await, 1);
    assert_eq!(total(&admin, "/pools").await, 0);
    for wrong in ["", "a b", &"k".repeat(256)] {
        let refused = post(&admin, "/servers", wrong, &server_body("c")).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), "Idempotency-Key", "{wrong}");
    }
}

async fn a_refused_request_does_not_use_up_its_key(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let mut body = server_body("a");
    body["total_cpu"] = json!(-1);
    post(&admin, "/servers", "k", &body).await.expect(400);
    body["total_cpu"] = json!(1);
    let made = post(&admin, "/servers", "k", &body).await.expect(201);
    assert_eq!(made.header("idempotency-replayed"), None);
    post(&admin, "/servers", "conflict", &body).await.expect(409);
    post(&admin, "/servers", "conflict", &server_body("b")).await.expect(201);
    let viewer = bearer(&admin, "v", "viewer", None).await;
    post(&viewer, "/servers", "k", &body).await.expect(403);
    assert_eq!(total(&admin, "/servers").await, 2);
}

async fn a_secret_is_not_shown_again(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let body = json!({ "name": "ci", "role": "viewer" });
    let answers = join_all((0..8).map(|_| post(&admin, "/auth/tokens", "k", &body))).await;
    let (made, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!(made.len(), 1);
    let secret = made[0].at("/secret").as_str().unwrap().to_owned();
    for other in others {
        let other = other.expect(409);
        assert_eq!(other.code(), "already_created");
        assert!(!other.text.contains(&secret) && other.text.contains("ci"), "{}", other.text);
    }
    admin.with_token(&secret).get("/auth/me").await.expect(200);
}

async fn a_key_belongs_to_its_caller(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let (one, two) = (bearer(&admin, "one", "operator", None).await, bearer(&admin, "two", "operator", None).await);
    let first = post(&one, "/servers", "k", &server_body("a")).await.expect(201).id();
    assert_eq!(post(&two, "/servers", "k", &server_body("a")).await.expect(409).code(), "name_taken");
    let second = post(&two, "/servers", "k", &server_body("b")).await.expect(201).id();
    assert_ne!(first, second);
    assert_eq!(post(&one, "/servers", "k", &server_body("a")).await.expect(201).id(), first);
}

async fn an_answer_is_repeated_over_a_restart_and_whatever_happened_since(backend: Backend) {
    let mut server = server(backend);
    let first = post(&server.admin(), "/servers", "k", &server_body("a")).await.expect(201);
    server.admin().patch("/servers/1", json!({ "name": "b" })).await.expect(200);
    server.kill();
    server.restart();
    let admin = server.admin();
    let again = post(&admin, "/servers", "k", &server_body("a")).await.expect(201);
    assert_eq!((again.json.clone(), again.header("idempotency-replayed")), (first.json.clone(), Some("true")));
    admin.delete("/servers/1").await.expect(204);
    assert_eq!(post(&admin, "/servers", "k", &server_body("a")).await.expect(201).json, first.json);
    assert_eq!(total(&admin, "/servers").await, 0);
}

async fn acting_twice_under_one_key_acts_once(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    admin.post("/servers", server_body("a")).await.expect(201);
    let first = post(&admin, "/servers/1/cordon", "k", &Value::Null).await.expect(200);
    admin.post_empty("/servers/1/uncordon").await.expect(200);
    let again = post(&admin, "/servers/1/cordon", "k", &Value::Null).await.expect(200);
    assert_eq!((again.json, again.headers.contains_key("idempotency-replayed")), (first.json, true));
    assert_eq!(admin.get("/servers/1").await.at("/cordoned"), false, "the second was not carried out");
    assert_eq!(
        post(&admin, "/servers/1/uncordon", "k", &Value::Null).await.expect(409).code(),
        "idempotency_key_reused"
    );
    // What changed nothing the first time does not change anything later either.
    let first = post(&admin, "/servers/1/uncordon", "late", &Value::Null).await.expect(200);
    admin.post_empty("/servers/1/cordon").await.expect(200);
    let again = post(&admin, "/servers/1/uncordon", "late", &Value::Null).await.expect(200);
    assert_eq!(again.json, first.json);
    assert_eq!(admin.get("/servers/1").await.at("/cordoned"), true);
    assert_eq!(total(&admin, "/audit/logs?action=server.").await, 4, "to create, cordon, uncordon, cordon");
}
