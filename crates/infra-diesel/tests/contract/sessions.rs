//! The port `Sessions`: sessions, tickets, and what a process remembers of credentials.

use crate::{
    on_both,
    store::{Store, at, at_once, change, entry, new_server, new_session, once, start},
};
use domain::{
    fleet::Servers,
    identity::{Credential, Session, Sessions, Tokens},
    ids::SessionId,
};
use std::{
    future::Future,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

on_both!(
    a_session_opens_what_its_user_may,
    an_ended_session_opens_nothing,
    a_ticket_is_taken_once,
    of_many_takers_one_gets_the_ticket,
    an_expired_ticket_is_worth_nothing,
    what_has_ended_is_swept,
    a_revocation_by_another_process_shows_within_seconds,
    a_revocation_shows_even_if_whoever_asked_hung_up,
);

async fn a_session_opens_what_its_user_may(store: Store) {
    let alice = store.user("alice").await;
    let session = store.session(alice.id, "digest").await;
    let expected = Session { id: session.id, user_id: alice.id, expires_at: at(3600), created_at: start() };
    assert_eq!(session, expected);
    let row = store.last_row().await;
    assert_eq!(row.entry.target, Some(format!("session:{}", session.id)));
    assert!(!serde_json::to_string(&row).unwrap().contains("digest"), "no digest in the log");
    let opened = store.sessions.find_credential("digest").await.unwrap();
    assert_eq!(opened, Some(Credential::Session(session, alice)));
    for nothing in ["", "DIGEST", "digest-2"] {
        assert_eq!(store.sessions.find_credential(nothing).await.unwrap(), None);
    }
    store.check_log(&["user.create", "session.create"]).await;
}

async fn an_ended_session_opens_nothing(store: Store) {
    let alice = store.user("alice").await;
    let (session, other) = (store.session(alice.id, "digest").await, store.session(alice.id, "other").await);
    assert!(store.sessions.find_credential("digest").await.unwrap().is_some());
    store.sessions.delete(session.id, entry("session.delete")).await.unwrap();
    assert_eq!(store.sessions.find_credential("digest").await.unwrap(), None);
    assert_eq!(store.sessions.find_credential("other").await.unwrap(), Some(Credential::Session(other, alice)));
    // Ending it again has no effect, and is not recorded.
    store.sessions.delete(session.id, entry("session.delete")).await.unwrap();
    store.sessions.delete(SessionId(99), entry("session.delete")).await.unwrap();
    store.check_log(&["user.create", "session.create", "session.create", "session.delete"]).await;
}

async fn ticket(store: &Store, digest: &str, seconds: i64) {
    let credential = format!("credential-of-{digest}");
    store.sessions.ticket_create(digest.to_owned(), credential, at(seconds), entry("ticket.create")).await.unwrap();
}

async fn a_ticket_is_taken_once(store: Store) {
    ticket(&store, "a", 30).await;
    ticket(&store, "b", 30).await;
    assert_eq!(store.sessions.ticket_take("c", start()).await.unwrap(), None);
    assert_eq!(store.sessions.ticket_take("a", at(29)).await.unwrap().as_deref(), Some("credential-of-a"));
    assert_eq!(store.sessions.ticket_take("a", at(29)).await.unwrap(), None);
    assert_eq!(store.sessions.ticket_take("b", at(29)).await.unwrap().as_deref(), Some("credential-of-b"));
    store.check_log(&["ticket.create", "ticket.create"]).await;
}

async fn of_many_takers_one_gets_the_ticket(store: Store) {
    ticket(&store, "a", 30).await;
    let processes = [Arc::new(store.second_process()), Arc::new(store.second_process())];
    let taken = at_once((0..20).map(|n| {
        let process = Arc::clone(&processes[n % 2]);
        async move { process.sessions.ticket_take("a", start()).await.unwrap() }
    }));
    let taken: Vec<String> = taken.await.into_iter().flatten().collect();
    assert_eq!(taken, ["credential-of-a"]);
}

async fn an_expired_ticket_is_worth_nothing(store: Store) {
    ticket(&store, "a", 30).await;
    assert_eq!(store.sessions.ticket_take("a", at(30)).await.unwrap(), None);
    assert_eq!(store.sessions.ticket_take("a", at(29)).await.unwrap(), None, "it is gone");
}

async fn what_has_ended_is_swept(store: Store) {
    let alice = store.user("alice").await;
    store.session(alice.id, "digest").await;
    ticket(&store, "a", 30).await;
    ticket(&store, "b", 3601).await;
    store.servers.create(new_server("edge-1"), once("server.create", "k-1", 0)).await.unwrap();
    assert_eq!(store.sessions.sweep(at(29)).await.unwrap(), 0);
    assert_eq!(store.sessions.sweep(at(3600)).await.unwrap(), 2, "the session and a ticket");
    assert_eq!(store.second_process().sessions.find_credential("digest").await.unwrap(), None);
    assert!(store.sessions.ticket_take("b", at(3600)).await.unwrap().is_some());
    assert_eq!(store.sessions.sweep(at(24 * 3600 - 1)).await.unwrap(), 0);
    assert_eq!(store.sessions.sweep(at(24 * 3600)).await.unwrap(), 1, "the idempotency key");
    store.check_log(&["user.create", "session.create", "ticket.create", "ticket.create", "server.create"]).await;
}

async fn a_revocation_by_another_process_shows_within_seconds(store: Store) {
    let token = store.token("ci").await;
    let alice = store.user("alice").await;
    let session = store.sessions.create(new_session(alice.id, "digest"), entry("session.create")).await.unwrap();
    for digest in ["digest-ci", "digest"] {
        assert!(store.sessions.find_credential(digest).await.unwrap().is_some());
    }
    let other = store.second_process();
    other.tokens.delete(token, change("token.delete")).await.unwrap();
    other.sessions.delete(session.id, entry("session.delete")).await.unwrap();
    let revoked = Instant::now();
    for digest in ["digest-ci", "digest"] {
        assert_eq!(other.sessions.find_credential(digest).await.unwrap(), None);
        while store.sessions.find_credential(digest).await.unwrap().is_some() {
            assert!(revoked.elapsed() < Duration::from_secs(5), "{digest} still opens something");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn a_revocation_shows_even_if_whoever_asked_hung_up(store: Store) {
    let token = store.token("ci").await;
    assert!(store.sessions.find_credential("digest-ci").await.unwrap().is_some());
    {
        // The request is handed in, and its future dropped, as when a client goes away.
        let mut request = Box::pin(store.tokens.delete(token, change("token.delete")));
        assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let asked = Instant::now();
    while store.log().await.len() < 2 {
        assert!(asked.elapsed() < Duration::from_secs(10), "the work stands all the same");
        tokio::task::yield_now().await;
    }
    // Sooner than what is remembered would be forgotten by itself.
    while store.sessions.find_credential("digest-ci").await.unwrap().is_some() {
        assert!(asked.elapsed() < Duration::from_secs(2), "it still opens something");
        tokio::task::yield_now().await;
    }
}
