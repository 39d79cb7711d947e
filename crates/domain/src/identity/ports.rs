use super::model::{Credential, NewSession, NewToken, NewUser, Secret, Session, Token, User};
use crate::{
    Result,
    audit::AuditEntry,
    change::{Change, Done},
    clock::Timestamp,
    ids::{SessionId, TokenId, UserId},
    page::{Page, PageRequest},
};
use async_trait::async_trait;

/// Users and their password hashes.
#[async_trait]
pub trait Users: Send + Sync {
    /// MUST fail with `name_taken` if there is a user of that name.
    async fn create(&self, user: NewUser, change: Change) -> Result<Done<User>>;
    /// Newest first.
    async fn list(&self, page: PageRequest) -> Result<Page<User>>;
    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: UserId) -> Result<User>;
    /// The user of that name and their password hash.
    async fn find_by_name(&self, name: &str) -> Result<Option<(User, String)>>;
    /// Writes `user` if its row is still at the revision before; a `password_hash` replaces the one there and ends
    /// the user's sessions, as does disabling them. MUST fail with [`crate::Error::Stale`] otherwise.
    async fn update(&self, user: User, password_hash: Option<String>, change: Change) -> Result<Done<User>>;
    /// Removes the user with their sessions, if the row is still at `user.revision`.
    async fn delete(&self, user: User, change: Change) -> Result<Done<()>>;
}

/// API tokens.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// MUST fail with `name_taken` if there is a token of that name.
    async fn create(&self, token: NewToken, change: Change) -> Result<Done<Token>>;
    /// Newest first.
    async fn list(&self, page: PageRequest) -> Result<Page<Token>>;
    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: TokenId) -> Result<Token>;
    /// MUST fail with [`crate::Error::NotFound`] if there is none. The token MUST open nothing once this returns.
    async fn delete(&self, token: Token, change: Change) -> Result<Done<()>>;
    /// Notes when tokens were last used; unaudited, and never earlier than what is noted already.
    async fn touch(&self, used: Vec<(TokenId, Timestamp)>) -> Result<()>;
}

/// Console sessions, tickets, and the one place where secrets are looked up.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// What the secret with this digest opens. MAY answer from memory if a revocation by this process shows at once
    /// and one by another process within a few seconds.
    async fn find_credential(&self, secret_digest: &str) -> Result<Option<Credential>>;
    /// Begins a session.
    async fn create(&self, session: NewSession, entry: AuditEntry) -> Result<Session>;
    /// Ends a session; without effect if it has ended.
    async fn delete(&self, id: SessionId, entry: AuditEntry) -> Result<()>;
    /// Keeps a ticket: the digest of its secret stands for the digest of the credential of who asked for it.
    async fn ticket_create(
        &self,
        digest: String,
        credential: String,
        expires_at: Timestamp,
        entry: AuditEntry,
    ) -> Result<()>;
    /// Takes a ticket that has not expired, so that nobody can take it again; returns the credential's digest.
    async fn ticket_take(&self, digest: &str, now: Timestamp) -> Result<Option<String>>;
    /// Forgets sessions and tickets that ended before `now`; returns how many.
    async fn sweep(&self, now: Timestamp) -> Result<usize>;
}

/// Hashes passwords slowly.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// The password's hash, salted, with its parameters, in PHC string format.
    async fn hash(&self, password: Secret) -> Result<String>;
    /// Whether the password has this hash. `None` stands for an unknown user: MUST take as long and answer no.
    async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool>;
}
