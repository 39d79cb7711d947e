//! Tasks and attempts as they are shown, and the filters over them.

use super::{plan::NearestView, words};
use crate::rooms::dto;
use domain::{
    Result,
    clock::Timestamp,
    error::Checks,
    fleet::{Architecture, operations::Operation},
    ids::{PoolId, ServerId},
    page::PageRequest,
    scheduling::{
        Attempt, Mount, PendingReason, PortMapping, Success, Task, TaskDetails, TaskFilter, TaskSpec, TaskStatus,
    },
    units::{cores, gib},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Filters of the list of tasks.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct TaskListQuery {
    /// In this status.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_status")]
    status: Option<TaskStatus>,
    /// On this server, now or last.
    #[schemars(range(min = 1))]
    server_id: Option<i64>,
    /// That must run in this pool.
    #[schemars(range(min = 1))]
    pool_id: Option<i64>,
    /// With this text, whatever its case, in the name or image.
    #[schemars(length(max = dto::MAX_KEYWORD))]
    keyword: Option<String>,
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

impl TaskListQuery {
    /// The domain's words for it.
    pub(super) fn parse(self) -> Result<(TaskFilter, PageRequest)> {
        let mut checks = Checks::default();
        let server_id = dto::reference(&mut checks, "server_id", self.server_id).map(ServerId);
        let pool_id = dto::reference(&mut checks, "pool_id", self.pool_id).map(PoolId);
        let keyword = dto::keyword(&mut checks, self.keyword);
        checks.finish()?;
        let filter = TaskFilter { status: self.status, server_id, pool_id, keyword };
        Ok((filter, PageRequest::parse(self.limit, self.cursor.as_deref(), "-id")?))
    }
}

/// A task, and what is under way for it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TaskUnderway")]
pub(super) struct UnderwayView {
    #[serde(flatten)]
    task: TaskView,
    /// What its agent was told to do; `null` if that is not known any more.
    operation: Option<OperationRef>,
}

/// An operation, as far as one has to know to ask for it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OperationRef {
    id: i64,
    state: &'static str,
}

impl UnderwayView {
    /// A task with its operation.
    pub(super) fn new(task: &Task, operation: Option<&Operation>) -> Self {
        let operation = operation.map(|operation| OperationRef { id: operation.id.0, state: operation.state.as_str() });
        Self { task: TaskView::from(task), operation }
    }
}

/// How a task ended.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct TaskCompleteQuery {
    /// Whether it ended well; it did if left out.
    success: Option<bool>,
}

impl TaskCompleteQuery {
    /// The domain's word for it.
    pub(super) fn success(&self) -> Success {
        if self.success.unwrap_or(true) { Success::Yes } else { Success::No }
    }
}

/// How a task is ended.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct TaskCancelQuery {
    /// Whether to give up what contact is lost with, without waiting for its agent; not if left out.
    pub(super) force: Option<bool>,
}

/// A port of the container that is reachable from outside.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PortMapping")]
pub(super) struct PortView {
    /// Inside.
    container_port: u16,
    /// On the server; any free one if `null`.
    host_port: Option<u16>,
    /// What is carried over it.
    #[schemars(schema_with = "words::protocol")]
    protocol: &'static str,
}

impl From<&PortMapping> for PortView {
    fn from(port: &PortMapping) -> Self {
        let PortMapping { container_port, host_port, protocol } = *port;
        Self { container_port, host_port, protocol: protocol.as_str() }
    }
}

/// A folder or volume of the server that the work sees.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Mount")]
pub(super) struct MountView {
    source: String,
    target: String,
    read_only: bool,
}

impl From<&Mount> for MountView {
    fn from(mount: &Mount) -> Self {
        let Mount { source, target, read_only } = mount.clone();
        Self { source, target, read_only }
    }
}

/// One reason why a task is pending.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PendingReason")]
pub(super) struct PendingReasonView {
    /// The stable code, such as `insufficient_cpu`, or `no_servers`.
    code: &'static str,
    /// How many servers refuse for it, among others perhaps.
    servers: usize,
    /// The one of them that is nearest to taking the task.
    nearest: Option<NearestView>,
    /// What that server says, as the rest of a sentence that begins with its name.
    detail: String,
}

impl From<PendingReason> for PendingReasonView {
    fn from(reason: PendingReason) -> Self {
        let PendingReason { code, servers, nearest, detail } = reason;
        Self { code, servers, nearest: nearest.map(NearestView::from), detail }
    }
}

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Task")]
pub(in crate::rooms) struct TaskView {
    id: i64,
    name: String,
    required_architecture: &'static str,
    required_cpu: f64,
    required_memory: f64,
    required_storage: f64,
    required_gpu: i64,
    #[schemars(schema_with = "words::kind")]
    kind: &'static str,
    #[schemars(schema_with = "words::driver")]
    driver: &'static str,
    image: Option<String>,
    /// The digest by which its registry has the image. It is that for all attempts, whatever its tag comes to mean.
    image_digest: Option<String>,
    /// What the image was built for, such as `linux/amd64`; empty if it does not say, `null` if nobody looked.
    image_platforms: Option<Vec<String>>,
    /// Whether it is looked up what the image was built for, if there is one.
    verify_image: bool,
    command: Vec<String>,
    /// Each value is `(hidden)`.
    env: BTreeMap<String, String>,
    ports: Vec<PortView>,
    mounts: Vec<MountView>,
    pool_id: Option<i64>,
    /// The server that it must run on; `null` if any will do.
    required_server_id: Option<i64>,
    labels: BTreeMap<String, String>,
    allow_emulation: bool,
    priority: u8,
    deadline: Option<Timestamp>,
    #[schemars(schema_with = "words::restart")]
    restart: &'static str,
    max_attempts: u32,
    timeout_seconds: Option<u64>,
    grace_seconds: Option<u64>,
    log_limit: Option<f64>,
    metadata: BTreeMap<String, Value>,
    #[schemars(schema_with = "words::status")]
    status: &'static str,
    /// The number of the newest attempt; 0 before the first.
    attempt: u32,
    /// The server it is on, or was on last.
    server_id: Option<i64>,
    /// Why it is in this status: a stable code, where there is something to say.
    reason: Option<String>,
    /// The same in words, with what else is known.
    detail: Option<String>,
    /// Architectures on which attempts ended with an exec format error: it is not placed there again until it is
    /// retried.
    barred_architectures: Vec<&'static str>,
    /// Why no server takes it, nearest miss first; empty while it is about to be placed. Told of a pending task that is
    /// looked at by itself, otherwise `null`.
    pending_reasons: Option<Vec<PendingReasonView>>,
    revision: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// When the newest attempt got its server.
    scheduled_at: Option<Timestamp>,
    /// When the newest attempt started.
    started_at: Option<Timestamp>,
    /// When it came to its end.
    finished_at: Option<Timestamp>,
}

impl From<&Task> for TaskView {
    fn from(task: &Task) -> Self {
        let spec: &TaskSpec = &task.spec;
        let (hidden, truth) = (spec.env.redacted(), spec.image_truth.as_ref());
        Self {
            id: task.id.0,
            name: spec.name.as_str().to_owned(),
            required_architecture: spec.architecture.as_str(),
            required_cpu: cores(spec.demand.cpu_millis),
            required_memory: gib(spec.demand.memory_mib),
            required_storage: gib(spec.demand.storage_mib),
            required_gpu: spec.demand.gpus,
            kind: spec.kind.as_str(),
            driver: spec.driver.as_str(),
            image: spec.image.clone(),
            image_digest: truth.and_then(|truth| truth.digest.clone()),
            image_platforms: truth.map(|truth| truth.platforms.iter().map(ToString::to_string).collect()),
            verify_image: spec.verify_image,
            command: spec.command.clone(),
            env: hidden.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            ports: spec.ports.iter().map(PortView::from).collect(),
            mounts: spec.mounts.iter().map(MountView::from).collect(),
            pool_id: spec.pool_id.map(|pool| pool.0),
            required_server_id: spec.required_server_id.map(|server| server.0),
            labels: dto::shown(&spec.labels),
            allow_emulation: spec.allow_emulation,
            priority: spec.priority.get(),
            deadline: spec.deadline,
            restart: spec.restart.as_str(),
            max_attempts: spec.max_attempts,
            timeout_seconds: spec.timeout_seconds,
            grace_seconds: spec.grace_seconds,
            log_limit: spec.log_limit_mib.map(gib),
            metadata: spec.metadata.clone(),
            status: task.status.as_str(),
            attempt: task.attempt,
            server_id: task.server_id.map(|server| server.0),
            reason: task.reason.clone(),
            detail: task.detail.clone(),
            barred_architectures: task.barred.iter().map(Architecture::as_str).collect(),
            pending_reasons: None,
            revision: task.revision,
            created_at: task.created_at,
            updated_at: task.updated_at,
            scheduled_at: task.scheduled_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
        }
    }
}

impl From<TaskDetails> for TaskView {
    fn from(details: TaskDetails) -> Self {
        let reasons = details.pending_reasons.into_iter().map(PendingReasonView::from).collect();
        let pending = details.task.status == TaskStatus::Pending;
        Self { pending_reasons: pending.then_some(reasons), ..Self::from(&details.task) }
    }
}

/// One try to run a task on one server.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Attempt")]
pub(super) struct AttemptView {
    /// Counts the attempts of the task from 1.
    number: u32,
    server_id: i64,
    #[schemars(schema_with = "words::attempt_status")]
    status: &'static str,
    /// What its program ended with.
    exit_code: Option<i64>,
    /// The signal that ended its program.
    signal: Option<i64>,
    /// Why it ended: a stable code, where there is something to say.
    reason: Option<String>,
    /// Whether what it asked for is still reserved on its server.
    held: bool,
    /// When it got its server.
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            number: attempt.number,
            server_id: attempt.server_id.0,
            status: attempt.status.as_str(),
            exit_code: attempt.exit_code,
            signal: attempt.signal,
            reason: attempt.reason,
            held: attempt.held,
            created_at: attempt.created_at,
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
        }
    }
}
