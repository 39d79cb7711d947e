//! Requests, and answers of a bounded length.

use crate::{
    fault::Fault,
    options::{RegistryOptions, SetupError},
    tls,
};
use reqwest::{
    Client, Method, Response, Url,
    header::{AUTHORIZATION, HeaderValue},
    redirect::{Attempt, Policy},
};
use std::{net::SocketAddr, time::Duration};

/// How many redirects are followed; from a registry to where its blobs lie it is one.
const REDIRECTS: usize = 3;
/// Idle connections that are kept to a host, and for how long.
const IDLE: (usize, Duration) = (4, Duration::from_secs(30));

/// Why a redirect is not followed.
#[derive(Debug, thiserror::Error)]
enum Astray {
    #[error("it redirects from one place to the next, more than {REDIRECTS} times")]
    Long,
    #[error("it redirects from HTTPS to {0}")]
    Unprotected(String),
}

/// Speaks HTTP.
pub(crate) struct Wire {
    http: Client,
}

impl Wire {
    /// # Errors
    /// [`SetupError`]
    pub(crate) fn new(options: &RegistryOptions) -> Result<Self, SetupError> {
        let mut builder = Client::builder()
            .user_agent(concat!("starlink-server/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::custom(follow))
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(options.connect)
            .pool_max_idle_per_host(IDLE.0)
            .pool_idle_timeout(IDLE.1)
            .tls_backend_preconfigured(tls::client_config(&options.roots)?);
        for (host, address) in &options.hosts {
            builder = builder.resolve(host, SocketAddr::new(*address, 0));
        }
        Ok(Self { http: builder.build()? })
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`Fault::Away`], if there is no answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: Url,
        accept: Option<&'static str>,
        key: Option<HeaderValue>,
    ) -> Result<Response, Fault> {
        let mut request = self.http.request(method, url);
        if let Some(accept) = accept {
            request = request.header(reqwest::header::ACCEPT, accept);
        }
        if let Some(key) = key {
            // Who is redirected to another host does not take it along; reqwest sees to that.
            request = request.header(AUTHORIZATION, key);
        }
        request.send().await.map_err(Fault::unreachable)
    }
}

/// The body of an answer.
///
/// # Errors
/// [`Fault::Odd`] if it is longer than that; [`Fault::Away`] if it does not come to its end.
pub(crate) async fn body(mut response: Response, longest: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Fault::unreachable)? {
        if body.len() + chunk.len() > longest {
            return Err(Fault::Odd(format!("its answer is longer than {longest} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let began_encrypted = attempt.previous().first().is_some_and(|first| first.scheme() == "https");
    if attempt.previous().len() > REDIRECTS {
        return attempt.error(Astray::Long);
    }
    if began_encrypted && attempt.url().scheme() != "https" {
        let scheme = attempt.url().scheme().to_ascii_uppercase();
        return attempt.error(Astray::Unprotected(scheme));
    }
    attempt.follow()
}
