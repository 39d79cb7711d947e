use super::{
    actor::{Actor, Principal},
    model::{NewUser, Role, Scopes, Secret, User, UserPatch},
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
        authorize_everywhere(actor)?;
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
    pub async fn user_update(
        &self,
        actor: &Actor,
        id: UserId,
        revision: Option<i64>,
        patch: UserPatch,
    ) -> Result<User> {
        actor.authorize(Operation::UserUpdate)?;
        authorize_everywhere(actor)?;
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

/// A session opens every room, so whoever can make one for somebody must have every room themselves.
fn authorize_everywhere(actor: &Actor) -> Result<()> {
    if actor.scopes.cover(&Scopes::all()) {
        return Ok(());
    }
    let reason = "a token that is limited to some scopes cannot make or change users, whose sessions open every scope";
    Err(Error::Forbidden { reason: reason.to_owned() })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::doubles::{Memory, PlainHasher},
        testing::{START, TestClock, alice, name},
    };

    const ALICE: UserId = UserId(1);
    const BOB: UserId = UserId(2);

    fn start() -> (Arc<Memory>, UserService) {
        let memory = Memory::peopled();
        let service = UserService::new(memory.clone(), Arc::new(PlainHasher), TestClock::start());
        (memory, service)
    }

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    fn disabled() -> UserPatch {
        UserPatch { disabled: Some(true), ..UserPatch::default() }
    }

    #[tokio::test]
    async fn a_scoped_token_makes_no_users_whose_sessions_open_more() {
        let (memory, users) = start();
        let scopes = Scopes::only([crate::identity::Room::Identity]);
        let actor = Actor { scopes, ..Actor::system("test") };
        let made = users.user_create(&actor, name("carol"), Role::Viewer, secret("carol-password"), None).await;
        assert!(matches!(made, Err(Error::Forbidden { .. })), "{made:?}");
        let password = UserPatch { password: Some(secret("another-password")), ..UserPatch::default() };
        let changed = users.user_update(&actor, BOB, None, password).await;
        assert!(matches!(changed, Err(Error::Forbidden { .. })), "{changed:?}");
        drop(memory);
    }

    #[tokio::test]
    async fn only_admins_manage_users() {
        let (memory, users) = start();
        for role in [Role::Viewer, Role::Approver, Role::Operator] {
            let actor = alice(role);
            let outcomes = [
                users.user_create(&actor, name("carol"), Role::Admin, secret("carol-password"), None).await.err(),
                users.user_list(&actor, PageRequest::default()).await.err(),
                users.user_get(&actor, BOB).await.err(),
                users.user_update(&actor, BOB, None, disabled()).await.err(),
                users.user_delete(&actor, BOB, None).await.err(),
            ];
            for outcome in outcomes {
                assert!(matches!(outcome, Some(Error::Forbidden { .. })), "{role:?}: {outcome:?}");
            }
        }
        assert!(memory.entries.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_new_user_is_recorded_without_the_password() {
        let (memory, users) = start();
        let password = secret("carol-password");
        let done = users.user_create(&alice(Role::Admin), name("carol"), Role::Viewer, password, None).await.unwrap();
        assert_eq!((done.value.id, done.value.role, done.value.created_at), (UserId(3), Role::Viewer, START));
        assert_eq!(memory.users.lock().unwrap()[2].1, "hash of carol-password");
        let entry = memory.last_entry();
        assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("user.create", Some("user:3")));
        assert!(!serde_json::to_string(&entry).unwrap().contains("carol-password"));
    }

    #[tokio::test]
    async fn a_password_has_a_sane_length_in_characters() {
        let (memory, users) = start();
        let admin = alice(Role::Admin);
        for bad in ["", "1234567", "密码密码密码密", &"x".repeat(257)] {
            let created = users.user_create(&admin, name("carol"), Role::Viewer, secret(bad), None).await.err();
            let patch = UserPatch { password: Some(secret(bad)), ..UserPatch::default() };
            let updated = users.user_update(&admin, BOB, None, patch).await.err();
            for outcome in [created, updated] {
                let Some(Error::Invalid { errors }) = outcome else { panic!("{bad:?}: {outcome:?}") };
                assert_eq!(errors[0].field, "password");
            }
        }
        assert!(memory.entries.lock().unwrap().is_empty());
        for good in ["12345678", "密码密码密码密码", &"界".repeat(256)] {
            users.user_create(&admin, name("carol"), Role::Viewer, secret(good), None).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_patch_keeps_what_it_does_not_mention() {
        let (memory, users) = start();
        let admin = alice(Role::Admin);
        let role = UserPatch { role: Some(Role::Approver), ..UserPatch::default() };
        let after = users.user_update(&admin, BOB, Some(1), role).await.unwrap();
        assert_eq!((after.role, after.disabled, after.revision), (Role::Approver, false, 2));
        let entry = memory.last_entry();
        assert_eq!(
            (entry.action.as_str(), entry.target.as_deref(), entry.message),
            ("user.update", Some("user:2"), None)
        );
        assert_eq!(entry.before.unwrap()["role"], "operator");
        assert_eq!(entry.after.unwrap()["role"], "approver");

        let after = users.user_update(&admin, BOB, None, disabled()).await.unwrap();
        assert_eq!((after.role, after.disabled, after.revision), (Role::Approver, true, 3));
        assert_eq!(memory.users.lock().unwrap()[1].1, "hash of bob-password");
    }

    #[tokio::test]
    async fn a_new_password_is_told_but_not_shown() {
        let (memory, users) = start();
        let patch = UserPatch { password: Some(secret("new-password")), ..UserPatch::default() };
        users.user_update(&alice(Role::Admin), BOB, None, patch).await.unwrap();
        assert_eq!(memory.users.lock().unwrap()[1].1, "hash of new-password");
        let entry = memory.last_entry();
        assert_eq!(entry.message.as_deref(), Some("the password was changed"));
        assert!(!serde_json::to_string(&entry).unwrap().contains("new-password"));
    }

    #[tokio::test]
    async fn an_admin_does_not_lock_themselves_out() {
        let (memory, users) = start();
        let admin = alice(Role::Admin);
        let demoted = UserPatch { role: Some(Role::Viewer), ..UserPatch::default() };
        let outcomes = [
            users.user_update(&admin, ALICE, None, demoted).await.err(),
            users.user_update(&admin, ALICE, None, disabled()).await.err(),
            users.user_delete(&admin, ALICE, None).await.err(),
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Some(Error::Conflict { code: "own_account", .. })), "{outcome:?}");
        }
        assert!(memory.entries.lock().unwrap().is_empty());
        let same = UserPatch { role: Some(Role::Admin), disabled: Some(false), password: Some(secret("new-password")) };
        users.user_update(&admin, ALICE, None, same).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_meant_for_another_revision_writes_nothing() {
        let (memory, users) = start();
        let admin = alice(Role::Admin);
        let updated = users.user_update(&admin, BOB, Some(2), disabled()).await.err();
        let deleted = users.user_delete(&admin, BOB, Some(0)).await.err();
        for outcome in [updated, deleted] {
            assert!(matches!(outcome, Some(Error::Stale { current: 1, .. })), "{outcome:?}");
        }
        assert!(memory.entries.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_removal_is_recorded_with_who_it_was() {
        let (memory, users) = start();
        users.user_delete(&alice(Role::Admin), BOB, Some(1)).await.unwrap();
        let entry = memory.last_entry();
        assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("user.delete", Some("user:2")));
        assert_eq!((entry.before.unwrap()["name"].as_str(), entry.after), (Some("bob"), None));
        let gone = users.user_get(&alice(Role::Admin), BOB).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    }
}
