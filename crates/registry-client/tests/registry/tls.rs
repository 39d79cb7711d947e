//! Who may be believed to be a registry.

use crate::{
    client, login, look_up, options, platforms, silent,
    stand_in::{Reply, Request, StandIn, image},
};
use domain::containers::Logins;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use registry_client::RegistryOptions;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// Not a name of this machine, which would be spoken to in plain.
const HOST: &str = "registry.test";

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certified(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

fn trusting(roots: String) -> RegistryOptions {
    RegistryOptions { roots, hosts: BTreeMap::from([(HOST.to_owned(), Ipv4Addr::LOCALHOST.into())]), ..options() }
}

fn name(registry: &StandIn) -> String {
    format!("{HOST}:{}/a", registry.port())
}

#[tokio::test]
async fn a_registry_is_believed_if_its_authority_is_known() {
    let authority = authority("known");
    let registry = StandIn::start_tls(certified(&authority, HOST), image);
    let truth = look_up(&client(trusting(authority.pem())), &name(&registry)).await.unwrap();
    assert_eq!(platforms(&truth), ["linux/amd64"]);
    assert_eq!(registry.asked().len(), 3);
}

#[tokio::test]
async fn a_registry_that_cannot_prove_itself_is_told_nothing() {
    let (known, unknown) = (authority("known"), authority("unknown"));
    let of_unknown = StandIn::start_tls(certified(&unknown, HOST), image);
    let of_another_name = StandIn::start_tls(certified(&known, "other.test"), image);
    let plain = StandIn::with_image();
    let roots = known.pem();
    for (registry, cause) in [(&of_unknown, "UnknownIssuer"), (&of_another_name, "not valid for name"), (&plain, "")] {
        let sentence = silent(look_up(&client(trusting(roots.clone())), &name(registry)).await);
        assert!(sentence.contains(cause), "{sentence}");
        assert_eq!(sentence.contains("an authority of your own"), !cause.is_empty(), "{sentence}");
        assert!(registry.asked().iter().all(|asked| !asked.contains("/v2/")), "{:?}", registry.asked());
    }
}

#[tokio::test]
async fn encryption_is_not_left_again() {
    let authority = authority("known");
    let plain = StandIn::with_image();
    let to = plain.url("/moved");
    let redirecting = StandIn::start_tls(certified(&authority, HOST), move |request: &Request| {
        if request.path.contains("/blobs/") { Reply::redirect(&to) } else { image(request) }
    });
    let sentence = silent(look_up(&client(trusting(authority.pem())), &name(&redirecting)).await);
    assert!(sentence.contains("redirects from HTTPS to HTTP"), "{sentence}");

    let challenge = format!(r#"Bearer realm="{}""#, plain.url("/token"));
    let challenging = StandIn::start_tls(certified(&authority, HOST), move |_: &Request| Reply::challenge(&challenge));
    let known = login(&format!("{HOST}:{}", challenging.port()));
    for logins in [Logins::new(), known] {
        let client = client(RegistryOptions { logins, ..trusting(authority.pem()) });
        let sentence = silent(look_up(&client, &name(&challenging)).await);
        assert!(sentence.contains("tokens are handed out without encryption"), "{sentence}");
    }
    assert_eq!(plain.asked(), Vec::<String>::new());
}
