use crate::{
    address::Place,
    auth::Signed,
    digest::Digest,
    fault::Fault,
    flights::Flights,
    memory::Memory,
    options::{RegistryOptions, SetupError},
    wire::{self, Wire},
};
use async_trait::async_trait;
use domain::containers::{
    ImageName, ImageTruth, MAX_MANIFEST, Manifest, Platform, Registries, RegistryFailure, platform_of_config,
};
use futures_util::FutureExt;
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout, timeout_at},
};

/// How many look-ups are under way at once.
const AT_ONCE: usize = 16;
/// What is understood; without this, registries answer with what is older.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";
/// How the kinds of manifest begin that are told to be too old.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

type Answer = Result<ImageTruth, RegistryFailure>;

/// Registries that speak the OCI distribution API. A look-up may be given up at any moment.
pub struct OciRegistries {
    desk: Arc<Desk>,
    flights: Flights<Answer>,
}

impl OciRegistries {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// [`SetupError`]
    pub fn new(options: RegistryOptions) -> Result<Self, SetupError> {
        let desk = Desk {
            memory: Memory::new(options.tag_belief, options.silence_belief),
            signed: Signed::new(Wire::new(&options)?, options.logins),
            turns: Semaphore::new(AT_ONCE),
            insecure: options.insecure,
            patience: options.patience,
        };
        Ok(Self { desk: Arc::new(desk), flights: Flights::new() })
    }
}

#[async_trait]
impl Registries for OciRegistries {
    async fn look_up(&self, name: &ImageName) -> Answer {
        let place = Place::of(name, &self.desk.insecure)?;
        if let Some(known) = self.desk.memory.told(&place) {
            return known.map_err(|fault| self.desk.failure(fault, &place));
        }
        let desk = Arc::clone(&self.desk);
        self.flights.join(&place.to_string(), || async move { desk.look_up(&place).await }.boxed()).await
    }
}

/// Where look-ups are made.
struct Desk {
    memory: Memory,
    signed: Signed,
    turns: Semaphore,
    insecure: Vec<String>,
    patience: Duration,
}

impl Desk {
    async fn look_up(&self, place: &Place) -> Answer {
        let until = Instant::now() + self.patience;
        let _turn = self.turn().await?;
        // Others may have learnt it in the meantime.
        if let Some(known) = self.memory.told(place) {
            return known.map_err(|fault| self.failure(fault, place));
        }
        let late = || Err(Fault::Away(format!("it takes longer than {:?}", self.patience)));
        let outcome = timeout_at(until, self.ask(place)).await.unwrap_or_else(|_| late());
        if let Err(Fault::Away(cause)) = &outcome {
            self.memory.note_silence(place, cause);
        }
        outcome.map_err(|fault| self.failure(fault, place))
    }

    /// Half of the patience is left for the registry in any case: it is not to blame for a queue.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, RegistryFailure> {
        let busy = || RegistryFailure::Silent(format!("{AT_ONCE} other images are being looked up; try again"));
        timeout(self.patience / 2, self.turns.acquire()).await.ok().and_then(Result::ok).ok_or_else(busy)
    }

    fn failure(&self, fault: Fault, place: &Place) -> RegistryFailure {
        fault.told(place, self.signed.has_login(place))
    }

    async fn ask(&self, place: &Place) -> Result<ImageTruth, Fault> {
        let pointed_to = self.digest(place).await?;
        let known = pointed_to.as_ref().and_then(|digest| self.memory.truth(digest));
        let (digest, truth) = match (pointed_to, known) {
            (Some(digest), Some(truth)) => (digest, truth),
            (pointed_to, _) => self.manifest(place, pointed_to).await?,
        };
        self.memory.note(place, &digest, &truth);
        Ok(truth)
    }

    /// What the name points to; `None` if the registry tells only together with the manifest.
    async fn digest(&self, place: &Place) -> Result<Option<Digest>, Fault> {
        if let Some(believed) = self.memory.digest(place) {
            return Ok(Some(believed));
        }
        let url = place.manifest(place.reference());
        let response = self.signed.ask(place, Method::HEAD, url, Some(MANIFESTS)).await?;
        let found = match response.status() {
            StatusCode::METHOD_NOT_ALLOWED => None,
            _ => digest_in(good(response)?.headers()),
        };
        match (place.digest(), found) {
            (Some(asked), Some(found)) if *asked != found => Err(mismatch(asked, &found)),
            (Some(asked), _) => Ok(Some(asked.clone())),
            (None, found) => Ok(found),
        }
    }

    async fn manifest(&self, place: &Place, digest: Option<Digest>) -> Result<(Digest, ImageTruth), Fault> {
        let url = place.manifest(digest.as_ref().map_or(place.reference(), Digest::as_str));
        let response = good(self.signed.ask(place, Method::GET, url, Some(MANIFESTS)).await?)?;
        let is_old = kind_of(response.headers()).starts_with(SCHEMA_1);
        let expected = digest.or_else(|| digest_in(response.headers()));
        let body = wire::body(response, MAX_MANIFEST).await?;
        let manifest = Manifest::read(&body).map_err(Fault::NoImage);
        if is_old {
            // Its digest leaves out its signatures, so that it cannot be compared.
            manifest.as_ref().map_err(Clone::clone)?;
        }
        let found = verified(&body, expected.as_ref())?;
        let truth = match manifest? {
            Manifest::Index(manifests) => ImageTruth::indexed(found.as_str(), manifests),
            Manifest::Image { config } => {
                let platform = self.platform(place, &config).await?;
                ImageTruth::pulled(found.as_str(), platform.into_iter().collect())
            }
        };
        Ok((found, truth))
    }

    async fn platform(&self, place: &Place, config: &str) -> Result<Option<Platform>, Fault> {
        let no_digest = || Fault::NoImage("its configuration has a digest of a kind that is not known".to_owned());
        let digest = Digest::parse(config).ok_or_else(no_digest)?;
        let response = self.signed.ask(place, Method::GET, place.blob(&digest), None).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Fault::NoImage("its configuration is not in the registry; push it again".to_owned()));
        }
        let body = wire::body(good(response)?, MAX_MANIFEST).await?;
        verified(&body, Some(&digest))?;
        platform_of_config(&body).map_err(Fault::NoImage)
    }
}

fn good(response: Response) -> Result<Response, Fault> {
    if response.status() == StatusCode::OK { Ok(response) } else { Err(Fault::answered(response.status())) }
}

/// One that cannot be read is as good as none.
fn digest_in(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest").and_then(|value| Digest::parse(value.to_str().ok()?))
}

fn kind_of(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
}

fn verified(body: &[u8], expected: Option<&Digest>) -> Result<Digest, Fault> {
    let found = Digest::of(body);
    match expected {
        Some(expected) if *expected != found => Err(mismatch(expected, &found)),
        _ => Ok(found),
    }
}

fn mismatch(expected: &Digest, found: &Digest) -> Fault {
    Fault::Odd(format!("what it calls {} has the digest {}", expected.as_str(), found.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_is_not_the_registrys_fault() {
        let patience = Duration::from_millis(20);
        let registries = OciRegistries::new(RegistryOptions { patience, ..RegistryOptions::default() }).unwrap();
        let name = ImageName::parse("127.0.0.1:1/a").unwrap();
        let all = registries.desk.turns.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        let RegistryFailure::Silent(sentence) = registries.look_up(&name).await.unwrap_err() else { panic!() };
        assert!(sentence.starts_with("16 other images are being looked up"), "{sentence}");
        drop(all);
        let RegistryFailure::Silent(sentence) = registries.look_up(&name).await.unwrap_err() else { panic!() };
        assert!(sentence.contains("does not answer"), "it was not asked before: {sentence}");
    }
}
