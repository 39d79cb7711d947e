//! The same request twice is carried out once (FC-23), whatever became of the task meanwhile.

use super::support::{act, becomes, check_books, cores, online, shown, task, without_scheduler};
use crate::{on_both, server, support::total};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client};

on_both!(
    twins_at_the_same_instant_make_one_task_and_get_the_same_answer,
    a_refused_task_does_not_use_up_its_key,
    a_task_placed_as_planned_is_not_placed_twice,
    what_was_done_to_a_task_is_answered_again_and_not_done_again,
    a_dispatch_is_answered_again_and_not_done_again,
    twins_of_an_action_get_the_same_answer,
);

async fn post(client: &Client, path: &str, key: &str, body: &Value) -> Answer {
    let request = client.request(Method::POST, path).header("idempotency-key", key);
    Client::send(if body.is_null() { request } else { request.json(body) }).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

async fn twins_at_the_same_instant_make_one_task_and_get_the_same_answer(backend: Backend) {
    const ROUNDS: i64 = 20;
    let server = server(backend);
    let admin = server.admin();
    online(&admin, "edge", 1000.0).await;
    for round in 1..=ROUNDS {
        let (key, body) = (format!("round-{round}"), task(&format!("t{round}")).0);
        let answers = join_all((0..32).map(|_| post(&admin, "/tasks", &key, &body))).await;
        let first = answers[0].clone().expect(201);
        for answer in &answers {
            assert_eq!((answer.status, &answer.json), (201, &first.json), "round {round}");
            assert_eq!(answer.header("location"), first.header("location"));
        }
        assert_eq!(answers.iter().filter(|answer| is_replayed(answer)).count(), 31, "round {round}");
        assert_eq!(total(&admin, "/tasks").await, round);
    }
    for id in 1..=ROUNDS {
        becomes(&admin, id, "scheduled").await;
    }
    assert_eq!(total(&admin, "/audit/logs?action=task.create").await, ROUNDS);
    assert_eq!(total(&admin, "/audit/logs?action=task.dispatch").await, ROUNDS);
    check_books(&admin).await;
}

async fn a_refused_task_does_not_use_up_its_key(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    post(&admin, "/tasks", "k", &task("t").cpu(-1.0).0).await.expect(400);
    let made = post(&admin, "/tasks", "k", &task("t").0).await.expect(201);
    assert!(!is_replayed(&made));
    assert_eq!(post(&admin, "/tasks", "k", &task("u").0).await.expect(409).code(), "idempotency_key_reused");
    let refused = post(&admin, "/tasks/1/dispatch", "d", &Value::Null).await.expect(409);
    assert_eq!(refused.code(), "no_capacity");
    online(&admin, "edge", 1.0).await;
    becomes(&admin, 1, "scheduled").await;
    post(&admin, "/tasks/1/dispatch", "d", &Value::Null).await.expect(200);
    assert_eq!(total(&admin, "/tasks").await, 1);
}

async fn a_task_placed_as_planned_is_not_placed_twice(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 2.0).await;
    let plan = admin.post("/tasks/dry-run", task("t").0).await.expect(200);
    let body = task("t").with(json!({ "plan_token": plan.at("/plan_token") })).0;
    let first = post(&admin, "/tasks", "k", &body).await.expect(201);
    assert_eq!(first.at("/server_id"), edge);
    let again = post(&admin, "/tasks", "k", &body).await.expect(201);
    assert_eq!((&again.json, is_replayed(&again)), (&first.json, true), "the plan is stale now, the answer is not");
    assert_eq!(cores(&admin, edge).await, (json!(1.0), json!(1.0)));
    check_books(&admin).await;
}

async fn what_was_done_to_a_task_is_answered_again_and_not_done_again(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 4.0).await;
    for steps in [
        &["start", "complete"][..],
        &["start", "complete?success=false", "retry"],
        &["cancel", "retry"],
        &["start", "cancel"],
    ] {
        let id = task("t").scheduled(&admin).await;
        for step in steps {
            let (path, key) = (format!("/tasks/{id}/{step}"), format!("{id}-{step}"));
            let first = post(&admin, &path, &key, &Value::Null).await.expect(200);
            // Also where the task has gone on by itself.
            if *step == "retry" {
                becomes(&admin, id, "scheduled").await;
            }
            let before = shown(&admin, id).await;
            let again = post(&admin, &path, &key, &Value::Null).await;
            assert_eq!(again.status, 200, "{step} under a key that did it before: {}", again.text);
            assert_eq!((&again.json, is_replayed(&again)), (&first.json, true), "{step}");
            assert_eq!(shown(&admin, id).await.json, before.json, "{step}");
            assert_eq!(act(&admin, id, step).await.expect(409).code(), "illegal_transition", "{step} without the key");
        }
        if cores(&admin, edge).await.0 != 0.0 {
            act(&admin, id, "cancel").await.expect(200);
        }
    }
    check_books(&admin).await;
}

async fn a_dispatch_is_answered_again_and_not_done_again(backend: Backend) {
    let server = without_scheduler(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 1.0).await;
    let id = task("t").post(&admin).await;
    let path = format!("/tasks/{id}/dispatch");
    let first = post(&admin, &path, "k", &Value::Null).await.expect(200);
    assert_eq!(post(&admin, &path, "k", &Value::Null).await.expect(200).json, first.json);
    act(&admin, id, "start").await.expect(200);
    let again = post(&admin, &path, "k", &Value::Null).await;
    assert_eq!((again.status, &again.json), (200, &first.json), "while it runs");
    act(&admin, id, "cancel").await.expect(200);
    act(&admin, id, "retry").await.expect(200);
    let again = post(&admin, &path, "k", &Value::Null).await;
    assert_eq!((again.status, &again.json), (200, &first.json), "the key stands for the first dispatch");
    assert_eq!(shown(&admin, id).await.at("/status"), "pending");
    assert_eq!(cores(&admin, edge).await, (json!(0.0), json!(1.0)));
    act(&admin, id, "dispatch").await.expect(200);
    assert_eq!(cores(&admin, edge).await, (json!(1.0), json!(0.0)));
    check_books(&admin).await;
}

async fn twins_of_an_action_get_the_same_answer(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 1.0).await;
    for round in 0..10 {
        let id = task(&format!("t{round}")).scheduled(&admin).await;
        for step in ["start", "complete"] {
            let (path, key) = (format!("/tasks/{id}/{step}"), format!("{id}-{step}"));
            let answers = join_all((0..16).map(|_| post(&admin, &path, &key, &Value::Null))).await;
            for answer in &answers {
                assert_eq!((answer.status, &answer.json), (200, &answers[0].json), "{step}");
            }
            assert_eq!(answers.iter().filter(|answer| is_replayed(answer)).count(), 15, "{step}");
        }
        let actions = admin.get(&format!("/audit/logs?target=task:{id}")).await.expect(200);
        assert_eq!(actions.json.as_array().unwrap().len(), 4, "{}", actions.text);
    }
    assert_eq!(cores(&admin, edge).await, (json!(0.0), json!(1.0)));
    check_books(&admin).await;
}
