//! What the machine's container engine has and does.

use super::{
    Shared,
    link::{Closing, Gone, Link},
};
use crate::drivers::docker::{
    Trouble,
    tail::{Batch, Buffer, Piece, Tail},
};
use chrono::DateTime;
use domain::{
    containers::{
        LogCursor,
        wire::{ContainerLogQuery, ContainerQuery, LogBatch},
    },
    fleet::protocol::{ImageQuery, LogLine},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// How long the container engine may take over a short question.
const MOMENT: Duration = Duration::from_secs(2);
/// What comes within this time after a message is sent together.
const PACE: Duration = Duration::from_millis(5);

impl Shared {
    pub(super) async fn image(&self, link: &mut Link, query: &ImageQuery) -> Result<Closing, Gone> {
        let Ok(answer) = timeout(MOMENT, self.sources.drivers.image(&query.name)).await else {
            return Ok(Closing::new(4504, "engine_away: it does not answer"));
        };
        match answer {
            Ok(Some(image)) => link.send(&image).await?,
            Ok(None) => {}
            Err(failure) => return Ok(Closing::new(1011, failure)),
        }
        Ok(Closing::end())
    }

    pub(super) async fn container_logs(&self, link: &mut Link, query: ContainerLogQuery) -> Result<Closing, Gone> {
        let Some(containers) = self.sources.drivers.containers() else { return Ok(no_engine()) };
        let after = match query.after.as_deref().map(LogCursor::parse).transpose() {
            Ok(after) => after,
            Err(error) => return Ok(Closing::new(4400, error)),
        };
        let buffer = Arc::new(Buffer::default());
        let into = Arc::clone(&buffer);
        // Apart from sending, so that a slow reader does not keep the newest from being read. Dropped, it ends.
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            let tail = Tail::new(&containers, &query, after, &into);
            let how = match tail {
                Ok(tail) => tail.run().await,
                Err(trouble) => Err(trouble),
            };
            into.end(how);
        });
        let mut next_at = Instant::now();
        loop {
            if !buffer.is_behind() {
                sleep_until(next_at).await;
            }
            let next = tokio::select! {
                next = buffer.next() => next,
                heard = link.attend() => {
                    heard?;
                    continue;
                }
            };
            match next {
                Ok(batch) => link.send(&log_batch(batch)).await?,
                Err(Ok(())) => return Ok(Closing::end()),
                Err(Err(trouble)) => return Ok(refused(&trouble)),
            }
            next_at = Instant::now() + PACE;
        }
    }
}

impl Shared {
    pub(super) async fn container_stats(&self, link: &mut Link, query: &ContainerQuery) -> Result<Closing, Gone> {
        let Some(containers) = self.sources.drivers.containers() else { return Ok(no_engine()) };
        match containers.is_running(&query.engine_id).await {
            Ok(true) => {}
            Ok(false) => return Ok(not_running()),
            Err(trouble) => return Ok(refused(&trouble)),
        }
        let mut usages = match containers.usages(&query.engine_id) {
            Ok(usages) => usages,
            Err(trouble) => return Ok(refused(&trouble)),
        };
        loop {
            let usage = tokio::select! {
                usage = usages.next() => usage,
                heard = link.attend() => {
                    heard?;
                    continue;
                }
            };
            match usage {
                Ok(Some(usage)) => link.send(&usage).await?,
                Ok(None) => return Ok(Closing::end()),
                Err(trouble) => return Ok(refused(&trouble)),
            }
        }
    }

    pub(super) async fn images(&self, link: &mut Link) -> Result<Closing, Gone> {
        let Some(containers) = self.sources.drivers.containers() else { return Ok(no_engine()) };
        let images = containers.images();
        tokio::pin!(images);
        let images = loop {
            tokio::select! {
                images = &mut images => break images,
                heard = link.attend() => drop(heard?),
            }
        };
        match images {
            Ok(images) => link.send(&images).await?,
            Err(trouble) => return Ok(refused(&trouble)),
        }
        Ok(Closing::end())
    }
}

pub(super) fn not_running() -> Closing {
    Closing::new(4409, "not_running")
}

pub(super) fn no_engine() -> Closing {
    Closing::new(4504, "engine_away: this agent uses none")
}

pub(super) fn refused(trouble: &Trouble) -> Closing {
    match trouble {
        Trouble::Missing(_) => Closing::new(4404, "unknown_container"),
        Trouble::Away(how) => Closing::new(4504, format_args!("engine_away: {how}")),
        trouble => Closing::new(1011, trouble),
    }
}

fn log_batch(batch: Batch) -> LogBatch {
    LogBatch { dropped: batch.dropped, lines: batch.lines.into_iter().map(log_line).collect() }
}

fn log_line(piece: Piece) -> LogLine {
    let Piece { cursor, at, stream, text, continues } = piece;
    let at = DateTime::from_timestamp_nanos(i64::try_from(at).unwrap_or(i64::MAX));
    LogLine { cursor: cursor.to_string(), at, stream, text, continues }
}
