//! What agents are told to do, and what came of it.

use super::protocol::{End, Ending, Order};
use crate::{
    Error,
    change::Recorded,
    clock::Timestamp,
    containers::wire::{ContainerOrder, ImagePrune, ImagePull},
    ids::{ContainerId, OperationId, ServerId, TaskId},
    scheduling::{Attempt, AttemptStep, Task},
    words::words,
};
use serde::{Deserialize, Serialize};

words! {
    /// What kind of thing an operation is.
    OperationKind {
        /// Running one attempt of a task, to its end.
        RunTask = "run_task",
        /// Doing something to a container.
        Container = "container",
        /// Pulling an image.
        ImagePull = "image_pull",
        /// Removing images.
        ImagePrune = "image_prune",
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

/// What an operation brings about that runs no task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Deed {
    /// Something is done to a container.
    Container {
        /// The container.
        container_id: ContainerId,
        /// What it was called.
        name: String,
        /// What its engine calls it, and what is done.
        #[serde(flatten)]
        order: ContainerOrder,
    },
    /// An image is pulled.
    ImagePull(ImagePull),
    /// Images are removed.
    ImagePrune(ImagePrune),
}

impl Deed {
    /// What kind of operation brings it about.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Container { .. } => OperationKind::Container,
            Self::ImagePull(_) => OperationKind::ImagePull,
            Self::ImagePrune(_) => OperationKind::ImagePrune,
        }
    }

    /// What an agent is told.
    #[must_use]
    pub fn order(&self) -> Order {
        match self.clone() {
            Self::Container { order, .. } => Order::Container(order),
            Self::ImagePull(pull) => Order::ImagePull(pull),
            Self::ImagePrune(prune) => Order::ImagePrune(prune),
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
    /// What it brings about, if it runs no task.
    #[serde(default)]
    pub deed: Option<Deed>,
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
        let queued = Self::queued(attempt.server_id, OperationKind::RunTask, now);
        Some(Self { task_id: Some(task.id), attempt: Some(attempt.number), ..queued })
    }

    /// The order to bring something about.
    #[must_use]
    pub fn to_do(server_id: ServerId, deed: Deed, now: Timestamp) -> Self {
        let queued = Self::queued(server_id, deed.kind(), now);
        Self { deed: Some(deed), ..queued }
    }

    fn queued(server_id: ServerId, kind: OperationKind, now: Timestamp) -> Self {
        Self {
            id: OperationId(0),
            server_id,
            kind,
            task_id: None,
            attempt: None,
            deed: None,
            state: OperationState::Queued,
            cancel_requested: false,
            progress: None,
            result: None,
            created_at: now,
            started_at: None,
            finished_at: None,
        }
    }

    /// This operation, which its agent has begun; `None` if that is known.
    #[must_use]
    pub fn begun(&self, now: Timestamp) -> Option<Self> {
        (self.state == OperationState::Queued).then(|| Self {
            state: OperationState::Running,
            started_at: Some(now),
            ..self.clone()
        })
    }

    /// This operation, which has ended as its agent says.
    #[must_use]
    pub fn ended(&self, end: &End, now: Timestamp) -> Self {
        Self {
            state: end.ending.into(),
            result: Some(end.clone()),
            progress: None,
            started_at: self.started_at.or(end.started_at),
            finished_at: Some(now),
            ..self.clone()
        }
    }

    /// The refusal to hear more of an operation that has ended.
    #[must_use]
    pub fn closed(&self) -> Error {
        let reason = format!("operation {} is {} already; whatever is left of it has to go", self.id, self.state);
        Error::conflict("operation_closed", reason)
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
