//! Having the image there: found or pulled, and of an architecture that runs here.

use super::{DockerDriver, engine::Trouble};
use crate::{inventory, work::Failure};
use bollard::{
    Docker,
    auth::DockerCredentials,
    errors::Error,
    models::{CreateImageInfo, ImageInspect},
    query_parameters::CreateImageOptions,
};
use domain::{
    containers::{EngineImage, ImageName, ImageTruth, Platform},
    fleet::Architecture,
    scheduling::{ArchitectureSet, TaskSpec, reason},
};
use futures_util::StreamExt;
use std::{collections::BTreeMap, time::Duration};

/// How long a pull may go on without a word.
const STALLED: Duration = Duration::from_mins(10);
/// The most layers whose progress is kept apart.
const MAX_LAYERS: usize = 1000;
/// Which part of a layer's way is behind it once it was downloaded, in percent.
const DOWNLOADED: i64 = 70;

/// An image that is there.
#[derive(Debug)]
pub(super) struct Image {
    /// What it is called.
    pub(super) name: String,
    /// What it has to be asked for as, where it is not the engine's own: `linux/arm64`.
    pub(super) platform: Option<String>,
}

/// Tells people what it is at.
pub(super) type Telling<'a> = &'a (dyn Fn(String) + Send + Sync);

impl DockerDriver {
    /// Sees to the image of `spec`.
    pub(super) async fn image(&self, spec: &TaskSpec, tell: Telling<'_>) -> Result<Image, Failure> {
        let named = spec.image.as_deref().unwrap_or_default().trim();
        let named = ImageName::parse(named)
            .map_err(|reason| Failure::new(reason::IMAGE_MISSING, format!("{named:?} {reason}")))?;
        let version = self.patiently(|client: Docker| async move { client.version().await });
        let version = version.await.map_err(|trouble| trouble.into_failure(reason::START_FAILED))?;
        let machine = Machine::new(version.arch.unwrap_or_default(), spec, |native| {
            inventory::emulated(&self.options.root, native)
        });
        let named = machine.named(named, spec.image_truth.as_ref());
        let name = named.as_str();
        let found = self.inspect_image(name).await?.map(|image| machine.fit(name, &image));
        if let Some(Ok(platform)) = found {
            return Ok(Image { name: name.to_owned(), platform });
        }
        // An engine may have an image of several platforms for another one than this attempt needs.
        self.pull(&named, machine.platform(), tell).await.map_err(|failure| match found {
            // That the engine has it for something else says nothing about the image.
            Some(Err(unfit)) => Failure { detail: format!("{}; {}", unfit.detail, failure.detail), ..failure },
            _ => failure,
        })?;
        let missing = || Failure::new(reason::IMAGE_MISSING, format!("{name} was pulled, and is not there"));
        let image = self.inspect_image(name).await?.ok_or_else(missing)?;
        Ok(Image { name: name.to_owned(), platform: machine.fit(name, &image)? })
    }

    /// What the engine has under a name.
    pub(super) async fn engine_image(&self, name: &ImageName) -> Result<Option<EngineImage>, Failure> {
        let image = self.engine.ask(|client: Docker| async move { client.inspect_image(name.as_str()).await });
        match image.await {
            Ok(image) => Ok(Some(EngineImage { platform: platform_of(&image), id: image.id.unwrap_or_default() })),
            Err(Trouble::Missing(_)) => Ok(None),
            Err(trouble) => Err(trouble.into_failure(reason::ENGINE_GONE)),
        }
    }

    pub(super) async fn inspect_image(&self, name: &str) -> Result<Option<ImageInspect>, Failure> {
        let look = |client: Docker| async move { client.inspect_image(name).await };
        match self.patiently(look).await {
            Ok(image) => Ok(Some(image)),
            Err(Trouble::Missing(_)) => Ok(None),
            Err(trouble) => Err(trouble.into_failure(reason::IMAGE_MISSING)),
        }
    }

    pub(super) async fn pull(&self, name: &ImageName, platform: String, tell: Telling<'_>) -> Result<(), Failure> {
        tell(format!("pulling image {name}"));
        let options = CreateImageOptions { from_image: Some(name.whole()), platform, ..CreateImageOptions::default() };
        let pulled = self.patiently(|client: Docker| {
            let (options, credentials) = (options.clone(), self.credentials(name.registry()));
            async move {
                pull_once(&client, options, credentials, |percent| {
                    tell(format!("pulling image {name}: {percent} %"));
                })
                .await
            }
        });
        pulled.await.map_err(|trouble| {
            let failure = trouble.into_failure(reason::IMAGE_MISSING);
            Failure { detail: format!("{name} could not be pulled: {}", failure.detail), ..failure }
        })
    }

    fn credentials(&self, registry: &str) -> Option<DockerCredentials> {
        let login = self.options.logins.get(&registry.to_ascii_lowercase())?;
        let hub = "https://index.docker.io/v1/";
        Some(DockerCredentials {
            username: Some(login.username.clone()),
            password: Some(login.password.clone()),
            serveraddress: Some(if registry == "docker.io" { hub.to_owned() } else { registry.to_owned() }),
            ..DockerCredentials::default()
        })
    }
}

async fn pull_once(
    client: &Docker,
    options: CreateImageOptions,
    credentials: Option<DockerCredentials>,
    tell: impl Fn(i64),
) -> Result<(), Error> {
    let client = client.clone().with_timeout(STALLED).with_request_modifier(|mut request| {
        // Bollard writes the credentials with `+` and `/`, where engines read `-` and `_`, and take what they cannot
        // read for none at all.
        if let Some(header) = request.headers_mut().get_mut("x-registry-auth") {
            let text = header.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
            if let Ok(value) = text.parse() {
                *header = value;
            }
            header.set_sensitive(true);
        }
        request
    });
    let mut news = client.create_image(Some(options), None, credentials);
    let mut progress = Progress::default();
    loop {
        match tokio::time::timeout(STALLED, news.next()).await {
            Ok(Some(news)) => progress.hear(&news?).into_iter().for_each(&tell),
            Ok(None) => return Ok(()),
            Err(_elapsed) => {
                let error = format!("nothing was heard of it for {} minutes", STALLED.as_secs() / 60);
                return Err(Error::DockerStreamError { error });
            }
        }
    }
}

/// How far a pull is, over all its layers.
#[derive(Debug, Default)]
struct Progress {
    /// How much of each layer's way is behind it, in percent.
    layers: BTreeMap<String, i64>,
    told: i64,
}

impl Progress {
    /// Takes in what the engine says; the percentage, if it grew.
    fn hear(&mut self, news: &CreateImageInfo) -> Option<i64> {
        let (layer, status) = (news.id.as_deref()?, news.status.as_deref()?);
        let share = |of: i64| {
            let detail = news.progress_detail.as_ref()?;
            let (current, total) = (detail.current?, detail.total.filter(|total| *total > 0)?);
            Some(of * current.clamp(0, total) / total)
        };
        let percent = match status {
            "Pulling fs layer" | "Waiting" => 0,
            "Downloading" => share(DOWNLOADED).unwrap_or(0),
            "Verifying Checksum" | "Download complete" => DOWNLOADED,
            "Extracting" => DOWNLOADED + share(100 - DOWNLOADED).unwrap_or(0),
            "Pull complete" | "Already exists" => 100,
            _ => return None,
        };
        if self.layers.len() < MAX_LAYERS || self.layers.contains_key(layer) {
            self.layers.insert(layer.to_owned(), percent);
        }
        let count = i64::try_from(self.layers.len()).ok().filter(|count| *count > 0)?;
        let mean = self.layers.values().sum::<i64>() / count;
        (mean > self.told).then(|| {
            self.told = mean;
            mean
        })
    }
}

/// What decides which platform of an image runs here.
struct Machine {
    /// What the engine calls its own architecture.
    engine: String,
    native: Option<Architecture>,
    /// What the task may run as here, besides natively.
    emulated: Vec<Architecture>,
    wanted: ArchitectureSet,
}

impl Machine {
    fn new(engine: String, spec: &TaskSpec, emulated: impl FnOnce(Option<Architecture>) -> Vec<Architecture>) -> Self {
        let native = Architecture::parse(&engine).ok();
        let emulated = if spec.allow_emulation { emulated(native) } else { Vec::new() };
        Self { engine, native, emulated, wanted: spec.architectures() }
    }

    /// What an image has to be for; nothing where the engine's own choice is right.
    fn foreign(&self) -> Option<Architecture> {
        if self.native.is_none_or(|native| self.wanted.contains(native)) {
            return None;
        }
        let wanted = |one: &Architecture| self.wanted.contains(*one);
        let emulated = self.emulated.iter().copied().find(wanted);
        emulated.or_else(|| Architecture::ALL.into_iter().find(wanted))
    }

    /// What is asked for in a pull.
    fn platform(&self) -> String {
        self.foreign().map(asked_as).unwrap_or_default()
    }

    /// What an image is called here. Engines have but one image by the digest of an index, which is left to what is
    /// native: what was built for something else goes by its own.
    fn named(&self, name: ImageName, truth: Option<&ImageTruth>) -> ImageName {
        let digest = self.foreign().and_then(|foreign| truth?.manifest(foreign));
        digest.and_then(|digest| ImageName::parse(&name.pinned(digest)).ok()).unwrap_or(name)
    }

    /// What an image has to be asked for as, if it runs here.
    fn fit(&self, name: &str, image: &ImageInspect) -> Result<Option<String>, Failure> {
        let (word, platform) = (image.architecture.as_deref().unwrap_or_default(), platform_of(image));
        let built_for = platform.as_ref().and_then(Platform::architecture);
        let refused = |why: &str| {
            let told = platform.as_ref().map_or_else(|| word.to_owned(), Platform::to_string);
            let detail = format!("{name} is built for {told}, {why}; the container engine runs {}", self.engine);
            Failure::new(reason::EXEC_FORMAT, detail)
        };
        let Some(built_for) = built_for else {
            // An image that does not say is not refused for that.
            return if word.is_empty() || word == self.engine {
                Ok(None)
            } else {
                Err(refused("which does not run here"))
            };
        };
        if !self.wanted.contains(built_for) {
            return Err(refused(&format!("and the task needs {}", self.wanted)));
        }
        match self.native {
            Some(native) if native == built_for => Ok(None),
            _ if self.emulated.contains(&built_for) => Ok(Some(asked_as(built_for))),
            _ => Err(refused("which is neither native here nor emulated, or may not be")),
        }
    }
}

fn asked_as(architecture: Architecture) -> String {
    Platform::of(architecture).to_string()
}

/// What an image says that it was built for.
pub(super) fn platform_of(image: &ImageInspect) -> Option<Platform> {
    let word = |part: &Option<String>| part.as_deref().unwrap_or_default().to_owned();
    let os = Some(word(&image.os)).filter(|os| !os.is_empty()).unwrap_or_else(|| "linux".to_owned());
    Platform::new(&os, &word(&image.architecture), &word(&image.variant))
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
