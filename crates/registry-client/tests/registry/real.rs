//! Against Debian's registry.

use crate::{client, doubting, look_up, missing, no_image, options, platforms};
use serde_json::json;
use std::time::Duration;
use test_engine::{
    manifests::{self, Content, DOCKER_LIST, INDEX},
    registry::Registry,
};

/// Pushes an image for one platform, and returns its manifest.
async fn push(registry: &Registry, repository: &str, reference: Option<&str>, platform: &str) -> Content {
    let config = manifests::config(platform);
    push_image(registry, repository, reference, &config, manifests::manifest(&config)).await
}

async fn push_image(
    registry: &Registry,
    repository: &str,
    reference: Option<&str>,
    config: &Content,
    manifest: Content,
) -> Content {
    registry.push_blob(repository, config).await;
    let digest = manifest.digest();
    registry.push_manifest(repository, reference.unwrap_or(&digest), &manifest).await;
    manifest
}

/// Pushes an index of images for these platforms.
async fn push_index(registry: &Registry, name: (&str, &str), kind: &'static str, of: &[&str]) -> Content {
    let mut entries = Vec::new();
    for (number, platform) in of.iter().enumerate() {
        // Attestations differ, though what they run on does not.
        let config =
            Content::of("application/vnd.oci.image.config.v1+json", &json!({ "number": number, "for": platform }));
        let manifest =
            if kind == DOCKER_LIST { manifests::docker_manifest(&config) } else { manifests::manifest(&config) };
        entries.push((*platform, push_image(registry, name.0, None, &config, manifest).await));
    }
    let entries: Vec<(&str, &Content)> = entries.iter().map(|(platform, content)| (*platform, content)).collect();
    let index = manifests::index(kind, &entries);
    registry.push_manifest(name.0, name.1, &index).await;
    index
}

#[tokio::test]
async fn fc_03_an_index_has_the_platforms_that_can_be_run() {
    let Some(registry) = Registry::start().await else { return };
    let of = ["linux/arm64", "unknown/unknown", "linux/amd64", "unknown/unknown"];
    let index = push_index(&registry, ("library/busybox", "1.36"), INDEX, &of).await;
    let truth = look_up(&client(options()), &registry.name("library/busybox:1.36")).await.unwrap();
    assert_eq!(platforms(&truth), ["linux/amd64", "linux/arm64"]);
    assert_eq!(truth.digest, Some(index.digest()), "it is the index that the tag points to");
}

#[tokio::test]
async fn variants_are_told_in_both_formats() {
    let Some(registry) = Registry::start().await else { return };
    let of = ["linux/arm64/v8", "linux/arm/v7"];
    let client = client(options());
    for (tag, kind) in [("oci", INDEX), ("docker", DOCKER_LIST)] {
        let index = push_index(&registry, ("arm", tag), kind, &of).await;
        let truth = look_up(&client, &registry.name(&format!("arm:{tag}"))).await.unwrap();
        assert_eq!(
            (platforms(&truth), truth.digest),
            (vec!["linux/arm/v7".to_owned(), "linux/arm64/v8".to_owned()], Some(index.digest()))
        );
    }
}

#[tokio::test]
async fn a_single_image_has_the_platform_of_its_configuration() {
    let Some(registry) = Registry::start().await else { return };
    let client = client(options());
    let manifest = push(&registry, "a/b/c", Some("latest"), "linux/arm64/v8").await;
    let truth = look_up(&client, &registry.name("a/b/c")).await.unwrap();
    assert_eq!((platforms(&truth), truth.digest), (vec!["linux/arm64/v8".to_owned()], Some(manifest.digest())));

    let config = manifests::config("linux/amd64");
    let manifest = push_image(&registry, "a/b/c", Some("docker"), &config, manifests::docker_manifest(&config)).await;
    let truth = look_up(&client, &registry.name("a/b/c:docker")).await.unwrap();
    assert_eq!((platforms(&truth), truth.digest), (vec!["linux/amd64".to_owned()], Some(manifest.digest())));

    push(&registry, "a/b/c", Some("silent"), "").await;
    let truth = look_up(&client, &registry.name("a/b/c:silent")).await.unwrap();
    assert_eq!(platforms(&truth), Vec::<String>::new(), "what it does not say is not guessed");
}

#[tokio::test]
async fn a_tag_that_moved_is_seen_once_it_is_not_believed_any_more() {
    let Some(registry) = Registry::start().await else { return };
    let name = registry.name("app:v1");
    let believing = client(options());
    let doubting = client(doubting());
    let first = push(&registry, "app", Some("v1"), "linux/amd64").await;
    for client in [&believing, &doubting] {
        assert_eq!(look_up(client, &name).await.unwrap().digest, Some(first.digest()));
    }
    let second = push(&registry, "app", Some("v1"), "linux/arm64").await;
    assert_eq!(look_up(&believing, &name).await.unwrap().digest, Some(first.digest()));
    let truth = look_up(&doubting, &name).await.unwrap();
    assert_eq!((truth.digest.clone(), platforms(&truth)), (Some(second.digest()), vec!["linux/arm64".to_owned()]));
    // What it pointed to before is there still, and can be named.
    let truth = look_up(&doubting, &format!("{name}@{}", first.digest())).await.unwrap();
    assert_eq!((truth.digest.clone(), platforms(&truth)), (Some(first.digest()), vec!["linux/amd64".to_owned()]));
}

#[tokio::test]
async fn a_belief_ends() {
    let Some(registry) = Registry::start().await else { return };
    let name = registry.name("app");
    let client = client(registry_client::RegistryOptions { tag_belief: Duration::from_millis(50), ..options() });
    push(&registry, "app", Some("latest"), "linux/amd64").await;
    look_up(&client, &name).await.unwrap();
    let second = push(&registry, "app", Some("latest"), "linux/arm64").await;
    let seen = async { while look_up(&client, &name).await.unwrap().digest != Some(second.digest()) {} };
    crate::within("the new digest is seen", seen).await;
}

#[tokio::test]
async fn what_is_not_there_is_missing() {
    let Some(registry) = Registry::start().await else { return };
    let client = client(options());
    push(&registry, "app", Some("v1"), "linux/amd64").await;
    let absent = format!("app@{}", manifests::config("").digest());
    for name in ["nothing", "app:v2", &absent, "UPPER/case"] {
        let sentence = missing(look_up(&client, &registry.name(name)).await);
        assert!(sentence.contains("push the image") && sentence.contains(&registry.name("")), "{sentence}");
    }
    // Nothing of that is believed: it may be pushed at any moment.
    push(&registry, "app", Some("v2"), "linux/amd64").await;
    look_up(&client, &registry.name("app:v2")).await.unwrap();
}

#[tokio::test]
async fn what_is_no_configuration_makes_no_image() {
    let Some(registry) = Registry::start().await else { return };
    let config = Content { kind: "application/vnd.oci.image.config.v1+json", body: b"not JSON".to_vec() };
    push_image(&registry, "artifact", Some("latest"), &config, manifests::manifest(&config)).await;
    let sentence = no_image(look_up(&client(options()), &registry.name("artifact")).await);
    assert!(sentence.contains("configuration cannot be read"), "{sentence}");
}
