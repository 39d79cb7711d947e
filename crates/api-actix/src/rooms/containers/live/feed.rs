//! A container's output from its agent, whatever becomes of the connection.
//!
//! Invariant: a stream that breaks off is ordered anew after the last line that came, so nothing is lost or comes twice.

use super::closings::UNSUPPORTED;
use crate::rooms::{
    fleet::{Cause, Sent},
    output::{PATIENCE, UNKNOWN_WORK, WRONG_QUERY, silent},
};
use domain::{
    Result,
    containers::{
        LogCursor,
        wire::{ContainerLogQuery, LogBatch},
    },
};
use futures_util::{StreamExt, stream::BoxStream};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long to wait before the first try to have a stream again, and before later ones.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(2);
/// A stream that was open for so long had come back.
const STEADY: Duration = Duration::from_secs(5);

/// Orders a stream of a container's output.
pub(super) type Opener = Arc<dyn Fn(ContainerLogQuery) -> Result<BoxStream<'static, Sent>> + Send + Sync>;

/// What comes of a feed.
#[derive(Debug)]
pub(super) enum Fed {
    /// Lines.
    Batch(LogBatch),
    /// The natural end.
    End,
    /// An end that is not, after which nothing comes.
    Failed(Cause),
}

/// One stream, or several of which each goes on where the one before broke off.
pub(super) struct Feed {
    open: Opener,
    query: ContainerLogQuery,
    patience: Duration,
    messages: Option<BoxStream<'static, Sent>>,
    /// When the agent opened the stream.
    opened: Option<Instant>,
    /// Until when it has to.
    deadline: Instant,
    /// Since when nothing has come because the stream is broken.
    broken: Option<Instant>,
    again: Instant,
    pause: Duration,
    last: Option<LogCursor>,
}

impl Feed {
    /// One that fails at the first break; see [`Feed::patient`].
    pub(super) fn new(open: Opener, query: ContainerLogQuery) -> Self {
        let now = Instant::now();
        Self {
            open,
            query,
            patience: Duration::ZERO,
            messages: None,
            opened: None,
            deadline: now,
            broken: None,
            again: now,
            pause: SOON,
            last: None,
        }
    }

    /// From now on it fails only when it has been broken for so long.
    pub(super) fn patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The place of the last line that came.
    pub(super) fn last(&self) -> Option<LogCursor> {
        self.last
    }

    /// Whether the agent has opened the stream.
    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// What comes next. Nothing is lost when this is given up half-way.
    pub(super) async fn next(&mut self) -> Fed {
        loop {
            let step = match &mut self.messages {
                None => {
                    sleep_until(self.again).await;
                    self.order()
                }
                Some(messages) if self.opened.is_some() => Ok(messages.next().await),
                Some(messages) => timeout_at(self.deadline, messages.next()).await.map_err(|_elapsed| silent()),
            };
            let fed = match step {
                Ok(sent) => self.take(sent),
                Err(cause) => self.broke(cause),
            };
            if let Some(fed) = fed {
                return fed;
            }
        }
    }

    fn order(&mut self) -> Result<Option<Sent>, Cause> {
        let mut query = self.query.clone();
        if let Some(last) = self.last {
            query = ContainerLogQuery { after: Some(last.to_string()), since: None, tail: None, ..query };
        }
        let messages = (self.open)(query).map_err(|error| Cause { code: 0, reason: error.to_string() })?;
        self.messages = Some(messages);
        self.opened = None;
        self.deadline = Instant::now() + PATIENCE;
        // As good as a message of which nothing is shown.
        Ok(Some(Sent::Binary(actix_web::web::Bytes::new())))
    }

    fn take(&mut self, sent: Option<Sent>) -> Option<Fed> {
        match sent {
            Some(Sent::Opened) => {
                self.opened = Some(Instant::now());
                None
            }
            Some(Sent::Binary(_)) => None,
            Some(Sent::Message(text)) => Some(self.read(&text)),
            Some(Sent::End(None)) => Some(Fed::End),
            Some(Sent::End(Some(cause))) => self.broke(cause),
            None => self.broke(silent()),
        }
    }

    fn read(&mut self, text: &str) -> Fed {
        let nonsense = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "an agent sent output that cannot be read");
            Fed::Failed(Cause { code: 0, reason: "the agent sent output that cannot be read".to_owned() })
        };
        let batch: LogBatch = match serde_json::from_str(text) {
            Ok(batch) => batch,
            Err(error) => return nonsense(&error),
        };
        match batch.lines.last().map(|line| LogCursor::parse(&line.cursor)).transpose() {
            Ok(last) => self.last = last.or(self.last),
            Err(error) => return nonsense(&error),
        }
        self.broken = None;
        self.pause = SOON;
        Fed::Batch(batch)
    }

    /// Tries again in a while, unless there is no point, or no patience left.
    fn broke(&mut self, cause: Cause) -> Option<Fed> {
        let now = Instant::now();
        self.messages = None;
        if self.opened.take().is_some_and(|opened| now.duration_since(opened) > STEADY) {
            self.broken = None;
            self.pause = SOON;
        }
        let since = *self.broken.get_or_insert(now);
        let is_final = matches!(cause.code, WRONG_QUERY | UNKNOWN_WORK | UNSUPPORTED);
        if is_final || now.duration_since(since) >= self.patience {
            return Some(Fed::Failed(cause));
        }
        self.again = now + self.pause;
        self.pause = (self.pause * 2).min(LATER);
        None
    }
}
