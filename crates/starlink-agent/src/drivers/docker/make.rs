//! Making a container, to its end once it was begun: a start that is given up half-way must not leave one behind that is
//! made only after it was removed.

use super::{DockerDriver, There, create::Plan, engine::Trouble, image::Telling, mounts};
use crate::work::{Failure, Work};
use bollard::{Docker, models::ContainerCreateBody, query_parameters::CreateContainerOptions};
use domain::scheduling::{TaskSpec, reason};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock};

/// What is being made just now.
#[derive(Debug, Default)]
pub(super) struct Making {
    /// Read by those who make something.
    all: Arc<RwLock<()>>,
    /// Held from choosing GPUs until the container has them.
    gpus: Arc<Mutex<()>>,
}

impl Making {
    /// Waits until all is made that was begun.
    pub(super) async fn done(&self) {
        drop(self.all.write().await);
    }
}

impl DockerDriver {
    /// Makes the container; its id.
    pub(super) async fn make(&self, work: &Work, tell: Telling<'_>) -> Result<String, Failure> {
        let spec = &work.spec;
        let mounts = self.mounts(spec).await?;
        let image = self.image(spec, tell).await?;
        let (gpus, choosing) = self.choose_gpus(spec.demand.gpus).await?;
        let grace_seconds = i64::try_from(self.grace(spec).as_secs()).unwrap_or(i64::MAX);
        let pids_limit = self.options.pids_limit;
        let body = Plan { id: &work.id, spec, image: &image, mounts, gpus, pids_limit, grace_seconds }.body();
        let name = Some(work.id.to_string());
        let options = CreateContainerOptions { name, platform: image.platform.unwrap_or_default() };
        match self.create(options, body, choosing).await {
            Ok(id) => Ok(id),
            // An earlier try got through, and its answer did not.
            Err(Trouble::Conflict(text)) => match self.find(&work.id).await {
                Ok(There::Ours(seen)) => Ok(seen.id),
                _ => Err(Failure::new(reason::START_FAILED, text)),
            },
            Err(Trouble::Missing(text)) => Err(Failure::new(reason::IMAGE_MISSING, text)),
            Err(trouble) => Err(trouble.into_failure(reason::START_FAILED)),
        }
    }

    /// Has the engine make it, whether or not anybody waits for that.
    async fn create(
        &self,
        options: CreateContainerOptions,
        body: ContainerCreateBody,
        choosing: Option<OwnedMutexGuard<()>>,
    ) -> Result<String, Trouble> {
        let making = Arc::clone(&self.making.all).read_owned().await;
        let (engine, patience) = (self.engine.clone(), self.options.engine_patience);
        let creating = tokio::spawn(async move {
            let create = |client: Docker| {
                let (options, body) = (options.clone(), body.clone());
                async move { client.create_container(Some(options), body).await }
            };
            let made = engine.ask_patiently(patience, create).await;
            let made = match made {
                Err(Trouble::Refused(text)) if lacks_init(&text) => {
                    tracing::warn!(
                        "containers have no init here, so that programs have to mind their children: {text}"
                    );
                    let create = |client: Docker| {
                        let (options, body) = (options.clone(), without_init(body.clone()));
                        async move { client.create_container(Some(options), body).await }
                    };
                    engine.ask_patiently(patience, create).await
                }
                made => made,
            };
            drop((making, choosing));
            made.map(|made| made.id)
        });
        creating.await.unwrap_or_else(|broken| Err(Trouble::Refused(broken.to_string())))
    }

    async fn mounts(&self, spec: &Arc<TaskSpec>) -> Result<Vec<bollard::models::Mount>, Failure> {
        let (spec, allowed) = (Arc::clone(spec), self.options.allow_mounts.clone());
        let resolved = tokio::task::spawn_blocking(move || mounts::resolve(&spec.mounts, &allowed)).await;
        resolved.map_err(|broken| Failure::new(reason::START_FAILED, broken))?
    }

    /// GPUs, and what keeps others from choosing before they are taken.
    async fn choose_gpus(&self, wanted: i64) -> Result<(Vec<String>, Option<OwnedMutexGuard<()>>), Failure> {
        if wanted <= 0 {
            return Ok((Vec::new(), None));
        }
        let choosing = Arc::clone(&self.making.gpus).lock_owned().await;
        Ok((self.free_gpus(wanted).await?, Some(choosing)))
    }
}

/// Podman has its init in a package of its own.
fn lacks_init(refusal: &str) -> bool {
    refusal.contains("init binary not found")
}

fn without_init(mut body: ContainerCreateBody) -> ContainerCreateBody {
    if let Some(host) = &mut body.host_config {
        host.init = None;
    }
    body
}
