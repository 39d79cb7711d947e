//! What agents say of the containers on their machines.

use crate::{ApiError, extract::Body, reply::NoContent, rooms::Actor};
use actix_web::web::Data;
use domain::{
    containers::{
        ContainerService,
        wire::{ContainerReport, MOST_IN_REPORT, MOST_ON_SERVER},
    },
    fleet::AgentService,
    identity::Operation,
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config.service(web::resource("/agent/containers").route(web::post().to(agent_containers)));
}

/// What the machine's engine has. Members that are not known are ignored, because agents may be newer than the server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct ReportBody(#[schemars(with = "AgentContainerReport")] ContainerReport);

/// What a machine's engine has.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is only documented, never made")]
struct AgentContainerReport {
    /// The agent's session.
    session: String,
    /// Containers as they are now: `engine_id`, `name`, `image`, `state`, and what else is known.
    #[schemars(default, length(max = MOST_IN_REPORT))]
    containers: Vec<Map<String, Value>>,
    /// The engine's ids of containers that are gone.
    #[schemars(default, length(max = MOST_ON_SERVER))]
    gone: Vec<String>,
    /// The engine's ids of all that there are: whatever else is known is gone.
    #[schemars(length(max = MOST_ON_SERVER))]
    present: Option<Vec<String>>,
    /// What containers use: `engine_id` and `usage`.
    #[schemars(length(max = MOST_ON_SERVER))]
    usage: Option<Vec<Map<String, Value>>>,
}

/// Report containers
///
/// What has changed, as soon as the engine says so; now and then all that there is; and what those that run use. Each
/// report confirms what was said before.
#[api_v2_operation(tags("agent"), operation_id = "agent_containers")]
async fn agent_containers(
    actor: Actor,
    agents: Data<AgentService>,
    containers: Data<ContainerService>,
    body: Body<ReportBody>,
) -> Result<NoContent, ApiError> {
    let report = body.0.0;
    let server = agents.heard(&actor, Operation::AgentContainers, &report.session)?;
    containers.containers_reported(server, report).await?;
    Ok(NoContent)
}
