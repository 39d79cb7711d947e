//! Streams that the server orders: the agent opens a WebSocket for each, and sends into it.
//!
//! Invariants: so many at once and no more, of which what lasts never takes all; a stream buffers little, or drops what is
//! old and says how much, so that a reader who is slow slows down nothing but his own stream; one that cannot be served is
//! closed with the reason. Codes of closing: 1000 `end`; 1011 with what went wrong; 4400 with what is wrong with the
//! query; 4404 `unknown_work` or `unknown_container`; 4409 `not_running`; 4501 `unsupported`; 4503 `busy`; 4504
//! `engine_away` with how.

mod attempt;
mod containers;
mod exec;
mod link;

use crate::{
    client::{Client, Meaning, Socket},
    runner::Drivers,
    session::{Backoff, Patience},
    state::StateDir,
};
use domain::{
    error::with_causes,
    fleet::protocol::{StreamOrder, StreamSource},
};
use link::{Closing, Gone, Link};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
};

/// The most streams at once.
pub const MOST: usize = 32;
/// The most among them that go on for as long as somebody watches; the rest is for what is short, and for programs.
pub const MOST_WATCHED: usize = 24;
/// The most programs in containers among them.
pub const MOST_EXECS: usize = 16;
/// The most that are not over at once: questions always find a place beside these.
pub const MOST_LASTING: usize = 28;
/// The most that are being turned away at once.
const MOST_REFUSALS: usize = 8;
/// How often connecting is tried: the server orders a stream once, and has somebody waiting.
const TRIES: u32 = 3;
/// How many ids are remembered, so that none is opened twice.
const REMEMBERED: usize = 256;

/// The streams of an agent. Dropped, it ends them all.
pub(crate) struct Streams {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    seen: VecDeque<String>,
}

/// Where what is sent comes from.
pub(crate) struct Sources {
    pub(crate) state: StateDir,
    pub(crate) drivers: Arc<Drivers>,
    pub(crate) installation: Arc<str>,
}

struct Shared {
    client: Client,
    sources: Sources,
    ping: Duration,
    patience: Patience,
    places: Places,
    refusals: Semaphore,
}

/// Places for streams, so that those that last leave some for those that do not.
struct Places {
    all: Semaphore,
    lasting: Semaphore,
    watched: Semaphore,
    execs: Semaphore,
}

impl Places {
    fn new() -> Self {
        Self {
            all: Semaphore::new(MOST),
            lasting: Semaphore::new(MOST_LASTING),
            watched: Semaphore::new(MOST_WATCHED),
            execs: Semaphore::new(MOST_EXECS),
        }
    }

    /// A place for such a stream, held with all that it counts as; none, if there is none.
    fn take(&self, source: &StreamSource) -> Option<Vec<SemaphorePermit<'_>>> {
        let kinds: &[&Semaphore] = match source {
            StreamSource::Logs(_) | StreamSource::ContainerLogs(_) | StreamSource::ContainerStats(_) => {
                &[&self.all, &self.lasting, &self.watched]
            }
            StreamSource::ContainerExec(_) => &[&self.all, &self.lasting, &self.execs],
            StreamSource::Image(_) | StreamSource::Images | StreamSource::Unknown => &[&self.all],
        };
        kinds.iter().map(|kind| kind.try_acquire().ok()).collect()
    }
}

impl Streams {
    pub(crate) fn new(client: Client, sources: Sources, ping: Duration, patience: Patience) -> Self {
        let (places, refusals) = (Places::new(), Semaphore::new(MOST_REFUSALS));
        let shared = Arc::new(Shared { client, sources, ping, patience, places, refusals });
        Self { shared, tasks: JoinSet::new(), seen: VecDeque::new() }
    }

    /// Opens a stream, unless that was done before. Says whether it was not.
    pub(crate) fn order(&mut self, order: StreamOrder) -> bool {
        while self.tasks.try_join_next().is_some() {}
        if self.seen.contains(&order.id) {
            return false;
        }
        if self.seen.len() >= REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(order.id.clone());
        self.tasks.spawn(self.shared.clone().serve(order));
        true
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, order: StreamOrder) {
        let place = self.places.take(&order.source);
        if place.is_none() && self.refusals.try_acquire().is_err() {
            tracing::warn!("a stream was not opened: as many as may be are open, and more are being turned away");
            return;
        }
        let Some(socket) = self.connect(&order.id).await else { return };
        let mut link = Link::new(socket, self.ping);
        let outcome = match place {
            None => Ok(Closing::new(4503, "busy")),
            Some(_) => self.send(&mut link, order.source).await,
        };
        match outcome {
            Ok(closing) => link.close(closing).await,
            Err(Gone::Closed) => {}
            Err(Gone::Silent) => tracing::debug!("a stream's other side does not answer any more"),
            Err(Gone::Broken(error)) => tracing::debug!(%error, "a stream broke off"),
        }
    }

    async fn send(&self, link: &mut Link, source: StreamSource) -> Result<Closing, Gone> {
        match source {
            StreamSource::Logs(query) => self.logs(link, query).await,
            StreamSource::Image(query) => self.image(link, &query).await,
            StreamSource::ContainerLogs(query) => self.container_logs(link, query).await,
            StreamSource::ContainerStats(query) => self.container_stats(link, &query).await,
            StreamSource::Images => self.images(link).await,
            StreamSource::ContainerExec(query) => self.container_exec(link, &query).await,
            StreamSource::Unknown => Ok(Closing::new(4501, "unsupported")),
        }
    }

    async fn connect(&self, id: &str) -> Option<Socket> {
        let mut backoff = Backoff::new(self.patience);
        for _ in 0..TRIES {
            match self.client.stream(id).await {
                Ok(socket) => return Some(socket),
                Err(error) => {
                    tracing::debug!("a stream was not opened: {}", with_causes(&error));
                    if error.meaning() != Meaning::Again {
                        return None;
                    }
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
        None
    }
}
