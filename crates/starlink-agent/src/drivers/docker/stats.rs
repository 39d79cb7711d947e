//! What one container uses, each second.

use super::{
    containers::Containers,
    engine::Trouble,
    seen::{Phase, phase},
    usage::{Reading, reading},
};
use bollard::{Docker, errors::Error, models::ContainerStatsResponse, query_parameters::StatsOptions};
use domain::containers::{EngineId, Usage};
use futures_util::{Stream, StreamExt};
use std::pin::Pin;

/// Tells what a container uses, as often as the engine counts.
pub(crate) struct Usages {
    containers: Containers,
    id: EngineId,
    stats: Pin<Box<dyn Stream<Item = Result<ContainerStatsResponse, Error>> + Send>>,
    before: Option<Reading>,
}

impl Containers {
    /// Whether a container's program runs.
    pub(crate) async fn is_running(&self, id: &EngineId) -> Result<bool, Trouble> {
        let id = id.as_str();
        let look = self.engine.ask(|client: Docker| async move { client.inspect_container(id, None).await });
        Ok(look.await?.state.is_some_and(|state| phase(&state) == Phase::Running))
    }

    /// Begins to count what a container uses.
    pub(crate) fn usages(&self, id: &EngineId) -> Result<Usages, Trouble> {
        let options = StatsOptions { stream: true, ..StatsOptions::default() };
        let stats = self.engine.client(super::engine::QUICK)?.stats(id.as_str(), Some(options));
        Ok(Usages { containers: self.clone(), id: id.clone(), stats: Box::pin(stats), before: None })
    }
}

impl Usages {
    /// What it uses, once it was counted again; `None` when it has ended. It may be given up at any time.
    pub(crate) async fn next(&mut self) -> Result<Option<Usage>, Trouble> {
        loop {
            let counted = match self.stats.next().await {
                Some(Ok(stats)) => Some(reading(&stats)).filter(Reading::is_of_something_running),
                Some(Err(error)) => match Trouble::from(error) {
                    Trouble::Missing(_) => return Ok(None),
                    trouble => return Err(trouble),
                },
                None => return Ok(None),
            };
            let Some(counted) = counted else {
                // The engine goes on counting what has ended, and has nothing yet of what is just being started.
                match self.containers.is_running(&self.id).await {
                    Ok(true) => continue,
                    Ok(false) | Err(Trouble::Missing(_)) => return Ok(None),
                    Err(trouble) => return Err(trouble),
                }
            };
            let usage = counted.since(self.before.as_ref(), self.containers.clock.now());
            self.before = Some(counted);
            return Ok(Some(usage));
        }
    }
}
