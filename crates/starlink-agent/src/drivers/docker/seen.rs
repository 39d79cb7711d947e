//! What a look at a container shows, and how it ended. Pure.

use super::{
    Identity,
    engine::{Trouble, reason_in},
};
use crate::work::{Exit, Failure};
use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status, RestartPolicyNameEnum as Policy,
};
use chrono::{DateTime, Utc};
use domain::scheduling::reason;

/// Whether it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It was made, and never started.
    Created,
    /// It runs.
    Running,
    /// It does not run, and the engine will start it again.
    Between,
    /// It has ended, and the engine will not start it again.
    Ended,
    /// It is just being removed.
    Removing,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The engine's own name for it, which no other container will ever have.
    pub(super) id: String,
    pub(super) phase: Phase,
    /// When it was made.
    pub(super) created_at: Option<DateTime<Utc>>,
    /// When it was started last.
    pub(super) started_at: Option<DateTime<Utc>>,
    /// When it ended last, which may be before it was started last.
    pub(super) finished_at: Option<DateTime<Utc>>,
    /// How often the engine started it again by itself.
    pub(super) restarts: i64,
    /// Whether the engine would not start it again however it ended.
    pub(super) restarts_never: bool,
    exit_code: Option<i64>,
    out_of_memory: bool,
    /// What the engine says went wrong.
    error: Option<String>,
}

impl Seen {
    /// Reads what the engine says of a container; `None`, if it is not the one of this work.
    pub(super) fn read(container: ContainerInspectResponse, identity: &Identity) -> Option<Self> {
        let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        if !identity.matches(&labels) {
            return None;
        }
        let state = container.state.unwrap_or_default();
        let policy = container.host_config.and_then(|host| host.restart_policy).and_then(|policy| policy.name);
        Some(Self {
            id: container.id.unwrap_or_default(),
            phase: phase(&state),
            created_at: time(container.created.as_deref()),
            restarts: container.restart_count.unwrap_or(0),
            restarts_never: policy.is_none_or(|name| matches!(name, Policy::NO | Policy::EMPTY)),
            started_at: time(state.started_at.as_deref()),
            finished_at: time(state.finished_at.as_deref()),
            exit_code: state.exit_code,
            out_of_memory: state.oom_killed.unwrap_or(false),
            error: state.error.filter(|error| !error.is_empty()),
        })
    }

    /// Whether a run came before the one that is, or was, the last.
    pub(super) fn ran_before(&self) -> bool {
        self.phase == Phase::Running && self.finished_at.is_some()
    }

    /// Whether it runs for the first time.
    pub(super) fn is_first_run(&self) -> bool {
        self.phase == Phase::Running && self.finished_at.is_none()
    }

    /// Whether its last run ended well.
    pub(super) fn is_well(&self) -> bool {
        self.exit_code == Some(0) && self.error.is_none()
    }

    /// The signal that ended it, if its code says so.
    pub(super) fn signal(&self) -> Option<i64> {
        self.exit_code.and_then(signal)
    }

    /// How it ended, if nothing else is known. `memory_mib` is what it was allowed.
    pub(super) fn exit(&self, memory_mib: i64) -> Exit {
        let failure = match &self.error {
            _ if self.is_well() => None,
            // A kill for want of memory that the program survived has nothing to do with its end.
            _ if self.out_of_memory => {
                let detail = format!("it used more memory than the {memory_mib} MiB that it had asked for");
                Some(Failure::new(reason::OUT_OF_MEMORY, detail))
            }
            Some(error) => Some(Trouble::Refused(error.clone()).into_failure(reason::START_FAILED)),
            None => None,
        };
        Exit {
            code: self.exit_code,
            signal: self.signal(),
            failure,
            lost: false,
            started_at: self.started_at,
            finished_at: self.finished_at,
        }
    }
}

/// Tells from the last lines that a container wrote whether its program was begun at all: the process that the engine
/// puts before it says so there.
pub(super) fn never_began(last_words: &str) -> Option<Failure> {
    let by_init = |line: &&str| {
        let tini = line.starts_with("[FATAL tini") && line.contains("] exec ") && line.contains(" failed: ");
        tini || (line.starts_with("ERROR (catatonit") && line.contains("failed to exec"))
    };
    let mut lines = last_words.lines().map(str::trim).rev();
    let line = lines.find(|line| reason_in(line) == Some(reason::EXEC_FORMAT) || by_init(line))?;
    let detail: String = line.chars().take(500).collect();
    Some(Failure::new(reason_in(line).unwrap_or(reason::START_FAILED), detail))
}

pub(super) fn phase(state: &ContainerState) -> Phase {
    match state.status {
        Some(Status::CREATED) => Phase::Created,
        Some(Status::RUNNING | Status::PAUSED | Status::STOPPING) => Phase::Running,
        Some(Status::RESTARTING) => Phase::Between,
        Some(Status::REMOVING) => Phase::Removing,
        Some(Status::EMPTY) | None if state.restarting == Some(true) => Phase::Between,
        Some(Status::EMPTY) | None if state.running == Some(true) => Phase::Running,
        Some(Status::EXITED | Status::DEAD | Status::EMPTY) | None => Phase::Ended,
    }
}

/// A moment, unless it is Go's zero.
pub(super) fn time(text: Option<&str>) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text?).ok()?.to_utc();
    (time > DateTime::UNIX_EPOCH).then_some(time)
}

/// By convention 128 and the number of a signal: what shells, inits and engines make of it. A program may end with such
/// a code by itself, too, which nobody can tell apart. Signals that end no program are not taken for one.
fn signal(code: i64) -> Option<i64> {
    let number = code - 128;
    (matches!(number, 1..=16 | 24..=27 | 29..=31)).then_some(number)
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
