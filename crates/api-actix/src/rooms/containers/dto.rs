//! Containers as they are asked for and shown.

use crate::rooms::dto;
use domain::{
    Error, Result,
    clock::Timestamp,
    containers::{
        Container, ContainerAction, ContainerFilter, ContainerState, Health, Insistence, Observed, ObservedMount,
        ObservedNetwork, ObservedPort, Usage,
    },
    error::Checks,
    fleet::{Architecture, operations::Operation},
    ids::{ServerId, TaskId},
    page::PageRequest,
    units::cores,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest that a program may have to end by itself, in seconds.
const MOST_GRACE: u32 = 3600;
/// The most servers that a list can be of.
const MOST_HOSTS: usize = 100;

fn states() -> Vec<&'static str> {
    ContainerState::ALL.iter().map(|state| state.as_str()).collect()
}

fn state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": states() })
}

fn optional_state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": states() })
}

fn optional_health(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<&str> = Health::ALL.iter().map(|health| health.as_str()).collect();
    json_schema!({ "type": ["string", "null"], "enum": words })
}

/// Filters of the list of containers.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ContainerListQuery {
    /// On this server; repeated, on one of these.
    #[serde(default)]
    #[schemars(length(max = MOST_HOSTS), inner(range(min = 1)))]
    host: Vec<i64>,
    /// In this state.
    #[serde(default)]
    #[schemars(schema_with = "optional_state")]
    state: Option<ContainerState>,
    /// Of this Compose project.
    #[schemars(length(max = 128))]
    project: Option<String>,
    /// That run this task.
    #[schemars(range(min = 1))]
    task_id: Option<i64>,
    /// `true`: only those that StarLink started; `false`: only the others.
    managed: Option<bool>,
    /// With this in their name or image.
    #[schemars(length(max = dto::MAX_KEYWORD))]
    keyword: Option<String>,
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

impl ContainerListQuery {
    pub(super) fn parse(self) -> Result<(ContainerFilter, PageRequest)> {
        let mut checks = Checks::default();
        if self.host.len() > MOST_HOSTS {
            checks.note("host", format!("must not be repeated more than {MOST_HOSTS} times"));
        }
        let hosts = self.host.into_iter().filter_map(|id| dto::reference(&mut checks, "host", Some(id)));
        let servers = hosts.map(ServerId).collect();
        let task_id = dto::reference(&mut checks, "task_id", self.task_id).map(TaskId);
        let project = dto::optional_line(&mut checks, "project", self.project);
        let keyword = dto::keyword(&mut checks, self.keyword);
        checks.finish()?;
        let Self { state, managed, .. } = self;
        let filter = ContainerFilter { servers, state, project, task_id, managed, keyword };
        Ok((filter, PageRequest::parse(self.limit, self.cursor.as_deref(), "-id")?))
    }
}

/// A container of a server's engine, as it was last reported.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Container")]
pub(super) struct ContainerView {
    id: i64,
    server_id: i64,
    /// What the engine calls it.
    engine_id: String,
    name: String,
    /// The image, as whoever made the container named it.
    image: String,
    /// The engine's id of the image.
    image_id: Option<String>,
    /// The digest by which a registry has the image.
    image_digest: Option<String>,
    /// What the image says that it was built for.
    architecture: Option<&'static str>,
    command: Vec<String>,
    #[schemars(schema_with = "state")]
    state: &'static str,
    /// What its own check says; `null` if it has none.
    #[schemars(schema_with = "optional_health")]
    health: Option<&'static str>,
    /// What its program ended with the last time, if it is not running.
    exit_code: Option<i64>,
    /// Whether the kernel ended it for want of memory.
    out_of_memory: bool,
    /// What the engine says went wrong.
    error: Option<String>,
    /// How often the engine has started it again by itself.
    restarts: u32,
    restart_policy: Option<String>,
    /// Whether StarLink started it; what it did not start is only touched with `force`.
    managed: bool,
    /// The task that it runs.
    task_id: Option<i64>,
    /// The number of the attempt of that task.
    attempt: Option<u32>,
    compose_project: Option<String>,
    compose_service: Option<String>,
    /// Whether it has a terminal.
    tty: bool,
    ports: Vec<PortView>,
    mounts: Vec<MountView>,
    networks: Vec<NetworkView>,
    labels: BTreeMap<String, String>,
    /// The most CPU that it may use, in cores; `null` without a limit.
    cpu_limit: Option<f64>,
    /// The most memory that it may use, in bytes; `null` without a limit.
    memory_limit_bytes: Option<i64>,
    /// What it uses; `null` if it does not run, or was not counted yet.
    usage: Option<UsageView>,
    created_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// When the agent last said, or confirmed, that all this is so.
    reported_at: Timestamp,
}

/// A port of a container.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ContainerPort")]
struct PortView {
    container_port: u16,
    protocol: String,
    /// The port of the server that leads there; `null` if none does.
    host_port: Option<u16>,
    host_ip: Option<String>,
}

/// A folder or volume that a container sees.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ContainerMount")]
struct MountView {
    /// `bind`, `volume`, `tmpfs` and so on.
    kind: String,
    source: String,
    target: String,
    read_only: bool,
}

/// A network that a container is on.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ContainerNetwork")]
struct NetworkView {
    name: String,
    address: Option<String>,
}

/// What a container uses at one moment.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ContainerUsage")]
pub(super) struct UsageView {
    /// When the engine counted.
    at: Timestamp,
    /// CPU in percent of one core, as `docker stats` shows it: four busy cores are 400.
    cpu_percent: Option<f64>,
    /// CPU in percent of the whole machine, 0 to 100.
    machine_cpu_percent: Option<f64>,
    /// Memory without files that the kernel gives back under pressure.
    memory_bytes: u64,
    /// The most that it may use: its limit, or the machine's memory.
    memory_limit_bytes: Option<u64>,
    /// Memory in percent of that.
    memory_percent: Option<f64>,
    /// Received since it started.
    network_in_bytes: u64,
    /// Sent since it started.
    network_out_bytes: u64,
    /// Read from disks since it started.
    disk_read_bytes: u64,
    /// Written to disks since it started.
    disk_write_bytes: u64,
    /// Its processes and threads.
    pids: Option<u64>,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        Self {
            at: usage.at,
            cpu_percent: usage.cpu_percent,
            machine_cpu_percent: usage.machine_cpu_percent,
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes: usage.memory_limit_bytes,
            memory_percent: usage.memory_percent,
            network_in_bytes: usage.network_in_bytes,
            network_out_bytes: usage.network_out_bytes,
            disk_read_bytes: usage.disk_read_bytes,
            disk_write_bytes: usage.disk_write_bytes,
            pids: usage.pids,
        }
    }
}

impl From<ObservedPort> for PortView {
    fn from(port: ObservedPort) -> Self {
        let ObservedPort { container_port, protocol, host_port, host_ip } = port;
        Self { container_port, protocol, host_port, host_ip }
    }
}

impl From<ObservedMount> for MountView {
    fn from(mount: ObservedMount) -> Self {
        let ObservedMount { kind, source, target, read_only } = mount;
        Self { kind, source, target, read_only }
    }
}

impl From<ObservedNetwork> for NetworkView {
    fn from(network: ObservedNetwork) -> Self {
        Self { name: network.name, address: network.address }
    }
}

impl From<Container> for ContainerView {
    fn from(container: Container) -> Self {
        let Container { id, server_id, observed, usage, reported_at } = container;
        let (compose_project, compose_service) =
            (observed.project().map(str::to_owned), observed.service().map(str::to_owned));
        let Observed { ports, mounts, networks, .. } = observed;
        Self {
            id: id.0,
            server_id: server_id.0,
            engine_id: observed.engine_id.into(),
            name: observed.name,
            image: observed.image,
            image_id: observed.image_id,
            image_digest: observed.image_digest,
            architecture: observed.architecture.map(Architecture::as_str),
            command: observed.command,
            state: observed.state.as_str(),
            health: observed.health.map(Health::as_str),
            exit_code: observed.exit_code,
            out_of_memory: observed.out_of_memory,
            error: observed.error,
            restarts: observed.restarts,
            restart_policy: observed.restart_policy,
            managed: observed.runs.is_some(),
            task_id: observed.runs.map(|runs| runs.task_id.0),
            attempt: observed.runs.map(|runs| runs.attempt),
            compose_project,
            compose_service,
            tty: observed.tty,
            ports: ports.into_iter().map(PortView::from).collect(),
            mounts: mounts.into_iter().map(MountView::from).collect(),
            networks: networks.into_iter().map(NetworkView::from).collect(),
            labels: observed.labels,
            cpu_limit: observed.cpu_limit_millis.map(cores),
            memory_limit_bytes: observed.memory_limit_bytes,
            usage: usage.map(UsageView::from),
            created_at: observed.created_at,
            started_at: observed.started_at,
            finished_at: observed.finished_at,
            reported_at,
        }
    }
}

/// An operation on a container or image, and how it ended.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeedRef")]
pub(super) struct DeedView {
    id: i64,
    /// `queued`, `running`, `succeeded`, `failed`, `cancelled`, `expired` or `unknown`.
    state: &'static str,
    /// Why it ended badly: a stable code.
    reason: Option<String>,
    /// The same in words: the engine's own, where there are any.
    detail: Option<String>,
}

impl From<&Operation> for DeedView {
    fn from(operation: &Operation) -> Self {
        let end = operation.result.as_ref();
        Self {
            id: operation.id.0,
            state: operation.state.as_str(),
            reason: end.and_then(|end| end.reason.clone()),
            detail: end.and_then(|end| end.detail.clone()),
        }
    }
}

/// A container to which something is done.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContainerActed")]
pub(super) struct ActedView {
    /// The container as it was last reported; `null` once it is gone.
    container: Option<ContainerView>,
    /// What its agent was told to do.
    operation: DeedView,
}

impl ActedView {
    pub(super) fn new(container: Option<Container>, operation: &Operation) -> Self {
        Self { container: container.map(ContainerView::from), operation: operation.into() }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ContainerOp")]
enum Op {
    /// Run its program.
    Start,
    /// Ask its program to end, and kill it if it does not.
    Stop,
    /// Stop it and start it.
    Restart,
    /// Freeze its processes.
    Pause,
    /// Let them go on.
    Unpause,
    /// Send its program a signal.
    Kill,
    /// Remove it; what it wrote is gone then.
    Remove,
}

/// Something to be done to a container.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ContainerAction")]
pub(super) struct ActionBody {
    op: Op,
    /// How.
    #[serde(default)]
    args: Option<ArgsBody>,
    /// Whether to do it to a container that StarLink did not start; that is recorded.
    #[serde(default)]
    force: Option<bool>,
}

/// How something is done to a container.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ContainerActionArgs")]
struct ArgsBody {
    /// Of `stop` and `restart`: how long its program has to end by itself, in seconds; the container's own if left out.
    #[schemars(range(min = 0, max = MOST_GRACE))]
    grace_seconds: Option<u32>,
    /// Of `kill`: the signal, such as `SIGHUP`; `SIGKILL` if left out.
    #[schemars(regex(pattern = "^SIG[A-Z0-9+-]{1,12}$"))]
    signal: Option<String>,
    /// Of `remove`: whether to kill it first, if it runs.
    kill: Option<bool>,
    /// Of `remove`: whether its volumes that have no name go with it, with all that is in them; they stay if left out.
    volumes: Option<bool>,
}

impl ActionBody {
    pub(super) fn parse(self) -> Result<(ContainerAction, Insistence)> {
        let ArgsBody { grace_seconds, signal, kill, volumes } = self.args.unwrap_or_default();
        let mut checks = Checks::default();
        let mut only_of = |field: &str, is_there: bool, ops: &[Op]| {
            if is_there && !ops.contains(&self.op) {
                checks.note(&format!("args.{field}"), "does not belong to this op");
            }
        };
        only_of("grace_seconds", grace_seconds.is_some(), &[Op::Stop, Op::Restart]);
        only_of("signal", signal.is_some(), &[Op::Kill]);
        only_of("kill", kill.is_some(), &[Op::Remove]);
        only_of("volumes", volumes.is_some(), &[Op::Remove]);
        if grace_seconds.is_some_and(|seconds| seconds > MOST_GRACE) {
            checks.note("args.grace_seconds", format!("must be from 0 to {MOST_GRACE}"));
        }
        if signal.as_deref().is_some_and(|signal| !is_signal(signal)) {
            checks.note("args.signal", "must be the name of a signal, such as SIGHUP");
        }
        checks.finish()?;
        let action = match self.op {
            Op::Start => ContainerAction::Start,
            Op::Stop => ContainerAction::Stop { grace_seconds },
            Op::Restart => ContainerAction::Restart { grace_seconds },
            Op::Pause => ContainerAction::Pause,
            Op::Unpause => ContainerAction::Unpause,
            Op::Kill => ContainerAction::Kill { signal },
            Op::Remove => ContainerAction::Remove { kill: kill.unwrap_or(false), volumes: volumes.unwrap_or(false) },
        };
        Ok((action, insistence(self.force)))
    }
}

fn is_signal(text: &str) -> bool {
    let rest = text.strip_prefix("SIG").unwrap_or_default();
    (1..=12).contains(&rest.len())
        && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-'))
}

/// Whether somebody insists.
pub(super) fn insistence(force: Option<bool>) -> Insistence {
    if force.unwrap_or(false) { Insistence::Force } else { Insistence::None }
}

/// How a container is removed.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ContainerDeleteQuery {
    /// Whether to remove a container that StarLink did not start; that is recorded.
    force: Option<bool>,
    /// Whether to kill it first, if it runs.
    kill: Option<bool>,
    /// Whether its volumes that have no name go with it, with all that is in them; they stay if left out.
    volumes: Option<bool>,
}

impl ContainerDeleteQuery {
    pub(super) fn parse(&self) -> (ContainerAction, Insistence) {
        let (kill, volumes) = (self.kill.unwrap_or(false), self.volumes.unwrap_or(false));
        (ContainerAction::Remove { kill, volumes }, insistence(self.force))
    }
}

/// The id of a server, which has to be given.
pub(super) fn host(id: i64) -> Result<ServerId> {
    if id >= 1 { Ok(ServerId(id)) } else { Err(Error::invalid("host", "must be a positive integer")) }
}
