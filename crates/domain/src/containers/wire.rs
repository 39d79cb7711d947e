//! What server and agents say to each other about containers and images.

use super::{
    action::ContainerAction,
    name::ImageName,
    observed::{EngineId, Observed},
    platform::Platform,
    usage::ContainerUsage,
};
use crate::{clock::Timestamp, fleet::protocol::LogLine};
use serde::{Deserialize, Serialize};

/// The most containers in one [`ContainerReport`].
pub const MOST_IN_REPORT: usize = 100;
/// The most containers of one engine that are told of; those that were made first are left out.
pub const MOST_ON_SERVER: usize = 5_000;

/// `POST /agent/containers`: what the engine has.
///
/// A full report is as many of these as it takes, the last of which has `present`. In between come those about what has
/// changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// The agent's session.
    pub session: String,
    /// Containers as they are now; at most [`MOST_IN_REPORT`].
    #[serde(default)]
    pub containers: Vec<Observed>,
    /// Containers that are gone.
    #[serde(default)]
    pub gone: Vec<EngineId>,
    /// All that there are: whatever else is known of this engine is gone.
    #[serde(default)]
    pub present: Option<Vec<EngineId>>,
    /// What those that run use, if it was just counted; it replaces all that was told before.
    #[serde(default)]
    pub usage: Option<Vec<ContainerUsage>>,
}

/// Which lines of a container's output, from its engine.
///
/// A stream of them is made of [`LogBatch`]es. It is closed with 4400 for a cursor that is none, 4404 for a container
/// that is not there, and 1000 at the natural end: the container was removed, or all was sent and `follow` is false.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLogQuery {
    /// The container.
    pub engine_id: EngineId,
    /// Whether to go on with what is written later, across restarts, until the container is removed.
    #[serde(default)]
    pub follow: bool,
    /// Only what comes after the line with this [`LogLine::cursor`].
    #[serde(default)]
    pub after: Option<String>,
    /// Only what was written at this time or later.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Only so many of the last lines that are there.
    #[serde(default)]
    pub tail: Option<u64>,
}

/// Lines of a container's output, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    /// How many lines before these could not be sent, because their reader was too slow.
    #[serde(default)]
    pub dropped: u64,
    /// The lines. Those of [`LogStream::Agent`](crate::fleet::protocol::LogStream::Agent) are marks, such as that the
    /// container was started again.
    pub lines: Vec<LogLine>,
}

/// One container of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerQuery {
    /// The container.
    pub engine_id: EngineId,
}

/// A program to be run in a container, with somebody at the other end.
///
/// Binary messages of the agent are output: a byte that is 1 for standard output and 2 for standard error, and the rest.
/// Its text messages are [`ExecSaying`]s. Binary messages of the server are input; its text messages are
/// [`ExecWish`]es. When the stream breaks, the program is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecQuery {
    /// The container.
    pub engine_id: EngineId,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether it gets a terminal: input and output are one then.
    #[serde(default)]
    pub tty: bool,
    /// Whom it runs as, such as `nobody` or `1000:1000`; whoever the image says, if left out.
    #[serde(default)]
    pub user: Option<String>,
    /// The folder in which it begins.
    #[serde(default)]
    pub folder: Option<String>,
    /// How big the terminal is.
    #[serde(default)]
    pub size: Option<TerminalSize>,
}

/// How big a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Its lines.
    pub rows: u16,
    /// The characters of a line.
    pub columns: u16,
}

/// What an agent says of a program that it runs in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExecSaying {
    /// It runs.
    Started,
    /// It has ended with this; nothing comes after it.
    Exited {
        /// The code; `None` if the engine does not know.
        code: Option<i64>,
    },
}

/// What whoever is at the other end of a program wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExecWish {
    /// The terminal has another size.
    Resize(TerminalSize),
    /// There is no more input.
    EndInput,
    /// Something that this agent is too old for, which it leaves.
    #[serde(other)]
    Unknown,
}

/// An image that an engine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedImage {
    /// The engine's id of it: the digest of its configuration.
    pub id: String,
    /// Its names, such as `docker.io/library/nginx:1`; none, if it has lost them to a newer one.
    pub names: Vec<String>,
    /// The names with digests by which registries have it.
    pub digests: Vec<String>,
    /// What it was built for, if it says.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// How much it takes on the disk, in bytes, layers that it shares with others included.
    pub size_bytes: u64,
    /// When it was built.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// The containers that were made from it, whether they run or not.
    #[serde(default)]
    pub used_by: Vec<EngineId>,
}

/// Something to be done to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerOrder {
    /// The container.
    pub engine_id: EngineId,
    /// What is to be done.
    #[serde(flatten)]
    pub action: ContainerAction,
}

/// An image to be pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePull {
    /// Its name.
    pub name: ImageName,
}

/// Images to be removed: these, and none that is in use by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePrune {
    /// The engine's ids of them.
    pub ids: Vec<String>,
}
