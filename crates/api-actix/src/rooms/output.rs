//! What readers of output share, whether a task wrote it or a container: how lines are shown, how long agents may take,
//! and when somebody may not go on reading.

use crate::{
    ApiError,
    auth::CredentialDigest,
    openapi::facts::{self, Fact},
    rooms::{
        fleet::{Cause, Orders, Sent},
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
    clock::Timestamp,
    fleet::protocol::{LogLine, LogStream},
    identity::{Operation, SessionService},
};
use futures_util::{Stream, StreamExt, stream};
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::Instrument;

/// How long an agent may take to open a stream.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long an agent that has opened a stream may take to refuse it.
pub(super) const MOMENT: Duration = Duration::from_millis(500);
/// A quiet stream says that it is alive this often, and whoever reads is asked for whether they still may.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// With what agents close a stream whose query is wrong.
pub(super) const WRONG_QUERY: u16 = 4400;
/// With what agents close a stream of something that they do not have.
pub(super) const UNKNOWN_WORK: u16 = 4404;
/// The most lines that can be asked for by their number.
pub(super) const MOST_LINES: u64 = 1_000_000;
/// Who takes nothing for so long of what there is for them has gone.
const UNREAD: Duration = Duration::from_mins(1);
/// What shows that a quiet stream of events is alive.
pub(super) const ALIVE: Bytes = Bytes::from_static(b": alive\n\n");

/// Why nothing goes on when the server stops.
pub(super) const STOPPING: &str = "the server stops";

/// What connects readers with agents.
pub struct LineUp {
    /// Orders streams of agents.
    pub orders: Orders,
    /// Says whether a reader may still read.
    pub sessions: Arc<SessionService>,
    /// Tells when the server is about to stop.
    pub stopping: Stopping,
}

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "LogStream")]
pub(super) enum OneStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OneStream {
    pub(super) fn word(self) -> LogStream {
        match self {
            Self::Stdout => LogStream::Stdout,
            Self::Stderr => LogStream::Stderr,
        }
    }
}

/// The cursor of the last line that a reader saw.
#[derive(Debug)]
pub(super) struct LastLine(pub(super) Option<String>);

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

/// So many of the last lines, if that is a number that can be asked for.
pub(super) fn checked_tail(tail: Option<u64>) -> Result<Option<u64>> {
    if tail.is_some_and(|tail| tail > MOST_LINES) {
        return Err(Error::invalid("tail", format!("must be from 0 to {MOST_LINES}")));
    }
    Ok(tail)
}

/// Whether a client that could have something else wants events.
pub(super) fn wants_events(request: &HttpRequest) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|part| part.trim().starts_with("text/event-stream"))
}

/// Waits until an agent has opened a stream: what it sent first, which is [`Sent::Opened`] if it has nothing to send yet.
///
/// # Errors
/// Why it does not serve it. An agent that cannot says so at once.
pub(super) async fn opened(mut messages: impl Stream<Item = Sent> + Unpin) -> Result<Sent, Cause> {
    if !matches!(timeout(PATIENCE, messages.next()).await, Ok(Some(Sent::Opened))) {
        return Err(silent());
    }
    match timeout(MOMENT, messages.next()).await {
        Ok(Some(Sent::End(Some(cause)))) => Err(cause),
        Ok(Some(sent)) => Ok(sent),
        Ok(None) => Err(silent()),
        Err(_elapsed) => Ok(Sent::Opened),
    }
}

/// The agent did not do what it was asked for.
pub(super) fn silent() -> Cause {
    Cause { code: 0, reason: "the agent of the server did not answer in time; try again".to_owned() }
}

/// Whether somebody may go on with what they have begun: not when the server stops, nor when the secret that they came
/// with opens it no more.
pub(super) struct Vigil {
    sessions: Arc<SessionService>,
    operation: Operation,
    digest: String,
    /// When to make sure.
    doubtful: Instant,
    stopping: watch::Receiver<bool>,
}

/// What has become of something that was waited for.
pub(super) enum Watched<T> {
    /// It is there.
    Ready(T),
    /// Nothing has come for a while, or it is time to make sure that the other side is there.
    Quiet,
    /// There is no going on, for this reason.
    Over(&'static str),
}

impl Vigil {
    pub(super) fn new(line: &Data<LineUp>, request: &HttpRequest, operation: Operation) -> Self {
        let digest = request.extensions().get::<CredentialDigest>().map(|digest| digest.0.clone()).unwrap_or_default();
        Self {
            sessions: line.sessions.clone(),
            operation,
            digest,
            doubtful: Instant::now() + KEEP_ALIVE,
            stopping: line.stopping.0.clone(),
        }
    }

    /// Whether the server is about to stop.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits for something, which may be given up half-way and is asked for again then.
    pub(super) async fn over<T>(&mut self, work: impl Future<Output = T>) -> Watched<T> {
        let done = tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => return Watched::Over(STOPPING),
            () = tokio::time::sleep_until(self.doubtful) => None,
            done = work => Some(done),
        };
        if let Some(done) = done {
            // What ends because the server stops must not look like an end of its own, whoever hears of it first.
            return if self.is_stopping() { Watched::Over(STOPPING) } else { Watched::Ready(done) };
        }
        // A revoked token must not go on reading through what it opened before.
        let still = self.sessions.still(&self.digest, None).await;
        if still.is_ok_and(|actor| actor.authorize(self.operation).is_ok()) {
            self.doubtful = Instant::now() + KEEP_ALIVE;
            Watched::Quiet
        } else {
            Watched::Over("the token or session that this was opened with may not do it any more")
        }
    }
}

/// Parts of a stream, each made when the one before has been taken.
pub(super) trait Parts {
    /// The next one; `None` if there are no more.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>>;
}

/// The same as a stream. Who takes nothing of it for a while, though there is something, loses it: parts hold places that
/// others want, and what nobody polls would hold them for ever.
pub(super) fn parts<P: Parts + 'static>(mut parts: P) -> impl Stream<Item = Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(1);
    let making = async move {
        while let Some(part) = parts.next().await? {
            match timeout(UNREAD, sender.send(part)).await {
                Ok(Ok(())) => {}
                Ok(Err(_gone)) => break,
                Err(_elapsed) => {
                    let reason = "what was sent was not read, so the stream was given up".to_owned();
                    return Err(Error::Unavailable { reason, source: None });
                }
            }
        }
        Ok(())
    };
    let making = Making(actix_web::rt::spawn(making.in_current_span()));
    stream::unfold(Some((receiver, making)), |state| async {
        let (mut receiver, mut making) = state?;
        if let Some(part) = receiver.recv().await {
            return Some((Ok(part), Some((receiver, making))));
        }
        let end = (&mut making.0).await.unwrap_or_else(|error| Err(Error::internal(error)));
        end.err().map(|error| (Err(error), None))
    })
}

/// Whoever makes the parts of a stream; dropped, they stop.
struct Making(JoinHandle<Result<()>>);

impl Drop for Making {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A line without its place, which is the event's id.
#[derive(Serialize)]
struct LineView<'a> {
    at: Timestamp,
    stream: LogStream,
    text: &'a str,
    continues: bool,
}

/// Writes a line as an event of this name. Its text cannot end the event: JSON has no raw line breaks.
pub(super) fn write_event(into: &mut Vec<u8>, name: &str, line: &LogLine) {
    into.extend_from_slice(b"id: ");
    into.extend(line.cursor.bytes().filter(u8::is_ascii_graphic));
    into.extend_from_slice(b"\nevent: ");
    into.extend_from_slice(name.as_bytes());
    into.extend_from_slice(b"\ndata: ");
    let view = LineView { at: line.at, stream: line.stream, text: &line.text, continues: line.continues };
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(&mut *into, &view);
    into.extend_from_slice(b"\n\n");
}

/// Writes a line as it is; what the agent says is marked.
pub(super) fn write_plain(into: &mut Vec<u8>, line: &LogLine) {
    if line.stream == LogStream::Agent {
        into.extend_from_slice(b"[starlink] ");
    }
    into.extend_from_slice(line.text.as_bytes());
    if !line.continues {
        into.push(b'\n');
    }
}

/// How the end of a stream is told: always in events, in plain text only if it is not the natural one.
pub(super) fn farewell(as_events: bool, reason: Option<&str>) -> Option<Bytes> {
    if as_events {
        return Some(Bytes::from(format!("event: end\ndata: {}\n\n", json!({ "reason": reason }))));
    }
    let reason: String = reason?.chars().filter(|c| !c.is_control()).collect();
    Some(Bytes::from(format!("[starlink] {reason}\n")))
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
