//! The stream of changes: the audit log, read on as it grows. Where a restore puts another log in its place, the stream
//! goes on with the row of that restore.

use crate::{
    ApiError,
    openapi::facts::{self, Fact},
    reply::Media,
};
use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Bytes};
use domain::{
    FieldError, Result,
    audit::{AuditService, Event, Head, event_of},
    identity::{Actor, SessionService},
};
use futures_util::{Stream, stream};
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use serde_json::json;
use std::{
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// A quiet stream says that it is alive this often; changes by another process are noticed as late.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A stream of events.
#[derive(Debug)]
pub(super) struct EventMedia;

impl Media for EventMedia {
    const TYPES: &'static [&'static str] = &["text/event-stream"];
    const DESCRIPTION: &'static str = "Events as they happen, until either side hangs up.";
}

/// Tells when something was committed.
#[derive(Debug, Clone)]
pub struct Changes(pub watch::Receiver<Head>);

/// Tells when the server is about to stop, so that streams can end before it waits for them.
#[derive(Debug, Clone)]
pub struct Stopping(pub watch::Receiver<bool>);

/// The id of the last event that a reader saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastEventId(pub(super) Option<i64>);

impl FromRequest for LastEventId {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let wrong = || FieldError::new("Last-Event-ID", "must be the id of an event").into();
        let id = request.headers().get("last-event-id").map(|value| {
            value.to_str().ok().and_then(|text| text.parse().ok()).filter(|id| *id >= 0).ok_or_else(wrong)
        });
        ready(id.transpose().map(Self))
    }
}

impl Apiv2Schema for LastEventId {}
impl OperationModifier for LastEventId {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(
            operation,
            Fact::Header {
                name: "Last-Event-ID",
                description: "The id of the last event that was seen; the stream goes on after it.",
                schema: json!({ "type": "integer", "format": "int64", "minimum": 0 }),
            },
        );
    }
}

/// Who reads a stream, and with what.
pub(super) struct Watcher {
    /// Who it was when the stream was opened.
    pub(super) actor: Arc<Actor>,
    /// The digest of the secret that opened it.
    pub(super) digest: String,
    /// Says what the secret opens by now.
    pub(super) sessions: Arc<SessionService>,
}

impl Watcher {
    /// Whether the secret is still good; what it opens may have changed meanwhile.
    async fn renew(&mut self) -> bool {
        match self.sessions.still(&self.digest, self.actor.request_id.clone()).await {
            Ok(actor) => {
                self.actor = Arc::new(actor);
                true
            }
            Err(_) => false,
        }
    }
}

struct Reader {
    watcher: Watcher,
    audit: Arc<AuditService>,
    changes: watch::Receiver<Head>,
    stopping: watch::Receiver<bool>,
    /// The last row that was read; its hash tells whether the log is still the same one.
    place: Head,
    greeted: bool,
}

/// The events after this place in the log.
pub(super) fn stream(
    watcher: Watcher,
    audit: Arc<AuditService>,
    changes: &Changes,
    stopping: &Stopping,
    place: Head,
) -> impl Stream<Item = Result<Bytes>> + use<> {
    let (changes, stopping) = (changes.0.clone(), stopping.0.clone());
    let reader = Reader { watcher, audit, changes, stopping, place, greeted: false };
    stream::try_unfold(reader, |mut reader| async move {
        let part = reader.next().await?;
        Ok(part.map(|part| (part, reader)))
    })
}

impl Reader {
    /// The next part of the stream; `None` when the server stops, or the secret that opened the stream is not good any
    /// more: a revoked token must not go on reading through what it opened before.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if !self.greeted {
            // Lets the client see at once that the stream is open.
            self.greeted = true;
            return Ok(Some(Bytes::from_static(b": watching\n\n")));
        }
        loop {
            self.changes.borrow_and_update();
            let (rows, place) = self.audit.event_step(&self.place).await?;
            // In this order nothing is told that was committed after the secret was revoked.
            if !self.watcher.renew().await {
                return Ok(None);
            }
            self.place = place;
            if !rows.is_empty() {
                let events: Vec<u8> = rows
                    .iter()
                    .filter_map(|row| event_of(row, &self.watcher.actor))
                    .flat_map(|event| written(&event))
                    .collect();
                if events.is_empty() {
                    continue;
                }
                return Ok(Some(events.into()));
            }
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.stopping.wait_for(|stopping| *stopping) => return Ok(None),
                () = tokio::time::sleep(KEEP_ALIVE) => return Ok(Some(Bytes::from_static(b": alive\n\n"))),
            }
        }
    }
}

fn written(event: &Event) -> Vec<u8> {
    let data = json!({ "id": event.id, "kind": event.kind, "target": event.target, "at": event.at });
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind).into_bytes()
}
