//! What servers were measured to be at: stored once, kept over kills, and drawn as it was.

mod metrics;
mod prometheus;
mod write;

use crate::{
    on_both, server,
    support::{bearer, check_problem, server_with, total, walk},
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use domain::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};
use starlink_agent::agent::SystemClock;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use tests::{Answer, Backend, Client, eventually};

on_both!(
    fc_16_percentiles_are_those_of_the_samples,
    fc_18_a_wrong_sample_says_nothing_against_the_others,
    a_month_is_drawn_in_few_points_without_losing_a_spike,
    servers_are_drawn_by_what_they_belong_to,
    everything_is_seen_at_a_glance,
    acknowledged_samples_survive_kills_and_are_there_once,
);

async fn new_server(admin: &Client, name: &str, more: Value) -> i64 {
    admin.post("/servers", server_with(name, more)).await.expect(201).id()
}

/// The minute that began so many minutes ago.
fn minutes_ago(minutes: i64) -> DateTime<Utc> {
    let now = SystemClock.now();
    DateTime::from_timestamp(now.timestamp() / 60 * 60, 0).unwrap() - TimeDelta::minutes(minutes)
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn sample(minutes: i64, cpu: f64) -> Value {
    json!({ "recorded_at": text(minutes_ago(minutes)), "cpu_usage": cpu })
}

async fn measure(client: &Client, server: i64, samples: Value) -> Answer {
    client.post(&format!("/servers/{server}/metrics"), samples).await
}

/// The only series of an answer.
#[track_caller]
fn only(answer: &Answer) -> Value {
    let [series] = answer.json.as_array().unwrap().as_slice() else { panic!("{}", answer.text) };
    series.clone()
}

#[track_caller]
fn check_close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
}

async fn fc_16_percentiles_are_those_of_the_samples(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let sets: [(&[f64], [f64; 3]); 4] = [
        (&[42.0], [42.0, 42.0, 42.0]),
        (&[1.0, 2.0], [1.5, 1.95, 1.99]),
        (&[10.0, 20.0, 30.0, 40.0, 50.0], [30.0, 48.0, 49.6]),
        (&[20.0, 21.0, 16.0, 56.0, 13.0, 20.0, 16.0, 47.0, 18.0, 12.0], [19.0, 51.95, 55.19]),
    ];
    for (n, (values, expected)) in sets.into_iter().enumerate() {
        let id = new_server(&admin, &format!("set-{n}"), json!({})).await;
        let samples: Vec<Value> = (1..).zip(values).map(|(minutes, value)| sample(minutes, *value)).collect();
        measure(&admin, id, json!(samples)).await.expect(201);
        let trend = only(&admin.get(&format!("/trends?host_ids={id}&metric=cpu_usage&hours=1")).await.expect(200));
        for (name, expected) in ["p50", "p95", "p99"].into_iter().zip(expected) {
            check_close(&trend["percentiles"][name], expected);
        }
        assert_eq!(trend["samples"], values.len());
        assert_eq!((&trend["exact"], &trend["host_id"]), (&json!(true), &json!(id)));
    }
    let id = new_server(&admin, "set-e", json!({})).await;
    let trend = only(&admin.get(&format!("/trends?host_ids={id}&hours=1")).await.expect(200));
    assert_eq!(trend["percentiles"], json!({ "p50": null, "p95": null, "p99": null }));
    assert_eq!((&trend["samples"], &trend["coverage"], &trend["points"]), (&json!(0), &json!(0.0), &json!([])));
}

async fn fc_18_a_wrong_sample_says_nothing_against_the_others(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    let told = json!([
        sample(5, 10.0), sample(5, 11.0), sample(65, 9.0),
        { "recorded_at": text(SystemClock.now() + TimeDelta::minutes(10)), "cpu_usage": 50.0 },
        sample(4, 12.0),
    ]);
    for (accepted, duplicate) in [(3, 1), (0, 4)] {
        let answer = measure(&admin, id, told.clone()).await.expect(201);
        assert_eq!((answer.at("/accepted"), answer.at("/duplicate")), (json!(accepted), json!(duplicate)));
        assert_eq!(answer.at("/rejected/0/index"), 3);
        assert!(answer.at("/rejected/0/reason").as_str().unwrap().contains("in the future"), "{}", answer.text);
        assert_eq!(answer.at("/rejected/1"), Value::Null);
        let trend = only(&admin.get(&format!("/trends?host_ids={id}&hours=2")).await.expect(200));
        assert_eq!(trend["samples"], 3);
        let values: Vec<&Value> = trend["points"].as_array().unwrap().iter().map(|point| &point["value"]).collect();
        assert_eq!(values, [9.0, 10.0, 12.0]);
    }
    let newest = admin.get(&format!("/servers/{id}/metrics/latest")).await.expect(200);
    assert_eq!((newest.at("/cpu_usage"), newest.at("/recorded_at")), (json!(12.0), json!(text(minutes_ago(4)))));
}

#[tokio::test]
async fn what_is_wrong_with_a_sample_is_said_by_name() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    for (case, body, field) in [
        ("out of range", json!({ "cpu_usage": 100.1 }), "cpu_usage"),
        ("of another type", json!({ "temperature": "warm" }), "temperature"),
        ("of no known name", json!({ "cpu": 1 }), "cpu"),
        ("no time", json!({ "cpu_usage": 1, "recorded_at": "now" }), "recorded_at"),
        ("from before computers knew", json!({ "cpu_usage": 1, "recorded_at": "1970-01-01T00:00:00Z" }), "recorded_at"),
        ("nothing", json!({}), "cpu_usage"),
    ] {
        let refused = measure(&admin, id, body.clone()).await;
        check_problem(&refused, 400, case);
        assert_eq!(refused.at("/errors/0/field"), field, "{case}: {}", refused.text);
        let told = measure(&admin, id, json!([body, { "cpu_usage": 1 }, null])).await.expect(201);
        assert_eq!(told.at("/rejected").as_array().unwrap().len(), 2, "{case}: {}", told.text);
        assert!(told.at("/rejected/0/reason").as_str().unwrap().contains(field), "{case}: {}", told.text);
    }
    let big = vec![json!({ "cpu_usage": 1 }); 50_001];
    check_problem(&measure(&admin, id, json!(big)).await, 400, "too many");
    let path = format!("/servers/{id}/metrics");
    let broken =
        Client::send(admin.request(Method::POST, &path).header("content-type", "application/json").body("[{")).await;
    check_problem(&broken, 400, "no JSON");
    check_problem(&measure(&admin, 99, json!({ "cpu_usage": 1 })).await, 404, "no such server");
    check_problem(&admin.get("/servers/99/metrics/latest").await, 404, "no such server");
}

async fn a_month_is_drawn_in_few_points_without_losing_a_spike(backend: Backend) {
    const MINUTES: i64 = 30 * 24 * 60;
    let server = server(backend);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    // A day without anything, and one minute that is busy.
    let value = |minute: i64| if minute == 20_000 { 99.5 } else { f64::from(i32::try_from(minute % 50).unwrap()) };
    let is_there = |minute: &i64| !(30_000..31_440).contains(minute);
    let all: Vec<i64> = (1..MINUTES).filter(is_there).collect();
    for some in all.chunks(10_000) {
        let samples: Vec<Value> = some.iter().map(|minute| sample(*minute, value(*minute))).collect();
        assert_eq!(measure(&admin, id, json!(samples)).await.expect(201).at("/accepted"), some.len());
    }
    let trend = only(&admin.get(&format!("/trends?host_ids={id}&hours=720&points=200")).await.expect(200));
    let points = trend["points"].as_array().unwrap();
    assert!(points.len() <= 200 && points.len() > 80, "{}", points.len());
    assert!(points.iter().any(|point| point["max"] == 99.5));
    assert_eq!(trend["samples"], all.len());
    let coverage = trend["coverage"].as_f64().unwrap();
    assert!((0.96..0.97).contains(&coverage), "{coverage}");
    let mut sorted: Vec<f64> = all.iter().map(|minute| value(*minute)).collect();
    sorted.sort_by(f64::total_cmp);
    check_close(&trend["percentiles"]["p50"], sorted[sorted.len() / 2]);
    // The same for all servers together, out of what was counted of hours, within the error that is stated.
    let together = only(&admin.get("/trends?hours=720&points=200&aggregate=true").await.expect(200));
    assert_eq!((&together["exact"], &together["samples"]), (&json!(false), &trend["samples"]));
    for name in ["p50", "p95", "p99"] {
        let (exact, found) =
            (trend["percentiles"][name].as_f64().unwrap(), together["percentiles"][name].as_f64().unwrap());
        assert!((found - exact).abs() <= exact * 0.01, "{name}: {found} is too far from {exact}");
    }
    assert_eq!(together["points"].as_array().unwrap().len(), points.len());
    // Every sample can be had, page by page and as a table.
    assert_eq!(total(&admin, &format!("/servers/{id}/metrics")).await, i64::try_from(all.len()).unwrap());
    let table = admin.get(&format!("/trends?host_ids={id}&hours=720&export=csv")).await.expect(200);
    assert_eq!(table.text.lines().count(), all.len() + 1);
}

#[tokio::test]
async fn fc_21_a_table_of_samples_is_a_table_in_every_spreadsheet() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    let names = ["=1+1", "+49 30 1234", "-2+3", "@SUM(1)", "Иван \"Rack\", 3", "'quoted"];
    for name in names {
        let id = new_server(&admin, name, json!({ "location": name })).await;
        measure(&admin, id, json!({ "temperature": -5.5 })).await.expect(201);
    }
    let answer = admin.get("/trends?metric=temperature&export=csv").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"temperature.csv\""));
    let mut table = csv::Reader::from_reader(answer.text.as_bytes());
    assert_eq!(table.headers().unwrap(), ["recorded_at", "host_id", "host_name", "metric", "value"].as_slice());
    // The reader refuses rows with another number of columns.
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), names.len());
    for (row, name) in rows.iter().zip(names) {
        assert_eq!((&row[3], &row[4]), ("temperature", "-5.5"));
        assert!(!row[2].starts_with(['=', '+', '-', '@', '\t', '\r']), "{row:?}");
        assert_eq!(row[2].strip_prefix('\'').unwrap_or(&row[2]), name);
    }
}

async fn servers_are_drawn_by_what_they_belong_to(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = admin.post("/pools", json!({ "name": "edge", "type": "compute" })).await.expect(201).id();
    let mut ids = Vec::new();
    for (n, more) in (1_i32..).zip([
        json!({ "pool_id": pool, "cluster": "north", "zone": "a" }),
        json!({ "cluster": "north", "zone": "b", "tags": { "tier": "web", "env": "prod" } }),
        json!({ "pool_id": pool, "tags": { "tier": "web" } }),
    ]) {
        let id = new_server(&admin, &format!("edge-{n}"), more).await;
        measure(&admin, id, json!([sample(3, f64::from(n) * 10.0)])).await.expect(201);
        ids.push(id);
    }
    let drawn = async |query: &str| {
        let answer = admin.get(&format!("/trends?{query}")).await.expect(200);
        answer.json.as_array().unwrap().iter().map(|series| series["host_id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(drawn("hours=1").await, ids);
    assert_eq!(drawn(&format!("pool_id={pool}")).await, [ids[0], ids[2]]);
    assert_eq!(drawn("cluster=north").await, [ids[0], ids[1]]);
    assert_eq!(drawn("zone=b").await, [ids[1]]);
    assert_eq!(drawn("tag=tier:web").await, [ids[1], ids[2]]);
    assert_eq!(drawn("tag=tier:web&tag=env:prod").await, [ids[1]]);
    assert_eq!(drawn(&format!("host_ids={}&host_ids={}&host_ids={}", ids[2], ids[0], ids[2])).await, [ids[2], ids[0]]);
    assert_eq!(drawn("cluster=south").await, Vec::<i64>::new());
    let together = only(&admin.get("/trends?tag=tier:web&aggregate=true&hours=1").await.expect(200));
    let point = &together["points"][0];
    assert_eq!((&point["min"], &point["value"], &point["max"]), (&json!(20.0), &json!(25.0), &json!(30.0)));
    check_problem(&admin.get("/trends?host_ids=99").await, 404, "no such server");
    let elsewhere = admin.get(&format!("/trends?host_ids={}&pool_id={pool}", ids[1])).await;
    check_problem(&elsewhere, 400, "a server of another pool");
}

async fn everything_is_seen_at_a_glance(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = admin.post("/pools", json!({ "name": "edge", "type": "compute" })).await.expect(201).id();
    let online = |more: Value| {
        let mut all = json!({ "status": "online" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let busy = new_server(&admin, "busy", online(json!({ "pool_id": pool, "cluster": "north" }))).await;
    let calm = new_server(&admin, "calm", online(json!({ "cluster": "north", "tags": { "tier": "web" } }))).await;
    let silent = new_server(&admin, "silent", online(json!({}))).await;
    let stale = new_server(&admin, "stale", online(json!({}))).await;
    new_server(&admin, "gone", json!({})).await;
    measure(&admin, busy, json!({ "cpu_usage": 95.0, "memory_usage": 90.0, "temperature": 40.0 })).await.expect(201);
    measure(&admin, calm, json!({ "cpu_usage": 5.0, "temperature": 60.0 })).await.expect(201);
    measure(&admin, stale, json!([sample(6, 100.0)])).await.expect(201);

    let seen = admin.get("/overview").await.expect(200);
    assert_eq!(seen.at("/summary/servers"), 5);
    assert_eq!(seen.at("/summary/statuses"), json!({ "online": 4, "offline": 1, "maintenance": 0, "provisioning": 0 }));
    assert_eq!(seen.at("/summary/health"), json!({ "healthy": 1, "degraded": 0, "critical": 2, "unknown": 2 }));
    assert_eq!(seen.at("/summary/averages/cpu_usage"), 50.0);
    assert_eq!(
        (seen.at("/summary/busiest/server_id"), seen.at("/summary/hottest/server_id")),
        (json!(busy), json!(calm))
    );
    let of = |id: i64| seen.json["servers"].as_array().unwrap().iter().find(|row| row["id"] == id).unwrap().clone();
    assert_eq!((&of(silent)["metrics"], &of(silent)["health"]["state"]), (&Value::Null, &json!("unknown")));
    assert!(of(stale)["age_seconds"].as_i64().unwrap() >= 360, "{}", of(stale));
    assert_eq!((&of(stale)["health"]["score"], &of(stale)["metrics"]["cpu_usage"]), (&Value::Null, &json!(100.0)));
    assert_eq!(of(calm)["health"], json!({ "score": 100.0, "state": "healthy", "reasons": [] }));
    let short: Vec<Value> =
        seen.json["bottlenecks"].as_array().unwrap().iter().map(|found| found["metric"].clone()).collect();
    assert_eq!(short, ["cpu_usage", "memory_usage"]);

    for (query, expected) in [
        (format!("pool_id={pool}"), vec!["busy"]),
        ("cluster=north".to_owned(), vec!["busy", "calm"]),
        ("tag=tier:web".to_owned(), vec!["calm"]),
        ("zone=nowhere".to_owned(), vec![]),
    ] {
        let seen = admin.get(&format!("/overview?{query}")).await.expect(200);
        let found: Vec<Value> =
            seen.json["servers"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
        assert_eq!(found, expected, "{query}");
    }
    let saved = admin.get("/overview?export=json").await.expect(200);
    assert_eq!(saved.header("content-disposition"), Some("attachment; filename=\"overview.json\""));
    assert_eq!(saved.at("/summary"), seen.at("/summary"));
    let counts = admin.get("/dashboard/summary").await.expect(200);
    assert_eq!(
        (counts.at("/servers/total"), counts.at("/servers/online"), counts.at("/pools/total")),
        (json!(5), json!(4), json!(1))
    );
    assert_eq!(counts.at("/tasks/pending"), 0);
    let health = admin.get("/dashboard/health").await.expect(200);
    assert_eq!(
        (health.at("/health"), health.at("/busiest")),
        (seen.at("/summary/health"), seen.at("/summary/busiest"))
    );
}

#[tokio::test]
async fn fc_21_a_table_of_servers_is_a_table_in_every_spreadsheet() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    let places = ["=1+1", "+49 30 1234", "-2+3", "@SUM(1)", "Иван \"Rack\", 3"];
    for (n, place) in places.into_iter().enumerate() {
        let more = json!({ "location": place, "status": "online", "tags": { "note": "=2" } });
        let id = new_server(&admin, &format!("edge-{n}"), more).await;
        measure(&admin, id, json!({ "temperature": -5.5 })).await.expect(201);
    }
    let answer = admin.get("/overview?export=csv").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    let mut table = csv::Reader::from_reader(answer.text.as_bytes());
    let column = |name: &str, headers: &csv::StringRecord| headers.iter().position(|header| header == name).unwrap();
    let headers = table.headers().unwrap().clone();
    let (location, temperature) = (column("location", &headers), column("temperature", &headers));
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), places.len());
    for (row, place) in rows.iter().zip(places) {
        assert_eq!(&row[temperature], "-5.5");
        assert!(
            row.iter().all(|text| text == "-5.5" || !text.starts_with(['=', '+', '-', '@', '\t', '\r'])),
            "{row:?}"
        );
        assert_eq!(row[location].strip_prefix('\'').unwrap_or(&row[location]), place);
    }
}

#[tokio::test]
async fn who_may_not_measure_does_not() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    let id = new_server(&admin, "edge-1", json!({})).await;
    let reader = bearer(&admin, "reader", "viewer", None).await;
    let elsewhere = bearer(&admin, "elsewhere", "operator", Some(&["fleet"])).await;
    let scoped = bearer(&admin, "scoped", "operator", Some(&["observability"])).await;
    for client in [&reader, &elsewhere] {
        check_problem(&measure(client, id, json!({ "cpu_usage": 1 })).await, 403, "may not");
    }
    measure(&scoped, id, json!({ "cpu_usage": 1 })).await.expect(201);
    reader.get(&format!("/servers/{id}/metrics")).await.expect(200);
    reader.get("/trends").await.expect(200);
    check_problem(&elsewhere.get("/trends").await, 403, "may not");
}

/// What was sent, and what of it was acknowledged: minutes ago.
#[derive(Default)]
struct Load {
    next: Mutex<i64>,
    acknowledged: Mutex<BTreeSet<i64>>,
}

impl Load {
    /// Sends one sample after the other, and now and then a day of them, until nobody answers.
    async fn run(self: Arc<Self>, admin: Client, server: i64, end: DateTime<Utc>) {
        loop {
            let (first, count) = {
                let mut next = self.next.lock().unwrap();
                let count = if *next % 97 == 96 { 400 } else { 1 };
                *next += count;
                (*next - count, count)
            };
            let at = |minute: i64| text(end - TimeDelta::minutes(minute));
            let samples: Vec<Value> =
                (first..first + count).map(|minute| json!({ "recorded_at": at(minute), "cpu_usage": 1.5 })).collect();
            let request = admin.request(Method::POST, &format!("/servers/{server}/metrics")).json(&json!(samples));
            let Ok(answer) = Client::try_send(request).await else { return };
            answer.expect(201);
            self.acknowledged.lock().unwrap().extend(first..first + count);
        }
    }
}

async fn acknowledged_samples_survive_kills_and_are_there_once(backend: Backend) {
    let mut server = server(backend);
    let id = new_server(&server.admin(), "edge-1", json!({})).await;
    let (load, end) = (Arc::new(Load::default()), minutes_ago(1));
    for kill in 1..=4 {
        let admin = server.admin();
        let clients: Vec<_> = (0..8).map(|_| tokio::spawn(load.clone().run(admin.clone(), id, end))).collect();
        let enough = kill * 700;
        eventually("samples to be acknowledged", async || {
            (load.acknowledged.lock().unwrap().len() > enough).then_some(())
        })
        .await;
        server.kill();
        for client in clients {
            client.await.unwrap();
        }
        server.restart();
    }
    let admin = server.admin();
    let rows = walk(&admin, &format!("/servers/{id}/metrics?limit=1000")).await;
    let found: Vec<i64> = rows
        .iter()
        .map(|row| (end - row["recorded_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap()).num_minutes())
        .collect();
    let once: BTreeSet<i64> = found.iter().copied().collect();
    assert_eq!(once.len(), found.len(), "some are there twice");
    let acknowledged = load.acknowledged.lock().unwrap().clone();
    let lost: Vec<_> = acknowledged.difference(&once).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let trend = only(&admin.get(&format!("/trends?host_ids={id}&hours=720")).await.expect(200));
    assert_eq!(trend["samples"], found.len());
}
