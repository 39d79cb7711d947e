//! What a rule would have done, had it been in force.

use super::{
    machine::{Phase, Reading, Step},
    rule::Rule,
};
use crate::{clock::Timestamp, fleet::Span, ids::ServerId};
use serde::Serialize;

/// The most days that are looked at.
pub const MOST_DAYS: i64 = 30;
/// The most periods that are told of one server, the newest; all are counted.
pub const MOST_PERIODS: usize = 100;

/// A time in which it would have fired.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Period {
    /// When it would have begun to hold.
    pub from: Timestamp,
    /// When it would have fired.
    pub fired_at: Timestamp,
    /// When it would have ended; nothing, if it still held.
    pub to: Option<Timestamp>,
    /// The loudest that was measured in it.
    pub peak: f64,
}

/// What would have been of one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// Which one.
    pub server: ServerId,
    /// What it is called.
    pub name: String,
    /// How often it would have fired.
    pub fired: usize,
    /// When, oldest first; at most [`MOST_PERIODS`].
    pub periods: Vec<Period>,
}

/// Replays readings, in the order of their times, through the same machine that judges rules in force. What was measured in
/// the spans, while the server was maintained, is left out, and nothing holds across them.
#[must_use]
pub fn replay(rule: &Rule, samples: &[(Timestamp, f64)], silent: &[Span]) -> Vec<Period> {
    let condition = &rule.spec.condition;
    let mut machine = rule.machine(Phase::Quiet, None);
    let (mut periods, mut current) = (Vec::new(), None::<(Timestamp, f64, Option<Timestamp>)>);
    for (at, value) in samples {
        let (at, value) = (*at, *value);
        if silent.iter().any(|span| span.from <= at && at < span.until) {
            machine.interrupt();
            continue;
        }
        for step in machine.step(&Reading { at, value, level: condition.level(value) }) {
            match step {
                Step::Pend => current = Some((at, value, None)),
                Step::Fire => {
                    if let Some((_, _, fired)) = &mut current {
                        *fired = Some(at);
                    }
                }
                Step::End(_) => {
                    if let Some((from, peak, Some(fired_at))) = current.take() {
                        periods.push(Period { from, fired_at, to: Some(at), peak });
                    }
                }
            }
        }
        if let Some((_, peak, _)) = &mut current {
            *peak = condition.louder(*peak, value);
        }
    }
    if let Some((from, peak, Some(fired_at))) = current {
        periods.push(Period { from, fired_at, to: None, peak });
    }
    periods
}

#[cfg(test)]
#[path = "preview_tests.rs"]
mod tests;
