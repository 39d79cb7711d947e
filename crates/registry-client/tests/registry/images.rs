//! Manifests and configurations, as engines make them.

use domain::digest::sha256_hex;
use serde_json::{Value, json};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Something with a digest.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) kind: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Content {
    pub(crate) fn of(kind: &'static str, value: &Value) -> Self {
        Self { kind, body: value.to_string().into_bytes() }
    }

    pub(crate) fn digest(&self) -> String {
        format!("sha256:{}", sha256_hex(&self.body))
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({ "mediaType": self.kind, "digest": self.digest(), "size": self.body.len() })
    }
}

/// A configuration for a platform such as `linux/arm64/v8`; for none if that is empty.
pub(crate) fn config(platform: &str) -> Content {
    let parts: Vec<&str> = platform.split('/').filter(|part| !part.is_empty()).collect();
    let mut value = json!({ "rootfs": { "type": "layers", "diff_ids": [] } });
    for (name, part) in ["os", "architecture", "variant"].iter().zip(parts) {
        value[*name] = json!(part);
    }
    Content::of("application/vnd.oci.image.config.v1+json", &value)
}

/// A manifest of one image.
pub(crate) fn manifest(config: &Content) -> Content {
    let value = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": [] });
    Content::of(MANIFEST, &value)
}

/// The same as Docker makes it.
pub(crate) fn docker_manifest(config: &Content) -> Content {
    let mut descriptor = config.descriptor();
    descriptor["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
    let value = json!({ "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor, "layers": [] });
    Content::of(DOCKER_MANIFEST, &value)
}

/// An index of these images, in this order.
pub(crate) fn index(kind: &'static str, entries: &[(&str, &Content)]) -> Content {
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
