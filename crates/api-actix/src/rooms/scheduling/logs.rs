//! The output of a task, as its server's agent sends it.

use crate::{
    ApiError,
    reply::{Media, Streamed},
    rooms::{
        Actor,
        fleet::{Cause, Ordered, Sent},
        output::{
            self, ALIVE, LastLine, LineUp, OneStream, Parts, UNKNOWN_WORK, Vigil, WRONG_QUERY, Watched, checked_tail,
            farewell, wants_events, write_event, write_plain,
        },
    },
};
use actix_web::{
    HttpRequest,
    web::{Bytes, Data},
};
use domain::{
    Error, Result,
    fleet::{
        AgentService,
        protocol::{LogLine, LogQuery, LogStream, StreamSource},
    },
    identity::Operation,
    ids::TaskId,
    scheduling::TaskService,
};
use paperclip::actix::api_v2_operation;
use schemars::JsonSchema;
use serde::Deserialize;

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
    #[schemars(range(min = 0, max = output::MOST_LINES))]
    tail: Option<u64>,
    /// Only one of the two.
    stream: Option<OneStream>,
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
    let tail = checked_tail(tail)?;
    let (server, attempt) = tasks.task_output(&actor, id.0, attempt).await?;
    agents.check_there(server)?;
    let query = LogQuery { task_id: id.0, attempt, follow: follow.unwrap_or(false), after: last.0, tail };
    let mut ordered = line.orders.order(&agents.into_inner(), server, StreamSource::Logs(query));
    let first = output::opened(&mut ordered).await.map_err(refusal)?;
    let as_events = wants_events(&request);
    let vigil = Vigil::new(&line, &request, Operation::TaskLogs);
    let only = stream.map(OneStream::word);
    let reader = Reader { ordered, first: Some(first), only, as_events, vigil, ended: false };
    let media_type = if as_events { "text/event-stream" } else { "text/plain" };
    Ok(Streamed::new(media_type, output::parts(reader)))
}

struct Reader {
    ordered: Ordered,
    /// What the agent sent first.
    first: Option<Sent>,
    only: Option<LogStream>,
    as_events: bool,
    vigil: Vigil,
    ended: bool,
}

impl Parts for Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.ended {
            let sent = match self.first.take() {
                Some(first) => Watched::Ready(Some(first)),
                None => self.vigil.over(self.ordered.next()).await,
            };
            match sent {
                Watched::Ready(None) | Watched::Over(_) => return Ok(None),
                Watched::Ready(Some(sent)) => {
                    if let Some(bytes) = self.take(sent)? {
                        return Ok(Some(bytes));
                    }
                }
                Watched::Quiet if self.as_events => return Ok(Some(ALIVE)),
                Watched::Quiet => {}
            }
        }
        Ok(None)
    }
}

impl Reader {
    /// What a reader is shown of a message; nothing of what they did not ask for.
    fn take(&mut self, sent: Sent) -> Result<Option<Bytes>> {
        let text = match sent {
            Sent::Opened | Sent::Binary(_) => return Ok(None),
            Sent::Message(text) => text,
            Sent::End(cause) => {
                self.ended = true;
                return Ok(farewell(self.as_events, cause.as_ref().map(|cause| &*cause.reason)));
            }
        };
        let line: LogLine = serde_json::from_str(&text).map_err(Error::internal)?;
        if self.only.is_some_and(|only| only != line.stream) {
            return Ok(None);
        }
        let mut shown = Vec::with_capacity(line.text.len() + 256);
        if self.as_events {
            write_event(&mut shown, "line", &line);
        } else {
            write_plain(&mut shown, &line);
        }
        Ok(Some(shown.into()))
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
