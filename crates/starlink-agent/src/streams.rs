//! Streams that the server orders: the agent opens a WebSocket for each, and sends into it.
//!
//! Invariants: so many at once and no more; a stream buffers next to nothing, so that a reader who is slow slows down
//! only his own; one that cannot be served is closed with the reason. Codes of closing: 1000 `end`; 1011 with what went
//! wrong; 4400 with what is wrong with the query; 4404 `unknown_work`; 4501 `unsupported`; 4503 `busy`.

use crate::{
    client::{Client, Meaning, Socket},
    logs::{self, LogError},
    runner::Drivers,
    session::{Backoff, Patience},
    state::StateDir,
    work::WorkId,
};
use domain::{
    error::with_causes,
    fleet::protocol::{ImageQuery, LogQuery, StreamOrder, StreamSource},
};
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Serialize;
use std::{collections::VecDeque, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_tungstenite::tungstenite::{
    self, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// The most streams at once.
pub const MOST: usize = 32;
/// The most that are being turned away at once.
const MOST_REFUSALS: usize = 8;
/// How often connecting is tried: the server orders a stream once, and has somebody waiting.
const TRIES: u32 = 3;
/// How long the other side may take to accept what is sent, or to close.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the container engine may take over a short question.
const MOMENT: Duration = Duration::from_secs(2);
/// How many ids are remembered, so that none is opened twice.
const REMEMBERED: usize = 256;
/// The longest reason of a closing that a WebSocket carries, in bytes.
const LONGEST_REASON: usize = 120;

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
    places: Semaphore,
    refusals: Semaphore,
}

impl Streams {
    pub(crate) fn new(client: Client, sources: Sources, ping: Duration, patience: Patience) -> Self {
        let (places, refusals) = (Semaphore::new(MOST), Semaphore::new(MOST_REFUSALS));
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

/// Why a stream is closed.
struct Closing {
    code: CloseCode,
    reason: String,
}

impl Closing {
    fn new(code: u16, reason: impl std::fmt::Display) -> Self {
        let mut reason = reason.to_string();
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        Self { code: CloseCode::from(code), reason }
    }
}

/// Why there is nobody to send to any more.
enum Gone {
    /// The other side has closed.
    Closed,
    /// It does not answer.
    Silent,
    /// The connection is broken.
    Broken(tungstenite::Error),
}

impl From<tungstenite::Error> for Gone {
    fn from(error: tungstenite::Error) -> Self {
        Self::Broken(error)
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, order: StreamOrder) {
        let place = self.places.try_acquire();
        if place.is_err() && self.refusals.try_acquire().is_err() {
            tracing::warn!("a stream was not opened: {MOST} are open, and more are being turned away");
            return;
        }
        let Some(mut socket) = self.connect(&order.id).await else { return };
        let outcome = match (place, order.source) {
            (Err(_), _) => Ok(Closing::new(4503, "busy")),
            (Ok(_), StreamSource::Unknown) => Ok(Closing::new(4501, "unsupported")),
            (Ok(_), StreamSource::Logs(query)) => self.logs(&mut socket, query).await,
            (Ok(_), StreamSource::Image(query)) => self.image(&mut socket, &query).await,
        };
        match outcome {
            Ok(closing) => close(socket, closing).await,
            Err(Gone::Closed) => {}
            Err(Gone::Silent) => tracing::debug!("a stream's other side does not answer any more"),
            Err(Gone::Broken(error)) => tracing::debug!(%error, "a stream broke off"),
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

    async fn logs(&self, socket: &mut Socket, query: LogQuery) -> Result<Closing, Gone> {
        let folder = self.folder(&query);
        if !folder.is_dir() {
            return Ok(Closing::new(4404, "unknown_work"));
        }
        let mut lines = match logs::Lines::open(&folder, query).await {
            Ok(lines) => lines,
            Err(error) => return Ok(refused(&error)),
        };
        let mut pings = interval_at(Instant::now() + self.ping, self.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = 0;
        loop {
            // What is there is sent in one go; what is still to come is waited for.
            let line = if let Some(line) = lines.next().now_or_never() {
                line
            } else {
                in_time(socket.flush()).await?;
                tokio::select! {
                    line = lines.next() => line,
                    heard = socket.next() => {
                        hear(heard)?;
                        unanswered = 0;
                        continue;
                    }
                    _ = pings.tick() => {
                        if unanswered > 1 {
                            return Err(Gone::Silent);
                        }
                        unanswered += 1;
                        in_time(socket.send(Message::Ping(Vec::new().into()))).await?;
                        continue;
                    }
                }
            };
            match line {
                Ok(Some(line)) => in_time(socket.feed(message(&line))).await?,
                Ok(None) => return Ok(Closing::new(1000, "end")),
                Err(error) => return Ok(refused(&error)),
            }
        }
    }

    async fn image(&self, socket: &mut Socket, query: &ImageQuery) -> Result<Closing, Gone> {
        let Ok(answer) = timeout(MOMENT, self.sources.drivers.image(&query.name)).await else {
            return Ok(Closing::new(1011, "the container engine does not answer"));
        };
        match answer {
            Ok(Some(image)) => in_time(socket.send(message(&image))).await?,
            Ok(None) => {}
            Err(failure) => return Ok(Closing::new(1011, failure)),
        }
        Ok(Closing::new(1000, "end"))
    }

    fn folder(&self, query: &LogQuery) -> PathBuf {
        let Sources { state, installation, .. } = &self.sources;
        let (installation, task, attempt) = (installation.clone(), query.task_id, query.attempt);
        state.work_folder(&WorkId { installation, task, attempt })
    }
}

fn refused(error: &LogError) -> Closing {
    match error {
        LogError::Cursor(_) => Closing::new(4400, error),
        LogError::Io(_) => Closing::new(1011, error),
    }
}

fn message(what: &impl Serialize) -> Message {
    // Nothing that is sent can fail to be written as JSON.
    Message::text(serde_json::to_string(what).unwrap_or_default())
}

fn hear(heard: Option<Result<Message, tungstenite::Error>>) -> Result<(), Gone> {
    match heard {
        None | Some(Ok(Message::Close(_))) => Err(Gone::Closed),
        Some(Err(error)) => Err(error.into()),
        Some(Ok(_)) => Ok(()),
    }
}

async fn in_time(sending: impl Future<Output = Result<(), tungstenite::Error>>) -> Result<(), Gone> {
    match timeout(PATIENCE, sending).await {
        Ok(sent) => sent.map_err(Gone::from),
        Err(_) => Err(Gone::Silent),
    }
}

/// Closes, and waits for the other side to do so too, so that nothing that was sent is thrown away.
async fn close(mut socket: Socket, closing: Closing) {
    let frame = CloseFrame { code: closing.code, reason: closing.reason.into() };
    let closed = async {
        socket.close(Some(frame)).await?;
        while let Some(heard) = socket.next().await {
            heard?;
        }
        Ok::<_, tungstenite::Error>(())
    };
    if let Ok(Err(error)) = timeout(PATIENCE, closed).await {
        tracing::debug!(%error, "a stream broke off while it was closed");
    }
}
