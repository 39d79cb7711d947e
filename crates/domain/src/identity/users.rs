use super::{
    actor::{Actor, Principal},
    model::{NewUser, Role, Secret, User, UserPatch},
    permissions::Operation,
    ports::{PasswordHasher, Users},
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once},
    clock::Clock,
    ids::UserId,
    page::{Page, PageRequest},
    text::Name,
};
use std::sync::Arc;

/// The shortest password, in characters (NIST SP 800-63B asks for at least 8).
pub(super) const MIN_PASSWORD: usize = 8;
/// The longest, so that hashing one costs a bounded time.
pub(super) const MAX_PASSWORD: usize = 256;

/// Manages the people who sign in.
pub struct UserService {
    users: Arc<dyn Users>,
    hasher: Arc<dyn PasswordHasher>,
    clock: Arc<dyn Clock>,
}

impl UserService {
    /// A service over these ports.
    #[must_use]
    pub fn new(users: Arc<dyn Users>, hasher: Arc<dyn PasswordHasher>, clock: Arc<dyn Clock>) -> Self {
        Self { users, hasher, clock }
    }

    /// Makes a user.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a password that is too short or too long, `name_taken` for a second user of that name.
    pub async fn user_create(
        &self,
        actor: &Actor,
        name: Name,
        role: Role,
        password: Secret,
        once: Option<Once>,
    ) -> Result<Done<User>> {
        actor.authorize(Operation::UserCreate)?;
        check_password(&password)?;
        let password_hash = self.hasher.hash(password).await?;
        let now = self.clock.now();
        let user = NewUser { name, role, password_hash, created_at: now };
        let entry = AuditEntry::new(actor, Operation::UserCreate.action(), now);
        self.users.create(user, Change::new(entry, once)).await
    }

    /// Users, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn user_list(&self, actor: &Actor, page: PageRequest) -> Result<Page<User>> {
        actor.authorize(Operation::UserList)?;
        self.users.list(page).await
    }

    /// One user.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn user_get(&self, actor: &Actor, id: UserId) -> Result<User> {
        actor.authorize(Operation::UserGet)?;
        self.users.get(id).await
    }

    /// Changes a user. A new password, or locking out, ends their sessions.
    ///
    /// # Errors
    /// [`Error::Stale`] if the user is not at `revision` (where one is given) any more; [`Error::Conflict`] where an
    /// admin would lock themselves out.
    pub async fn user_update(&self, actor: &Actor, id: UserId, revision: Option<i64>, patch: UserPatch) -> Result<User> {
        actor.authorize(Operation::UserUpdate)?;
        let before = self.users.get(id).await?;
        at_revision("user", before.id, before.revision, revision)?;
        let demoted = patch.role.is_some_and(|role| role != Role::Admin) || patch.disabled == Some(true);
        if demoted && is_self(actor, id) {
            return Err(Error::conflict("own_account", "you cannot take your own admin role away; ask another admin"));
        }
        let mut message = None;
        let mut password_hash = None;
        if let Some(password) = patch.password {
            check_password(&password)?;
            password_hash = Some(self.hasher.hash(password).await?);
            message = Some("the password was changed");
        }
        let now = self.clock.now();
        let after = User {
            role: patch.role.unwrap_or(before.role),
            disabled: patch.disabled.unwrap_or(before.disabled),
            revision: before.revision + 1,
            updated_at: now,
            ..before.clone()
        };
        let mut entry = AuditEntry::new(actor, Operation::UserUpdate.action(), now).changed(&before, &after);
        entry.message = message.map(str::to_owned);
        Ok(self.users.update(after, password_hash, entry.into()).await?.value)
    }

    /// Removes a user and ends their sessions.
    ///
    /// # Errors
    /// [`Error::Conflict`] for one's own account; [`Error::Stale`] if the user is not at `revision` any more.
    pub async fn user_delete(&self, actor: &Actor, id: UserId, revision: Option<i64>) -> Result<()> {
        actor.authorize(Operation::UserDelete)?;
        let user = self.users.get(id).await?;
        at_revision("user", user.id, user.revision, revision)?;
        if is_self(actor, id) {
            return Err(Error::conflict("own_account", "you cannot remove your own account; ask another admin"));
        }
        let entry = AuditEntry::new(actor, Operation::UserDelete.action(), self.clock.now()).deleted(&user);
        self.users.delete(user, entry.into()).await.map(|done| done.value)
    }
}

fn is_self(actor: &Actor, id: UserId) -> bool {
    matches!(actor.principal, Principal::User { id: own, .. } if own == id)
}

/// Refuses a change that was meant for another revision than the one there is.
///
/// # Errors
/// [`Error::Stale`].
pub(crate) fn at_revision(kind: &str, id: impl std::fmt::Display, current: i64, wanted: Option<i64>) -> Result<()> {
    match wanted {
        Some(wanted) if wanted != current => Err(Error::Stale { what: format!("{kind} {id}"), current }),
        _ => Ok(()),
    }
}

fn check_password(password: &Secret) -> Result<()> {
    let length = password.expose().chars().count();
    if (MIN_PASSWORD..=MAX_PASSWORD).contains(&length) {
        return Ok(());
    }
    Err(Error::invalid("password", format!("must be {MIN_PASSWORD} to {MAX_PASSWORD} characters long")))
}
