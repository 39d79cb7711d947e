//! Where an image is found. What a name could reach besides its own registry's API is no name here.

use crate::digest::Digest;
use domain::containers::{ImageName, RegistryFailure};
use reqwest::Url;
use std::fmt;

/// The registry that images come from which name none, and where it answers.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// An image in its registry.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    registry: String,
    repository: String,
    reference: Reference,
    base: Url,
}

#[derive(Debug, Clone)]
enum Reference {
    Tag(String),
    Digest(Digest),
}

impl Place {
    /// Where this image is. `insecure` are the registries that speak plain HTTP.
    ///
    /// # Errors
    /// [`RegistryFailure::Missing`], if no registry could have it.
    pub(crate) fn of(name: &ImageName, insecure: &[String]) -> Result<Self, RegistryFailure> {
        let wrong = |what: &str| RegistryFailure::Missing(format!("there can be no image {name}: {what}"));
        let registry = name.registry().to_ascii_lowercase();
        let base = base_of(&registry, insecure).ok_or_else(|| wrong("its registry is no host"))?;
        let reference = match name.digest() {
            Some(digest) => Digest::parse(digest)
                .map(Reference::Digest)
                .ok_or_else(|| wrong("a digest is sha256: and 64 hexadecimal digits in lower case"))?,
            None => Reference::Tag(name.reference().to_owned()),
        };
        Ok(Self { registry, repository: name.repository(), reference, base })
    }

    /// The registry, as it is named in images.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// What the image is called in its registry.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, or the digest.
    pub(crate) fn reference(&self) -> &str {
        match &self.reference {
            Reference::Tag(tag) => tag,
            Reference::Digest(digest) => digest.as_str(),
        }
    }

    /// The digest, if that is what the image is named by.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        match &self.reference {
            Reference::Tag(_) => None,
            Reference::Digest(digest) => Some(digest),
        }
    }

    /// The repository with its registry.
    pub(crate) fn whole_repository(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Whether the registry speaks plain HTTP.
    pub(crate) fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }

    /// Whether that is on the registry's host, at whatever port.
    pub(crate) fn is_at_host(&self, url: &Url) -> bool {
        url.host_str() == self.base.host_str()
    }

    /// Whether it is the registry itself that answers there.
    pub(crate) fn is_origin_of(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Where the manifest with this tag or digest is.
    pub(crate) fn manifest(&self, reference: &str) -> Url {
        self.url("manifests", reference)
    }

    /// Where a blob is.
    pub(crate) fn blob(&self, digest: &Digest) -> Url {
        self.url("blobs", digest.as_str())
    }

    fn url(&self, kind: &str, last: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{kind}/{last}", self.repository));
        url
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reference {
            Reference::Tag(tag) => write!(f, "{}/{}:{tag}", self.registry, self.repository),
            Reference::Digest(digest) => write!(f, "{}/{}@{}", self.registry, self.repository, digest.as_str()),
        }
    }
}

fn base_of(registry: &str, insecure: &[String]) -> Option<Url> {
    // Who writes a user before the host would be spoken to as that user.
    let is_authority = registry.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
    if !is_authority {
        return None;
    }
    let host = if registry == HUB.0 { HUB.1 } else { registry };
    let plain = Url::parse(&format!("http://{host}/")).ok()?;
    if is_loopback(&plain) || insecure.iter().any(|known| known.eq_ignore_ascii_case(registry)) {
        return Some(plain);
    }
    Url::parse(&format!("https://{host}/")).ok()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Result<Place, RegistryFailure> {
        Place::of(&ImageName::parse(name).unwrap(), &["old.example:80".to_owned(), "Plain.example:5000".to_owned()])
    }

    fn check(name: &str, expected: &str) {
        let place = place(name).unwrap();
        assert_eq!(place.manifest(place.reference()).as_str(), expected, "{name}");
    }

    #[test]
    fn an_image_is_asked_for_where_it_is() {
        check("busybox", "https://registry-1.docker.io/v2/library/busybox/manifests/latest");
        check("index.docker.io/me/app:1", "https://registry-1.docker.io/v2/me/app/manifests/1");
        check("ghcr.io/a/b/c:v1", "https://ghcr.io/v2/a/b/c/manifests/v1");
        check("r.example:5000/a", "https://r.example:5000/v2/a/manifests/latest");
        let digest = Digest::of(b"x");
        let expected = format!("https://ghcr.io/v2/a/b/manifests/{}", digest.as_str());
        check(&format!("ghcr.io/a/b:v1@{}", digest.as_str()), &expected);
        let blob = place("ghcr.io/a/b").unwrap().blob(&digest);
        assert_eq!(blob.as_str(), format!("https://ghcr.io/v2/a/b/blobs/{}", digest.as_str()));
    }

    #[test]
    fn only_this_machine_and_what_is_named_is_spoken_to_in_plain() {
        check("localhost/x", "http://localhost/v2/x/manifests/latest");
        check("localhost:5000/x", "http://localhost:5000/v2/x/manifests/latest");
        check("127.0.0.1:5000/x", "http://127.0.0.1:5000/v2/x/manifests/latest");
        check("127.9.9.9:5000/x", "http://127.9.9.9:5000/v2/x/manifests/latest");
        check("plain.example:5000/x", "http://plain.example:5000/v2/x/manifests/latest");
        check("plain.example:5001/x", "https://plain.example:5001/v2/x/manifests/latest");
        check("localhost.example:5000/x", "https://localhost.example:5000/v2/x/manifests/latest");
        check("192.168.0.1:5000/x", "https://192.168.0.1:5000/v2/x/manifests/latest");
        let loopback = base_of("[::1]:5000", &[]).unwrap();
        assert_eq!(loopback.as_str(), "http://[::1]:5000/");
    }

    #[test]
    fn what_would_lead_elsewhere_is_asked_of_nobody() {
        for name in ["r.example:99999/x", "a@sha256:12", "a@sha512:12"] {
            let failure = place(name).unwrap_err();
            let RegistryFailure::Missing(sentence) = &failure else { panic!("{name}: {failure:?}") };
            assert!(sentence.starts_with("there can be no image "), "{sentence}");
        }
    }
}
