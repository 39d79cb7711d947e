//! Health, metrics and the stream of changes: what a room does not own.

mod events;
mod metrics;
mod ready;
mod servers;

use crate::{
    ApiError,
    auth::CredentialDigest,
    reply::{Reply, Streamed},
    rooms::Actor,
};
use actix_web::{
    HttpMessage, HttpRequest,
    web::{Bytes, Data},
};
use domain::{
    audit::{AuditService, Head},
    identity::SessionService,
    observability::SampleService,
};
pub use events::{Changes, Stopping};
use events::{EventMedia, LastEventId, Watcher};
use metrics::MetricsMedia;
pub use metrics::{Metrics, measure};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
pub use ready::Readiness;
use schemars::JsonSchema;
use serde::Serialize;

/// These routes.
pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(web::resource("/healthz").route(web::get().to(health_get)))
        .service(web::resource("/readyz").route(web::get().to(ready_get)))
        .service(web::resource("/metrics").route(web::get().to(metrics_get)))
        .service(web::resource("/events").route(web::get().to(event_stream)));
}

/// The process is alive.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Health {
    /// `ok`.
    status: &'static str,
    /// The version of the product.
    version: &'static str,
}

const OK: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

/// Tell whether the process is alive
///
/// Answers as long as the process does; says nothing about its database.
#[api_v2_operation(tags("system"), operation_id = "health_get")]
async fn health_get() -> Result<Reply<Health>, ApiError> {
    Ok(Reply::new(OK))
}

/// Tell whether the product can do its work
///
/// Reads and writes the database; 503 or 507 with the reason while it cannot. Asked more often than once a second, it
/// repeats its last answer.
#[api_v2_operation(tags("system"), operation_id = "ready_get")]
async fn ready_get(readiness: Data<Readiness>) -> Result<Reply<Health>, ApiError> {
    readiness.check().await?;
    Ok(Reply::new(OK))
}

/// Metrics for Prometheus
///
/// In Prometheus' text format: the product's own metrics and, for each server, whether it is online and the newest sample,
/// if it is not older than 5 minutes. Whoever may not read what was measured gets the product's own metrics alone.
#[api_v2_operation(tags("system"), operation_id = "metrics_get")]
async fn metrics_get(
    actor: Actor,
    metrics: Data<Metrics>,
    samples: Data<SampleService>,
    audit: Data<AuditService>,
) -> Result<Streamed<MetricsMedia>, ApiError> {
    let servers = samples.metrics_get(&actor).await?;
    metrics.audit_head(audit.head().await?.seq);
    let parts = std::iter::once(metrics.encode()?).chain(servers::written(&servers));
    let parts = parts.map(|part| Ok::<_, domain::Error>(Bytes::from(part)));
    Ok(Streamed::new("text/plain", futures_util::stream::iter(parts)))
}

/// Watch changes
///
/// Server-sent events, each with the kind of change and its target. A reader that sends the id of the last event that it
/// saw as `Last-Event-ID` goes on after it, also over a restart of the server. The stream ends with the token or session
/// that opened it.
#[api_v2_operation(tags("system"), operation_id = "event_stream")]
async fn event_stream(
    request: HttpRequest,
    actor: Actor,
    sessions: Data<SessionService>,
    audit: Data<AuditService>,
    changes: Data<Changes>,
    stopping: Data<Stopping>,
    last: LastEventId,
) -> Result<Streamed<EventMedia>, ApiError> {
    audit.event_stream(&actor)?;
    let place = match last.0 {
        Some(seq) => Head { seq, hash: String::new() },
        None => audit.head().await?,
    };
    let digest = request.extensions().get::<CredentialDigest>().map(|digest| digest.0.clone()).unwrap_or_default();
    let watcher = Watcher { actor: actor.0, digest, sessions: sessions.into_inner() };
    let stream = events::stream(watcher, audit.into_inner(), &changes, &stopping, place);
    Ok(Streamed::new("text/event-stream", stream))
}
