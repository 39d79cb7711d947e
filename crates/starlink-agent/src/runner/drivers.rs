use crate::{
    drivers::{Driver, docker::Containers},
    work::{Failure, WorkId},
};
use domain::{
    containers::{EngineImage, ImageName},
    fleet::protocol::{Order, Outcome},
    scheduling::{TaskDriver, reason},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// The most starts of one driver that are under way at once: pulling images shares one line and one disk.
const STARTS: usize = 16;

/// The ways to run work on this machine.
pub struct Drivers(BTreeMap<TaskDriver, Arc<Slot>>);

impl Drivers {
    /// These. A driver that works only now and then, or that its owner does not allow any more, belongs here as well:
    /// it may have to attend to what it began before.
    pub fn new(drivers: impl IntoIterator<Item = (TaskDriver, Arc<dyn Driver>)>) -> Self {
        Self(drivers.into_iter().map(|(kind, driver)| (kind, Arc::new(Slot::new(driver)))).collect())
    }

    pub(super) fn slot(&self, kind: TaskDriver) -> Option<&Arc<Slot>> {
        self.0.get(&kind)
    }

    /// What the machine's container engine has under a name.
    pub(crate) async fn image(&self, name: &ImageName) -> Result<Option<EngineImage>, Failure> {
        match self.slot(TaskDriver::Docker) {
            Some(slot) => slot.driver.image(name).await,
            None => Ok(None),
        }
    }

    /// The way to the machine's container engine.
    pub(crate) fn containers(&self) -> Option<Containers> {
        self.slot(TaskDriver::Docker)?.driver.containers()
    }

    /// Does what an order says that runs no task.
    pub(super) async fn bring_about(
        &self,
        order: &Order,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Option<Outcome>, Failure> {
        match self.slot(TaskDriver::Docker) {
            Some(slot) => slot.driver.bring_about(order, progress).await,
            None => Err(Failure::new(reason::UNSUPPORTED, "this agent has no container engine")),
        }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.0.values()
    }
}

/// One driver.
pub(super) struct Slot {
    pub(super) driver: Arc<dyn Driver>,
    starts: Semaphore,
    swept: watch::Sender<bool>,
}

impl Slot {
    fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, starts: Semaphore::new(STARTS), swept: watch::Sender::new(false) }
    }

    /// Says that orphans were looked for.
    pub(super) fn mark_swept(&self) {
        self.swept.send_replace(true);
    }

    /// Returns once orphans were looked for: before that, something may run that an operation would begin again.
    pub(super) async fn swept(&self) {
        self.swept.subscribe().wait_for(|swept| *swept).await.ok();
    }

    /// Returns once something may be started.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.swept().await;
        self.starts.acquire().await.ok()
    }

    /// What the driver finds of an installation.
    pub(super) async fn find(&self, installation: &str, most: Duration) -> Result<Vec<WorkId>, Failure> {
        match tokio::time::timeout(most, self.driver.found(installation)).await {
            Ok(found) => found,
            Err(late) => Err(Failure::new(reason::ENGINE_GONE, late)),
        }
    }
}
