use super::{name::ImageName, platform::Platform, wire::ListedImage};
use crate::{Result, fleet::Architecture, ids::ServerId, scheduling::ArchitectureSet};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an image is, as it was found when a task that names it was taken in. It stays so for all attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTruth {
    /// The digest by which its registry has it, such as `sha256:…`; `None` if only container engines have it.
    pub digest: Option<String>,
    /// What it was built for, in order; nothing if it does not say.
    pub platforms: Vec<Platform>,
    /// The servers that have it, in order, if there is no registry to pull it from; it runs nowhere else.
    #[serde(default)]
    pub servers: Vec<ServerId>,
    /// The digests of what an index has for its platforms, as far as servers run them.
    #[serde(default)]
    pub manifests: BTreeMap<Platform, String>,
}

impl ImageTruth {
    /// An image that a registry has by this digest.
    #[must_use]
    pub fn pulled(digest: impl Into<String>, platforms: Vec<Platform>) -> Self {
        Self { digest: Some(digest.into()), platforms, ..Self::default() }
    }

    /// An index that a registry has by this digest, with the platforms and their own digests.
    #[must_use]
    pub fn indexed(digest: impl Into<String>, manifests: BTreeMap<Platform, String>) -> Self {
        let platforms = manifests.keys().cloned().collect();
        // Most indexes have several that no server runs, and every task keeps this.
        let manifests = manifests.into_iter().filter(|(platform, _)| platform.architecture().is_some()).collect();
        Self { manifests, ..Self::pulled(digest, platforms) }
    }

    /// The digest of what it has for an architecture, if that is another one than its own.
    #[must_use]
    pub fn manifest(&self, architecture: Architecture) -> Option<&str> {
        let mut manifests = self.manifests.iter();
        let (_, digest) = manifests.find(|(platform, _)| platform.architecture() == Some(architecture))?;
        Some(digest)
    }

    /// The servers that run it natively; none, if it does not say what it was built for.
    #[must_use]
    pub fn architectures(&self) -> ArchitectureSet {
        self.platforms.iter().filter_map(Platform::architecture).collect()
    }

    /// Its platforms, as people read them.
    #[must_use]
    pub fn told(&self) -> String {
        let words: Vec<String> = self.platforms.iter().map(ToString::to_string).collect();
        words.join(", ")
    }
}

/// Why a registry does not tell what an image is. Each has a sentence that begins with neither name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryFailure {
    /// It has no such image, or none that we may see: registries do not tell which.
    Missing(String),
    /// It does not answer, or not as a registry does.
    Silent(String),
    /// What it has under this name is no image that could be run.
    NoImage(String),
}

/// An image that a container engine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineImage {
    /// The engine's id of it.
    pub id: String,
    /// What it was built for, if it says.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// The container engines of the fleet.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Engines: Send + Sync {
    /// What the engines have under a name at this moment, each with its server. Engines that do not answer in time are
    /// left out, as are all but the first few hundred that could be asked.
    async fn look_up(&self, name: &ImageName) -> Vec<(ServerId, EngineImage)>;

    /// The images that a server's engine has at this moment.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] if it does not say so in time.
    async fn images(&self, server: ServerId) -> Result<Vec<ListedImage>>;
}

/// Where images are kept.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Registries: Send + Sync {
    /// What an image's registry says of it at this moment, or said a moment ago.
    ///
    /// # Errors
    /// [`RegistryFailure`]
    async fn look_up(&self, name: &ImageName) -> Result<ImageTruth, RegistryFailure>;
}
