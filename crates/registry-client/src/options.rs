use domain::containers::Logins;
use rustls::pki_types::pem;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Who asks, where a registry wants to know. Others are asked by nobody in particular.
    pub logins: Logins,
    /// Registries that are spoken to over plain HTTP, as they are named in images. Those of this machine itself are in
    /// any case.
    pub insecure: Vec<String>,
    /// Certificates of authorities that are trusted besides the machine's own, in PEM format.
    pub roots: String,
    /// Addresses of hosts that are not looked up in DNS.
    pub hosts: BTreeMap<String, IpAddr>,
    /// How long a look-up may take as a whole.
    pub patience: Duration,
    /// How long connecting may take.
    pub connect: Duration,
    /// How long a tag is taken to mean what it meant.
    pub tag_belief: Duration,
    /// How long a registry that did not answer is taken not to.
    pub silence_belief: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            logins: Logins::new(),
            insecure: Vec::new(),
            roots: String::new(),
            hosts: BTreeMap::new(),
            patience: Duration::from_secs(10),
            connect: Duration::from_secs(3),
            tag_belief: Duration::from_secs(10),
            silence_belief: Duration::from_secs(5),
        }
    }
}

/// Why registries cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The authorities of registries are not PEM.
    #[error("the certificates of registries' authorities cannot be read")]
    Roots(#[from] pem::Error),
    /// There is none among them.
    #[error("what was given as certificates of registries' authorities contains none in PEM format")]
    NoRoots,
    /// TLS cannot be used.
    #[error("TLS cannot be used")]
    Tls(#[from] rustls::Error),
    /// The HTTP client does not start.
    #[error("HTTP cannot be spoken")]
    Http(#[from] reqwest::Error),
}
