//! The output of a real container, through agent and server to whoever reads it.

use crate::{
    Outcome,
    agents::{Bench, docker},
    http::{Connection, Target},
    process,
    site::Site,
    table::{Row, pair, percentile},
};
use domain::clock::{Clock, Timestamp};
use starlink_agent::agent::SystemClock;
use std::{
    cell::RefCell,
    io::{BufReader, Read},
    path::Path,
    process::Stdio,
    rc::Rc,
    time::{Duration, Instant},
};
use test_engine::{Engine, images::BUSYBOX};
use tokio::time::sleep;

/// Lines that are there before anybody reads them.
const LINES: usize = 500_000;
const ROUNDS: usize = 5;
/// Readers of a container that is busy.
const READERS: usize = 20;
const PERIOD: Duration = Duration::from_secs(20);
/// Lines for which it is measured how late they come.
const LATE: usize = 300;

/// Everything about output. Says why, if there is no engine.
pub(crate) async fn measure(site: &Site) -> Outcome<Vec<Row>> {
    let engine = match Engine::start(&[], &[BUSYBOX]) {
        Ok(engine) => engine,
        Err(why) => {
            let measurement = format!("output of containers: not measured, {why}");
            return Ok(vec![Row { measurement, ..Row::default() }]);
        }
    };
    let socket = engine.socket();
    let mut bench = Bench::start(site, 1, Some(&socket)).await?;
    let mut rows = throughput(&mut bench, &socket).await?;
    rows.push(lateness(&mut bench, &socket).await?);
    rows.extend(readers(&mut bench, &socket).await?);
    Ok(rows)
}

/// Runs a container beside `StarLink`; our path of its output, once it is reported.
async fn run(bench: &mut Bench, socket: &Path, name: &str, script: &str) -> Outcome<String> {
    let made = docker(socket).args(["run", "-d", "--name", name, BUSYBOX, "sh", "-c", script]).output()?;
    if !made.status.success() {
        return Err("docker run had no success".into());
    }
    let found = bench.wait(&format!("/api/containers?keyword={name}"), |found| found[0]["id"].is_i64()).await?;
    Ok(format!("/api/containers/{}/logs", found[0]["id"]))
}

fn remove(socket: &Path, name: &str) -> Outcome<()> {
    docker(socket).args(["rm", "-f", name]).stdout(Stdio::null()).status()?;
    Ok(())
}

fn line_feeds(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count().saturating_sub(1)
}

/// All lines of a container that are there already, by turns with `docker logs`.
async fn throughput(bench: &mut Bench, socket: &Path) -> Outcome<Vec<Row>> {
    let script = format!(
        "seq -f 'line %09.0f of what this container has to say about its work' {LINES} 2>/dev/null || \
                          seq {LINES} | sed 's/$/ is the number of a line that this container has to say about its work/'; \
                          sleep 1000"
    );
    let path = run(bench, socket, "many", &script).await?;
    let (mut ours, mut events, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    // Until all is written, nobody knows how long that takes.
    follow(&bench.target, &format!("{path}?follow=true"), "text/plain", LINES).await?;
    let cpu = |bench: &Bench| -> Outcome<(Duration, Duration)> {
        let agent = bench.agents.first().ok_or("no agent")?.pid();
        Ok((process::cpu(bench.server.pid())?, process::cpu(agent)?))
    };
    let before = cpu(bench)?;
    for _ in 0..ROUNDS {
        ours.push(follow(&bench.target, &path, "text/plain", LINES).await?);
        theirs.push(docker_logs(socket, "many", LINES)?);
    }
    let after = cpu(bench)?;
    for _ in 0..ROUNDS {
        events.push(follow(&bench.target, &path, "text/event-stream", 4 * LINES).await?);
    }
    remove(socket, "many")?;
    let lines = u32::try_from(LINES * ROUNDS)?;
    let (server, agent) = (after.0.saturating_sub(before.0) / lines, after.1.saturating_sub(before.1) / lines);
    let row = |who: &str, times: &mut Vec<Duration>, aim| {
        times.sort_unstable();
        let middle = percentile(times, 50);
        Row {
            measurement: format!("{LINES} lines of a container, {who}"),
            result: format!(
                "{:.0} lines/s",
                f64::from(u32::try_from(LINES).unwrap_or_default()) / middle.as_secs_f64()
            ),
            wall: pair(middle, percentile(times, 99)),
            cpu: String::new(),
            aim,
        }
    };
    let ours = Row {
        cpu: format!("{} + {} ns", server.as_nanos(), agent.as_nanos()),
        ..row("as text", &mut ours, "CPU: server + agent")
    };
    Ok(vec![ours, row("as events", &mut events, ""), row("`docker logs`", &mut theirs, "")])
}

/// How long it takes until so many line feeds have come.
async fn follow(target: &Target, path: &str, media_type: &str, lines: usize) -> Outcome<Duration> {
    let connection = Connection::open(target).await?;
    let (began, mut seen) = (Instant::now(), 0);
    let request = target.follow(path, media_type);
    let count = |bytes: &[u8]| {
        seen += line_feeds(bytes);
        seen >= lines
    };
    connection.follow(&request, count).await?;
    Ok(began.elapsed())
}

fn docker_logs(socket: &Path, name: &str, lines: usize) -> Outcome<Duration> {
    let began = Instant::now();
    let mut child = docker(socket).args(["logs", "-f", name]).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
    let (mut buffer, mut seen) = (vec![0; 1 << 16], 0);
    while seen < lines {
        let length = output.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        seen += line_feeds(buffer.get(..length).unwrap_or_default());
    }
    let time = began.elapsed();
    child.kill()?;
    child.wait()?;
    Ok(time)
}

/// How long after the engine had a line it comes to a reader.
async fn lateness(bench: &mut Bench, socket: &Path) -> Outcome<Row> {
    let path = run(bench, socket, "slow", "while :; do echo tick; sleep 0.03; done").await?;
    let request = bench.target.follow(&format!("{path}?follow=true&tail=0"), "text/event-stream");
    let mut late = Vec::new();
    let mut text = String::new();
    Connection::open(&bench.target)
        .await?
        .follow(&request, |bytes| {
            let now = SystemClock.now();
            text.push_str(&String::from_utf8_lossy(bytes));
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let at = event.split("\"at\":\"").nth(1).and_then(|rest| rest.split('"').next());
                if let Some(at) = at.and_then(|at| at.parse::<Timestamp>().ok()) {
                    late.push((now - at).to_std().unwrap_or_default());
                }
            }
            late.len() >= LATE
        })
        .await?;
    remove(socket, "slow")?;
    late.sort_unstable();
    let middle = percentile(&late, 50);
    Ok(Row {
        measurement: "a line from the engine to a reader".to_owned(),
        result: format!("{:.2} ms", middle.as_secs_f64() * 1000.0),
        wall: pair(middle, percentile(&late, 99)),
        cpu: String::new(),
        aim: "p50 < 20 ms",
    })
}

/// Lines that a container writes in a second, or tries to.
const BUSY: &str = "n=0; while :; do seq $n $((n + 2499)) | sed 's/$/ a line of a busy container that says what it does/'; \
                    n=$((n + 2500)); sleep 0.045; done";

/// What was seen of a busy container and its readers.
struct Watched {
    /// Lines a second that it wrote.
    written: f64,
    /// The most resident memory of server and agent, in MiB.
    most: [f64; 2],
}

/// Many readers of a busy container: what they get, what it costs, and whether it is slowed.
async fn readers(bench: &mut Bench, socket: &Path) -> Outcome<Vec<Row>> {
    let path = run(bench, socket, "busy", BUSY).await?;
    let alone = written(socket).await?;
    let pids = [bench.server.pid(), bench.agents.first().ok_or("no agent")?.pid()];
    let before = [process::cpu(pids[0])?, process::cpu(pids[1])?];
    let counts: Rc<RefCell<Vec<usize>>> = Rc::new(RefCell::new(vec![0; READERS]));
    let tasks = tokio::task::LocalSet::new();
    // Nobody has more than so many streams open.
    let others = bench.target.with_token(another_token(bench).await?);
    for reader in 0..READERS {
        let target = if reader % 2 == 0 { bench.target.clone() } else { others.clone() };
        tasks.spawn_local(read(target, path.clone(), counts.clone(), reader));
    }
    let Watched { written, most } = tasks.run_until(watch(socket, pids)).await?;
    let used = [process::cpu(pids[0])?, process::cpu(pids[1])?];
    remove(socket, "busy")?;
    let counts = counts.borrow();
    let (least, all) = (counts.iter().min().copied().unwrap_or_default(), counts.iter().sum::<usize>());
    let share = |index: usize| {
        let used = used[index].saturating_sub(before[index]).as_secs_f64();
        format!("{:.0} %", used / (PERIOD.as_secs_f64() + 2.0) * 100.0)
    };
    let row = |measurement: &str, result: String, wall: String, aim| Row {
        measurement: measurement.to_owned(),
        result,
        wall,
        cpu: String::new(),
        aim,
    };
    let (all, least) = (rate(all, PERIOD), rate(least, PERIOD));
    let cost = format!("CPU {} + {}", share(0), share(1));
    Ok(vec![
        row("a busy container, nobody reads", format!("{alone:.0} lines/s"), String::new(), ""),
        row("the same with 20 readers", format!("{written:.0} lines/s"), cost, "not slowed; CPU: server + agent"),
        row("lines to all of them; to who got fewest", format!("{all:.0}; {least:.0} /s"), String::new(), ""),
        row(
            "most memory meanwhile, server; agent",
            format!("{:.1}; {:.1} MiB", most[0], most[1]),
            String::new(),
            "bounded",
        ),
    ])
}

async fn another_token(bench: &Bench) -> Outcome<String> {
    let mut connection = Connection::open(&bench.target).await?;
    connection.expect(&bench.target.post("/auth/tokens", r#"{"name":"other","role":"viewer"}"#), 201).await?;
    let made = connection.json()?;
    made["secret"].as_str().map(str::to_owned).ok_or_else(|| "no secret".into())
}

async fn read(target: Target, path: String, counts: Rc<RefCell<Vec<usize>>>, reader: usize) -> Result<(), String> {
    let request = target.follow(&format!("{path}?follow=true&tail=0"), "text/plain");
    let connection = Connection::open(&target).await.map_err(|error| error.to_string())?;
    let count = |bytes: &[u8]| {
        if let Some(seen) = counts.borrow_mut().get_mut(reader) {
            *seen += line_feeds(bytes);
        }
        false
    };
    connection.follow(&request, count).await.map_err(|error| error.to_string())
}

async fn watch(socket: &Path, pids: [u32; 2]) -> Outcome<Watched> {
    sleep(Duration::from_secs(2)).await;
    let (began, mut most, first) = (Instant::now(), [0.0_f64; 2], last_line(socket)?);
    while began.elapsed() < PERIOD {
        for (most, pid) in most.iter_mut().zip(pids) {
            *most = most.max(process::resident(pid)?);
        }
        sleep(Duration::from_millis(200)).await;
    }
    let written = rate(last_line(socket)?.saturating_sub(first), began.elapsed());
    Ok(Watched { written, most })
}

fn rate(lines: usize, time: Duration) -> f64 {
    f64::from(u32::try_from(lines).unwrap_or(u32::MAX)) / time.as_secs_f64()
}

/// How many lines the container writes in a second.
async fn written(socket: &Path) -> Outcome<f64> {
    let (began, first) = (Instant::now(), last_line(socket)?);
    sleep(PERIOD / 2).await;
    Ok(rate(last_line(socket)?.saturating_sub(first), began.elapsed()))
}

/// The number of the last line that it has written.
fn last_line(socket: &Path) -> Outcome<usize> {
    let output = docker(socket).args(["logs", "--tail", "1", "busy"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').next().unwrap_or_default().trim().parse().unwrap_or_default())
}
