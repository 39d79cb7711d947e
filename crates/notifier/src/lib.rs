//! Tells people and programs of alerts: webhooks, Slack, e-mail.
//!
//! What cannot be sent is said without secrets: neither a URL nor a password is in an error. No redirect is followed, no
//! proxy asked, and of an answer nothing is read but its status and how long it asks to wait.

mod addresses;
mod http;
mod mail;

pub use addresses::Reach;

use async_trait::async_trait;
use domain::{
    clock::Timestamp,
    ids::DeliveryId,
    observability::alerts::{Fate, Message, Notifier, Sent, TargetSecret, TargetSpec},
};
use std::time::Duration;

/// How long sending a message may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why messages cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No HTTP client can be made.
    #[error("messages to targets of alerts cannot be sent: {0}")]
    Http(#[from] reqwest::Error),
    /// TLS cannot be used.
    #[error("messages to targets of alerts cannot be sent: {0}")]
    Tls(#[from] rustls::Error),
}

/// Sends messages to targets.
pub struct Messenger {
    http: http::Hooks,
    reach: Reach,
}

impl Messenger {
    /// One that reaches so far.
    ///
    /// # Errors
    /// If TLS cannot be used.
    pub fn new(reach: Reach) -> Result<Self, SetupError> {
        Ok(Self { http: http::Hooks::new(reach)?, reach })
    }
}

pub(crate) fn failed(fate: Fate, status: Option<u16>, error: impl Into<String>) -> Sent {
    Sent { fate, status, error: Some(error.into()) }
}

#[async_trait]
impl Notifier for Messenger {
    async fn send(
        &self,
        spec: &TargetSpec,
        secret: &TargetSecret,
        id: DeliveryId,
        message: &Message,
        now: Timestamp,
    ) -> Sent {
        let sending = async {
            match spec {
                TargetSpec::Webhook { .. } => self.http.send(secret, message.body(id.0).to_string(), Some(now)).await,
                TargetSpec::Slack { .. } => {
                    let body = serde_json::json!({ "text": message.text() });
                    self.http.send(secret, body.to_string(), None).await
                }
                TargetSpec::Email { .. } => mail::send(spec, secret, self.reach, id, message).await,
            }
        };
        let late = || failed(Fate::Again(None), None, "it took too long");
        tokio::time::timeout(PATIENCE, sending).await.unwrap_or_else(|_elapsed| late())
    }
}
