//! Users, tokens and sessions in memory, for the tests of this room's use cases.

use super::{
    Credential, NewSession, NewToken, NewUser, PasswordHasher, Role, Secret, Session, Sessions, Token, Tokens, User,
    Users,
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done},
    clock::Timestamp,
    ids::{SessionId, TokenId, UserId},
    page::{Page, PageRequest},
    testing::{START, name},
};
use async_trait::async_trait;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

struct TicketRow {
    digest: String,
    credential: String,
    expires_at: Timestamp,
}

/// What the ports of this room keep, and every entry that went with a change.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) users: Mutex<Vec<(User, String)>>,
    pub(super) tokens: Mutex<Vec<(Token, String)>>,
    pub(super) sessions: Mutex<Vec<(Session, String)>>,
    pub(super) touched: Mutex<Vec<(TokenId, Timestamp)>>,
    pub(super) entries: Mutex<Vec<AuditEntry>>,
    /// Whether every write fails.
    pub(super) down: AtomicBool,
    tickets: Mutex<Vec<TicketRow>>,
    keys: Mutex<Vec<String>>,
}

impl Memory {
    /// `alice` (an admin, id 1) and `bob` (an operator, id 2), whose passwords are their names and `-password`.
    pub(super) fn peopled() -> Arc<Self> {
        let memory = Self::default();
        for (id, who, role) in [(1, "alice", Role::Admin), (2, "bob", Role::Operator)] {
            let (id, disabled, revision) = (UserId(id), false, 1);
            let user = User { id, name: name(who), role, disabled, revision, created_at: START, updated_at: START };
            memory.users.lock().unwrap().push((user, format!("hash of {who}-password")));
        }
        Arc::new(memory)
    }

    pub(super) fn last_entry(&self) -> AuditEntry {
        self.entries.lock().unwrap().last().unwrap().clone()
    }

    fn write(&self, entry: AuditEntry) -> Result<()> {
        if self.down.load(Ordering::Relaxed) {
            return Err(Error::unavailable("the database does not answer", "down"));
        }
        self.entries.lock().unwrap().push(entry);
        Ok(())
    }

    /// Whether this change was made before under its key.
    fn repeated(&self, change: &Change) -> bool {
        let Some(once) = &change.once else { return false };
        let mut keys = self.keys.lock().unwrap();
        let known = keys.contains(&once.key);
        keys.push(once.key.clone());
        known
    }
}

fn all<T>(items: Vec<T>) -> Page<T> {
    Page { total: i64::try_from(items.len()).unwrap(), items, next: None }
}

fn done<T>(value: T) -> Done<T> {
    Done { value, replayed: false }
}

#[async_trait]
impl Users for Memory {
    async fn create(&self, new: NewUser, change: Change) -> Result<Done<User>> {
        let NewUser { name, role, password_hash, created_at } = new;
        let id = UserId(i64::try_from(self.users.lock().unwrap().len()).unwrap() + 1);
        let user = User { id, name, role, disabled: false, revision: 1, created_at, updated_at: created_at };
        self.write(change.entry.created(&user))?;
        self.users.lock().unwrap().push((user.clone(), password_hash));
        Ok(done(user))
    }

    async fn list(&self, _: PageRequest) -> Result<Page<User>> {
        Ok(all(self.users.lock().unwrap().iter().rev().map(|(user, _)| user.clone()).collect()))
    }

    async fn get(&self, id: UserId) -> Result<User> {
        let users = self.users.lock().unwrap();
        users
            .iter()
            .find(|(user, _)| user.id == id)
            .map(|(user, _)| user.clone())
            .ok_or_else(|| Error::not_found("user", id))
    }

    async fn find_by_name(&self, name: &str) -> Result<Option<(User, String)>> {
        Ok(self.users.lock().unwrap().iter().find(|(user, _)| user.name.as_str() == name).cloned())
    }

    async fn update(&self, user: User, password_hash: Option<String>, change: Change) -> Result<Done<User>> {
        self.write(change.entry)?;
        let mut users = self.users.lock().unwrap();
        let row = users.iter_mut().find(|(row, _)| row.id == user.id).unwrap();
        let hash = password_hash.unwrap_or_else(|| row.1.clone());
        *row = (user.clone(), hash);
        Ok(done(user))
    }

    async fn delete(&self, user: User, change: Change) -> Result<Done<()>> {
        self.write(change.entry)?;
        self.users.lock().unwrap().retain(|(row, _)| row.id != user.id);
        Ok(done(()))
    }
}

#[async_trait]
impl Tokens for Memory {
    async fn create(&self, new: NewToken, change: Change) -> Result<Done<Token>> {
        if self.repeated(&change) {
            let value = self.tokens.lock().unwrap()[0].0.clone();
            return Ok(Done { value, replayed: true });
        }
        let NewToken { name, role, scopes, expires_at, created_by, secret_digest, created_at } = new;
        let id = TokenId(i64::try_from(self.tokens.lock().unwrap().len()).unwrap() + 1);
        let token = Token { id, name, role, scopes, expires_at, last_used_at: None, created_by, created_at };
        self.write(change.entry.created(&token))?;
        self.tokens.lock().unwrap().push((token.clone(), secret_digest));
        Ok(done(token))
    }

    async fn list(&self, _: PageRequest) -> Result<Page<Token>> {
        Ok(all(self.tokens.lock().unwrap().iter().rev().map(|(token, _)| token.clone()).collect()))
    }

    async fn get(&self, id: TokenId) -> Result<Token> {
        let tokens = self.tokens.lock().unwrap();
        tokens
            .iter()
            .find(|(token, _)| token.id == id)
            .map(|(token, _)| token.clone())
            .ok_or_else(|| Error::not_found("token", id))
    }

    async fn delete(&self, token: Token, change: Change) -> Result<Done<()>> {
        self.write(change.entry)?;
        self.tokens.lock().unwrap().retain(|(row, _)| row.id != token.id);
        Ok(done(()))
    }

    async fn touch(&self, used: Vec<(TokenId, Timestamp)>) -> Result<()> {
        if self.down.load(Ordering::Relaxed) {
            return Err(Error::unavailable("the database does not answer", "down"));
        }
        self.touched.lock().unwrap().extend(used);
        Ok(())
    }
}

#[async_trait]
impl Sessions for Memory {
    async fn find_credential(&self, secret_digest: &str) -> Result<Option<Credential>> {
        if let Some((token, _)) = self.tokens.lock().unwrap().iter().find(|(_, digest)| digest == secret_digest) {
            return Ok(Some(Credential::Token(token.clone())));
        }
        let sessions = self.sessions.lock().unwrap();
        let Some((session, _)) = sessions.iter().find(|(_, digest)| digest == secret_digest) else { return Ok(None) };
        let users = self.users.lock().unwrap();
        let owner = users.iter().find(|(user, _)| user.id == session.user_id);
        Ok(owner.map(|(user, _)| Credential::Session(session.clone(), user.clone())))
    }

    async fn create(&self, new: NewSession, entry: AuditEntry) -> Result<Session> {
        let NewSession { user_id, secret_digest, expires_at, created_at } = new;
        let id = SessionId(i64::try_from(self.sessions.lock().unwrap().len()).unwrap() + 1);
        let session = Session { id, user_id, expires_at, created_at };
        self.write(entry.created(&session))?;
        self.sessions.lock().unwrap().push((session.clone(), secret_digest));
        Ok(session)
    }

    async fn delete(&self, id: SessionId, entry: AuditEntry) -> Result<()> {
        self.write(entry)?;
        self.sessions.lock().unwrap().retain(|(session, _)| session.id != id);
        Ok(())
    }

    async fn ticket_create(
        &self,
        digest: String,
        credential: String,
        expires_at: Timestamp,
        entry: AuditEntry,
    ) -> Result<()> {
        self.write(entry)?;
        self.tickets.lock().unwrap().push(TicketRow { digest, credential, expires_at });
        Ok(())
    }

    async fn ticket_take(&self, digest: &str, now: Timestamp) -> Result<Option<String>> {
        let mut tickets = self.tickets.lock().unwrap();
        let found = tickets.iter().position(|ticket| ticket.digest == digest && ticket.expires_at > now);
        Ok(found.map(|index| tickets.remove(index).credential))
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize> {
        let mut sessions = self.sessions.lock().unwrap();
        let before = sessions.len();
        sessions.retain(|(session, _)| session.expires_at > now);
        Ok(before - sessions.len())
    }
}

/// A hasher that hides nothing.
pub(super) struct PlainHasher;

#[async_trait]
impl PasswordHasher for PlainHasher {
    async fn hash(&self, password: Secret) -> Result<String> {
        Ok(format!("hash of {}", password.expose()))
    }

    async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool> {
        Ok(hash.is_some_and(|hash| hash == format!("hash of {}", password.expose())))
    }
}
