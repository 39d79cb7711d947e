//! Whom registries are proved by: the machine's authorities, and those that were given.

use crate::options::SetupError;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::sync::Arc;

/// How to speak TLS.
///
/// # Errors
/// [`SetupError`]
pub(crate) fn client_config(more: &str) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if !more.trim().is_empty() {
        let found = CertificateDer::pem_slice_iter(more.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        if found.is_empty() {
            return Err(SetupError::NoRoots);
        }
        for certificate in found {
            roots.add(certificate)?;
        }
    }
    if roots.is_empty() {
        // Registries on this machine can be asked all the same.
        tracing::warn!(
            "this machine has no certificates of authorities, so that no registry can be trusted: install the package \
             ca-certificates"
        );
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_told() {
        assert!(client_config("").is_ok());
        assert!(matches!(client_config("nothing of the kind"), Err(SetupError::NoRoots)));
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(matches!(client_config(broken), Err(SetupError::Roots(_))));
    }
}
