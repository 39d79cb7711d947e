//! Ways to run work.

pub mod docker;
pub mod exec;

use crate::work::{Exit, Failure, Work, WorkId};
use async_trait::async_trait;
use domain::{
    containers::{EngineImage, ImageName},
    fleet::protocol::{Order, Outcome},
    scheduling::reason,
};
use std::time::Duration;

/// A way to run work. Every method may be called again after a crash of the agent in the middle of it.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Has the work run, and returns once it does. What is there already under its name goes on as it is: nothing is
    /// run twice. `progress` is told what it is at, in a sentence, where that takes time.
    async fn start(&self, work: &Work, progress: &(dyn Fn(String) + Send + Sync)) -> Result<(), Failure>;

    /// Waits until the work has ended for good (what its restart policy has start again has not), and keeps its output
    /// in its log meanwhile. Works on what an earlier run of the agent began, too; what is not there is lost.
    async fn wait(&self, work: &Work) -> Exit;

    /// Asks the work to end, and once `grace` is over ends it, with everything that it started. Returns when it has
    /// ended; at once, if it is not there.
    async fn stop(&self, work: &Work, grace: Duration) -> Result<(), Failure>;

    /// Removes what is left of work that has ended, except its log.
    async fn remove(&self, work: &Work) -> Result<(), Failure>;

    /// What the container engine has under a name; nothing, where there is none.
    async fn image(&self, _name: &ImageName) -> Result<Option<EngineImage>, Failure> {
        Ok(None)
    }

    /// The way to its container engine, if it has one.
    fn containers(&self) -> Option<docker::Containers> {
        None
    }

    /// Does what an order says that runs no task. It may be left half-way.
    async fn bring_about(
        &self,
        _order: &Order,
        _progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Option<Outcome>, Failure> {
        Err(Failure::new(reason::UNSUPPORTED, "this agent has no container engine"))
    }

    /// What there is of an installation, running or ended, and not removed.
    async fn found(&self, installation: &str) -> Result<Vec<WorkId>, Failure>;
}
