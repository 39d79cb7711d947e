//! Whom the agent takes for its server.

use domain::{error::with_causes, identity::Secret};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use starlink_agent::client::{CallError, PlainHttp, ServerAddress, Wire};
use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio_tungstenite::tungstenite;

struct Authority {
    directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A server with a certificate of this authority that answers one call, or one stream. Returns its port.
    fn serve(&self, name: &str, is_stream: bool) -> u16 {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
            if is_stream {
                let mut socket = tungstenite::accept(stream).unwrap();
                socket.send(tungstenite::Message::text("encrypted")).unwrap();
                let _ = socket.read();
                return;
            }
            let mut buffer = [0; 4096];
            // It fails if the other side does not trust this one.
            if stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                stream.write_all(head.as_bytes()).unwrap();
            }
        });
        port
    }
}

async fn poll(port: u16, ca: &std::path::Path) -> Result<(), CallError> {
    client(port, ca).poll("s", Duration::from_secs(1)).await.map(|_| ())
}

fn client(port: u16, ca: &std::path::Path) -> starlink_agent::client::Client {
    let address = ServerAddress::parse(&format!("https://localhost:{port}"), PlainHttp::Loopback).unwrap();
    Wire::new(address, Some(ca)).unwrap().with_token(Secret::from("sla_x".to_owned()))
}

#[tokio::test]
async fn a_server_is_trusted_by_the_authority_that_was_given_and_no_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    poll(ours.serve("localhost", false), &ours.file()).await.unwrap();
    for port in [theirs.serve("localhost", false), ours.serve("another.example", false)] {
        let error = poll(port, &ours.file()).await.unwrap_err();
        let text = with_causes(&error);
        assert!(matches!(error, CallError::Untrusted { .. }) && text.contains("--ca FILE"), "{text}");
    }
}

#[tokio::test]
async fn a_stream_trusts_whom_calls_trust() {
    use futures_util::StreamExt;
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut socket = client(ours.serve("localhost", true), &ours.file()).stream("an-id").await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "encrypted");
    let error = client(theirs.serve("localhost", false), &ours.file()).stream("an-id").await.unwrap_err();
    assert!(matches!(error, CallError::Untrusted { .. }), "{}", with_causes(&error));
}
