//! How tasks end, and that it is told as it was.

use super::support::{
    Site, Tally, attempt, available, becomes, check_at_rest, check_nothing_runs, ended, shell, shown,
};
use crate::{on_both, support::check_problem};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tests::{Answer, Backend, Client, eventually};

on_both!(a_cancelled_task_keeps_its_room_until_it_has_ended, a_task_is_cancelled_while_its_agent_is_away);

async fn cancel(admin: &Client, task: i64) -> Answer {
    admin.post_empty(&format!("/tasks/{task}/cancel")).await.expect(202)
}

/// Runs a task to its end, and compares how it ended.
async fn check_end(
    admin: &Client,
    body: Value,
    status: &str,
    expected: (Option<&str>, Option<i64>, Option<i64>),
) -> Value {
    let mut task = json!({ "name": "t", "driver": "exec", "required_cpu": 0.1 });
    task.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let id = admin.post("/tasks", task).await.expect(201).id();
    let end = ended(admin, id).await;
    assert_eq!(end.at("/status"), status, "{}", end.text);
    let told = attempt(admin, id).await;
    let (reason, code, signal) = expected;
    assert_eq!(
        (&told["reason"], &told["exit_code"], &told["signal"], &told["held"]),
        (&json!(reason), &json!(code), &json!(signal), &json!(false)),
        "{told} {}",
        end.text
    );
    if status == "failed" {
        assert_eq!(end.at("/reason"), json!(reason), "{}", end.text);
    }
    end.json
}

fn script(text: &str) -> Value {
    json!({ "command": ["sh", "-c", text] })
}

#[tokio::test]
async fn an_end_is_told_as_it_was() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    check_end(&admin, json!({ "command": ["true"] }), "completed", (None, Some(0), None)).await;
    check_end(&admin, script("exit 255"), "failed", (Some("exit_code"), Some(255), None)).await;
    check_end(&admin, script("kill -SEGV $$"), "failed", (Some("signal"), None, Some(11))).await;
    check_end(&admin, script("kill -KILL $$"), "failed", (Some("signal"), None, Some(9))).await;
    let missing = json!({ "command": ["/no/such/program"] });
    let end = check_end(&admin, missing, "failed", (Some("start_failed"), None, None)).await;
    assert!(end["detail"].as_str().unwrap().contains("/no/such/program"), "{end}");
    assert_eq!(end["started_at"], Value::Null, "{end}");
    let mount = json!({ "command": ["true"], "mounts": [{ "source": "/etc", "target": "/etc" }] });
    let refused = admin.post("/tasks", json!({ "name": "t", "driver": "exec" })).await;
    check_problem(&refused, 400, "no command");
    let mut body = mount;
    body.as_object_mut().unwrap().extend(json!({ "name": "t", "driver": "exec" }).as_object().unwrap().clone());
    let refused = admin.post("/tasks", body).await;
    assert!([201, 400].contains(&refused.status), "{}", refused.text);
    if refused.status == 201 {
        let end = ended(&admin, refused.id()).await;
        assert_eq!((end.at("/status"), end.at("/reason")), (json!("failed"), json!("unsupported")), "{}", end.text);
    }
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn who_takes_too_long_is_ended() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let began = Instant::now();
    let mut body = script("sleep 1000");
    body["timeout_seconds"] = json!(1);
    let end = check_end(&admin, body, "failed", (Some("timed_out"), None, Some(15))).await;
    assert!(end["detail"].as_str().unwrap().contains("1 second"), "{end}");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let mut stubborn = script("trap '' TERM; while :; do sleep 1000; done");
    stubborn["timeout_seconds"] = json!(1);
    stubborn["grace_seconds"] = json!(1);
    check_end(&admin, stubborn, "failed", (Some("timed_out"), None, Some(9))).await;
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn who_takes_too_much_memory_is_ended() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    eventually("the agent to say what it enforces", async || {
        agent.log().contains("enforced on processes").then_some(())
    })
    .await;
    if agent.log().contains("memory=false") {
        // What cannot be enforced here is told, and tested elsewhere.
        return;
    }
    // `tail` keeps what it reads until a line ends, and there is none in /dev/zero.
    let mut body = script("tail /dev/zero; exit $?");
    body["required_memory"] = json!(0.03125);
    body["required_cpu"] = json!(1);
    let mut task = json!({ "name": "t", "driver": "exec" });
    task.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let id = admin.post("/tasks", task).await.expect(201).id();
    let end = ended(&admin, id).await;
    assert_eq!((end.at("/status"), end.at("/reason")), (json!("failed"), json!("out_of_memory")), "{}", end.text);
    assert!(end.at("/detail").as_str().unwrap().contains("memory"), "{}", end.text);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

/// A program that starts another one in a session of its own, neither of which minds being asked to end.
const TREE: &str = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ > GRANDCHILD; while :; do sleep 1; done' &) & \
                    while :; do sleep 1; done";

async fn a_cancelled_task_keeps_its_room_until_it_has_ended(backend: Backend) {
    let site = Site::start(backend);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let (tally, free) = (Tally::new(), available(&admin, 1).await);
    let tree = TREE.replace("GRANDCHILD", tally.file("grandchild").to_str().unwrap());
    let task = shell(&admin, &tree, json!({ "grace_seconds": 2, "required_cpu": 0.5 })).await;
    tally.has_run("grandchild").await;
    becomes(&admin, task, "running").await;
    let asked = cancel(&admin, task).await;
    let began = Instant::now();
    assert_eq!((asked.at("/status"), asked.at("/reason")), (json!("running"), json!("cancelling")));
    let again = admin.post_empty(&format!("/tasks/{task}/cancel")).await;
    check_problem(&again, 409, "it is being cancelled already");
    // As long as it says so, the room is taken.
    eventually("it to have ended", async || {
        let (now, room) = (shown(&admin, task).await, available(&admin, 1).await);
        let kept = (room - (free - 0.5)).abs() < 1e-9;
        // Room first, then the task: it may have ended in between.
        assert!(kept || shown(&admin, task).await.at("/status") == "cancelled", "{room} of {free}: {}", now.text);
        (now.at("/status") == "cancelled").then_some(())
    })
    .await;
    assert!(began.elapsed() > Duration::from_millis(1500), "it had two seconds to end, and did not want to");
    let told = attempt(&admin, task).await;
    assert_eq!((&told["status"], &told["reason"]), (&json!("cancelled"), &json!("cancelled")), "{told}");
    check_nothing_runs(agent.leftovers()).await;
    let grandchild = std::fs::read_to_string(tally.file("grandchild")).unwrap();
    assert!(!std::path::Path::new("/proc").join(grandchild.trim()).exists(), "what it started has ended with it");
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn who_ends_when_asked_is_cancelled_at_once() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let tally = Tally::new();
    // What it ends with does not matter: it was its user who wanted the end.
    let polite = tally.script("run", "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    let task = shell(&admin, &polite, json!({})).await;
    tally.has_run("run").await;
    becomes(&admin, task, "running").await;
    let began = Instant::now();
    cancel(&admin, task).await;
    becomes(&admin, task, "cancelled").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

async fn a_task_is_cancelled_while_its_agent_is_away(backend: Backend) {
    let site = Site::with(backend, &["--agent-grace-seconds", "60"]);
    let admin = site.admin();
    let mut agent = site.agent("edge").await;
    let (tally, free) = (Tally::new(), available(&admin, 1).await);
    agent.kill();
    let task = shell(&admin, &tally.script("run", "sleep 1000"), json!({ "required_cpu": 0.5 })).await;
    becomes(&admin, task, "scheduled").await;
    let asked = cancel(&admin, task).await;
    assert_eq!((asked.at("/status"), asked.at("/reason")), (json!("scheduled"), json!("cancelling")));
    assert!((available(&admin, 1).await - (free - 0.5)).abs() < 1e-9, "nobody has said that it has not been begun");
    agent.restart();
    becomes(&admin, task, "cancelled").await;
    assert_eq!(tally.runs("run"), 0, "it was never begun");
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn a_failed_attempt_is_followed_by_another_one() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let tally = Tally::new();
    let file = tally.file("run").display().to_string();
    let flaky = tally.script("run", &format!("[ $(wc -l < {file}) -ge 3 ]"));
    let task = shell(&admin, &flaky, json!({ "max_attempts": 5 })).await;
    let end = ended(&admin, task).await;
    assert_eq!((end.at("/status"), end.at("/attempt")), (json!("completed"), json!(3)), "{}", end.text);
    assert_eq!(tally.runs("run"), 3);
    // Each attempt has its own output.
    admin.get(&format!("/tasks/{task}/logs?attempt=1")).await.expect(200);
    admin.get(&format!("/tasks/{task}/logs?attempt=4")).await.expect(404);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}
