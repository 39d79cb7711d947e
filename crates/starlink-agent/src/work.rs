//! What drivers run: one attempt of a task each.

use chrono::{DateTime, Utc};
use domain::{
    fleet::protocol::{End, Ending, RunTask},
    ids::TaskId,
    scheduling::{TaskSpec, reason},
};
use std::{path::PathBuf, sync::Arc};

/// Names work on this machine: containers and cgroups are called after it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkId {
    /// The installation that it belongs to: lower-case hexadecimal.
    pub installation: Arc<str>,
    /// The task.
    pub task: TaskId,
    /// The number of the attempt.
    pub attempt: u32,
}

impl std::fmt::Display for WorkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "starlink-{}-{}-{}", self.installation, self.task, self.attempt)
    }
}

impl WorkId {
    /// Reads the [`std::fmt::Display`] form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("starlink-")?.rsplitn(3, '-');
        let attempt = parts.next()?.parse().ok()?;
        let task = TaskId(parts.next()?.parse().ok()?);
        let installation = parts.next().filter(|text| !text.is_empty() && !text.contains('-'))?;
        Some(Self { installation: installation.into(), task, attempt })
    }
}

/// One attempt of a task, on this machine.
#[derive(Debug, Clone)]
pub struct Work {
    /// Its name.
    pub id: WorkId,
    /// What is to be run. `Debug` hides the values of its environment.
    pub spec: Arc<TaskSpec>,
    /// A folder of its own, which is there: `log/` in it belongs to [`crate::logs`], the rest to its driver.
    pub folder: PathBuf,
}

impl Work {
    /// What an order asks for.
    #[must_use]
    pub fn new(installation: Arc<str>, order: RunTask, folder: PathBuf) -> Self {
        let id = WorkId { installation, task: order.task_id, attempt: order.attempt };
        Self { id, spec: Arc::new(order.spec), folder }
    }
}

/// Why work could not be begun, ended or found, or how it ended badly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Failure {
    /// A stable code of [`domain::scheduling::reason`].
    pub reason: &'static str,
    /// A sentence for people, in the engine's or kernel's own words where there are any.
    pub detail: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(reason: &'static str, detail: impl std::fmt::Display) -> Self {
        Self { reason, detail: detail.to_string() }
    }
}

/// How work ended, as far as the machine can tell. Whether the server had asked for it is the caller's knowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// What its program ended with.
    pub code: Option<i64>,
    /// The signal that ended its program.
    pub signal: Option<i64>,
    /// What else was the matter; `None` if code and signal say it all.
    pub failure: Option<Failure>,
    /// Whether nothing is left to tell how it ended.
    pub lost: bool,
    /// When it began to run.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl Exit {
    /// An exit without code or signal, because of this.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self { code: None, signal: None, failure: Some(failure), lost: false, started_at: None, finished_at: None }
    }

    /// An exit of which nothing is known but that it is over.
    #[must_use]
    pub fn lost(detail: impl std::fmt::Display) -> Self {
        Self { lost: true, ..Self::failed(Failure::new(reason::AGENT_LOST, detail)) }
    }

    /// What is reported of it. `cancelled` says whether the server had asked for the end.
    #[must_use]
    pub fn told(&self, cancelled: bool) -> End {
        let well = self.failure.is_none() && self.code == Some(0);
        let ending = match (self.lost, cancelled, well) {
            (true, ..) => Ending::Unknown,
            (false, true, _) => Ending::Cancelled,
            (false, false, true) => Ending::Completed,
            (false, false, false) => Ending::Failed,
        };
        let (reason, detail) = match (&self.failure, self.signal, self.code) {
            (Some(failure), ..) => (Some(failure.reason), Some(failure.detail.clone())),
            (None, Some(signal), _) => (Some(reason::SIGNAL), Some(format!("ended by signal {signal}"))),
            (None, None, Some(0)) => (None, None),
            (None, None, code) => {
                let code = code.map_or_else(|| "no code".to_owned(), |code| format!("code {code}"));
                (Some(reason::EXIT_CODE), Some(format!("ended with {code}")))
            }
        };
        let (reason, detail) = if ending == Ending::Cancelled { (None, detail) } else { (reason, detail) };
        End {
            ending,
            exit_code: self.code,
            signal: self.signal,
            reason: reason.map(str::to_owned),
            detail,
            outcome: None,
            started_at: self.started_at,
            finished_at: self.finished_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let id = WorkId { installation: "0a1b2c".into(), task: TaskId(17), attempt: 3 };
        assert_eq!(id.to_string(), "starlink-0a1b2c-17-3");
        assert_eq!(WorkId::parse("starlink-0a1b2c-17-3"), Some(id));
        for text in ["", "starlink-", "starlink-a-1", "starlink--1-2", "web", "starlink-a-b-1-2", "starlink-a-x-2"] {
            assert_eq!(WorkId::parse(text), None, "{text}");
        }
    }

    fn exit(code: Option<i64>, signal: Option<i64>) -> Exit {
        Exit { code, signal, failure: None, lost: false, started_at: None, finished_at: None }
    }

    fn check(exit: &Exit, cancelled: bool, ending: Ending, reason: Option<&str>) {
        let end = exit.told(cancelled);
        assert_eq!((end.ending, end.reason.as_deref()), (ending, reason), "{exit:?}");
    }

    #[test]
    fn ends_are_told_truly() {
        check(&exit(Some(0), None), false, Ending::Completed, None);
        check(&exit(Some(3), None), false, Ending::Failed, Some("exit_code"));
        check(&exit(None, Some(9)), false, Ending::Failed, Some("signal"));
        check(&exit(None, Some(15)), true, Ending::Cancelled, None);
        check(&exit(Some(0), None), true, Ending::Cancelled, None);
        let oom = Exit { failure: Some(Failure::new(reason::OUT_OF_MEMORY, "x")), ..exit(Some(137), Some(9)) };
        check(&oom, false, Ending::Failed, Some("out_of_memory"));
        check(&Exit::lost("gone"), true, Ending::Unknown, Some("agent_lost"));
        check(&Exit::failed(Failure::new(reason::IMAGE_MISSING, "x")), false, Ending::Failed, Some("image_missing"));
    }
}
