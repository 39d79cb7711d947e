use serde::{Deserialize, Serialize};

/// The longest name of an image.
const LONGEST: usize = 512;
/// The longest tag (OCI distribution specification).
const LONGEST_TAG: usize = 128;
/// The registry of names that name none.
pub(super) const HUB: &str = "docker.io";

/// The name of an image, as people write it: `busybox`, `ghcr.io/acme/app:v1`, `app@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    /// Reads a name. What could lead elsewhere in the path of an API is no name.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (place, digest) = text.split_once('@').map_or((text, None), |(place, digest)| (place, Some(digest)));
        let parts: Vec<&str> = place.split('/').collect();
        let most = parts.len() - 1;
        let are_words = parts.iter().enumerate().all(|(index, part)| match part.split_once(':') {
            None => is_word(part, ""),
            Some((word, tag)) if index == most => is_word(word, "") && is_word(tag, "_") && tag.len() <= LONGEST_TAG,
            Some((host, port)) => index == 0 && is_word(host, "") && !port.is_empty() && is_number(port),
        });
        let is_name = text.len() <= LONGEST && are_words && digest.is_none_or(is_digest);
        let named = Self(text.to_owned());
        is_name
            .then_some(named)
            .ok_or_else(|| "is no name of an image; one is written like ghcr.io/acme/app:v1 or app@sha256:…".to_owned())
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The registry that it comes from: a host, with its port if it has one. `docker.io` where none is named.
    #[must_use]
    pub fn registry(&self) -> &str {
        match self.host() {
            Some("index.docker.io" | "registry-1.docker.io") | None => HUB,
            Some(host) => host,
        }
    }

    /// What it is called in its registry; what is Docker's own is under `library/` there.
    #[must_use]
    pub fn repository(&self) -> String {
        let path = self.host().map_or(&*self.0, |host| self.0.get(host.len() + 1..).unwrap_or_default());
        let path = path.split_once('@').map_or(path, |(before, _)| before);
        let path = match path.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => before,
            _ => path,
        };
        if self.registry() == HUB && !path.contains('/') && !path.is_empty() {
            format!("library/{path}")
        } else {
            path.to_owned()
        }
    }

    /// Which of the repository's images: a digest, or else a tag; `latest` if neither was written.
    #[must_use]
    pub fn reference(&self) -> &str {
        if let Some(digest) = self.digest() {
            return digest;
        }
        match self.0.rsplit_once(':') {
            Some((_, tag)) if !tag.contains('/') => tag,
            _ => "latest",
        }
    }

    /// The digest, if it was written.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, digest)| digest)
    }

    /// As written, with a tag or digest in any case: without one, an engine would pull all that there are.
    #[must_use]
    pub fn whole(&self) -> String {
        let last = self.0.rsplit('/').next().unwrap_or(&self.0);
        if last.contains([':', '@']) { self.0.clone() } else { format!("{}:latest", self.0) }
    }

    /// The same image, whatever its tag comes to mean later.
    #[must_use]
    pub fn pinned(&self, digest: &str) -> String {
        let before = self.0.split_once('@').map_or(&*self.0, |(before, _)| before);
        let path = match before.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => path,
            _ => before,
        };
        format!("{path}@{digest}")
    }

    fn host(&self) -> Option<&str> {
        let (first, _) = self.0.split_once('/')?;
        (first.contains(['.', ':']) || first == "localhost").then_some(first)
    }
}

impl std::fmt::Display for ImageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ImageName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

/// Whether a text has the letters of a name, and begins with none that leads elsewhere; `also` may stand first, too.
fn is_word(text: &str, also: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric() || also.contains(first))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

pub(super) fn is_digest(text: &str) -> bool {
    let is_hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
    text.split_once(':').is_some_and(|(kind, value)| {
        let is_kind = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        is_kind && !value.is_empty() && value.bytes().all(is_hex)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, registry: &str, repository: &str, reference: &str, whole: &str, pinned: &str) {
        let name = ImageName::parse(text).unwrap();
        let parts = (name.registry(), name.repository(), name.reference(), name.whole(), name.pinned("sha256:9"));
        let expected = (registry, repository.to_owned(), reference, whole.to_owned(), pinned.to_owned());
        assert_eq!(parts, expected, "{text}");
    }

    #[test]
    fn names_are_taken_apart() {
        check("busybox", "docker.io", "library/busybox", "latest", "busybox:latest", "busybox@sha256:9");
        check("me/app:1.36", "docker.io", "me/app", "1.36", "me/app:1.36", "me/app@sha256:9");
        check(
            "index.docker.io/library/busybox",
            "docker.io",
            "library/busybox",
            "latest",
            "index.docker.io/library/busybox:latest",
            "index.docker.io/library/busybox@sha256:9",
        );
        check("localhost/x", "localhost", "x", "latest", "localhost/x:latest", "localhost/x@sha256:9");
        check(
            "localhost:5000/x",
            "localhost:5000",
            "x",
            "latest",
            "localhost:5000/x:latest",
            "localhost:5000/x@sha256:9",
        );
        check("ghcr.io/a/b:v1", "ghcr.io", "a/b", "v1", "ghcr.io/a/b:v1", "ghcr.io/a/b@sha256:9");
        let digest = "r.example.com:5000/a/b:v1@sha256:0123";
        check(digest, "r.example.com:5000", "a/b", "sha256:0123", digest, "r.example.com:5000/a/b@sha256:9");
    }

    #[test]
    fn one_image_has_one_key() {
        let key = |text: &str| {
            let name = ImageName::parse(text).unwrap();
            [name.registry().to_owned(), name.repository(), name.reference().to_owned()]
        };
        assert_eq!(key("busybox"), key("docker.io/library/busybox:latest"));
        assert_ne!(key("busybox"), key("localhost/library/busybox"));
    }

    #[test]
    fn what_would_lead_elsewhere_is_no_name() {
        let long = "a".repeat(600);
        for name in [
            "",
            "../containers",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "a?b",
            "a#b",
            "a b",
            " a",
            "a%2fb",
            "ä",
            "a:",
            "a@",
            "@sha256:1",
            "a@sha256",
            "a@sha256:G",
            "-a",
            "a:b:c",
            "a/b:1/c",
            "a:x/b",
            "a/.b",
            "a:..",
            "ghcr.io/..:x/a",
            "me@evil.example/x",
            "ghcr.io/a@b@c",
            &format!("a:{}", "t".repeat(129)),
            &long,
        ] {
            assert!(ImageName::parse(name).is_err(), "{name}");
        }
    }
}
