//! Remembers what secrets open, so that a request does not cost a query just to know who asks.
//!
//! Every write to users, tokens or sessions by this process, and every server that it deletes with its agent, empties it
//! before the write is answered. What another process changes shows when an entry is too old to be believed: soon for
//! people and programs. There may be thousands of agents, each of which asks once or twice a minute; theirs are believed
//! for longer, but only where this is told what commits, and forgotten with whatever happens to their server, and
//! altogether as soon as somebody else is seen to have written.

use domain::{
    feed::{Fact, Follower, State},
    identity::Credential,
    ids::ServerId,
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long an entry is believed.
const BELIEVED: Duration = Duration::from_secs(3);
/// How long that of an agent is, by who is told what commits.
const AGENT_BELIEVED: Duration = Duration::from_mins(10);
/// Entries kept; beyond, all are forgotten, which costs each bearer one query.
const MOST: usize = 16_384;

#[derive(Default)]
pub(crate) struct CredentialCache {
    state: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<String, (Instant, Credential)>,
    /// Counts how often something was forgotten: what was read before that must not be kept after it.
    generation: u64,
    /// Whether what commits is told.
    follows: bool,
}

impl CredentialCache {
    /// What is remembered under this digest, and the generation to hand back to [`Self::keep`].
    pub(crate) fn find(&self, digest: &str, now: Instant) -> (Option<Credential>, u64) {
        let known = self.known();
        let is_fresh = |(since, credential): &&(Instant, Credential)| now < *since + known.trust_in(credential);
        let entry = known.entries.get(digest).filter(is_fresh);
        (entry.map(|(_, credential)| credential.clone()), known.generation)
    }

    /// Remembers what is so since `now`, unless something was forgotten since `generation`.
    pub(crate) fn keep(&self, digest: String, credential: Credential, now: Instant, generation: u64) {
        let mut known = self.known();
        if known.generation != generation {
            return;
        }
        if known.entries.len() >= MOST {
            known.entries.clear();
        }
        known.entries.insert(digest, (now, credential));
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let mut known = self.known();
        known.entries.clear();
        known.generation += 1;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn trust_in(&self, credential: &Credential) -> Duration {
        match credential {
            Credential::Agent { .. } if self.follows => AGENT_BELIEVED,
            _ => BELIEVED,
        }
    }

    fn forget_agent(&mut self, of: ServerId) {
        self.entries
            .retain(|_, (_, credential)| !matches!(credential, Credential::Agent { server, .. } if *server == of));
        self.generation += 1;
    }
}

impl Follower for CredentialCache {
    fn reset(&self, _: &State) {
        self.clear();
        self.known().follows = true;
    }

    fn lose(&self) {
        self.clear();
        self.known().follows = false;
    }

    fn follow(&self, facts: &[Fact]) {
        for fact in facts {
            match fact {
                // It may be called something else now, or its agent have another token.
                Fact::Server(server) => self.known().forget_agent(server.id),
                Fact::ServerGone(id) => self.known().forget_agent(*id),
                Fact::ServerSeen(..)
                | Fact::ServerReserved(..)
                | Fact::Pool(_)
                | Fact::PoolGone(_)
                | Fact::PoolReserved(..)
                | Fact::Task(_)
                | Fact::TaskGone(_)
                | Fact::Operation(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AGENT_BELIEVED, BELIEVED, CredentialCache};
    use chrono::DateTime;
    use domain::{
        feed::{Fact, Follower, State},
        identity::{Credential, Role, Scopes, Token},
        ids::{ServerId, TokenId},
        text::Name,
    };
    use std::time::{Duration, Instant};

    const TICK: Duration = Duration::from_millis(1);

    fn agent() -> Credential {
        Credential::Agent { server: ServerId(1), name: "edge-1".to_owned() }
    }

    fn token() -> Credential {
        Credential::Token(Token {
            id: TokenId(1),
            name: Name::trusted("ci".to_owned()),
            role: Role::Viewer,
            scopes: Scopes::all(),
            expires_at: None,
            last_used_at: None,
            created_by: "user:root".to_owned(),
            created_at: DateTime::UNIX_EPOCH,
        })
    }

    fn check_believed(cache: &CredentialCache, credential: &Credential, long: Duration) {
        let now = Instant::now();
        cache.keep("digest".to_owned(), credential.clone(), now, cache.find("digest", now).1);
        assert_eq!(cache.find("digest", now + long.saturating_sub(TICK)).0.as_ref(), Some(credential));
        assert_eq!(cache.find("digest", now + long).0, None);
    }

    #[test]
    fn an_agent_is_believed_for_long_only_by_who_is_told_what_commits() {
        let cache = CredentialCache::default();
        check_believed(&cache, &agent(), BELIEVED);
        cache.reset(&State::default());
        check_believed(&cache, &agent(), AGENT_BELIEVED);
        check_believed(&cache, &token(), BELIEVED);
        cache.lose();
        check_believed(&cache, &agent(), BELIEVED);
    }

    #[test]
    fn what_was_read_before_something_was_forgotten_is_not_kept() {
        let (cache, now) = (CredentialCache::default(), Instant::now());
        let forget: [&dyn Fn(); 3] =
            [&|| cache.clear(), &|| cache.reset(&State::default()), &|| cache.follow(&[Fact::ServerGone(ServerId(1))])];
        for forget in forget {
            let (_, generation) = cache.find("digest", now);
            forget();
            cache.keep("digest".to_owned(), agent(), now, generation);
            assert_eq!(cache.find("digest", now).0, None);
        }
    }

    #[test]
    fn only_the_agent_of_the_server_that_changed_is_forgotten() {
        let (cache, now) = (CredentialCache::default(), Instant::now());
        let other = Credential::Agent { server: ServerId(2), name: "edge-2".to_owned() };
        for (digest, credential) in [("one", agent()), ("two", other), ("ci", token())] {
            cache.keep(digest.to_owned(), credential, now, 0);
        }
        cache.follow(&[Fact::ServerGone(ServerId(1))]);
        assert_eq!(["one", "two", "ci"].map(|digest| cache.find(digest, now).0.is_some()), [false, true, true]);
    }
}
