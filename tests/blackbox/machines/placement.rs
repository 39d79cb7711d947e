//! Containers are placed on several machines, and run there.

use super::support::{Site, check_end, container_name, from_image, from_image_unasked, label};
use crate::{
    agents::support::{attempt, ended, native, shell, shown},
    support::{total, walk},
};
use futures_util::future::join_all;
use serde_json::json;
use std::collections::BTreeMap;
use tests::{Agent, Answer, Backend, Client, Machine, eventually, machines};
use tokio::{io::AsyncReadExt, net::TcpStream};

const NAMES: [&str; 3] = ["a", "b", "c"];
const TASKS: i64 = 12;

/// Each task has a container on the machine that the server names, and each machine has as many as the others.
async fn check_places(site: &Site, fleet: &BTreeMap<i64, (&Machine, &Agent)>, ids: &[i64]) {
    let admin = site.admin();
    let mut placed: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for task in ids {
        let server = shown(&admin, *task).await.at("/server_id").as_i64().unwrap();
        placed.entry(server).or_default().push(container_name(fleet[&server].1, *task));
    }
    for (server, (machine, agent)) in fleet {
        let mut expected = placed.remove(server).unwrap_or_default();
        expected.sort();
        assert_eq!(expected.len(), ids.len() / fleet.len(), "{}: {expected:?}", agent.name());
        assert_eq!(machine.engine().running(&label(agent)).await, expected, "{}", agent.name());
    }
}

#[tokio::test]
async fn twelve_containers_are_spread_over_three_machines_and_run_where_they_were_placed() {
    let Some(machines) = machines() else { return };
    let all = machines.all_shared().await;
    let site = Site::start(machines, Backend::Postgres, &[]);
    let admin = site.admin();
    let agents = join_all(all.iter().zip(NAMES).map(|(machine, name)| site.agent(machine, name))).await;
    let rows = walk(&admin, "/servers").await;
    let id = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap()["id"].as_i64().unwrap();
    let fleet: BTreeMap<i64, (&Machine, &Agent)> =
        all.iter().zip(&agents).map(|(machine, agent)| (id(agent.name()), (&**machine, agent))).collect();
    assert!(rows.iter().all(|row| row["drivers"] == json!(["docker", "exec"])), "{rows:?}");

    // Together they take all cores that there are, so that none has another place to go to.
    let share = rows[0]["total_cpu"].as_f64().unwrap() * 3.0 / 12.0;
    let mut ids = Vec::new();
    for n in 0..TASKS {
        let script = site.waiting(&format!("t{n}"), &format!("echo out {n}; echo err {n} >&2; exit {n}"));
        ids.push(site.container(&script, json!({ "name": format!("t{n}"), "required_cpu": share })).await);
    }
    eventually("all to run", async || (total(&admin, "/tasks?status=running").await == TASKS).then_some(())).await;
    check_places(&site, &fleet, &ids).await;
    for n in 0..TASKS {
        site.open(&format!("t{n}"));
    }
    for (n, task) in (0..TASKS).zip(&ids) {
        check_end(&site, *task, &format!("t{n}"), n).await;
        let logs = admin.get(&format!("/tasks/{task}/logs")).await.expect(200);
        let mut lines: Vec<&str> = logs.text.lines().filter(|line| !line.starts_with("[starlink]")).collect();
        lines.sort_unstable();
        assert_eq!(lines, [format!("err {n}"), format!("out {n}")]);
    }
    site.check_at_rest(&fleet.into_values().collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_port_of_a_container_is_reachable_from_another_machine() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(1).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let agent = site.agent(&machine, "b").await;
    let ports = json!([{ "container_port": 80, "host_port": 8080 }]);
    let script = site.tally.script("run", "echo hello | nc -l -p 80; exit 0");
    let task = site.container(&script, json!({ "ports": ports })).await;
    site.runs(task, "run").await;
    let address = (machine.address(), 8080);
    let heard = eventually("an answer", async || {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.ok()?;
        (!heard.is_empty()).then_some(heard)
    })
    .await;
    assert_eq!(heard, "hello\n");
    check_end(&site, task, "run", 0).await;
    site.check_at_rest(&[(&machine, &agent)]).await;
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_told_as_missing() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(0).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let admin = site.admin();
    let agent = site.agent(&machine, "a").await;
    // Nothing listens on the first port.
    let task = shell(&admin, "true", from_image_unasked("127.0.0.1:1/nosuch:1")).await;
    let end = ended(&admin, task).await;
    assert_eq!((end.at("/status"), end.at("/reason")), (json!("failed"), json!("image_missing")), "{}", end.text);
    assert!(end.at("/detail").as_str().unwrap().contains("127.0.0.1:1"), "{}", end.text);
    let told = attempt(&admin, task).await;
    assert_eq!((&told["exit_code"], &told["started_at"]), (&json!(null), &json!(null)), "{told}");
    site.check_at_rest(&[(&machine, &agent)]).await;
}

/// Waits until a task is tried no more after this attempt, because of what it turned out to be for.
async fn is_barred(admin: &Client, task: i64, attempt: i64) -> Answer {
    eventually("an architecture to be barred", async || {
        let answer = shown(admin, task).await;
        let waits = answer.at("/attempt") == attempt && answer.at("/pending_reasons/0/code") == "architecture_barred";
        waits.then_some(answer)
    })
    .await
}

#[tokio::test]
async fn fc_07_a_program_for_another_architecture_in_an_image_that_lies_is_tried_once_on_each_architecture() {
    let Some(machines) = machines() else { return };
    let both = [machines.shared(0).await, machines.shared(1).await];
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let admin = site.admin();
    let agents = [site.agent(&both[0], "a").await, site.agent(&both[1], "b").await];
    let mut body = from_image(test_engine::images::LYING);
    let native = native();
    let more = json!({ "name": "liar", "required_cpu": 0.1, "max_attempts": 3 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let task = admin.post("/tasks", body).await.expect(201).id();

    let waiting = is_barred(&admin, task, 1).await;
    assert_eq!((waiting.at("/status"), waiting.at("/reason")), (json!("pending"), json!("exec_format")));
    assert_eq!(waiting.at("/barred_architectures"), json!([native]));
    assert_eq!(waiting.at("/pending_reasons/0/servers"), 2, "the other machine is no better: {}", waiting.text);
    let told = waiting.at("/pending_reasons/0/detail");
    assert_eq!(told, format!("is {native}, on which an attempt ended with an exec format error"));
    let refused = admin.post_empty(&format!("/tasks/{task}/dispatch")).await.expect(409);
    assert!(refused.code() == "no_capacity" && refused.text.contains("architecture_barred"), "{}", refused.text);

    // Whoever has mended a machine says so by a retry.
    let cancelled = admin.post_empty(&format!("/tasks/{task}/cancel")).await.expect(200);
    assert_eq!((cancelled.at("/status"), cancelled.at("/barred_architectures")), (json!("cancelled"), json!([native])));
    let retried = admin.post_empty(&format!("/tasks/{task}/retry")).await.expect(200);
    assert_eq!((retried.at("/status"), retried.at("/barred_architectures")), (json!("pending"), json!([])));
    is_barred(&admin, task, 2).await;
    let attempts = walk(&admin, &format!("/tasks/{task}/attempts")).await;
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    for attempt in attempts {
        assert_eq!((&attempt["status"], &attempt["reason"]), (&json!("failed"), &json!("exec_format")), "{attempt}");
    }
    admin.post_empty(&format!("/tasks/{task}/cancel")).await.expect(200);
    site.check_at_rest(&[(&both[0], &agents[0]), (&both[1], &agents[1])]).await;
}
