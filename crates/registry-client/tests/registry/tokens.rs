//! Who asks.

use crate::{
    PASSWORD, client, doubting, login, look_up, missing, options, platforms, silent,
    stand_in::{Reply, Request, StandIn, image, the_image},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use registry_client::RegistryOptions;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

const TOKEN: &str = "opaque-token-of-a-test";

/// Where tokens are handed out, numbered; `life` is the member that says how long they are good.
fn realm(member: &'static str, life: &'static str) -> StandIn {
    let count = AtomicU32::new(0);
    StandIn::start(move |_: &Request| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        Reply::json(&format!(r#"{{"{member}":"{TOKEN}-{number}"{life}}}"#))
    })
}

/// A registry that wants a token of this place, the newest or an older one.
fn registry(realm: &str) -> StandIn {
    let challenge = format!(r#"Bearer realm="{realm}",service="the registry",scope="repository:whatever:pull""#);
    StandIn::start(move |request: &Request| match request.authorization() {
        Some(key) if key.starts_with(&format!("Bearer {TOKEN}-")) => image(request),
        _ => Reply::challenge(&challenge),
    })
}

#[tokio::test]
async fn a_token_is_fetched_once_for_a_repository() {
    for member in ["token", "access_token"] {
        let realm = realm(member, r#","expires_in":300"#);
        let registry = registry(&realm.url("/token?account=x"));
        let client = client(doubting());
        for name in ["a/b:v1", "a/b:v2"] {
            let truth = look_up(&client, &registry.name(name)).await.unwrap();
            assert_eq!(platforms(&truth), ["linux/amd64"]);
        }
        let asked = "GET /token?account=x&service=the+registry&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(realm.asked(), [asked]);
        assert_eq!(realm.requests()[0].authorization(), None, "nobody in particular asks");
        let refused = registry.requests().iter().filter(|request| request.authorization().is_none()).count();
        assert_eq!(refused, 1, "the token is shown from then on");
        look_up(&client, &registry.name("c")).await.unwrap();
        assert_eq!(realm.count("scope=repository%3Ac%3Apull"), 1);
    }
}

#[tokio::test]
async fn a_token_that_ends_soon_is_not_kept() {
    for (life, fetched) in
        [(r#","expires_in":300"#, 1), ("", 1), (r#","expires_in":"?""#, 1), (r#","expires_in":5"#, 5)]
    {
        let realm = realm("token", life);
        let registry = registry(&realm.url("/token"));
        let client = client(doubting());
        // HEAD, GET and GET; then what it is is known, and it is HEAD alone.
        for _ in 0..3 {
            look_up(&client, &registry.name("a")).await.unwrap();
        }
        assert_eq!(realm.asked().len(), fetched, "{life}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_fetched_again() {
    let realm = realm("token", r#","expires_in":18446744073709551615"#);
    let challenge = format!(r#"Bearer realm="{}""#, realm.url("/token"));
    let good = Arc::new(AtomicU32::new(0));
    let newest = good.clone();
    let registry = StandIn::start(move |request: &Request| {
        let expected = format!("Bearer {TOKEN}-{}", newest.load(Ordering::Relaxed));
        if request.authorization() == Some(&expected) { image(request) } else { Reply::challenge(&challenge) }
    });
    let client = client(doubting());
    look_up(&client, &registry.name("a")).await.unwrap();
    good.store(1, Ordering::Relaxed);
    look_up(&client, &registry.name("a")).await.unwrap();
    assert_eq!(realm.asked().len(), 2);
    // One that is refused at once is not fetched again and again.
    good.store(9, Ordering::Relaxed);
    missing(look_up(&client, &registry.name("a")).await);
    assert_eq!(realm.asked().len(), 3);
}

#[tokio::test]
async fn a_login_fetches_tokens_and_is_shown_to_nobody_else() {
    let realm = realm("token", "");
    let registry = registry(&realm.url("/token"));
    let client = client(RegistryOptions { logins: login(&registry.registry()), ..options() });
    look_up(&client, &registry.name("a")).await.unwrap();
    let basic = format!("Basic {}", STANDARD.encode(format!("ann:{PASSWORD}")));
    assert_eq!(realm.requests()[0].authorization(), Some(basic.as_str()));
    let shown: Vec<_> = registry.requests().iter().filter_map(|r| r.authorization().map(str::to_owned)).collect();
    assert!(!shown.is_empty() && shown.iter().all(|key| key.starts_with("Bearer ")), "{shown:?}");
    // A login is for its own registry.
    let other = self::registry(&realm.url("/token"));
    look_up(&client, &other.name("a")).await.unwrap();
    assert_eq!(realm.requests()[1].authorization(), None);
}

#[tokio::test]
async fn a_registry_may_take_the_login_itself() {
    let basic = format!("Basic {}", STANDARD.encode(format!("ann:{PASSWORD}")));
    let registry = StandIn::start(move |request: &Request| match request.authorization() {
        Some(key) if key == basic => image(request),
        _ => Reply::challenge(r#"Basic realm="Registry""#),
    });
    let signed = client(RegistryOptions { logins: login(&registry.registry()), ..options() });
    look_up(&signed, &registry.name("a")).await.unwrap();
    assert_eq!(registry.asked().len(), 4, "it is asked for the login once: {:?}", registry.asked());
    missing(look_up(&client(options()), &registry.name("a")).await);
}

#[tokio::test]
async fn where_tokens_are_handed_out_may_fail() {
    let check = async |reply: fn() -> Reply| {
        let realm = StandIn::start(move |_: &Request| reply());
        let registry = registry(&realm.url("/token"));
        let client = client(RegistryOptions { logins: login(&registry.registry()), ..options() });
        let outcome = look_up(&client, &registry.name("a")).await;
        let text = format!("{outcome:?}");
        assert!(!text.contains(PASSWORD) && !text.contains(TOKEN), "{text}");
        outcome
    };
    missing(check(|| Reply::status(401)).await);
    missing(check(|| Reply::status(403)).await);
    silent(check(|| Reply::status(404)).await);
    silent(check(|| Reply::status(429)).await);
    silent(check(|| Reply::status(500)).await);
    for text in [
        "{}",
        "<html>",
        r#"{"token":""}"#,
        r#"{"token":"opaque-token-of-a-test\n"}"#,
        r#"{"token":["opaque-token-of-a-test"]}"#,
    ] {
        let realm = StandIn::start(move |_: &Request| Reply::json(text));
        let registry = registry(&realm.url("/token"));
        let sentence = silent(look_up(&client(options()), &registry.name("a")).await);
        assert!(sentence.contains("none was given") && !sentence.contains(TOKEN), "{sentence}");
    }
    let sentence = silent(check(|| Reply::Endless(Arc::default())).await);
    assert!(sentence.contains("longer than 65536 bytes"), "{sentence}");
}

#[tokio::test]
async fn a_login_does_not_leave_the_host_without_encryption() {
    let realm = realm("token", "");
    // The same service by another name of its host.
    let registry = registry(&realm.url("/token").replace("127.0.0.1", "localhost"));
    let signed = client(RegistryOptions { logins: login(&registry.registry()), ..options() });
    let sentence = silent(look_up(&signed, &registry.name("a")).await);
    assert!(sentence.contains("does not get the login") && !sentence.contains(PASSWORD), "{sentence}");
    assert_eq!(realm.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn who_cannot_be_signed_in_to_is_told() {
    for challenge in ["Negotiate", "Bearer", r#"Bearer realm="ftp://127.0.0.1/x""#] {
        let registry = StandIn::start(move |_: &Request| Reply::challenge(challenge));
        silent(look_up(&client(options()), &registry.name("a")).await);
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_takes_no_token_along() {
    let realm = realm("token", "");
    let elsewhere = StandIn::start(image);
    let to = elsewhere.url("");
    let challenge = format!(r#"Bearer realm="{}""#, realm.url("/token"));
    let registry = StandIn::start(move |request: &Request| match request.authorization() {
        None => Reply::challenge(&challenge),
        Some(_) if request.path.contains("/blobs/") && !request.path.starts_with("/v2/moved/") => {
            Reply::redirect(&request.path.replace("/v2/", "/v2/moved/"))
        }
        Some(_) if request.path.contains("/blobs/") => Reply::redirect(&format!("{to}{}", request.path)),
        Some(_) => image(request),
    });
    let truth = look_up(&client(options()), &registry.name("a")).await.unwrap();
    assert_eq!(platforms(&truth), ["linux/amd64"]);
    let (_, config) = the_image();
    let path = format!("/v2/moved/a/blobs/{}", config.digest());
    let moved = registry.requests().into_iter().find(|request| request.path == path).unwrap();
    assert!(moved.authorization().is_some(), "the same host gets it again");
    let requests = elsewhere.requests();
    assert_eq!((requests.len(), &requests[0].path), (1, &path));
    assert_eq!(requests[0].authorization(), None);
    assert_eq!(requests[0].headers.get("referer"), None);
}

#[tokio::test]
async fn another_host_does_not_say_where_to_sign_in() {
    let trap = StandIn::start(|_: &Request| Reply::json(r#"{"token":"x"}"#));
    let challenge = format!(r#"Bearer realm="{}""#, trap.url("/token"));
    let elsewhere = StandIn::start(move |_: &Request| Reply::challenge(&challenge));
    let to = elsewhere.url("/");
    let registry = StandIn::start(
        move |request: &Request| {
            if request.path.contains("/blobs/") { Reply::redirect(&to) } else { image(request) }
        },
    );
    let client = client(RegistryOptions { logins: login(&registry.registry()), ..options() });
    missing(look_up(&client, &registry.name("a")).await);
    assert_eq!(trap.asked(), Vec::<String>::new());
}
