//! Puts parts together that come one by one: counters to rates, shares to their whole.
//!
//! All parts of a scrape have the same time, and come in one request or in several. A scrape is whole when it has every
//! part that the one before it had. Of the first one nobody knows whether its beginning was missed: it is taken for whole
//! when the next one has just the same parts. No value is computed of what is not whole, for a processor without its idle
//! time would look busy.

use super::mapping::{Family, Key, Role};
use crate::{clock::Timestamp, ids::ServerId, observability::Metric};
use chrono::TimeDelta;
use std::collections::BTreeMap;

/// How many scrapes of a server may be incomplete; then the oldest is as whole as it gets.
const MOST_OPEN: usize = 2;
/// How far apart two scrapes may be of which a rate is computed: what is longer is a gap.
const MOST_APART_MS: i64 = 5 * 60 * 1000;
/// The most parts of a family in one scrape.
const MOST_PARTS: usize = 8192;
/// The most values that are kept of all servers; each takes about 50 bytes.
const MOST_KEPT: usize = 2_000_000;
/// Of whom nothing was heard for so long, nothing is kept.
const PATIENCE: TimeDelta = TimeDelta::minutes(15);

/// A part of a scrape, or the end of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Of whom.
    pub server: ServerId,
    /// Of what.
    pub family: Family,
    /// Which part.
    pub key: Key,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// `None` if it is not measured any more.
    pub value: Option<f64>,
}

/// A value that was computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Computed {
    /// Of whom.
    pub server: ServerId,
    /// Of what.
    pub metric: Metric,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// In the metric's unit.
    pub value: f64,
}

/// What is known of parts that are not whole yet, and of the last ones that were.
#[derive(Debug, Default)]
pub struct Gatherer {
    servers: BTreeMap<ServerId, Machine>,
    owed: Vec<Computed>,
}

#[derive(Debug, Default)]
struct Machine {
    heard: Timestamp,
    families: BTreeMap<Family, Scrapes>,
}

impl Gatherer {
    /// Takes parts in, and tells what can be computed by now, with what is owed from before.
    pub fn take(&mut self, parts: impl IntoIterator<Item = Part>, now: Timestamp) -> Vec<Computed> {
        let mut by_family: BTreeMap<(ServerId, Family), Vec<Part>> = BTreeMap::new();
        for part in parts {
            by_family.entry((part.server, part.family)).or_default().push(part);
        }
        let mut computed = std::mem::take(&mut self.owed);
        for ((server, family), parts) in by_family {
            let machine = self.servers.entry(server).or_default();
            machine.heard = now;
            let values = machine.families.entry(family).or_default().take(family, &parts);
            let value = |(at_ms, value)| Computed { server, metric: family.metric(), at_ms, value };
            computed.extend(values.into_iter().map(value));
        }
        self.forget(now);
        computed
    }

    /// Keeps what was computed and could not be stored, until something is again.
    pub fn owe(&mut self, computed: Vec<Computed>) {
        if self.owed.len() + computed.len() <= MOST_KEPT {
            self.owed.extend(computed);
        }
    }

    /// Lets go of whoever is silent, and of whoever was heard of longest ago while there is too much.
    fn forget(&mut self, now: Timestamp) {
        self.servers.retain(|_, machine| now - machine.heard < PATIENCE);
        let mut kept = self.kept();
        while kept > MOST_KEPT {
            let oldest = self.servers.iter().min_by_key(|(_, machine)| machine.heard).map(|(server, _)| *server);
            let Some(gone) = oldest.and_then(|server| self.servers.remove(&server)) else { return };
            kept -= gone.size();
        }
    }

    fn kept(&self) -> usize {
        self.servers.values().map(Machine::size).sum()
    }
}

impl Machine {
    fn size(&self) -> usize {
        self.families.values().map(Scrapes::size).sum()
    }
}

type Parts = BTreeMap<Key, f64>;

/// The scrapes of one family of a server.
#[derive(Debug, Default)]
struct Scrapes {
    last: Option<Last>,
    open: BTreeMap<i64, Parts>,
}

/// The last one to which nothing more is to come.
#[derive(Debug)]
struct Last {
    at_ms: i64,
    parts: Parts,
    is_whole: bool,
}

/// Why nothing more is to come to a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// It has all.
    Whole,
    /// Another one has begun. If one was before it as well, then its beginning was not missed.
    Next,
    /// Several others have begun: something is not measured any more.
    Late,
}

impl Scrapes {
    fn size(&self) -> usize {
        self.open.values().map(BTreeMap::len).sum::<usize>() + self.last.as_ref().map_or(0, |last| last.parts.len())
    }

    fn take(&mut self, family: Family, parts: &[Part]) -> Vec<(i64, f64)> {
        for part in parts {
            self.note(part);
        }
        let mut values = Vec::new();
        while let Some(oldest) = self.open.first_entry() {
            let closed = closed(family, oldest.get(), self.last.as_ref());
            let closed = closed.or_else(|| overtaken(self.open.len(), self.last.as_ref()));
            let Some(closed) = closed else { break };
            let Some((at_ms, parts)) = self.open.pop_first() else { break };
            let is_whole = closed != Closed::Next || self.last.is_some();
            let value = if closed == Closed::Next { None } else { value(family, at_ms, &parts, self.last.as_ref()) };
            values.extend(value.map(|value| (at_ms, value)));
            self.last = Some(Last { at_ms, parts, is_whole });
        }
        values
    }

    fn note(&mut self, part: &Part) {
        let Some(value) = part.value else {
            // Nobody waits for it any more.
            if let Some(last) = &mut self.last {
                last.parts.remove(&part.key);
            }
            // Of what comes after all have ended, nobody knows again how many parts it has.
            self.last.take_if(|last| last.parts.is_empty());
            return;
        };
        let parts = match &mut self.last {
            Some(last) if part.at_ms < last.at_ms => return,
            // What came to it too late is waited for the next time.
            Some(last) if part.at_ms == last.at_ms => &mut last.parts,
            _ => self.open.entry(part.at_ms).or_default(),
        };
        if parts.len() < MOST_PARTS {
            parts.entry(part.key).or_insert(value);
        }
    }
}

fn closed(family: Family, parts: &Parts, last: Option<&Last>) -> Option<Closed> {
    let is_whole = match (family, last) {
        (Family::Memory | Family::Storage, _) => is_share(parts),
        (_, None) => false,
        (_, Some(last)) if last.is_whole => last.parts.keys().all(|key| parts.contains_key(key)),
        (_, Some(last)) => last.parts.keys().eq(parts.keys()),
    };
    is_whole.then_some(Closed::Whole)
}

fn overtaken(open: usize, last: Option<&Last>) -> Option<Closed> {
    match last {
        Some(last) if last.is_whole => (open > MOST_OPEN).then_some(Closed::Late),
        _ => (open > 1).then_some(Closed::Next),
    }
}

fn is_share(parts: &Parts) -> bool {
    let has = |role| parts.keys().any(|key| key.role == role);
    has(Role::Free) && has(Role::Total)
}

fn value(family: Family, at_ms: i64, parts: &Parts, last: Option<&Last>) -> Option<f64> {
    match family {
        Family::Memory | Family::Storage if !is_share(parts) => None,
        Family::Memory | Family::Storage => {
            let (free, total) = (sum(parts, Role::Free), sum(parts, Role::Total));
            share(total - free, total)
        }
        Family::Temperature => parts.values().copied().reduce(f64::max),
        Family::Cpu => {
            let (_, grown) = grown(at_ms, parts, last?)?;
            let (used, free) = (sum(&grown, Role::Used), sum(&grown, Role::Free));
            share(used, used + free)
        }
        Family::NetworkIn | Family::NetworkOut => rate(at_ms, parts, last?).map(|bytes| bytes * 8.0 / 1e6),
        Family::DiskRead | Family::DiskWrite => rate(at_ms, parts, last?).map(|bytes| bytes / 1e6),
    }
}

fn sum(parts: &Parts, role: Role) -> f64 {
    parts.iter().filter(|(key, _)| key.role == role).map(|(_, value)| value).sum()
}

/// In percent.
fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (part / whole * 100.0).clamp(0.0, 100.0))
}

fn rate(at_ms: i64, parts: &Parts, last: &Last) -> Option<f64> {
    let (seconds, grown) = grown(at_ms, parts, last)?;
    Some(sum(&grown, Role::Used) / seconds)
}

/// By how much counters have grown since, and in how many seconds. One that went back was started anew, and says nothing
/// of this time; if all of them did, nothing is known.
fn grown(at_ms: i64, parts: &Parts, last: &Last) -> Option<(f64, Parts)> {
    let apart = at_ms - last.at_ms;
    let seconds = TimeDelta::milliseconds((0..=MOST_APART_MS).contains(&apart).then_some(apart)?).as_seconds_f64();
    let grown: Parts = parts
        .iter()
        .filter_map(|(key, value)| Some((*key, value - last.parts.get(key)?)))
        .filter(|(_, grown)| *grown >= 0.0)
        .collect();
    (!grown.is_empty() && seconds > 0.0).then_some((seconds, grown))
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
