//! Containers of real engines: shown as the engines have them, whoever made them, and acted on.

use super::support::{Site, container_name};
use crate::agents::support::server_named;
use serde_json::{Value, json};
use std::collections::HashMap;
use test_engine::{
    Engine,
    bollard::{
        models::{ContainerCreateBody, HealthConfig, HostConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum},
        query_parameters::CreateContainerOptions,
    },
    images,
};
use tests::{Answer, Backend, Client, eventually, machines};

/// Long enough for anything that is waited for.
const WAIT: &str = "wait=20";

/// Makes a container that `StarLink` knows nothing of, and starts it; the engine's id.
async fn foreign(engine: &Engine, name: &str, body: ContainerCreateBody) -> String {
    let client = engine.client();
    let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
    let made = client.create_container(Some(options), body).await.unwrap();
    client.start_container(&made.id, None).await.unwrap();
    made.id
}

fn shell(script: &str) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(images::BUSYBOX.to_owned()),
        cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
        ..ContainerCreateBody::default()
    }
}

/// The only container of this name, once it is as it should be.
async fn shown(admin: &Client, name: &str, what: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("{name} to be {what}"), async || {
        let found = admin.get(&format!("/api/containers?keyword={name}")).await.expect(200);
        found.json.as_array().unwrap().iter().find(|row| row["name"] == name && is_right(row)).cloned()
    })
    .await
}

async fn is_gone(admin: &Client, name: &str) {
    eventually(&format!("{name} to be gone"), async || {
        let found = admin.get(&format!("/api/containers?keyword={name}")).await.expect(200);
        found.json.as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

async fn act(admin: &Client, id: &Value, body: Value) -> Answer {
    let path = format!("/api/containers/{id}/actions");
    let request = admin.request(reqwest::Method::POST, &path).header("Prefer", WAIT).json(&body);
    Client::send(request).await
}

/// Has something done, by force; the container as it is afterwards.
async fn done(admin: &Client, id: &Value, op: &str, args: Value) -> Value {
    let answer = act(admin, id, json!({ "op": op, "args": args, "force": true })).await.expect(200);
    assert_eq!(answer.at("/operation/state"), "succeeded", "{}", answer.text);
    answer.at("/container")
}

/// The audit log has just these orders about a container, newest first, each as forced.
async fn check_forced(admin: &Client, id: &Value, verbs: &[&str]) {
    let log = admin.get(&format!("/audit/logs?target=container:{id}&outcome=success")).await.expect(200);
    let rows = log.json.as_array().unwrap();
    let actions: Vec<&str> = rows.iter().map(|row| row["action"].as_str().unwrap()).collect();
    let expected: Vec<String> = verbs.iter().map(|verb| format!("container.{verb}")).collect();
    assert_eq!(actions, expected);
    assert!(rows.iter().all(|row| row["after"]["force"] == true), "{}", log.text);
}

fn everything() -> ContainerCreateBody {
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some("8456".to_owned()) };
    let health = HealthConfig {
        test: Some(vec!["CMD".to_owned(), "true".to_owned()]),
        interval: Some(100_000_000),
        ..HealthConfig::default()
    };
    let labels =
        [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "front"), ("evil", "<b>\u{1b}[31m")];
    ContainerCreateBody {
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        exposed_ports: Some(vec!["123/tcp".to_owned(), "53/udp".to_owned()]),
        healthcheck: Some(health),
        env: Some(vec!["DB_PASSWORD=hunter-55".to_owned()]),
        host_config: Some(HostConfig {
            memory: Some(64 << 20),
            nano_cpus: Some(500_000_000),
            port_bindings: Some(HashMap::from([("123/tcp".to_owned(), Some(vec![binding]))])),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        }),
        ..shell("trap 'exit 7' TERM; while :; do sleep 0.1; done")
    }
}

#[tokio::test]
async fn a_container_that_somebody_else_made_is_shown_as_it_is_and_touched_only_by_force() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(0).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let agent = site.agent(&machine, "a").await;
    let admin = site.admin();
    let server = server_named(&admin, "a").await.unwrap()["id"].clone();
    let engine_id = foreign(machine.engine(), "shop-front", everything()).await;

    let row = shown(&admin, "shop-front", "healthy and counted", |row| {
        row["health"] == "healthy" && row["usage"]["memory_bytes"].as_u64() > Some(0)
    })
    .await;
    let expected = json!({
        "server_id": server, "engine_id": engine_id, "image": images::BUSYBOX, "state": "running", "managed": false,
        "task_id": null, "compose_project": "shop", "compose_service": "front", "cpu_limit": 0.5,
        "memory_limit_bytes": 64 << 20, "restart_policy": "always", "restarts": 0, "exit_code": null, "tty": false,
        "image_digest": null,
    });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&row[member], value, "{member} of {row:#}");
    }
    assert_eq!(row["labels"]["evil"], "<b>\u{fffd}[31m");
    assert_eq!(row["ports"][0]["container_port"], 53, "{row:#}");
    let published = json!({ "container_port": 123, "protocol": "tcp", "host_port": 8456, "host_ip": "127.0.0.1" });
    assert_eq!(row["ports"][1], published, "{row:#}");
    assert!(!row.to_string().contains("hunter-55"), "environments are nobody's business");
    let id = &row["id"];

    let refused = act(&admin, id, json!({ "op": "stop" })).await.expect(409);
    assert_eq!(refused.code(), "container_foreign");
    let by_hand = admin.delete(&format!("/api/containers/{id}?kill=true")).await.expect(409);
    assert_eq!(by_hand.code(), "container_foreign");

    // Another one, because an engine on a busy machine may take half a minute to freeze one whose health check begins.
    let plain = foreign(machine.engine(), "shop-plain", shell("sleep 1000")).await;
    let plain_row = shown(&admin, "shop-plain", "running", |row| row["state"] == "running").await;
    assert_eq!(done(&admin, &plain_row["id"], "pause", json!({})).await["state"], "paused");
    assert_eq!(done(&admin, &plain_row["id"], "unpause", json!({})).await["state"], "running");
    check_forced(&admin, &plain_row["id"], &["unpause", "pause"]).await;
    machine.engine().remove(&plain).await;
    let before = shown(&admin, "shop-front", "running", |row| row["state"] == "running").await["started_at"].clone();
    let after = done(&admin, id, "restart", json!({ "grace_seconds": 5 })).await;
    assert!(after["started_at"].as_str() > before.as_str(), "{after:#}");
    let stopped = done(&admin, id, "stop", json!({ "grace_seconds": 5 })).await;
    assert_eq!(
        (&stopped["state"], &stopped["exit_code"], &stopped["usage"]),
        (&json!("exited"), &json!(7), &Value::Null)
    );
    assert_eq!(act(&admin, id, json!({ "op": "stop", "force": true })).await.expect(409).code(), "illegal_transition");
    assert_eq!(done(&admin, id, "start", json!({})).await["state"], "running");
    assert_eq!(
        act(&admin, id, json!({ "op": "remove", "force": true })).await.expect(409).code(),
        "illegal_transition"
    );
    assert_eq!(done(&admin, id, "remove", json!({ "kill": true })).await, Value::Null);
    admin.get(&format!("/api/containers/{id}")).await.expect(404);

    check_forced(&admin, id, &["remove", "start", "stop", "restart"]).await;
    admin.get("/audit/verify").await.expect(200);
    site.check_at_rest(&[(&machine, &agent)]).await;
}

#[tokio::test]
async fn a_container_of_a_task_is_shown_with_it_and_goes_with_it() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(1).await;
    let site = Site::start(machines, Backend::Postgres, &[]);
    let agent = site.agent(&machine, "b").await;
    let admin = site.admin();
    let task = site.container(&site.waiting("web", "exit 3"), json!({ "required_cpu": 0.5 })).await;
    site.runs(task, "web").await;
    let name = container_name(&agent, task);
    let row = shown(&admin, &name, "running", |row| row["state"] == "running").await;
    assert_eq!((&row["managed"], &row["task_id"], &row["attempt"]), (&json!(true), &json!(task), &json!(1)));
    assert_eq!(row["cpu_limit"], 0.5);
    let of_task = admin.get(&format!("/api/containers?task_id={task}&managed=true&host={}", row["server_id"])).await;
    assert_eq!(of_task.expect(200).json.as_array().unwrap().len(), 1);
    let by_hand = act(&admin, &row["id"], json!({ "op": "remove", "args": { "kill": true }, "force": true })).await;
    assert_eq!(by_hand.expect(409).code(), "container_of_task");

    // What its owner does to it needs no force, and its task tells what came of it.
    let paused = act(&admin, &row["id"], json!({ "op": "pause" })).await.expect(200);
    assert_eq!(paused.at("/container/state"), "paused", "{}", paused.text);
    act(&admin, &row["id"], json!({ "op": "unpause" })).await.expect(200);
    site.open("web");
    let end = crate::agents::support::ended(&admin, task).await;
    assert_eq!(end.at("/status"), "failed", "{}", end.text);
    is_gone(&admin, &name).await;
    site.check_at_rest(&[(&machine, &agent)]).await;
}

#[tokio::test]
async fn what_happened_while_the_agent_was_away_is_seen_when_it_is_back() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(2).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let mut agent = site.agent(&machine, "c").await;
    let admin = site.admin();
    foreign(machine.engine(), "away-goes", shell("sleep 1000")).await;
    let stays = foreign(machine.engine(), "away-ends", shell("sleep 1000")).await;
    shown(&admin, "away-goes", "running", |row| row["state"] == "running").await;
    let before = shown(&admin, "away-ends", "running", |row| row["state"] == "running").await;

    agent.kill();
    machine.engine().remove("away-goes").await;
    machine.engine().client().kill_container(&stays, None).await.unwrap();
    let fresh = foreign(machine.engine(), "away-comes", shell("exit 4")).await;
    // What was told stays, with the time of that, until somebody knows better.
    let old = admin.get(&format!("/api/containers/{}", before["id"])).await.expect(200);
    assert_eq!((old.at("/state"), old.at("/reported_at")), (json!("running"), before["reported_at"].clone()));
    agent.restart();
    let ended = shown(&admin, "away-ends", "ended", |row| row["state"] == "exited").await;
    assert_eq!((&ended["id"], &ended["exit_code"]), (&before["id"], &json!(137)));
    shown(&admin, "away-comes", "ended", |row| row["exit_code"] == 4).await;
    is_gone(&admin, "away-goes").await;
    for id in [stays, fresh] {
        machine.engine().remove(&id).await;
    }
    is_gone(&admin, "away-comes").await;
}

#[tokio::test]
async fn an_order_that_was_cut_short_is_told_as_unknown_and_not_repeated() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(0).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let mut agent = site.agent(&machine, "a").await;
    let admin = site.admin();
    // It does not end when it is asked to, so that the engine is still waiting when the agent is killed.
    let id = foreign(machine.engine(), "stubborn", shell("trap : TERM; while :; do sleep 0.1; done")).await;
    let row = shown(&admin, "stubborn", "running", |row| row["state"] == "running").await;
    let stop = json!({ "op": "stop", "args": { "grace_seconds": 600 }, "force": true });
    let path = format!("/api/containers/{}/actions", row["id"]);
    let operation = admin.post(&path, stop).await.expect(202).at("/operation/id");
    let path = format!("/operations/{operation}");
    eventually("the agent to have begun", async || {
        (admin.get(&path).await.expect(200).at("/state") == "running").then_some(())
    })
    .await;
    agent.kill();
    agent.restart();
    let over = eventually("the operation to be over", async || {
        let shown = admin.get(&path).await.expect(200);
        (shown.at("/finished_at") != Value::Null).then_some(shown)
    })
    .await;
    assert_eq!(over.at("/state"), "unknown", "{}", over.text);
    assert!(over.at("/result/detail").as_str().unwrap().contains("not done again"), "{}", over.text);
    assert_eq!(over.at("/deed/op"), "stop", "{}", over.text);
    machine.engine().remove(&id).await;
    is_gone(&admin, "stubborn").await;
}

#[tokio::test]
async fn a_container_is_started_on_the_server_that_was_named() {
    let Some(machines) = machines() else { return };
    let both = [machines.shared(0).await, machines.shared(1).await];
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let admin = site.admin();
    let agents = [site.agent(&both[0], "a").await, site.agent(&both[1], "b").await];
    let host = server_named(&admin, "b").await.unwrap()["id"].clone();
    let body = |host: &Value| json!({ "host": host, "name": "web", "image": images::BUSYBOX, "command": ["sh", "-c", "exit 6"] });
    let refused = admin.post("/api/containers", body(&json!(99))).await.expect(400);
    assert_eq!(refused.at("/errors/0/field"), "host", "{}", refused.text);
    assert_eq!(refused.at("/errors/1"), Value::Null, "{}", refused.text);
    let nowhere = admin.post("/api/containers", json!({ "name": "web", "image": images::BUSYBOX })).await.expect(400);
    assert_eq!(nowhere.at("/errors/0/field"), "host", "{}", nowhere.text);
    for _ in 0..3 {
        let made = admin.post("/api/containers", body(&host)).await.expect(201);
        assert_eq!(made.at("/required_server_id"), host);
        assert_eq!(made.header("location"), Some(format!("/tasks/{}", made.id()).as_str()));
        crate::agents::support::ended(&admin, made.id()).await;
        let last = crate::agents::support::attempt(&admin, made.id()).await;
        assert_eq!((&last["server_id"], &last["exit_code"]), (&host, &json!(6)), "{last}");
    }
    let short = format!("/servers/{host}/actions/docker?image={}", images::BUSYBOX);
    let made = admin.post_empty(&short).await.expect(201);
    assert_eq!((made.at("/name"), made.at("/kind")), (json!("busybox"), json!("service")));
    let end = crate::agents::support::ended(&admin, made.id()).await;
    assert_eq!((end.at("/status"), end.at("/server_id")), (json!("completed"), host), "{}", end.text);
    site.check_at_rest(&[(&both[0], &agents[0]), (&both[1], &agents[1])]).await;
}
