//! What a container engine says of a container.

use crate::{clock::Timestamp, fleet::Architecture, ids::TaskId, words::words};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an engine calls a container: 1 to 128 letters, digits and `_.-`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EngineId(String);

impl EngineId {
    /// # Errors
    /// A sentence that says what such an id looks like.
    pub fn parse(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && text.len() <= 128 {
            Ok(Self(text))
        } else {
            Err("must be 1 to 128 letters, digits, dots, dashes and underscores".to_owned())
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EngineId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl From<EngineId> for String {
    fn from(id: EngineId) -> Self {
        id.0
    }
}

impl std::fmt::Display for EngineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

words! {
    /// What a container is doing, in the words of engines.
    ContainerState {
        /// It was made, and never started.
        Created = "created",
        /// Its program runs.
        Running = "running",
        /// Its processes are frozen.
        Paused = "paused",
        /// It ended, and the engine is about to start it again.
        Restarting = "restarting",
        /// It is being removed.
        Removing = "removing",
        /// It has ended.
        Exited = "exited",
        /// Its removal failed half-way.
        Dead = "dead",
        /// The engine uses another word.
        Unknown = "unknown",
    }
}

impl ContainerState {
    /// Whether it has processes.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

words! {
    /// What a container's own check says of it.
    Health {
        /// The check has not been passed yet, nor failed often enough.
        Starting = "starting",
        /// The check was passed the last time.
        Healthy = "healthy",
        /// The check failed so often that it counts.
        Unhealthy = "unhealthy",
    }
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObservedPort {
    /// The port inside.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The port of the machine that leads there, if one does.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// The address of the machine on which that is open.
    #[serde(default)]
    pub host_ip: Option<String>,
}

/// A folder or volume that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedMount {
    /// `bind`, `volume`, `tmpfs` and so on.
    pub kind: String,
    /// The folder of the machine, or the volume's name.
    pub source: String,
    /// Where it is inside.
    pub target: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// A network that a container is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNetwork {
    /// Its name.
    pub name: String,
    /// The container's address there, while it runs.
    #[serde(default)]
    pub address: Option<String>,
}

/// The task that a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsTask {
    /// The task.
    pub task_id: TaskId,
    /// The number of the attempt.
    pub attempt: u32,
}

/// What an engine said of one of its containers. It holds no environment, because secrets are kept there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// What the engine calls it.
    pub engine_id: EngineId,
    /// Its name, without a slash.
    pub name: String,
    /// The attempt that it runs, if this installation made it.
    #[serde(default)]
    pub runs: Option<RunsTask>,
    /// The image, as whoever made it named it.
    pub image: String,
    /// The engine's id of the image: the digest of its configuration.
    #[serde(default)]
    pub image_id: Option<String>,
    /// The digest by which a registry has the image, if it came from one.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// What the image says that it was built for.
    #[serde(default)]
    pub architecture: Option<Architecture>,
    /// The program and its arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// What it is doing.
    pub state: ContainerState,
    /// What its check says, if it has one.
    #[serde(default)]
    pub health: Option<Health>,
    /// What its program ended with the last time, if it is not running.
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// Whether the kernel ended it for want of memory the last time.
    #[serde(default)]
    pub out_of_memory: bool,
    /// What the engine says went wrong.
    #[serde(default)]
    pub error: Option<String>,
    /// How often the engine has started it again by itself.
    #[serde(default)]
    pub restarts: u32,
    /// What the engine does when it ends: `no`, `always`, `on-failure`, `unless-stopped`.
    #[serde(default)]
    pub restart_policy: Option<String>,
    /// Whether it has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// When it was made.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// When it was started the last time.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended the last time.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// The most CPU that it may use, in thousandths of a core.
    #[serde(default)]
    pub cpu_limit_millis: Option<i64>,
    /// The most memory that it may use, in bytes.
    #[serde(default)]
    pub memory_limit_bytes: Option<i64>,
    /// Its ports, in order.
    #[serde(default)]
    pub ports: Vec<ObservedPort>,
    /// What it sees of the machine.
    #[serde(default)]
    pub mounts: Vec<ObservedMount>,
    /// The networks that it is on.
    #[serde(default)]
    pub networks: Vec<ObservedNetwork>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Where Docker Compose says which project a container belongs to.
const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// And which service of it.
const COMPOSE_SERVICE: &str = "com.docker.compose.service";

impl Observed {
    /// The Compose project that it belongs to.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.labels.get(COMPOSE_PROJECT).map(String::as_str)
    }

    /// The service of the Compose project that it belongs to.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.labels.get(COMPOSE_SERVICE).map(String::as_str)
    }
}
