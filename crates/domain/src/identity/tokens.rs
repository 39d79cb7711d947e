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
    /// `already_created` if the request is a repetition: the secret was shown once and is not kept.
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
