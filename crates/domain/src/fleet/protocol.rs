//! What server and agents say to each other: the bodies of the calls under `/agent`, as JSON.
//!
//! Either side may be one version older or newer than the other, so members that are not known are ignored, and what an
//! agent does not know how to do it says so ([`Order::Unknown`]). What cannot be understood that way gets a new number,
//! see [`negotiate`].

use super::model::{Architecture, Driver};
use crate::{
    clock::Timestamp,
    containers::{
        ImageName,
        wire::{ContainerLogQuery, ContainerOrder, ContainerQuery, ExecQuery, ImagePrune, ImagePull},
    },
    ids::{OperationId, ServerId, TaskId},
    scheduling::TaskSpec,
    text::Name,
    units::Resources,
    words::words,
};
use serde::{Deserialize, Serialize};

/// The versions of the protocol that this build speaks, oldest first.
pub const PROTOCOLS: &[u32] = &[1];

/// The newest version that both sides speak.
#[must_use]
pub fn negotiate(ours: &[u32], theirs: &[u32]) -> Option<u32> {
    ours.iter().filter(|version| theirs.contains(version)).max().copied()
}

/// What an agent found out about its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryReport {
    /// What the container engine calls the machine's architecture, or the kernel where there is no engine: in their
    /// words, such as `aarch64` or `armv7l`.
    pub architecture: String,
    /// What the machine has.
    pub capacity: Resources,
    /// The model of its GPUs, if it has any.
    #[serde(default)]
    pub gpu_model: Option<String>,
    /// Architectures that it emulates.
    #[serde(default)]
    pub emulated_architectures: Vec<Architecture>,
    /// The drivers that were tried and work.
    #[serde(default)]
    pub drivers: Vec<Driver>,
    /// Its operating system, such as `Debian GNU/Linux 12 (bookworm)`.
    #[serde(default)]
    pub os: Option<String>,
    /// Its kernel's release.
    #[serde(default)]
    pub kernel: Option<String>,
    /// The version of the agent.
    pub agent_version: String,
}

/// `POST /agent/enroll`. `Debug` shows no token.
#[derive(Clone, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// The join token.
    pub join_token: String,
    /// What the server is to be called; the machine's host name unless its owner said otherwise.
    pub name: Name,
    /// Tells this agent's state directory apart from a copy of it, see [`SessionRequest::place`].
    pub place: String,
    /// The versions that the agent speaks.
    pub protocols: Vec<u32>,
    /// What it found.
    pub inventory: InventoryReport,
}

impl std::fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollRequest")
            .field("name", &self.name)
            .field("place", &self.place)
            .field("protocols", &self.protocols)
            .field("inventory", &self.inventory)
            .finish_non_exhaustive()
    }
}

/// The answer to [`EnrollRequest`]. `Debug` shows no token.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// The server that the machine is from now on.
    pub server_id: ServerId,
    /// The agent's own token: the bearer of every other call.
    pub token: String,
}

impl std::fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolled").field("server_id", &self.server_id).finish_non_exhaustive()
    }
}

/// `POST /agent/session`: an agent has started, or has lost its session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionRequest {
    /// Names this run of the agent: random, new at each start.
    pub session: String,
    /// A digest of the machine's id and of the device and inode of the file that holds the token. It survives a restart,
    /// and differs in a copy of the state directory.
    pub place: String,
    /// The versions that the agent speaks.
    pub protocols: Vec<u32>,
    /// What it found.
    pub inventory: InventoryReport,
}

/// The answer to [`SessionRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The server that the agent speaks for.
    pub server_id: ServerId,
    /// What that is called.
    pub name: Name,
    /// The version that both speak.
    pub protocol: u32,
    /// Names the installation: what agents make carries it, so that they never touch another one's.
    pub installation: String,
    /// Operations that the agent said it had begun, and of which it has not said how they ended.
    pub begun: Vec<OperationId>,
}

/// The answer to `GET /agent/operations?session=…&wait=…`. Everything in it is told again until the agent has reported
/// what came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Deliveries {
    /// To be begun.
    #[serde(default)]
    pub operations: Vec<Delivery>,
    /// To be ended: the agent ends what it has begun, does not begin what it has not, and reports the end.
    #[serde(default)]
    pub cancel: Vec<OperationId>,
    /// Streams to be opened.
    #[serde(default)]
    pub streams: Vec<StreamOrder>,
}

/// One thing to be done, at most once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// Names it; an agent that has seen it before does not begin it again.
    pub id: OperationId,
    /// How long it may be begun after it was delivered, in seconds; after that it is reported as expired.
    pub expires_in_seconds: u64,
    /// What is to be done.
    pub order: Order,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Order {
    /// Run one attempt of a task, and see it through.
    RunTask(Box<RunTask>),
    /// Do something to a container of the machine's engine.
    Container(ContainerOrder),
    /// Have the engine pull an image.
    ImagePull(ImagePull),
    /// Remove images of the engine that nothing uses.
    ImagePrune(ImagePrune),
    /// Something that this agent is too old for; it reports it as failed with the reason `unsupported`.
    #[serde(other)]
    Unknown,
}

/// One attempt of a task. `Debug` shows no secrets: an environment hides its values itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunTask {
    /// The task.
    pub task_id: TaskId,
    /// The number of the attempt.
    pub attempt: u32,
    /// What is to be run, with the values of its environment.
    pub spec: TaskSpec,
}

words! {
    /// How an operation ended on the agent.
    Ending {
        /// Well: a program ended with 0.
        Completed = "completed",
        /// Badly.
        Failed = "failed",
        /// Because the server asked for it.
        Cancelled = "cancelled",
        /// It came too late to be begun.
        Expired = "expired",
        /// It cannot be told: it was begun, and nothing is left to ask.
        Unknown = "unknown",
    }
}

/// `POST /agent/operations/{id}/started`: it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartedReport {
    /// The agent's session.
    pub session: String,
    /// Since when, by the agent's clock.
    pub started_at: Timestamp,
}

/// `POST /agent/operations/{id}/progress`: what it is at, such as `pulling image: 40 %`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProgressReport {
    /// The agent's session.
    pub session: String,
    /// One sentence.
    pub message: String,
}

/// `POST /agent/operations/{id}/result`: it has ended. Repeating it changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResultReport {
    /// The agent's session.
    pub session: String,
    /// How it ended.
    #[serde(flatten)]
    pub end: End,
}

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How.
    pub ending: Ending,
    /// What its program ended with.
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// The signal that ended its program.
    #[serde(default)]
    pub signal: Option<i64>,
    /// Why it ended badly: a stable code of [`crate::scheduling::reason`].
    #[serde(default)]
    pub reason: Option<String>,
    /// The same in words, for people: the engine's or kernel's own, where there are any.
    #[serde(default)]
    pub detail: Option<String>,
    /// What else came of it, for operations that bring something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Box<Outcome>>,
    /// When it began to run, if it did, by the agent's clock.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended, by the agent's clock.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
}

impl End {
    /// An end that no program told.
    #[must_use]
    pub fn without_code(ending: Ending, detail: impl Into<String>) -> Self {
        Self {
            ending,
            exit_code: None,
            signal: None,
            reason: None,
            detail: Some(detail.into()),
            outcome: None,
            started_at: None,
            finished_at: None,
        }
    }

    /// The same with texts and lists that are not longer than anybody reads.
    #[must_use]
    pub fn bounded(&self) -> Self {
        const LONGEST: usize = 2000;
        let cut = |text: &String| text.chars().filter(|c| *c == '\n' || !c.is_control()).take(LONGEST).collect();
        Self {
            detail: self.detail.as_ref().map(cut),
            reason: self.reason.as_ref().map(cut),
            outcome: self.outcome.as_ref().map(|outcome| Box::new(outcome.bounded())),
            ..self.clone()
        }
    }
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// An image was pulled, or was there already.
    Pulled {
        /// The engine's id of it.
        image_id: String,
        /// The digest by which its registry has it.
        digest: Option<String>,
    },
    /// Images were removed.
    Pruned {
        /// The engine's ids of those that are gone.
        removed: Vec<String>,
        /// Those that are still there, and why.
        kept: Vec<KeptImage>,
        /// How much the disk gained, in bytes.
        freed_bytes: u64,
    },
    /// Something that this side is too old for.
    #[serde(other)]
    Unknown,
}

impl Outcome {
    /// The same with texts and lists that are not longer than anybody reads.
    fn bounded(&self) -> Self {
        const MOST: usize = 5000;
        const LONGEST: usize = 1000;
        let cut = |text: &String| text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        match self {
            Self::Pulled { image_id, digest } => {
                Self::Pulled { image_id: cut(image_id), digest: digest.as_ref().map(cut) }
            }
            Self::Pruned { removed, kept, freed_bytes } => {
                let kept = kept.iter().take(MOST);
                Self::Pruned {
                    removed: removed.iter().take(MOST).map(cut).collect(),
                    kept: kept
                        .map(|kept| KeptImage { image_id: cut(&kept.image_id), reason: cut(&kept.reason) })
                        .collect(),
                    freed_bytes: *freed_bytes,
                }
            }
            Self::Unknown => Self::Unknown,
        }
    }
}

/// An image that was not removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptImage {
    /// The engine's id of it.
    pub image_id: String,
    /// Why, in the engine's words.
    pub reason: String,
}

/// A stream that the server wants: the agent opens a WebSocket at `/agent/streams/{id}` and sends into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOrder {
    /// Names it; unguessable, and good once.
    pub id: String,
    /// What is to be sent.
    pub source: StreamSource,
}

/// What a stream is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StreamSource {
    /// The output of an attempt, as one [`LogLine`] in each message.
    Logs(LogQuery),
    /// What the machine's container engine has under a name, as one [`EngineImage`], or nothing.
    ///
    /// [`EngineImage`]: crate::containers::EngineImage
    Image(ImageQuery),
    /// The output of a container, as its engine has it.
    ContainerLogs(ContainerLogQuery),
    /// What a container uses, as one [`Usage`] a second, until it ends.
    ///
    /// [`Usage`]: crate::containers::Usage
    ContainerStats(ContainerQuery),
    /// A program in a container.
    ContainerExec(ExecQuery),
    /// The images that the engine has, as one list of [`ListedImage`].
    ///
    /// [`ListedImage`]: crate::containers::wire::ListedImage
    Images,
    /// Something that this agent is too old for; it opens the stream and closes it with a reason.
    #[serde(other)]
    Unknown,
}

/// Which image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageQuery {
    /// Its name.
    pub name: ImageName,
}

/// Which lines of an attempt's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// The task.
    pub task_id: TaskId,
    /// The number of the attempt.
    pub attempt: u32,
    /// Whether to go on with what is written later, until the attempt ends.
    #[serde(default)]
    pub follow: bool,
    /// Only what comes after the line with this [`LogLine::cursor`].
    #[serde(default)]
    pub after: Option<String>,
    /// Only so many of the last lines that are there.
    #[serde(default)]
    pub tail: Option<u64>,
}

words! {
    /// Where a line was written to.
    LogStream {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
        /// Said by the agent, such as that the program was started again.
        Agent = "agent",
    }
}

/// One line of output, without the line feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Where to go on after this line; opaque.
    pub cursor: String,
    /// When its first byte was written, by the agent's clock.
    pub at: Timestamp,
    /// Where it was written to.
    pub stream: LogStream,
    /// The text; bytes that are no UTF-8 are replaced by U+FFFD.
    pub text: String,
    /// Whether the line was too long for one message, and goes on in the next one of this stream.
    #[serde(default)]
    pub continues: bool,
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
