//! One who reads a container's output: first what was before, from a stream of their own, then what comes, from the hub.
//!
//! Invariants: nothing is shown twice and nothing is left out without a word. Who sits at the hub reads what was before
//! to an end that is not earlier than where the hub's part begins, and then leaves out of the hub's part what they have
//! seen. If the hub lets go of something meanwhile, what was before is read again from the last line on: it is read more
//! often than that only to count what is missing.

use super::{
    block::{Block, Pile, Torn, View, Wanted, pieces},
    feed::{Fed, Feed, Opener},
    hub::{Ended, Heard, STAMINA, Seat},
};
use crate::rooms::fleet::Cause;
use domain::containers::{
    EngineId, NoCursor,
    wire::{ContainerLogQuery, LogBatch},
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often what was before is read again to be shown, and then again to be counted.
const ROUNDS: u32 = 5;

/// Makes streams of what was before.
pub(super) struct Archive {
    pub(super) open: Opener,
    pub(super) engine_id: EngineId,
    /// How many may be open at once.
    pub(super) places: Arc<Semaphore>,
}

/// A stream of what was before.
pub(super) struct Past {
    pub(super) feed: Feed,
    /// Its place among those that are open; none yet, if it has to wait for one.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// Who reads.
pub(super) struct Reader {
    pub(super) view: View,
    pub(super) archive: Archive,
    /// What was before, until it has been read.
    pub(super) past: Option<Past>,
    /// What the agent sent first.
    pub(super) first: Option<Fed>,
    /// Where what comes is heard, if the reader follows.
    pub(super) seat: Option<Seat>,
    pile: Pile,
    torn: Torn,
    rounds: u32,
    /// How many lines are not shown, once the reader is too slow to be shown everything.
    missed: Option<u64>,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Text, which may be empty.
    Text(Vec<u8>),
    /// The end, with the reason if it is not that all was sent.
    End(Option<String>),
}

impl Reader {
    pub(super) fn new(view: View, archive: Archive, past: Option<Past>, seat: Option<Seat>) -> Self {
        Self {
            view,
            archive,
            past,
            first: None,
            seat,
            pile: Pile::default(),
            torn: Torn::default(),
            rounds: 0,
            missed: None,
        }
    }

    /// What comes next. Nothing is lost when this is given up half-way.
    pub(super) async fn next(&mut self) -> Step {
        let text = self.pile.take(&mut self.view);
        if !text.is_empty() {
            return Step::Text(text);
        }
        match (&mut self.past, &mut self.seat) {
            (Some(past), _) => {
                if past.place.is_none() {
                    past.place = self.archive.places.clone().acquire_owned().await.ok();
                }
                let fed = match self.first.take() {
                    Some(first) => first,
                    None => past.feed.next().await,
                };
                self.read(fed)
            }
            (None, Some(seat)) => match seat.hear(&mut self.view) {
                Heard::Text(text) => Step::Text(text),
                Heard::Nothing => {
                    seat.wait().await;
                    Step::Text(Vec::new())
                }
                Heard::Overrun => {
                    seat.restart();
                    self.read_again();
                    Step::Text(Vec::new())
                }
                Heard::Ended(Ended::Failed(cause)) => Step::End(Some(cause.reason)),
                Heard::Ended(ended) => Step::End(Some(ended.reason().to_owned())),
            },
            (None, None) => Step::End(None),
        }
    }

    /// Takes in what was before.
    fn read(&mut self, fed: Fed) -> Step {
        match fed {
            Fed::Batch(batch) => match self.pile_up(&batch) {
                Ok(()) => Step::Text(self.pile.take(&mut self.view)),
                Err(error) => Step::End(Some(error.to_string())),
            },
            Fed::Failed(Cause { reason, .. }) => Step::End(Some(reason)),
            Fed::End => self.turn_to_the_hub(),
        }
    }

    fn pile_up(&mut self, batch: &LogBatch) -> Result<(), NoCursor> {
        let wanted = Wanted::only(self.view.format);
        for (dropped, lines) in pieces(batch) {
            let block = Block::write(dropped, lines, wanted, &mut self.torn)?;
            match &mut self.missed {
                Some(missed) => *missed += self.view.count(&block),
                None => self.pile.push(block),
            }
        }
        Ok(())
    }

    /// What was before has been read.
    fn turn_to_the_hub(&mut self) -> Step {
        let last = self.past.take().and_then(|past| past.feed.last());
        // Of what was before nothing can be in what comes, if there was nothing.
        self.view.after = last.or(self.view.after);
        let Some(seat) = &mut self.seat else { return Step::End(None) };
        if seat.is_whole() {
            let mut text = Vec::new();
            if let Some(lines) = self.missed.take().filter(|lines| *lines > 0) {
                self.view.write_dropped(&mut text, lines);
            }
            return Step::Text(text);
        }
        if self.rounds >= 2 * ROUNDS {
            let reason = "more is written than can be read: ask again with tail, or after the last id";
            return Step::End(Some(reason.to_owned()));
        }
        seat.restart();
        self.read_again();
        Step::Text(Vec::new())
    }

    /// Reads what the hub has let go of from the agent, behind what was shown.
    fn read_again(&mut self) {
        self.rounds += 1;
        if self.rounds > ROUNDS && self.missed.is_none() {
            self.missed = Some(0);
        }
        let query = ContainerLogQuery {
            engine_id: self.archive.engine_id.clone(),
            follow: false,
            after: self.view.after.map(|after| after.to_string()),
            since: None,
            tail: None,
        };
        let mut feed = Feed::new(self.archive.open.clone(), query);
        feed.patient(STAMINA);
        self.past = Some(Past { feed, place: None });
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
