use super::{sets::ArchitectureSet, spec::TaskSpec};
use crate::{
    change::Recorded,
    clock::Timestamp,
    ids::{PoolId, ServerId, TaskId},
    units::Resources,
    words::words,
};
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

words! {
    /// How far a task is.
    TaskStatus {
        /// Waiting for room.
        Pending = "pending",
        /// It has a server, and room on it; it has not started.
        Scheduled = "scheduled",
        /// Running.
        Running = "running",
        /// Ended well.
        Completed = "completed",
        /// Given up.
        Failed = "failed",
        /// Ended by a user.
        Cancelled = "cancelled",
        /// Contact with its server is lost: it may be running.
        Unknown = "unknown",
    }
}

impl TaskStatus {
    /// Whether it has not come to its end.
    #[must_use]
    pub fn is_live(self) -> bool {
        self == Self::Pending || self.holds()
    }

    /// Whether it holds a reservation on its server.
    #[must_use]
    pub fn holds(self) -> bool {
        matches!(self, Self::Scheduled | Self::Running | Self::Unknown)
    }
}

words! {
    /// How far one attempt of a task is.
    AttemptStatus {
        /// It has room on its server; it has not started.
        Scheduled = "scheduled",
        /// Running.
        Running = "running",
        /// Ended well.
        Completed = "completed",
        /// Ended badly.
        Failed = "failed",
        /// Ended by a user.
        Cancelled = "cancelled",
        /// Contact with its server is lost: it may be running.
        Unknown = "unknown",
    }
}

/// Work that a user wants run.
///
/// Serialised, the values of its environment are hidden: audit rows, events and kept answers are made from that form.
/// The store keeps the spec by itself, see [`TaskSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id; a higher one is a younger task.
    pub id: TaskId,
    /// What is wanted.
    #[serde(serialize_with = "hide_env", deserialize_with = "share")]
    pub spec: Arc<TaskSpec>,
    /// How far it is.
    pub status: TaskStatus,
    /// The number of the newest attempt; 0 before the first.
    pub attempt: u32,
    /// The server it is on, or was on last.
    pub server_id: Option<ServerId>,
    /// Why it is in this status: a stable code of [`super::reason`], where there is something to say.
    pub reason: Option<String>,
    /// The same in words, with what else is known.
    pub detail: Option<String>,
    /// Where attempts ended with an exec format error: it is not placed there again until it is retried.
    #[serde(default)]
    pub barred: ArchitectureSet,
    /// Counts changes; the `ETag`.
    pub revision: i64,
    /// When it was posted.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When the newest attempt got its server; absent while pending.
    pub scheduled_at: Option<Timestamp>,
    /// When the newest attempt started; absent while pending.
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    pub finished_at: Option<Timestamp>,
}

impl Task {
    /// The text that a keyword is looked for in, in lower case: name and image.
    #[must_use]
    pub fn search_text(&self) -> String {
        self.spec.search_text()
    }
}

impl Task {
    /// Where it is on its way, as it stands in the audit log.
    #[must_use]
    pub fn position(&self) -> serde_json::Value {
        serde_json::json!({
            "status": self.status,
            "attempt": self.attempt,
            "server_id": self.server_id,
            "reason": self.reason,
            "revision": self.revision,
        })
    }
}

impl TaskSpec {
    /// The text that a keyword is looked for in, in lower case: name and image.
    #[must_use]
    pub fn search_text(&self) -> String {
        let words: Vec<&str> = [Some(self.name.as_str()), self.image.as_deref()].into_iter().flatten().collect();
        words.join("\n").to_lowercase()
    }
}

impl Recorded for Task {
    const KIND: &'static str = "task";
    fn id(&self) -> i64 {
        self.id.0
    }
}

fn hide_env<S: Serializer>(spec: &Arc<TaskSpec>, serializer: S) -> Result<S::Ok, S::Error> {
    spec.redacted().serialize(serializer)
}

fn share<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Arc<TaskSpec>, D::Error> {
    TaskSpec::deserialize(deserializer).map(Arc::new)
}

/// A task to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// What is wanted.
    pub spec: TaskSpec,
}

impl NewTask {
    /// The pending task that this becomes under an id.
    #[must_use]
    pub fn into_task(self, id: TaskId, now: Timestamp) -> Task {
        Task {
            id,
            spec: Arc::new(self.spec),
            status: TaskStatus::Pending,
            attempt: 0,
            server_id: None,
            reason: None,
            detail: None,
            barred: ArchitectureSet::default(),
            revision: 1,
            created_at: now,
            updated_at: now,
            scheduled_at: None,
            started_at: None,
            finished_at: None,
        }
    }
}

/// One try to run a task on one server, and the allocation that goes with it: what (task, attempt) holds there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The task.
    pub task_id: TaskId,
    /// Counts the attempts of that task from 1.
    pub number: u32,
    /// The server.
    pub server_id: ServerId,
    /// What it takes of the server while `held`.
    pub demand: Resources,
    /// How far it is.
    pub status: AttemptStatus,
    /// What its program ended with.
    pub exit_code: Option<i64>,
    /// The signal that ended its program.
    pub signal: Option<i64>,
    /// Why it ended: a stable code of [`super::reason`], where there is something to say.
    pub reason: Option<String>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it got its server.
    pub created_at: Timestamp,
    /// Whether `demand` is still taken; released exactly once, when the attempt ends.
    pub held: bool,
}

/// Which tasks are wanted; all that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// In this status.
    pub status: Option<TaskStatus>,
    /// On this server, now or last.
    pub server_id: Option<ServerId>,
    /// That must run in this pool.
    pub pool_id: Option<PoolId>,
    /// With this text in the name or image, whatever its case.
    pub keyword: Option<String>,
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
