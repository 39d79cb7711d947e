//! What agents are told to do, and what came of it.

use super::protocol::{End, Ending};
use crate::{
    change::Recorded,
    clock::Timestamp,
    ids::{OperationId, ServerId, TaskId},
    scheduling::{Attempt, AttemptStep, Task},
    words::words,
};
use serde::{Deserialize, Serialize};

words! {
    /// What kind of thing an operation is.
    OperationKind {
        /// Running one attempt of a task, to its end.
        RunTask = "run_task",
    }
}

words! {
    /// How far an operation is.
    OperationState {
        /// The agent has not said that it has begun.
        Queued = "queued",
        /// The agent has begun.
        Running = "running",
        /// It ended well.
        Succeeded = "succeeded",
        /// It ended badly.
        Failed = "failed",
        /// It was ended because somebody asked for it.
        Cancelled = "cancelled",
        /// It came too late to be begun.
        Expired = "expired",
        /// Nobody can tell how it ended.
        Unknown = "unknown",
    }
}

impl OperationState {
    /// Whether its end is still to come.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

impl From<Ending> for OperationState {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Completed => Self::Succeeded,
            Ending::Failed => Self::Failed,
            Ending::Cancelled => Self::Cancelled,
            Ending::Expired => Self::Expired,
            Ending::Unknown => Self::Unknown,
        }
    }
}

/// One thing that one agent is told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The server whose agent does it.
    pub server_id: ServerId,
    /// What it is.
    pub kind: OperationKind,
    /// The task that it is about.
    pub task_id: Option<TaskId>,
    /// The attempt of that task.
    pub attempt: Option<u32>,
    /// How far it is.
    pub state: OperationState,
    /// Whether somebody asked for its end.
    pub cancel_requested: bool,
    /// What the agent said last that it is at.
    pub progress: Option<String>,
    /// How it ended, in the agent's words.
    pub result: Option<End>,
    /// When it was ordered.
    pub created_at: Timestamp,
    /// When the agent said that it runs.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Recorded for Operation {
    const KIND: &'static str = "operation";
    fn id(&self) -> i64 {
        self.id.0
    }
}

impl Operation {
    /// The order to run an attempt that has just been placed; `None`, if no agent runs it.
    #[must_use]
    pub fn to_run(task: &Task, attempt: &Attempt, now: Timestamp) -> Option<Self> {
        task.spec.driver.needs()?;
        Some(Self {
            id: OperationId(0),
            server_id: attempt.server_id,
            kind: OperationKind::RunTask,
            task_id: Some(task.id),
            attempt: Some(attempt.number),
            state: OperationState::Queued,
            cancel_requested: false,
            progress: None,
            result: None,
            created_at: now,
            started_at: None,
            finished_at: None,
        })
    }

    /// This operation after its attempt has gone on.
    #[must_use]
    pub fn stepped(&self, step: &AttemptStep, now: Timestamp) -> Self {
        if !self.state.is_open() {
            return self.clone();
        }
        match step {
            // That contact is lost says nothing about the work itself.
            AttemptStep::Keep | AttemptStep::Lose | AttemptStep::Find => self.clone(),
            AttemptStep::Start => Self {
                state: OperationState::Running,
                started_at: self.started_at.or(Some(now)),
                progress: None,
                ..self.clone()
            },
            AttemptStep::AskEnd => Self { cancel_requested: true, ..self.clone() },
            AttemptStep::End(end) => Self {
                state: end.ending.map_or(OperationState::Cancelled, OperationState::from),
                result: end.told.clone(),
                progress: None,
                finished_at: Some(now),
                ..self.clone()
            },
        }
    }
}

/// Which operations are wanted; all that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// Of this server's agent.
    pub server_id: Option<ServerId>,
    /// In this state.
    pub state: Option<OperationState>,
    /// About this task.
    pub task_id: Option<TaskId>,
}
