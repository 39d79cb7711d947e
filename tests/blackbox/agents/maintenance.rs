//! Servers with agents in maintenance: what runs goes on, and a server that is let go is what its agent makes it.

use super::support::{Site, Tally, available, becomes, check_at_rest, ended, server_becomes, shell, shown, trail};
use crate::{
    maintenance::{begin, end, status_of},
    on_both,
};
use serde_json::json;
use tests::{Backend, eventually};

on_both!(
    a_server_whose_agent_is_there_is_online_again_and_what_ran_goes_on,
    a_server_whose_agent_went_silent_is_offline_until_that_is_back,
);

const SHORT: [&str; 2] = ["--agent-grace-seconds", "2"];

async fn a_server_whose_agent_is_there_is_online_again_and_what_ran_goes_on(backend: Backend) {
    let mut site = Site::start(backend);
    let admin = site.admin();
    let mut agent = site.agent("edge").await;
    let (tally, free) = (Tally::new(), available(&admin, 1).await);
    let gate = tally.file("gate");
    let script = tally.script("ran", &format!("until [ -e {} ]; do sleep 0.1; done", gate.display()));
    let ran = shell(&admin, &script, json!({})).await;
    becomes(&admin, ran, "running").await;
    let window = begin(&admin, 1).await;
    assert_eq!(status_of(&admin, 1).await, "maintenance");
    let later = shell(&admin, &tally.script("later", "true"), json!({})).await;

    // Neither the agent nor the server ends it by being started again.
    agent.kill();
    agent.restart();
    site.server.kill();
    site.restart();
    let admin = site.admin();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(ended(&admin, ran).await.at("/status"), "completed");
    assert_eq!(status_of(&admin, 1).await, "maintenance");
    assert_eq!(shown(&admin, later).await.at("/status"), "pending");

    end(&admin, window).await;
    assert_eq!(status_of(&admin, 1).await, "online");
    assert_eq!(ended(&admin, later).await.at("/status"), "completed");
    assert_eq!((tally.runs("ran"), tally.runs("later")), (1, 1));
    assert!((available(&admin, 1).await - free).abs() < 1e-9);
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

async fn a_server_whose_agent_went_silent_is_offline_until_that_is_back(backend: Backend) {
    let site = Site::with(backend, &SHORT);
    let admin = site.admin();
    let agent = site.agent("edge").await;
    let tally = Tally::new();
    let gate = tally.file("gate");
    let script = tally.script("ran", &format!("until [ -e {} ]; do sleep 0.1; done", gate.display()));
    let ran = shell(&admin, &script, json!({})).await;
    becomes(&admin, ran, "running").await;
    let windows = [begin(&admin, 1).await, begin(&admin, 1).await];
    site.line.cut();
    let lost = becomes(&admin, ran, "unknown").await;
    assert_eq!(lost.at("/reason"), "contact_lost");
    end(&admin, windows[0]).await;
    assert_eq!(status_of(&admin, 1).await, "maintenance");
    end(&admin, windows[1]).await;
    assert_eq!(status_of(&admin, 1).await, "offline");
    site.line.mend();
    server_becomes(&admin, 1, "online").await;

    // Back in the middle of a window, it changes nothing until that is over.
    let window = begin(&admin, 1).await;
    becomes(&admin, ran, "running").await;
    site.line.cut();
    becomes(&admin, ran, "unknown").await;
    site.line.mend();
    becomes(&admin, ran, "running").await;
    assert_eq!(status_of(&admin, 1).await, "maintenance");
    end(&admin, window).await;
    eventually("the server to be in use", async || (status_of(&admin, 1).await == "online").then_some(())).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(ended(&admin, ran).await.at("/status"), "completed");
    let actions = trail(&admin, "server:1").await;
    let count = |action: &str| actions.iter().filter(|told| *told == action).count();
    assert_eq!((count("server.enter_maintenance"), count("server.leave_maintenance")), (2, 2), "{actions:?}");
    assert_eq!(count("server.lost"), 0, "it was not in use when contact was lost: {actions:?}");
    check_at_rest(&admin, &[agent.leftovers()]).await;
}
