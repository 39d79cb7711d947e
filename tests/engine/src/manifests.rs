//! Manifests and configurations, as engines make them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index as Docker makes it.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The media type of a manifest as Docker makes it.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Something with a digest.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its media type.
    pub kind: &'static str,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Content {
    /// This, as JSON.
    #[must_use]
    pub fn of(kind: &'static str, value: &Value) -> Self {
        Self { kind, body: value.to_string().into_bytes() }
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.body)
    }

    /// What refers to it.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.kind, "digest": self.digest(), "size": self.body.len() })
    }
}

/// A configuration for a platform such as `linux/arm64/v8`; for none if that is empty.
#[must_use]
pub fn config(platform: &str) -> Content {
    let parts: Vec<&str> = platform.split('/').filter(|part| !part.is_empty()).collect();
    let mut value = json!({ "rootfs": { "type": "layers", "diff_ids": [] } });
    for (name, part) in ["os", "architecture", "variant"].iter().zip(parts) {
        value[*name] = json!(part);
    }
    Content::of("application/vnd.oci.image.config.v1+json", &value)
}

/// The SHA-256 of some bytes, as registries write it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// A manifest of one image without files.
#[must_use]
pub fn manifest(config: &Content) -> Content {
    manifest_with(config, &[])
}

/// A manifest of one image with these layers.
#[must_use]
pub fn manifest_with(config: &Content, layers: &[&Content]) -> Content {
    let layers: Vec<Value> = layers.iter().map(|layer| layer.descriptor()).collect();
    let value = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": layers });
    Content::of(MANIFEST, &value)
}

/// The same as Docker makes it.
#[must_use]
pub fn docker_manifest(config: &Content) -> Content {
    let mut descriptor = config.descriptor();
    descriptor["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
    let value = json!({ "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor, "layers": [] });
    Content::of(DOCKER_MANIFEST, &value)
}

/// An index of these images, in this order.
#[must_use]
pub fn index(kind: &'static str, entries: &[(&str, &Content)]) -> Content {
    let entry = |(platform, content): &(&str, &Content)| {
        let parts: Vec<&str> = platform.split('/').collect();
        let mut entry = content.descriptor();
        entry["platform"] = json!({ "os": parts[0], "architecture": parts[1] });
        if let Some(variant) = parts.get(2) {
            entry["platform"]["variant"] = json!(variant);
        }
        if *platform == "unknown/unknown" {
            entry["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
        }
        entry
    };
    let entries: Vec<Value> = entries.iter().map(entry).collect();
    Content::of(kind, &json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries }))
}
