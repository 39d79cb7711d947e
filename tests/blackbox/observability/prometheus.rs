//! A real Prometheus that watches a machine and tells the server.

use super::new_server;
use crate::{agents::proxy::Proxy, on_both, server, support::walk};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Write,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};
use tempfile::TempDir;
use tests::{Backend, Client, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

on_both!(what_prometheus_measures_is_stored_once_whatever_happens_to_the_server);

/// What a `node_exporter` tells at its n-th scrape of a machine with two processors that are busy a quarter of the time,
/// and much that is nobody's business.
fn exposition(n: u32, seconds: f64) -> String {
    let mut text = format!(
        "# TYPE node_load1 gauge\nnode_load1 {n}\n\
         node_memory_MemTotal_bytes 8e+09\nnode_memory_MemAvailable_bytes 2e+09\n\
         node_filesystem_size_bytes{{device=\"/dev/sda1\",fstype=\"ext4\",mountpoint=\"/\"}} 1e+11\n\
         node_filesystem_avail_bytes{{device=\"/dev/sda1\",fstype=\"ext4\",mountpoint=\"/\"}} 4e+10\n\
         # TYPE node_network_receive_bytes_total counter\n\
         node_network_receive_bytes_total{{device=\"eth0\"}} {}\n\
         node_network_receive_bytes_total{{device=\"lo\"}} {}\n\
         # TYPE node_cpu_seconds_total counter\n",
        seconds * 1e6,
        seconds * 1e9,
    );
    for cpu in 0..2 {
        for (mode, part) in [("idle", 5), ("iowait", 1), ("irq", 0), ("nice", 0), ("system", 1), ("user", 1)] {
            let value = f64::from(n * part) / 8.0;
            writeln!(text, "node_cpu_seconds_total{{cpu=\"{cpu}\",mode=\"{mode}\"}} {value}").unwrap();
        }
    }
    for n in 0..200 {
        writeln!(text, "node_netstat_number{{n=\"{n}\"}} {n}").unwrap();
    }
    text
}

/// Serves the above; the port, and how often it was asked.
async fn exporter() -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scrapes = Arc::<AtomicU32>::default();
    let (count, began) = (scrapes.clone(), Instant::now());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let text = exposition(count.fetch_add(1, Ordering::Relaxed) + 1, began.elapsed().as_secs_f64());
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
            let _ =
                stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len()).as_bytes()).await;
        }
    });
    (port, scrapes)
}

/// A Prometheus, which ends with the value.
struct Prometheus {
    child: Child,
    client: Client,
    directory: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// One that scrapes this port each second, and tells of it in small requests.
    fn start(scraped: u16, target: &str, token: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
            "scrape_configs": [{
                "job_name": "node",
                "static_configs": [
                    { "targets": [format!("127.0.0.1:{scraped}")], "labels": { "instance": "edge-1:9100" } },
                ],
            }],
            "remote_write": [{
                "url": format!("{target}/api/v1/write"),
                "authorization": { "credentials": token },
                "queue_config": {
                    "max_samples_per_send": 50, "batch_send_deadline": "200ms", "min_backoff": "30ms", "max_backoff": "200ms",
                },
            }],
        });
        // YAML is a superset of JSON.
        std::fs::write(directory.path().join("prometheus.yml"), config.to_string()).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let argument = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let child = Command::new("prometheus")
            .arg(argument("config.file", &directory.path().join("prometheus.yml")))
            .arg(argument("storage.tsdb.path", &directory.path().join("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, client: Client::new(&format!("http://127.0.0.1:{port}"), None), directory }
    }

    /// What it has of a series, by the millisecond.
    async fn has(&self, series: &str) -> BTreeMap<i64, f64> {
        let request =
            self.client.request(reqwest::Method::GET, "/api/v1/query").query(&[("query", format!("{series}[1h]"))]);
        let answer = Client::send(request).await.expect(200);
        let values = answer.at("/data/result/0/values").as_array().cloned().unwrap_or_default();
        let value = |pair: &Value| {
            // Seconds with up to three decimals.
            let at = format!("{:.3}", pair[0].as_f64().unwrap()).replace('.', "").parse().unwrap();
            (at, pair[1].as_str().unwrap().parse().unwrap())
        };
        values.iter().map(value).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

/// What the server has of a metric, by the millisecond.
async fn stored(admin: &Client, server: i64, metric: &str) -> BTreeMap<i64, f64> {
    let rows = walk(admin, &format!("/servers/{server}/metrics?limit=1000")).await;
    let value = |row: &Value| {
        let at: chrono::DateTime<chrono::Utc> = row["recorded_at"].as_str().unwrap().parse().unwrap();
        Some((at.timestamp_millis(), row[metric].as_f64()?))
    };
    let found: Vec<(i64, f64)> = rows.iter().filter_map(value).collect();
    let once: BTreeMap<i64, f64> = found.iter().copied().collect();
    assert_eq!(once.len(), found.len(), "a time comes twice");
    once
}

async fn what_prometheus_measures_is_stored_once_whatever_happens_to_the_server(backend: Backend) {
    let mut server = server(backend);
    let id = new_server(&server.admin(), "edge-1", json!({})).await;
    let made = json!({ "name": "prometheus", "role": "operator", "scopes": ["observability"] });
    let made = server.admin().post("/auth/tokens", made).await.expect(201);
    let proxy = Proxy::to(&server.base);
    let (port, scrapes) = exporter().await;
    let prometheus = Prometheus::start(port, &proxy.base(), made.at("/secret").as_str().unwrap());
    let admin = server.admin();
    eventually("rates", async || (stored(&admin, id, "cpu_usage").await.len() >= 3).then_some(())).await;
    let until = |more: u32| {
        let (scrapes, wanted) = (scrapes.clone(), scrapes.load(Ordering::Relaxed) + more);
        async move { eventually("scrapes", async || (scrapes.load(Ordering::Relaxed) >= wanted).then_some(())).await }
    };
    // Twice it is away for a while, without warning.
    for _ in 0..2 {
        server.kill();
        until(4).await;
        server.restart();
        proxy.point(&server.base);
        until(3).await;
    }
    let admin = server.admin();
    let mut all = prometheus.has("node_load1").await;
    assert!(all.len() >= 14, "{}\n{}", all.len(), prometheus.log());
    let last = *all.keys().last().unwrap();
    eventually("Prometheus to catch up", async || {
        stored(&admin, id, "node_load1").await.keys().last().is_some_and(|at| *at >= last).then_some(())
    })
    .await;
    let mut load = stored(&admin, id, "node_load1").await;
    load.retain(|at, _| *at <= last);
    // It does not tell of what it scraped while it was still starting.
    let first = *load.keys().next().unwrap();
    all.retain(|at, _| *at >= first);
    assert!(all.len() >= 12, "{}", prometheus.log());
    assert_eq!(load, all, "{}", prometheus.log());
    // What is computed has a gap of a few scrapes where the server was ended, and is right everywhere else.
    for (metric, expected, tolerance) in [
        ("cpu_usage", 25.0, 1e-6),
        ("memory_usage", 75.0, 1e-6),
        ("storage_usage", 60.0, 1e-6),
        ("network_in_mbps", 8.0, 4.0),
    ] {
        let found = stored(&admin, id, metric).await;
        assert!(found.len() + 10 >= all.len(), "{metric}: {} of {}", found.len(), all.len());
        assert!(found.values().all(|value| (value - expected).abs() < tolerance), "{metric}: {found:?}");
    }
}
