//! TLS from PEM files. One provider of cryptography for the whole process, named explicitly.

use rustls::{
    InconsistentKeys, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why HTTPS cannot be served. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or not PEM.
    #[error("cannot read {what} from {}", path.display())]
    Unreadable {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file has no such section.
    #[error("{} contains no {what} in PEM format", path.display())]
    Absent {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The two do not belong together.
    #[error(
        "the private key in {} does not belong to the first certificate in {}: the server's own certificate comes \
         first, its chain after it", key.display(), cert.display()
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Something else is wrong with them.
    #[error("the certificate in {} and the key in {} cannot be used", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Makes ring the provider for everything in the process that asks for none; without effect if there is one already.
pub fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may have been faster, with the same provider.
        ring::default_provider().install_default().ok();
    }
}

/// How to serve HTTPS, as HTTP/2 or HTTP/1.1, with this certificate chain and key.
///
/// # Errors
/// [`TlsError`]
pub fn server_config(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let chain = certificates(cert)?;
    let private = private_key(key)?;
    let unusable = |source| match source {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { cert: cert.to_owned(), key: key.to_owned() }
        }
        source => TlsError::Unusable { cert: cert.to_owned(), key: key.to_owned(), source },
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "certificate";
    let error = |source| TlsError::Unreadable { what, path: path.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<Vec<_>, _>>().map_err(error)?;
    if chain.is_empty() {
        return Err(TlsError::Absent { what, path: path.to_owned() });
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "private key";
    PrivateKeyDer::from_pem_file(path).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::Absent { what, path: path.to_owned() },
        source => TlsError::Unreadable { what, path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory with `NAME.crt` and `NAME.key` for each name.
    fn files(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            fs::write(directory.path().join(format!("{name}.crt")), made.cert.pem()).unwrap();
            fs::write(directory.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        }
        directory
    }

    fn check_refused(directory: &tempfile::TempDir, cert: &str, key: &str, wanted: &[&str]) {
        let error = server_config(&directory.path().join(cert), &directory.path().join(key)).unwrap_err();
        let error = domain::error::with_causes(&error);
        assert!(wanted.iter().all(|part| error.contains(part)), "{error}");
    }

    #[test]
    fn a_certificate_and_its_key_serve_both_versions_of_http() {
        let directory = files(&["a"]);
        let config = server_config(&directory.path().join("a.crt"), &directory.path().join("a.key")).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said_by_name() {
        let directory = files(&["a", "b"]);
        let broken = fs::read_to_string(directory.path().join("a.crt")).unwrap().replace("-----END CERT", "");
        fs::write(directory.path().join("broken.crt"), broken).unwrap();
        check_refused(&directory, "absent.crt", "a.key", &["cannot read certificate", "absent.crt", "No such file"]);
        check_refused(&directory, "a.crt", "absent.key", &["cannot read private key", "absent.key", "No such file"]);
        check_refused(&directory, "a.key", "a.key", &["a.key contains no certificate"]);
        check_refused(&directory, "a.crt", "a.crt", &["a.crt contains no private key"]);
        check_refused(&directory, "a.crt", "b.key", &["b.key does not belong", "a.crt"]);
        check_refused(&directory, "broken.crt", "a.key", &["cannot read certificate", "broken.crt"]);
    }

    #[test]
    fn the_provider_can_be_installed_twice() {
        install_provider();
        install_provider();
        assert!(CryptoProvider::get_default().is_some());
    }
}
