use super::{
    actor::Actor,
    model::{NewToken, Role, Scopes, Secret, Token},
    permissions::Operation,
    ports::Tokens,
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Once},
    clock::{Clock, Timestamp},
    entropy::Entropy,
    ids::TokenId,
    page::{Page, PageRequest},
    text::Name,
};
use std::sync::Arc;

/// Manages API tokens.
pub struct TokenService {
    tokens: Arc<dyn Tokens>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl TokenService {
    /// A service over these ports.
    #[must_use]
    pub fn new(tokens: Arc<dyn Tokens>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { tokens, clock, entropy }
    }

    /// Makes a token. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for scopes that the actor does not have; `already_created` if the request is a repetition: the secret was shown once and is not kept.
    pub async fn token_create(
        &self,
        actor: &Actor,
        name: Name,
        role: Role,
        scopes: Scopes,
        expires_at: Option<Timestamp>,
        once: Option<Once>,
    ) -> Result<(Token, Secret)> {
        actor.authorize(Operation::TokenCreate)?;
        if !actor.scopes.cover(&scopes) {
            let reason = "a token cannot open more than the one that it is made with; name scopes that yours has, too";
            return Err(Error::Forbidden { reason: reason.to_owned() });
        }
        let now = self.clock.now();
        if expires_at.is_some_and(|at| at <= now) {
            return Err(Error::invalid("expires_at", "must be in the future"));
        }
        let secret = Secret::generate("slt", &*self.entropy);
        let token = NewToken {
            name,
            role,
            scopes,
            expires_at,
            created_by: actor.label(),
            secret_digest: secret.digest(),
            created_at: now,
        };
        let entry = AuditEntry::new(actor, Operation::TokenCreate.action(), now);
        let done = self.tokens.create(token, Change::new(entry, once)).await?;
        if done.replayed {
            let reason = format!(
                "token {:?} was created by an earlier request with this idempotency key, and its secret was shown then; \
                 if it is lost, delete the token and create another",
                done.value.name.as_str()
            );
            return Err(Error::conflict("already_created", reason));
        }
        Ok((done.value, secret))
    }

    /// Tokens, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn token_list(&self, actor: &Actor, page: PageRequest) -> Result<Page<Token>> {
        actor.authorize(Operation::TokenList)?;
        self.tokens.list(page).await
    }

    /// One token.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn token_get(&self, actor: &Actor, id: TokenId) -> Result<Token> {
        actor.authorize(Operation::TokenGet)?;
        self.tokens.get(id).await
    }

    /// Revokes a token: it opens nothing any more.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn token_delete(&self, actor: &Actor, id: TokenId) -> Result<()> {
        actor.authorize(Operation::TokenDelete)?;
        let token = self.tokens.get(id).await?;
        let entry = AuditEntry::new(actor, Operation::TokenDelete.action(), self.clock.now()).deleted(&token);
        self.tokens.delete(token, entry.into()).await.map(|done| done.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{Room, doubles::Memory},
        testing::{CountingEntropy, START, TestClock, alice, name, once},
    };
    use chrono::TimeDelta;

    fn start() -> (Arc<Memory>, TokenService) {
        let memory = Memory::peopled();
        let service = TokenService::new(memory.clone(), TestClock::start(), Arc::new(CountingEntropy::default()));
        (memory, service)
    }

    async fn create(
        tokens: &TokenService,
        expires_at: Option<Timestamp>,
        once: Option<Once>,
    ) -> Result<(Token, Secret)> {
        let scopes = Scopes::only([Room::Fleet]);
        tokens.token_create(&alice(Role::Admin), name("ci"), Role::Operator, scopes, expires_at, once).await
    }

    #[tokio::test]
    async fn only_admins_manage_tokens() {
        let (memory, tokens) = start();
        for role in [Role::Viewer, Role::Approver, Role::Operator] {
            let actor = alice(role);
            let outcomes = [
                tokens.token_create(&actor, name("ci"), role, Scopes::all(), None, None).await.err(),
                tokens.token_list(&actor, PageRequest::default()).await.err(),
                tokens.token_get(&actor, TokenId(1)).await.err(),
                tokens.token_delete(&actor, TokenId(1)).await.err(),
            ];
            for outcome in outcomes {
                assert!(matches!(outcome, Some(Error::Forbidden { .. })), "{role:?}: {outcome:?}");
            }
        }
        assert!(memory.entries.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_secret_is_shown_once_and_kept_as_a_digest() {
        let (memory, tokens) = start();
        let (token, secret) = create(&tokens, None, Some(once())).await.unwrap();
        assert!(secret.expose().starts_with("slt_") && secret.expose().len() == 68);
        assert_eq!((token.created_by.as_str(), token.expires_at), ("user:alice", None));
        assert_eq!(memory.tokens.lock().unwrap()[0].1, secret.digest());
        let entry = memory.last_entry();
        assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("token.create", Some("token:1")));
        let text = serde_json::to_string(&entry).unwrap();
        assert!(!text.contains(secret.expose()) && !text.contains(&secret.digest()));

        let again = create(&tokens, None, Some(once())).await;
        assert!(matches!(again, Err(Error::Conflict { code: "already_created", .. })), "{again:?}");
        assert_eq!(memory.tokens.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_token_expires_in_the_future_or_never() {
        let (memory, tokens) = start();
        for past in [START, START - TimeDelta::days(1)] {
            let Err(Error::Invalid { errors }) = create(&tokens, Some(past), None).await else { panic!("{past}") };
            assert_eq!(errors[0].field, "expires_at");
        }
        assert!(memory.tokens.lock().unwrap().is_empty());
        let soon = START + TimeDelta::microseconds(1);
        assert_eq!(create(&tokens, Some(soon), None).await.unwrap().0.expires_at, Some(soon));
    }

    #[tokio::test]
    async fn a_revoked_token_is_recorded_and_gone() {
        let (memory, tokens) = start();
        let (token, _) = create(&tokens, None, None).await.unwrap();
        tokens.token_delete(&alice(Role::Admin), token.id).await.unwrap();
        let entry = memory.last_entry();
        assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("token.delete", Some("token:1")));
        assert_eq!((entry.before.unwrap()["name"].as_str(), entry.after), (Some("ci"), None));
        let gone = tokens.token_delete(&alice(Role::Admin), token.id).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    }
}
