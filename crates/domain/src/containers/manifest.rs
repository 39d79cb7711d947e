//! What registries say of an image: an index of several platforms, or one manifest, whose configuration names its
//! platform. Formats: OCI image specification 1.1, and Docker's manifest list and manifest, version 2 schema 2.

use super::{name::is_digest, platform::Platform};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The longest manifest that is read, in bytes; registries take none that is longer (OCI distribution specification).
pub const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// The most platforms of one image that are kept.
const MAX_PLATFORMS: usize = 256;
const ATTESTATION: &str = "vnd.docker.reference.type";

/// What a manifest says about platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// An index: these are its platforms, each with the digest of what was built for it. Attestations and other things
    /// that nothing can be run from are left out.
    Index(BTreeMap<Platform, String>),
    /// One image, whose configuration has this digest.
    Image {
        /// The digest of the configuration.
        config: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u32>,
    manifests: Option<Vec<Entry>>,
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    platform: Option<Words>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

/// Every part may be missing, or empty.
#[derive(Deserialize)]
struct Words {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

impl Words {
    fn platform(&self) -> Option<Platform> {
        let word = |part: &Option<String>| part.as_deref().unwrap_or_default().trim().to_owned();
        // Who leaves the system out means Linux; so did Docker's first manifests.
        let os = Some(word(&self.os)).filter(|os| !os.is_empty()).unwrap_or_else(|| "linux".to_owned());
        Platform::new(&os, &word(&self.architecture), &word(&self.variant))
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// A sentence, if it is none, or of a kind from before 2016 that no engine makes any more.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let document: Document = parse(bytes, "manifest")?;
        if document.schema_version == Some(1) {
            return Err(
                "its manifest is of schema 1, which says too little; push it again with a newer engine".to_owned()
            );
        }
        match (document.manifests, document.config) {
            (Some(entries), _) => Ok(Self::Index(platforms_of(&entries))),
            (None, Some(config)) => Ok(Self::Image { config: config.digest }),
            (None, None) => Err("its manifest has neither platforms nor a configuration".to_owned()),
        }
    }
}

/// The platform that an image's configuration names. `None` if it names none.
///
/// # Errors
/// A sentence, if it is no configuration.
pub fn platform_of_config(bytes: &[u8]) -> Result<Option<Platform>, String> {
    parse::<Words>(bytes, "configuration").map(|words| words.platform())
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, String> {
    if bytes.len() > MAX_MANIFEST {
        return Err(format!("its {what} is longer than {MAX_MANIFEST} bytes"));
    }
    serde_json::from_slice(bytes).map_err(|error| format!("its {what} cannot be read: {error}"))
}

fn platforms_of(entries: &[Entry]) -> BTreeMap<Platform, String> {
    let runs = |entry: &&Entry| entry.annotations.as_ref().is_none_or(|notes| !notes.contains_key(ATTESTATION));
    let mut platforms = BTreeMap::new();
    for entry in entries.iter().filter(runs) {
        let platform = entry.platform.as_ref().and_then(Words::platform);
        let digest = entry.digest.clone().filter(|digest| is_digest(digest));
        if let Some((platform, digest)) = platform.zip(digest) {
            // Of several for the same platform, engines take the first.
            platforms.entry(platform).or_insert(digest);
        }
    }
    platforms.into_iter().take(MAX_PLATFORMS).collect()
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
