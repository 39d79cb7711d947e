use super::*;
use crate::fleet::Architecture;
use serde_json::{Value, json};

fn index(entries: &[Value]) -> Vec<Platform> {
    let document = json!({ "schemaVersion": 2, "manifests": entries });
    match Manifest::read(document.to_string().as_bytes()).unwrap() {
        Manifest::Index(platforms) => platforms.into_keys().collect(),
        image @ Manifest::Image { .. } => panic!("{image:?}"),
    }
}

fn entry(text: &str) -> Value {
    let parts: Vec<&str> = text.split('/').collect();
    let mut platform = json!({ "os": parts[0], "architecture": parts[1] });
    if let Some(variant) = parts.get(2) {
        platform["variant"] = json!(variant);
    }
    json!({ "digest": "sha256:1", "size": 1, "platform": platform })
}

fn shown(platforms: &[Platform]) -> Vec<String> {
    platforms.iter().map(ToString::to_string).collect()
}

fn architectures(entries: &[&str]) -> Vec<Architecture> {
    let entries: Vec<Value> = entries.iter().map(|text| entry(text)).collect();
    let mut found: Vec<Architecture> = index(&entries).iter().filter_map(Platform::architecture).collect();
    found.sort_unstable();
    found
}

#[test]
fn fc_03_attestations_are_no_platforms() {
    let attestation = |mut entry: Value| {
        entry["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
        entry
    };
    let unknown = entry("unknown/unknown");
    let entries = [
        entry("linux/arm64"),
        attestation(unknown.clone()),
        entry("linux/amd64"),
        unknown,
        // One that names what it attests to is none either.
        attestation(entry("linux/riscv64")),
        json!({ "digest": "sha256:2", "platform": null }),
        json!({ "digest": "sha256:2" }),
    ];
    assert_eq!(shown(&index(&entries)), ["linux/amd64", "linux/arm64"]);
}

#[test]
fn each_platform_has_the_digest_of_what_engines_would_pull() {
    let of = |text: &str, digest: &str| {
        let mut entry = entry(text);
        entry["digest"] = json!(digest);
        entry
    };
    let entries = [
        of("linux/arm64", "sha256:2"),
        of("linux/arm64", "sha256:3"),
        of("linux/s390x", "sha256:4"),
        of("linux/amd64", "five"),
    ];
    let document = json!({ "schemaVersion": 2, "manifests": entries });
    let Manifest::Index(manifests) = Manifest::read(document.to_string().as_bytes()).unwrap() else { panic!() };
    let truth = crate::containers::ImageTruth::indexed("sha256:1", manifests);
    assert_eq!(shown(&truth.platforms), ["linux/arm64", "linux/s390x"], "nothing can be pulled by what is no digest");
    assert_eq!(truth.manifest(Architecture::Arm64), Some("sha256:2"));
    assert_eq!((truth.manifest(Architecture::X86_64), truth.manifests.len()), (None, 1));
}

#[test]
fn fc_05_variants_are_told_apart_whatever_the_order() {
    use Architecture::{Arm64, X86_64};
    let without = ["linux/amd64", "linux/arm", "linux/arm64", "linux/ppc64le", "linux/s390x"];
    assert_eq!(architectures(&without), [X86_64, Arm64]);
    assert_eq!(architectures(&["linux/arm/v7", "linux/arm64/v8"]), [Arm64]);
    assert_eq!(architectures(&["linux/arm64/v8", "linux/arm/v7"]), [Arm64]);
    assert_eq!(architectures(&["linux/arm/v5", "linux/arm/v7"]), []);
    assert_eq!(shown(&index(&["linux/arm/v7", "linux/arm/v5"].map(entry))), ["linux/arm/v5", "linux/arm/v7"]);
}

#[test]
fn a_platform_that_is_there_twice_is_told_once() {
    assert_eq!(shown(&index(&["linux/amd64", "linux/amd64"].map(entry))), ["linux/amd64"]);
}

#[test]
fn a_single_image_is_known_by_its_configuration() {
    let document = json!({ "schemaVersion": 2, "config": { "digest": "sha256:c", "size": 2 }, "layers": [] });
    let expected = Manifest::Image { config: "sha256:c".to_owned() };
    assert_eq!(Manifest::read(document.to_string().as_bytes()), Ok(expected));
    let check = |config: Value, expected: Option<&str>| {
        let platform = platform_of_config(config.to_string().as_bytes()).unwrap();
        assert_eq!(platform.map(|platform| platform.to_string()).as_deref(), expected, "{config}");
    };
    check(json!({ "os": "linux", "architecture": "arm64", "variant": "v8" }), Some("linux/arm64/v8"));
    check(json!({ "architecture": "amd64" }), Some("linux/amd64"));
    check(json!({ "os": "linux" }), None);
    check(json!({ "os": "linux", "architecture": "", "variant": null }), None);
    check(json!({}), None);
}

#[test]
fn what_is_no_manifest_is_told() {
    let check = |text: &str, expected: &str| {
        let reason = Manifest::read(text.as_bytes()).unwrap_err();
        assert!(reason.contains(expected), "{reason}");
    };
    check("<html>", "cannot be read");
    check("{}", "neither");
    check(r#"{"schemaVersion":1,"architecture":"amd64"}"#, "schema 1");
    check(r#"{"manifests":7}"#, "cannot be read");
    check(&" ".repeat(MAX_MANIFEST + 1), "longer");
    assert!(platform_of_config(b"[").unwrap_err().contains("configuration cannot be read"));
}
