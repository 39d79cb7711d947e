//! The output of a container over HTTP.

use super::{
    Live, MOST,
    block::{Format, View},
    closings::FAULT,
    feed::{Fed, Feed},
    opener,
    places::TakenPlace,
    reader::{Archive, Past, Reader, Step},
};
use crate::{
    ApiError,
    extract::{Id, Query},
    reply::{Media, Streamed},
    rooms::{
        Actor,
        fleet::Cause,
        output::{
            self, ALIVE, LastLine, LineUp, MOMENT, OneStream, PATIENCE, Parts, UNKNOWN_WORK, Vigil, WRONG_QUERY,
            Watched, checked_tail, farewell, silent, wants_events,
        },
    },
};
use actix_web::{
    HttpRequest,
    web::{Bytes, Data},
};
use domain::{
    Error, Result,
    clock::Timestamp,
    containers::{Container, ContainerService, LogCursor, wire::ContainerLogQuery},
    fleet::AgentService,
    identity::Operation,
    ids::ContainerId,
};
use paperclip::actix::api_v2_operation;
use schemars::JsonSchema;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// The output of a container.
#[derive(Debug)]
pub(super) struct OutputMedia;

impl Media for OutputMedia {
    const TYPES: &'static [&'static str] = &["text/plain", "text/event-stream"];
    const DESCRIPTION: &'static str = "The lines, oldest first: as they are, or as events. `line` and `mark` have the \
        line's place as `id`, and `at`, `stream`, `text` and `continues` (the line goes on in the next event of its \
        stream); `dropped` has `lines`, how many are missing here; `end` has the `reason`.";
}

/// Which lines are wanted.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct OutputQuery {
    /// Whether to go on with what is written later, across restarts, until the container is removed.
    follow: Option<bool>,
    /// Only what was written at this time or later.
    since: Option<Timestamp>,
    /// Only so many of the last lines that are there; `stream` chooses among these.
    #[schemars(range(min = 0, max = output::MOST_LINES))]
    tail: Option<u64>,
    /// Only one of the two, without what the agent says.
    stream: Option<OneStream>,
    /// Whether lines in plain text begin with the time at which they were written.
    timestamps: Option<bool>,
    /// As `Last-Event-ID`, for clients that cannot send that. Where both are given, the header counts; where either is,
    /// `since` and `tail` do not.
    #[schemars(length(min = 1, max = 128))]
    after: Option<String>,
}

/// Read the output of a container
///
/// Lines, oldest first, from the engine of its server: 503 while the agent there cannot be reached, 409
/// `logs_unreadable` if the engine's log driver keeps none. With `follow`, what is written later comes as well, across
/// restarts of the container and of the agent, until the container is removed; who reads more slowly than others is told
/// how many lines they miss. With `Accept: text/event-stream` each line is an event, and a reader that sends the id of
/// the last one as `Last-Event-ID` goes on after it.
#[api_v2_operation(tags("containers"), operation_id = "container_logs")]
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
pub(super) async fn container_logs(
    request: HttpRequest,
    actor: Actor,
    id: Id<ContainerId>,
    query: Query<OutputQuery>,
    last: LastLine,
    containers: Data<ContainerService>,
    agents: Data<AgentService>,
    live: Data<Live>,
    line: Data<LineUp>,
) -> Result<Streamed<OutputMedia>, ApiError> {
    let asked = Asked::read(query.0, last, wants_events(&request))?;
    let container = containers.container_watch(&actor, Operation::ContainerLogs, id.0).await?;
    let place = live.outputs.take(&actor)?;
    let vigil = Vigil::new(&line, &request, Operation::ContainerLogs);
    let reader = asked.reader(&live, &line, &agents.into_inner(), &container).await?;
    let as_events = asked.format == Format::Events;
    let media_type = if as_events { "text/event-stream" } else { "text/plain" };
    Ok(Streamed::new(media_type, output::parts(Watching { reader, vigil, as_events, ended: false, _place: place })))
}

/// Read the output of a container, at its other path
///
/// The same as `/api/containers/{id}/logs`.
#[api_v2_operation(tags("containers"), operation_id = "container_logs_alias")]
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
pub(super) async fn container_logs_alias(
    request: HttpRequest,
    actor: Actor,
    id: Id<ContainerId>,
    query: Query<OutputQuery>,
    last: LastLine,
    containers: Data<ContainerService>,
    agents: Data<AgentService>,
    live: Data<Live>,
    line: Data<LineUp>,
) -> Result<Streamed<OutputMedia>, ApiError> {
    container_logs(request, actor, id, query, last, containers, agents, live, line).await
}

/// What is wanted, once it has been checked.
struct Asked {
    format: Format,
    follow: bool,
    since: Option<Timestamp>,
    tail: Option<u64>,
    after: Option<LogCursor>,
    /// Where that came from.
    named: &'static str,
    stream: Option<OneStream>,
}

impl Asked {
    fn read(query: OutputQuery, last: LastLine, as_events: bool) -> Result<Self> {
        let (named, after) = match last.0 {
            Some(last) => ("Last-Event-ID", Some(last)),
            None => ("after", query.after),
        };
        let after = after.map(|after| LogCursor::parse(&after)).transpose();
        let after = after.map_err(|error| Error::invalid(named, error.to_string()))?;
        let format = match (as_events, query.timestamps.unwrap_or(false)) {
            (true, _) => Format::Events,
            (false, true) => Format::Stamped,
            (false, false) => Format::Plain,
        };
        let (tail, since) = (checked_tail(query.tail)?, query.since);
        // Who comes back must not miss what was written meanwhile, however much that is.
        let (tail, since) = if after.is_some() { (None, None) } else { (tail, since) };
        let follow = query.follow.unwrap_or(false);
        Ok(Self { format, follow, since, tail, after, named, stream: query.stream })
    }

    /// Whoever reads, once the agent has shown that it can serve it.
    async fn reader(
        &self,
        places: &Live,
        line: &Data<LineUp>,
        agents: &Arc<AgentService>,
        container: &Container,
    ) -> Result<Reader> {
        let refusal = |cause| self.refusal(cause, container);
        let (open, engine_id) = (opener(line, agents, container.server_id), &container.observed.engine_id);
        let mut seat =
            if self.follow { Some(places.hubs.join(container.id, engine_id, &open, self.format)?) } else { None };
        if let Some(seat) = &mut seat {
            timeout(PATIENCE, seat.opened()).await.unwrap_or_else(|_elapsed| Err(silent())).map_err(refusal)?;
        }
        let mut view = View::new(self.format, self.stream.map(OneStream::word), self.since);
        view.after = self.after;
        let archive = Archive { open, engine_id: engine_id.clone(), places: places.archives.clone() };
        // The hub's part begins where the output ended when it was begun, or later.
        if self.follow && self.tail == Some(0) {
            return Ok(Reader::new(view, archive, None, seat));
        }
        let place = places.archives.clone().try_acquire_owned().map_err(|_full| too_many())?;
        let query = ContainerLogQuery {
            engine_id: engine_id.clone(),
            follow: false,
            after: self.after.map(|after| after.to_string()),
            since: self.since,
            tail: self.tail,
        };
        let mut feed = Feed::new(archive.open.clone(), query);
        let first = first(&mut feed).await.map_err(refusal)?;
        feed.patient(super::hub::STAMINA);
        let mut reader = Reader::new(view, archive, Some(Past { feed, place: Some(place) }), seat);
        reader.first = first;
        Ok(reader)
    }

    /// What an agent that cannot serve it is taken to mean.
    fn refusal(&self, cause: Cause, container: &Container) -> Error {
        match cause.code {
            WRONG_QUERY => Error::invalid(self.named, cause.reason),
            UNKNOWN_WORK => Error::not_found("container", format!("{} any more: its engine has none", container.id)),
            FAULT => Error::conflict("logs_unreadable", format!("the output cannot be read: {}", cause.reason)),
            _ => Error::Unavailable { reason: cause.reason, source: None },
        }
    }
}

fn too_many() -> Error {
    let reason = format!("{MOST} outputs of containers are read from their beginning, as many as can be; try again");
    Error::Exhausted { reason, retry_after: Duration::from_secs(5) }
}

/// What comes first, if it comes at once, as it does if it is a refusal.
async fn first(feed: &mut Feed) -> Result<Option<Fed>, Cause> {
    let mut patience = PATIENCE;
    loop {
        match timeout(patience, feed.next()).await {
            Ok(Fed::Failed(cause)) => return Err(cause),
            Ok(first) => return Ok(Some(first)),
            Err(_elapsed) if feed.is_open() => return Ok(None),
            Err(_elapsed) => patience = MOMENT,
        }
    }
}

/// A reader who may be told at any moment that they may read no more.
struct Watching {
    reader: Reader,
    vigil: Vigil,
    as_events: bool,
    ended: bool,
    _place: TakenPlace,
}

impl Parts for Watching {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.ended {
            match self.vigil.over(self.reader.next()).await {
                Watched::Over(_) => return Ok(None),
                // What is left out must not keep others from their turn.
                Watched::Ready(Step::Text(text)) if text.is_empty() => tokio::task::yield_now().await,
                Watched::Ready(Step::Text(text)) => return Ok(Some(text.into())),
                Watched::Ready(Step::End(reason)) => {
                    self.ended = true;
                    return Ok(farewell(self.as_events, reason.as_deref()));
                }
                Watched::Quiet if self.as_events => return Ok(Some(ALIVE)),
                Watched::Quiet => {}
            }
        }
        Ok(None)
    }
}
