//! The server's own machine: its agent starts with the server, and is an agent like any other.

use super::support::{
    attempt, available, check_at_rest, check_nothing_runs, ended, server_named, server_with, shell, shown, trail,
};
use crate::{
    on_both,
    support::{total, walk},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::process::Command;
use tests::{Backend, Client, Leftovers, Server, eventually};

on_both!(a_task_runs_on_the_servers_own_machine);

/// A server whose machine runs tasks; what these leave running ends with it.
struct Machine {
    server: Server,
    left: Leftovers,
}

impl Machine {
    async fn start(backend: Backend) -> Self {
        let socket = ["--docker-socket", "/nonexistent/docker.sock"];
        let server = server_with(backend, &[&["--no-local-agent=false", "--allow-exec"][..], &socket].concat());
        let left = Leftovers::of(&server.data_dir().join("agent"));
        let machine = Self { server, left };
        machine.is_online().await;
        machine
    }

    async fn is_online(&self) {
        let admin = self.server.admin();
        eventually("the machine to be online", async || {
            let row = admin.get("/servers/1").await;
            (row.at("/status") == "online").then_some(())
        })
        .await;
    }
}

fn said(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn it_is_server_1_and_says_truly_what_it_is() {
    let machine = Machine::start(Backend::Sqlite).await;
    let admin = machine.server.admin();
    let row = admin.get("/servers/1").await.expect(200);
    let architecture = match said("uname", "-m").as_str() {
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    assert_eq!(row.at("/architecture"), architecture);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    assert_eq!(row.at("/total_cpu").as_f64().map(|cores| cores.to_string()), Some(cores.to_string()));
    assert_eq!(row.at("/name"), said("hostname", "--"));
    assert_eq!(row.at("/kernel"), said("uname", "-r"));
    assert_eq!(row.at("/drivers"), json!(["exec"]), "there is no engine at that socket");
    let memory = row.at("/total_memory").as_f64().unwrap();
    assert!(memory > 0.1 && row.at("/total_storage").as_f64().unwrap() > 0.1, "{}", row.text);
    assert_eq!(total(&admin, "/servers").await, 1);
}

#[tokio::test]
async fn without_it_the_fleet_is_empty() {
    let server = server_with(Backend::Sqlite, &["--no-local-agent"]);
    assert_eq!(total(&server.admin(), "/servers").await, 0);
    assert!(!server.data_dir().join("agent").exists());
}

#[tokio::test]
async fn processes_run_there_only_if_that_is_allowed() {
    let server = server_with(Backend::Sqlite, &["--no-local-agent=false", "--docker-socket", "/nonexistent.sock"]);
    let admin = server.admin();
    eventually("the machine to be there", async || (total(&admin, "/servers").await == 1).then_some(())).await;
    assert_eq!(admin.get("/servers/1").await.expect(200).at("/drivers"), json!([]));
    let task = shell(&admin, "true", json!({})).await;
    let waiting = eventually("a reason to wait", async || {
        let reasons = shown(&admin, task).await.at("/pending_reasons");
        reasons.as_array().is_some_and(|reasons| !reasons.is_empty()).then_some(reasons)
    });
    let waiting = waiting.await;
    assert_eq!(waiting[0]["code"], "driver_missing", "{waiting}");
}

/// The lines of a task's output, as events: where each was written to, and its text.
async fn events(admin: &Client, task: i64) -> Vec<(String, String)> {
    let path = format!("/tasks/{task}/logs");
    let answer =
        Client::send(admin.request(Method::GET, &path).header("accept", "text/event-stream")).await.expect(200);
    let data = answer.text.split("\n\n").filter(|block| block.contains("event: line"));
    let data = data.filter_map(|block| block.lines().find_map(|line| line.strip_prefix("data: ")));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    data.map(|data| serde_json::from_str::<Value>(data).unwrap())
        .map(|line| (text(&line["stream"]), text(&line["text"])))
        .collect()
}

async fn a_task_runs_on_the_servers_own_machine(backend: Backend) {
    let machine = Machine::start(backend).await;
    let admin = machine.server.admin();
    let script = "echo first; echo second >&2; id -un; exit 3";
    let task = shell(&admin, script, json!({ "required_memory": 0.25 })).await;
    let failed = ended(&admin, task).await;
    assert_eq!((failed.at("/status"), failed.at("/reason")), (json!("failed"), json!("exit_code")));
    assert_eq!((failed.at("/server_id"), failed.at("/started_at").is_string()), (json!(1), true));
    let told = attempt(&admin, task).await;
    assert_eq!((&told["exit_code"], &told["signal"], &told["held"]), (&json!(3), &Value::Null, &json!(false)));
    assert_eq!((&told["status"], &told["reason"]), (&json!("failed"), &json!("exit_code")));

    let user = if said("id", "-u") == "0" { "nobody".to_owned() } else { said("id", "-un") };
    let logs = admin.get(&format!("/tasks/{task}/logs")).await.expect(200);
    assert!(logs.header("content-type").unwrap().starts_with("text/plain"));
    let mut lines: Vec<&str> = logs.text.lines().filter(|line| !line.starts_with("[starlink]")).collect();
    lines.sort_unstable();
    let mut expected = ["first", "second", &user];
    expected.sort_unstable();
    assert_eq!(lines, expected);
    let mut events = events(&admin, task).await;
    events.retain(|(stream, _)| stream != "agent");
    events.sort();
    let pair = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
    let mut expected = vec![pair("stderr", "second"), pair("stdout", "first"), pair("stdout", &user)];
    expected.sort();
    assert_eq!(events, expected);
    let errors = admin.get(&format!("/tasks/{task}/logs?stream=stderr")).await.expect(200);
    assert_eq!(errors.text, "second\n");

    assert_eq!(
        trail(&admin, &format!("task:{task}")).await,
        ["task.create", "task.dispatch", "task.started", "task.ended"]
    );
    let rows = walk(&admin, &format!("/audit/logs?target=task:{task}&action=task.ended")).await;
    assert!(rows[0]["actor"].as_str().unwrap().starts_with("agent:"), "{}", rows[0]);
    let joined = walk(&admin, "/audit/logs?action=agent.enroll").await;
    assert_eq!((joined.len(), &joined[0]["target"]), (1, &json!("server:1")));
    check_at_rest(&admin, &[&machine.left]).await;
}

#[tokio::test]
async fn what_it_runs_survives_the_server() {
    let mut machine = Machine::start(Backend::Sqlite).await;
    let admin = machine.server.admin();
    let free = available(&admin, 1).await;
    let name = server_named(&admin, &said("hostname", "--")).await.unwrap()["name"].clone();
    let task = shell(&admin, "read line < /dev/null; sleep 2; exit 7", json!({})).await;
    eventually("it to run", async || (shown(&admin, task).await.at("/status") == "running").then_some(())).await;
    machine.server.kill();
    machine.server.restart();
    let admin = machine.server.admin();
    let failed = ended(&admin, task).await;
    assert_eq!(failed.at("/status"), "failed", "{}", failed.text);
    assert_eq!(attempt(&admin, task).await["exit_code"], 7);
    let rows = walk(&admin, "/servers").await;
    assert_eq!((rows.len(), &rows[0]["name"]), (1, &name), "it is the same server after a restart");
    assert!((available(&admin, 1).await - free).abs() < 1e-9);
    check_nothing_runs(&machine.left).await;
    check_at_rest(&admin, &[]).await;
}
