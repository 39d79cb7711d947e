//! Contact is lost and found again: what is not known is not made up, and nothing is run twice.

use super::support::{
    Site, Tally, attempt, available, becomes, check_at_rest, check_books, ended, server_becomes, shell, shown, trail,
};
use crate::{
    on_both,
    support::{check_problem, walk},
};
use serde_json::json;
use std::{path::Path, process::Command};
use tests::{Agent, AgentOptions, Backend, Client, eventually};

on_both!(what_ran_through_a_cut_is_told_truly, what_is_given_up_may_run_elsewhere_and_is_ended_when_its_agent_is_back,);

const SHORT: [&str; 2] = ["--agent-grace-seconds", "2"];

/// Starts a task that ends with this code once its gate is open, and waits until it runs.
async fn waiting(admin: &Client, tally: &Tally, name: &str, code: i64) -> i64 {
    let gate = tally.file(&format!("{name}.gate"));
    let script = tally.script(name, &format!("until [ -e {} ]; do sleep 0.1; done; exit {code}", gate.display()));
    let task = shell(admin, &script, json!({ "name": name, "grace_seconds": 0 })).await;
    becomes(admin, task, "running").await;
    tally.has_run(name).await;
    task
}

fn open_gate(tally: &Tally, name: &str) {
    std::fs::write(tally.file(&format!("{name}.gate")), "").unwrap();
}

/// Waits until nothing runs any more of an attempt of a task.
async fn is_gone(agent: &Agent, task: i64) {
    let mark = format!("-{task}-1");
    eventually("it to end", async || {
        let running = agent.leftovers().running();
        (!running.iter().any(|(_, words)| words.contains(" shim ") && words.trim_end().ends_with(&mark))).then_some(())
    })
    .await;
}

async fn what_ran_through_a_cut_is_told_truly(backend: Backend) {
    let site = Site::with(backend, &SHORT);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let (tally, free) = (Tally::new(), available(&admin, 1).await);
    let short = waiting(&admin, &tally, "short", 4).await;
    let long = waiting(&admin, &tally, "long", 0).await;
    site.line.cut();
    server_becomes(&admin, 1, "offline").await;
    for task in [short, long] {
        let lost = becomes(&admin, task, "unknown").await;
        assert_eq!(lost.at("/reason"), "contact_lost", "{}", lost.text);
    }
    assert!((available(&admin, 1).await - (free - 0.2)).abs() < 1e-9, "their room is kept");
    check_books(&admin).await;
    let refused = admin.get(&format!("/tasks/{long}/logs")).await.expect(503);
    assert!(refused.at("/detail").as_str().unwrap().contains("the agent of server 1 cannot be reached"));
    // Nothing new is placed there.
    let later = shell(&admin, &tally.script("later", "true"), json!({})).await;
    open_gate(&tally, "short");
    is_gone(&agent, short).await;
    assert_eq!(shown(&admin, later).await.at("/status"), "pending");

    site.line.mend();
    server_becomes(&admin, 1, "online").await;
    let end = ended(&admin, short).await;
    assert_eq!(end.at("/status"), "failed", "{}", end.text);
    assert_eq!(attempt(&admin, short).await["exit_code"], 4);
    becomes(&admin, long, "running").await;
    open_gate(&tally, "long");
    assert_eq!(ended(&admin, long).await.at("/status"), "completed");
    assert_eq!(ended(&admin, later).await.at("/status"), "completed");
    for name in ["short", "long", "later"] {
        assert_eq!(tally.runs(name), 1, "{name}");
    }
    assert!(trail(&admin, &format!("task:{long}")).await.contains(&"task.lost".to_owned()));
    let lost = walk(&admin, "/audit/logs?target=server:1&action=server.lost").await;
    assert_eq!((lost.len(), &lost[0]["actor"]), (1, &json!("system:fleet")));
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

/// Nobody hangs up, but nothing comes through: neither side is told anything.
async fn check_silence(site: &Site, agent: &Agent, silence: impl AsyncFnOnce(), end_of_it: impl FnOnce()) {
    let admin = site.admin();
    let tally = Tally::new();
    let ran = waiting(&admin, &tally, "ran", 0).await;
    silence().await;
    server_becomes(&admin, 1, "offline").await;
    becomes(&admin, ran, "unknown").await;
    end_of_it();
    server_becomes(&admin, 1, "online").await;
    becomes(&admin, ran, "running").await;
    open_gate(&tally, "ran");
    assert_eq!(ended(&admin, ran).await.at("/status"), "completed");
    assert_eq!(tally.runs("ran"), 1);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn a_line_that_was_silent_for_too_long_is_used_again() {
    let site = Site::with(Backend::Sqlite, &SHORT);
    let agent = site.agent("edge").await;
    check_silence(&site, &agent, async || site.line.freeze(), || site.line.mend()).await;
}

#[tokio::test]
async fn a_machine_that_was_suspended_goes_on() {
    let site = Site::with(Backend::Sqlite, &SHORT);
    let agent = site.agent("edge").await;
    check_silence(&site, &agent, async || agent.freeze(), || agent.thaw()).await;
}

#[tokio::test]
async fn a_line_that_breaks_now_and_then_loses_nothing() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let tally = Tally::new();
    let mut ids = Vec::new();
    for n in 0..20 {
        let name = format!("t{n}");
        ids.push((shell(&admin, &tally.script(&name, "true"), json!({ "name": name })).await, name));
        site.line.hang_up();
    }
    for (id, name) in &ids {
        let end = ended(&admin, *id).await;
        assert_eq!((end.at("/status"), end.at("/attempt")), (json!("completed"), json!(1)), "{}", end.text);
        assert_eq!(tally.runs(name), 1, "{name}");
        site.line.hang_up();
    }
    // Nobody was missed: it was never away for long.
    assert!(walk(&admin, "/audit/logs?action=server.lost").await.is_empty());
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn what_was_sent_and_not_begun_is_begun_when_the_agent_is_back() {
    let site = Site::with(Backend::Sqlite, &SHORT);
    let admin = site.admin();
    let mut agent = site.agent("edge").await;
    let tally = Tally::new();
    agent.kill();
    let task = shell(&admin, &tally.script("run", "true"), json!({})).await;
    becomes(&admin, task, "scheduled").await;
    becomes(&admin, task, "unknown").await;
    assert_eq!(tally.runs("run"), 0);
    agent.restart();
    assert_eq!(ended(&admin, task).await.at("/status"), "completed");
    assert_eq!(tally.runs("run"), 1);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn a_task_that_is_cancelled_while_it_is_unknown_is_ended_when_the_agent_is_back() {
    let site = Site::with(Backend::Sqlite, &SHORT);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let (tally, free) = (Tally::new(), available(&admin, 1).await);
    let task = waiting(&admin, &tally, "run", 0).await;
    site.line.cut();
    becomes(&admin, task, "unknown").await;
    let asked = admin.post_empty(&format!("/tasks/{task}/cancel")).await.expect(202);
    assert_eq!((asked.at("/status"), asked.at("/reason")), (json!("unknown"), json!("cancelling")));
    assert!((available(&admin, 1).await - (free - 0.1)).abs() < 1e-9, "it may be running");
    site.line.mend();
    becomes(&admin, task, "cancelled").await;
    assert_eq!(tally.runs("run"), 1);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

async fn what_is_given_up_may_run_elsewhere_and_is_ended_when_its_agent_is_back(backend: Backend) {
    let site = Site::with(backend, &SHORT);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let (tally, free) = (Tally::new(), available(&admin, 1).await);
    let task = waiting(&admin, &tally, "run", 0).await;
    let path = format!("/tasks/{task}/cancel?force=true");
    let reached = admin.post_empty(&path).await;
    check_problem(&reached, 409, "its agent is there");
    assert!(reached.at("/detail").as_str().unwrap().contains("without force"), "{}", reached.text);
    site.line.cut();
    becomes(&admin, task, "unknown").await;
    let given_up = admin.post_empty(&path).await.expect(200);
    assert_eq!((given_up.at("/status"), given_up.at("/reason")), (json!("cancelled"), json!("cancelled")));
    assert!((available(&admin, 1).await - free).abs() < 1e-9);
    assert_eq!(attempt(&admin, task).await["reason"], "contact_lost");
    check_problem(&admin.post_empty(&path).await, 409, "it has ended");
    admin.post_empty(&format!("/tasks/{task}/retry")).await.expect(200);
    assert_eq!(shown(&admin, task).await.at("/status"), "pending");
    assert!(!agent.leftovers().running().is_empty(), "nobody could end it");

    site.line.mend();
    is_gone(&agent, task).await;
    becomes(&admin, task, "running").await;
    open_gate(&tally, "run");
    let end = ended(&admin, task).await;
    assert_eq!((end.at("/status"), end.at("/attempt")), (json!("completed"), json!(2)), "{}", end.text);
    assert_eq!(tally.runs("run"), 2);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--archive").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test]
async fn a_copied_state_directory_is_refused_while_the_original_is_alive() {
    let site = Site::with(Backend::Sqlite, &["--agent-grace-seconds", "10"]);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let tally = Tally::new();
    let before = waiting(&admin, &tally, "before", 0).await;
    let elsewhere = tempfile::tempdir().unwrap();
    copy(&agent.state_dir(), &elsewhere.path().join("state"));
    let options = AgentOptions { arguments: Vec::new(), ..site.options("edge") };
    let mut second = Agent::run_on(options, &elsewhere.path().join("state"));
    eventually("the copy to be refused", async || second.log().contains("NOTHING IS BEGUN HERE").then_some(())).await;
    assert!(second.log().contains("one of the two is a copy"), "{}", second.log());
    // The first one goes on, and what it ran as well.
    let after = shell(&admin, &tally.script("after", "true"), json!({})).await;
    assert_eq!(ended(&admin, after).await.at("/status"), "completed");
    assert_eq!(shown(&admin, before).await.at("/status"), "running");
    open_gate(&tally, "before");
    assert_eq!(ended(&admin, before).await.at("/status"), "completed");
    assert!(second.is_running() && second.leftovers().running().is_empty());
    assert_eq!((tally.runs("before"), tally.runs("after")), (1, 1));
    check_at_rest(&admin, &[agent.leftovers(), second.leftovers()]).await;
}
