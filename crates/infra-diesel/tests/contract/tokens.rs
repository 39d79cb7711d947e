//! The port `Tokens`.

use crate::{
    on_both,
    store::{Store, at, change, check_conflict, check_not_found, new_token, start, walk},
};
use domain::{
    change::Done,
    identity::{Credential, NewToken, Role, Room, Scopes, Sessions, Token, Tokens},
    ids::TokenId,
    page::PageRequest,
};
use std::cell::Cell;

on_both!(
    a_token_is_read_back_as_it_was_made,
    a_name_belongs_to_one_token,
    what_is_not_there_is_not_found,
    a_deleted_token_opens_nothing,
    times_of_use_only_go_forward,
    pages_neither_repeat_nor_skip,
);

async fn a_token_is_read_back_as_it_was_made(store: Store) {
    let scoped = NewToken {
        role: Role::Approver,
        scopes: Scopes::only([Room::Fleet, Room::Audit]),
        expires_at: Some(at(60)),
        ..new_token("scoped")
    };
    let shut = NewToken { scopes: Scopes::only([]), ..new_token("shut") };
    for new in [new_token("ci"), scoped, shut] {
        let done = store.tokens.create(new.clone(), change("token.create")).await.unwrap();
        let token = Token {
            id: done.value.id,
            name: new.name,
            role: new.role,
            scopes: new.scopes,
            expires_at: new.expires_at,
            last_used_at: None,
            created_by: "user:alice".to_owned(),
            created_at: start(),
        };
        assert_eq!(done, Done { value: token.clone(), replayed: false });
        assert_eq!(store.tokens.get(token.id).await.unwrap(), token);
        let row = store.last_row().await;
        assert_eq!(row.entry.target, Some(format!("token:{}", token.id)));
        assert!(!serde_json::to_string(&row).unwrap().contains(&new.secret_digest), "no digest in the log");
        let opened = store.sessions.find_credential(&new.secret_digest).await.unwrap();
        assert_eq!(opened, Some(Credential::Token(token)));
    }
}

async fn a_name_belongs_to_one_token(store: Store) {
    store.token("ci").await;
    let twin = NewToken { secret_digest: "another".to_owned(), ..new_token("ci") };
    let reason = check_conflict(store.tokens.create(twin, change("token.create")).await, "name_taken");
    assert!(reason.contains("\"ci\""), "{reason}");
    store.check_log(&["token.create"]).await;
}

async fn what_is_not_there_is_not_found(store: Store) {
    check_not_found(store.tokens.get(TokenId(1)).await);
    let token = store.token("ci").await;
    store.tokens.delete(token.clone(), change("token.delete")).await.unwrap();
    check_not_found(store.tokens.get(token.id).await);
    check_not_found(store.tokens.delete(token, change("token.delete")).await);
    store.check_log(&["token.create", "token.delete"]).await;
}

async fn a_deleted_token_opens_nothing(store: Store) {
    let (token, other) = (store.token("ci").await, store.token("other").await);
    for _ in 0..2 {
        let opened = store.sessions.find_credential("digest-ci").await.unwrap();
        assert_eq!(opened, Some(Credential::Token(token.clone())));
    }
    store.tokens.delete(token, change("token.delete")).await.unwrap();
    assert_eq!(store.sessions.find_credential("digest-ci").await.unwrap(), None);
    assert_eq!(store.sessions.find_credential("digest-other").await.unwrap(), Some(Credential::Token(other)));
}

async fn times_of_use_only_go_forward(store: Store) {
    let (ci, other) = (store.token("ci").await, store.token("other").await);
    let used = async |token: &Token| store.tokens.get(token.id).await.unwrap().last_used_at;
    store.tokens.touch(vec![(ci.id, at(60)), (TokenId(99), at(60))]).await.unwrap();
    assert_eq!((used(&ci).await, used(&other).await), (Some(at(60)), None));
    store.tokens.touch(vec![(other.id, at(5)), (ci.id, at(59))]).await.unwrap();
    assert_eq!((used(&ci).await, used(&other).await), (Some(at(60)), Some(at(5))));
    store.tokens.touch(vec![(ci.id, at(62)), (ci.id, at(61))]).await.unwrap();
    assert_eq!(used(&ci).await, Some(at(62)));
    store.tokens.touch(Vec::new()).await.unwrap();
    store.check_log(&["token.create", "token.create"]).await;
}

async fn pages_neither_repeat_nor_skip(store: Store) {
    for n in 0..5 {
        store.token(&format!("token-{n}")).await;
    }
    for limit in [1, 2, 5] {
        let list = |page| store.tokens.list(page);
        let there = list(PageRequest::default()).await.unwrap();
        assert!(there.items.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
        assert_eq!(there.total, i64::try_from(there.items.len()).unwrap());
        let n = Cell::new(0);
        let meanwhile = || async {
            n.set(n.get() + 1);
            store.token(&format!("new-{limit}-{}", n.get())).await;
        };
        assert_eq!(walk(limit, list, meanwhile).await, there.items, "{limit} at a time");
    }
}
