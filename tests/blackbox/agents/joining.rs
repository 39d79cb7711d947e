//! How a machine becomes a server of the fleet, and how it does not.

use super::support::{
    Site, becomes, check_at_rest, check_nothing_runs, ended, enrollment, join_token, server_becomes, server_named,
    shell,
};
use crate::{
    on_both,
    support::{bearer, check_problem, walk},
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt};
use tests::{Agent, Backend, Client, eventually, run};

on_both!(a_machine_joins_and_stays, two_machines_race_for_one_token);

/// Everything that is told to people: rows, lists, errors and logs.
async fn told(site: &Site, agent: &Agent) -> String {
    let admin = site.admin();
    let mut told = site.server.log() + &agent.log();
    for path in ["/audit/logs", "/servers", "/enrollments", "/operations", "/auth/tokens", "/enrollments/1"] {
        told += &admin.get(&format!("{path}?limit=100")).await.text;
    }
    told + &format!("{:?}", site.server.sql().dump())
}

async fn a_machine_joins_and_stays(backend: Backend) {
    let site = Site::with(backend, &["--log-level", "trace"]);
    let admin = site.admin();
    let pool = admin.post("/pools", json!({ "name": "racks" })).await.expect(201).id();
    let made = enrollment(&admin, json!({ "pool_id": pool, "tags": { "rack": "4" } })).await;
    assert_eq!(made.header("location"), Some("/enrollments/1"));
    let token = made.at("/token").as_str().unwrap().to_owned();
    let command = format!("STARLINK_JOIN_TOKEN={token} starlink-agent join --server {}", site.server.base);
    assert_eq!(made.at("/command"), command);

    let mut options = site.options("edge-1");
    options.arguments.extend(["--log-level", "trace"].map(str::to_owned));
    let mut agent = Agent::join(options, &token);
    let id = site.connected(&agent).await;
    let row = admin.get(&format!("/servers/{id}")).await.expect(200);
    assert_eq!((row.at("/pool_id"), row.at("/tags")), (json!(pool), json!({ "rack": "4" })));
    assert_eq!(row.at("/drivers"), json!(["exec"]));
    let file = agent.state_dir().join("token");
    let secret = fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(agent.state_dir()).unwrap().permissions().mode() & 0o022, 0);
    let listed = admin.get("/enrollments").await.expect(200);
    assert_eq!((listed.at("/0/uses"), listed.at("/0/max_uses")), (json!(1), json!(1)));
    let joined = walk(&admin, "/audit/logs?action=agent.enroll").await;
    assert_eq!(
        (&joined[0]["actor"], &joined[0]["target"]),
        (&json!("system:enrollment"), &json!(format!("server:{id}")))
    );
    assert_eq!(joined[0]["on_behalf_of"], made.at("/created_by"), "{}", joined[0]);

    // From then on it needs no token to join.
    assert_eq!(agent.terminate(), Some(0));
    agent.restart();
    let task = shell(&admin, "exit 0", json!({})).await;
    assert_eq!(ended(&admin, task).await.at("/status"), "completed");
    let told = told(&site, &agent).await;
    for secret in [&token, &secret] {
        assert!(secret.len() > 30 && !told.contains(secret.as_str()), "a token was told");
    }
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

#[tokio::test]
async fn only_an_admin_makes_join_tokens() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    enrollment(&admin, json!({})).await;
    for role in ["viewer", "operator", "approver"] {
        let other = bearer(&admin, role, role, None).await;
        check_problem(&other.post("/enrollments", json!({ "name": "x" })).await, 403, role);
        check_problem(&other.delete("/enrollments/1").await, 403, role);
    }
    check_problem(&admin.anonymous().post("/enrollments", json!({ "name": "x" })).await, 401, "nobody");
    for (body, field) in [
        (json!({ "name": "x", "max_uses": 0 }), "max_uses"),
        (json!({ "name": "x", "expires_at": "2020-01-01T00:00:00Z" }), "expires_at"),
        (json!({ "name": "x", "pool_id": 77 }), "pool_id"),
    ] {
        let refused = admin.post("/enrollments", body).await;
        check_problem(&refused, 400, field);
        assert_eq!(refused.at("/errors/0/field"), field);
    }
}

/// An agent that is not let in says why, and does not try again.
fn check_refused(site: &Site, name: &str, token: &str, words: &str) {
    let mut agent = Agent::join(site.options(name), token);
    let code = tokio::task::block_in_place(|| agent.exit_code());
    let log = agent.log();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains(words), "{words:?} is not in {log}");
    assert!(token.is_empty() || !log.contains(token), "the token was told: {log}");
    assert!(!agent.state_dir().join("token").exists());
}

/// The enrollment's row says that it is over: nobody waits a day for that.
fn expire(site: &mut Site, id: i64) {
    site.server.kill();
    site.server.sql().run(&format!("UPDATE enrollments SET expires_at_us = 1000000 WHERE id = {id}"));
    site.restart();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_good_opens_nothing() {
    let mut site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let (used, gone, old) = (
        join_token(&admin, json!({ "name": "the used one" })).await,
        join_token(&admin, json!({ "name": "the gone one" })).await,
        join_token(&admin, json!({ "name": "the old one" })).await,
    );
    admin.delete("/enrollments/2").await.expect(204);
    let agent = Agent::join(site.options("first"), &used);
    site.connected(&agent).await;
    drop(agent);
    expire(&mut site, 3);
    let made_up = "slj_0000000000000000000000000000000000000000000";
    check_refused(&site, "second", &used, "\"the used one\" was good for 1 servers, and as many have joined");
    check_refused(&site, "third", &gone, "the join token is not known");
    check_refused(&site, "fourth", &old, "\"the old one\" expired at 1970-01-01");
    check_refused(&site, "fifth", made_up, "the join token is not known");
    check_refused(&site, "sixth", "", "this machine has not joined a fleet");
    let names: Vec<Value> = walk(&site.admin(), "/servers").await.iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["first"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_one_machines() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let token = join_token(&admin, json!({ "max_uses": 3 })).await;
    let first = Agent::join(site.options("edge"), &token);
    let id = site.connected(&first).await;
    check_refused(&site, "edge", &token, "there is a server named \"edge\" already, and it has an agent");
    let uses = admin.get("/enrollments/1").await.expect(200).at("/uses");
    assert_eq!(uses, 1, "who was not let in has not used the token");
    // The machine set up anew: its old server is deleted first.
    drop(first);
    admin.delete(&format!("/servers/{id}")).await.expect(204);
    let second = Agent::join(site.options("edge"), &token);
    assert_ne!(site.connected(&second).await, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_of_a_deleted_server_is_turned_away() {
    let site = Site::start(Backend::Sqlite);
    let admin = site.admin();
    let mut agent = site.agent("edge").await;
    let secret = fs::read_to_string(agent.state_dir().join("token")).unwrap();
    let id = server_named(&admin, "edge").await.unwrap()["id"].as_i64().unwrap();
    let task = shell(&admin, "sleep 1000", json!({ "grace_seconds": 0 })).await;
    becomes(&admin, task, "running").await;
    let refused = admin.delete(&format!("/servers/{id}")).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    admin.post_empty(&format!("/tasks/{task}/cancel")).await.expect(202);
    becomes(&admin, task, "cancelled").await;
    admin.delete(&format!("/servers/{id}")).await.expect(204);
    let by_hand = admin.with_token(secret.trim()).get("/agent/operations?session=x").await;
    check_problem(&by_hand, 401, "the token of a server that is gone");
    assert_eq!(tokio::task::block_in_place(|| agent.exit_code()), Some(2));
    let log = agent.log();
    assert!(log.contains("does not accept this agent's token") && log.contains("starlink-agent join"), "{log}");
    check_nothing_runs(agent.leftovers()).await;
}

async fn two_machines_race_for_one_token(backend: Backend) {
    let site = Site::start(backend);
    let admin = site.admin();
    let token = join_token(&admin, json!({})).await;
    let mut agents: Vec<Agent> = (0..4).map(|n| Agent::join(site.options(&format!("racer-{n}")), &token)).collect();
    eventually("all but one to be refused", async || {
        let running = agents.iter_mut().filter_map(|agent| agent.is_running().then_some(())).count();
        (running == 1).then_some(())
    })
    .await;
    let rows = walk(&admin, "/servers").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    server_becomes(&admin, rows[0]["id"].as_i64().unwrap(), "online").await;
    for agent in agents.iter_mut().filter_map(|agent| (!agent.is_running()).then_some(agent)) {
        assert_eq!(agent.exit_code(), Some(2));
        assert!(agent.log().contains("as many have joined"), "{}", agent.log());
    }
    assert_eq!(admin.get("/enrollments/1").await.expect(200).at("/uses"), 1);
}

#[tokio::test]
async fn plain_http_with_another_machine_has_to_be_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().to_str().unwrap();
    for server in ["http://192.0.2.1:1", "http://starlink.example.org"] {
        let arguments = ["join", "--state-dir", state, "--server", server, "--token", "slj_x"];
        let refused = run(crate::AGENT, &arguments).await.expect(2);
        assert!(refused.err.contains("--insecure-http"), "{}", refused.err);
    }
    let nowhere = run(crate::AGENT, &["run", "--state-dir", state]).await.expect(2);
    assert!(nowhere.err.contains("--server"), "{}", nowhere.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_is_one_agents() {
    let site = Site::start(Backend::Sqlite);
    let agent = site.agent("edge").await;
    let mut second = Agent::run_on(site.options("edge"), &agent.state_dir());
    assert_eq!(tokio::task::block_in_place(|| second.exit_code()), Some(1));
    assert!(second.log().contains(&format!("is in use by process {}", agent.pid())), "{}", second.log());
    // A secret that others can read is none.
    let mut exposed = site.agent("other").await;
    exposed.kill();
    fs::set_permissions(exposed.state_dir().join("token"), fs::Permissions::from_mode(0o644)).unwrap();
    exposed.restart();
    assert_eq!(tokio::task::block_in_place(|| exposed.exit_code()), Some(1));
    assert!(exposed.log().contains("chmod 600"), "{}", exposed.log());
    let _: Client = site.admin();
}
