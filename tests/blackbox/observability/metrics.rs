//! What Prometheus is told of servers.

use super::{measure, new_server, text};
use crate::{PROGRAM, on_both, server, support::bearer};
use chrono::TimeDelta;
use domain::clock::Clock;
use serde_json::json;
use starlink_agent::agent::SystemClock;
use std::{io::Write, process::Stdio};
use tests::{Backend, Server, ServerOptions};

on_both!(the_newest_sample_of_each_server_is_told_to_prometheus);

/// What `promtool check metrics` says about a text: nothing.
fn check_metrics(text: &str) {
    let mut promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && out.is_empty() && err.is_empty(), "{out}{err}\n{text}");
}

/// The values of the lines that begin with this.
fn values<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    let lines = text.lines().filter(|line| line.starts_with(start));
    lines.map(|line| line.rsplit_once(' ').unwrap().1).collect()
}

async fn the_newest_sample_of_each_server_is_told_to_prometheus(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = admin.post("/pools", json!({ "name": "edge \"west\"" })).await.expect(201).id();
    let more = json!({ "pool_id": pool, "cluster": "a\\b", "zone": "Zürich", "status": "online" });
    let full = new_server(&admin, "edge-1", more).await;
    let silent = new_server(&admin, "edge-2", json!({})).await;
    let old = new_server(&admin, "edge-3", json!({ "status": "online" })).await;
    let now = SystemClock.now();
    let at = |seconds| text(now - TimeDelta::seconds(seconds));
    let sample = |seconds, cpu: f64| json!({ "recorded_at": at(seconds), "cpu_usage": cpu, "network_in_mbps": 8 });
    measure(&admin, full, json!([sample(120, 99.0), sample(60, 12.5)])).await.expect(201);
    measure(
        &admin,
        full,
        json!({ "recorded_at": at(30), "cpu_usage": 37.5, "temperature": -5.5, "network_in_mbps": 8 }),
    )
    .await
    .expect(201);
    measure(&admin, old, json!([sample(301, 50.0)])).await.expect(201);
    let told = admin.get("/metrics").await.expect(200).text;
    check_metrics(&told);
    let labels = format!(r#"{{server_id="{full}",server="edge-1",pool="edge \"west\"",cluster="a\\b",zone="Zürich"}}"#);
    for (metric, value) in [
        ("up", "1"),
        ("cpu_usage_ratio", "0.375"),
        ("temperature_celsius", "-5.5"),
        ("network_receive_bytes_per_second", "1000000"),
    ] {
        assert_eq!(values(&told, &format!("starlink_server_{metric}{labels}")), [value], "{told}");
    }
    assert_eq!(values(&told, "starlink_server_up{"), ["1", "0", "1"], "{told}");
    assert_eq!(values(&told, "starlink_server_cpu_usage_ratio{"), ["0.375"], "what is old is not told");
    assert!(!told.contains("starlink_server_memory_usage_ratio"), "nobody measured it");
    // How old it is can be told all the same.
    let measured = values(&told, "starlink_server_sample_timestamp_seconds{");
    let seconds: Vec<i64> = measured.iter().map(|text| text.split('.').next().unwrap().parse().unwrap()).collect();
    let expected = [30, 301].map(|seconds| (now - TimeDelta::seconds(seconds)).timestamp());
    assert_eq!(seconds, expected, "{told}");
    assert!(!told.contains(&format!("sample_timestamp_seconds{{server_id=\"{silent}\"")));
}

#[tokio::test]
async fn whoever_may_not_see_servers_is_told_of_the_product_alone() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({ "status": "online" })).await;
    measure(&admin, id, json!({ "recorded_at": text(SystemClock.now()), "cpu_usage": 12.5 })).await.expect(201);
    for (name, scopes, told) in
        [("all", None, true), ("samples", Some(["observability"]), true), ("fleet", Some(["fleet"]), false)]
    {
        let reader = bearer(&admin, name, "viewer", scopes.as_ref().map(<[&str; 1]>::as_slice)).await;
        let text = reader.get("/metrics").await.expect(200).text;
        check_metrics(&text);
        assert!(text.contains("starlink_http_requests_total{"), "{text}");
        assert_eq!(text.contains("starlink_server_"), told, "{name}: {text}");
    }
    admin.anonymous().get("/metrics").await.expect(401);
}

#[tokio::test]
async fn open_metrics_tell_of_servers_too() {
    let arguments = vec!["--metrics-open".to_owned()];
    let options = ServerOptions { program: PROGRAM.into(), arguments, ..ServerOptions::default() };
    let server = Server::start_with(options);
    let admin = server.admin();
    new_server(&admin, "edge-1", json!({})).await;
    let text = admin.anonymous().get("/metrics").await.expect(200).text;
    assert_eq!(values(&text, "starlink_server_up{"), ["0"]);
}
