//! What the server is told of an operation.

use super::{Job, Operation, Outcome, Wish};
use crate::{client::Meaning, journal::Entry, logs, runner::ends, session::Told, work::WorkId};
use domain::{
    clock::Timestamp,
    error::with_causes,
    fleet::protocol::{End, ProgressReport, ResultReport, StartedReport},
};
use std::{convert::Infallible, future::pending, sync::Arc};
use tokio::sync::watch;

/// The longest sentence that is reported of an end, and of progress, in characters.
const LONGEST_DETAIL: usize = 2000;
const LONGEST_PROGRESS: usize = 500;

impl Operation {
    /// Tells the server how it ended, and removes what is left of it.
    pub(super) async fn settle(&self, work: Option<WorkId>, job: Option<Job>, outcome: Outcome) {
        let (end, is_wanted) = match outcome {
            Outcome::Left => return,
            Outcome::Ended(end) => (end, true),
            Outcome::GivenUp => (ends::lost("the server had given it up", self.shared.now()), false),
        };
        let end = End { detail: end.detail.map(|detail| detail.chars().take(LONGEST_DETAIL).collect()), ..end };
        let known = self.shared.journal.record(self.id);
        if known.as_ref().is_none_or(|record| record.end.is_none()) {
            self.shared
                .note(Entry::Ended { operation: self.id, work, deed: self.deed.clone(), end: end.clone() })
                .await;
        }
        if let Some(job) = &job {
            self.finish_log(job).await;
        }
        if is_wanted && !self.tell(end).await {
            return;
        }
        if !known.is_some_and(|record| record.reported) {
            self.shared.note(Entry::Reported { operation: self.id }).await;
        }
        if let Some(job) = job {
            self.remove(&job).await;
        }
    }

    /// Lets readers of the log know that nothing more will come, whatever its driver had the time to do.
    async fn finish_log(&self, job: &Job) {
        let folder = job.work.folder.clone();
        let finish = move || if folder.is_dir() { logs::finish(&folder) } else { Ok(()) };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(finish).await {
            tracing::warn!(%error, "the log of {} could not be finished", job.work.id);
        }
    }

    pub(super) async fn remove(&self, job: &Job) {
        if let Err(failure) = job.slot.driver.remove(&job.work).await {
            tracing::warn!("what is left of {} cannot be removed, which is tried again later: {failure}", job.work.id);
        }
    }

    /// Whether the server was told how it ended before the agent had to stop.
    pub(super) async fn tell(&self, end: End) -> bool {
        let report = |session: Arc<str>| {
            let report = ResultReport { session: session.to_string(), end: end.clone() };
            async move { self.shared.link.client().result(self.id, &report).await }
        };
        tokio::select! {
            told = self.shared.link.insist(report) => {
                tracing::info!("operation {} is over: {}", self.id, end.ending);
                if told == Told::Closed {
                    tracing::debug!("the server had closed operation {} before", self.id);
                }
                true
            }
            () = self.shared.stopping() => false,
        }
    }

    /// Tells in every session that it runs. Returns once the server does not want it to.
    pub(super) async fn tell_started(&self, started_at: Timestamp) {
        let mut told = None;
        loop {
            self.shared.link.session_besides(told.as_ref()).await;
            let report = |session: Arc<str>| {
                let report = StartedReport { session: session.to_string(), started_at };
                async move { self.shared.link.client().started(self.id, &report).await }
            };
            match self.shared.link.insist(report).await {
                Told::Accepted(session) => told = Some(session),
                Told::Closed => {
                    tracing::warn!("the server has given up operation {}: its work is ended and removed", self.id);
                    return;
                }
            }
        }
    }

    /// Tells what the start is at, as far as the server can be reached; the newest only, and not too often.
    pub(super) async fn tell_progress(&self, mut sayings: watch::Receiver<String>) -> Infallible {
        while sayings.changed().await.is_ok() {
            let message: String = sayings.borrow_and_update().chars().take(LONGEST_PROGRESS).collect();
            let session = self.shared.link.session_besides(None).await;
            let report = |session: Arc<str>| {
                let report = ProgressReport { session: session.to_string(), message: message.clone() };
                async move { self.shared.link.client().progress(self.id, &report).await }
            };
            if let Err(error) = self.shared.link.call(&session, report).await {
                if error.meaning() == Meaning::OperationClosed {
                    self.shared.wish(self.id, Wish::Abandon);
                }
                tracing::debug!("progress of operation {} was not told: {}", self.id, with_causes(&error));
            }
            tokio::time::sleep(self.shared.periods.progress).await;
        }
        pending().await
    }
}
