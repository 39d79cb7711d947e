//! Whatever is killed, and whenever: what runs goes on, is run once, and its end is told.

use super::support::{Site, Tally, attempt, becomes, check_at_rest, ended, shell, shown};
use crate::{on_both, support::total};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tests::{Agent, Backend, Client, eventually};

on_both!(an_agent_is_killed_while_tasks_run, the_server_is_killed_while_fifty_tasks_run, both_are_killed_at_once);

/// A script that goes on until a file is there.
fn until(tally: &Tally, name: &str, rest: &str) -> String {
    let gate = tally.file("gate");
    tally.script(name, &format!("until [ -e {} ]; do sleep 0.1; done; {rest}", gate.display()))
}

fn open_gate(tally: &Tally) {
    std::fs::write(tally.file("gate"), "").unwrap();
}

/// Posts tasks that wait for the gate and then end with their number, and waits until each of them runs.
async fn many(admin: &Client, tally: &Tally, count: usize, cpu: f64) -> Vec<i64> {
    let posts = (0..count).map(|n| async move {
        let script = until(tally, &format!("t{n}"), &format!("exit {n}"));
        shell(admin, &script, json!({ "name": format!("t{n}"), "required_cpu": cpu })).await
    });
    // In the order of their numbers, whoever is answered first.
    let ids: Vec<i64> = stream::iter(posts).buffered(8).collect().await;
    let expected = i64::try_from(count).unwrap();
    eventually("all to run", async || (total(admin, "/tasks?status=running").await == expected).then_some(())).await;
    ids
}

/// Each has ended with its own number, and was run once.
async fn check_ends(admin: &Client, tally: &Tally, ids: &[i64]) {
    for (n, id) in ids.iter().enumerate() {
        let end = ended(admin, *id).await;
        let status = if n == 0 { "completed" } else { "failed" };
        assert_eq!((end.at("/status"), end.at("/attempt")), (json!(status), json!(1)), "{}", end.text);
        assert_eq!(attempt(admin, *id).await["exit_code"], n, "{}", end.text);
        assert_eq!(tally.runs(&format!("t{n}")), 1, "{}", end.text);
    }
}

async fn an_agent_is_killed_while_tasks_run(backend: Backend) {
    let site = Site::start(backend);
    let admin = site.admin();
    let mut agent = site.agent("edge").await;
    let tally = Tally::new();
    let ids = many(&admin, &tally, 6, 0.1).await;
    let lasting = shell(&admin, &tally.script("lasting", "sleep 1000"), json!({ "grace_seconds": 0 })).await;
    becomes(&admin, lasting, "running").await;
    tally.has_run("lasting").await;
    agent.kill();
    open_gate(&tally);
    // They end while nobody looks: what is left is the shim of the one that goes on, and what that runs.
    eventually("them to end", async || {
        let others = agent.leftovers().running();
        let mark = format!("-{lasting}-1");
        others
            .iter()
            .filter(|(_, words)| words.contains(" shim "))
            .all(|(_, words)| words.contains(&mark))
            .then_some(())
    })
    .await;
    agent.restart();
    check_ends(&admin, &tally, &ids).await;
    assert_eq!(shown(&admin, lasting).await.at("/status"), "running");
    admin.post_empty(&format!("/tasks/{lasting}/cancel")).await.expect(202);
    becomes(&admin, lasting, "cancelled").await;
    assert_eq!(tally.runs("lasting"), 1);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

async fn the_server_is_killed_while_fifty_tasks_run(backend: Backend) {
    let mut site = Site::start(backend);
    let agent = site.agent("edge").await;
    let tally = Tally::new();
    let ids = many(&site.admin(), &tally, 50, 0.03).await;
    // Some of them end just before, just then, and just after.
    open_gate(&tally);
    site.server.kill();
    site.restart();
    let admin = site.admin();
    check_ends(&admin, &tally, &ids).await;
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

/// Kills both, and starts them again in this order.
async fn kill_both(site: &mut Site, agent: &mut Agent, agent_first: bool) {
    site.server.kill();
    agent.kill();
    if agent_first {
        agent.restart();
        eventually("the agent to miss the server", async || {
            agent.log().contains("no contact with the server").then_some(())
        })
        .await;
        site.restart();
    } else {
        site.restart();
        agent.restart();
    }
}

async fn both_are_killed_at_once(backend: Backend) {
    let mut site = Site::start(backend);
    let mut agent = site.agent("edge").await;
    for agent_first in [true, false] {
        let tally = Tally::new();
        let ids = many(&site.admin(), &tally, 5, 0.1).await;
        kill_both(&mut site, &mut agent, agent_first).await;
        open_gate(&tally);
        let admin = site.admin();
        check_ends(&admin, &tally, &ids).await;
        check_at_rest(&admin, &[agent.leftovers()]).await;
    }
}

#[tokio::test]
async fn an_agent_that_is_asked_to_stop_leaves_what_runs_alone() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let mut agent = site.agent("edge").await;
    let tally = Tally::new();
    let ids = many(&admin, &tally, 2, 0.1).await;
    assert_eq!(agent.terminate(), Some(0), "{}", agent.log());
    assert_eq!(agent.leftovers().running().iter().filter(|(_, words)| words.contains(" shim ")).count(), 2);
    open_gate(&tally);
    agent.restart();
    check_ends(&admin, &tally, &ids).await;
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn a_shim_that_was_killed_is_told_as_unknown_and_not_run_again() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let tally = Tally::new();
    let task = shell(&admin, &tally.script("run", "sleep 1000"), json!({})).await;
    tally.has_run("run").await;
    becomes(&admin, task, "running").await;
    agent.leftovers().end();
    let end = ended(&admin, task).await;
    assert_eq!((end.at("/status"), end.at("/reason")), (json!("failed"), json!("agent_lost")), "{}", end.text);
    assert!(end.at("/detail").is_string(), "{}", end.text);
    assert_eq!(tally.runs("run"), 1);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}
