//! Agents that are built for other architectures, as they run under QEMU. `scripts/build-foreign-agents` builds them.

use super::support::{
    Site, Tally, attempt, becomes, check_at_rest, ended, join_token, native, server_becomes, shell, shown,
};
use crate::{AGENT, support::walk};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use test_engine::emulation::Emulation;
use tests::{Agent, AgentOptions, Answer, Backend, Client, eventually};

/// An architecture, and what kernels call it.
struct Foreign {
    architecture: &'static str,
    machine: &'static str,
}

const ARM64: Foreign = Foreign { architecture: "arm64", machine: "aarch64" };
const RISCV64: Foreign = Foreign { architecture: "riscv64", machine: "riscv64" };

macro_rules! on_each {
    ($($name:ident),+ $(,)?) => {
        mod on_arm64 {
            $(#[tokio::test] async fn $name() { super::$name(&super::ARM64).await; })+
        }
        mod on_riscv64 {
            $(#[tokio::test] async fn $name() { super::$name(&super::RISCV64).await; })+
        }
    };
}

on_each!(
    an_agent_says_what_it_is_and_runs_what_is_for_that,
    what_it_runs_outlives_it,
    a_changed_architecture_is_recorded,
    a_machine_that_emulates_it_runs_what_is_for_it_if_that_is_allowed,
    what_could_not_be_run_elsewhere_is_run_there,
);

/// A server, and what is needed to start agents for another architecture at it.
struct Bench {
    site: Site,
    agent: PathBuf,
    program: PathBuf,
    tally: Tally,
    // The last to go: what runs needs it.
    emulation: Emulation,
}

impl Bench {
    /// Nothing, where there can be none.
    fn start(foreign: &Foreign) -> Option<Self> {
        let built = Path::new(AGENT).ancestors().nth(2).unwrap().join("foreign").join(foreign.architecture);
        // It was decided there that this may be so.
        if let Ok(why) = fs::read_to_string(built.join("missing")) {
            test_engine::not_run(why.trim());
            return None;
        }
        test_engine::or_not_run(Self::try_start(foreign, &built))
    }

    fn try_start(foreign: &Foreign, built: &Path) -> Result<Self, String> {
        let agent = built.join("agent");
        if !agent.exists() {
            return Err(format!("scripts/build-foreign-agents has built no agent for {}", foreign.architecture));
        }
        let emulation = Emulation::start(&[foreign.machine])?;
        let tally = Tally::new();
        // Where the user that it runs as reaches it.
        let program = tally.file("program");
        // By another process: nobody can run what is open for writing, also in what other tests are just starting.
        assert!(Command::new("cp").arg(built.join("program")).arg(&program).status().unwrap().success());
        Ok(Self { site: Site::start(Backend::Sqlite), agent, program, tally, emulation })
    }

    /// An agent that has joined, where there is QEMU.
    async fn agent(&self, name: &str, program: &Path) -> (Agent, i64) {
        let token = join_token(&self.site.admin(), json!({})).await;
        let options = AgentOptions { program: program.to_owned(), ..self.site.options(name) };
        let agent = Agent::join_through(self.emulation.prefix(), options, &token);
        let id = self.site.connected(&agent).await;
        (agent, id)
    }

    /// Posts a task that needs this architecture and runs the program, which ends with this code; its id.
    async fn task(&self, architecture: &str, code: &str, arguments: &[&Path], more: Value) -> i64 {
        let program = [&self.program, &self.tally.file(code)].map(|path| path.display().to_string());
        let mut command = vec![program[0].clone(), code.to_owned(), program[1].clone()];
        command.extend(arguments.iter().map(|argument| argument.display().to_string()));
        let mut body = json!({
            "name": "t", "driver": "exec", "command": command, "required_cpu": 0.1,
            "required_architecture": architecture,
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.site.admin().post("/tasks", body).await.expect(201).id()
    }

    /// The task has ended there with this code, in its first attempt and its first run.
    async fn check_end(&self, foreign: &Foreign, task: i64, server: i64, code: &str) {
        let admin = self.site.admin();
        let end = ended(&admin, task).await;
        assert_eq!((end.at("/status"), end.at("/reason")), (json!("failed"), json!("exit_code")), "{}", end.text);
        assert_eq!((end.at("/server_id"), end.at("/attempt")), (json!(server), json!(1)), "{}", end.text);
        assert_eq!(attempt(&admin, task).await["exit_code"].to_string(), code);
        assert_eq!(self.tally.runs(code), 1);
        assert_eq!(output(&admin, task).await, format!("{}\n", foreign.machine));
    }
}

async fn output(admin: &Client, task: i64) -> String {
    admin.get(&format!("/tasks/{task}/logs?stream=stdout")).await.expect(200).text
}

async fn row(admin: &Client, server: i64) -> Answer {
    admin.get(&format!("/servers/{server}")).await.expect(200)
}

/// Waits until there are reasons why a task waits; their codes.
async fn waits(admin: &Client, task: i64) -> Vec<Value> {
    eventually("a reason to wait", async || {
        let reasons = shown(admin, task).await.at("/pending_reasons");
        let codes: Vec<Value> = reasons.as_array()?.iter().map(|reason| reason["code"].clone()).collect();
        (!codes.is_empty()).then_some(codes)
    })
    .await
}

async fn an_agent_says_what_it_is_and_runs_what_is_for_that(foreign: &Foreign) {
    let Some(bench) = Bench::start(foreign) else { return };
    let admin = bench.site.admin();
    let (agent, there) = bench.agent("foreign", &bench.agent).await;
    let said = row(&admin, there).await;
    assert_eq!((said.at("/architecture"), said.at("/drivers")), (json!(foreign.architecture), json!(["exec"])));
    let needs = json!({ "required_architecture": native(), "allow_emulation": true });
    let task = shell(&admin, "uname -m", needs).await;
    assert_eq!(waits(&admin, task).await, ["architecture_mismatch"], "there is no such machine yet");
    let local = bench.site.agent("native").await;
    let here = bench.site.connected(&local).await;
    let end = ended(&admin, task).await;
    assert_eq!((end.at("/status"), end.at("/server_id")), (json!("completed"), json!(here)), "{}", end.text);
    assert_eq!(output(&admin, task).await.trim(), std::env::consts::ARCH);
    let task = bench.task(foreign.architecture, "7", &[], json!({})).await;
    bench.check_end(foreign, task, there, "7").await;
    check_at_rest(&admin, &[agent.leftovers(), local.leftovers()]).await;
}

async fn what_it_runs_outlives_it(foreign: &Foreign) {
    let Some(bench) = Bench::start(foreign) else { return };
    let admin = bench.site.admin();
    let (mut agent, there) = bench.agent("foreign", &bench.agent).await;
    let gates = ["11", "12"].map(|code| bench.tally.file(&format!("gate-{code}")));
    let mut tasks = Vec::new();
    for (code, gate) in ["11", "12"].into_iter().zip(&gates) {
        tasks.push(bench.task(foreign.architecture, code, &[gate], json!({})).await);
        bench.tally.has_run(code).await;
        becomes(&admin, *tasks.last().unwrap(), "running").await;
    }
    agent.kill();
    assert!(agent.leftovers().running().len() >= 4, "two shims, and what they run");
    // One ends while nobody looks, the other one after somebody does again.
    fs::write(&gates[0], "").unwrap();
    let mark = format!("-{}-1", tasks[0]);
    eventually("the first to end", async || {
        let left = agent.leftovers().running();
        (!left.iter().any(|(_, words)| words.contains(&mark))).then_some(())
    })
    .await;
    agent.restart();
    bench.check_end(foreign, tasks[0], there, "11").await;
    assert_eq!(shown(&admin, tasks[1]).await.at("/status"), "running");
    fs::write(&gates[1], "").unwrap();
    bench.check_end(foreign, tasks[1], there, "12").await;
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

async fn a_changed_architecture_is_recorded(foreign: &Foreign) {
    let Some(bench) = Bench::start(foreign) else { return };
    let admin = bench.site.admin();
    let mut first = bench.site.agent("edge").await;
    let id = bench.site.connected(&first).await;
    assert_eq!(row(&admin, id).await.at("/architecture"), native());
    first.terminate();
    let options = AgentOptions { program: bench.agent.clone(), ..bench.site.options("edge") };
    let second = Agent::run_through(bench.emulation.prefix(), options, &first.state_dir());
    eventually("another architecture", async || {
        (row(&admin, id).await.at("/architecture") == foreign.architecture).then_some(())
    })
    .await;
    server_becomes(&admin, id, "online").await;
    let reports = walk(&admin, &format!("/audit/logs?target=server:{id}&action=server.report")).await;
    let message = format!("its architecture was {} and is {}", native(), foreign.architecture);
    let recorded: Vec<&Value> = reports.iter().filter(|report| report["message"] == message).collect();
    assert_eq!(recorded.len(), 1, "{reports:?}");
    // From now on it is what it says.
    let task = bench.task(native(), "5", &[], json!({})).await;
    assert_eq!(waits(&admin, task).await, ["architecture_mismatch"]);
    check_at_rest(&admin, &[second.leftovers()]).await;
}

async fn a_machine_that_emulates_it_runs_what_is_for_it_if_that_is_allowed(foreign: &Foreign) {
    let Some(bench) = Bench::start(foreign) else { return };
    let admin = bench.site.admin();
    let (agent, id) = bench.agent("emulating", Path::new(AGENT)).await;
    let said = row(&admin, id).await;
    assert_eq!(said.at("/architecture"), native());
    let emulated = said.at("/emulated_architectures");
    assert!(emulated.as_array().unwrap().contains(&json!(foreign.architecture)), "{}", said.text);
    let refused = bench.task(foreign.architecture, "3", &[], json!({})).await;
    assert_eq!(waits(&admin, refused).await, ["emulation_not_allowed"]);
    let task = bench.task(foreign.architecture, "4", &[], json!({ "allow_emulation": true })).await;
    bench.check_end(foreign, task, id, "4").await;
    assert_eq!((shown(&admin, refused).await.at("/status"), bench.tally.runs("3")), (json!("pending"), 0));
    check_at_rest(&admin, &[agent.leftovers()]).await;
}

async fn what_could_not_be_run_elsewhere_is_run_there(foreign: &Foreign) {
    let Some(bench) = Bench::start(foreign) else { return };
    let admin = bench.site.admin();
    let local = bench.site.agent("native").await;
    let here = bench.site.connected(&local).await;
    // Nobody has said what the program is for.
    let task = bench.task("universal", "9", &[], json!({ "max_attempts": 2 })).await;
    assert_eq!(waits(&admin, task).await, ["architecture_barred"]);
    let first = attempt(&admin, task).await;
    assert_eq!((&first["server_id"], &first["reason"]), (&json!(here), &json!("exec_format")), "{first}");
    let (agent, there) = bench.agent("foreign", &bench.agent).await;
    let end = ended(&admin, task).await;
    assert_eq!((end.at("/server_id"), end.at("/attempt")), (json!(there), json!(2)), "{}", end.text);
    assert_eq!(end.at("/barred_architectures"), json!([native()]));
    assert_eq!((attempt(&admin, task).await["exit_code"].clone(), bench.tally.runs("9")), (json!(9), 1));
    assert_eq!(output(&admin, task).await, format!("{}\n", foreign.machine));
    check_at_rest(&admin, &[agent.leftovers(), local.leftovers()]).await;
}
