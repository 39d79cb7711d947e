//! What was read of a container's output and not sent yet.
//!
//! Bounded: what was there before it was asked for waits until there is room. Of what is written later, the oldest is
//! dropped and counted, so that whoever reads slowly sees the present, and how much is missing before it.

use super::Piece;
use crate::drivers::docker::engine::Trouble;
use std::{
    collections::VecDeque,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// The most that waits, in bytes.
const MOST_WAITING: usize = 4 << 20;
/// The most of one batch.
const MOST_LINES: usize = 512;
const MOST_TEXT: usize = 256 << 10;

/// Whether a line may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// It was there before it was asked for.
    History,
    /// It came later.
    News,
}

/// Lines to be sent together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// How many lines before them were dropped.
    pub(crate) dropped: u64,
    pub(crate) lines: Vec<Piece>,
}

/// Holds lines between one who reads them from the engine and one who sends them.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    state: Mutex<State>,
    more: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<(Piece, Age)>,
    bytes: usize,
    /// How many of the lines may not be dropped.
    kept: usize,
    dropped: u64,
    end: Option<Result<(), Trouble>>,
}

impl Buffer {
    /// Adds a line, as soon as there is room for it. Whoever takes lines out is told by [`Buffer::tell`].
    pub(super) async fn push(&self, piece: Piece, age: Age) {
        let mut piece = Some(piece);
        loop {
            let room = self.room.notified();
            self.state().offer(&mut piece, age);
            if piece.is_none() {
                return;
            }
            self.more.notify_one();
            room.await;
        }
    }

    /// Tells that there are more lines.
    pub(super) fn tell(&self) {
        self.more.notify_one();
    }

    /// Nothing comes any more.
    pub(crate) fn end(&self, how: Result<(), Trouble>) {
        self.state().end = Some(how);
        self.more.notify_one();
    }

    /// The next lines, as soon as there are some; how it ended, after the last of them.
    pub(crate) async fn next(&self) -> Result<Batch, Result<(), Trouble>> {
        loop {
            let more = self.more.notified();
            if let Some(next) = self.take() {
                return next;
            }
            more.await;
        }
    }

    /// Whether more is there than one batch may have.
    pub(crate) fn is_behind(&self) -> bool {
        let state = self.state();
        state.lines.len() >= MOST_LINES || state.bytes >= MOST_TEXT || state.end.is_some()
    }

    fn take(&self) -> Option<Result<Batch, Result<(), Trouble>>> {
        let mut state = self.state();
        if state.lines.is_empty() {
            return state.end.clone().map(Err);
        }
        let mut batch = Batch { dropped: mem::take(&mut state.dropped), lines: Vec::new() };
        let mut text = 0;
        while batch.lines.len() < MOST_LINES
            && let Some((piece, _)) = state.lines.front()
            && (batch.lines.is_empty() || text + piece.text.len() <= MOST_TEXT)
        {
            text += piece.text.len();
            batch.lines.extend(state.pop());
        }
        drop(state);
        self.room.notify_one();
        Some(Ok(batch))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the line, if it may be had now.
    fn offer(&mut self, piece: &mut Option<Piece>, age: Age) {
        let Some(size) = piece.as_ref().map(size) else { return };
        while age == Age::News && self.kept == 0 && self.bytes + size > MOST_WAITING && self.pop().is_some() {
            self.dropped += 1;
        }
        if self.bytes + size <= MOST_WAITING || self.lines.is_empty() {
            self.bytes += size;
            self.kept += usize::from(age == Age::History);
            self.lines.extend(piece.take().map(|piece| (piece, age)));
        }
    }

    fn pop(&mut self) -> Option<Piece> {
        let (piece, age) = self.lines.pop_front()?;
        self.bytes -= size(&piece);
        self.kept -= usize::from(age == Age::History);
        Some(piece)
    }
}

/// What a line takes, its cursor and the like included.
fn size(piece: &Piece) -> usize {
    piece.text.len() + mem::size_of::<(Piece, Age)>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{containers::LogCursor, fleet::protocol::LogStream};
    use futures_util::FutureExt;

    fn piece(count: u64, length: usize) -> Piece {
        let cursor = LogCursor { count, ..LogCursor::default() };
        Piece { cursor, at: 0, stream: LogStream::Stdout, text: "x".repeat(length), continues: false }
    }

    fn counts(batch: &Batch) -> Vec<u64> {
        batch.lines.iter().map(|piece| piece.cursor.count).collect()
    }

    #[tokio::test]
    async fn the_oldest_news_are_dropped_and_counted() {
        let buffer = Buffer::default();
        for count in 0..100 {
            buffer.push(piece(count, 64 << 10), Age::News).now_or_never().unwrap();
        }
        let batch = buffer.next().await.unwrap();
        let first = batch.lines.first().unwrap().cursor.count;
        assert_eq!(batch.dropped, first);
        let mut next = first;
        let mut all = vec![batch];
        while let Some(batch) = buffer.next().now_or_never() {
            all.push(batch.unwrap());
        }
        for batch in &all {
            for count in counts(batch) {
                assert_eq!(count, next);
                next += 1;
            }
        }
        assert_eq!((next, all.iter().map(|batch| batch.dropped).sum::<u64>()), (100, first));
    }

    #[tokio::test]
    async fn history_waits_for_room_and_news_wait_for_history() {
        let buffer = Buffer::default();
        let mut count = 0;
        while buffer.push(piece(count, 64 << 10), Age::History).now_or_never().is_some() {
            count += 1;
        }
        assert!(buffer.push(piece(1000, 64 << 10), Age::News).now_or_never().is_none());
        let mut taken = 0;
        while let Some(batch) = buffer.next().now_or_never() {
            let batch = batch.unwrap();
            assert_eq!(batch.dropped, 0);
            taken += batch.lines.len();
        }
        assert_eq!(u64::try_from(taken).unwrap(), count);
    }

    #[tokio::test]
    async fn batches_are_bounded_and_the_end_comes_last() {
        let buffer = Buffer::default();
        for count in 0..600 {
            buffer.push(piece(count, 10), Age::History).await;
        }
        buffer.push(piece(600, 2 * MOST_TEXT), Age::History).await;
        buffer.end(Ok(()));
        for lines in [512, 88, 1] {
            assert_eq!(buffer.next().await.unwrap().lines.len(), lines);
        }
        assert_eq!(buffer.next().await, Err(Ok(())));
    }
}
