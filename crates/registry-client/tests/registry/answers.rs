//! What is made of what a registry answers.

use crate::{
    PASSWORD, client, doubting, login, look_up, missing, no_image, options, platforms, silent,
    stand_in::{Reply, Request, StandIn, image, the_image},
};
use registry_client::RegistryOptions;
use serde_json::json;
use test_engine::manifests::{self, Content, MANIFEST};

/// A registry at a port that is set aside, and that nobody listens at.
const NOBODY: &str = "127.0.0.1:1/a";

fn is_head(request: &Request) -> bool {
    request.method == "HEAD"
}

#[tokio::test]
async fn a_name_costs_its_registry_as_little_as_may_be() {
    let registry = StandIn::with_image();
    let (manifest, config) = the_image();
    let doubting = client(doubting());
    for _ in 0..3 {
        let truth = look_up(&doubting, &registry.name("a/b:v1")).await.unwrap();
        assert_eq!((platforms(&truth), truth.digest), (vec!["linux/amd64".to_owned()], Some(manifest.digest())));
    }
    let head = "HEAD /v2/a/b/manifests/v1".to_owned();
    let get = format!("GET /v2/a/b/manifests/{}", manifest.digest());
    let blob = format!("GET /v2/a/b/blobs/{}", config.digest());
    assert_eq!(registry.asked(), [head.clone(), get, blob, head.clone(), head]);
    let accepted = &registry.requests()[0].headers["accept"];
    for kind in [manifests::INDEX, manifests::MANIFEST, manifests::DOCKER_LIST, manifests::DOCKER_MANIFEST] {
        assert!(accepted.contains(kind), "{accepted}");
    }

    let believing = client(options());
    for _ in 0..3 {
        look_up(&believing, &registry.name("a/b:v2")).await.unwrap();
    }
    assert_eq!(registry.count("HEAD /v2/a/b/manifests/v2"), 1);
}

#[tokio::test]
async fn a_registry_may_tell_no_digest_beforehand() {
    let without_digest = |request: &Request| match image(request) {
        Reply::Answer(status, _, body) => Reply::Answer(status, Vec::new(), body),
        other => other,
    };
    let not_allowed = |request: &Request| if is_head(request) { Reply::status(405) } else { image(request) };
    let other_kind = |request: &Request| {
        let digest = format!("sha512:{}", "0".repeat(128));
        let headers = vec![("Docker-Content-Digest", digest)];
        if is_head(request) { Reply::Answer(200, headers, Vec::new()) } else { image(request) }
    };
    let (manifest, _) = the_image();
    for registry in [StandIn::start(without_digest), StandIn::start(not_allowed), StandIn::start(other_kind)] {
        let client = client(doubting());
        for name in ["a:v1".to_owned(), format!("a@{}", manifest.digest())] {
            let truth = look_up(&client, &registry.name(&name)).await.unwrap();
            assert_eq!((platforms(&truth), truth.digest), (vec!["linux/amd64".to_owned()], Some(manifest.digest())));
        }
        assert_eq!(registry.asked()[..2], ["HEAD /v2/a/manifests/v1", "GET /v2/a/manifests/v1"]);
    }
}

#[tokio::test]
async fn what_has_another_digest_is_not_believed() {
    let other = manifests::config("").digest();
    let lying = |request: &Request| match image(request) {
        Reply::Answer(status, _, body) if request.path.contains("/manifests/") => {
            Reply::Answer(status, vec![("Docker-Content-Digest", manifests::config("").digest())], body)
        }
        reply => reply,
    };
    let lying_config = |request: &Request| {
        if request.path.contains("/blobs/") {
            Reply::content(&manifests::config("linux/arm64"))
        } else {
            image(request)
        }
    };
    let lying_late = move |request: &Request| if is_head(request) { Reply::status(405) } else { lying(request) };
    let (manifest, config) = the_image();
    let check = async |registry: StandIn, name: &str, digest: &str| {
        let client = client(options());
        for _ in 0..2 {
            let sentence = silent(look_up(&client, &registry.name(name)).await);
            assert!(sentence.contains(&format!("what it calls {digest}")), "{sentence}");
        }
        // It answers; that one image is bad must not take its others away.
        assert!(registry.asked().len() >= 2, "{:?}", registry.asked());
    };
    check(StandIn::start(lying), "a", &other).await;
    check(StandIn::start(lying_late), "a", &other).await;
    check(StandIn::start(lying_config), "a", &config.digest()).await;
    // Who names a digest gets that, or nothing.
    check(StandIn::start(lying), &format!("a@{}", manifest.digest()), &manifest.digest()).await;
    check(StandIn::with_image(), &format!("a@{other}"), &other).await;
}

#[tokio::test]
async fn refusals_say_what_can_be_done() {
    for status in [400, 401, 403, 404] {
        let challenge = "Basic realm=\"x\"".to_owned();
        let registry = StandIn::start(move |_: &Request| {
            Reply::Answer(status, vec![("WWW-Authenticate", challenge.clone())], b"{}".to_vec())
        });
        let name = registry.name("a:v1");
        let sentence = missing(look_up(&client(options()), &name).await);
        assert!(sentence.starts_with("there is no image ") && sentence.contains(&name), "{sentence}");
        assert!(sentence.contains("without signing in") && sentence.contains("configure a login"), "{sentence}");

        let signed = client(RegistryOptions { logins: login(&registry.registry()), ..options() });
        let sentence = missing(look_up(&signed, &name).await);
        assert!(sentence.contains("with the login that is configured"), "{sentence}");
        assert!(!sentence.contains(PASSWORD), "{sentence}");
    }
}

#[tokio::test]
async fn faults_of_a_registry_are_believed_for_a_moment() {
    for (status, cause) in [(500, "500"), (503, "503"), (429, "no more requests")] {
        let registry = StandIn::start(move |_: &Request| Reply::status(status));
        let believing = client(options());
        for name in ["a", "a", "b"] {
            let sentence = silent(look_up(&believing, &registry.name(name)).await);
            assert!(sentence.contains(&registry.registry()) && sentence.contains(cause), "{sentence}");
        }
        assert_eq!(registry.asked().len(), 1, "the others were told without asking");
        let doubting = client(doubting());
        for _ in 0..2 {
            silent(look_up(&doubting, &registry.name("a")).await);
        }
        assert_eq!(registry.asked().len(), 3);
    }
}

#[tokio::test]
async fn one_silent_registry_does_not_silence_others() {
    let registry = StandIn::with_image();
    let client = client(options());
    let sentence = silent(look_up(&client, NOBODY).await);
    assert!(sentence.contains("does not answer: ") && sentence.contains("refused"), "{sentence}");
    look_up(&client, &registry.name("a")).await.unwrap();
}

#[tokio::test]
async fn what_is_no_manifest_is_no_image() {
    let serve = |kind: &'static str, body: &str| {
        let content = Content { kind, body: body.as_bytes().to_vec() };
        StandIn::start(move |_: &Request| Reply::content(&content))
    };
    let check = async |registry: StandIn, expected: &str| {
        let sentence = no_image(look_up(&client(options()), &registry.name("a")).await);
        assert!(sentence.contains(expected), "{sentence}");
    };
    check(serve(MANIFEST, "<html>"), "cannot be read").await;
    check(serve(MANIFEST, "{}"), "neither").await;
    check(serve(MANIFEST, r#"{"schemaVersion":1}"#), "schema 1").await;
    check(serve(MANIFEST, r#"{"config":{"digest":"../../x"}}"#), "digest of a kind").await;
    let long = format!(r#"{{"manifests":"{}"}}"#, "ä".repeat(1 << 20));
    let sentence = no_image(look_up(&client(options()), &serve(MANIFEST, &long).name("a")).await);
    assert!(sentence.contains("cannot be read") && sentence.len() < 2000, "{}", sentence.len());
    // The digest of a signed manifest is not that of its bytes.
    let signed = StandIn::start(|_: &Request| {
        let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws".to_owned();
        let digest = manifests::config("").digest();
        let headers = vec![("Content-Type", kind), ("Docker-Content-Digest", digest)];
        Reply::Answer(200, headers, json!({ "schemaVersion": 1, "signatures": [] }).to_string().into_bytes())
    });
    check(signed, "schema 1").await;
    let without_config =
        StandIn::start(
            |request: &Request| {
                if request.path.contains("/blobs/") { Reply::status(404) } else { image(request) }
            },
        );
    check(without_config, "not in the registry").await;
}

#[tokio::test]
async fn what_no_registry_could_have_is_asked_of_none() {
    let registry = StandIn::with_image();
    for name in ["a@sha256:12", "a@sha512:00"] {
        missing(look_up(&client(options()), &registry.name(name)).await);
    }
    assert_eq!(registry.asked(), Vec::<String>::new());
}
