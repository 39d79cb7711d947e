//! What agents were told to do, over HTTP.

use crate::{
    ApiError,
    extract::{Id, Once, PreferWait, Query},
    reply::{Listed, Reply, Settled},
    rooms::{Actor, delivery, dto, once_of, settled, system::Changes},
};
use actix_web::web::Data;
use domain::{
    Result,
    clock::Timestamp,
    error::Checks,
    fleet::{
        AgentService,
        operations::{Operation, OperationFilter, OperationKind, OperationState},
    },
    ids::{OperationId, ServerId, TaskId},
    page::PageRequest,
    scheduling::TaskService,
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(web::resource("/operations").route(web::get().to(operation_list)))
        .service(web::resource("/operations/{id}").route(web::get().to(operation_get)))
        .service(web::resource("/operations/{id}/cancel").route(web::post().to(operation_cancel)))
        .service(web::resource("/servers/{id}/actions").route(web::get().to(server_operation_list)));
}

fn states() -> Vec<&'static str> {
    OperationState::ALL.iter().map(|state| state.as_str()).collect()
}

fn state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": states() })
}

fn optional_state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": states() })
}

fn kind(_: &mut SchemaGenerator) -> Schema {
    let kinds: Vec<&str> = OperationKind::ALL.iter().map(|kind| kind.as_str()).collect();
    json_schema!({ "type": "string", "enum": kinds })
}

/// Filters of the list of operations.
#[derive(Debug, Deserialize, JsonSchema)]
struct OperationListQuery {
    /// In this state.
    #[serde(default)]
    #[schemars(schema_with = "optional_state")]
    state: Option<OperationState>,
    /// Of the agent of this server.
    #[schemars(range(min = 1))]
    server_id: Option<i64>,
    /// About this task.
    #[schemars(range(min = 1))]
    task_id: Option<i64>,
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

impl OperationListQuery {
    fn parse(self) -> Result<(OperationFilter, PageRequest)> {
        let mut checks = Checks::default();
        let server_id = dto::reference(&mut checks, "server_id", self.server_id).map(ServerId);
        let task_id = dto::reference(&mut checks, "task_id", self.task_id).map(TaskId);
        checks.finish()?;
        let filter = OperationFilter { server_id, state: self.state, task_id };
        Ok((filter, PageRequest::parse(self.limit, self.cursor.as_deref(), "-id")?))
    }
}

/// Which part of the list.
#[derive(Debug, Deserialize, JsonSchema)]
struct PartQuery {
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

/// One thing that an agent is told to do.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Operation")]
struct OperationView {
    id: i64,
    server_id: i64,
    #[schemars(schema_with = "kind")]
    kind: &'static str,
    task_id: Option<i64>,
    attempt: Option<u32>,
    /// What it brings about, if it runs no task: its `kind`, and what belongs to it.
    deed: Option<Map<String, Value>>,
    #[schemars(schema_with = "state")]
    state: &'static str,
    /// Whether its end was asked for.
    cancel_requested: bool,
    /// What the agent said last that it is at.
    progress: Option<String>,
    /// How it ended, as the agent told it; `null` until then.
    result: Option<ResultView>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

/// How something ended on an agent.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OperationResult")]
struct ResultView {
    /// `completed`, `failed`, `cancelled`, `expired` or `unknown`.
    ending: &'static str,
    exit_code: Option<i64>,
    signal: Option<i64>,
    /// A stable code.
    reason: Option<String>,
    /// The same in words.
    detail: Option<String>,
    /// What else came of it: its `kind`, and what belongs to it.
    outcome: Option<Map<String, Value>>,
}

/// The members of what is written as a JSON object.
fn members(value: &impl Serialize) -> Option<Map<String, Value>> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
    }
}

impl From<Operation> for OperationView {
    fn from(operation: Operation) -> Self {
        Self {
            id: operation.id.0,
            server_id: operation.server_id.0,
            kind: operation.kind.as_str(),
            task_id: operation.task_id.map(|task| task.0),
            attempt: operation.attempt,
            deed: operation.deed.as_ref().and_then(members),
            state: operation.state.as_str(),
            cancel_requested: operation.cancel_requested,
            progress: operation.progress,
            result: operation.result.map(|end| ResultView {
                ending: end.ending.as_str(),
                exit_code: end.exit_code,
                signal: end.signal,
                reason: end.reason,
                detail: end.detail,
                outcome: end.outcome.as_ref().and_then(members),
            }),
            created_at: operation.created_at,
            started_at: operation.started_at,
            finished_at: operation.finished_at,
        }
    }
}

/// List operations
///
/// What agents were told to do, newest first. Every filter that is given must match.
#[api_v2_operation(tags("fleet"), operation_id = "operation_list")]
async fn operation_list(
    actor: Actor,
    agents: Data<AgentService>,
    query: Query<OperationListQuery>,
) -> Result<Listed<OperationView>, ApiError> {
    let (filter, page) = query.0.parse()?;
    let found = agents.operation_list(&actor, filter, page).await?;
    Ok(Listed(found.map(OperationView::from)))
}

/// Look at an operation
///
/// How far it is, and how it ended.
#[api_v2_operation(tags("fleet"), operation_id = "operation_get")]
async fn operation_get(
    actor: Actor,
    agents: Data<AgentService>,
    id: Id<OperationId>,
) -> Result<Reply<OperationView>, ApiError> {
    Ok(Reply::new(agents.operation_get(&actor, id.0).await?.into()))
}

/// Cancel an operation
///
/// Ends what it runs, and with that its task, as cancelling the task does. It goes on until its agent has said that it
/// has ended: that is answered with 202.
#[api_v2_operation(tags("fleet"), operation_id = "operation_cancel")]
async fn operation_cancel(
    actor: Actor,
    agents: Data<AgentService>,
    tasks: Data<TaskService>,
    changes: Data<Changes>,
    id: Id<OperationId>,
    once: Once,
    prefer: PreferWait,
) -> Result<Settled<Reply<OperationView>, OperationView>, ApiError> {
    let once = once_of(&actor, once);
    // What happens after this moment wakes whoever waits.
    let changes = changes.0.clone();
    let order = agents.operation_to_cancel(&actor, id.0).await?;
    let delivery = if order.deed.is_some() {
        delivery(&agents.deed_cancel(&actor, id.0, once).await?)
    } else {
        delivery(&tasks.operation_cancel(&actor, &order, once).await?)
    };
    let look = async || Ok(agents.operation_get(&actor, id.0).await?);
    let is_open = |operation: &Operation| operation.state.is_open();
    let operation = settled(prefer.0, changes, look().await?, is_open, look).await?;
    Ok(if is_open(&operation) {
        Settled::Underway(operation.into())
    } else {
        Settled::Done(Reply::new(operation.into()).delivered(delivery))
    })
}

/// List the operations of a server
///
/// What its agent was told to do, newest first.
#[api_v2_operation(tags("fleet"), operation_id = "server_operation_list")]
async fn server_operation_list(
    actor: Actor,
    agents: Data<AgentService>,
    id: Id<ServerId>,
    query: Query<PartQuery>,
) -> Result<Listed<OperationView>, ApiError> {
    let page = PageRequest::parse(query.0.limit, query.0.cursor.as_deref(), "-id")?;
    let found = agents.server_operation_list(&actor, id.0, page).await?;
    Ok(Listed(found.map(OperationView::from)))
}
