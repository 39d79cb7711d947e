//! Messages over HTTP.

use crate::{
    PATIENCE, SetupError,
    addresses::{Place, Reach, allows, place},
    failed,
};
use domain::{
    clock::Timestamp,
    digest::hex,
    observability::alerts::{Fate, Sent, TargetSecret},
};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{
    Client, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect::Policy,
};
use sha2::Sha256;
use std::{net::IpAddr, sync::Arc, time::Duration};

const SIGNATURE: &str = "X-StarLink-Signature";

/// Speaks HTTP to targets.
pub(crate) struct Hooks {
    client: Client,
    reach: Reach,
}

/// Finds addresses, and hands out none that are out of reach: what is found is what is connected to.
struct Within(Reach);

impl Resolve for Within {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let within: Vec<_> = found.filter(|address| allows(reach, address.ip())).collect();
            if within.is_empty() {
                return Err("its name leads to no address that messages may go to".into());
            }
            let addresses: Addrs = Box::new(within.into_iter());
            Ok(addresses)
        })
    }
}

fn tls() -> Result<rustls::ClientConfig, SetupError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl Hooks {
    pub(crate) fn new(reach: Reach) -> Result<Self, SetupError> {
        let client = Client::builder()
            .user_agent(concat!("starlink-server/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(PATIENCE / 2)
            .timeout(PATIENCE)
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::new(Within(reach)))
            .tls_backend_preconfigured(tls()?)
            .build()?;
        Ok(Self { client, reach })
    }

    pub(crate) async fn send(&self, secret: &TargetSecret, body: String, signed_at: Option<Timestamp>) -> Sent {
        let url = secret.url.as_deref().and_then(|url| Url::parse(url).ok());
        let Some(url) = url else { return failed(Fate::Never, None, "its URL cannot be read") };
        if let Err(reason) = self.check(&url) {
            return failed(Fate::Never, None, reason);
        }
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/json");
        if let (Some(at), Some(key)) = (signed_at, &secret.key) {
            request = request.header(SIGNATURE, signature(key, at.timestamp(), &body));
        }
        match request.body(body).send().await {
            Ok(answer) => judged(&answer),
            Err(error) => failed(Fate::Again(None), None, sentence(&error)),
        }
    }

    /// Refuses what is out of reach before anything is asked: a host that is an address is looked up by nobody.
    fn check(&self, url: &Url) -> Result<(), &'static str> {
        if url.scheme() == "http" && self.reach == Reach::Public {
            return Err("http is not encrypted: use https");
        }
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) if !allows(self.reach, address) => Err("messages may not go to its address"),
            Ok(address) if url.scheme() == "http" && place(address) == Place::Public => {
                Err("http is not encrypted: use https")
            }
            _ => Ok(()),
        }
    }
}

/// `t` is when it was signed, so that who gets it can refuse what somebody kept and sends again.
fn signature(key: &str, at: i64, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex(&mac.finalize().into_bytes()))
}

fn judged(answer: &Response) -> Sent {
    let status = answer.status();
    let code = Some(status.as_u16());
    if status.is_success() {
        return Sent { fate: Fate::Delivered, status: code, error: None };
    }
    let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let again = Fate::Again(asked.map(|seconds: u64| Duration::from_secs(seconds.max(1))));
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            failed(again, code, "it asked to try again")
        }
        _ if status.is_server_error() => failed(again, code, "it failed there"),
        _ if status.is_redirection() => failed(Fate::Never, code, "it is elsewhere, and redirects are not followed"),
        _ => failed(Fate::Never, code, "it was refused"),
    }
}

/// What went wrong, without the URL, which libraries put into their errors.
fn sentence(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "it took too long"
    } else if error.is_connect() {
        "no connection could be made to an address that messages may go to"
    } else {
        "the connection broke, or the answer was no HTTP"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_over_the_time_and_the_body() {
        // Made with: printf '1700000000.{}' | openssl dgst -sha256 -hmac key
        let made = signature("key", 1_700_000_000, "{}");
        assert!(made.starts_with("t=1700000000,v1="));
        assert_eq!(made.len(), "t=1700000000,v1=".len() + 64);
        assert_ne!(made, signature("key", 1_700_000_001, "{}"));
        assert_ne!(made, signature("other", 1_700_000_000, "{}"));
    }

    #[tokio::test]
    async fn what_is_out_of_reach_is_not_asked() {
        let check = async |reach, url: &str, error: &str| {
            let hooks = Hooks::new(reach).unwrap();
            let secret = TargetSecret { url: Some(url.to_owned()), ..TargetSecret::default() };
            let sent = hooks.send(&secret, "{}".to_owned(), None).await;
            assert_eq!((sent.fate, sent.status), (Fate::Never, None), "{url}");
            assert_eq!(sent.error.as_deref(), Some(error), "{url}");
        };
        let no_way = "messages may not go to its address";
        for url in ["https://169.254.169.254/", "https://[fe80::1]/", "https://2852039166/", "https://0xa9fea9fe/"] {
            check(Reach::Private, url, no_way).await;
        }
        check(Reach::Public, "https://127.0.0.1/", no_way).await;
        check(Reach::Public, "https://[::ffff:10.0.0.1]/", no_way).await;
        check(Reach::Public, "http://example.com/", "http is not encrypted: use https").await;
        check(Reach::Private, "http://1.1.1.1/", "http is not encrypted: use https").await;
    }
}
