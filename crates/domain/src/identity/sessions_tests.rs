use super::*;
use crate::{
    identity::{
        Role, Room,
        doubles::{Memory, PlainHasher},
        ports::MockPasswordHasher,
    },
    ids::{SessionId, UserId},
    testing::{CountingEntropy, START, TestClock, alice, name},
};
use std::{sync::atomic::Ordering, time::Duration};

const HOME: &str = "10.0.0.1";

struct App {
    memory: Arc<Memory>,
    clock: Arc<TestClock>,
    service: SessionService,
}

impl App {
    fn start() -> Self {
        Self::hashing(Arc::new(PlainHasher))
    }

    fn hashing(hasher: Arc<dyn PasswordHasher>) -> Self {
        let (memory, clock) = (Memory::peopled(), TestClock::start());
        let service = SessionService::new(SessionPorts {
            sessions: memory.clone(),
            users: memory.clone(),
            tokens: memory.clone(),
            hasher,
            clock: clock.clone(),
            entropy: Arc::new(CountingEntropy::default()),
        });
        Self { memory, clock, service }
    }

    async fn login(&self, name: &str, password: &str, source: &str) -> Result<Login> {
        self.service.auth_login(name, Secret::from(password.to_owned()), source, Some("r-9".to_owned())).await
    }

    async fn alice(&self) -> Login {
        self.login("alice", "alice-password", HOME).await.unwrap()
    }

    async fn fail(&self, name: &str, source: &str, times: u32) {
        for _ in 0..times {
            let outcome = self.login(name, "guess", source).await;
            assert!(matches!(outcome, Err(Error::Unauthenticated { .. })), "{outcome:?}");
        }
    }

    async fn who(&self, secret: &Secret) -> Result<Actor, Denied> {
        self.service.authenticate(secret, Some("r-10".to_owned())).await
    }

    fn disable_alice(&self) {
        self.memory.users.lock().unwrap()[0].0.disabled = true;
    }

    /// A token named `ci` that ends after `life`, and its secret.
    fn token(&self, life: Option<TimeDelta>) -> (Token, Secret) {
        let secret = Secret::from("slt_secret".to_owned());
        let token = Token {
            id: TokenId(5),
            name: name("ci"),
            role: Role::Operator,
            scopes: Scopes::only([Room::Fleet]),
            expires_at: life.map(|life| self.clock.now() + life),
            last_used_at: None,
            created_by: "user:alice".to_owned(),
            created_at: START,
        };
        self.memory.tokens.lock().unwrap().push((token.clone(), secret.digest()));
        (token, secret)
    }

    async fn ticket(&self, of: &Secret) -> Ticket {
        let actor = self.who(of).await.unwrap();
        self.service.ticket_create(&actor, of.digest()).await.unwrap()
    }
}

#[track_caller]
fn check_waits(outcome: &Result<Login>, seconds: u64) {
    let Err(Error::Exhausted { retry_after, .. }) = outcome else { panic!("{outcome:?} does not ask to wait") };
    assert_eq!(*retry_after, Duration::from_secs(seconds));
}

/// What the bearer is told, and who the audit log names.
#[track_caller]
fn check_denied(outcome: Result<Actor, Denied>, owner: Option<&str>, reason: &str) {
    let denied = outcome.unwrap_err();
    assert_eq!(denied.owner.as_deref(), owner);
    let Error::Unauthenticated { reason: told } = denied.error else { panic!("{denied:?}") };
    assert!(told.contains(reason), "{told}");
}

#[tokio::test]
async fn a_login_begins_a_session_that_its_secret_opens() {
    let app = App::start();
    let login = app.alice().await;
    assert_eq!((login.user.id, login.session.user_id), (UserId(1), UserId(1)));
    assert_eq!(login.session.expires_at, START + TimeDelta::hours(SESSION_HOURS));
    assert!(login.secret.expose().starts_with("sls_") && login.secret.expose().len() == 68);

    let entry = app.memory.last_entry();
    assert_eq!((entry.actor.as_str(), entry.action.as_str()), ("user:alice", "session.create"));
    assert_eq!((entry.target.as_deref(), entry.request_id.as_deref()), (Some("session:1"), Some("r-9")));
    assert!(!serde_json::to_string(&entry).unwrap().contains(login.secret.expose()));
    assert!(!format!("{login:?}").contains(login.secret.expose()));

    let actor = app.who(&login.secret).await.unwrap();
    let principal = Principal::User { id: UserId(1), name: "alice".to_owned(), session: SessionId(1) };
    assert_eq!(actor, Actor { principal, request_id: Some("r-10".to_owned()), ..alice(Role::Admin) });
}

#[tokio::test]
async fn every_wrong_login_gets_the_same_answer_and_begins_nothing() {
    let app = App::start();
    app.disable_alice();
    let endless = "x".repeat(MAX_PASSWORD * 4 + 1);
    let tries = [
        ("bob", "guess"),
        ("bob", ""),
        ("bob", endless.as_str()),
        ("nobody", "guess"),
        ("", ""),
        ("alice", "guess"),
        ("alice", "alice-password"),
        ("Bob", "bob-password"),
    ];
    for (name, password) in tries {
        let outcome = app.login(name, password, HOME).await.map(|login| login.user);
        let Err(Error::Unauthenticated { reason }) = outcome else { panic!("{name}: {outcome:?}") };
        assert_eq!(reason, "wrong user name or password", "{name}");
    }
    assert!(app.memory.sessions.lock().unwrap().is_empty());
    assert!(app.memory.entries.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_unknown_name_costs_as_much_hashing_as_a_known_one() {
    let mut hasher = MockPasswordHasher::new();
    hasher.expect_verify().withf(|_, hash| hash.is_none()).times(1).returning(|_, _| Ok(false));
    hasher.expect_verify().withf(|_, hash| hash.is_some()).times(1).returning(|_, _| Ok(false));
    let app = App::hashing(Arc::new(hasher));
    app.fail("nobody", HOME, 1).await;
    app.fail("bob", HOME, 1).await;
}

#[tokio::test]
async fn a_password_too_long_to_be_one_is_not_hashed() {
    let mut hasher = MockPasswordHasher::new();
    let empty = |password: &Secret, hash: &Option<String>| password.expose().is_empty() && hash.is_none();
    hasher.expect_verify().withf(empty).times(1).returning(|_, _| Ok(false));
    let app = App::hashing(Arc::new(hasher));
    let outcome = app.login("bob", &"x".repeat(100_000), HOME).await;
    assert!(matches!(outcome, Err(Error::Unauthenticated { .. })));
}

#[tokio::test]
async fn failures_of_a_name_make_everybody_wait_for_it() {
    let app = App::start();
    app.fail("alice", HOME, FREE_PER_NAME).await;
    check_waits(&app.login("alice", "alice-password", HOME).await, 1);
    check_waits(&app.login("alice", "alice-password", "10.0.0.2").await, 1);
    app.login("bob", "bob-password", HOME).await.unwrap();

    app.clock.advance(TimeDelta::seconds(1));
    app.fail("alice", HOME, 1).await;
    check_waits(&app.login("alice", "alice-password", HOME).await, 2);
}

#[tokio::test]
async fn a_try_that_had_to_wait_does_not_count_as_a_failure() {
    let app = App::start();
    app.fail("alice", HOME, FREE_PER_NAME).await;
    for _ in 0..10 {
        check_waits(&app.login("alice", "guess", HOME).await, 1);
    }
    app.clock.advance(TimeDelta::seconds(1));
    app.alice().await;
}

#[tokio::test]
async fn names_that_do_not_exist_are_slowed_down_alike() {
    let app = App::start();
    app.fail("nobody", HOME, FREE_PER_NAME).await;
    check_waits(&app.login("nobody", "guess", HOME).await, 1);
}

#[tokio::test]
async fn success_forgets_the_failures_of_a_name() {
    let app = App::start();
    for _ in 0..3 {
        app.fail("alice", HOME, FREE_PER_NAME - 1).await;
        app.alice().await;
    }
}

#[tokio::test]
async fn one_source_cannot_try_many_names() {
    let app = App::start();
    for n in 0..FREE_PER_SOURCE {
        app.fail(&format!("user-{n}"), HOME, 1).await;
    }
    check_waits(&app.login("alice", "alice-password", HOME).await, 1);
    app.login("alice", "alice-password", "10.0.0.2").await.unwrap();
    // An account of one's own does not buy more tries.
    check_waits(&app.login("bob", "bob-password", HOME).await, 1);
}

#[tokio::test]
async fn a_session_ends_after_its_time() {
    let app = App::start();
    let login = app.alice().await;
    app.clock.advance(TimeDelta::hours(SESSION_HOURS) - TimeDelta::microseconds(1));
    assert!(app.who(&login.secret).await.is_ok());
    app.clock.advance(TimeDelta::microseconds(1));
    check_denied(app.who(&login.secret).await, Some("user:alice"), "the session has ended; sign in again");
    assert_eq!(app.service.sessions_sweep().await.unwrap(), 1);
    check_denied(app.who(&login.secret).await, None, "not known");
}

#[tokio::test]
async fn a_disabled_users_session_opens_nothing() {
    let app = App::start();
    let login = app.alice().await;
    app.disable_alice();
    check_denied(app.who(&login.secret).await, Some("user:alice"), "the session has ended");
}

#[tokio::test]
async fn a_logout_ends_the_session_it_came_with() {
    let app = App::start();
    let (here, there) = (app.alice().await, app.alice().await);
    let actor = app.who(&here.secret).await.unwrap();
    app.service.auth_logout(&actor).await.unwrap();
    let entry = app.memory.last_entry();
    assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("session.delete", Some("session:1")));
    check_denied(app.who(&here.secret).await, None, "not known");
    assert!(app.who(&there.secret).await.is_ok());
}

#[tokio::test]
async fn a_token_has_no_session_to_end() {
    let app = App::start();
    let (_, secret) = app.token(None);
    let actor = app.who(&secret).await.unwrap();
    let outcome = app.service.auth_logout(&actor).await;
    assert!(matches!(outcome, Err(Error::Conflict { code: "no_session", .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_token_opens_its_rooms_until_it_expires() {
    let app = App::start();
    let (token, secret) = app.token(Some(TimeDelta::days(1)));
    let actor = app.who(&secret).await.unwrap();
    assert_eq!(actor.principal, Principal::Token { id: token.id, name: "ci".to_owned() });
    assert_eq!((actor.role, actor.scopes), (token.role, token.scopes));
    app.clock.advance(TimeDelta::days(1));
    let reason = "token \"ci\" expired at 1970-01-02T00:00:00+00:00; create another";
    check_denied(app.who(&secret).await, Some("token:ci"), reason);
}

#[tokio::test]
async fn an_unknown_secret_opens_nothing() {
    let app = App::start();
    app.token(None);
    for text in ["", "slt_other", "SLT_SECRET"] {
        check_denied(app.who(&Secret::from(text.to_owned())).await, None, "the token is not known");
    }
}

#[tokio::test]
async fn the_last_use_of_a_token_is_written_down_even_after_a_failure() {
    let app = App::start();
    let (token, secret) = app.token(Some(TimeDelta::hours(1)));
    app.who(&secret).await.unwrap();
    app.memory.down.store(true, Ordering::Relaxed);
    assert!(app.service.tokens_touch().await.is_err());
    app.memory.down.store(false, Ordering::Relaxed);
    app.service.tokens_touch().await.unwrap();
    assert_eq!(*app.memory.touched.lock().unwrap(), [(token.id, START)]);
    app.service.tokens_touch().await.unwrap();
    app.clock.advance(TimeDelta::hours(1));
    app.who(&secret).await.unwrap_err();
    app.service.tokens_touch().await.unwrap();
    assert_eq!(app.memory.touched.lock().unwrap().len(), 1, "what was refused was no use");
}

#[tokio::test]
async fn a_ticket_opens_once_as_who_asked_for_it() {
    let app = App::start();
    let login = app.alice().await;
    let ticket = app.ticket(&login.secret).await;
    assert_eq!(ticket.expires_at, START + TimeDelta::seconds(TICKET_SECONDS));
    assert_eq!(app.memory.last_entry().action, "ticket.create");
    let (actor, _) = app.service.ticket_redeem(&ticket.secret, None).await.unwrap();
    assert_eq!(actor.label(), "user:alice");
    let again = app.service.ticket_redeem(&ticket.secret, None).await.map_err(|denied| denied.error);
    let Err(Error::Unauthenticated { reason }) = again else { panic!("{again:?}") };
    assert!(reason.contains("used already or has expired"), "{reason}");
}

#[tokio::test]
async fn a_ticket_is_no_credential_and_a_credential_is_no_ticket() {
    let app = App::start();
    let login = app.alice().await;
    let ticket = app.ticket(&login.secret).await;
    check_denied(app.who(&ticket.secret).await, None, "not known");
    assert!(app.service.ticket_redeem(&login.secret, None).await.is_err());
}

#[tokio::test]
async fn a_ticket_lapses_with_its_time_or_with_what_it_stands_for() {
    let app = App::start();
    let login = app.alice().await;
    let late = app.ticket(&login.secret).await;
    app.clock.advance(TimeDelta::seconds(TICKET_SECONDS));
    assert!(app.service.ticket_redeem(&late.secret, None).await.is_err());

    let (_, token) = app.token(Some(TimeDelta::seconds(TICKET_SECONDS - 1)));
    let outlived = app.ticket(&token).await;
    app.clock.advance(TimeDelta::seconds(TICKET_SECONDS - 1));
    assert!(app.service.ticket_redeem(&outlived.secret, None).await.is_err());

    let orphaned = app.ticket(&login.secret).await;
    let actor = app.who(&login.secret).await.unwrap();
    app.service.auth_logout(&actor).await.unwrap();
    assert!(app.service.ticket_redeem(&orphaned.secret, None).await.is_err());
}
