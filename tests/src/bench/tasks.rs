//! Tasks through the API: posted by clients, placed by the scheduler, both committed durably.

use crate::{
    Outcome,
    http::{Connection, Target},
    load::{self, Requests, Shown},
    process,
    site::Site,
    table::{Row, median, ms},
};
use std::time::{Duration, Instant};
use tests::Server;

const ROUNDS: u32 = 3;
const SERVERS: u32 = 1_000;
const CLIENTS: [(u32, &str); 3] = [(1, ""), (8, ""), (32, "SQLite: > 1800/s, <= 0.22 ms CPU")];
/// How long the scheduler may take to place what is left when the clients have stopped.
const PATIENCE: Duration = Duration::from_mins(1);

/// Posts small tasks that anything can run.
struct Poster {
    target: Target,
    prefix: String,
    count: u32,
    request: Vec<u8>,
}

impl Requests for Poster {
    fn next(&mut self) -> (&[u8], u16) {
        self.count += 1;
        let Self { prefix, count, .. } = self;
        let body = format!(
            r#"{{"name":"{prefix}-{count}","required_architecture":"universal","required_cpu":0.01,"required_memory":0.01,"driver":"none"}}"#
        );
        self.request = self.target.post("/tasks", &body);
        (&self.request, 201)
    }
}

/// What one round showed: as the clients saw it, and until the last task was placed.
#[derive(Clone)]
struct Round {
    posted: Shown,
    placed: u32,
    wall: Duration,
    cpu: Duration,
}

impl Round {
    fn interval(&self) -> Duration {
        self.wall / self.placed.max(1)
    }
}

/// Every round measures everything once, so that a slow minute of the machine does not fall on one line alone.
pub(crate) async fn measure(sites: &[Site], period: Duration) -> Outcome<Vec<Row>> {
    let mut servers = Vec::new();
    for site in sites {
        let server = site.start()?;
        register(&server).await?;
        servers.push(server);
    }
    let mut shown: Vec<Vec<Round>> = vec![Vec::new(); sites.len() * CLIENTS.len()];
    for round in 0..ROUNDS {
        let mut cells = shown.iter_mut();
        for server in &servers {
            for (clients, _) in CLIENTS {
                cells.next().ok_or("a cell too few")?.push(once(server, round, clients, period).await?);
            }
        }
    }
    let mut rows = Vec::new();
    let mut cells = shown.iter();
    for site in sites {
        for (clients, aim) in CLIENTS {
            let middle = cells.next().and_then(|cell| median(cell, Round::interval)).ok_or("a cell too few")?;
            rows.push(row(site, clients, aim, &middle));
        }
    }
    Ok(rows)
}

async fn register(server: &Server) -> Outcome<()> {
    let target = Target::of(server)?;
    let mut connection = Connection::open(&target).await?;
    for number in 0..SERVERS {
        let body = format!(
            r#"{{"name":"server-{number}","architecture":"x86_64","total_cpu":1000,"total_memory":1000,"total_storage":500,"status":"online"}}"#
        );
        connection.expect(&target.post("/servers", &body), 201).await?;
    }
    Ok(())
}

async fn once(server: &Server, round: u32, clients: u32, period: Duration) -> Outcome<Round> {
    let target = Target::of(server)?;
    let mut asking = Connection::open(&target).await?;
    let (before, cpu, began) =
        (count(&mut asking, &target, "scheduled").await?, process::cpu(server.pid())?, Instant::now());
    let poster = |client| Poster {
        target: target.clone(),
        prefix: format!("t-{round}-{clients}-{client}"),
        count: 0,
        request: Vec::new(),
    };
    let shown = load::run(&target, server.pid(), period, (0..clients).map(poster).collect()).await?;
    // The server has closed the first one if the load took longer than it keeps idle connections.
    let mut asking = Connection::open(&target).await?;
    while count(&mut asking, &target, "pending").await? > 0 {
        if began.elapsed() > period + period / 5 + PATIENCE {
            return Err("the scheduler did not place what was posted".into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let wall = began.elapsed();
    let cpu = process::cpu(server.pid())?.saturating_sub(cpu);
    Ok(Round { posted: shown, placed: count(&mut asking, &target, "scheduled").await? - before, wall, cpu })
}

async fn count(connection: &mut Connection, target: &Target, status: &str) -> Outcome<u32> {
    connection.expect(&target.get(&format!("/tasks?limit=1&status={status}")), 200).await?;
    connection.header("x-total-count").and_then(|text| text.parse().ok()).ok_or_else(|| "no X-Total-Count".into())
}

fn row(site: &Site, clients: u32, aim: &'static str, round: &Round) -> Row {
    Row {
        measurement: format!("POST /tasks and placed, {}, {clients} client(s)", site.name),
        result: format!("{:.0}/s", f64::from(round.placed) / round.wall.as_secs_f64()),
        wall: round.posted.wall(),
        cpu: ms(round.cpu / round.placed.max(1)),
        aim,
    }
}
