//! The images that an engine has.

use super::{
    containers::Containers,
    engine::{Engine, Trouble},
    image::platform_of,
};
use bollard::{
    Docker,
    models::{ContainerSummary, ImageSummary},
    query_parameters::{ListContainersOptions, ListImagesOptions},
};
use chrono::DateTime;
use domain::containers::{EngineId, ImageName, Platform, wire::ListedImage};
use futures_util::{StreamExt, stream};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The most images that are told of; the engine begins with the newest.
const MOST: usize = 5_000;
/// How many the engine is asked about at once.
const AT_ONCE: usize = 4;

/// What an image says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// What it was built for.
    pub(super) platform: Option<Platform>,
    /// The digest by which a registry has it, if it came from one.
    pub(super) digest: Option<String>,
}

/// What images say of themselves, by their ids: it takes a question for each, and hardly ever changes.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownImages(Arc<Mutex<HashMap<String, Facts>>>);

impl KnownImages {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Facts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one says; nothing, where the engine does not know it any more.
    pub(super) async fn facts(&self, engine: &Engine, id: &str) -> Facts {
        if let Some(known) = self.known().get(id) {
            return known.clone();
        }
        let image = engine.ask(|client: Docker| async move { client.inspect_image(id).await }).await;
        let Ok(image) = image else { return Facts::default() };
        let digest = image.repo_digests.as_ref().and_then(|digests| digests.first()?.rsplit_once('@'));
        let facts = Facts { platform: platform_of(&image), digest: digest.map(|(_, digest)| digest.to_owned()) };
        let mut known = self.known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(id.to_owned(), facts.clone());
        facts
    }

    /// Forgets those that are not there any more.
    fn keep(&self, images: &[ListedImage]) {
        let ids: std::collections::HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.known().retain(|id, _| ids.contains(id.as_str()));
    }
}

impl Containers {
    /// All images, the newest first, with the containers that were made from them.
    pub(crate) async fn images(&self) -> Result<Vec<ListedImage>, Trouble> {
        let images =
            self.engine.ask(|client: Docker| async move { client.list_images(None::<ListImagesOptions>).await });
        let mut images = images.await?;
        images.truncate(MOST);
        let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let containers = self.engine.ask(|client: Docker| async move { client.list_containers(Some(options)).await });
        let mut used_by = by_image(containers.await?);
        let listed = stream::iter(images).map(|image| async move {
            let platform = self.images.facts(&self.engine, &image.id).await.platform;
            read(image, platform)
        });
        let mut listed: Vec<ListedImage> = listed.buffered(AT_ONCE).collect().await;
        for image in &mut listed {
            image.used_by = used_by.remove(&image.id).unwrap_or_default();
        }
        self.images.keep(&listed);
        Ok(listed)
    }
}

fn by_image(containers: Vec<ContainerSummary>) -> HashMap<String, Vec<EngineId>> {
    let mut used_by: HashMap<String, Vec<EngineId>> = HashMap::new();
    for container in containers {
        let id = container.id.and_then(|id| EngineId::parse(id).ok());
        if let Some((image, id)) = container.image_id.zip(id) {
            used_by.entry(image).or_default().push(id);
        }
    }
    used_by
}

fn read(image: ImageSummary, platform: Option<Platform>) -> ListedImage {
    let named = |names: Vec<String>| names.into_iter().filter(|name| !name.contains("<none>")).map(|name| whole(&name));
    ListedImage {
        id: image.id,
        names: named(image.repo_tags).collect(),
        digests: named(image.repo_digests).collect(),
        platform,
        size_bytes: u64::try_from(image.size).unwrap_or_default(),
        created_at: DateTime::from_timestamp(image.created, 0).filter(|time| *time > DateTime::UNIX_EPOCH),
        used_by: Vec::new(),
    }
}

/// A name with its registry, which engines leave out where it is Docker's own.
fn whole(name: &str) -> String {
    let Ok(parsed) = ImageName::parse(name) else { return name.to_owned() };
    let (registry, repository, reference) = (parsed.registry(), parsed.repository(), parsed.reference());
    let sign = if parsed.digest().is_some() { '@' } else { ':' };
    format!("{registry}/{repository}{sign}{reference}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &str) {
        assert_eq!(whole(name), expected);
    }

    #[test]
    fn names_are_told_with_their_registry() {
        let digest = format!("sha256:{}", "a".repeat(64));
        check("nginx:1", "docker.io/library/nginx:1");
        check("acme/app:1", "docker.io/acme/app:1");
        check("ghcr.io/acme/app:v1", "ghcr.io/acme/app:v1");
        check("localhost:5000/app:v1", "localhost:5000/app:v1");
        check(&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}"));
    }

    #[test]
    fn an_image_without_a_name_has_none() {
        let tags = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let image = ImageSummary {
            id: "sha256:1".to_owned(),
            repo_tags: tags(&["<none>:<none>"]),
            repo_digests: tags(&["<none>@<none>"]),
            created: 0,
            size: -1,
            ..ImageSummary::default()
        };
        let listed = read(image, None);
        assert_eq!((listed.names.len(), listed.digests.len(), listed.created_at, listed.size_bytes), (0, 0, None, 0));
    }
}
