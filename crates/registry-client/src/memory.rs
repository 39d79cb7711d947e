//! What registries have told, and which of them did not answer.

use crate::{address::Place, digest::Digest, fault::Fault, kept::Kept};
use domain::containers::ImageTruth;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How many images, names of images and registries are remembered.
const MOST_KEPT: usize = 4096;
/// The most platforms of an image that is remembered. None that is in use has more than half of that; one that does is
/// read again each time, rather than held.
const MOST_PLATFORMS: usize = 32;
/// A digest means the same for ever. What was found first makes room first.
const FOR_EVER: Duration = Duration::from_hours(365 * 24);

/// Remembers for as long as it was told to.
pub(crate) struct Memory {
    tag_belief: Duration,
    silence_belief: Duration,
    state: Mutex<State>,
}

struct State {
    digests: Kept<Digest>,
    truths: Kept<ImageTruth>,
    silences: Kept<String>,
}

impl Memory {
    pub(crate) fn new(tag_belief: Duration, silence_belief: Duration) -> Self {
        let state =
            State { digests: Kept::new(MOST_KEPT), truths: Kept::new(MOST_KEPT), silences: Kept::new(MOST_KEPT) };
        Self { tag_belief, silence_belief, state: Mutex::new(state) }
    }

    /// What was told about an image a moment ago, or that its registry told nothing. `None` if it has to be asked.
    pub(crate) fn told(&self, place: &Place) -> Option<Result<ImageTruth, Fault>> {
        let (state, now) = (self.state(), Instant::now());
        if let Some(digest) = state.digests.get(&place.to_string(), now)
            && let Some(truth) = state.truths.get(digest.as_str(), now)
        {
            return Some(Ok(truth));
        }
        state.silences.get(place.registry(), now).map(|cause| Err(Fault::Away(cause)))
    }

    /// What a name pointed to a moment ago.
    pub(crate) fn digest(&self, place: &Place) -> Option<Digest> {
        self.state().digests.get(&place.to_string(), Instant::now())
    }

    /// What has this digest.
    pub(crate) fn truth(&self, digest: &Digest) -> Option<ImageTruth> {
        self.state().truths.get(digest.as_str(), Instant::now())
    }

    /// Remembers what was found. If the name is believed already, that ends when it would have: what a belief rests on
    /// must not grow older than it may.
    pub(crate) fn note(&self, place: &Place, digest: &Digest, truth: &ImageTruth) {
        let (mut state, now) = (self.state(), Instant::now());
        if state.digests.get(&place.to_string(), now).is_none() {
            state.digests.keep(place.to_string(), digest.clone(), now, self.tag_belief);
        }
        if truth.platforms.len() <= MOST_PLATFORMS && state.truths.get(digest.as_str(), now).is_none() {
            state.truths.keep(digest.as_str().to_owned(), truth.clone(), now, FOR_EVER);
        }
    }

    /// Remembers that a registry does not answer.
    pub(crate) fn note_silence(&self, place: &Place, cause: &str) {
        self.state().silences.keep(place.registry().to_owned(), cause.to_owned(), Instant::now(), self.silence_belief);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::containers::{ImageName, Platform};

    #[test]
    fn an_image_of_uncommonly_many_platforms_is_not_held() {
        let memory = Memory::new(Duration::from_mins(1), Duration::from_mins(1));
        let place = |name: &str| Place::of(&ImageName::parse(name).unwrap(), &[]).unwrap();
        let platforms = |count: usize| (0..count).map(|n| Platform::new("linux", "arm", &format!("v{n}")).unwrap());
        let digests = ["few", "many"].map(|name| Digest::of(name.as_bytes()));
        for (digest, count) in digests.iter().zip([MOST_PLATFORMS, MOST_PLATFORMS + 1]) {
            let truth = ImageTruth::pulled(digest.as_str(), platforms(count).collect());
            memory.note(&place(&format!("x:{count}")), digest, &truth);
        }
        assert!(memory.told(&place("x:32")).is_some() && memory.truth(&digests[0]).is_some());
        assert!(memory.told(&place("x:33")).is_none() && memory.truth(&digests[1]).is_none());
        assert_eq!(memory.digest(&place("x:33")).as_ref(), Some(&digests[1]));
    }
}
