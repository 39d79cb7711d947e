//! Keeps refusals from filling the disk: the first of its kind in a minute is recorded at once, its repeats are
//! counted and recorded as one row when the minute is over.

use super::model::Refusal;
use crate::clock::Timestamp;
use chrono::TimeDelta;
use std::collections::HashMap;

/// How long repeats are counted together.
const WINDOW: TimeDelta = TimeDelta::minutes(1);
/// Kinds of unproven refusals told apart per source and window: enough for a person, too few for a flood.
const KINDS_PER_SOURCE: usize = 16;
/// Kinds told apart in all; beyond, everything counts as one.
const KINDS: usize = 4096;

/// What makes two refusals the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RefusalKey {
    source: String,
    actor: String,
    action: String,
    target: Option<String>,
    reason: String,
}

impl RefusalKey {
    fn of(refusal: &Refusal) -> Self {
        Self {
            source: refusal.source.clone(),
            actor: refusal.actor.clone(),
            action: refusal.action.clone(),
            target: refusal.target.clone(),
            reason: refusal.reason.clone(),
        }
    }
}

/// What to do with a refusal now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write a row.
    Record,
    /// Nothing: it is counted, and told when the minute is over.
    Counted,
}

/// Counts refusals by kind.
#[derive(Debug, Default)]
pub struct RefusalMeter {
    open: HashMap<RefusalKey, Window>,
    kinds_of: HashMap<String, usize>,
}

#[derive(Debug)]
struct Window {
    since: Timestamp,
    repeats: u64,
    first: Refusal,
}

impl RefusalMeter {
    /// Notes a refusal. The caller records it if the verdict says so.
    pub fn note(&mut self, refusal: &Refusal, now: Timestamp) -> Verdict {
        let key = self.key(refusal);
        if let Some(window) = self.open.get_mut(&key) {
            window.repeats += 1;
            return Verdict::Counted;
        }
        if !refusal.proven {
            *self.kinds_of.entry(key.source.clone()).or_default() += 1;
        }
        let RefusalKey { source, actor, action, target, reason } = key.clone();
        let first = Refusal { actor, source, action, target, reason, ..refusal.clone() };
        self.open.insert(key, Window { since: now, repeats: 0, first });
        Verdict::Record
    }

    /// The kinds whose minute is over (all of them, if `everything`) and that had repeats, with their number.
    pub fn close(&mut self, now: Timestamp, everything: bool) -> Vec<(Refusal, u64)> {
        let over = |window: &Window| everything || now - window.since >= WINDOW;
        let closed: Vec<_> = self.open.extract_if(|_, window| over(window)).map(|(_, window)| window).collect();
        self.kinds_of.clear();
        for window in self.open.values().filter(|window| !window.first.proven) {
            *self.kinds_of.entry(window.first.source.clone()).or_default() += 1;
        }
        closed.into_iter().filter(|w| w.repeats > 0).map(|w| (w.first, w.repeats)).collect()
    }

    /// Takes back what [`Self::close`] gave, because it could not be written.
    pub fn reopen(&mut self, closed: impl IntoIterator<Item = (Refusal, u64)>, now: Timestamp) {
        for (first, repeats) in closed {
            let key = RefusalKey::of(&first);
            self.open.entry(key).or_insert(Window { since: now, repeats: 0, first }).repeats += repeats;
        }
    }

    fn key(&self, refusal: &Refusal) -> RefusalKey {
        let exact = RefusalKey::of(refusal);
        if refusal.proven || self.open.contains_key(&exact) {
            return exact;
        }
        let lumped = |source: &str| RefusalKey {
            source: source.to_owned(),
            actor: "anonymous".to_owned(),
            action: "request.refuse".to_owned(),
            target: None,
            reason: "more refusals than are told apart".to_owned(),
        };
        if self.open.len() >= KINDS {
            return lumped("many sources");
        }
        let kinds = self.kinds_of.get(&refusal.source).copied().unwrap_or_default();
        if kinds >= KINDS_PER_SOURCE { lumped(&refusal.source) } else { exact }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(actor: &str, source: &str) -> Refusal {
        Refusal {
            actor: actor.to_owned(),
            proven: false,
            source: source.to_owned(),
            action: "session.create".to_owned(),
            target: None,
            reason: "wrong password".to_owned(),
            request_id: None,
        }
    }

    #[test]
    fn the_first_is_recorded_and_its_repeats_are_counted() {
        let (mut meter, now) = (RefusalMeter::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(meter.note(&refusal("alice", "10.0.0.1"), now), Verdict::Record);
        assert_eq!(meter.note(&refusal("alice", "10.0.0.1"), now), Verdict::Counted);
        assert_eq!(meter.note(&refusal("bob", "10.0.0.1"), now), Verdict::Record);
        assert!(meter.close(now, false).is_empty(), "the minute is not over");
        let closed = meter.close(now + WINDOW, false);
        assert_eq!(closed, [(refusal("alice", "10.0.0.1"), 1)]);
        assert_eq!(meter.note(&refusal("alice", "10.0.0.1"), now + WINDOW), Verdict::Record);
    }

    #[test]
    fn a_flood_of_names_from_many_sources_records_a_bounded_number_of_rows() {
        let (mut meter, now) = (RefusalMeter::default(), Timestamp::UNIX_EPOCH);
        let one_source = (0..10_000).filter(|n| meter.note(&refusal(&format!("u{n}"), "a"), now) == Verdict::Record);
        assert_eq!(one_source.count(), KINDS_PER_SOURCE + 1);
        let many = (0..100_000).filter(|n| meter.note(&refusal("x", &format!("s{n}")), now) == Verdict::Record);
        assert!(many.count() <= KINDS + 1);
        let told: u64 = meter.close(now + WINDOW, false).iter().map(|(_, repeats)| repeats).sum();
        assert!(told > 100_000, "none of them is lost: {told}");
    }

    #[test]
    fn what_is_lumped_together_is_told_as_such() {
        let (mut meter, now) = (RefusalMeter::default(), Timestamp::UNIX_EPOCH);
        for n in 0..100 {
            meter.note(&refusal(&format!("u{n}"), "a"), now);
        }
        let closed = meter.close(now, true);
        let told: Vec<_> = closed
            .iter()
            .map(|(r, repeats)| (r.actor.as_str(), r.action.as_str(), r.reason.as_str(), *repeats))
            .collect();
        assert_eq!(told, [("anonymous", "request.refuse", "more refusals than are told apart", 83)]);
    }
}
