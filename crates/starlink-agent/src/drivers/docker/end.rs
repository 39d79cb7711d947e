//! Ending a container, so that it stays ended.

use super::engine::{Engine, Pauses, Trouble};
use bollard::{
    Docker,
    models::{ContainerUpdateBody, RestartPolicy, RestartPolicyNameEnum},
    query_parameters::{KillContainerOptions, StopContainerOptions},
};
use std::time::Duration;
use tokio::time::Instant;

/// How much longer than the grace the engine may take to end a container.
const MARGIN: Duration = Duration::from_secs(30);

/// Asks the container to end, and kills it once `grace` is over. Returns when it has ended; at once, if it is not there.
pub(super) async fn end(engine: &Engine, patience: Duration, id: &str, grace: Duration) -> Result<(), Trouble> {
    // Otherwise the engine, when it is started itself, would start it again: it forgets that it was told to stop it.
    let never = RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None };
    let update = ContainerUpdateBody { restart_policy: Some(never), ..ContainerUpdateBody::default() };
    let update = |client: Docker| {
        let update = update.clone();
        async move { client.update_container(id, update).await }
    };
    match engine.ask_patiently(patience, update).await {
        Err(Trouble::Away(text)) => return Err(Trouble::Away(text)),
        // It is being removed, or its engine cannot change it, or knows no such question, as Podman before its version 5:
        // it can be stopped nevertheless.
        Ok(()) | Err(Trouble::Missing(_) | Trouble::Conflict(_) | Trouble::Refused(_)) => {}
    }
    let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    let options = StopContainerOptions { signal: None, t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)) };
    let within = Duration::from_secs(seconds).saturating_add(MARGIN);
    let stop = |client: Docker| {
        let options = options.clone();
        async move { client.with_timeout(within).stop_container(id, Some(options)).await }
    };
    match engine.ask_patiently(patience, stop).await {
        Err(Trouble::Missing(_)) => Ok(()),
        Err(Trouble::Away(text)) => Err(Trouble::Away(text)),
        Ok(()) | Err(Trouble::Conflict(_) | Trouble::Refused(_)) => kill_what_runs(engine, patience, id).await,
    }
}

/// Sees to it that it has ended.
async fn kill_what_runs(engine: &Engine, patience: Duration, id: &str) -> Result<(), Trouble> {
    let until = Instant::now() + MARGIN;
    let mut pauses = Pauses::default();
    loop {
        let look = |client: Docker| async move { client.inspect_container(id, None).await };
        let state = match engine.ask_patiently(patience, look).await {
            Err(Trouble::Missing(_)) => return Ok(()),
            container => container?.state.unwrap_or_default(),
        };
        // While it is between two runs, it counts as running.
        if state.running != Some(true) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Trouble::Refused(format!("container {id} does not end")));
        }
        let options = Some(KillContainerOptions { signal: "KILL".to_owned() });
        let killed = engine.ask(|client: Docker| async move { client.kill_container(id, options).await }).await;
        if let Err(trouble) = killed {
            tracing::debug!(container = id, %trouble, "a container could not be killed");
        }
        tokio::time::sleep(pauses.next()).await;
    }
}
