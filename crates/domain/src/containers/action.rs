//! What can be done to a container.

use super::observed::{ContainerState, Observed};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What is to be done to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ContainerAction {
    /// Run its program.
    Start,
    /// Ask its program to end, and kill it if it has not after a while.
    Stop {
        /// That while, in seconds; the container's own, if left out.
        #[serde(default)]
        grace_seconds: Option<u32>,
    },
    /// Stop it and start it.
    Restart {
        /// As of [`ContainerAction::Stop`].
        #[serde(default)]
        grace_seconds: Option<u32>,
    },
    /// Freeze its processes.
    Pause,
    /// Let them go on.
    Unpause,
    /// Send its program a signal.
    Kill {
        /// Its name, such as `SIGHUP`; `SIGKILL`, if left out.
        #[serde(default)]
        signal: Option<String>,
    },
    /// Remove it.
    Remove {
        /// Whether to kill it first, if it runs.
        #[serde(default)]
        kill: bool,
        /// Whether its volumes that have no name go with it, with all that is in them.
        #[serde(default)]
        volumes: bool,
    },
}

impl ContainerAction {
    /// Its word in the API.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Kill { .. } => "kill",
            Self::Remove { .. } => "remove",
        }
    }

    /// Its name in the audit log.
    #[must_use]
    pub fn recorded(&self) -> &'static str {
        match self {
            Self::Start => "container.start",
            Self::Stop { .. } => "container.stop",
            Self::Restart { .. } => "container.restart",
            Self::Pause => "container.pause",
            Self::Unpause => "container.unpause",
            Self::Kill { .. } => "container.kill",
            Self::Remove { .. } => "container.remove",
        }
    }
}

/// Whether somebody insists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Insistence {
    /// They have not said so.
    None,
    /// They know that the container is not ours, and want it all the same.
    Force,
}

/// Judges whether something may be done to a container, by what is known of it. What the engine makes of it may differ,
/// since the container may have gone on.
///
/// # Errors
/// `container_foreign` if `StarLink` did not start it and nobody insists; `container_of_task` if it belongs to a task,
/// which would be started or removed in its place; `illegal_transition` if the container's state does not allow it.
pub fn judge(container: &Observed, action: &ContainerAction, insistence: Insistence) -> Result<()> {
    match container.runs {
        None if insistence == Insistence::None => {
            let reason = format!(
                "container \"{}\" was not started by StarLink: say \"force\": true to {} it all the same, which is \
                 recorded",
                container.name,
                action.word()
            );
            return Err(Error::conflict("container_foreign", reason));
        }
        Some(runs) if matches!(action, ContainerAction::Start | ContainerAction::Remove { .. }) => {
            let reason = format!(
                "container \"{}\" belongs to task {task}, and goes with it: POST /tasks/{task}/cancel ends and removes \
                 it, POST /tasks/{task}/retry runs it again",
                container.name,
                task = runs.task_id
            );
            return Err(Error::conflict("container_of_task", reason));
        }
        _ => {}
    }
    let wrong = misfit(container.state, action);
    wrong.map_or(Ok(()), |why| {
        let reason = format!("container \"{}\" is {}: {why}", container.name, container.state);
        Err(Error::conflict("illegal_transition", reason))
    })
}

/// Why a container in this state does not take an action; `None` if it does.
fn misfit(state: ContainerState, action: &ContainerAction) -> Option<&'static str> {
    use ContainerAction as Do;
    use ContainerState as Is;
    match (action, state) {
        // The engine knows more than we do.
        (_, Is::Unknown) => None,
        (_, Is::Removing) => Some("it is being removed"),
        (Do::Start, Is::Running | Is::Restarting) => Some("it is started already"),
        (Do::Start, Is::Paused) => Some("unpause it"),
        (Do::Start | Do::Restart { .. }, Is::Dead) => Some("it can only be removed"),
        (Do::Stop { .. }, Is::Created | Is::Exited | Is::Dead) => Some("there is nothing to stop"),
        (Do::Kill { .. }, state) if !state.is_alive() => Some("there is nothing to send a signal to"),
        (Do::Pause, Is::Paused) => Some("it is paused already"),
        (Do::Pause, state) if state != Is::Running => Some("only a running container can be paused"),
        (Do::Unpause, state) if state != Is::Paused => Some("only a paused container can be unpaused"),
        (Do::Remove { kill: false, .. }, state) if state.is_alive() => {
            Some("stop it first, or say \"kill\": true to kill and remove it")
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "action_tests.rs"]
mod tests;
