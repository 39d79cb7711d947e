//! Remote-write: requests as Prometheus makes them, and as nobody should.

use super::{minutes_ago, new_server, only};
use crate::{
    PROGRAM, on_both, server,
    support::{bearer, check_problem, total, walk},
};
use chrono::{DateTime, TimeDelta, Utc};
use domain::clock::Clock;
use prost::Message;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use starlink_agent::agent::SystemClock;
use tests::{Answer, Backend, Client, Cluster, Server, ServerOptions, eventually, fresh_postgres};

on_both!(
    fc_18_a_sample_of_the_future_says_nothing_against_the_others,
    series_of_one_time_are_one_sample_whatever_request_they_come_in,
    counters_become_rates,
    what_is_not_known_is_told_and_no_error,
);

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<Series>,
}

#[derive(Clone, PartialEq, Message)]
struct Series {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// A series of `edge-1`, with more labels as they are.
fn series(name: &str, more: &[(&str, &str)], samples: &[(DateTime<Utc>, f64)]) -> Series {
    let labels =
        [("__name__", name), ("instance", "edge-1:9100"), ("job", "node")].into_iter().chain(more.iter().copied());
    let label = |(name, value): (&str, &str)| Label { name: name.to_owned(), value: value.to_owned() };
    let sample = |(at, value): &(DateTime<Utc>, f64)| Sample { value: *value, timestamp: at.timestamp_millis() };
    Series { labels: labels.map(label).collect(), samples: samples.iter().map(sample).collect() }
}

fn packed(series: Vec<Series>) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(&WriteRequest { series }.encode_to_vec()).unwrap()
}

fn request(client: &Client, body: Vec<u8>) -> RequestBuilder {
    let request = client.request(Method::POST, "/api/v1/write").header("content-type", "application/x-protobuf");
    let request = request.header("content-encoding", "snappy").header("x-prometheus-remote-write-version", "0.1.0");
    request.body(body)
}

async fn write(client: &Client, series: Vec<Series>) -> Answer {
    Client::send(request(client, packed(series))).await
}

fn counts(answer: &Answer, names: &[&str]) -> Vec<i64> {
    names.iter().map(|name| answer.at(&format!("/{name}")).as_i64().unwrap()).collect()
}

async fn trend(client: &Client, server: i64, metric: &str) -> Value {
    only(&client.get(&format!("/trends?host_ids={server}&metric={metric}&hours=2")).await.expect(200))
}

async fn fc_18_a_sample_of_the_future_says_nothing_against_the_others(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    let future = SystemClock.now() + TimeDelta::minutes(10);
    let told = vec![
        series("cpu_usage", &[], &[(minutes_ago(5), 10.0)]),
        series("memory_usage", &[], &[(future, 50.0)]),
        series("temperature", &[], &[(minutes_ago(5), 40.0)]),
    ];
    for expected in [[2, 0, 1], [0, 2, 1]] {
        let answer = write(&admin, told.clone()).await.expect(200);
        assert_eq!(counts(&answer, &["stored", "duplicate", "refused"]), expected, "{}", answer.text);
        let refused = answer.at("/refused_series/0");
        assert_eq!(refused["series"], r#"memory_usage{instance="edge-1:9100",job="node"}"#);
        assert!(refused["reason"].as_str().unwrap().contains("in the future"), "{}", answer.text);
        assert_eq!(answer.at("/refused_series/1"), Value::Null);
        for (metric, samples, value) in [("cpu_usage", 1, 10.0), ("memory_usage", 0, 0.0), ("temperature", 1, 40.0)] {
            let trend = trend(&admin, id, metric).await;
            assert_eq!(trend["samples"], samples, "{metric}");
            assert_eq!(trend["points"].as_array().unwrap().len(), samples);
            assert!(samples == 0 || trend["points"][0]["value"] == value, "{trend}");
        }
        assert_eq!(total(&admin, &format!("/servers/{id}/metrics")).await, 1, "they are of one time");
    }
    let told = admin.get("/metrics").await.expect(200).text;
    for (outcome, count) in [("stored", 2), ("duplicate", 2), ("refused", 2), ("unknown_server", 0)] {
        let line = format!("starlink_remote_write_samples_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(told.contains(&line), "{line}{told}");
    }
}

async fn series_of_one_time_are_one_sample_whatever_request_they_come_in(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    let path = format!("/servers/{id}/metrics");
    let at = minutes_ago(3);
    write(&admin, vec![series("node_load1", &[], &[(at, 0.5)])]).await.expect(200);
    let second = vec![series("node_load1", &[], &[(at, 9.0)]), series("node_load5", &[], &[(at, 0.25)])];
    let answer = write(&admin, second).await.expect(200);
    assert_eq!(counts(&answer, &["stored", "duplicate"]), [1, 1]);
    // A whole sample of a time that is there is a duplicate, as before.
    let whole = json!([{ "recorded_at": at, "node_load15": 1.0 }, { "recorded_at": minutes_ago(2), "cpu_usage": 1.0 }]);
    let answer = admin.post(&path, whole).await.expect(201);
    assert_eq!((answer.at("/accepted"), answer.at("/duplicate")), (json!(1), json!(1)));
    // Halves of a share may come in two requests, and make a value of their own time.
    let memory = |name: &str, value| vec![series(name, &[], &[(at, value)])];
    let answer = write(&admin, memory("node_memory_MemTotal_bytes", 8e9)).await.expect(200);
    assert_eq!(counts(&answer, &["stored", "gathered", "computed"]), [0, 1, 0]);
    let answer = write(&admin, memory("node_memory_MemAvailable_bytes", 2e9)).await.expect(200);
    assert_eq!(counts(&answer, &["stored", "gathered", "computed"]), [0, 1, 1]);
    let rows = walk(&admin, &path).await;
    let shown: Vec<[&Value; 5]> = rows
        .iter()
        .map(|row| ["node_load1", "node_load5", "node_load15", "memory_usage", "cpu_usage"].map(|name| &row[name]))
        .collect();
    let (null, some) = (Value::Null, [json!(0.5), json!(0.25), json!(75.0), json!(1.0)]);
    assert_eq!(shown, [[&null, &null, &null, &null, &some[3]], [&some[0], &some[1], &null, &some[2], &null]]);
}

async fn counters_become_rates(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    let seconds = |count: i32| f64::from(count) * 15.0;
    let start = minutes_ago(10);
    let scrape = |n: i32| {
        let at = start + TimeDelta::seconds(i64::from(n) * 15);
        let one = |name: &str, more: &[(&str, &str)], value: f64| series(name, more, &[(at, value)]);
        vec![
            one("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "idle")], seconds(n) * 0.5),
            one("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "iowait")], seconds(n) * 0.25),
            one("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "user")], seconds(n) * 0.25),
            one("node_network_receive_bytes_total", &[("device", "eth0")], seconds(n) * 1e6),
            one("node_network_receive_bytes_total", &[("device", "docker0")], seconds(n) * 1e9),
            one("node_disk_written_bytes_total", &[("device", "sda")], seconds(n) * 2e6),
            one("node_hwmon_temp_celsius", &[("chip", "a"), ("sensor", "temp1")], 40.0),
            one("node_hwmon_temp_celsius", &[("chip", "a"), ("sensor", "temp2")], 60.5),
            one("node_filesystem_size_bytes", &[("mountpoint", "/")], 100e9),
            one("node_filesystem_avail_bytes", &[("mountpoint", "/")], 25e9),
        ]
    };
    for n in 0..5 {
        // Each scrape comes in three requests, twice.
        for some in scrape(n).chunks(4).chain(scrape(n).chunks(4)) {
            write(&admin, some.to_vec()).await.expect(200);
        }
    }
    for (metric, value, least) in [
        ("cpu_usage", 25.0, 3),
        ("network_in_mbps", 8.0, 3),
        ("disk_write_mbps", 2.0, 3),
        ("temperature", 60.5, 3),
        ("storage_usage", 75.0, 5),
    ] {
        let trend = trend(&admin, id, metric).await;
        let samples = trend["samples"].as_i64().unwrap();
        assert!((least..=5).contains(&samples), "{metric}: {trend}");
        for percentile in ["p50", "p99"] {
            let found = trend["percentiles"][percentile].as_f64().unwrap();
            assert!((found - value).abs() < 1e-6, "{metric}: {trend}");
        }
    }
}

async fn what_is_not_known_is_told_and_no_error(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    let at = minutes_ago(1);
    let of = |owner: (&str, &str)| {
        let mut one = series("cpu_usage", &[owner], &[(at, 1.0)]);
        one.labels.retain(|label| label.name != "instance" || label.value == owner.1);
        one
    };
    let told = vec![
        of(("instance", "edge-9:9100")),
        of(("starlink_server", "edge-8")),
        of(("starlink_server", &id.to_string())),
        series("go_goroutines", &[], &[(at, 1.0)]),
        // The end of a series.
        series("node_load1", &[], &[(at, f64::from_bits(0x7ff0_0000_0000_0002))]),
        series("node_load5", &[], &[(at, f64::NAN)]),
    ];
    let answer = write(&admin, told).await.expect(200);
    let found = counts(&answer, &["stored", "unknown_server", "unknown_metric", "left_out", "refused"]);
    assert_eq!(found, [1, 2, 1, 1, 1], "{}", answer.text);
    assert_eq!(answer.at("/unknown_servers"), json!(["edge-8", "edge-9"]));
    assert_eq!(answer.at("/unknown_metrics"), json!(["go_goroutines"]));
    assert_eq!(counts(&write(&admin, Vec::new()).await.expect(200), &["stored"]), [0]);
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_refused_for_good() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    let good = packed(vec![series("cpu_usage", &[], &[(minutes_ago(1), 1.0)])]);
    let bomb = snap::raw::Encoder::new().compress_vec(&vec![0; 40 << 20]).unwrap();
    assert!(bomb.len() < 4 << 20);
    let many = packed(vec![Series::default(); 60_000]);
    for (case, body, status) in [
        ("no snappy", b"hello".to_vec(), 400),
        ("cut off", good[..good.len() - 3].to_vec(), 400),
        ("no protobuf", snap::raw::Encoder::new().compress_vec(b"{\"a\":1}").unwrap(), 400),
        ("text", b"cpu_usage 1\n".to_vec(), 400),
        ("a size that is a lie", vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00], 413),
        ("40 MB in a few", bomb, 413),
        ("9 MB", vec![1; 9 << 20], 413),
        ("many series of nothing", many, 413),
    ] {
        check_problem(&Client::send(request(&admin, body)).await, status, case);
    }
    let with = |name: &'static str, value: &'static str| {
        let mut request = request(&admin, good.clone()).build().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let http = reqwest::Client::new();
    for (name, value, status) in [
        ("content-type", "application/json", 415),
        ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request", 415),
        ("content-encoding", "gzip", 415),
        ("content-encoding", "zstd", 415),
        ("x-prometheus-remote-write-version", "2.0.0", 400),
        ("content-type", "application/x-protobuf;proto=prometheus.WriteRequest", 200),
    ] {
        let answer = http.execute(with(name, value)).await.unwrap();
        assert_eq!(answer.status(), status, "{name}: {value}");
    }
    assert_eq!(total(&admin, &format!("/servers/{id}/metrics")).await, 1);
}

#[tokio::test]
async fn what_the_database_did_not_take_is_stored_when_it_is_sent_again() {
    let cluster = Cluster::start(&[]);
    let database_url = Some(fresh_postgres(&cluster.url));
    let server = Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments: Vec::new() });
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    let at = minutes_ago(1);
    let told = || {
        vec![
            series("node_load1", &[], &[(at, 0.5)]),
            series("node_memory_MemTotal_bytes", &[], &[(at, 8e9)]),
            series("node_memory_MemAvailable_bytes", &[], &[(at, 2e9)]),
        ]
    };
    cluster.stop();
    for _ in 0..2 {
        check_problem(&write(&admin, told()).await, 503, "away");
    }
    cluster.restart();
    let answer = eventually("the database to be back", async || {
        let answer = write(&admin, told()).await;
        (answer.status != 503).then_some(answer)
    })
    .await
    .expect(200);
    assert_eq!(counts(&answer, &["stored", "gathered", "computed"]), [1, 2, 1]);
    let newest = admin.get(&format!("/servers/{id}/metrics/latest")).await.expect(200);
    assert_eq!((newest.at("/node_load1"), newest.at("/memory_usage")), (json!(0.5), json!(75.0)));
    assert_eq!(counts(&write(&admin, told()).await.expect(200), &["stored", "duplicate", "computed"]), [0, 1, 0]);
}

#[tokio::test]
async fn who_may_not_write_does_not() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    new_server(&admin, "edge-1", json!({})).await;
    let one = || vec![series("cpu_usage", &[], &[(minutes_ago(1), 1.0)])];
    let scoped = bearer(&admin, "scoped", "operator", Some(&["observability"])).await;
    for (name, role, scopes) in [("reader", "viewer", None), ("elsewhere", "operator", Some(["fleet"]))] {
        let client = bearer(&admin, name, role, scopes.as_ref().map(<[&str; 1]>::as_slice)).await;
        check_problem(&write(&client, one()).await, 403, name);
    }
    check_problem(&write(&admin.anonymous(), one()).await, 401, "anonymous");
    assert_eq!(counts(&write(&scoped, one()).await.expect(200), &["stored"]), [1]);
}
