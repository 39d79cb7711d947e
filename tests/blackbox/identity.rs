//! Users, tokens and sessions over HTTP: who gets in, and what they may do.

use crate::{
    on_both, server,
    support::{bearer, column, names, server_body, total},
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, eventually};

on_both!(
    a_user_signs_in_with_a_cookie_that_scripts_cannot_read,
    a_program_signs_in_without_a_cookie,
    passwords_have_bounds,
    a_wrong_password_and_an_unknown_user_look_alike,
    guessing_is_slowed_down,
    a_new_password_or_locking_out_ends_sessions,
    an_admin_cannot_lock_themselves_out,
    a_token_shows_its_secret_once,
    a_token_that_expired_or_was_revoked_opens_nothing,
    each_role_may_what_it_is_for,
    a_scoped_token_stays_in_its_rooms,
    a_session_changes_nothing_for_foreign_pages,
    signing_out_ends_the_session,
    a_ticket_is_given_to_whoever_is_known,
);

const PASSWORD: &str = "alice-password";

async fn alice(admin: &Client, role: &str) -> i64 {
    admin.post("/auth/users", json!({ "name": "alice", "role": role, "password": PASSWORD })).await.expect(201).id()
}

async fn login(client: &Client, name: &str, password: &str) -> Answer {
    client.anonymous().post("/auth/login", json!({ "name": name, "password": password })).await
}

/// A session's secret, used as a bearer token.
async fn session(client: &Client, name: &str, password: &str) -> Client {
    let body = json!({ "name": name, "password": password, "cookie": false });
    let answer = client.anonymous().post("/auth/login", body).await.expect(200);
    client.with_token(answer.at("/token").as_str().unwrap())
}

/// `name=value` of the cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

fn with_cookie(client: &Client, method: Method, path: &str, cookie: &str) -> RequestBuilder {
    client.anonymous().request(method, path).header("cookie", cookie)
}

async fn a_user_signs_in_with_a_cookie_that_scripts_cannot_read(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let id = alice(&admin, "operator").await;
    let answer = login(&admin, "alice", PASSWORD).await.expect(200);
    assert_eq!(
        (answer.at("/token"), answer.at("/user/name"), answer.at("/user/id")),
        (Value::Null, json!("alice"), json!(id))
    );
    let set = answer.header("set-cookie").unwrap();
    for attribute in ["starlink_session=sls_", "; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=43200"] {
        assert!(set.contains(attribute), "{attribute} is not in {set}");
    }
    assert!(!set.contains("Secure") && !set.contains("Domain"), "it is for loopback without TLS: {set}");
    assert!(!answer.text.contains("sls_"), "the secret is in the cookie alone");
    let me = Client::send(with_cookie(&admin, Method::GET, "/auth/me", &cookie(&answer))).await.expect(200);
    assert_eq!((me.at("/name"), me.at("/role")), (json!("alice"), json!("operator")));
    let rows = admin.get("/audit/logs?action=session.create").await.expect(200);
    assert_eq!((rows.at("/0/actor"), rows.at("/0/outcome")), (json!("user:alice"), json!("success")));
}

async fn a_program_signs_in_without_a_cookie(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    alice(&admin, "viewer").await;
    let body = json!({ "name": "alice", "password": PASSWORD, "cookie": false });
    let answer = admin.anonymous().post("/auth/login", body).await.expect(200);
    assert_eq!(answer.header("set-cookie"), None);
    let program = admin.with_token(answer.at("/token").as_str().unwrap());
    assert_eq!(program.get("/auth/me").await.expect(200).at("/name"), "alice");
    program.get("/servers").await.expect(200);
    program.post("/servers", server_body("edge")).await.expect(403);
}

async fn passwords_have_bounds(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let create = |name: &'static str, password: String| {
        let body = json!({ "name": name, "role": "viewer", "password": password });
        let admin = admin.clone();
        async move { admin.post("/auth/users", body).await }
    };
    for (name, password) in [("short", "ü".repeat(8)), ("long", "ü".repeat(256)), ("spaces", "  two words ".to_owned())]
    {
        let made = create(name, password.clone()).await.expect(201);
        assert!(made.json.get("password").is_none() && !made.text.contains("argon2"), "{}", made.text);
        login(&admin, name, &password).await.expect(200);
        login(&admin, name, password.trim_end_matches([' ', 'ü'])).await.expect(401);
    }
    for password in ["ü".repeat(7), "x".repeat(257), String::new()] {
        assert_eq!(create("refused", password.clone()).await.expect(400).at("/errors/0/field"), "password");
        let refused = admin.patch("/auth/users/1", json!({ "password": password })).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), "password");
    }
    assert_eq!(create("short", "another-one".to_owned()).await.expect(409).code(), "name_taken");
    assert_eq!(names(&admin.get("/auth/users").await.expect(200)), ["spaces", "long", "short"]);
}

async fn a_wrong_password_and_an_unknown_user_look_alike(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let id = alice(&admin, "viewer").await;
    admin.post("/auth/users", json!({ "name": "bob", "role": "viewer", "password": PASSWORD })).await.expect(201);
    admin.patch(&format!("/auth/users/{}", id + 1), json!({ "disabled": true })).await.expect(200);
    let long = "x".repeat(5000);
    let mut seen = Vec::new();
    for (name, password) in [
        ("alice", "wrong-password"),
        ("nobody", PASSWORD),
        ("bob", PASSWORD),
        ("ALICE", PASSWORD),
        ("alice", long.as_str()),
    ] {
        let mut answer = login(&admin, name, password).await.expect(401);
        answer.json["request_id"] = Value::Null;
        assert_eq!((answer.header("www-authenticate"), answer.header("set-cookie")), (Some("Bearer"), None));
        seen.push(answer.json);
    }
    assert!(seen.iter().all(|answer| *answer == seen[0]), "{seen:?}");
    let rows = admin.get("/audit/logs?action=session.create&outcome=refused").await.expect(200);
    assert_eq!(column(&rows, "actor"), ["user:ALICE", "user:bob", "user:nobody", "user:alice"]);
}

async fn guessing_is_slowed_down(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    alice(&admin, "viewer").await;
    let mut answer = login(&admin, "alice", "guess-guess").await;
    for _ in 0..20 {
        if answer.status == 429 {
            break;
        }
        answer = login(&admin, "alice", "guess-guess").await.clone();
    }
    let slow = answer.expect(429);
    let seconds: u64 = slow.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&seconds), "{seconds}");
    login(&admin, "alice", PASSWORD).await.expect(429);
    admin.post("/auth/users", json!({ "name": "bob", "role": "viewer", "password": PASSWORD })).await.expect(201);
    login(&admin, "bob", PASSWORD).await.expect(200);
    let in_time = async || (login(&admin, "alice", PASSWORD).await.status == 200).then_some(());
    eventually("the pause to end", in_time).await;
    login(&admin, "alice", "guess-guess").await.expect(401);
}

async fn a_new_password_or_locking_out_ends_sessions(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let path = format!("/auth/users/{}", alice(&admin, "operator").await);
    let before = session(&admin, "alice", PASSWORD).await;
    before.get("/auth/me").await.expect(200);
    admin.patch(&path, json!({ "role": "viewer" })).await.expect(200);
    assert_eq!(
        before.get("/auth/me").await.expect(200).at("/role"),
        "viewer",
        "a session has the role that its user has"
    );
    admin.patch(&path, json!({ "password": "another-password" })).await.expect(200);
    before.get("/auth/me").await.expect(401);
    login(&admin, "alice", PASSWORD).await.expect(401);
    let after = session(&admin, "alice", "another-password").await;
    admin.patch(&path, json!({ "disabled": true })).await.expect(200);
    after.get("/auth/me").await.expect(401);
    login(&admin, "alice", "another-password").await.expect(401);
    admin.patch(&path, json!({ "disabled": false })).await.expect(200);
    after.get("/auth/me").await.expect(401);
    let last = session(&admin, "alice", "another-password").await;
    admin.delete(&path).await.expect(204);
    last.get("/auth/me").await.expect(401);
    alice(&admin, "admin").await;
    last.get("/auth/me").await.expect(401);
}

async fn an_admin_cannot_lock_themselves_out(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let path = format!("/auth/users/{}", alice(&admin, "admin").await);
    let alice = session(&admin, "alice", PASSWORD).await;
    for patch in [json!({ "role": "viewer" }), json!({ "disabled": true })] {
        assert_eq!(alice.patch(&path, patch).await.expect(409).code(), "own_account");
    }
    assert_eq!(alice.delete(&path).await.expect(409).code(), "own_account");
    alice.patch(&path, json!({ "role": "admin", "disabled": false })).await.expect(200);
    alice.get("/auth/users").await.expect(200);
    admin.patch(&path, json!({ "role": "viewer" })).await.expect(200);
    alice.get("/auth/users").await.expect(403);
}

async fn a_token_shows_its_secret_once(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let body =
        json!({ "name": "ci", "role": "operator", "scopes": ["pools", "fleet"], "expires_at": "2099-01-01T00:00:00Z" });
    let made = admin.post("/auth/tokens", body.clone()).await.expect(201);
    let secret = made.at("/secret").as_str().unwrap().to_owned();
    assert!(secret.starts_with("slt_") && secret.len() == 68, "{secret}");
    assert_eq!(
        (made.at("/scopes"), made.at("/expires_at")),
        (json!(["fleet", "pools"]), json!("2099-01-01T00:00:00Z"))
    );
    assert_eq!(admin.post("/auth/tokens", body).await.expect(409).code(), "name_taken");
    let mut expected = made.json.clone();
    expected.as_object_mut().unwrap().remove("secret");
    let shown = admin.get(made.header("location").unwrap()).await.expect(200);
    assert_eq!(shown.json, expected);
    let listed = admin.get("/auth/tokens").await.expect(200);
    assert_eq!(listed.at("/0"), expected);
    let trail = admin.get("/audit/export").await.expect(200);
    for text in [shown.text, listed.text, trail.text] {
        assert!(!text.contains(&secret));
    }
    let past = json!({ "name": "past", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z" });
    assert_eq!(admin.post("/auth/tokens", past).await.expect(400).at("/errors/0/field"), "expires_at");
}

/// A moment this many milliseconds ahead, as the server's clock tells it.
async fn ahead(admin: &Client, milliseconds: i64) -> String {
    let made = admin.post("/pools", json!({ "name": format!("clock-{milliseconds}") })).await.expect(201);
    let now: chrono::DateTime<chrono::Utc> = serde_json::from_value(made.at("/created_at")).unwrap();
    (now + chrono::TimeDelta::milliseconds(milliseconds)).to_rfc3339()
}

async fn a_token_that_expired_or_was_revoked_opens_nothing(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let body = json!({ "name": "short", "role": "viewer", "expires_at": ahead(&admin, 1500).await });
    let made = admin.post("/auth/tokens", body).await.expect(201);
    let short = admin.with_token(made.at("/secret").as_str().unwrap());
    short.get("/auth/me").await.expect(200);
    let refused = eventually("the token to expire", async || {
        let answer = short.get("/auth/me").await;
        (answer.status != 200).then_some(answer)
    });
    let refused = refused.await.expect(401);
    assert!(refused.at("/detail").as_str().unwrap().contains("expired"), "{}", refused.text);
    let row = admin.get("/audit/logs?outcome=refused&actor=token:short").await.expect(200);
    assert_eq!(row.at("/0/action"), "session.get");

    let made = admin.post("/auth/tokens", json!({ "name": "gone", "role": "viewer" })).await.expect(201);
    let gone = admin.with_token(made.at("/secret").as_str().unwrap());
    for _ in 0..3 {
        gone.get("/auth/me").await.expect(200);
    }
    admin.delete(&format!("/auth/tokens/{}", made.id())).await.expect(204);
    gone.get("/auth/me").await.expect(401);
    admin.delete(&format!("/auth/tokens/{}", made.id())).await.expect(404);
}

async fn each_role_may_what_it_is_for(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    admin.post("/pools", json!({ "name": "first" })).await.expect(201);
    admin.post("/servers", server_body("first")).await.expect(201);
    let roles = ["viewer", "approver", "operator", "admin"];
    for (n, role) in roles.into_iter().enumerate() {
        let client = bearer(&admin, &format!("as-{role}"), role, None).await;
        let mut server = server_body(role);
        server["location"] = json!(role);
        let user = json!({ "name": role, "role": "viewer", "password": PASSWORD });
        let token = json!({ "name": format!("by-{role}"), "role": "viewer" });
        for (method, path, body, least, done) in [
            (Method::GET, "/auth/me", Value::Null, 0, 200),
            (Method::POST, "/auth/tickets", Value::Null, 0, 200),
            (Method::GET, "/metrics", Value::Null, 0, 200),
            (Method::GET, "/servers", Value::Null, 0, 200),
            (Method::GET, "/servers/1", Value::Null, 0, 200),
            (Method::GET, "/pools/1", Value::Null, 0, 200),
            (Method::GET, "/audit/logs", Value::Null, 0, 200),
            (Method::GET, "/audit/verify", Value::Null, 0, 200),
            (Method::GET, "/audit/export", Value::Null, 0, 200),
            (Method::POST, "/servers", server, 2, 201),
            (Method::PATCH, "/servers/1", json!({ "zone": role }), 2, 200),
            (Method::POST, "/servers/1/cordon", Value::Null, 2, 200),
            (Method::DELETE, "/servers/99", Value::Null, 2, 404),
            (Method::POST, "/pools", json!({ "name": role }), 2, 201),
            (Method::PATCH, "/pools/1", json!({ "description": role }), 2, 200),
            (Method::DELETE, "/pools/99", Value::Null, 2, 404),
            (Method::GET, "/auth/users", Value::Null, 3, 200),
            (Method::GET, "/auth/tokens", Value::Null, 3, 200),
            (Method::POST, "/auth/users", user, 3, 201),
            (Method::POST, "/auth/tokens", token, 3, 201),
            (Method::DELETE, "/auth/tokens/99", Value::Null, 3, 404),
        ] {
            let request = client.request(method.clone(), path);
            let request = if body.is_null() { request } else { request.json(&body) };
            let expected = if n >= least { done } else { 403 };
            assert_eq!(Client::send(request).await.status, expected, "{role}: {method} {path}");
        }
    }
    let refused = admin.get("/audit/logs?actor=token:as-viewer&action=server.delete").await.expect(200);
    assert_eq!((refused.at("/0/outcome"), refused.at("/0/target")), (json!("refused"), json!("server:99")));
}

async fn a_scoped_token_stays_in_its_rooms(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let rooms = [("fleet", "/servers"), ("pools", "/pools"), ("audit", "/audit/logs"), ("identity", "/auth/users")];
    for (scope, _) in rooms {
        let client = bearer(&admin, scope, "admin", Some(&[scope])).await;
        assert_eq!(client.get("/auth/me").await.expect(200).at("/scopes"), json!([scope]));
        for (room, path) in rooms {
            client.get(path).await.expect(if room == scope { 200 } else { 403 });
        }
    }
    let none = bearer(&admin, "none", "admin", Some(&[])).await;
    none.get("/auth/me").await.expect(200);
    none.get("/servers").await.expect(403);
    let unknown = json!({ "name": "x", "role": "viewer", "scopes": ["fleet", "everything"] });
    assert_eq!(admin.post("/auth/tokens", unknown).await.expect(400).at("/errors/0/field"), "scopes[1]");
}

async fn a_session_changes_nothing_for_foreign_pages(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    alice(&admin, "operator").await;
    let cookie = cookie(&login(&admin, "alice", PASSWORD).await.expect(200));
    let own = admin.base().to_owned();
    for (header, value, allowed) in [
        ("origin", "https://evil.example", false),
        ("origin", "null", false),
        ("origin", "http://127.0.0.1:1", false),
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-site", false),
        ("origin", &own, true),
        ("sec-fetch-site", "same-origin", true),
        ("accept-language", "en", true),
    ] {
        let before = total(&admin, "/servers").await;
        let name = format!("s{before}");
        let request =
            with_cookie(&admin, Method::POST, "/servers", &cookie).json(&server_body(&name)).header(header, value);
        Client::send(request).await.expect(if allowed { 201 } else { 403 });
        assert_eq!(total(&admin, "/servers").await, before + i64::from(allowed), "{header}: {value}");
        let read = with_cookie(&admin, Method::GET, "/servers", &cookie).header(header, value);
        let read = Client::send(read).await.expect(200);
        assert_eq!(read.header("access-control-allow-origin"), None);
    }
    // Neither a form of another page nor a token that a page cannot know.
    let form = with_cookie(&admin, Method::POST, "/servers", &cookie)
        .header("content-type", "text/plain")
        .header("origin", &own)
        .body(server_body("form").to_string());
    Client::send(form).await.expect(415);
    let foreign =
        admin.request(Method::POST, "/servers").header("origin", "https://evil.example").json(&server_body("token"));
    Client::send(foreign).await.expect(201);
}

async fn signing_out_ends_the_session(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    alice(&admin, "viewer").await;
    let other = session(&admin, "alice", PASSWORD).await;
    let cookie = cookie(&login(&admin, "alice", PASSWORD).await.expect(200));
    let out = Client::send(with_cookie(&admin, Method::POST, "/auth/logout", &cookie)).await.expect(200);
    let taken = out.header("set-cookie").unwrap();
    assert!(taken.starts_with("starlink_session=;") && taken.contains("Max-Age=0"), "{taken}");
    Client::send(with_cookie(&admin, Method::GET, "/auth/me", &cookie)).await.expect(401);
    other.get("/auth/me").await.expect(200);
    // A cookie that has ended does not stand in the way of signing in again.
    let again = with_cookie(&admin, Method::POST, "/auth/login", &cookie)
        .json(&json!({ "name": "alice", "password": PASSWORD }));
    Client::send(again).await.expect(200);
    assert_eq!(admin.post_empty("/auth/logout").await.expect(409).code(), "no_session");
    let rows = admin.get("/audit/logs?action=session.delete&outcome=success").await.expect(200);
    assert_eq!(column(&rows, "actor"), ["user:alice"]);
}

async fn a_ticket_is_given_to_whoever_is_known(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let viewer = bearer(&admin, "v", "viewer", Some(&["fleet"])).await;
    let (one, two) =
        (viewer.post_empty("/auth/tickets").await.expect(200), viewer.post_empty("/auth/tickets").await.expect(200));
    assert!(one.at("/ticket").as_str().unwrap().starts_with("slw_"));
    assert_ne!(one.at("/ticket"), two.at("/ticket"));
    // A ticket is no token.
    viewer.with_token(one.at("/ticket").as_str().unwrap()).get("/auth/me").await.expect(401);
    viewer.anonymous().post_empty("/auth/tickets").await.expect(401);
    let me = viewer.get("/auth/me").await.expect(200);
    assert_eq!((me.at("/name"), me.at("/role"), me.at("/scopes")), (json!("v"), json!("viewer"), json!(["fleet"])));
}
