//! A disk that is full: nothing is begun twice, nothing is lost without a word, and it goes on once there is room.

use super::support::{Site, Tally, attempt, becomes, check_at_rest, ended, shell};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt};
use tests::{Agent, AgentOptions, Backend, Tmpfs};

/// A small disk with an agent on it; `None` if none can be mounted here.
async fn agent_on_a_small_disk(site: &Site) -> Option<(Agent, Tmpfs)> {
    let disk = Tmpfs::mount(8).ok()?;
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let options = AgentOptions { state_dir: Some(disk.path().join("state")), ..site.options("edge") };
    Some((site.agent_with(options).await, disk))
}

#[tokio::test]
async fn a_full_disk_is_told_and_work_goes_on_once_there_is_room() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let Some((mut agent, disk)) = agent_on_a_small_disk(&site).await else { return };
    let tally = Tally::new();
    let gate = tally.file("gate");
    let script =
        tally.script("before", &format!("until [ -e {} ]; do sleep 0.1; done; echo out; exit 5", gate.display()));
    let before = shell(&admin, &script, json!({})).await;
    becomes(&admin, before, "running").await;
    tally.has_run("before").await;

    let ballast = disk.fill();
    let refused = shell(&admin, &tally.script("refused", "true"), json!({})).await;
    let end = ended(&admin, refused).await;
    assert_eq!((end.at("/status"), end.at("/reason")), (json!("failed"), json!("disk_full")), "{}", end.text);
    assert_eq!(tally.runs("refused"), 0);
    // What ends meanwhile has its outcome kept until it can be written down. The agent may even be killed.
    fs::write(&gate, "").unwrap();
    agent.kill();
    agent.restart();
    fs::remove_file(ballast).unwrap();
    let end = ended(&admin, before).await;
    assert_eq!(end.at("/status"), "failed", "{}", end.text);
    assert_eq!(attempt(&admin, before).await["exit_code"], 5);
    let after = shell(&admin, &tally.script("after", "true"), json!({})).await;
    assert_eq!(ended(&admin, after).await.at("/status"), "completed");
    assert_eq!((tally.runs("before"), tally.runs("after")), (1, 1));
    check_at_rest(&admin, &[agent.leftovers()]).await;
    // The disk goes after the agent.
    drop(agent);
    drop(disk);
}
