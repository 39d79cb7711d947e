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
    fleet::Architecture,
    scheduling::{ArchitectureNeed, TaskSpec, reason},
};
use futures_util::StreamExt;
use std::{collections::BTreeMap, time::Duration};

/// How long a pull may go on without a word.
const STALLED: Duration = Duration::from_mins(10);
/// The most layers whose progress is kept apart.
const MAX_LAYERS: usize = 1000;
/// The longest name of an image.
const LONGEST: usize = 512;
/// Which part of a layer's way is behind it once it was downloaded, in percent.
const DOWNLOADED: i64 = 70;

/// A user of a registry. `Debug` shows no password.
#[derive(Clone)]
pub struct Login {
    /// Who.
    pub username: String,
    /// The password, or a token that goes for one.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Users of registries by the registry's host, and port if it has one: `docker.io`, `registry.example.com:5000`.
pub type Logins = BTreeMap<String, Login>;

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
        let name = spec.image.as_deref().unwrap_or_default().trim();
        if !is_reference(name) {
            return Err(Failure::new(reason::IMAGE_MISSING, format!("{name:?} is no name of an image")));
        }
        let version = self.patiently(|client: Docker| async move { client.version().await });
        let version = version.await.map_err(|trouble| trouble.into_failure(reason::START_FAILED))?;
        let engine = version.arch.unwrap_or_default();
        let mut image = self.inspect_image(name).await?;
        if image.is_none() {
            self.pull(name, platform(spec.architecture, &engine), tell).await?;
            image = self.inspect_image(name).await?;
        }
        let missing = || Failure::new(reason::IMAGE_MISSING, format!("{name} was pulled, and is not there"));
        let image = image.ok_or_else(missing)?;
        let built_for = image.architecture.unwrap_or_default();
        let emulated = || inventory::emulated(&self.options.root, Architecture::parse(&engine).ok());
        let platform = fit(name, &built_for, &engine, spec.allow_emulation, emulated)?;
        Ok(Image { name: name.to_owned(), platform })
    }

    async fn inspect_image(&self, name: &str) -> Result<Option<ImageInspect>, Failure> {
        let look = |client: Docker| async move { client.inspect_image(name).await };
        match self.patiently(look).await {
            Ok(image) => Ok(Some(image)),
            Err(Trouble::Missing(_)) => Ok(None),
            Err(trouble) => Err(trouble.into_failure(reason::IMAGE_MISSING)),
        }
    }

    async fn pull(&self, name: &str, platform: String, tell: Telling<'_>) -> Result<(), Failure> {
        tell(format!("pulling image {name}"));
        let options =
            CreateImageOptions { from_image: Some(with_tag(name)), platform, ..CreateImageOptions::default() };
        let pulled = self.patiently(|client: Docker| {
            let (options, credentials) = (options.clone(), self.credentials(name));
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

    fn credentials(&self, name: &str) -> Option<DockerCredentials> {
        let registry = registry(name);
        let login = self.options.logins.get(registry)?;
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

/// Whether an image runs here, and what it has to be asked for as.
fn fit(
    name: &str,
    image: &str,
    engine: &str,
    allow_emulation: bool,
    emulated: impl FnOnce() -> Vec<Architecture>,
) -> Result<Option<String>, Failure> {
    let built_for = Architecture::parse(image).ok();
    let same = match (built_for, Architecture::parse(engine).ok()) {
        (Some(one), Some(other)) => one == other,
        // An image that does not say is not refused for that.
        _ => image.is_empty() || image == engine,
    };
    if same {
        return Ok(None);
    }
    let emulated = built_for.filter(|one| allow_emulation && emulated().contains(one));
    emulated.map(|one| Some(platform_of(one))).ok_or_else(|| {
        let instead =
            if allow_emulation { "which this server does not emulate either" } else { "and may not be emulated" };
        let detail = format!("{name} is built for {image}, {instead}; the container engine runs {engine}");
        Failure::new(reason::EXEC_FORMAT, detail)
    })
}

/// What is asked for in a pull; nothing where the engine's own choice is right.
fn platform(need: ArchitectureNeed, engine: &str) -> String {
    match need {
        ArchitectureNeed::Only(one) if Architecture::parse(engine) != Ok(one) => platform_of(one),
        _ => String::new(),
    }
}

fn platform_of(architecture: Architecture) -> String {
    let go = match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::Arm64 => "arm64",
        Architecture::Riscv64 => "riscv64",
    };
    format!("linux/{go}")
}

/// Whether a text may be put where the engine's API has the name of an image.
fn is_reference(name: &str) -> bool {
    name.len() <= LONGEST
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._:/@-".contains(letter))
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// The name with a tag or digest: without one, the engine would pull all that there are.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}

/// The registry that an image comes from.
fn registry(name: &str) -> &str {
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => match first {
            "index.docker.io" => "docker.io",
            other => other,
        },
        _ => "docker.io",
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
