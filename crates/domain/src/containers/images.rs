use super::{
    image::{Engines, ImageTruth, Registries, RegistryFailure},
    name::ImageName,
    platform::Platform,
};
use crate::{
    Error, Result,
    ids::ServerId,
    scheduling::{ArchitectureNeed, TaskSpec},
};
use std::{collections::BTreeSet, sync::Arc};

/// Says what images are.
pub struct ImageService {
    registries: Arc<dyn Registries>,
    engines: Arc<dyn Engines>,
}

impl ImageService {
    /// A service over these ports.
    #[must_use]
    pub fn new(registries: Arc<dyn Registries>, engines: Arc<dyn Engines>) -> Self {
        Self { registries, engines }
    }

    /// A task with what its image is, if it has one and wants that looked up. The registry's word is asked for first;
    /// where it has none, the engines'. What only engines have may differ from one to the other, and is not pinned.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the task cannot run its image, or it is no image; `image_missing` if nobody has it;
    /// [`Error::Unavailable`] if its registry does not answer, and no engine has it.
    pub async fn identify(&self, spec: TaskSpec) -> Result<TaskSpec> {
        let Some(image) = spec.image.as_deref().filter(|_| spec.verify_image) else { return Ok(spec) };
        let name = ImageName::parse(image).map_err(|reason| Error::invalid("image", reason))?;
        let truth = match self.registries.look_up(&name).await {
            Ok(truth) => truth,
            Err(failure) => self.of_engines(&name).await.ok_or_else(|| refusal(failure))?,
        };
        suited(spec, truth)
    }

    /// What all engines together have.
    async fn of_engines(&self, name: &ImageName) -> Option<ImageTruth> {
        let found = self.engines.look_up(name).await;
        let platforms: BTreeSet<Platform> = found.iter().filter_map(|(_, image)| image.platform.clone()).collect();
        let servers: BTreeSet<ServerId> = found.iter().map(|(server, _)| *server).collect();
        (!found.is_empty()).then(|| ImageTruth {
            platforms: platforms.into_iter().collect(),
            servers: servers.into_iter().collect(),
            ..ImageTruth::default()
        })
    }
}

/// The task with this truth, unless that contradicts it.
fn suited(spec: TaskSpec, truth: ImageTruth) -> Result<TaskSpec> {
    let says = !truth.platforms.is_empty();
    let reason = match spec.architecture {
        ArchitectureNeed::Universal if !says => {
            "must be x86_64, arm64 or riscv64 for this task: its image does not say what it was built for".to_owned()
        }
        ArchitectureNeed::Only(stated) if says && !truth.architectures().contains(stated) => {
            let (stated, has) = (stated.as_str(), truth.told());
            format!(
                "is {stated}, which the image does not have: it has {has}; leave it out to run on what the image has"
            )
        }
        _ => return Ok(TaskSpec { image_truth: Some(truth), ..spec }),
    };
    Err(Error::invalid("required_architecture", reason))
}

fn refusal(failure: RegistryFailure) -> Error {
    match failure {
        RegistryFailure::Missing(why) => {
            let reason = format!("{why}; nor does a container engine of the fleet have it");
            Error::conflict("image_missing", reason)
        }
        RegistryFailure::Silent(why) => {
            let reason = format!(
                "{why}; so nobody knows what the image was built for, and no container engine of the fleet has it: try \
                 again, or state required_architecture and \"verify_image\": false if you know"
            );
            Error::Unavailable { reason, source: None }
        }
        RegistryFailure::NoImage(why) => Error::invalid("image", why),
    }
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
