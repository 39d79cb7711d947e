//! Whom the agent takes for its server.

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why no server can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of `--ca` is missing or not PEM.
    #[error("cannot read certificates from {} (--ca)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file of `--ca` has none.
    #[error("{} (--ca) contains no certificate in PEM format", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The machine has none.
    #[error(
        "this machine has no certificates of authorities: install the package ca-certificates, or give the certificate \
         of the server's authority with --ca FILE"
    )]
    NoRoots,
    /// Something else is wrong with them.
    #[error("TLS cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// How to speak TLS. With a file of authorities, only those are trusted; without, those of the machine.
///
/// # Errors
/// [`TlsError`]
pub(super) fn client_config(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates(path)? {
            roots.add(certificate)?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
    }
    Ok(with_roots(roots)?)
}

/// For a server that is not asked to prove who it is.
///
/// # Errors
/// [`TlsError`]
pub(crate) fn trusting_nobody() -> Result<ClientConfig, TlsError> {
    Ok(with_roots(RootCertStore::empty())?)
}

fn with_roots(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // WebSockets begin as HTTP/1.1, and a long poll has no use for more.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::Unreadable { path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<Vec<_>, _>>().map_err(error)?;
    if found.is_empty() { Err(TlsError::Absent { path: path.to_owned() }) } else { Ok(found) }
}
