//! Servers and tasks with names for what matters and defaults for the rest, and patience.

use crate::{PROGRAM, server, support::server_with};
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, Server, ServerOptions, eventually, fresh_postgres, shared_postgres};

/// A body that posts a task: one core, nothing else, run by its user.
pub(super) fn task(name: &str) -> TaskDraft {
    TaskDraft(json!({ "name": name, "required_cpu": 1 }))
}

/// A task to be posted.
#[derive(Clone)]
pub(super) struct TaskDraft(pub(super) Value);

impl TaskDraft {
    /// That needs this many cores.
    pub(super) fn cpu(self, cores: f64) -> Self {
        self.with(json!({ "required_cpu": cores }))
    }

    /// That must run in this pool.
    pub(super) fn pool(self, pool: i64) -> Self {
        self.with(json!({ "pool_id": pool }))
    }

    /// That is placed at most so often.
    pub(super) fn attempts(self, most: i64) -> Self {
        self.with(json!({ "max_attempts": most }))
    }

    /// With other members as well.
    pub(super) fn with(mut self, more: Value) -> Self {
        let (Some(members), Value::Object(more)) = (self.0.as_object_mut(), more) else { unreachable!("objects") };
        members.extend(more);
        self
    }

    /// Posts it, and leaves it to the scheduler.
    pub(super) async fn post(self, client: &Client) -> i64 {
        client.post("/tasks", self.0).await.expect(201).id()
    }

    /// Posts it and waits until it has a server.
    pub(super) async fn scheduled(self, client: &Client) -> i64 {
        let id = self.post(client).await;
        becomes(client, id, "scheduled").await;
        id
    }
}

/// An online server with this many cores.
pub(super) async fn online(admin: &Client, name: &str, cores: f64) -> i64 {
    online_with(admin, name, json!({ "total_cpu": cores })).await
}

/// An online server with other members as well.
pub(super) async fn online_with(admin: &Client, name: &str, more: Value) -> i64 {
    let mut body = server_with(name, more);
    body["status"] = json!("online");
    admin.post("/servers", body).await.expect(201).id()
}

/// A pool with a quota of cores.
pub(super) async fn pool(admin: &Client, name: &str, quota: Option<f64>) -> i64 {
    admin.post("/pools", json!({ "name": name, "quotas": { "cpu": quota } })).await.expect(201).id()
}

/// A server on which nobody places tasks but by dispatching them: another process holds the scheduler's lease.
pub(super) fn without_scheduler(backend: Backend) -> Server {
    let mut server = server(backend);
    server.kill();
    server.sql().run(
        "INSERT INTO leases (job, holder, expires_at_us) VALUES ('scheduler', 'another', 9000000000000000) \
         ON CONFLICT (job) DO UPDATE SET holder = excluded.holder, expires_at_us = excluded.expires_at_us",
    );
    server.restart();
    server
}

/// A server with these arguments.
pub(super) fn server_with_arguments(backend: Backend, arguments: &[&str]) -> Server {
    let database_url = (backend == Backend::Postgres).then(|| fresh_postgres(&shared_postgres()));
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments })
}

/// The task as it is now.
pub(super) async fn shown(client: &Client, id: i64) -> Answer {
    client.get(&format!("/tasks/{id}")).await.expect(200)
}

/// Waits until the task is in this status.
pub(super) async fn becomes(client: &Client, id: i64, status: &str) -> Answer {
    eventually(&format!("task {id} to be {status}"), async || {
        let answer = shown(client, id).await;
        (answer.at("/status") == status).then_some(answer)
    })
    .await
}

/// Does something to a task: `start`, `cancel`, `complete?success=false`.
pub(super) async fn act(client: &Client, id: i64, action: &str) -> Answer {
    client.post_empty(&format!("/tasks/{id}/{action}")).await
}

/// Waits until it is known why the task is pending, and tells the codes.
pub(super) async fn refusals(client: &Client, id: i64) -> Vec<String> {
    let what = format!("task {id} to be refused");
    let answer = eventually(&what, async || {
        let answer = shown(client, id).await;
        assert_eq!(answer.at("/status"), "pending", "{}", answer.text);
        answer.at("/pending_reasons").as_array().is_some_and(|reasons| !reasons.is_empty()).then_some(answer)
    });
    codes(&answer.await.at("/pending_reasons"))
}

/// The codes of some reasons.
pub(super) fn codes(reasons: &Value) -> Vec<String> {
    reasons.as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect()
}

/// How many cores are reserved on a server, and how many are available.
pub(super) async fn cores(client: &Client, server: i64) -> (Value, Value) {
    let answer = client.get(&format!("/servers/{server}")).await.expect(200);
    (answer.at("/reserved_cpu"), answer.at("/available_cpu"))
}

/// How many cores the tasks of a pool hold.
pub(super) async fn pool_cores(client: &Client, pool: i64) -> Value {
    client.get(&format!("/pools/{pool}")).await.expect(200).at("/capacity/cpu/reserved")
}

/// What is reserved is what tasks hold, and the audit log is as it was written.
pub(super) async fn check_books(client: &Client) {
    let ledger = client.get("/scheduling/ledger").await.expect(200);
    assert_eq!(ledger.json, json!({ "consistent": true, "discrepancies": [] }));
    let audit = client.get("/audit/verify").await.expect(200);
    assert_eq!(audit.at("/valid"), true, "{}", audit.text);
}
