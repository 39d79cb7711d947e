//! Room to the millicore, and what holds it cannot be taken away.

use super::support::{act, becomes, check_books, cores, online, online_with, pool, pool_cores, refusals, shown, task};
use crate::{on_both, server};
use serde_json::json;
use tests::{Backend, Client};

on_both!(
    a_quota_is_used_up_to_the_millicore,
    a_server_with_work_on_it_is_not_removed,
    a_server_does_not_become_smaller_than_what_is_reserved_on_it,
    a_pool_that_unfinished_tasks_ask_for_is_not_removed,
    a_quota_below_what_is_held_stops_new_work_alone,
    labels_and_pools_say_where_a_task_may_go,
);

/// Posts tasks of these sizes, which must all be placed, and one of 0.001 cores, which must not.
async fn check_full(admin: &Client, pool: i64, sizes: &[f64], held: f64, left: f64) {
    let mut ids = Vec::new();
    for (n, size) in sizes.iter().enumerate() {
        ids.push(task(&format!("{n}: {size}")).cpu(*size).pool(pool).scheduled(admin).await);
    }
    assert_eq!(pool_cores(admin, pool).await, held, "{sizes:?}");
    assert_eq!(cores(admin, 1).await, (json!(held), json!(left)), "{sizes:?}");
    let more = task("one more").cpu(0.001).pool(pool).post(admin).await;
    let codes = refusals(admin, more).await;
    assert!(codes.contains(&"quota_cpu".to_owned()), "{codes:?}");
    let reasons = shown(admin, more).await.at("/pending_reasons");
    let detail = reasons.as_array().unwrap().last().unwrap()["detail"].as_str().unwrap().to_owned();
    assert_eq!(detail, format!("needs 0.001 cores, 0 of {held} left in the quota of pool \"p\""));
    act(admin, more, "cancel").await.expect(200);
    for id in ids {
        act(admin, id, "start").await.expect(200);
        act(admin, id, "complete").await.expect(200);
    }
    assert_eq!(pool_cores(admin, pool).await, 0.0, "{sizes:?}");
    assert_eq!(cores(admin, 1).await, (json!(0.0), json!(1.67)), "{sizes:?}");
}

/// FC-08.
async fn a_quota_is_used_up_to_the_millicore(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", Some(1.67)).await;
    online_with(&admin, "edge", json!({ "total_cpu": 1.67, "pool_id": pool })).await;
    let whole = task("whole").cpu(1.67).pool(pool).scheduled(&admin).await;
    assert_eq!((pool_cores(&admin, pool).await, cores(&admin, 1).await.1), (json!(1.67), json!(0.0)));
    act(&admin, whole, "cancel").await.expect(200);
    check_full(&admin, pool, &[1.67], 1.67, 0.0).await;
    check_full(&admin, pool, &[0.67, 1.0], 1.67, 0.0).await;
    let quota = async |cpu: f64| {
        admin.patch(&format!("/pools/{pool}"), json!({ "quotas": { "cpu": cpu } })).await.expect(200);
    };
    quota(1.0).await;
    check_full(&admin, pool, &[0.1; 10], 1.0, 0.67).await;
    quota(0.3).await;
    check_full(&admin, pool, &[0.1, 0.2], 0.3, 1.37).await;
    check_books(&admin).await;
}

async fn a_server_with_work_on_it_is_not_removed(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 8.0).await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(task(&format!("job-{n}")).scheduled(&admin).await);
    }
    let path = format!("/servers/{edge}");
    let refused = admin.delete(&path).await.expect(409);
    assert_eq!(refused.code(), "server_in_use");
    let detail = refused.at("/detail").as_str().unwrap().to_owned();
    for part in ["task 1 \"job-1\"", "task 3 \"job-3\"", "and 2 more"] {
        assert!(detail.contains(part), "{detail}");
    }
    act(&admin, ids[0], "start").await.expect(200);
    for id in &ids {
        admin.delete(&path).await.expect(409);
        act(&admin, *id, "cancel").await.expect(200);
    }
    admin.delete(&path).await.expect(204);
    // A task outlives its server.
    assert_eq!(shown(&admin, ids[0]).await.at("/server_id"), edge);
    assert_eq!(admin.get(&format!("/tasks/{}/attempts", ids[0])).await.expect(200).at("/0/server_id"), edge);
    check_books(&admin).await;
}

async fn a_server_does_not_become_smaller_than_what_is_reserved_on_it(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let edge = online_with(&admin, "edge", json!({ "total_cpu": 8, "total_gpu": 2 })).await;
    let more = json!({ "required_memory": 4, "required_storage": 50, "required_gpu": 1 });
    let id = task("t").cpu(2.5).with(more).scheduled(&admin).await;
    let path = format!("/servers/{edge}");
    let less = json!({ "total_cpu": 2.499, "total_memory": 3, "total_storage": 49.5, "total_gpu": 0 });
    let refused = admin.patch(&path, less.clone()).await.expect(400);
    let fields: Vec<_> = refused.at("/errors").as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["total_cpu", "total_memory", "total_storage", "total_gpu"]);
    admin
        .patch(&path, json!({ "total_cpu": 2.5, "total_memory": 4, "total_storage": 50, "total_gpu": 1 }))
        .await
        .expect(200);
    assert_eq!(cores(&admin, edge).await, (json!(2.5), json!(0.0)));
    act(&admin, id, "cancel").await.expect(200);
    admin
        .patch(&path, json!({ "total_cpu": 0.5, "total_memory": 3, "total_storage": 0, "total_gpu": 0 }))
        .await
        .expect(200);
    check_books(&admin).await;
}

async fn a_pool_that_unfinished_tasks_ask_for_is_not_removed(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", None).await;
    let path = format!("/pools/{pool}");
    let ids = [task("a").pool(pool).post(&admin).await, task("b").pool(pool).post(&admin).await];
    let refused = admin.delete(&path).await.expect(409);
    assert_eq!(refused.code(), "pool_in_use");
    assert!(refused.at("/detail").as_str().unwrap().contains("2 unfinished task(s)"), "{}", refused.text);
    act(&admin, ids[0], "cancel").await.expect(200);
    assert_eq!(admin.delete(&path).await.expect(409).code(), "pool_in_use");
    act(&admin, ids[1], "cancel").await.expect(200);
    admin.delete(&path).await.expect(204);
    assert_eq!(shown(&admin, ids[0]).await.at("/pool_id"), pool, "a task outlives its pool");
    assert_eq!(admin.post("/tasks", task("c").pool(pool).0).await.expect(400).at("/errors/0/field"), "pool_id");
}

async fn a_quota_below_what_is_held_stops_new_work_alone(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", Some(4.0)).await;
    let edge = online_with(&admin, "edge", json!({ "total_cpu": 8, "pool_id": pool })).await;
    let first = task("first").cpu(3.0).scheduled(&admin).await;
    admin.patch(&format!("/pools/{pool}"), json!({ "quotas": { "cpu": 1 } })).await.expect(200);
    act(&admin, first, "start").await.expect(200);
    assert_eq!((pool_cores(&admin, pool).await, cores(&admin, edge).await.1), (json!(3.0), json!(5.0)));
    let second = task("second").cpu(0.5).post(&admin).await;
    assert_eq!(refusals(&admin, second).await, ["quota_cpu"]);
    act(&admin, first, "complete").await.expect(200);
    becomes(&admin, second, "scheduled").await;
    check_books(&admin).await;
}

async fn labels_and_pools_say_where_a_task_may_go(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", None).await;
    online_with(&admin, "plain", json!({ "total_cpu": 64 })).await;
    let tagged = online_with(&admin, "tagged", json!({ "tags": { "zone": "a", "disk": "ssd" } })).await;
    let pooled = online_with(&admin, "pooled", json!({ "pool_id": pool, "tags": { "zone": "a" } })).await;
    for (more, server) in [
        (json!({ "labels": { "disk": "ssd", "zone": "a" } }), tagged),
        (json!({ "pool_id": pool }), pooled),
        (json!({ "pool_id": pool, "labels": { "zone": "a" } }), pooled),
    ] {
        let id = task("t").with(more.clone()).scheduled(&admin).await;
        assert_eq!(shown(&admin, id).await.at("/server_id"), server, "{more}");
    }
    let nowhere = task("t").with(json!({ "pool_id": pool, "labels": { "disk": "ssd" } })).post(&admin).await;
    assert_eq!(refusals(&admin, nowhere).await, ["pool_mismatch", "labels_mismatch"]);
}
