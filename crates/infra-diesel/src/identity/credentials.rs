//! Remembers what secrets open, so that a request does not cost a query just to know who asks.
//!
//! Every write to users, tokens or sessions by this process, and every server that it deletes with its agent, empties it
//! before the write is answered; what another process changes, or what a server is called now, shows when an entry is too
//! old to be believed.

use domain::identity::Credential;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long an entry is believed.
const BELIEVED: Duration = Duration::from_secs(3);
/// Entries kept; beyond, all are forgotten, which costs each bearer one query.
const MOST: usize = 4096;

#[derive(Default)]
pub(crate) struct CredentialCache {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<String, (Instant, Credential)>,
    /// Counts how often it was emptied: what was read before that must not be kept after it.
    generation: u64,
}

impl CredentialCache {
    /// What is remembered under this digest, and the generation to hand back to [`Self::keep`].
    pub(crate) fn find(&self, digest: &str) -> (Option<Credential>, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = state.known.get(digest).filter(|(since, _)| since.elapsed() < BELIEVED);
        (fresh.map(|(_, credential)| credential.clone()), state.generation)
    }

    /// Remembers, unless it was emptied since `generation`.
    pub(crate) fn keep(&self, digest: String, credential: Credential, generation: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation != generation {
            return;
        }
        if state.known.len() >= MOST {
            state.known.clear();
        }
        state.known.insert(digest, (Instant::now(), credential));
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.known.clear();
        state.generation += 1;
    }
}
