//! Many at once: nothing is given away twice, nobody is told a fault, and what was answered is there.

use super::support::{
    act, check_books, codes, cores, online, online_with, pool, pool_cores, shown, task, without_scheduler,
};
use crate::{
    PROGRAM, on_both, server,
    support::{total, walk},
};
use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tests::{Answer, Backend, Client, Server, ServerOptions, eventually};

on_both!(
    of_many_dispatches_as_many_succeed_as_there_are_cores,
    of_many_dispatches_without_a_scheduler_as_many_succeed_as_there_are_cores,
    of_many_dispatches_as_many_succeed_as_the_quota_allows,
    a_task_that_was_answered_is_there_for_everybody,
    the_books_are_right_after_a_storm,
);

/// More than there is room for.
const TASKS: usize = 160;
const CORES: usize = 50;
const QUOTA: usize = 30;

/// Posts tasks for a server that is cordoned, uncordons it, and dispatches them all at once.
async fn dispatch_at_once(admin: &Client, server: i64) -> Vec<(i64, Answer)> {
    admin.post_empty(&format!("/servers/{server}/cordon")).await.expect(200);
    let posts = (0..TASKS).map(|n| task(&format!("t{n}")).post(admin));
    let ids: Vec<i64> = stream::iter(posts).buffer_unordered(32).collect().await;
    assert_eq!(total(admin, "/tasks?status=pending").await, i64::try_from(TASKS).unwrap());
    admin.post_empty(&format!("/servers/{server}/uncordon")).await.expect(200);
    let answers = join_all(ids.iter().map(|id| act(admin, *id, "dispatch"))).await;
    ids.into_iter().zip(answers).collect()
}

async fn check_outcome(admin: &Client, server: i64, answers: &[(i64, Answer)], placed: usize, code: &str) {
    let refused: Vec<_> = answers.iter().filter(|(_, answer)| answer.status == 409).collect();
    let granted: BTreeSet<i64> = answers.iter().filter(|(_, answer)| answer.status == 200).map(|(id, _)| *id).collect();
    assert_eq!(refused.len() + granted.len(), answers.len(), "only 200 and 409");
    for (id, answer) in &refused {
        assert_eq!(answer.code(), "no_capacity", "task {id}: {}", answer.text);
        assert!(answer.at("/detail").as_str().unwrap().contains(code), "{}", answer.text);
    }
    for (_, answer) in answers.iter().filter(|(id, _)| granted.contains(id)) {
        assert_eq!((answer.at("/status"), answer.at("/server_id")), (json!("scheduled"), json!(server)));
    }
    let scheduled = walk(admin, "/tasks?status=scheduled").await;
    let ids: BTreeSet<i64> = scheduled.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!((granted.len(), &ids), (placed, &granted), "those who were told so have the room, and nobody else");
    assert_eq!(total(admin, "/tasks?status=pending").await, i64::try_from(TASKS - placed).unwrap());
    let waiting = refused[0].0;
    assert_eq!(codes(&shown(admin, waiting).await.at("/pending_reasons"))[0], code);
    check_books(admin).await;
}

async fn race_for_cores(server: &Server) {
    let admin = server.admin();
    let edge = online(&admin, "edge", 50.0).await;
    let answers = dispatch_at_once(&admin, edge).await;
    check_outcome(&admin, edge, &answers, CORES, "insufficient_cpu").await;
    assert_eq!(cores(&admin, edge).await, (json!(50.0), json!(0.0)));
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

async fn of_many_dispatches_as_many_succeed_as_there_are_cores(backend: Backend) {
    race_for_cores(&server(backend)).await;
}

async fn of_many_dispatches_without_a_scheduler_as_many_succeed_as_there_are_cores(backend: Backend) {
    race_for_cores(&without_scheduler(backend)).await;
}

async fn of_many_dispatches_as_many_succeed_as_the_quota_allows(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", Some(30.0)).await;
    let edge = online_with(&admin, "edge", json!({ "total_cpu": 50, "pool_id": pool })).await;
    let answers = dispatch_at_once(&admin, edge).await;
    check_outcome(&admin, edge, &answers, QUOTA, "quota_cpu").await;
    assert_eq!(cores(&admin, edge).await, (json!(30.0), json!(20.0)));
    assert_eq!(pool_cores(&admin, pool).await, 30.0);
}

async fn a_task_that_was_answered_is_there_for_everybody(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    online(&admin, "edge", 100.0).await;
    let secret = server.admin_secret();
    // Each with connections of its own.
    let workers = (0..8).map(|worker| {
        let [one, other] = [(); 2].map(|()| Client::new(&server.base, Some(&secret)));
        async move {
            for n in 0..50 {
                let id = task(&format!("w{worker}-{n}")).post(&one).await;
                let path = format!("/tasks/{id}");
                let answer = match n % 4 {
                    0 => other.get(&path).await,
                    1 => other.post_empty(&format!("{path}/dispatch")).await,
                    2 => other.get(&format!("{path}/attempts")).await,
                    _ => other.post_empty(&format!("{path}/cancel")).await,
                };
                assert!([200, 409].contains(&answer.status), "{}: {}", answer.status, answer.text);
                assert!(answer.status == 200 || answer.code() == "no_capacity", "{}", answer.text);
            }
        }
    });
    join_all(workers).await;
    assert_eq!(total(&admin, "/tasks").await, 400);
    check_books(&admin).await;
}

#[tokio::test]
async fn two_servers_on_one_database_never_give_the_same_core_away() {
    let first = server(Backend::Postgres);
    let admin = first.admin();
    let made = admin.post("/auth/tokens", json!({ "name": "both", "role": "admin" })).await.expect(201);
    let token = made.at("/secret").as_str().unwrap().to_owned();
    let key = first.data_dir().join("audit.key").display().to_string();
    let second = Server::start_with(ServerOptions {
        program: PROGRAM.into(),
        database_url: first.database_url().map(str::to_owned),
        arguments: vec!["--audit-key-file".to_owned(), key],
    });
    let clients = [&first.base, &second.base].map(|base| Client::new(base, Some(&token)));
    let edge = online(&clients[1], "edge", 20.0).await;
    admin.post_empty(&format!("/servers/{edge}/cordon")).await.expect(200);
    let posts = (0..60).map(|n| task(&format!("t{n}")).post(&clients[n % 2]));
    let ids: Vec<i64> = stream::iter(posts).buffer_unordered(16).collect().await;
    clients[1].post_empty(&format!("/servers/{edge}/uncordon")).await.expect(200);
    // Each task is dispatched by both at once.
    let calls = ids.iter().flat_map(|id| clients.iter().map(|client| act(client, *id, "dispatch")));
    for answer in join_all(calls).await {
        let refused = answer.status == 409 && ["no_capacity", "busy"].contains(&answer.code());
        assert!(answer.status == 200 || refused, "{}: {}", answer.status, answer.text);
    }
    let full = async || (total(&admin, "/tasks?status=scheduled").await == 20).then_some(());
    eventually("every core to be given away", full).await;
    for client in &clients {
        assert_eq!(cores(client, edge).await, (json!(20.0), json!(0.0)));
        assert_eq!(total(client, "/tasks?status=pending").await, 40);
        check_books(client).await;
    }
    // What one of them frees, the other's tasks get.
    let done = walk(&admin, "/tasks?status=scheduled").await;
    for row in &done {
        act(&clients[1], row["id"].as_i64().unwrap(), "cancel").await.expect(200);
    }
    eventually("the next to be placed", full).await;
    check_books(&clients[1]).await;
}

/// One of many who do whatever comes to their mind, and are never told a fault.
async fn storm(client: Client, worker: u64, servers: Vec<i64>, pool: i64) {
    let mut state = worker + 1;
    let mut dice = |sides: u64| {
        // Numerical Recipes' generator: the same storm in every run.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % (1 << 32);
        (state >> 8) % sides
    };
    let mut own: Vec<i64> = Vec::new();
    for n in 0..60 {
        let server = servers[usize::try_from(dice(3)).unwrap()];
        let of_own = |roll: u64| own.get(usize::try_from(roll).unwrap() % own.len().max(1)).copied();
        let roll = dice(1 << 16);
        let answer = match (dice(12), of_own(roll)) {
            (0..=3, _) | (_, None) => {
                let draft = task(&format!("w{worker}-{n}")).cpu(0.5).attempts(2);
                let draft = if dice(2) == 0 { draft.pool(pool) } else { draft };
                let made = client.post("/tasks", draft.0).await.expect(201);
                own.push(made.id());
                made
            }
            (4, _) => client.post_empty(&format!("/servers/{server}/cordon")).await,
            (5, _) => client.post_empty(&format!("/servers/{server}/uncordon")).await,
            (6, _) => client.patch(&format!("/servers/{server}"), json!({ "total_cpu": 1 + dice(8) })).await,
            (7, _) => client.patch(&format!("/pools/{pool}"), json!({ "quotas": { "cpu": dice(8) } })).await,
            (8, Some(id)) => act(&client, id, "dispatch").await,
            (9, Some(id)) => act(&client, id, "start").await,
            (10, Some(id)) => act(&client, id, if dice(2) == 0 { "complete" } else { "complete?success=false" }).await,
            (_, Some(id)) => act(&client, id, if dice(2) == 0 { "cancel" } else { "retry" }).await,
        };
        assert!([200, 201, 400, 409, 412].contains(&answer.status), "{}: {}", answer.status, answer.text);
    }
}

async fn the_books_are_right_after_a_storm(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", Some(4.0)).await;
    let mut servers = Vec::new();
    for (name, more) in [("a", json!({})), ("b", json!({ "pool_id": pool })), ("c", json!({ "pool_id": pool }))] {
        servers.push(online_with(&admin, name, more).await);
    }
    join_all((0..16).map(|worker| storm(admin.clone(), worker, servers.clone(), pool))).await;
    check_books(&admin).await;
    for id in &servers {
        let row = admin.get(&format!("/servers/{id}")).await.expect(200);
        assert!(row.at("/available_cpu").as_f64().unwrap() >= 0.0, "{}", row.text);
        admin.patch(&format!("/servers/{id}"), json!({ "total_cpu": 1000, "total_memory": 8 })).await.expect(200);
        admin.post_empty(&format!("/servers/{id}/uncordon")).await.expect(200);
    }
    admin.patch(&format!("/pools/{pool}"), json!({ "quotas": null })).await.expect(200);
    // With room for all, nobody has been forgotten.
    eventually("everything to be placed", async || (total(&admin, "/tasks?status=pending").await == 0).then_some(()))
        .await;
    check_books(&admin).await;
    let holding = walk(&admin, "/tasks").await;
    let holding = holding.iter().filter(|row| ["scheduled", "running"].contains(&row["status"].as_str().unwrap()));
    let held: f64 = holding.map(|row| row["required_cpu"].as_f64().unwrap()).sum();
    let mut reserved = 0.0;
    for id in &servers {
        reserved += cores(&admin, *id).await.0.as_f64().unwrap();
    }
    assert_eq!(Value::from(reserved), Value::from(held));
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
