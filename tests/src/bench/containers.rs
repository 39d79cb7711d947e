//! The list of many containers, as agents reported them.

use crate::{
    Outcome,
    http::{Connection, Target},
    idle::{join, text},
    load::{self, Requests},
    process,
    site::Site,
    table::Row,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SERVERS: u32 = 50;
const ON_EACH: u32 = 100;

/// Some pages, in turn.
struct Pages(Vec<Vec<u8>>, usize);

impl Requests for Pages {
    fn next(&mut self) -> (&[u8], u16) {
        self.1 = (self.1 + 1) % self.0.len();
        (&self.0[self.1], 200)
    }
}

/// Reports, then the list by pages, then the containers of one server.
pub(crate) async fn measure(site: &Site, period: Duration) -> Outcome<Vec<Row>> {
    let server = site.start()?;
    let target = Target::of(&server)?;
    let mut connection = Connection::open(&target).await?;
    let body = json!({ "name": "bench", "max_uses": SERVERS }).to_string();
    connection.expect(&target.post("/enrollments", &body), 201).await?;
    let join_token = text(&connection.json()?, "/token")?;
    let mut agents = Vec::new();
    for number in 0..SERVERS {
        let agent = target.with_token(join(&target, &join_token, number).await?);
        agents
            .push((agent.post("/agent/containers", &report(number)), agent.post("/agent/containers", &usage(number))));
    }
    let (cpu, began) = (process::cpu(server.pid())?, Instant::now());
    for (full, _) in &agents {
        connection.expect(full, 204).await?;
    }
    let (reported, reported_cpu) = (began.elapsed(), process::cpu(server.pid())?.saturating_sub(cpu));
    let (cpu, began) = (process::cpu(server.pid())?, Instant::now());
    for (_, counted) in &agents {
        connection.expect(counted, 204).await?;
    }
    let (counted, counted_cpu) = (began.elapsed(), process::cpu(server.pid())?.saturating_sub(cpu));
    let mut rows =
        vec![told(site, "as new", reported, reported_cpu), told(site, "what they use", counted, counted_cpu)];
    let pages = all_pages(&target, &mut connection).await?;
    let (whole, of_one) = (vec![pages], vec![vec![target.get("/api/containers?host=7&limit=100")]]);
    for (what, requests, count, aim) in [
        ("a page of 1,000 of 5,000 containers", whole, 5_u32, "whole list < 20 ms"),
        ("the 100 containers of a server", of_one, 1, ""),
    ] {
        let clients = requests.into_iter().map(|pages| Pages(pages, 0)).collect();
        let shown = load::run(&target, server.pid(), period, clients).await?;
        let whole = shown.interval() * count;
        rows.push(Row {
            measurement: format!("{what}, {}", site.name),
            result: format!("{:.1} ms for all", whole.as_secs_f64() * 1000.0),
            wall: shown.wall(),
            cpu: shown.cpu(),
            aim,
        });
    }
    let memory = process::resident(server.pid())?;
    rows.push(Row {
        measurement: format!("memory of the server after that, {}", site.name),
        result: format!("{memory:.1} MiB"),
        ..Row::default()
    });
    Ok(rows)
}

fn told(site: &Site, what: &str, wall: Duration, cpu: Duration) -> Row {
    Row {
        measurement: format!("report of {ON_EACH} containers, {what}, {}", site.name),
        result: format!("{:.1} ms", (wall / SERVERS).as_secs_f64() * 1000.0),
        wall: String::new(),
        cpu: crate::table::ms(cpu / SERVERS),
        aim: "",
    }
}

/// The requests for all pages of the list.
async fn all_pages(target: &Target, connection: &mut Connection) -> Outcome<Vec<Vec<u8>>> {
    let mut path = "/api/containers?limit=1000".to_owned();
    let mut pages = Vec::new();
    loop {
        let request = target.get(&path);
        connection.expect(&request, 200).await?;
        pages.push(request);
        let next = connection.header("link").and_then(|link| link.split(['<', '>']).nth(1)).map(str::to_owned);
        match next {
            Some(next) => path = next,
            None => return Ok(pages),
        }
    }
}

fn engine_id(server: u32, number: u32) -> String {
    format!("{server:032x}{number:032x}")
}

fn report(server: u32) -> String {
    let containers: Vec<Value> = (0..ON_EACH).map(|number| container(server, number)).collect();
    let present: Vec<String> = (0..ON_EACH).map(|number| engine_id(server, number)).collect();
    json!({ "session": format!("s-{server}"), "containers": containers, "present": present }).to_string()
}

/// One as Docker Compose makes them.
fn container(server: u32, number: u32) -> Value {
    json!({
        "engine_id": engine_id(server, number), "name": format!("shop-{number}-web-1"), "image": "acme/web:1.2.3",
        "image_id": format!("sha256:{number:064x}"), "image_digest": format!("sha256:{server:064x}"),
        "architecture": "x86_64", "command": ["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"], "state": "running",
        "health": "healthy", "restarts": 1, "restart_policy": "unless-stopped",
        "created_at": "2026-11-30T09:00:00Z", "started_at": "2026-11-30T09:00:01Z", "memory_limit_bytes": 268_435_456,
        "ports": [{ "container_port": 80, "protocol": "tcp", "host_port": 10_000 + number, "host_ip": "0.0.0.0" }],
        "mounts": [{ "kind": "volume", "source": "data", "target": "/data", "read_only": false }],
        "networks": [{ "name": "shop_default", "address": "172.18.0.7" }],
        "labels": {
            "com.docker.compose.project": format!("shop-{number}"), "com.docker.compose.service": "web",
            "com.docker.compose.version": "2.24.0", "maintainer": "team@example.com",
        },
    })
}

fn usage(server: u32) -> String {
    let usage: Vec<Value> = (0..ON_EACH)
        .map(|number| {
            let usage = json!({
                "at": "2026-11-30T09:00:30Z", "cpu_percent": 12.345, "machine_cpu_percent": 3.086, "memory_bytes": 123_456_789,
                "memory_limit_bytes": 268_435_456, "memory_percent": 45.99, "network_in_bytes": 1_234_567,
                "network_out_bytes": 7_654_321, "disk_read_bytes": 4096, "disk_write_bytes": 8192, "pids": 7,
            });
            json!({ "engine_id": engine_id(server, number), "usage": usage })
        })
        .collect();
    json!({ "session": format!("s-{server}"), "usage": usage }).to_string()
}
