//! The last blocks of a container's output, for several readers at once.
//!
//! Invariants: it never takes more memory than it has room for, but for one block; whoever asks for what is not there any
//! more is told exactly how many lines that were.

use super::block::{Block, CHUNK, Tally, View};
use std::{collections::VecDeque, sync::Arc};

/// Blocks, and what has gone by before them.
#[derive(Debug)]
pub(super) struct Ring {
    kept: VecDeque<Kept>,
    /// The number of the first that is kept, or of the next one.
    first: u64,
    bytes: usize,
    room: usize,
    /// What has gone by at the end.
    passed: Tally,
}

#[derive(Debug)]
struct Kept {
    block: Arc<Block>,
    /// What has gone by before it.
    before: Tally,
}

/// How far a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    block: u64,
    line: usize,
    passed: Tally,
}

impl Place {
    /// The number of the block.
    pub(super) fn block(&self) -> u64 {
        self.block
    }
}

/// What there is for a reader.
#[derive(Debug)]
pub(super) enum Found {
    /// The next blocks.
    Blocks(Vec<Arc<Block>>),
    /// Nothing yet.
    Nothing,
    /// What they had not read is gone; this is the first place that is left.
    Overrun(Place),
}

impl Ring {
    /// One with room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        Self { kept: VecDeque::new(), first: 0, bytes: 0, room, passed: Tally::default() }
    }

    /// The place behind everything.
    pub(super) fn end(&self) -> Place {
        Place { block: self.after(), line: 0, passed: self.passed }
    }

    fn after(&self) -> u64 {
        self.first + u64::try_from(self.kept.len()).unwrap_or(u64::MAX)
    }

    /// How much memory it takes, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first block that stays if one of this size is added.
    pub(super) fn first_to_stay(&self, bytes: usize) -> u64 {
        let mut left = self.bytes + bytes;
        let goes = |kept: &&Kept| {
            let over = left > self.room;
            left -= kept.block.bytes();
            over
        };
        self.first + u64::try_from(self.kept.iter().take_while(goes).count()).unwrap_or(u64::MAX)
    }

    /// Adds a block, and lets go of the oldest for which there is no room.
    pub(super) fn push(&mut self, block: Block) {
        let bytes = block.bytes();
        while self.bytes + bytes > self.room
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= oldest.block.bytes();
            self.first += 1;
        }
        let before = self.passed;
        self.passed = block.counted(before);
        self.bytes += bytes;
        self.kept.push_back(Kept { block: Arc::new(block), before });
    }

    /// What there is from a place on: as many blocks as make about a chunk.
    pub(super) fn find(&self, place: &Place) -> Found {
        let Some(index) = place.block.checked_sub(self.first) else {
            let passed = self.kept.front().map_or(self.passed, |kept| kept.before);
            return Found::Overrun(Place { block: self.first, line: 0, passed });
        };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let enough = |kept: &&Kept| {
            let more = bytes < CHUNK;
            bytes += kept.block.longest_text();
            more
        };
        let blocks: Vec<_> = self.kept.iter().skip(index).take_while(enough).map(|kept| kept.block.clone()).collect();
        if blocks.is_empty() { Found::Nothing } else { Found::Blocks(blocks) }
    }
}

/// Writes what a reader is shown of blocks that were found, and moves on.
pub(super) fn show(place: &mut Place, view: &mut View, blocks: &[Arc<Block>]) -> Vec<u8> {
    let mut chunk = Vec::new();
    for block in blocks {
        if chunk.len() >= CHUNK {
            break;
        }
        (place.line, place.passed) = view.write(&mut chunk, block, place.line, place.passed);
        if View::is_done(block, place.line) {
            (place.block, place.line) = (place.block + 1, 0);
        }
    }
    chunk
}

/// Tells a reader what they missed, and moves on to what is left.
pub(super) fn skip(place: &mut Place, view: &mut View, left: Place) -> Vec<u8> {
    let lines = left.passed.since(&place.passed, view.only);
    *place = left;
    let mut chunk = Vec::new();
    if lines > 0 {
        view.write_dropped(&mut chunk, lines);
    }
    chunk
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
