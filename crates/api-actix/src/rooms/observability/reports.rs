//! What agents say of the machines that they are on.

use crate::{ApiError, extract::Body, reply::Reply, rooms::Actor};
use actix_web::web::Data;
use domain::{
    fleet::AgentService,
    identity::Operation,
    observability::{
        SampleService,
        wire::{MOST_IN_REPORT, SampleReport},
    },
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::samples::TakenView;

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config.service(web::resource("/agent/metrics").route(web::post().to(agent_metrics)));
}

/// What was measured. Members that are not known are ignored, because agents may be newer than the server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct ReportBody(#[schemars(with = "AgentSampleReport")] SampleReport);

/// What was measured of a machine.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is only documented, never made")]
struct AgentSampleReport {
    /// The agent's session.
    session: String,
    /// Samples: `recorded_at`, and the metrics that were measured.
    #[schemars(length(max = MOST_IN_REPORT))]
    samples: Vec<Map<String, Value>>,
}

/// Report samples
///
/// What was measured since the last report, oldest first. Whatever the answer says of a sample, it need not be sent again.
#[api_v2_operation(tags("agent"), operation_id = "agent_metrics")]
async fn agent_metrics(
    actor: Actor,
    agents: Data<AgentService>,
    samples: Data<SampleService>,
    body: Body<ReportBody>,
) -> Result<Reply<TakenView>, ApiError> {
    let SampleReport { session, samples: told } = body.0.0;
    let server = agents.heard(&actor, Operation::AgentMetrics, &session)?;
    Ok(Reply::new(samples.samples_reported(server, told).await?.into()))
}
