use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher as _, PasswordVerifier, Version,
    password_hash::{
        self,
        phc::{Output, ParamsString, Salt},
    },
};
use async_trait::async_trait;
use domain::{
    Error, Result,
    entropy::Entropy,
    identity::{PasswordHasher, Secret},
};
use std::sync::Arc;
use tokio::{sync::Semaphore, task::spawn_blocking};

/// How many passwords are hashed at once; further ones wait. A flood of logins costs this many times
/// [`Cost::memory_kib`], not more.
const AT_ONCE: usize = 2;
const SALT_BYTES: usize = 16;

/// What one hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub iterations: u32,
    /// Lanes of it.
    pub lanes: u32,
}

impl Cost {
    /// What OWASP's password storage cheat sheet asks for: 19 MiB, two passes, one lane.
    pub const OWASP: Self = Self { memory_kib: 19_456, iterations: 2, lanes: 1 };
    /// As little as argon2 allows; only good for tests.
    pub const LEAST: Self = Self { memory_kib: 8, iterations: 1, lanes: 1 };
}

/// Hashes passwords with argon2id on threads that may block.
pub struct Argon2Hasher {
    argon2: Argon2<'static>,
    entropy: Arc<dyn Entropy>,
    turns: Arc<Semaphore>,
    /// Stands in for the hash of a user that does not exist.
    nobody: String,
}

impl Argon2Hasher {
    /// A hasher at this cost.
    ///
    /// # Errors
    /// [`Error::Internal`] if argon2 cannot be had at this cost.
    pub fn new(cost: Cost, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let params = Params::new(cost.memory_kib, cost.iterations, cost.lanes, None).map_err(Error::internal)?;
        let nobody = hash_of_nothing(&params, &*entropy).map_err(Error::internal)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        Ok(Self { argon2, entropy, turns: Arc::new(Semaphore::new(AT_ONCE)), nobody })
    }

    /// Runs `work` when it is its turn. The turn goes with the work, not with the caller, who may hang up.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(Error::internal)?;
        let argon2 = self.argon2.clone();
        let work = move || {
            let _turn = turn;
            work(&argon2)
        };
        spawn_blocking(work).await.map_err(Error::internal)?
    }
}

#[async_trait]
impl PasswordHasher for Argon2Hasher {
    async fn hash(&self, password: Secret) -> Result<String> {
        let salt = self.entropy.bytes();
        self.in_turn(move |argon2| hash(argon2, password.expose().as_bytes(), &salt)).await
    }

    async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let same = self.in_turn(move |argon2| verify(argon2, password.expose().as_bytes(), &hash)).await?;
        Ok(known && same)
    }
}

/// A hash that looks like any other and that no password has. Its bytes are random rather than computed, because
/// computing them would take longer than all else that a start does.
fn hash_of_nothing(params: &Params, entropy: &dyn Entropy) -> password_hash::Result<String> {
    let (salt, hash) = (entropy.bytes(), entropy.bytes());
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params)?,
        salt: Some(Salt::new(salt.split_at(SALT_BYTES).0)?),
        hash: Some(Output::new(&hash)?),
    };
    Ok(hash.to_string())
}

fn hash(argon2: &Argon2<'_>, password: &[u8], random: &[u8; 32]) -> Result<String> {
    let (salt, _) = random.split_at(SALT_BYTES);
    let hash: PasswordHash = argon2.hash_password_with_salt(password, salt).map_err(Error::internal)?;
    Ok(hash.to_string())
}

fn verify(argon2: &Argon2<'_>, password: &[u8], hash: &str) -> Result<bool> {
    let hash = PasswordHash::new(hash).map_err(Error::internal)?;
    match argon2.verify_password(password, &hash) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::PasswordInvalid) => Ok(false),
        Err(other) => Err(Error::internal(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::OsEntropy;

    fn hasher(cost: Cost) -> Argon2Hasher {
        Argon2Hasher::new(cost, Arc::new(OsEntropy)).unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_has_its_own_hash_and_no_other() {
        let hasher = hasher(Cost::LEAST);
        let hash = hasher.hash(secret("correct horse")).await.unwrap();
        assert!(hasher.verify(secret("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!hasher.verify(secret("wrong horse"), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn two_users_with_the_same_password_have_different_hashes() {
        let hasher = hasher(Cost::LEAST);
        assert_ne!(hasher.hash(secret("same")).await.unwrap(), hasher.hash(secret("same")).await.unwrap());
    }

    #[tokio::test]
    async fn hashes_name_their_parameters_and_outlive_a_change_of_cost() {
        let old = hasher(Cost { memory_kib: 64, iterations: 3, lanes: 2 }).hash(secret("p")).await.unwrap();
        assert!(old.starts_with("$argon2id$v=19$m=64,t=3,p=2$"), "{old}");
        assert!(hasher(Cost::LEAST).verify(secret("p"), Some(old)).await.unwrap());
        let owasp = hasher(Cost::OWASP).hash(secret("p")).await.unwrap();
        assert!(owasp.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{owasp}");
    }

    #[tokio::test]
    async fn an_unknown_user_costs_the_same_work_and_is_refused() {
        let hasher = hasher(Cost { memory_kib: 16, iterations: 2, lanes: 1 });
        assert!(hasher.nobody.starts_with("$argon2id$v=19$m=16,t=2,p=1$"));
        assert!(!hasher.verify(secret("anything"), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_that_is_none_is_a_fault_and_not_a_wrong_password() {
        let answer = hasher(Cost::LEAST).verify(secret("p"), Some("plain".to_owned())).await;
        assert!(matches!(answer, Err(Error::Internal { .. })));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_waits_its_turn() {
        let hasher = hasher(Cost::LEAST);
        let held = hasher.turns.acquire_many(2).await.unwrap();
        let waiting = hasher.verify(secret("p"), None);
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), waiting).await;
        assert!(early.is_err(), "a third hash began while two were running");
        drop(held);
        assert!(!hasher.verify(secret("p"), None).await.unwrap());
    }
}
