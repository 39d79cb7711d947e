//! The machines of a mixed fleet, and what is known of their servers.

use super::{
    Site,
    tasks::{self, ARM64, Demand, Kind, RISCV64, X86_64},
};
use crate::{AGENT, support::walk};
use futures_util::future::join_all;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};
use test_engine::{not_run, or_not_run, registry::Registry};
use tests::{Agent, Backend, Machine, Machines, Parts};
use tokio::sync::RwLockReadGuard;

/// A machine, before it is one.
struct Plan {
    name: &'static str,
    kind: &'static Kind,
    emulates: &'static [&'static Kind],
}

const PLANS: [Plan; 4] = [
    Plan { name: "x86", kind: X86_64, emulates: &[] },
    Plan { name: "x86-emulating", kind: X86_64, emulates: &[ARM64, RISCV64] },
    Plan { name: "arm", kind: ARM64, emulates: &[] },
    Plan { name: "riscv", kind: RISCV64, emulates: &[] },
];
/// How many of the least of demands a server takes.
const UNITS: i64 = 8;

impl Plan {
    fn is_foreign(&self) -> bool {
        self.kind != X86_64
    }

    fn parts(&self) -> Parts {
        // What is native there has QEMU, too: the kernel cannot know.
        let native = self.is_foreign().then_some(self.kind);
        Parts {
            handlers: native.iter().chain(self.emulates).map(|kind| kind.machine).collect(),
            engine: native.map(|kind| built("foreign-engines", kind.word).join("dockerd")),
        }
    }

    /// One for the machine's architecture, unless it could not be built.
    fn agent(&self) -> PathBuf {
        let own = built("foreign", self.kind.word).join("agent");
        if self.is_foreign() && own.exists() { own } else { AGENT.into() }
    }
}

/// Where scripts put what they made for an architecture.
fn built(folder: &str, word: &str) -> PathBuf {
    Path::new(AGENT).ancestors().nth(2).unwrap().join(folder).join(word)
}

/// The program of the images.
fn program(kind: &Kind) -> PathBuf {
    built("foreign", if kind == X86_64 { "native" } else { kind.word }).join("program")
}

/// The machines, a registry that they reach, and a server.
pub(super) struct Bench {
    pub(super) registry: Registry,
    pub(super) site: Site,
    // The last to go.
    pub(super) machines: Machines,
}

impl Bench {
    /// Nothing, where there can be none, which was said then.
    pub(super) async fn start() -> Option<Self> {
        if std::env::consts::ARCH != X86_64.machine {
            not_run("the other machines of a mixed fleet are made for an x86_64 one");
            return None;
        }
        for kind in [ARM64, RISCV64] {
            // It was decided there that this may be so.
            if let Ok(why) = fs::read_to_string(built("foreign-engines", kind.word).join("missing")) {
                not_run(why.trim());
                return None;
            }
        }
        let machines = or_not_run(Self::machines())?;
        let registry = Registry::start_at(machines.address(), machines.free_port()).await?;
        tasks::push(&registry, program).await;
        let site = Site::start(&machines, Backend::Sqlite, &["--insecure-registry", &registry.host()]);
        Some(Self { registry, site, machines })
    }

    fn machines() -> Result<Machines, String> {
        let programs = [X86_64, ARM64, RISCV64].map(|kind| ("scripts/build-foreign-agents", program(kind)));
        let engines = PLANS.iter().filter_map(|plan| plan.parts().engine);
        let engines = engines.map(|engine| ("scripts/fetch-foreign-engines", engine));
        for (script, made) in programs.into_iter().chain(engines) {
            if !made.exists() {
                return Err(format!("{script} has not made {}", made.display()));
            }
        }
        let parts: Vec<Parts> = PLANS.iter().map(Plan::parts).collect();
        Machines::start(&parts).map_err(|why| format!("no mixed fleet could be set up: {why}"))
    }
}

/// A server of the fleet.
pub(super) struct Server {
    pub(super) id: i64,
    pub(super) name: &'static str,
    pub(super) kind: &'static Kind,
    pub(super) emulates: &'static [&'static Kind],
    agent: PathBuf,
}

/// All of them: their agents have joined.
pub(super) struct Fleet<'a> {
    pub(super) servers: Vec<Server>,
    /// The pool of those that are `x86_64`, and of no others.
    pub(super) pool: i64,
    /// The least demand, in cores.
    pub(super) unit: f64,
    agents: Vec<Agent>,
    machines: Vec<RwLockReadGuard<'a, Machine>>,
}

impl<'a> Fleet<'a> {
    pub(super) async fn join(bench: &Bench, machines: Vec<RwLockReadGuard<'a, Machine>>) -> Self {
        let programs: Vec<PathBuf> = PLANS.iter().map(Plan::agent).collect();
        let pool = bench.site.admin().post("/pools", json!({ "name": X86_64.word })).await.expect(201).id();
        let joining = PLANS.iter().zip(&machines).zip(&programs).map(|((plan, machine), program)| {
            let token = json!({ "pool_id": (!plan.is_foreign()).then_some(pool) });
            bench.site.agent_of(machine, plan.name, program, token)
        });
        let agents = join_all(joining).await;
        let rows = walk(&bench.site.admin(), "/servers").await;
        let mut servers = Vec::new();
        for (Plan { name, kind, emulates }, agent) in PLANS.into_iter().zip(programs) {
            let row = rows.iter().find(|row| row["name"] == name).unwrap();
            // What agents say of themselves is what the machines were made to be.
            let words: Vec<&str> = emulates.iter().map(|kind| kind.word).collect();
            assert_eq!((&row["architecture"], &row["emulated_architectures"]), (&json!(kind.word), &json!(words)));
            assert_eq!((&row["drivers"][0], &row["total_cpu"]), (&json!("docker"), &rows[0]["total_cpu"]), "{row}");
            servers.push(Server { id: row["id"].as_i64().unwrap(), name, kind, emulates, agent });
        }
        let cores = rows[0]["total_cpu"].as_f64().unwrap();
        Self { servers, pool, unit: cores / f64::from(i32::try_from(UNITS).unwrap()), agents, machines }
    }

    pub(super) fn server(&self, id: i64) -> &Server {
        self.servers.iter().find(|server| server.id == id).unwrap()
    }

    /// What is free on each server if all is.
    pub(super) fn room(&self) -> BTreeMap<i64, i64> {
        self.servers.iter().map(|server| (server.id, UNITS)).collect()
    }

    /// The servers that may take a task of this demand while they have so much free: native ones, if one of them has
    /// room for it; else, if that is allowed, those that emulate what it is for.
    pub(super) fn best(&self, demand: Demand, free: &BTreeMap<i64, i64>) -> Vec<&Server> {
        let kinds = demand.kinds();
        let with_room: Vec<&Server> = self.servers.iter().filter(|server| free[&server.id] >= demand.units).collect();
        let native: Vec<&Server> = with_room.iter().copied().filter(|server| kinds.contains(&server.kind)).collect();
        if !native.is_empty() || !demand.allow_emulation {
            return native;
        }
        let emulates = |server: &&Server| server.emulates.iter().any(|kind| kinds.contains(kind));
        with_room.into_iter().filter(emulates).collect()
    }

    /// What the servers are, to be read.
    pub(super) fn told(&self) -> String {
        let mut text = String::from("server        its kind emulates        its agent is a program for\n");
        for Server { name, kind, emulates, agent, .. } in &self.servers {
            let words: Vec<&str> = emulates.iter().map(|kind| kind.word).collect();
            let program = if agent == Path::new(AGENT) { X86_64 } else { kind };
            let _ = writeln!(text, "{name:<13} {:<8} {:<15} {}", kind.word, words.join(", "), program.word);
        }
        text
    }

    pub(super) async fn check_at_rest(&self, site: &Site) {
        let all: Vec<(&Machine, &Agent)> =
            self.machines.iter().zip(&self.agents).map(|(machine, agent)| (&**machine, agent)).collect();
        site.check_at_rest(&all).await;
    }
}
