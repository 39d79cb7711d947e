//! What is done to containers and images that runs no task.

use super::{DockerDriver, engine::Trouble, image::Telling, raw::Raw};
use crate::work::Failure;
use bollard::{
    Docker,
    models::ContainerInspectResponse,
    query_parameters::{
        KillContainerOptions, ListContainersOptions, RemoveContainerOptions, RemoveImageOptions,
        RestartContainerOptions, StopContainerOptions,
    },
};
use domain::{
    containers::{
        ContainerAction,
        wire::{ContainerOrder, ImagePrune, ImagePull},
    },
    fleet::protocol::{KeptImage, Order, Outcome},
    scheduling::reason,
};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};

/// How much longer than the grace the engine may take to end a container.
const MARGIN: Duration = Duration::from_secs(30);
/// How long the engine gives a container that does not say.
const ENGINES_GRACE: u32 = 10;
/// The code of an action that the engine refuses.
const REFUSED: &str = "engine_refused";

impl DockerDriver {
    /// Does what an order says. The engine is asked once: if it goes away meanwhile, nobody knows whether it was done.
    pub(super) async fn carry_out(&self, order: &Order, tell: Telling<'_>) -> Result<Option<Outcome>, Failure> {
        match order {
            Order::Container(order) => self.act(order).await.map(|()| None).map_err(failed),
            Order::ImagePull(pull) => self.pull_image(pull, tell).await.map(Some),
            Order::ImagePrune(prune) => self.prune_images(prune, tell).await.map(Some),
            Order::RunTask(_) | Order::Unknown => {
                Err(Failure::new(reason::UNSUPPORTED, "this agent does not know how to do it; renew it"))
            }
        }
    }

    async fn act(&self, order: &ContainerOrder) -> Result<(), Trouble> {
        let id = order.engine_id.as_str();
        match &order.action {
            ContainerAction::Start => {
                self.engine.ask(|client: Docker| async move { client.start_container(id, None).await }).await
            }
            ContainerAction::Stop { grace_seconds } => self.stop_container(id, *grace_seconds).await,
            ContainerAction::Restart { grace_seconds } => self.restart_container(id, *grace_seconds).await,
            ContainerAction::Pause => {
                self.engine.ask(|client: Docker| async move { client.pause_container(id).await }).await
            }
            ContainerAction::Unpause => {
                self.engine.ask(|client: Docker| async move { client.unpause_container(id).await }).await
            }
            ContainerAction::Kill { signal } => {
                let signal = signal.clone().unwrap_or_else(|| "SIGKILL".to_owned());
                let options = Some(KillContainerOptions { signal });
                self.engine.ask(|client: Docker| async move { client.kill_container(id, options).await }).await
            }
            ContainerAction::Remove { kill, volumes } => self.remove_container(id, *kill, *volumes).await,
        }
    }

    async fn stop_container(&self, id: &str, grace: Option<u32>) -> Result<(), Trouble> {
        let within = self.within(id, grace).await?;
        let options = Some(StopContainerOptions { signal: None, t: grace.map(seconds) });
        let stop = |client: Docker| async move { client.with_timeout(within).stop_container(id, options).await };
        self.engine.ask(stop).await
    }

    async fn restart_container(&self, id: &str, grace: Option<u32>) -> Result<(), Trouble> {
        let within = self.within(id, grace).await?;
        let options = Some(RestartContainerOptions { signal: None, t: grace.map(seconds) });
        let restart = |client: Docker| async move { client.with_timeout(within).restart_container(id, options).await };
        self.engine.ask(restart).await
    }

    /// How long the engine may take to end a container: as long as that has to end by itself, and some more.
    async fn within(&self, id: &str, grace: Option<u32>) -> Result<Duration, Trouble> {
        let grace = match grace {
            Some(seconds) => seconds,
            None => own_grace(
                self.engine.ask(|client: Docker| async move { client.inspect_container(id, None).await }).await?,
            ),
        };
        Ok(Duration::from_secs(grace.into()).saturating_add(MARGIN))
    }

    async fn remove_container(&self, id: &str, kill: bool, volumes: bool) -> Result<(), Trouble> {
        let options = RemoveContainerOptions { v: volumes, force: kill, link: false };
        let remove = |client: Docker| async move { client.remove_container(id, Some(options)).await };
        match self.engine.ask(remove).await {
            // It is gone, which is what was wanted.
            Err(Trouble::Missing(_)) => Ok(()),
            outcome => outcome,
        }
    }

    async fn pull_image(&self, pull: &ImagePull, tell: Telling<'_>) -> Result<Outcome, Failure> {
        self.pull(&pull.name, String::new(), tell).await?;
        let name = pull.name.as_str();
        let image = self.inspect_image(name).await?;
        let missing = || Failure::new(reason::IMAGE_MISSING, format!("{name} was pulled, and is not there"));
        let image = image.ok_or_else(missing)?;
        let digests = image.repo_digests.unwrap_or_default();
        let digest = digests.first().and_then(|digest| digest.rsplit_once('@')).map(|(_, digest)| digest.to_owned());
        Ok(Outcome::Pulled { image_id: image.id.unwrap_or_default(), digest })
    }

    async fn prune_images(&self, prune: &ImagePrune, tell: Telling<'_>) -> Result<Outcome, Failure> {
        let before = self.disk_used().await.map_err(failed)?;
        let (mut removed, mut kept) = (Vec::new(), Vec::new());
        for (index, id) in prune.ids.iter().enumerate() {
            tell(format!("removing image {} of {}", index + 1, prune.ids.len()));
            match self.remove_image(id).await {
                Ok(()) | Err(Trouble::Missing(_)) => removed.push(id.clone()),
                Err(Trouble::Away(why)) => return Err(failed(Trouble::Away(why))),
                Err(trouble) => kept.push(KeptImage { image_id: id.clone(), reason: trouble.to_string() }),
            }
        }
        let after = self.disk_used().await.map_err(failed)?;
        Ok(Outcome::Pruned { removed, kept, freed_bytes: before.saturating_sub(after) })
    }

    /// Removes an image with all of its names, unless a container was made from it by now.
    async fn remove_image(&self, id: &str) -> Result<(), Trouble> {
        let inspect = |name: String| async move {
            self.engine.ask(|client: Docker| async move { client.inspect_image(&name).await }).await
        };
        let names = inspect(id.to_owned()).await?.repo_tags.unwrap_or_default();
        if self.is_used(id).await? {
            return Err(Trouble::Conflict("a container was made from it meanwhile".to_owned()));
        }
        // The last name takes the image with it; without any name, its id does.
        for name in &names {
            // It may have been given to another image meanwhile.
            match inspect(name.clone()).await {
                Ok(image) if image.id.as_deref() == Some(id) => self.remove_name(name).await?,
                Ok(_) | Err(Trouble::Missing(_)) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        if names.is_empty() { self.remove_name(id).await } else { Ok(()) }
    }

    async fn remove_name(&self, name: &str) -> Result<(), Trouble> {
        let options = RemoveImageOptions { force: false, noprune: false, ..RemoveImageOptions::default() };
        let remove = |client: Docker| async move { client.remove_image(name, Some(options), None).await };
        self.engine.ask(remove).await.map(|_| ())
    }

    /// Whether a container was made from an image, whether it runs or not.
    async fn is_used(&self, id: &str) -> Result<bool, Trouble> {
        let filters = HashMap::from([("ancestor".to_owned(), vec![id.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let found = self.engine.ask(|client: Docker| async move { client.list_containers(Some(options)).await });
        Ok(!found.await?.is_empty())
    }

    /// How much the layers of all images take, in bytes; each is counted once. Engines from before API 1.52 call it
    /// otherwise than those after.
    async fn disk_used(&self) -> Result<u64, Trouble> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Usage {
            layers_size: Option<u64>,
            image_usage: Option<Images>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Images {
            total_size: Option<u64>,
        }
        let usage: Usage = Raw::new(&self.engine)?.json("/system/df").await?;
        Ok(usage.layers_size.or_else(|| usage.image_usage?.total_size).unwrap_or_default())
    }
}

fn own_grace(container: ContainerInspectResponse) -> u32 {
    let own = container.config.and_then(|config| config.stop_timeout);
    own.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(ENGINES_GRACE)
}

fn seconds(grace: u32) -> i32 {
    i32::try_from(grace).unwrap_or(i32::MAX)
}

fn failed(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Missing(text) => Failure::new(reason::CONTAINER_GONE, text),
        trouble => trouble.into_failure(REFUSED),
    }
}
