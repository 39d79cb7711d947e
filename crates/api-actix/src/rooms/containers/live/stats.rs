//! What a container uses, over HTTP.

use super::{
    Live,
    closings::{NOT_RUNNING, explained},
    places::TakenPlace,
};
use crate::{
    ApiError,
    extract::Id,
    reply::{Media, Readings},
    rooms::{
        Actor,
        containers::dto::UsageView,
        fleet::{Cause, Sent},
        output::{self, ALIVE, LineUp, Parts, UNKNOWN_WORK, Vigil, Watched, farewell, silent, wants_events},
    },
};
use actix_web::{
    HttpRequest,
    web::{Bytes, Data},
};
use domain::{
    Error, Result,
    containers::{Container, ContainerService, Usage, wire::ContainerQuery},
    fleet::{AgentService, protocol::StreamSource},
    identity::Operation,
    ids::ContainerId,
};
use futures_util::{StreamExt, stream::BoxStream};
use paperclip::actix::api_v2_operation;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a single reading may take that tells the CPU as well, which takes two.
const SINGLE: Duration = Duration::from_secs(3);

/// What containers use, again and again.
#[derive(Debug)]
pub(super) struct UsageMedia;

impl Media for UsageMedia {
    const TYPES: &'static [&'static str] = &["text/event-stream"];
    const DESCRIPTION: &'static str = "The next reading, or one event `usage` a second with such a document as `data`, \
        until the event `end` with the `reason`.";
}

/// Watch what a container uses
///
/// With `Accept: text/event-stream` one reading a second, until the container ends; otherwise the next reading, which
/// takes a second or two. 409 `not_running` if the container does not run, 503 while its agent cannot be reached.
#[api_v2_operation(tags("containers"), operation_id = "container_stats")]
pub(super) async fn container_stats(
    request: HttpRequest,
    actor: Actor,
    id: Id<ContainerId>,
    containers: Data<ContainerService>,
    agents: Data<AgentService>,
    live: Data<Live>,
    line: Data<LineUp>,
) -> Result<Readings<UsageView, UsageMedia>, ApiError> {
    let container = containers.container_watch(&actor, Operation::ContainerStats, id.0).await?;
    let place = live.readings.take(&actor)?;
    let query = ContainerQuery { engine_id: container.observed.engine_id.clone() };
    let source = StreamSource::ContainerStats(query);
    let server = container.server_id;
    let mut ordered = explained(server, line.orders.order(&agents.into_inner(), server, source)).boxed();
    let first = output::opened(&mut ordered).await.map_err(|cause| refusal(cause, &container))?;
    let readings = Counted { ordered, first: Some(first), _place: place };
    if !wants_events(&request) {
        return Ok(Readings::One(single(readings, &container).await?.into()));
    }
    let vigil = Vigil::new(&line, &request, Operation::ContainerStats);
    Ok(Readings::stream("text/event-stream", output::parts(Watcher { readings, vigil, ended: false })))
}

/// What the agent sends.
struct Counted {
    ordered: BoxStream<'static, Sent>,
    first: Option<Sent>,
    _place: TakenPlace,
}

impl Counted {
    /// The next reading; why there is none, if it is not that the container has ended.
    async fn next(&mut self) -> Result<Option<Usage>, Cause> {
        loop {
            let sent = match self.first.take() {
                Some(first) => Some(first),
                None => self.ordered.next().await,
            };
            match sent {
                Some(Sent::Opened | Sent::Binary(_)) => {}
                Some(Sent::Message(text)) => {
                    return serde_json::from_str(&text).map(Some).map_err(|error| unread(&error));
                }
                Some(Sent::End(None)) => return Ok(None),
                Some(Sent::End(Some(cause))) => return Err(cause),
                None => return Err(silent()),
            }
        }
    }
}

fn unread(error: &serde_json::Error) -> Cause {
    tracing::warn!(%error, "an agent sent a reading that cannot be read");
    Cause { code: 0, reason: "the agent sent a reading that cannot be read".to_owned() }
}

/// The first reading that tells the CPU, or the last one that comes in time.
async fn single(mut readings: Counted, container: &Container) -> Result<Usage> {
    let deadline = Instant::now() + SINGLE;
    let mut last = None;
    loop {
        match (timeout_at(deadline, readings.next()).await, last) {
            (Ok(Ok(Some(usage))), _) if usage.cpu_percent.is_some() => return Ok(usage),
            (Ok(Ok(Some(usage))), _) => last = Some(usage),
            (_, Some(usage)) => return Ok(usage),
            (Ok(Ok(None)), None) => return Err(not_running(container)),
            (Ok(Err(cause)), None) => return Err(refusal(cause, container)),
            (Err(_elapsed), None) => return Err(refusal(silent(), container)),
        }
    }
}

fn refusal(cause: Cause, container: &Container) -> Error {
    match cause.code {
        NOT_RUNNING => not_running(container),
        UNKNOWN_WORK => Error::not_found("container", format!("{} any more: its engine has none", container.id)),
        _ => Error::Unavailable { reason: cause.reason, source: None },
    }
}

fn not_running(container: &Container) -> Error {
    let reason = format!("container \"{}\" does not run, so it uses nothing; start it first", container.observed.name);
    Error::conflict("not_running", reason)
}

struct Watcher {
    readings: Counted,
    vigil: Vigil,
    ended: bool,
}

impl Parts for Watcher {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let end = match self.vigil.over(self.readings.next()).await {
            Watched::Ready(Ok(Some(usage))) => return event(usage).map(Some),
            Watched::Quiet => return Ok(Some(ALIVE)),
            Watched::Over(_) => return Ok(None),
            Watched::Ready(Ok(None)) => None,
            Watched::Ready(Err(cause)) => Some(cause.reason),
        };
        self.ended = true;
        Ok(farewell(true, end.as_deref()))
    }
}

fn event(usage: Usage) -> Result<Bytes> {
    let data = serde_json::to_string(&UsageView::from(usage)).map_err(Error::internal)?;
    Ok(Bytes::from(format!("event: usage\ndata: {data}\n\n")))
}
