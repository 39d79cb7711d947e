//! A server behind a line that can be cut, agents that have joined it, and tasks that say how often they were run.

use super::proxy::Proxy;
use crate::{
    AGENT, PROGRAM,
    support::{column, walk},
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};
use tempfile::TempDir;
use tests::{
    Agent, AgentOptions, Answer, Backend, Client, Leftovers, Server, ServerOptions, eventually, fresh_postgres,
    shared_postgres,
};

/// A server, and the line to it.
pub(super) struct Site {
    pub(super) server: Server,
    pub(super) line: Proxy,
}

impl Site {
    /// On an empty database.
    pub(super) fn start(backend: Backend) -> Self {
        Self::with(backend, &[])
    }

    /// With these arguments.
    pub(super) fn with(backend: Backend, arguments: &[&str]) -> Self {
        let server = server_with(backend, arguments);
        Self { line: Proxy::to(&server.base), server }
    }

    /// Starts the server again after it ended.
    pub(super) fn restart(&mut self) {
        self.server.restart();
        self.line.point(&self.server.base);
    }

    pub(super) fn admin(&self) -> Client {
        self.server.admin()
    }

    /// How an agent is started here that may run processes.
    pub(super) fn options(&self, name: &str) -> AgentOptions {
        AgentOptions {
            program: AGENT.into(),
            server: self.line.base(),
            name: name.to_owned(),
            state_dir: None,
            arguments: vec!["--allow-exec".to_owned()],
        }
    }

    /// An agent that has joined and is there.
    pub(super) async fn agent(&self, name: &str) -> Agent {
        self.agent_with(self.options(name)).await
    }

    /// The same with these options.
    pub(super) async fn agent_with(&self, options: AgentOptions) -> Agent {
        let agent = Agent::join(options, &join_token(&self.admin(), json!({})).await);
        self.connected(&agent).await;
        agent
    }

    /// Waits until an agent that has joined speaks with the server.
    pub(super) async fn connected(&self, agent: &Agent) -> i64 {
        let admin = self.admin();
        let name = agent.name();
        eventually(&format!("{name} to be online"), async || {
            let row = server_named(&admin, name).await?;
            // It is online from the moment it has joined; only then does the agent keep its token, and open a session.
            (row["status"] == "online" && agent.has_had_a_session()).then(|| row["id"].as_i64().unwrap())
        })
        .await
    }
}

/// A server with these arguments, and none of the machine's own agent unless they say so.
pub(super) fn server_with(backend: Backend, arguments: &[&str]) -> Server {
    let database_url = (backend == Backend::Postgres).then(|| fresh_postgres(&shared_postgres()));
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments })
}

/// A new join token: its secret.
pub(crate) async fn join_token(admin: &Client, more: Value) -> String {
    let made = enrollment(admin, more).await;
    made.at("/token").as_str().unwrap().to_owned()
}

/// A new join token.
pub(super) async fn enrollment(admin: &Client, more: Value) -> Answer {
    let mut body = json!({ "name": "machines" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    admin.post("/enrollments", body).await.expect(201)
}

/// The server of this name, if there is one.
pub(crate) async fn server_named(admin: &Client, name: &str) -> Option<Value> {
    walk(admin, "/servers").await.into_iter().find(|row| row["name"] == name)
}

/// Waits until a server is in this status.
pub(crate) async fn server_becomes(admin: &Client, id: i64, status: &str) -> Answer {
    eventually(&format!("server {id} to be {status}"), async || {
        let answer = admin.get(&format!("/servers/{id}")).await.expect(200);
        (answer.at("/status") == status).then_some(answer)
    })
    .await
}

/// How many cores of a server are available.
pub(crate) async fn available(admin: &Client, server: i64) -> f64 {
    admin.get(&format!("/servers/{server}")).await.expect(200).at("/available_cpu").as_f64().unwrap()
}

/// Posts a task that runs this shell script, with other members as well; its id.
pub(crate) async fn shell(client: &Client, script: &str, more: Value) -> i64 {
    let mut body = json!({
        "name": "t", "driver": "exec", "command": ["sh", "-c", script], "required_cpu": 0.1,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.post("/tasks", body).await.expect(201).id()
}

/// What this machine is.
pub(crate) fn native() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

/// The task as it is now.
pub(crate) async fn shown(client: &Client, id: i64) -> Answer {
    client.get(&format!("/tasks/{id}")).await.expect(200)
}

/// Waits until the task is in this status.
pub(crate) async fn becomes(client: &Client, id: i64, status: &str) -> Answer {
    until(client, id, status, |task| task.at("/status") == status).await
}

/// Waits until the task has come to its end, whichever.
pub(crate) async fn ended(client: &Client, id: i64) -> Answer {
    let ends = ["completed", "failed", "cancelled"];
    until(client, id, "ended", |task| ends.iter().any(|end| task.at("/status") == *end)).await
}

async fn until(client: &Client, id: i64, what: &str, there: impl Fn(&Answer) -> bool) -> Answer {
    let mut last = None;
    let what = format!("task {id} to be {what}");
    let waited = eventually(&what, async || {
        let answer = shown(client, id).await;
        last = Some(answer.text.clone());
        there(&answer).then_some(answer)
    });
    let waited = tokio::time::timeout(std::time::Duration::from_secs(25), waited).await;
    waited.unwrap_or_else(|elapsed| panic!("{elapsed}: waited too long for {what}: {}", last.unwrap_or_default()))
}

/// The newest attempt of a task.
pub(crate) async fn attempt(client: &Client, id: i64) -> Value {
    let attempts = walk(client, &format!("/tasks/{id}/attempts")).await;
    attempts.into_iter().max_by_key(|attempt| attempt["number"].as_i64()).unwrap()
}

/// What is written down of a target: the actions of its audit rows, oldest first.
pub(crate) async fn trail(admin: &Client, target: &str) -> Vec<String> {
    let rows = admin.get(&format!("/audit/logs?target={target}&limit=100")).await.expect(200);
    column(&rows, "action").iter().rev().map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// The ledger agrees with the tasks, and the audit log is as it was written.
pub(crate) async fn check_books(client: &Client) {
    let ledger = client.get("/scheduling/ledger").await.expect(200);
    assert_eq!(ledger.json, json!({ "consistent": true, "discrepancies": [] }));
    let audit = client.get("/audit/verify").await.expect(200);
    assert_eq!(audit.at("/valid"), true, "{}", audit.text);
}

/// Everything has ended: the books are right, all room is free, and nothing runs any more.
pub(crate) async fn check_at_rest(client: &Client, leftovers: &[&Leftovers]) {
    check_books(client).await;
    for row in walk(client, "/servers").await {
        for what in ["cpu", "memory", "storage"] {
            assert_eq!(row[format!("available_{what}")], row[format!("total_{what}")], "{row}");
        }
    }
    for left in leftovers {
        check_nothing_runs(left).await;
    }
}

/// Nothing runs any more that an agent has begun; a shim takes a moment to go after it has told the end.
pub(super) async fn check_nothing_runs(left: &Leftovers) {
    eventually("everything to have ended", async || left.running().is_empty().then_some(())).await;
}

/// Counts how often programs were run, whoever they run as.
pub(crate) struct Tally(TempDir);

impl Tally {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self(directory)
    }

    /// Its directory, which anybody may write to.
    pub(crate) fn folder(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// A file there.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A script that counts its runs under this name, and goes on.
    pub(crate) fn script(&self, name: &str, rest: &str) -> String {
        format!("echo run >> {}; {rest}", self.file(name).display())
    }

    /// How often it was run.
    pub(crate) fn runs(&self, name: &str) -> usize {
        fs::read_to_string(self.file(name)).unwrap_or_default().lines().count()
    }

    /// Waits until it has been run.
    pub(crate) async fn has_run(&self, name: &str) {
        eventually(&format!("{name} to run"), async || (self.runs(name) > 0).then_some(())).await;
    }
}
