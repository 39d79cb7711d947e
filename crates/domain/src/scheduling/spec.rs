use super::{environment::Environment, sets::ArchitectureSet};
use crate::{
    Result,
    clock::Timestamp,
    containers::{ImageName, ImageTruth},
    error::Checks,
    fleet::{Architecture, Driver},
    ids::{PoolId, ServerId},
    text::{Name, Tags},
    units::Resources,
    words::words,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most attempts that a task may ask for.
pub const MAX_ATTEMPTS: u32 = 100;

words! {
    /// Whether work is meant to end.
    TaskKind {
        /// It ends by itself.
        Job = "job",
        /// It stays until it is cancelled.
        Service = "service",
    }
}

words! {
    /// Who runs a task, and how.
    TaskDriver {
        /// The agent, as a container.
        Docker = "docker",
        /// The agent, as a process.
        Exec = "exec",
        /// Nobody but the user, who reports its start and its end; it only takes room.
        None = "none",
    }
}

impl TaskDriver {
    /// What a server's agent must offer for it; `None` where no agent is needed.
    #[must_use]
    pub fn needs(self) -> Option<Driver> {
        match self {
            Self::Docker => Some(Driver::Docker),
            Self::Exec => Some(Driver::Exec),
            Self::None => None,
        }
    }
}

words! {
    /// What the agent does, within one attempt, when the work ends. New attempts are another matter: those are counted
    /// by [`TaskSpec::max_attempts`] and may go to another server.
    RestartPolicy {
        /// Nothing.
        Never = "no",
        /// Starts it again if it failed.
        OnFailure = "on-failure",
        /// Starts it again whatever its outcome.
        Always = "always",
    }
}

words! {
    /// What is carried over a port.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

/// What a task's programs are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ArchitectureNeed {
    /// They run anywhere.
    Universal,
    /// They run on this one only, or where it is emulated.
    Only(Architecture),
}

impl ArchitectureNeed {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Universal => "universal",
            Self::Only(architecture) => architecture.as_str(),
        }
    }

    /// Reads `universal` or a spelling that [`Architecture::parse`] knows.
    ///
    /// # Errors
    /// A sentence that names what there is.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("universal") {
            return Ok(Self::Universal);
        }
        Architecture::parse(text).map(Self::Only).map_err(|reason| format!("{reason}, or universal"))
    }
}

impl TryFrom<String> for ArchitectureNeed {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<ArchitectureNeed> for String {
    fn from(need: ArchitectureNeed) -> Self {
        need.as_str().to_owned()
    }
}

/// How urgent a task is: 1 to 5, of which 5 goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Priority(u8);

impl Priority {
    /// # Errors
    /// A sentence, if it is not from 1 to 5.
    pub fn parse(value: i64) -> Result<Self, String> {
        u8::try_from(value)
            .ok()
            .filter(|value| (1..=5).contains(value))
            .map(Self)
            .ok_or_else(|| "must be from 1 (last) to 5 (first)".to_owned())
    }

    /// The number, 1 to 5.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(3)
    }
}

impl TryFrom<i64> for Priority {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        Self::parse(value)
    }
}

impl From<Priority> for i64 {
    fn from(priority: Priority) -> Self {
        priority.0.into()
    }
}

/// A port of a container that is reachable from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// Inside, 1 to 65535.
    pub container_port: u16,
    /// On the server, 1 to 65535; any free one if absent.
    pub host_port: Option<u16>,
    /// What is carried over it.
    pub protocol: Protocol,
}

/// A folder or volume of the server that the work sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mount {
    /// On the server: an absolute path, or the name of a volume.
    pub source: String,
    /// Where the work sees it: an absolute path.
    pub target: String,
    /// Whether the work may only read it.
    pub read_only: bool,
}

/// What a user wants run, and what it needs.
///
/// Serialised, it has the values of its environment: that form is for the store alone. What is shown or recorded is
/// [`TaskSpec::redacted`]; [`super::Task`] serialises in that form by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name; several tasks may have the same.
    pub name: Name,
    /// What its programs are compiled for.
    pub architecture: ArchitectureNeed,
    /// What it takes of a server while it is there.
    pub demand: Resources,
    /// Whether it is meant to end.
    pub kind: TaskKind,
    /// Who runs it, and how.
    pub driver: TaskDriver,
    /// The image of its container.
    #[serde(default)]
    pub image: Option<String>,
    /// What its image is, if that was looked up: what it may run on is what both this and `architecture` say.
    #[serde(default)]
    pub image_truth: Option<ImageTruth>,
    /// Whether nothing is run before it is known what its image was built for. Without that, its architecture is
    /// believed as it is stated.
    #[serde(default = "yes")]
    pub verify_image: bool,
    /// Its program and arguments; for a container, instead of the image's own.
    #[serde(default)]
    pub command: Vec<String>,
    /// Its environment variables.
    #[serde(default)]
    pub env: Environment,
    /// Its container's ports that are reachable from outside.
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// What it sees of the server's files.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The pool that it must run in; any server if absent.
    #[serde(default)]
    pub pool_id: Option<PoolId>,
    /// The server that it must run on; any if absent.
    #[serde(default)]
    pub required_server_id: Option<ServerId>,
    /// Tags that its server must have, every one of them.
    #[serde(default)]
    pub labels: Tags,
    /// Whether it may run where its architecture is emulated.
    #[serde(default)]
    pub allow_emulation: bool,
    /// How urgent it is.
    #[serde(default)]
    pub priority: Priority,
    /// If it is still pending then, it fails.
    #[serde(default)]
    pub deadline: Option<Timestamp>,
    /// What the agent does when it ends.
    #[serde(default = "never")]
    pub restart: RestartPolicy,
    /// How often it is placed until it is given up, 1 to [`MAX_ATTEMPTS`].
    #[serde(default = "one")]
    pub max_attempts: u32,
    /// How long an attempt may run, in seconds.
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
    /// How long it has to end by itself once it was asked to, in seconds.
    #[serde(default)]
    pub grace_seconds: Option<u64>,
    /// The most that is kept of an attempt's output, in MiB.
    #[serde(default)]
    pub log_limit_mib: Option<i64>,
    /// Whatever else its user wants to keep with it.
    #[serde(default)]
    pub metadata: BTreeMap<String, serde_json::Value>,
}

impl TaskSpec {
    /// A job of this name that needs this much room and nothing else; its user runs it.
    #[must_use]
    pub fn new(name: Name, demand: Resources) -> Self {
        Self {
            name,
            architecture: ArchitectureNeed::Universal,
            demand,
            kind: TaskKind::Job,
            driver: TaskDriver::None,
            image: None,
            image_truth: None,
            verify_image: true,
            command: Vec::new(),
            env: Environment::default(),
            ports: Vec::new(),
            mounts: Vec::new(),
            pool_id: None,
            required_server_id: None,
            labels: Tags::default(),
            allow_emulation: false,
            priority: Priority::default(),
            deadline: None,
            restart: RestartPolicy::Never,
            max_attempts: 1,
            timeout_seconds: None,
            grace_seconds: None,
            log_limit_mib: None,
            metadata: BTreeMap::new(),
        }
    }

    /// This spec, if its members go together.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the members that do not, by their names in the API.
    pub fn checked(self) -> Result<Self> {
        let mut checks = Checks::default();
        self.check_driver(&mut checks);
        if !(1..=MAX_ATTEMPTS).contains(&self.max_attempts) {
            checks.note("max_attempts", format!("must be from 1 to {MAX_ATTEMPTS}"));
        }
        if self.timeout_seconds == Some(0) {
            checks.note("timeout_seconds", "must be at least 1; leave it out for no limit");
        }
        if self.log_limit_mib.is_some_and(|limit| limit < 1) {
            checks.note("log_limit", "must be at least one MiB");
        }
        self.check_demand(&mut checks);
        self.check_mappings(&mut checks);
        checks.finish().map(|()| self)
    }

    /// The servers that it runs on natively.
    #[must_use]
    pub fn architectures(&self) -> ArchitectureSet {
        let stated = ArchitectureSet::from(self.architecture);
        // An image that does not say is taken for what its task says it is.
        let truth = self.image_truth.as_ref().filter(|truth| !truth.platforms.is_empty());
        truth.map_or(stated, |truth| stated.common(truth.architectures()))
    }

    /// The servers that have its image, where it can be had nowhere else; none, if that does not matter.
    #[must_use]
    pub fn image_servers(&self) -> &[ServerId] {
        self.image_truth.as_ref().map(|truth| truth.servers.as_slice()).unwrap_or_default()
    }

    /// This spec as agents get it: its image is named by the digest that it had when the task was posted, if there was one.
    #[must_use]
    pub fn pinned(&self) -> Self {
        let digest = self.image_truth.as_ref().and_then(|truth| truth.digest.as_deref());
        let named = self.image.as_deref().and_then(|image| ImageName::parse(image).ok());
        let image = digest.zip(named).map(|(digest, named)| named.pinned(digest));
        Self { image: image.or_else(|| self.image.clone()), ..self.clone() }
    }

    /// This spec with the values of its environment hidden.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self { env: self.env.redacted(), ..self.clone() }
    }

    fn check_driver(&self, checks: &mut Checks) {
        match (self.driver, &self.image) {
            (TaskDriver::Docker, None) => checks.note("image", "is what the driver docker runs: give one"),
            (TaskDriver::Docker, Some(image)) => {
                if let Err(reason) = ImageName::parse(image) {
                    checks.note("image", reason);
                }
                if !self.verify_image && self.architecture == ArchitectureNeed::Universal {
                    let reason = "must be x86_64, arm64 or riscv64 where verify_image is false: nothing else says it";
                    checks.note("required_architecture", reason);
                }
            }
            (TaskDriver::Exec | TaskDriver::None, Some(_)) => {
                checks.note("image", "goes only with the driver docker");
            }
            _ => {}
        }
        if self.driver == TaskDriver::Exec && self.command.first().is_none_or(String::is_empty) {
            checks.note("command", "is what the driver exec runs: give a program and its arguments");
        }
        if self.driver != TaskDriver::Docker && !self.ports.is_empty() {
            checks.note("ports", "go only with the driver docker");
        }
    }

    fn check_demand(&self, checks: &mut Checks) {
        let members = [
            ("required_cpu", self.demand.cpu_millis),
            ("required_memory", self.demand.memory_mib),
            ("required_storage", self.demand.storage_mib),
            ("required_gpu", self.demand.gpus),
        ];
        for (field, amount) in members {
            if amount < 0 {
                checks.note(field, "must not be negative");
            }
        }
    }

    fn check_mappings(&self, checks: &mut Checks) {
        for (index, port) in self.ports.iter().enumerate() {
            if port.container_port == 0 || port.host_port == Some(0) {
                checks.note(&format!("ports[{index}]"), "must be from 1 to 65535");
            }
            let taken = |other: &PortMapping| {
                other.host_port.is_some() && (other.host_port, other.protocol) == (port.host_port, port.protocol)
            };
            if self.ports.iter().take(index).any(taken) {
                checks.note(&format!("ports[{index}].host_port"), "is mapped twice");
            }
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            if mount.source.is_empty() {
                checks.note(&format!("mounts[{index}].source"), "must not be empty");
            }
            if !mount.target.starts_with('/') {
                checks.note(&format!("mounts[{index}].target"), "must be an absolute path");
            }
            if self.mounts.iter().take(index).any(|other| other.target == mount.target) {
                checks.note(&format!("mounts[{index}].target"), "is mounted twice");
            }
        }
    }
}

fn never() -> RestartPolicy {
    RestartPolicy::Never
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
