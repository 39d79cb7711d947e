//! Programs that are run in a container by hand, over HTTP.

use super::{Live, closings::explained, talk};
use crate::{
    ApiError,
    extract::{Id, Query},
    openapi::Handmade,
    rooms::{
        Actor,
        containers::dto,
        output::{LineUp, Vigil},
    },
};
use actix_web::{HttpRequest, HttpResponse, web::Data};
use domain::{
    Error, FieldError,
    containers::{
        ContainerService, EngineId, Insistence, LONGEST_EXEC_FOLDER, LONGEST_EXEC_USER, MOST_COMMAND_WORDS,
        wire::{ExecQuery, TerminalSize},
    },
    fleet::{AgentService, protocol::StreamSource},
    identity::Operation,
    ids::ContainerId,
};
use futures_util::StreamExt;
use paperclip::actix::api_v2_operation;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::Instrument;

/// The longest message of a client, in bytes.
const LONGEST_MESSAGE: usize = 1024 * 1024;

pub(super) fn handmade() -> Handmade {
    Handmade { path: "/api/containers/{id}/exec", method: "get", operation: document() }
}

fn document() -> Value {
    let problem = |status: u16| json!({ "$ref": format!("#/components/responses/Problem{status}") });
    json!({
        "operationId": "container_exec",
        "tags": ["containers"],
        "summary": "Run a program in a container",
        "description": DESCRIPTION,
        "parameters": parameters(),
        "security": [{ "bearer": [] }, { "session": [] }],
        "responses": {
            "101": { "description": "The WebSocket is open." },
            "400": problem(400), "401": problem(401), "403": problem(403), "404": problem(404), "409": problem(409),
            "429": problem(429), "500": problem(500), "503": problem(503), "507": problem(507),
        },
    })
}

const DESCRIPTION: &str = "A WebSocket to a program that is begun with it and ended with it. Browsers, which cannot send \
    a token, add `ticket` from `POST /auth/tickets`; where a session's cookie is sent, the page must be one of the \
    console's.

The client sends input as binary messages, and as text messages `{\"kind\": \"input\", \"text\": \"ls\\n\"}`, \
    `{\"kind\": \"resize\", \"rows\": 24, \"columns\": 80}` and `{\"kind\": \"end_input\"}`. It gets output as binary \
    messages, of which the first byte is 1 for standard output, as for all output of a terminal, and 2 for standard \
    error, and as text messages `{\"kind\": \"started\"}` and `{\"kind\": \"exited\", \"code\": 0}`; the code is `null` \
    if the engine does not know it. The end comes with 1000 after that, 1001 if the server stops, 1008 if whoever asked \
    may not go on, 1011 if the agent is lost or fails, 4400 for a message that cannot be understood, 4404 if the engine \
    has no such container, 4409 if it does not run. Whoever does not answer pings for 45 seconds has gone.

A container that StarLink did not start needs `force` (409 `container_foreign`). That a program is run, and how it \
    ended, is written into the audit log; its input and output are not.

Needs the role operator or admin, and the scope `containers`.";

fn parameters() -> Value {
    let query = |name: &str, description: &str, schema: Value| {
        let required = name == "command";
        json!({ "name": name, "in": "query", "required": required, "description": description, "schema": schema })
    };
    let side = || json!({ "type": "integer", "minimum": 1, "maximum": u16::MAX });
    json!([
        {
            "name": "id", "in": "path", "required": true, "description": "Which one.",
            "schema": { "type": "integer", "format": "int64", "minimum": 1 },
        },
        query("command", "The program and its arguments, one each time; 32 KiB together.",
            json!({ "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": MOST_COMMAND_WORDS })),
        query("tty", "Whether it gets a terminal; not if left out.", json!({ "type": "boolean" })),
        query("user", "Whom it runs as, such as `nobody` or `1000:1000`; whoever the image says, if left out.",
            json!({ "type": "string", "minLength": 1, "maxLength": LONGEST_EXEC_USER })),
        query("workdir", "The folder in which it begins, as an absolute path; the container's, if left out.",
            json!({ "type": "string", "pattern": "^/", "minLength": 1, "maxLength": LONGEST_EXEC_FOLDER })),
        query("rows", "How many lines the terminal has; 24 if only `cols` is given.", side()),
        query("cols", "How many characters a line of the terminal has; 80 if only `rows` is given.", side()),
        query("force", "Whether to run it even if StarLink did not start the container.", json!({ "type": "boolean" })),
        query("ticket", "From `POST /auth/tickets`, for clients that cannot send a token. It is good once.",
            json!({ "type": "string", "minLength": 1, "maxLength": 128 })),
    ])
}

/// What is to be run.
#[derive(Deserialize)]
pub(super) struct ExecAsked {
    #[serde(default)]
    command: Vec<String>,
    tty: Option<bool>,
    user: Option<String>,
    workdir: Option<String>,
    rows: Option<u16>,
    cols: Option<u16>,
    force: Option<bool>,
    /// It was taken before this is read, and is here so that it is not given twice.
    #[serde(rename = "ticket")]
    _ticket: Option<String>,
}

impl ExecAsked {
    fn read(self, engine_id: EngineId) -> Result<(ExecQuery, Insistence), Error> {
        let size = (self.rows.is_some() || self.cols.is_some())
            .then(|| TerminalSize { rows: self.rows.unwrap_or(24), columns: self.cols.unwrap_or(80) });
        let tty = self.tty.unwrap_or(false);
        let query = ExecQuery { engine_id, command: self.command, tty, user: self.user, folder: self.workdir, size };
        query.check()?;
        Ok((query, dto::insistence(self.force)))
    }
}

#[api_v2_operation(skip)]
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
pub(super) async fn container_exec(
    request: HttpRequest,
    payload: actix_web::web::Payload,
    actor: Actor,
    id: Id<ContainerId>,
    asked: Query<ExecAsked>,
    containers: Data<ContainerService>,
    agents: Data<AgentService>,
    live: Data<Live>,
    line: Data<LineUp>,
) -> Result<HttpResponse, ApiError> {
    let container = containers.container_watch(&actor, Operation::ContainerExec, id.0).await?;
    let (exec, insistence) = asked.0.read(container.observed.engine_id.clone())?;
    let (response, session, messages) = actix_ws::handle(&request, payload)
        .map_err(|error| FieldError::new("Upgrade", format!("is not that of a WebSocket: {error}")))?;
    let place = live.sessions.take(&actor)?;
    let vigil = Vigil::new(&line, &request, Operation::ContainerExec);
    // It is written down before anything happens, and what cannot be written down does not happen.
    containers.exec_begin(&actor, id.0, &exec, insistence).await?;
    let source = StreamSource::ContainerExec(exec.clone());
    let ordered = line.orders.order(&agents.into_inner(), container.server_id, source);
    let teller = ordered.teller();
    let ordered = explained(container.server_id, ordered).boxed();
    let messages = messages.max_frame_size(LONGEST_MESSAGE).aggregate_continuations();
    let messages = messages.max_continuation_size(LONGEST_MESSAGE);
    let talking = async move {
        let end = talk::talk(&session, messages, (ordered, teller), vigil).await;
        if let Err(error) = containers.exec_end(&actor, &container, &exec, end.told()).await {
            tracing::error!(%error, "how a program in {} ended could not be written down", container.observed.name);
        }
        talk::close(session, end).await;
        drop(place);
    };
    actix_web::rt::spawn(talking.in_current_span());
    Ok(response)
}
