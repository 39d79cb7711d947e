//! What one reading after the other does to a condition that is watched. Rules that are in force and rules that are only
//! tried out are judged by this, and by nothing else.

use super::alert::AlertReason;
use crate::{clock::Timestamp, observability::FRESH};
use chrono::TimeDelta;

/// What is older than this tells nothing of now, as everywhere, and what is further apart is no time in which anything held.
pub const STALE: TimeDelta = FRESH;

/// What a value says of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It holds.
    Loud,
    /// It would not begin to hold, nor is it over.
    Between,
    /// It is over.
    Quiet,
}

/// What was seen at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// When.
    pub at: Timestamp,
    /// What.
    pub value: f64,
    /// What that says.
    pub level: Level,
}

/// How far an occurrence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is none.
    Quiet,
    /// It holds since then, and not for long enough.
    Pending {
        /// Since when.
        since: Timestamp,
    },
    /// It has held for long enough, and is not over.
    Firing,
}

/// What happens at a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It begins to hold.
    Pend,
    /// It has held for long enough.
    Fire,
    /// It ends.
    End(AlertReason),
}

/// One condition on one subject.
#[derive(Debug, Clone)]
pub struct Machine {
    hold: TimeDelta,
    patience: Option<TimeDelta>,
    phase: Phase,
    last: Option<Timestamp>,
}

impl Machine {
    /// A condition that must hold for so long. With `patience`, readings that are further apart than that say nothing of
    /// the time between them; `last` is when the one before was.
    #[must_use]
    pub fn new(hold: TimeDelta, patience: Option<TimeDelta>, phase: Phase, last: Option<Timestamp>) -> Self {
        Self { hold, patience, phase, last }
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes in a reading that is later than those before; one that is not is none.
    pub fn step(&mut self, reading: &Reading) -> Vec<Step> {
        if self.last.is_some_and(|last| reading.at <= last) {
            return Vec::new();
        }
        let mut steps = Vec::new();
        if let Phase::Pending { .. } = self.phase
            && self.is_gap_before(reading.at)
        {
            steps.push(self.end(AlertReason::NoData));
        }
        self.last = Some(reading.at);
        match (self.phase, reading.level) {
            (Phase::Quiet, Level::Loud) => {
                self.phase = Phase::Pending { since: reading.at };
                steps.push(Step::Pend);
                steps.extend(self.fire(reading));
            }
            (Phase::Pending { .. }, Level::Loud) => steps.extend(self.fire(reading)),
            (Phase::Pending { .. } | Phase::Firing, Level::Quiet) => steps.push(self.end(AlertReason::Cleared)),
            (Phase::Quiet, Level::Between | Level::Quiet)
            | (Phase::Pending { .. }, Level::Between)
            | (Phase::Firing, Level::Loud | Level::Between) => {}
        }
        steps
    }

    /// Forgets what has not held for long enough: what comes next is judged anew.
    pub fn interrupt(&mut self) {
        if let Phase::Pending { .. } = self.phase {
            self.phase = Phase::Quiet;
        }
    }

    fn is_gap_before(&self, at: Timestamp) -> bool {
        self.last.zip(self.patience).is_some_and(|(last, patience)| at - last > patience)
    }

    fn fire(&mut self, reading: &Reading) -> Option<Step> {
        let Phase::Pending { since } = self.phase else { return None };
        if reading.at - since < self.hold {
            return None;
        }
        self.phase = Phase::Firing;
        Some(Step::Fire)
    }

    fn end(&mut self, reason: AlertReason) -> Step {
        self.phase = Phase::Quiet;
        Step::End(reason)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
