//! A client that keeps what a test wants to look at.

use reqwest::{Method, header::HeaderMap};
use serde_json::Value;
use std::path::Path;

/// Speaks to one server as one caller.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// An answer with its body read.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body as JSON; null if it is none.
    pub json: Value,
}

impl Answer {
    /// The answer itself if it has this status; otherwise the test fails and shows it.
    #[track_caller]
    #[expect(
        clippy::return_self_not_must_use,
        clippy::must_use_candidate,
        reason = "often the status is all that a test wants"
    )]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// A member of the body.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Value {
        self.json.pointer(pointer).cloned().unwrap_or_default()
    }

    /// The `code` of a problem document.
    #[must_use]
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// The id in the body.
    #[must_use]
    #[track_caller]
    pub fn id(&self) -> i64 {
        self.json["id"].as_i64().unwrap_or_else(|| panic!("no id in {}", self.text))
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Client {
    /// A client of the server at `base` (`http://host:port`), with a bearer token or without.
    #[must_use]
    pub fn new(base: &str, token: Option<&str>) -> Self {
        starlink_server::tls::install_provider();
        let http = reqwest::Client::builder().build().unwrap_or_else(|error| panic!("no HTTP client: {error}"));
        Self { http, base: base.to_owned(), token: token.map(str::to_owned) }
    }

    /// A client that trusts this certificate as well.
    #[must_use]
    pub fn trusting(base: &str, token: Option<&str>, certificate: &Path) -> Self {
        starlink_server::tls::install_provider();
        let pem = std::fs::read(certificate).unwrap_or_else(|error| panic!("{}: {error}", certificate.display()));
        let certificate =
            reqwest::Certificate::from_pem(&pem).unwrap_or_else(|error| panic!("no certificate: {error}"));
        let http = reqwest::Client::builder().tls_certs_only([certificate]).build();
        let http = http.unwrap_or_else(|error| panic!("no HTTP client: {error}"));
        Self { http, base: base.to_owned(), token: token.map(str::to_owned) }
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client without a token.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// Where the server is.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request to be completed by the test.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; the answer, or why there is none.
    ///
    /// # Errors
    /// If the server did not answer in full.
    pub async fn try_send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let json = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { status, headers, text, json })
    }

    /// Sends a request that must be answered.
    pub async fn send(request: reqwest::RequestBuilder) -> Answer {
        Self::try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        Self::send(self.request(Method::GET, path)).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Self::send(self.request(Method::POST, path).json(&body)).await
    }

    /// `POST` without a body.
    pub async fn post_empty(&self, path: &str) -> Answer {
        Self::send(self.request(Method::POST, path)).await
    }

    /// `PATCH` with a JSON body.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        Self::send(self.request(Method::PATCH, path).json(&body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        Self::send(self.request(Method::DELETE, path)).await
    }
}
