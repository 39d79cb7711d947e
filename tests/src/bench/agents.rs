//! Agents at work, and at rest: real ones, as processes beside the server.

use crate::{
    Outcome,
    http::{Connection, Target},
    process,
    site::Site,
    table::{Row, median, pair},
};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use test_engine::{Engine, images::BUSYBOX};
use tests::{Agent, AgentOptions, Server};
use tokio::time::sleep;

const TASKS: u32 = 1_000;
const AGENTS: u32 = 4;
const ROUNDS: usize = 15;
/// How long an agent is watched at rest.
const PERIOD: Duration = Duration::from_mins(1);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// A server and its agents.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) target: Target,
    connection: Connection,
    pub(crate) agents: Vec<Agent>,
}

impl Bench {
    /// A server with so many agents; they find an engine at `socket`, if anybody does.
    pub(crate) async fn start(site: &Site, agents: u32, socket: Option<&Path>) -> Outcome<Self> {
        let server = site.start()?;
        let target = Target::of(&server)?;
        let mut connection = Connection::open(&target).await?;
        let body = json!({ "name": "bench", "max_uses": agents }).to_string();
        connection.expect(&target.post("/enrollments", &body), 201).await?;
        let made = connection.json()?;
        let token = made["token"].as_str().ok_or("no token")?;
        let agents: Vec<Agent> =
            (0..agents).map(|number| agent(&server, number, token, socket)).collect::<Outcome<_>>()?;
        let mut bench = Self { server, target, connection, agents };
        let count = bench.agents.len();
        bench.wait(&format!("/servers?status=online&limit={count}"), |found| items(found) == count).await?;
        // A machine is online from the moment it has joined, and can be asked something a moment later.
        while !bench.agents.iter().all(Agent::has_had_a_session) {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(bench)
    }

    /// Asks until the answer is as it should be.
    pub(crate) async fn wait(&mut self, path: &str, good: impl Fn(&Value) -> bool) -> Outcome<Value> {
        let began = Instant::now();
        loop {
            self.connection = Connection::open(&self.target).await?;
            self.connection.expect(&self.target.get(path), 200).await?;
            let found = self.connection.json()?;
            if good(&found) {
                return Ok(found);
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{path} stays {found}").into());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn post(&mut self, path: &str, body: &Value, status: u16) -> Outcome<Value> {
        self.connection.expect(&self.target.post(path, &body.to_string()), status).await?;
        self.connection.json()
    }

    fn cpu(&self) -> Outcome<Duration> {
        process::cpu(self.server.pid())
    }
}

fn items(found: &Value) -> usize {
    found.as_array().map_or(0, Vec::len)
}

fn agent(server: &Server, number: u32, token: &str, socket: Option<&Path>) -> Outcome<Agent> {
    let socket = socket.map(|socket| ["--docker-socket".to_owned(), socket.display().to_string()]);
    let options = AgentOptions {
        program: std::env::current_exe()?.with_file_name("agent-under-test"),
        server: server.base.clone(),
        name: format!("bench-{number}"),
        state_dir: None,
        arguments: std::iter::once("--allow-exec".to_owned()).chain(socket.into_iter().flatten()).collect(),
    };
    Ok(Agent::join(options, token))
}

/// What an agent needs that has nothing to do.
pub(crate) async fn at_rest(site: &Site) -> Outcome<Vec<Row>> {
    let bench = Bench::start(site, 1, None).await?;
    let pid = bench.agents.first().ok_or("no agent")?.pid();
    // What belongs to the start is over by then.
    sleep(Duration::from_secs(5)).await;
    let before = process::cpu(pid)?;
    sleep(PERIOD).await;
    let used = process::cpu(pid)?.saturating_sub(before);
    let row = |measurement: &str, result: String, aim| Row {
        measurement: measurement.to_owned(),
        result,
        wall: String::new(),
        cpu: String::new(),
        aim,
    };
    Ok(vec![
        row("an agent at rest, memory", format!("{:.1} MiB", process::resident(pid)?), "< 20 MiB"),
        row(
            "an agent at rest, CPU",
            format!("{:.3} % of a core", used.as_secs_f64() / PERIOD.as_secs_f64() * 100.0),
            "< 0.2 % of a core",
        ),
    ])
}

/// Many processes that do nothing, through several agents: from the first post to the last end.
pub(crate) async fn processes(site: &Site) -> Outcome<Row> {
    let mut bench = Bench::start(site, AGENTS, None).await?;
    let (cpu, began) = (bench.cpu()?, Instant::now());
    let body = json!({
        "name": "true", "driver": "exec", "command": ["/bin/true"], "required_cpu": 0.01, "required_memory": 0.01,
    });
    for _ in 0..TASKS {
        bench.post("/tasks", &body, 201).await?;
    }
    let posted = began.elapsed();
    for status in ["pending", "scheduled", "running"] {
        bench.wait(&format!("/tasks?limit=1&status={status}"), |found| items(found) == 0).await?;
    }
    let (wall, cpu) = (began.elapsed(), bench.cpu()?.saturating_sub(cpu));
    let failed = bench.wait("/tasks?limit=1&status=failed", |_| true).await?;
    if items(&failed) > 0 {
        return Err(format!("a task failed: {failed}").into());
    }
    Ok(Row {
        measurement: format!("{TASKS} processes `true` through {AGENTS} agents, {}", site.name),
        result: format!("{:.0}/s", f64::from(TASKS) / wall.as_secs_f64()),
        wall: format!("posted in {:.2} s", posted.as_secs_f64()),
        cpu: crate::table::ms(cpu / TASKS),
        aim: "",
    })
}

/// A container from its post until it runs, beside the engine's own client, by turns. Says why, if there is no engine.
pub(crate) async fn containers(site: &Site) -> Outcome<Vec<Row>> {
    let engine = match Engine::start(&[], &[BUSYBOX]) {
        Ok(engine) => engine,
        Err(why) => {
            let measurement = format!("a container from post to running: not measured, {why}");
            return Ok(vec![Row { measurement, ..Row::default() }]);
        }
    };
    let socket = engine.socket();
    let mut bench = Bench::start(site, 1, Some(&socket)).await?;
    bench
        .wait("/servers", |found| found[0]["drivers"].as_array().is_some_and(|all| all.contains(&json!("docker"))))
        .await?;
    let body = json!({
        "name": "pause", "driver": "docker", "image": BUSYBOX, "required_architecture": "x86_64",
        "command": ["/bin/busybox", "sleep", "600"], "required_cpu": 0.1, "required_memory": 0.05,
        "grace_seconds": 0,
    });
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let task = bench.post("/tasks", &body, 201).await?;
        let path = format!("/tasks/{}", task["id"]);
        bench.wait(&path, |task| task["status"] != "pending" && task["status"] != "scheduled").await?;
        ours.push(began.elapsed());
        bench.connection.ask(&bench.target.post(&format!("{path}/cancel"), "")).await?;
        bench.wait(&path, |task| task["status"] == "cancelled").await?;
        theirs.push(docker_run(&socket)?);
    }
    let row = |who: &str, times: &[Duration]| {
        let middle = median(times, |time| *time).unwrap_or_default();
        let (least, most) = (times.iter().min().copied(), times.iter().max().copied());
        Row {
            measurement: format!("a container from post to running, {who}"),
            result: format!("{:.0} ms", middle.as_secs_f64() * 1000.0),
            wall: pair(least.unwrap_or_default(), most.unwrap_or_default()),
            cpu: String::new(),
            aim: if who == "StarLink" { "docker run -d + 5 %" } else { "least / most" },
        }
    };
    Ok(vec![row("StarLink", &ours), row("`docker run -d`", &theirs)])
}

/// The engine's own client.
pub(crate) fn docker(socket: &Path) -> Command {
    let mut command = Command::new("docker");
    command.env("DOCKER_HOST", format!("unix://{}", socket.display())).stderr(Stdio::null());
    // What every engine of these years speaks; a newer client does not find that out by itself.
    command.env("DOCKER_API_VERSION", "1.41");
    command
}

/// How long `docker run -d` takes for the same container.
fn docker_run(socket: &Path) -> Outcome<Duration> {
    let docker = || docker(socket);
    let began = Instant::now();
    let arguments =
        ["run", "-d", "--init", "--cpus", "0.1", "--memory", "52m", BUSYBOX, "/bin/busybox", "sleep", "600"];
    let made = docker().args(arguments).output()?;
    let time = began.elapsed();
    if !made.status.success() {
        return Err("docker run had no success".into());
    }
    let id = String::from_utf8(made.stdout)?;
    docker().args(["rm", "-f", id.trim()]).stdout(Stdio::null()).status()?;
    Ok(time)
}
