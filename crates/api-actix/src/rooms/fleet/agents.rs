//! The agents' side: joining, asking what there is to do, and reporting.

use super::{
    bells::{Bells, Streams},
    relay::relay,
    wire::{EnrollBody, InventoryBody, ProgressBody, ResultBody, SessionBody, StartedBody},
};
use crate::{
    ApiError,
    extract::{Body, Id, Query},
    middleware::context::RequestId,
    openapi::Handmade,
    reply::{Created, NoContent, Reply},
    rooms::{Actor, system::Stopping},
};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web::Data};
use domain::{
    fleet::{AgentService, protocol::Deliveries},
    identity::Operation,
    ids::OperationId,
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{pin::pin, time::Duration};

/// The longest message of a stream, in bytes: a line of a MiB, with everything in it escaped.
const LONGEST_MESSAGE: usize = 8 * 1024 * 1024;

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(web::resource("/agent/enroll").route(web::post().to(agent_enroll)))
        .service(web::resource("/agent/session").route(web::post().to(agent_session)))
        .service(web::resource("/agent/inventory").route(web::post().to(agent_inventory)))
        .service(web::resource("/agent/operations").route(web::get().to(agent_poll)))
        .service(web::resource("/agent/operations/{id}/started").route(web::post().to(agent_started)))
        .service(web::resource("/agent/operations/{id}/progress").route(web::post().to(agent_progress)))
        .service(web::resource("/agent/operations/{id}/result").route(web::post().to(agent_result)))
        .service(web::resource("/agent/streams/{id}").route(web::get().to(agent_stream)));
}

/// What paperclip does not see.
pub(in crate::rooms) fn handmade() -> Handmade {
    Handmade { path: "/agent/streams/{id}", method: "get", operation: stream_operation() }
}

fn stream_operation() -> Value {
    json!({
        "operationId": "agent_stream",
        "tags": ["agent"],
        "summary": "Send a stream",
        "description": "A WebSocket into which the agent sends what it was asked for in the answer to `agent_poll`, one \
            JSON document in each message; where a program is run, its output in binary messages, and its input comes the \
            same way. Needs the token of a server's agent.",
        "parameters": [{
            "name": "id", "in": "path", "required": true, "description": "The id from the order.",
            "schema": { "type": "string" },
        }],
        "security": [{ "bearer": [] }],
        "responses": {
            "101": { "description": "The WebSocket is open." },
            "400": { "$ref": "#/components/responses/Problem400" },
            "401": { "$ref": "#/components/responses/Problem401" },
            "403": { "$ref": "#/components/responses/Problem403" },
            "404": { "$ref": "#/components/responses/Problem404" },
        },
    })
}

/// A machine that has joined.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AgentEnrolled")]
struct EnrolledView {
    server_id: i64,
    /// The agent's own token; it is shown here and nowhere else.
    token: String,
}

/// A session that has begun.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AgentSession")]
struct SessionView {
    server_id: i64,
    name: String,
    /// The version of the protocol that both sides speak.
    protocol: u32,
    /// Names the installation; what agents make carries it.
    installation: String,
    /// Operations that the agent said it had begun, and of which it has not said how they ended.
    begun: Vec<i64>,
}

/// What an agent has to do.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AgentDeliveries")]
struct DeliveriesView {
    /// To be begun: `id`, `expires_in_seconds`, and the `order` with its `kind` and what belongs to it.
    operations: Vec<Value>,
    /// Operations to be ended.
    cancel: Vec<i64>,
    /// Streams to be opened: `id`, and the `source` with its `kind` and what belongs to it.
    streams: Vec<Value>,
}

impl TryFrom<Deliveries> for DeliveriesView {
    type Error = domain::Error;

    fn try_from(due: Deliveries) -> Result<Self, domain::Error> {
        let values = |value: Result<Value, serde_json::Error>| match value {
            Ok(Value::Array(values)) => Ok(values),
            Ok(_) => Ok(Vec::new()),
            Err(error) => Err(domain::Error::internal(error)),
        };
        Ok(Self {
            operations: values(serde_json::to_value(due.operations))?,
            cancel: due.cancel.iter().map(|id| id.0).collect(),
            streams: values(serde_json::to_value(due.streams))?,
        })
    }
}

/// Join the fleet
///
/// Makes a server of the machine that the agent runs on. The join token comes from `POST /enrollments`.
#[api_v2_operation(tags("agent"), operation_id = "agent_enroll")]
async fn agent_enroll(
    request: HttpRequest,
    agents: Data<AgentService>,
    body: Body<EnrollBody>,
) -> Result<Created<EnrolledView>, ApiError> {
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let joined = agents.agent_enroll(body.0.0, request_id).await?;
    let location = format!("/servers/{}", joined.server_id);
    Ok(Created::at(location, EnrolledView { server_id: joined.server_id.0, token: joined.token }))
}

/// Open a session
///
/// An agent does so when it starts, and when it is told `session_gone`.
#[api_v2_operation(tags("agent"), operation_id = "agent_session")]
async fn agent_session(
    actor: Actor,
    agents: Data<AgentService>,
    body: Body<SessionBody>,
) -> Result<Reply<SessionView>, ApiError> {
    let opened = agents.agent_session(&actor, body.0.0).await?;
    Ok(Reply::new(SessionView {
        server_id: opened.server_id.0,
        name: opened.name.as_str().to_owned(),
        protocol: opened.protocol,
        installation: opened.installation,
        begun: opened.begun.iter().map(|id| id.0).collect(),
    }))
}

/// Report what the machine is
///
/// Whenever that changes.
#[api_v2_operation(tags("agent"), operation_id = "agent_inventory")]
async fn agent_inventory(
    actor: Actor,
    agents: Data<AgentService>,
    body: Body<InventoryBody>,
) -> Result<NoContent, ApiError> {
    let InventoryBody { session, inventory } = body.0;
    agents.agent_inventory(&actor, &session, &inventory).await?;
    Ok(NoContent)
}

/// Who asks, and for how long.
#[derive(Debug, Deserialize, JsonSchema)]
struct PollQuery {
    /// The agent's session.
    session: String,
    /// How long to wait until there is something, in seconds; not at all if left out. The server may answer sooner.
    #[schemars(range(min = 0, max = 300))]
    wait: Option<u16>,
}

/// Ask what there is to do
///
/// Answers as soon as there is something, or when the time is up. What was told is told again until it was reported on.
#[api_v2_operation(tags("agent"), operation_id = "agent_poll")]
async fn agent_poll(
    actor: Actor,
    agents: Data<AgentService>,
    bells: Data<Bells>,
    stopping: Data<Stopping>,
    query: Query<PollQuery>,
) -> Result<Reply<DeliveriesView>, ApiError> {
    let PollQuery { session, wait } = query.0;
    let server = agents.heard(&actor, Operation::AgentPoll, &session)?;
    let wait = Duration::from_secs(wait.unwrap_or_default().into()).min(agents.longest_wait());
    let (bell, mut stopping) = (bells.of(server), stopping.0.clone());
    let mut late = pin!(tokio::time::sleep(wait));
    let mut is_over = false;
    loop {
        // Listens before it looks, so that nothing falls in between.
        let mut rung = pin!(bell.notified());
        rung.as_mut().enable();
        let due = agents.due(server, &session).await?;
        let nothing = due.operations.is_empty() && due.cancel.is_empty() && due.streams.is_empty();
        if !nothing || is_over || *stopping.borrow() {
            return Ok(Reply::new(due.try_into()?));
        }
        tokio::select! {
            () = rung => {}
            // What it was told a while ago, and has not reported on, may be due again by now.
            () = &mut late => is_over = true,
            _ = stopping.changed() => {}
        }
    }
}

/// Report that something runs
///
/// Repeating it changes nothing. 409 `operation_closed`: the server has given it up, and whatever is left of it has to go.
#[api_v2_operation(tags("agent"), operation_id = "agent_started")]
async fn agent_started(
    actor: Actor,
    agents: Data<AgentService>,
    id: Id<OperationId>,
    body: Body<StartedBody>,
) -> Result<NoContent, ApiError> {
    let server = agents.heard(&actor, Operation::AgentStarted, &body.0.0.session)?;
    agents.operation_started(&actor, server, id.0).await?;
    Ok(NoContent)
}

/// Report what something is at
///
/// One sentence, such as how much of an image was pulled.
#[api_v2_operation(tags("agent"), operation_id = "agent_progress")]
async fn agent_progress(
    actor: Actor,
    agents: Data<AgentService>,
    id: Id<OperationId>,
    body: Body<ProgressBody>,
) -> Result<NoContent, ApiError> {
    let report = body.0.0;
    agents.agent_progress(&actor, &report.session, id.0, report.message).await?;
    Ok(NoContent)
}

/// Report how something ended
///
/// Repeating it changes nothing. 409 `operation_closed`: the server has given it up.
#[api_v2_operation(tags("agent"), operation_id = "agent_result")]
async fn agent_result(
    actor: Actor,
    agents: Data<AgentService>,
    id: Id<OperationId>,
    body: Body<ResultBody>,
) -> Result<NoContent, ApiError> {
    let report = body.0.0;
    let server = agents.heard(&actor, Operation::AgentResult, &report.session)?;
    agents.operation_ended(&actor, server, id.0, &report.end).await?;
    Ok(NoContent)
}

#[api_v2_operation(skip)]
async fn agent_stream(
    request: HttpRequest,
    payload: actix_web::web::Payload,
    actor: Actor,
    agents: Data<AgentService>,
    streams: Data<Streams>,
    stopping: Data<Stopping>,
) -> Result<HttpResponse, ApiError> {
    let server = agents.server_of(&actor, Operation::AgentStream)?;
    let id = request.match_info().get("id").unwrap_or_default().to_owned();
    let nobody = || domain::Error::not_found("stream", "with this id; whoever asked for it has gone");
    let (response, session, messages) = actix_ws::handle(&request, payload)
        .map_err(|error| domain::FieldError::new("Upgrade", format!("is not that of a WebSocket: {error}")))?;
    let end = streams.take(&id, server).ok_or_else(nobody)?;
    agents.mailbox().forget_stream(server, &id);
    let messages = messages.max_frame_size(LONGEST_MESSAGE).aggregate_continuations();
    let messages = messages.max_continuation_size(LONGEST_MESSAGE);
    actix_web::rt::spawn(relay(session, messages, end, stopping.0.clone()));
    Ok(response)
}
