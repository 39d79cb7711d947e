//! Targets and what they were told, as they are shown.

use super::bodies::{kind, tls};
use domain::{
    clock::Timestamp,
    identity::Secret,
    observability::alerts::{Delivery, DeliveryState, MessageKind, Target, TargetSpec, Try},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

/// Somebody who is told of alerts.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertTarget")]
pub(super) struct TargetView {
    id: i64,
    name: String,
    enabled: bool,
    #[schemars(schema_with = "kind")]
    kind: &'static str,
    /// The beginning of the URL; the rest of it may be a secret.
    origin: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    #[schemars(schema_with = "tls")]
    tls: Option<&'static str>,
    user: Option<String>,
    from: Option<String>,
    to: Option<Vec<String>>,
    revision: i64,
    created_by: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Target> for TargetView {
    fn from(target: Target) -> Self {
        let empty = Self {
            id: target.id.0,
            name: target.name.as_str().to_owned(),
            enabled: target.enabled,
            kind: "webhook",
            origin: None,
            host: None,
            port: None,
            tls: None,
            user: None,
            from: None,
            to: None,
            revision: target.revision,
            created_by: target.created_by,
            created_at: target.created_at,
            updated_at: target.updated_at,
        };
        match target.spec {
            TargetSpec::Webhook { origin } => Self { origin: Some(origin), ..empty },
            TargetSpec::Slack { origin } => Self { kind: "slack", origin: Some(origin), ..empty },
            TargetSpec::Email { host, port, tls, user, from, to } => Self {
                kind: "email",
                host: Some(host),
                port: Some(port),
                tls: Some(tls.as_str()),
                user,
                from: Some(from),
                to: Some(to),
                ..empty
            },
        }
    }
}

/// A target that was made just now.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertTargetCreated")]
pub(super) struct TargetCreatedView {
    #[serde(flatten)]
    target: TargetView,
    /// What messages to a webhook are signed with; `null` for other kinds. It is shown here and nowhere else.
    signing_key: Option<String>,
}

impl TargetCreatedView {
    pub(super) fn new(target: Target, key: Option<&Secret>) -> Self {
        Self { target: target.into(), signing_key: key.map(|key| key.expose().to_owned()) }
    }
}

fn state(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<&str> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
    json_schema!({ "type": "string", "enum": words })
}

fn event(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<&str> = MessageKind::ALL.iter().map(|event| event.as_str()).collect();
    json_schema!({ "type": "string", "enum": words })
}

/// A message to a target.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertDelivery")]
pub(crate) struct DeliveryView {
    /// The message has it too, each time that it is sent.
    id: i64,
    alert_id: Option<i64>,
    target_id: i64,
    target_name: String,
    #[schemars(schema_with = "event")]
    event: &'static str,
    #[schemars(schema_with = "state")]
    state: &'static str,
    /// When it is tried next.
    due_at: Option<Timestamp>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
    tries: Vec<TryView>,
}

/// What came of a try.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertDeliveryTry")]
struct TryView {
    at: Timestamp,
    /// What was answered, as far as anything was.
    status: Option<u16>,
    /// What went wrong.
    error: Option<String>,
}

impl From<Try> for TryView {
    fn from(one: Try) -> Self {
        Self { at: one.at, status: one.status, error: one.error }
    }
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id.0,
            alert_id: delivery.alert_id.map(|alert| alert.0),
            target_id: delivery.target_id.0,
            target_name: delivery.target_name,
            event: delivery.event.as_str(),
            state: delivery.state.as_str(),
            due_at: delivery.due_at,
            created_at: delivery.created_at,
            finished_at: delivery.finished_at,
            tries: delivery.tries.into_iter().map(Into::into).collect(),
        }
    }
}
