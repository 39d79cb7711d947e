use super::{
    observed::{ContainerState, Observed},
    usage::Usage,
};
use crate::{
    change::Recorded,
    clock::Timestamp,
    ids::{ContainerId, ServerId, TaskId},
};
use serde::{Deserialize, Serialize};

/// A container of a server's engine, as its agent last said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Our id of it; a container that is removed and made anew gets another.
    pub id: ContainerId,
    /// The server.
    pub server_id: ServerId,
    /// What the engine said.
    pub observed: Observed,
    /// What it uses, if that was counted since it runs.
    pub usage: Option<Usage>,
    /// When the agent last said, or confirmed, that all this is so.
    pub reported_at: Timestamp,
}

impl Recorded for Container {
    const KIND: &'static str = "container";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// Which containers are wanted; all that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// On one of these servers; on any, if there are none.
    pub servers: Vec<ServerId>,
    /// In this state.
    pub state: Option<ContainerState>,
    /// Of this Compose project.
    pub project: Option<String>,
    /// That run this task.
    pub task_id: Option<TaskId>,
    /// That `StarLink` started, or that it did not.
    pub managed: Option<bool>,
    /// With this in their name or image.
    pub keyword: Option<String>,
}
