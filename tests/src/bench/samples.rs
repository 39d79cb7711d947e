//! Samples: taking them in, drawing a month of them, and the room that they take.

use crate::{
    Outcome,
    http::{Connection, Target},
    list::registration,
    load::{self, Requests},
    process,
    site::Site,
    table::{Row, median, ms},
};
use chrono::{DateTime, SecondsFormat, TimeDelta};
use domain::clock::{Clock, Timestamp};
use starlink_agent::agent::SystemClock;
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};
use tests::Server;

const SERVERS: u32 = 10;
/// Thirty days.
const MINUTES: i64 = 43_200;
/// Samples in a request.
const BATCH: i64 = 10_000;
const METRICS: i64 = 4;
/// How often each trend is asked for.
const TIMES: usize = 21;

/// Numbers as they are measured: one that wanders, with some noise, and the same in every run.
struct Wander {
    state: u64,
    level: f64,
}

impl Wander {
    fn new(seed: i64) -> Self {
        Self { state: seed.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, level: 40.0 }
    }

    /// From 0 to 1: a linear congruential generator with Knuth's numbers.
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.state >> 33).unwrap_or_default()) / f64::from(u32::MAX >> 1)
    }

    fn next(&mut self) -> f64 {
        self.level = (self.level + self.random() * 2.0 - 1.0).clamp(5.0, 90.0);
        self.level + self.random() * 8.0 - 4.0
    }
}

/// The bodies that bring a month of a server.
fn month(server: u32, end: i64) -> Vec<String> {
    let mut metrics: Vec<Wander> = (0..METRICS).map(|n| Wander::new(i64::from(server) * 31 + n)).collect();
    let mut bodies = Vec::new();
    let mut left = MINUTES;
    while left > 0 {
        let mut body = String::from("[");
        for _ in 0..BATCH.min(left) {
            let values: Vec<f64> = metrics.iter_mut().map(Wander::next).collect();
            let [cpu, memory, load, network] = values.as_slice() else { continue };
            let at = text(minute(end - left));
            let comma = if body.len() > 1 { "," } else { "" };
            // Writing to a text cannot fail.
            let _ = write!(
                body,
                r#"{comma}{{"recorded_at":"{at}","cpu_usage":{cpu:.2},"memory_usage":{memory:.2},"node_load1":{load:.2},"network_in_mbps":{network:.2}}}"#
            );
            left -= 1;
        }
        body.push(']');
        bodies.push(body);
    }
    bodies
}

fn minute(minutes: i64) -> Timestamp {
    DateTime::from_timestamp(minutes * 60, 0).unwrap_or_default()
}

fn text(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Everything about samples on one kind of database.
pub(crate) async fn measure(site: &Site, period: Duration) -> Outcome<Vec<Row>> {
    let mut server = site.start()?;
    let target = Target::of(&server)?;
    let mut connection = Connection::open(&target).await?;
    for number in 1..=SERVERS {
        connection.expect(&target.post("/servers", &registration(&format!("edge-{number}"), number)), 201).await?;
    }
    let mut rows = vec![fill(site, &server).await?];
    server.terminate();
    rows.extend(size(site, &server)?);
    server.restart();
    rows.extend(trends(site, &server).await?);
    rows.push(singly(site, &server, period).await?);
    rows.push(at_a_glance(site, &server).await?);
    if server.database_url().is_some() {
        rows.push(peer(&server)?);
    }
    Ok(rows)
}

/// A thousand servers, each with a sample.
async fn at_a_glance(site: &Site, server: &Server) -> Outcome<Row> {
    const MANY: u32 = 1000;
    let target = Target::of(server)?;
    let mut connection = Connection::open(&target).await?;
    for number in SERVERS + 1..=MANY {
        connection.expect(&target.post("/servers", &registration(&format!("edge-{number}"), number)), 201).await?;
        let body = r#"{"cpu_usage":12.25,"memory_usage":40.5,"storage_usage":3,"temperature":41,"node_load1":0.5}"#;
        connection.expect(&target.post(&format!("/servers/{number}/metrics"), body), 201).await?;
    }
    let measurement = format!("overview of {MANY} servers, {}", site.name);
    timed(server, &target.get("/overview"), measurement, "< 20 ms").await
}

/// The same percentiles by `percentile_cont` over rows, in the same database. The client does not come into it.
fn peer(server: &Server) -> Outcome<Row> {
    let mut sql = server.sql();
    sql.run("CREATE TABLE peer (server INTEGER NOT NULL, minute INTEGER NOT NULL, cpu DOUBLE PRECISION NOT NULL)");
    for number in 1..=SERVERS {
        let mut cpu = Wander::new(i64::from(number) * 31);
        let mut rows = String::new();
        for minute in 0..MINUTES {
            let _ = write!(rows, "{}({number},{minute},{:.2})", if minute > 0 { "," } else { "" }, cpu.next());
        }
        sql.run(&format!("INSERT INTO peer VALUES {rows}"));
    }
    sql.run("CREATE INDEX peer_minutes ON peer (server, minute); ANALYZE peer");
    let query = "SELECT CAST(percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY cpu) AS TEXT) AS value
        FROM peer GROUP BY server";
    let mut walls = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let found = sql.texts(query);
        walls.push(began.elapsed());
        if found.len() != usize::try_from(SERVERS)? {
            return Err("the peer has lost servers".into());
        }
    }
    Ok(Row {
        measurement: format!("percentile_cont of {SERVERS} servers, 30 days, rows"),
        result: ms(median(&walls, |wall| *wall).unwrap_or_default()),
        ..Row::default()
    })
}

async fn fill(site: &Site, server: &Server) -> Outcome<Row> {
    let target = Target::of(server)?;
    let mut connection = Connection::open(&target).await?;
    let end = SystemClock.now().timestamp() / 60;
    let (mut wall, cpu) = (Duration::ZERO, process::cpu(server.pid())?);
    for number in 1..=SERVERS {
        let path = format!("/servers/{number}/metrics");
        let requests: Vec<Vec<u8>> = month(number, end).iter().map(|body| target.post(&path, body)).collect();
        let began = Instant::now();
        for request in requests {
            connection.expect(&request, 201).await?;
        }
        wall += began.elapsed();
    }
    let cpu = process::cpu(server.pid())?.saturating_sub(cpu);
    let values = u32::try_from(i64::from(SERVERS) * MINUTES * METRICS)?;
    Ok(Row {
        measurement: format!("samples in arrays of {BATCH}, {}", site.name),
        result: format!("{:.0} values/s", f64::from(values) / wall.as_secs_f64()),
        wall: ms(wall),
        cpu: ms(cpu),
        aim: "> 600,000 values/s",
    })
}

/// What the database takes, when nobody has it open.
fn size(site: &Site, server: &Server) -> Outcome<Option<Row>> {
    let bytes: u64 = if server.database_url().is_some() {
        let query = "SELECT CAST(sum(pg_total_relation_size(oid)) AS TEXT) AS value FROM pg_class
            WHERE relkind = 'r' AND relname LIKE 'sample%'";
        server.sql().texts(query).first().ok_or("no size")?.parse()?
    } else {
        // What it has written last is in a file beside it until then.
        let samples = server.data_dir().join("starlink.samples.db");
        tests::Sql::open(&format!("sqlite:{}", samples.display())).run("PRAGMA wal_checkpoint(TRUNCATE)");
        std::fs::metadata(samples)?.len()
    };
    let values = i64::from(SERVERS) * MINUTES * METRICS;
    let per_value = f64::from(u32::try_from(bytes)?) / f64::from(u32::try_from(values)?);
    Ok(Some(Row {
        measurement: format!("room of a value, {}", site.name),
        result: format!("{per_value:.2} bytes"),
        aim: "< 2.5 bytes",
        ..Row::default()
    }))
}

async fn trends(site: &Site, server: &Server) -> Outcome<Vec<Row>> {
    let target = Target::of(server)?;
    let mut rows = Vec::new();
    for (name, hours, aim) in [("30 days", 720, "< 10 ms"), ("6 hours", 6, "< 2 ms")] {
        let request = target.get(&format!("/trends?hours={hours}&points=1000&metric=cpu_usage"));
        rows.push(timed(server, &request, format!("trend of {SERVERS} servers, {name}, {}", site.name), aim).await?);
    }
    let request = target.get("/trends?hours=720&points=1000&metric=cpu_usage&aggregate=true");
    let together = format!("the same together, 30 days, {}", site.name);
    rows.push(timed(server, &request, together, "").await?);
    rows.push(Row {
        measurement: format!("most memory meanwhile, {}", site.name),
        result: format!("{:.1} MiB", process::most_resident(server.pid())?),
        aim: "< 96 MiB",
        ..Row::default()
    });
    Ok(rows)
}

async fn timed(server: &Server, request: &[u8], measurement: String, aim: &'static str) -> Outcome<Row> {
    let mut connection = Connection::open(&Target::of(server)?).await?;
    connection.expect(request, 200).await?;
    let (mut walls, before) = (Vec::new(), process::cpu(server.pid())?);
    for _ in 0..TIMES {
        let began = Instant::now();
        connection.expect(request, 200).await?;
        walls.push(began.elapsed());
    }
    let cpu = process::cpu(server.pid())?.saturating_sub(before) / u32::try_from(TIMES)?;
    let middle = median(&walls, |wall| *wall).unwrap_or_default();
    let most = walls.iter().max().copied().unwrap_or_default();
    Ok(Row { measurement, result: ms(middle), wall: format!("at most {}", ms(most)), cpu: ms(cpu), aim })
}

/// A client that measures one server.
struct Measures {
    target: Target,
    server: u32,
    next: Timestamp,
    bytes: Vec<u8>,
}

impl Requests for Measures {
    fn next(&mut self) -> (&[u8], u16) {
        self.next += TimeDelta::milliseconds(1);
        let at = text(self.next);
        let body = format!(r#"{{"recorded_at":"{at}","cpu_usage":12.25,"memory_usage":40.5,"storage_usage":3}}"#);
        self.bytes = self.target.post(&format!("/servers/{}/metrics", self.server), &body);
        (&self.bytes, 201)
    }
}

async fn singly(site: &Site, server: &Server, period: Duration) -> Outcome<Row> {
    const CLIENTS: u32 = 32;
    let target = Target::of(server)?;
    let now = SystemClock.now();
    let client = |n: u32| Measures {
        target: target.clone(),
        server: n % SERVERS + 1,
        // Each in an hour of its own.
        next: now - TimeDelta::hours(i64::from(n) + 1),
        bytes: Vec::new(),
    };
    let shown = load::run(&target, server.pid(), period, (0..CLIENTS).map(client).collect()).await?;
    Ok(Row {
        measurement: format!("samples one by one, {CLIENTS} clients, {}", site.name),
        result: format!("{:.0}/s", shown.rate()),
        wall: shown.wall(),
        cpu: shown.cpu(),
        aim: "> 8,900/s",
    })
}
