use super::{
    actor::{Actor, Principal},
    model::{Credential, NewSession, Role, Scopes, Secret, Session, Token, User},
    permissions::Operation,
    ports::{PasswordHasher, Sessions, Tokens, Users},
    throttle::{FREE_PER_NAME, FREE_PER_SOURCE, LoginThrottle},
    users::MAX_PASSWORD,
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    clock::{Clock, Timestamp},
    entropy::Entropy,
    ids::TokenId,
};
use chrono::TimeDelta;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How long a console session lasts.
pub const SESSION_HOURS: i64 = 12;
/// How long a ticket can be taken.
pub const TICKET_SECONDS: i64 = 30;

/// Signs people in, and says who the bearer of a secret is.
pub struct SessionService {
    sessions: Arc<dyn Sessions>,
    users: Arc<dyn Users>,
    tokens: Arc<dyn Tokens>,
    hasher: Arc<dyn PasswordHasher>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    throttle: Mutex<LoginThrottle>,
    used: Mutex<HashMap<TokenId, Timestamp>>,
}

/// What signing in gives.
#[derive(Debug, Clone)]
pub struct Login {
    /// Who signed in.
    pub user: User,
    /// The session that began.
    pub session: Session,
    /// The secret for the browser's cookie.
    pub secret: Secret,
}

/// A one-time ticket that stands for the credential of who asked for it.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The secret.
    pub secret: Secret,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// Why a secret opens nothing, and whose it was: for the audit log, which names who was refused.
#[derive(Debug)]
pub struct Denied {
    /// What the bearer is told.
    pub error: Error,
    /// Its owner as audit rows name them, where the secret was once good.
    pub owner: Option<String>,
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Self { error, owner: None }
    }
}

/// The ports of a [`SessionService`].
pub struct SessionPorts {
    /// Where sessions are kept.
    pub sessions: Arc<dyn Sessions>,
    /// Where users are kept.
    pub users: Arc<dyn Users>,
    /// Where tokens are kept.
    pub tokens: Arc<dyn Tokens>,
    /// Checks passwords.
    pub hasher: Arc<dyn PasswordHasher>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes secrets.
    pub entropy: Arc<dyn Entropy>,
}

impl SessionService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: SessionPorts) -> Self {
        let SessionPorts { sessions, users, tokens, hasher, clock, entropy } = ports;
        Self { sessions, users, tokens, hasher, clock, entropy, throttle: Mutex::default(), used: Mutex::default() }
    }

    /// Signs in with a password. Wrong name, wrong password and locked out give the same answer in the same time.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]; [`Error::Exhausted`] after too many failures for this name or from this `source`.
    pub async fn auth_login(
        &self,
        name: &str,
        password: Secret,
        source: &str,
        request_id: Option<String>,
    ) -> Result<Login> {
        let (by_name, by_source) = (format!("name:{name}"), format!("source:{source}"));
        self.count_try([(&by_name, FREE_PER_NAME), (&by_source, FREE_PER_SOURCE)])?;
        let found = self.find_proven(name, password).await;
        self.settle_try(&by_name, &by_source, &found);
        let user = found?.ok_or_else(|| Error::Unauthenticated { reason: "wrong user name or password".to_owned() })?;
        self.begin(user, self.clock.now(), request_id).await
    }

    /// A try was counted as a failure before it was known to be one.
    fn settle_try(&self, by_name: &str, by_source: &str, found: &Result<Option<User>>) {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(None) => {}
            Ok(Some(_)) => {
                throttle.succeeded(by_name);
                throttle.forgive(by_source);
            }
            // Nobody guessed wrong; a part of ours failed.
            Err(_) => {
                throttle.forgive(by_name);
                throttle.forgive(by_source);
            }
        }
    }

    /// The user of that name, if the password is theirs and they are not locked out.
    async fn find_proven(&self, name: &str, password: Secret) -> Result<Option<User>> {
        let found = self.users.find_by_name(name).await?;
        let sane = password.expose().len() <= MAX_PASSWORD * 4;
        let hash = found.as_ref().map(|(_, hash)| hash.clone()).filter(|_| sane);
        let password = if sane { password } else { Secret::from(String::new()) };
        let proven = self.hasher.verify(password, hash).await?;
        Ok(found.map(|(user, _)| user).filter(|user| proven && !user.disabled))
    }

    async fn begin(&self, user: User, now: Timestamp, request_id: Option<String>) -> Result<Login> {
        let secret = Secret::generate("sls", &*self.entropy);
        let session = NewSession {
            user_id: user.id,
            secret_digest: secret.digest(),
            expires_at: now + TimeDelta::hours(SESSION_HOURS),
            created_at: now,
        };
        let mut entry = AuditEntry::new(&Actor::system("login"), Operation::AuthLogin.action(), now);
        entry.actor = format!("user:{}", user.name);
        entry.request_id = request_id;
        let session = self.sessions.create(session, entry).await?;
        Ok(Login { user, session, secret })
    }

    /// Counts a try as a failure before its slow check begins, so that many at once do not all pass as the first one.
    fn count_try(&self, keys: [(&str, u32); 2]) -> Result<()> {
        let now = self.clock.now();
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(retry_after) = keys.iter().filter_map(|(key, free)| throttle.wait(key, *free, now)).max() {
            let reason = "too many failed logins; wait before trying again".to_owned();
            return Err(Error::Exhausted { reason, retry_after });
        }
        for (key, _) in keys {
            throttle.failed(key, now);
        }
        Ok(())
    }

    /// Ends the session that the actor came with. A token has none, and stays as it is.
    ///
    /// # Errors
    /// If the session cannot be ended.
    pub async fn auth_logout(&self, actor: &Actor) -> Result<()> {
        actor.authorize(Operation::AuthLogout)?;
        let Principal::User { session, .. } = actor.principal else {
            let reason = "a token has no session to end; delete the token to revoke it";
            return Err(Error::conflict("no_session", reason));
        };
        let mut entry = AuditEntry::new(actor, Operation::AuthLogout.action(), self.clock.now());
        entry.target = Some(format!("session:{session}"));
        self.sessions.delete(session, entry).await
    }

    /// Gives a ticket that opens one WebSocket as the actor.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub async fn ticket_create(&self, actor: &Actor, credential_digest: String) -> Result<Ticket> {
        actor.authorize(Operation::TicketCreate)?;
        let now = self.clock.now();
        let ticket = Ticket {
            secret: Secret::generate("slw", &*self.entropy),
            expires_at: now + TimeDelta::seconds(TICKET_SECONDS),
        };
        let entry = AuditEntry::new(actor, Operation::TicketCreate.action(), now);
        self.sessions.ticket_create(ticket.secret.digest(), credential_digest, ticket.expires_at, entry).await?;
        Ok(ticket)
    }

    /// Takes a ticket: who it was given to, if it is still good, and the digest of the secret that it stands for, with
    /// which [`SessionService::still`] goes on asking. Nobody can take it again.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if the ticket is unknown, taken or expired.
    pub async fn ticket_redeem(&self, ticket: &Secret, request_id: Option<String>) -> Result<(Actor, String), Denied> {
        let taken = self.sessions.ticket_take(&ticket.digest(), self.clock.now()).await?;
        let refused = || Error::Unauthenticated {
            reason: "the ticket was used already or has expired; ask for another".to_owned(),
        };
        let digest = taken.ok_or_else(refused)?;
        Ok((self.actor_of(&digest, request_id).await?, digest))
    }

    /// Who the bearer of `secret` is.
    ///
    /// # Errors
    /// [`Denied`] with [`Error::Unauthenticated`] if it opens nothing, and the name of its owner where it once did.
    pub async fn authenticate(&self, secret: &Secret, request_id: Option<String>) -> Result<Actor, Denied> {
        self.actor_of(&secret.digest(), request_id).await
    }

    /// Who the bearer of the secret with this digest is by now, for what goes on longer than a request.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn still(&self, digest: &str, request_id: Option<String>) -> Result<Actor, Denied> {
        self.actor_of(digest, request_id).await
    }

    async fn actor_of(&self, digest: &str, request_id: Option<String>) -> Result<Actor, Denied> {
        let now = self.clock.now();
        match self.sessions.find_credential(digest).await? {
            Some(Credential::Token(token)) => self.bearer(token, now, request_id),
            Some(Credential::Session(session, user)) => signed_in(&session, &user, now, request_id),
            Some(Credential::Agent { server, name }) => Ok(Actor {
                principal: Principal::Agent { server, name },
                on_behalf_of: None,
                role: Role::Agent,
                scopes: Scopes::all(),
                request_id,
            }),
            None => {
                let reason = "the token is not known; create one, or sign in again".to_owned();
                Err(Error::Unauthenticated { reason }.into())
            }
        }
    }

    fn bearer(&self, token: Token, now: Timestamp, request_id: Option<String>) -> Result<Actor, Denied> {
        if let Some(at) = token.expires_at.filter(|at| *at <= now) {
            let reason = format!("token {:?} expired at {}; create another", token.name.as_str(), at.to_rfc3339());
            return Err(Denied {
                error: Error::Unauthenticated { reason },
                owner: Some(format!("token:{}", token.name)),
            });
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(token.id, now);
        Ok(Actor {
            principal: Principal::Token { id: token.id, name: token.name.as_str().to_owned() },
            on_behalf_of: None,
            role: token.role,
            scopes: token.scopes,
            request_id,
        })
    }

    /// Background job: writes down when tokens were last used.
    ///
    /// # Errors
    /// If it cannot be written; it is tried again next time.
    pub async fn tokens_touch(&self) -> Result<()> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return Ok(());
        }
        let outcome = self.tokens.touch(used.clone().into_iter().collect()).await;
        if outcome.is_err() {
            let mut again = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, at) in used {
                again.entry(id).or_insert(at);
            }
        }
        outcome
    }

    /// Background job: forgets what has ended.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn sessions_sweep(&self) -> Result<usize> {
        self.sessions.sweep(self.clock.now()).await
    }
}

fn signed_in(session: &Session, user: &User, now: Timestamp, request_id: Option<String>) -> Result<Actor, Denied> {
    if session.expires_at <= now || user.disabled {
        let error = Error::Unauthenticated { reason: "the session has ended; sign in again".to_owned() };
        return Err(Denied { error, owner: Some(format!("user:{}", user.name)) });
    }
    Ok(Actor {
        principal: Principal::User { id: user.id, name: user.name.as_str().to_owned(), session: session.id },
        on_behalf_of: None,
        role: user.role,
        scopes: Scopes::all(),
        request_id,
    })
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
