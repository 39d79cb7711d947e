//! Servers in the order in which they stand. The best is looked at, taken out, and put back where it stands by then.
//!
//! What is put back mostly belongs behind most of the others. It waits in a heap beside those that are sorted, until it
//! is worth sorting in. So the work is done in runs of memory; in one heap of all, each server would be sunk through
//! its whole height, a cache miss at almost every step, which is several times as slow once there are many such heaps.

use super::rank::Standing;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

/// So many may wait beside none that are sorted: to sort fewer is not worth it.
const FEW: usize = 64;

/// Servers of one pool, by how they stand; one that was put in twice may stand twice.
#[derive(Debug, Default)]
pub(super) struct Standings {
    sorted: VecDeque<Standing>,
    late: BinaryHeap<Reverse<Standing>>,
}

/// How many entries there may be, with so many servers.
pub(super) fn most(servers: usize) -> usize {
    2 * servers + FEW
}

impl From<Vec<Standing>> for Standings {
    fn from(mut all: Vec<Standing>) -> Self {
        all.shrink_to_fit();
        all.sort_unstable();
        Self { sorted: all.into(), late: BinaryHeap::new() }
    }
}

impl Standings {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.late.len()
    }

    /// The best.
    pub(super) fn best(&self) -> Option<Standing> {
        let late = self.late.peek().map(|Reverse(late)| *late);
        self.sorted.front().copied().into_iter().chain(late).min()
    }

    /// Takes the best out. Whatever else there was of its server may be gone by then or not, so if it still stands, it
    /// has to be put in again.
    pub(super) fn drop_best(&mut self) {
        let late = self.late.peek().map(|Reverse(late)| late);
        if self.sorted.front().is_some_and(|sorted| late.is_none_or(|late| sorted <= late)) {
            self.sorted.pop_front();
        } else {
            self.late.pop();
        }
    }

    /// Puts one in.
    pub(super) fn add(&mut self, standing: Standing) {
        self.late.push(Reverse(standing));
        if self.late.len() >= self.sorted.len() + FEW {
            self.sort_in();
        }
    }

    /// Sorts in what waits. Of a server that stands twice, only its better place is kept.
    fn sort_in(&mut self) {
        let mut late: Vec<Standing> = self.late.drain().map(|Reverse(late)| late).collect();
        late.sort_unstable();
        self.sorted.extend(late);
        // This sort finds two sorted runs, and merges them.
        self.sorted.make_contiguous().sort();
        let slots = self.sorted.iter().map(|standing| standing.slot() + 1).max().unwrap_or_default();
        let mut met = vec![false; slots];
        self.sorted.retain(|standing| !std::mem::replace(&mut met[standing.slot()], true));
    }
}

#[cfg(test)]
#[path = "standings_tests.rs"]
mod tests;
