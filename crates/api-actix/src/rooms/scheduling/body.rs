//! Tasks as they are sent: cores and GiB outside, millicores and MiB inside. Demand is rounded up, so that a task never
//! gets less than it asked for.

use super::{
    limits::{self, IMAGE, MAX_GRACE, MAX_IMAGE, MAX_MAPPINGS, MAX_TIMEOUT, MAX_WORD, MAX_WORDS},
    schemas, words,
};
use crate::rooms::dto;
use domain::{
    Error, Result,
    clock::Timestamp,
    error::Checks,
    ids::{PoolId, ServerId},
    scheduling::{
        ArchitectureNeed, Environment, MAX_ATTEMPTS, Mount, PortMapping, Priority, Protocol, RestartPolicy, TaskDriver,
        TaskKind, TaskSpec,
    },
    text::{self, Name, Tags},
    units::{Resources, Rounding, cpu_millis, mib},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A port of the container that is reachable from outside.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PortMapping")]
pub(super) struct PortBody {
    /// Inside.
    #[schemars(range(min = 1, max = 65_535))]
    container_port: i64,
    /// On the server; any free one if left out.
    #[schemars(range(min = 1, max = 65_535))]
    host_port: Option<i64>,
    /// What is carried over it; `tcp` if left out.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_protocol")]
    protocol: Option<Protocol>,
}

impl PortBody {
    fn parse(self, checks: &mut Checks, at: &str) -> Option<PortMapping> {
        let container_port = checks.take(&format!("{at}.container_port"), limits::port(self.container_port));
        let host_port = self.host_port.map(limits::port).transpose();
        let host_port = checks.take(&format!("{at}.host_port"), host_port);
        let (container_port, host_port) = container_port.zip(host_port)?;
        Some(PortMapping { container_port, host_port, protocol: self.protocol.unwrap_or(Protocol::Tcp) })
    }
}

/// A folder or volume of the server that the work sees.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Mount")]
pub(super) struct MountBody {
    /// On the server: an absolute path, or the name of a volume.
    #[schemars(schema_with = "schemas::path")]
    source: String,
    /// Where the work sees it: an absolute path.
    #[schemars(schema_with = "schemas::absolute_path")]
    target: String,
    /// Whether the work may only read it; it may also write if left out.
    read_only: Option<bool>,
}

impl MountBody {
    fn parse(self, checks: &mut Checks, at: &str) -> Option<Mount> {
        let source = checks.take(&format!("{at}.source"), text::line(self.source, MAX_WORD));
        let target = checks.take(&format!("{at}.target"), text::line(self.target, MAX_WORD));
        let (source, target) = source.zip(target)?;
        Some(Mount { source, target, read_only: self.read_only.unwrap_or_default() })
    }
}

/// What is to be run, and what it needs.
// Without `Debug`: the values of its environment are secrets.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TaskSpec")]
pub(in crate::rooms) struct TaskBody {
    /// Its name; several tasks may have the same.
    #[schemars(schema_with = "dto::name")]
    name: String,
    /// What its programs are compiled for, in any common spelling, or `universal`, which it is if left out. A task with
    /// an image runs on what both this and its image say.
    #[serde(default)]
    #[schemars(schema_with = "schemas::architecture")]
    required_architecture: Option<String>,
    /// Cores; none if left out. What is finer than 0.001 is rounded up.
    #[schemars(range(min = 0, max = 1_000_000))]
    required_cpu: Option<f64>,
    /// Memory in GiB; none if left out. What is finer than a MiB is rounded up.
    #[schemars(range(min = 0, max = 1_073_741_824))]
    required_memory: Option<f64>,
    /// Storage in GiB; none if left out. What is finer than a MiB is rounded up.
    #[schemars(range(min = 0, max = 1_073_741_824))]
    required_storage: Option<f64>,
    /// GPUs; none if left out.
    #[schemars(range(min = 0, max = 100_000))]
    required_gpu: Option<i64>,
    /// Whether it is meant to end; `job` if left out.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_kind")]
    kind: Option<TaskKind>,
    /// Who runs it. If left out, `docker` where there is an image, `exec` where there is only a command, and else
    /// `none`, which means that its user does and says so.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_driver")]
    driver: Option<TaskDriver>,
    /// The image of its container.
    #[schemars(length(min = 1, max = MAX_IMAGE), regex(pattern = IMAGE))]
    image: Option<String>,
    /// Whether to look up first what its image was built for: in its registry, or else in the engines that have it;
    /// nothing is taken in while neither says. `false` believes `required_architecture` instead, which has to be given
    /// then, and is recorded in the audit log. `true` if left out.
    verify_image: Option<bool>,
    /// Its program and arguments; for a container, instead of the image's own.
    #[serde(default)]
    #[schemars(schema_with = "schemas::command")]
    command: Option<Vec<String>>,
    /// Its environment variables. Their values are never shown again.
    #[serde(default)]
    #[schemars(schema_with = "schemas::environment")]
    env: Option<BTreeMap<String, Value>>,
    /// Ports of its container that are reachable from outside.
    #[schemars(length(max = MAX_MAPPINGS))]
    ports: Option<Vec<PortBody>>,
    /// What it sees of the server's files.
    #[schemars(length(max = MAX_MAPPINGS))]
    mounts: Option<Vec<MountBody>>,
    /// The pool that it must run in; any server if left out.
    #[schemars(range(min = 1))]
    pool_id: Option<i64>,
    /// The server that it must run on; any that fits if left out.
    #[schemars(range(min = 1))]
    required_server_id: Option<i64>,
    /// Tags that its server must have, every one of them.
    #[serde(default)]
    #[schemars(schema_with = "dto::tags")]
    labels: Option<BTreeMap<String, String>>,
    /// Whether it may run where its architecture is emulated; it may not if left out.
    allow_emulation: Option<bool>,
    /// How urgent it is: 5 goes first, 1 last; 3 if left out.
    #[schemars(range(min = 1, max = 5))]
    priority: Option<i64>,
    /// If it is still pending then, it fails.
    deadline: Option<Timestamp>,
    /// What the agent does within an attempt when the work ends; `no` if left out.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_restart")]
    restart: Option<RestartPolicy>,
    /// How often it is placed until it is given up; once if left out.
    #[schemars(range(min = 1, max = MAX_ATTEMPTS))]
    max_attempts: Option<i64>,
    /// How long an attempt may run; without limit if left out.
    #[schemars(range(min = 1, max = MAX_TIMEOUT))]
    timeout_seconds: Option<i64>,
    /// How long it has to end by itself once it was asked to; as its driver says if left out.
    #[schemars(range(min = 0, max = MAX_GRACE))]
    grace_seconds: Option<i64>,
    /// The most that is kept of an attempt's output, in GiB; as its agent says if left out.
    #[serde(default)]
    #[schemars(schema_with = "schemas::log_limit")]
    log_limit: Option<f64>,
    /// Whatever else you want to keep with it: at most 16 KiB as JSON, at most 8 levels deep.
    metadata: Option<BTreeMap<String, Value>>,
}

impl TaskBody {
    /// The domain's word for it.
    pub(in crate::rooms) fn parse(mut self) -> Result<TaskSpec> {
        let mut checks = Checks::default();
        // What is wrong has a stand-in, so that what goes together can be looked at all the same.
        let name = checks.take("name", Name::parse(std::mem::take(&mut self.name)));
        let architecture = checks.take("required_architecture", self.architecture());
        let demand = self.demand(&mut checks);
        let (driver, kind) = (self.driver(), self.kind.unwrap_or(TaskKind::Job));
        let image = self.image.and_then(|image| checks.take("image", limits::image(image)));
        let spec = TaskSpec {
            architecture: architecture.unwrap_or(ArchitectureNeed::Universal),
            kind,
            driver,
            image,
            verify_image: self.verify_image.unwrap_or(true),
            command: parse_command(&mut checks, self.command.unwrap_or_default()),
            env: checks.take("env", environment(self.env.unwrap_or_default())).unwrap_or_default(),
            ports: each(&mut checks, "ports", self.ports, MAX_MAPPINGS, PortBody::parse),
            mounts: each(&mut checks, "mounts", self.mounts, MAX_MAPPINGS, MountBody::parse),
            pool_id: dto::reference(&mut checks, "pool_id", self.pool_id).map(PoolId),
            required_server_id: dto::reference(&mut checks, "required_server_id", self.required_server_id)
                .map(ServerId),
            labels: checks.take("labels", Tags::parse(self.labels.unwrap_or_default())).unwrap_or_default(),
            allow_emulation: self.allow_emulation.unwrap_or_default(),
            priority: optional(&mut checks, "priority", self.priority, Priority::parse).unwrap_or_default(),
            deadline: optional(&mut checks, "deadline", self.deadline, dto::moment),
            restart: self.restart.unwrap_or(RestartPolicy::Never),
            max_attempts: optional(&mut checks, "max_attempts", self.max_attempts, attempts).unwrap_or(1),
            timeout_seconds: optional(&mut checks, "timeout_seconds", self.timeout_seconds, |seconds| {
                limits::seconds(seconds, 1, MAX_TIMEOUT)
            }),
            grace_seconds: optional(&mut checks, "grace_seconds", self.grace_seconds, |seconds| {
                limits::seconds(seconds, 0, MAX_GRACE)
            }),
            log_limit_mib: optional(&mut checks, "log_limit", self.log_limit, |gib| mib(gib, Rounding::Up)),
            metadata: optional(&mut checks, "metadata", self.metadata, limits::metadata).unwrap_or_default(),
            ..TaskSpec::new(name.unwrap_or_else(|| Name::trusted(String::new())), demand)
        };
        together(checks.finish(), spec.checked())
    }

    fn architecture(&self) -> Result<ArchitectureNeed, String> {
        self.required_architecture.as_deref().map_or(Ok(ArchitectureNeed::Universal), ArchitectureNeed::parse)
    }

    fn driver(&self) -> TaskDriver {
        let has_command = self.command.as_ref().is_some_and(|command| !command.is_empty());
        match (self.driver, &self.image) {
            (Some(driver), _) => driver,
            (None, Some(_)) => TaskDriver::Docker,
            (None, None) if has_command => TaskDriver::Exec,
            (None, None) => TaskDriver::None,
        }
    }

    fn demand(&self, checks: &mut Checks) -> Resources {
        let size = |gib| mib(gib, Rounding::Up);
        let cpu = optional(checks, "required_cpu", self.required_cpu, |cores| cpu_millis(cores, Rounding::Up));
        Resources {
            cpu_millis: cpu.unwrap_or_default(),
            memory_mib: optional(checks, "required_memory", self.required_memory, size).unwrap_or_default(),
            storage_mib: optional(checks, "required_storage", self.required_storage, size).unwrap_or_default(),
            gpus: optional(checks, "required_gpu", self.required_gpu, dto::gpu_count).unwrap_or_default(),
        }
    }
}

/// Everything that is wrong: with single members, and with members that do not go together. About a member that is
/// wrong by itself nothing more is said.
fn together(single: Result<()>, whole: Result<TaskSpec>) -> Result<TaskSpec> {
    match (single, whole) {
        (Ok(()), whole) => whole,
        (Err(Error::Invalid { mut errors }), Err(Error::Invalid { errors: more })) => {
            let root = |field: &str| field.split(['.', '[']).next().unwrap_or_default().to_owned();
            let told: Vec<String> = errors.iter().map(|error| root(&error.field)).collect();
            errors.extend(more.into_iter().filter(|error| !told.contains(&root(&error.field))));
            Err(Error::Invalid { errors })
        }
        (Err(error), _) => Err(error),
    }
}

/// Checks a member that may be left out.
pub(super) fn optional<T, U>(
    checks: &mut Checks,
    field: &str,
    value: Option<T>,
    convert: impl FnOnce(T) -> Result<U, String>,
) -> Option<U> {
    value.and_then(|value| checks.take(field, convert(value)))
}

fn each<T, U>(
    checks: &mut Checks,
    field: &str,
    entries: Option<Vec<T>>,
    most: usize,
    parse: impl Fn(T, &mut Checks, &str) -> Option<U>,
) -> Vec<U> {
    let entries = checks.take(field, limits::count(entries.unwrap_or_default(), most)).unwrap_or_default();
    entries.into_iter().enumerate().filter_map(|(n, entry)| parse(entry, checks, &format!("{field}[{n}]"))).collect()
}

fn parse_command(checks: &mut Checks, command: Vec<String>) -> Vec<String> {
    let word = |word, checks: &mut Checks, at: &str| checks.take(at, limits::word(word));
    each(checks, "command", Some(command), MAX_WORDS, word)
}

/// Read as any values, because an error would tell the path of what is wrong, and with it what stands for a name.
fn environment(variables: BTreeMap<String, Value>) -> Result<Environment, String> {
    let mut texts = BTreeMap::new();
    for (name, value) in variables {
        Environment::check_name(&name)?;
        let Value::String(text) = value else { return Err(format!("value of {name:?} must be a text")) };
        texts.insert(name, text);
    }
    Environment::parse(texts)
}

fn attempts(most: i64) -> Result<u32, String> {
    let inside = u32::try_from(most).ok().filter(|most| (1..=MAX_ATTEMPTS).contains(most));
    inside.ok_or_else(|| format!("must be from 1 to {MAX_ATTEMPTS}"))
}
