//! Prometheus' remote-write, version 1.0.

mod body;
mod wire;

use crate::{
    ApiError,
    reply::Reply,
    rooms::{Actor, system::Metrics},
};
use actix_web::web::Data;
use body::WriteBody;
use domain::observability::remote::{RemoteWriteService, Written};
use paperclip::actix::api_v2_operation;
use schemars::JsonSchema;
use serde::Serialize;

/// What became of the samples of a request. None of them needs to be sent again.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SamplesWritten")]
pub(super) struct WrittenView {
    /// How many are stored by this request.
    stored: usize,
    /// How many are of a server, time and metric that something was stored of before.
    duplicate: usize,
    /// How many are kept until what they are a part of is whole, such as counters until they have grown.
    gathered: usize,
    /// How many values were computed of such parts and stored by this request.
    computed: usize,
    /// How many tell the end of a series, or of something that is left out on purpose.
    left_out: usize,
    /// How many were refused.
    refused: usize,
    /// How many are of servers that are not known.
    unknown_server: usize,
    /// How many are of metrics that are not known.
    unknown_metric: usize,
    /// The first series of which a sample was refused, at most 20.
    refused_series: Vec<RefusedView>,
    /// How the first servers were called that are not known, at most 20; empty for no name at all.
    unknown_servers: Vec<String>,
    /// Some metrics that are not known, at most 20.
    unknown_metrics: Vec<String>,
}

/// A series of which a sample was refused.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SeriesRefused")]
struct RefusedView {
    /// Its name and labels, as in a query.
    series: String,
    /// What is wrong with the first of them.
    reason: String,
}

impl From<Written> for WrittenView {
    fn from(written: Written) -> Self {
        let refused = written.refused_series.into_iter().map(|(series, reason)| RefusedView { series, reason });
        Self {
            stored: written.stored,
            duplicate: written.duplicate,
            gathered: written.gathered,
            computed: written.computed,
            left_out: written.left_out,
            refused: written.refused,
            unknown_server: written.unknown_server,
            unknown_metric: written.unknown_metric,
            refused_series: refused.collect(),
            unknown_servers: written.unknown_servers.into_iter().collect(),
            unknown_metrics: written.unknown_metrics.into_iter().collect(),
        }
    }
}

/// Store what Prometheus has measured
///
/// Prometheus' remote-write 1.0, as Prometheus and vmagent send it. Each sample is stored at its own time; of a server, time
/// and metric the first value is kept, so that any request may be repeated. What is refused or not known says nothing
/// against the others, and is told: the answer is 200 as long as the request can be read, so that no sender repeats it for
/// ever.
#[api_v2_operation(tags("observability"), operation_id = "sample_write")]
pub(super) async fn sample_write(
    actor: Actor,
    service: Data<RemoteWriteService>,
    metrics: Data<Metrics>,
    body: WriteBody,
) -> Result<Reply<WrittenView>, ApiError> {
    let written = service.sample_write(&actor, &body.0).await?;
    metrics.written(&written);
    if written.refused + written.unknown_server > 0 {
        // Senders do not show what they are answered.
        let (refused, unknown) = (&written.refused_series, &written.unknown_servers);
        tracing::debug!(?refused, ?unknown, "some samples of a remote-write were not stored");
    }
    Ok(Reply::new(written.into()))
}
