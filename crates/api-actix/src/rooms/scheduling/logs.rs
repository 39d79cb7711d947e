//! The output of a task, as its server's agent sends it.

use crate::{
    ApiError,
    auth::CredentialDigest,
    openapi::facts::{self, Fact},
    reply::{Media, Streamed},
    rooms::{
        Actor,
        fleet::{Cause, Ordered, Orders, Sent},
        system::Stopping,
    },
};
use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::header,
    web::{Bytes, Data},
};
use domain::{
    Error, FieldError, Result,
    fleet::{
        AgentService,
        protocol::{LogLine, LogQuery, LogStream, StreamSource},
    },
    identity::SessionService,
    ids::TaskId,
    scheduling::TaskService,
};
use futures_util::{Stream, stream};
use paperclip::{
    actix::{OperationModifier, api_v2_operation},
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::{
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// How long an agent may take to open a stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an agent that has opened a stream may take to refuse it.
const MOMENT: Duration = Duration::from_millis(500);
/// A quiet stream says that it is alive this often.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// With what agents close a stream that they cannot serve.
const WRONG_QUERY: u16 = 4400;
const UNKNOWN_WORK: u16 = 4404;
/// The most lines that can be asked for by their number.
const MOST_LINES: u64 = 1_000_000;

/// The output of a task.
#[derive(Debug)]
pub(super) struct LogMedia;

impl Media for LogMedia {
    const TYPES: &'static [&'static str] = &["text/plain", "text/event-stream"];
    const DESCRIPTION: &'static str =
        "The lines, oldest first: as they are, or as events with their time, stream and cursor.";
}

/// Which lines are wanted.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct LogsQuery {
    /// The number of the attempt; the newest if left out.
    #[schemars(range(min = 1))]
    attempt: Option<u32>,
    /// Whether to go on with what is written later, until the attempt ends.
    follow: Option<bool>,
    /// Only so many of the last lines that are there.
    #[schemars(range(min = 0, max = MOST_LINES))]
    tail: Option<u64>,
    /// Only one of the two.
    stream: Option<OneStream>,
}

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "LogStream")]
enum OneStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OneStream {
    fn word(self) -> LogStream {
        match self {
            Self::Stdout => LogStream::Stdout,
            Self::Stderr => LogStream::Stderr,
        }
    }
}

/// The cursor of the last line that a reader saw.
#[derive(Debug)]
pub(super) struct LastLine(Option<String>);

impl FromRequest for LastLine {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let wrong = || FieldError::new("Last-Event-ID", "must be the id of an event of this stream").into();
        let good = |text: &str| !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        let id = request
            .headers()
            .get("last-event-id")
            .map(|value| value.to_str().ok().filter(|text| good(text)).map(str::to_owned).ok_or_else(wrong));
        ready(id.transpose().map(Self))
    }
}

impl Apiv2Schema for LastLine {}
impl OperationModifier for LastLine {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(
            operation,
            Fact::Header {
                name: "Last-Event-ID",
                description: "The id of the last line that was seen; the stream goes on after it.",
                schema: json!({ "type": "string", "minLength": 1, "maxLength": 128 }),
            },
        );
    }
}

/// Read the output of a task
///
/// Lines of one attempt, oldest first, from the agent of its server, which keeps them for some days: 503 while it cannot
/// be reached. With `Accept: text/event-stream` each line is an event with its time and stream, and a reader that sends
/// the id of the last one as `Last-Event-ID` goes on after it.
#[api_v2_operation(tags("scheduling"), operation_id = "task_logs")]
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
pub(super) async fn task_logs(
    request: HttpRequest,
    actor: Actor,
    id: crate::extract::Id<TaskId>,
    query: crate::extract::Query<LogsQuery>,
    last: LastLine,
    tasks: Data<TaskService>,
    agents: Data<AgentService>,
    line: Data<LineUp>,
) -> Result<Streamed<LogMedia>, ApiError> {
    let LogsQuery { attempt, follow, tail, stream } = query.0;
    if tail.is_some_and(|tail| tail > MOST_LINES) {
        return Err(FieldError::new("tail", format!("must be from 0 to {MOST_LINES}")).into());
    }
    let (server, attempt) = tasks.task_output(&actor, id.0, attempt).await?;
    agents.check_there(server)?;
    let query = LogQuery { task_id: id.0, attempt, follow: follow.unwrap_or(false), after: last.0, tail };
    let ordered = line.orders.order(&agents.into_inner(), server, StreamSource::Logs(query));
    let digest = request.extensions().get::<CredentialDigest>().map(|digest| digest.0.clone()).unwrap_or_default();
    let mut reader = Reader {
        ordered,
        first: None,
        only: stream.map(OneStream::word),
        as_events: wants_events(&request),
        sessions: line.sessions.clone(),
        digest,
        doubtful: Instant::now() + KEEP_ALIVE,
        stopping: line.stopping.0.clone(),
        ended: false,
    };
    reader.first = Some(reader.await_first().await?);
    let media_type = if reader.as_events { "text/event-stream" } else { "text/plain" };
    Ok(Streamed::new(media_type, lines(reader)))
}

fn wants_events(request: &HttpRequest) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|part| part.trim().starts_with("text/event-stream"))
}

/// What connects readers with agents.
pub struct LineUp {
    /// Orders streams of agents.
    pub orders: Orders,
    /// Says whether a reader may still read.
    pub sessions: Arc<SessionService>,
    /// Tells when the server is about to stop.
    pub stopping: Stopping,
}

struct Reader {
    ordered: Ordered,
    /// What the agent sent first: until then it can still be answered that it does not.
    first: Option<Sent>,
    only: Option<LogStream>,
    as_events: bool,
    sessions: Arc<SessionService>,
    digest: String,
    /// When to make sure that the reader may still read.
    doubtful: Instant,
    stopping: watch::Receiver<bool>,
    ended: bool,
}

fn lines(reader: Reader) -> impl Stream<Item = Result<Bytes>> {
    stream::try_unfold(reader, |mut reader| async move {
        let part = reader.next().await?;
        Ok(part.map(|part| (part, reader)))
    })
}

impl Reader {
    async fn await_first(&mut self) -> Result<Sent> {
        let silent = || Error::Unavailable {
            reason: "the agent of the task's server did not answer in time; try again".to_owned(),
            source: None,
        };
        if !matches!(tokio::time::timeout(PATIENCE, self.ordered.next()).await, Ok(Some(Sent::Opened))) {
            return Err(silent());
        }
        // An agent that cannot serve it says so at once; one that says nothing has nothing to send yet.
        match tokio::time::timeout(MOMENT, self.ordered.next()).await {
            Ok(Some(Sent::End(Some(cause)))) => Err(refusal(cause)),
            Ok(Some(sent)) => Ok(sent),
            Ok(None) => Err(silent()),
            Err(_elapsed) => Ok(Sent::Opened),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            if let Some(first) = self.first.take() {
                if let Some(bytes) = self.take(first)? {
                    return Ok(Some(bytes));
                }
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            let sent = tokio::select! {
                biased;
                _ = self.stopping.wait_for(|stopping| *stopping) => return Ok(None),
                () = tokio::time::sleep_until(self.doubtful) => None,
                sent = self.ordered.next() => Some(sent),
            };
            match sent {
                Some(None) => return Ok(None),
                Some(Some(sent)) => {
                    if let Some(bytes) = self.take(sent)? {
                        return Ok(Some(bytes));
                    }
                }
                // A revoked token must not go on reading through what it opened before.
                None if self.sessions.still(&self.digest, None).await.is_err() => return Ok(None),
                None => {
                    self.doubtful = Instant::now() + KEEP_ALIVE;
                    if self.as_events {
                        return Ok(Some(Bytes::from_static(b": alive\n\n")));
                    }
                }
            }
        }
    }

    /// What a reader is shown of a message; nothing of what they did not ask for.
    fn take(&mut self, sent: Sent) -> Result<Option<Bytes>> {
        let text = match sent {
            Sent::Opened => return Ok(None),
            Sent::Message(text) => text,
            Sent::End(reason) => {
                self.ended = true;
                return Ok(self.farewell(reason));
            }
        };
        let line: LogLine = serde_json::from_str(&text).map_err(Error::internal)?;
        if self.only.is_some_and(|only| only != line.stream) {
            return Ok(None);
        }
        Ok(Some(if self.as_events { event(&line) } else { plain(line) }))
    }

    fn farewell(&self, cause: Option<Cause>) -> Option<Bytes> {
        match (self.as_events, cause.map(|cause| cause.reason)) {
            (true, reason) => Some(Bytes::from(format!("event: end\ndata: {}\n\n", json!({ "reason": reason })))),
            (false, Some(reason)) => Some(Bytes::from(format!("[starlink] {reason}\n"))),
            (false, None) => None,
        }
    }
}

/// What an agent that cannot serve a stream is taken to mean.
fn refusal(cause: Cause) -> Error {
    match cause.code {
        WRONG_QUERY => Error::invalid("Last-Event-ID", cause.reason),
        UNKNOWN_WORK => {
            let reason = "the agent has no output of this attempt: it was not begun, or its end is longer ago than \
                          output is kept";
            Error::conflict("no_output", reason)
        }
        _ => Error::Unavailable { reason: cause.reason, source: None },
    }
}

fn event(line: &LogLine) -> Bytes {
    let id: String = line.cursor.chars().filter(char::is_ascii_graphic).collect();
    let data = json!({
        "at": line.at, "stream": line.stream, "text": line.text, "continues": line.continues,
    });
    Bytes::from(format!("id: {id}\nevent: line\ndata: {data}\n\n"))
}

fn plain(line: LogLine) -> Bytes {
    let mut text = line.text;
    if line.stream == LogStream::Agent {
        text.insert_str(0, "[starlink] ");
    }
    if !line.continues {
        text.push('\n');
    }
    Bytes::from(text)
}
