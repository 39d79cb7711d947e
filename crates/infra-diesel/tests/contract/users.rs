//! The port `Users`.

use crate::{
    on_both,
    store::{Store, at, change, check_conflict, check_not_found, check_stale, new_user, start, walk},
};
use domain::{
    change::Done,
    identity::{Credential, Role, Sessions, User, Users},
    ids::UserId,
    page::PageRequest,
};
use std::cell::Cell;

on_both!(
    a_user_is_read_back_as_they_were_made,
    a_name_belongs_to_one_user,
    what_is_not_there_is_not_found,
    a_name_finds_its_user_and_their_password_hash,
    an_update_keeps_the_password_unless_it_is_given,
    an_update_from_an_old_revision_is_stale_and_ends_no_session,
    a_new_password_ends_the_users_sessions,
    disabling_ends_the_users_sessions,
    a_deleted_user_is_gone_with_their_sessions,
    pages_neither_repeat_nor_skip,
);

fn next(user: &User) -> User {
    User { revision: user.revision + 1, updated_at: at(60), ..user.clone() }
}

async fn a_user_is_read_back_as_they_were_made(store: Store) {
    let new = new_user("alice");
    let user = store.users.create(new.clone(), change("user.create")).await.unwrap().value;
    let expected = User {
        id: user.id,
        name: new.name,
        role: Role::Operator,
        disabled: false,
        revision: 1,
        created_at: start(),
        updated_at: start(),
    };
    assert_eq!(user, expected);
    assert_eq!(store.users.get(user.id).await.unwrap(), user);
    let row = store.last_row().await;
    assert_eq!(row.entry.target, Some(format!("user:{}", user.id)));
    assert!(!serde_json::to_string(&row).unwrap().contains("hash-alice"), "no password hash in the log");
    store.check_log(&["user.create"]).await;
}

async fn a_name_belongs_to_one_user(store: Store) {
    store.user("alice").await;
    let reason = check_conflict(store.users.create(new_user("alice"), change("user.create")).await, "name_taken");
    assert!(reason.contains("\"alice\""), "{reason}");
    store.user("Alice").await;
    store.check_log(&["user.create", "user.create"]).await;
}

async fn what_is_not_there_is_not_found(store: Store) {
    check_not_found(store.users.get(UserId(1)).await);
    let user = store.user("alice").await;
    store.users.delete(user.clone(), change("user.delete")).await.unwrap();
    check_not_found(store.users.get(user.id).await);
    check_not_found(store.users.update(next(&user), None, change("user.update")).await);
    check_not_found(store.users.delete(user, change("user.delete")).await);
    store.check_log(&["user.create", "user.delete"]).await;
}

async fn a_name_finds_its_user_and_their_password_hash(store: Store) {
    let alice = store.user("alice").await;
    store.user("bob").await;
    assert_eq!(store.users.find_by_name("alice").await.unwrap(), Some((alice, "hash-alice".to_owned())));
    // Whatever somebody types into the login form is a name; NUL is one that PostgreSQL cannot store.
    for nobody in ["carol", "ALICE", "", "alice ", "al%", "' OR 1=1 --", "alice\0", "\0"] {
        assert_eq!(store.users.find_by_name(nobody).await.unwrap(), None, "{nobody:?}");
    }
}

async fn an_update_keeps_the_password_unless_it_is_given(store: Store) {
    let alice = store.user("alice").await;
    let admin = User { role: Role::Admin, ..next(&alice) };
    let done = store.users.update(admin.clone(), None, change("user.update")).await.unwrap();
    assert_eq!(done, Done { value: admin.clone(), replayed: false });
    assert_eq!(store.users.find_by_name("alice").await.unwrap(), Some((admin.clone(), "hash-alice".to_owned())));
    let after = store.users.update(next(&admin), Some("other".to_owned()), change("user.update")).await.unwrap().value;
    assert_eq!(store.users.find_by_name("alice").await.unwrap(), Some((after, "other".to_owned())));
}

async fn an_update_from_an_old_revision_is_stale_and_ends_no_session(store: Store) {
    let alice = store.user("alice").await;
    let after = store.users.update(next(&alice), None, change("user.update")).await.unwrap().value;
    store.session(alice.id, "digest").await;
    let locked_out = User { disabled: true, ..next(&alice) };
    check_stale(store.users.update(locked_out, Some("other".to_owned()), change("user.update")).await, 2);
    check_stale(store.users.delete(alice, change("user.delete")).await, 2);
    assert_eq!(store.users.find_by_name("alice").await.unwrap(), Some((after, "hash-alice".to_owned())));
    assert!(store.sessions.find_credential("digest").await.unwrap().is_some());
    store.check_log(&["user.create", "user.update", "session.create"]).await;
}

/// Two of alice's sessions and one of bob's, all remembered in memory.
async fn three_sessions(store: &Store) -> User {
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    for (user, digest) in [(alice.id, "alice-1"), (alice.id, "alice-2"), (bob.id, "bob-1")] {
        store.session(user, digest).await;
        assert!(store.sessions.find_credential(digest).await.unwrap().is_some());
    }
    alice
}

async fn check_only_bob_is_in(store: &Store) {
    for digest in ["alice-1", "alice-2"] {
        assert_eq!(store.sessions.find_credential(digest).await.unwrap(), None, "{digest}");
    }
    assert!(matches!(store.sessions.find_credential("bob-1").await.unwrap(), Some(Credential::Session(..))));
}

async fn a_new_password_ends_the_users_sessions(store: Store) {
    let alice = three_sessions(&store).await;
    let promoted = User { role: Role::Admin, ..next(&alice) };
    store.users.update(promoted.clone(), None, change("user.update")).await.unwrap();
    let Some(Credential::Session(_, user)) = store.sessions.find_credential("alice-1").await.unwrap() else {
        panic!("another role ends no session")
    };
    assert_eq!(user, promoted, "the session knows the new role at once");
    store.users.update(next(&promoted), Some("other".to_owned()), change("user.update")).await.unwrap();
    check_only_bob_is_in(&store).await;
}

async fn disabling_ends_the_users_sessions(store: Store) {
    let alice = three_sessions(&store).await;
    let disabled = User { disabled: true, ..next(&alice) };
    store.users.update(disabled.clone(), None, change("user.update")).await.unwrap();
    check_only_bob_is_in(&store).await;
    assert_eq!(store.users.get(alice.id).await.unwrap(), disabled);
}

async fn a_deleted_user_is_gone_with_their_sessions(store: Store) {
    let alice = three_sessions(&store).await;
    store.users.delete(alice.clone(), change("user.delete")).await.unwrap();
    check_only_bob_is_in(&store).await;
    assert_eq!(store.users.find_by_name("alice").await.unwrap(), None);
    assert!(store.user("alice").await.id > alice.id, "an id that audit rows name is not given again");
}

async fn pages_neither_repeat_nor_skip(store: Store) {
    for n in 0..5 {
        store.user(&format!("user-{n}")).await;
    }
    for limit in [1, 2, 5] {
        let list = |page| store.users.list(page);
        let there = list(PageRequest::default()).await.unwrap();
        assert!(there.items.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
        assert_eq!(there.total, i64::try_from(there.items.len()).unwrap());
        let n = Cell::new(0);
        let meanwhile = || async {
            n.set(n.get() + 1);
            store.user(&format!("new-{limit}-{}", n.get())).await;
        };
        assert_eq!(walk(limit, list, meanwhile).await, there.items, "{limit} at a time");
    }
}
