//! An agent, its state directory, its machine and its server.

use super::{
    driver::{Machine, TableDriver},
    server::{FakeServer, INSTALLATION, JOIN_TOKEN, TOKEN},
};
use domain::{
    clock::{Clock, Timestamp},
    fleet::protocol::InventoryReport,
    identity::Secret,
    ids::{ServerId, TaskId},
    observability::{Metric, Readings},
    scheduling::{TaskDriver, TaskSpec},
    text::Name,
    units::Resources,
};
use serde_json::{Value, json};
use starlink_agent::{
    agent::{Agent, Options, Periods, StartError, SystemClock},
    client::{PlainHttp, ServerAddress, Wire},
    containers::ContainerPeriods,
    drivers::Driver,
    meter::Gauge,
    runner::{Drivers, RunnerPeriods},
    session::{Patience, SessionPeriods},
    state::{Joined, StateDir, StateError},
    work::WorkId,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

/// The time of day, which can be set.
#[derive(Default)]
pub(crate) struct JumpyClock(AtomicI64);

impl JumpyClock {
    pub(crate) fn jump(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for JumpyClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + chrono::TimeDelta::seconds(self.0.load(Ordering::Relaxed))
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

pub(crate) struct Rig {
    pub(crate) server: FakeServer,
    pub(crate) machine: Arc<Machine>,
    pub(crate) clock: Arc<JumpyClock>,
    pub(crate) inventory: Arc<Mutex<InventoryReport>>,
    /// What the machine is measured to be at.
    pub(crate) readings: Arc<Mutex<Readings>>,
    pub(crate) periods: Periods,
    /// What runs work, if it is not the machine's table.
    pub(crate) driver: Option<Arc<dyn Driver>>,
    pub(crate) path: PathBuf,
    pub(crate) _directory: TempDir,
}

impl Rig {
    /// A machine that has joined.
    pub(crate) async fn joined() -> Self {
        let rig = Self::new().await;
        rig.join_by_hand(&rig.path);
        rig
    }

    /// A machine that has not.
    pub(crate) async fn new() -> Self {
        let directory = in_memory();
        Self {
            server: FakeServer::start().await,
            machine: Arc::default(),
            clock: Arc::default(),
            inventory: Arc::new(Mutex::new(inventory())),
            readings: Arc::new(Mutex::new(Readings::default().with(Metric::CpuUsage, 12.5))),
            periods: quick(),
            driver: None,
            path: directory.path().join("agent"),
            _directory: directory,
        }
    }

    pub(crate) fn join_by_hand(&self, path: &Path) {
        let state = StateDir::open(path).unwrap();
        let url = self.server.url();
        state
            .keep_joined(&Joined { url, server_id: ServerId(7), name: None, installation: None, place: None })
            .unwrap();
        state.prepare_token().unwrap().keep(&Secret::from(TOKEN.to_owned())).unwrap();
    }

    pub(crate) async fn options(&self, path: &Path) -> Options {
        let address = ServerAddress::parse(&self.server.url(), PlainHttp::Loopback).unwrap();
        let (inventory, readings) = (self.inventory.clone(), self.readings.clone());
        let gauge: Gauge = Box::new(move || *readings.lock().unwrap());
        let table = || -> Arc<dyn Driver> { Arc::new(TableDriver(self.machine.clone())) };
        let driver = self.driver.clone().unwrap_or_else(table);
        Options {
            state: state(path).await,
            wire: Wire::new(address, None).unwrap(),
            name: Some(Name::parse("edge-1").unwrap()),
            join_token: None,
            drivers: Drivers::new([(TaskDriver::Docker, driver)]),
            survey: Arc::new(move || {
                let found = inventory.lock().unwrap().clone();
                Box::pin(async move { Ok(found) })
            }),
            gauges: vec![gauge],
            clock: self.clock.clone(),
            periods: self.periods,
        }
    }

    /// Starts an agent on the state directory, as soon as the one before has let go of it.
    pub(crate) async fn agent(&self) -> Agent {
        Agent::start(self.options(&self.path).await).unwrap()
    }

    pub(crate) async fn joining(&self, token: &str) -> Result<Agent, StartError> {
        let join_token = Some(Secret::from(token.to_owned()));
        Agent::start(Options { join_token, ..self.options(&self.path).await })
    }

    pub(crate) fn good_token() -> &'static str {
        JOIN_TOKEN
    }

    /// What time it is for the agent.
    pub(crate) fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What the journal has, as text.
    pub(crate) fn journal(&self) -> String {
        std::fs::read_to_string(self.path.join("journal")).unwrap_or_default()
    }
}

/// A directory on a disk that is quick, where there is one: what is tested is not the disk.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The state directory, as soon as nobody else has it.
pub(crate) async fn state(path: &Path) -> StateDir {
    loop {
        match StateDir::open(path) {
            Err(StateError::InUse { .. }) => tokio::task::yield_now().await,
            state => return state.unwrap(),
        }
    }
}

pub(crate) fn quick() -> Periods {
    let milliseconds = Duration::from_millis;
    Periods {
        session: SessionPeriods {
            poll: Duration::from_secs(5),
            pause: milliseconds(2),
            refused: milliseconds(5),
            inventory: milliseconds(5),
            ping: milliseconds(50),
            containers: ContainerPeriods {
                gather: milliseconds(10),
                count: milliseconds(500),
                full: Duration::from_mins(1),
            },
        },
        runner: RunnerPeriods {
            grace: milliseconds(50),
            progress: milliseconds(1),
            sweep: milliseconds(20),
            find: Duration::from_secs(5),
            leave: milliseconds(10),
            patience: Patience { least: milliseconds(1), most: milliseconds(10) },
        },
        stop: Duration::from_secs(4),
        ..Periods::default()
    }
}

pub(crate) fn inventory() -> InventoryReport {
    InventoryReport {
        architecture: "x86_64".to_owned(),
        capacity: Resources { cpu_millis: 4000, memory_mib: 8192, storage_mib: 100_000, gpus: 0 },
        gpu_model: None,
        emulated_architectures: Vec::new(),
        drivers: vec![domain::fleet::Driver::Docker],
        os: None,
        kernel: None,
        agent_version: "0.1.0".to_owned(),
    }
}

pub(crate) fn work(task: i64) -> WorkId {
    WorkId { installation: INSTALLATION.into(), task: TaskId(task), attempt: 1 }
}

/// The order to run the first attempt of a task that behaves like this.
pub(crate) fn run(task: i64, behaviour: &str) -> Value {
    let mut spec = TaskSpec::new(Name::parse(behaviour).unwrap(), Resources::default());
    spec.driver = TaskDriver::Docker;
    spec.image = Some("alpine".to_owned());
    spec.env =
        domain::scheduling::Environment::parse([("PASSWORD".to_owned(), "hunter-55".to_owned())].into()).unwrap();
    let mut order = json!({"kind": "run_task", "task_id": task, "attempt": 1, "spec": spec});
    order["spec"]["newer"] = json!({"member": true});
    order
}
