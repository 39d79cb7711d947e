//! Containers are placed on several machines, and run there.

use super::support::{Site, check_end, container_name, from_image, label};
use crate::{
    agents::support::{attempt, ended, shell, shown},
    support::{total, walk},
};
use futures_util::future::join_all;
use serde_json::json;
use std::collections::BTreeMap;
use tests::{Agent, Backend, Machine, eventually, machines};
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
    let task = shell(&admin, "true", from_image("127.0.0.1:1/nosuch:1")).await;
    let end = ended(&admin, task).await;
    assert_eq!((end.at("/status"), end.at("/reason")), (json!("failed"), json!("image_missing")), "{}", end.text);
    assert!(end.at("/detail").as_str().unwrap().contains("127.0.0.1:1"), "{}", end.text);
    let told = attempt(&admin, task).await;
    assert_eq!((&told["exit_code"], &told["started_at"]), (&json!(null), &json!(null)), "{told}");
    site.check_at_rest(&[(&machine, &agent)]).await;
}
