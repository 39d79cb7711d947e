//! What the engine sends that must be read as it comes: output of containers, and programs with somebody at the other
//! end. The engine's client puts lines together itself, and holds back one of a terminal until it ends, however long.

use super::engine::{Engine, Trouble, innermost};
use crate::client::trusting_nobody;

use futures_util::{Stream, StreamExt};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Upgraded, header};
use serde::{Deserialize, de::DeserializeOwned};
use std::{pin::Pin, time::Duration};
use tokio_tungstenite::tungstenite::Bytes;

/// How long the engine may take to begin its answer.
const BEGINS: Duration = Duration::from_mins(1);
/// The longest refusal that is read.
const LONGEST_REFUSAL: usize = 64 << 10;

/// Bytes as they come.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Trouble>> + Send>>;

/// An answer that goes on.
pub(super) struct Answer {
    /// Whether it says of itself that two streams are in it.
    pub(super) is_multiplexed: bool,
    /// Whether it is Docker's own.
    pub(super) is_of_docker: bool,
    pub(super) chunks: Chunks,
}

/// Speaks HTTP with the engine.
pub(super) struct Raw(Client);

impl Raw {
    pub(super) fn new(engine: &Engine) -> Result<Self, Trouble> {
        let unusable = |error: &dyn std::fmt::Display| Trouble::Refused(error.to_string());
        let tls = trusting_nobody().map_err(|error| unusable(&error))?;
        let builder = Client::builder()
            .unix_socket(engine.socket())
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(0)
            .tls_backend_preconfigured(tls);
        builder.build().map(Self).map_err(|error| unusable(&error))
    }

    /// Asks for something that goes on.
    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, Trouble> {
        let response = self.begin(self.0.get(url(path)).query(query)).await?;
        let says = |name, word| {
            let value: Option<&header::HeaderValue> = response.headers().get(name);
            value.and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(word))
        };
        let (is_multiplexed, is_of_docker) =
            (says(header::CONTENT_TYPE, "multiplexed"), says(header::SERVER, "Docker/"));
        let chunks = response.bytes_stream().map(|chunk| chunk.map_err(|error| Trouble::Away(innermost(&error))));
        Ok(Answer { is_multiplexed, is_of_docker, chunks: Box::pin(chunks) })
    }

    /// Asks for a document.
    pub(super) async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        let response = self.begin(self.0.get(url(path))).await?;
        let body = response.bytes().await.map_err(|error| Trouble::Away(innermost(&error)))?;
        serde_json::from_slice(&body).map_err(|error| Trouble::Refused(format!("its answer cannot be read: {error}")))
    }

    /// Asks for a connection that is both sides' own from then on.
    pub(super) async fn upgrade(&self, path: &str, body: &serde_json::Value) -> Result<Upgraded, Trouble> {
        let request = self.0.post(url(path)).json(body);
        let request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp");
        let response = self.begin(request).await?;
        response.upgrade().await.map_err(|error| Trouble::Away(innermost(&error)))
    }

    async fn begin(&self, request: RequestBuilder) -> Result<Response, Trouble> {
        let response = match tokio::time::timeout(BEGINS, request.send()).await {
            Ok(response) => response.map_err(|error| Trouble::Away(innermost(&error)))?,
            Err(_) => return Err(Trouble::Away("it did not answer in time".to_owned())),
        };
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        Err(Trouble::answered(status.as_u16(), refusal(response).await))
    }
}

fn url(path: &str) -> String {
    format!("http://engine{path}")
}

/// What the engine says to what it does not do.
async fn refusal(mut response: Response) -> String {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_REFUSAL {
            break;
        }
    }
    match serde_json::from_slice(&body) {
        Ok(Said { message }) => message,
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    }
}
