//! Everything that rules are judged by, as it is at one moment, but for the samples that came before the newest.

use super::{
    alert::{Alert, AlertReason, AlertState, Subject, Verdict},
    judge::{Judged, Watched, judge},
    machine::{Level, Reading, STALE},
    rule::{Condition, Rule},
};
use crate::{
    clock::Timestamp,
    fleet::{RosterEntry, ServerStatus, Span},
    ids::{PoolId, RuleId, ServerId},
    observability::sample::Sample,
    pools::{PoolState, PoolSummary},
};
use chrono::TimeDelta;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// How far back samples are looked for at least that came before anything was judged.
const UNSEEN: TimeDelta = TimeDelta::hours(1);

/// Up to which sample each rule, at one of its revisions, has judged a server.
pub(super) type JudgedUntil = HashMap<(RuleId, i64, ServerId), Timestamp>;

/// Rules, whom they watch, and what is known of those.
pub(super) struct Scene {
    pub(super) now: Timestamp,
    pub(super) actor: String,
    pub(super) rules: BTreeMap<RuleId, Rule>,
    pub(super) open: BTreeMap<(RuleId, Subject), Alert>,
    pub(super) servers: BTreeMap<ServerId, Arc<RosterEntry>>,
    pub(super) pools: BTreeMap<PoolId, PoolSummary>,
    pub(super) newest: BTreeMap<ServerId, Sample>,
}

/// A server of which a rule wants to know more than the newest sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    pub(super) rule: RuleId,
    pub(super) server: ServerId,
    /// What came after this.
    pub(super) from: Timestamp,
    /// Whether nothing did.
    pub(super) alone: bool,
}

/// A server that is maintained is silent: it raises nothing, and nothing that it raised ends.
fn is_silent(server: &RosterEntry) -> bool {
    server.status == ServerStatus::Maintenance
}

impl Scene {
    fn in_force(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values().filter(|rule| rule.enabled)
    }

    fn alert(&self, rule: RuleId, subject: Subject) -> Option<&Alert> {
        self.open.get(&(rule, subject))
    }

    fn watched<'a>(&'a self, rule: &'a Rule, subject: Subject, name: &'a str) -> Watched<'a> {
        let open = self.alert(rule.id, subject);
        // What is pending is judged again from its beginning, so that what came late counts as well.
        let last = open.filter(|open| open.state == AlertState::Pending).map(|open| open.since);
        Watched { rule, subject, name, open, last, now: self.now, actor: &self.actor }
    }

    /// Alerts that nobody watches any more.
    pub(super) fn forsaken(&self) -> Vec<Verdict> {
        let over = |alert: &Alert| {
            let rule = self.rules.get(&alert.rule_id);
            self.why_forsaken(alert, rule).map(|reason| alert.clone().over(reason, rule, &self.actor, self.now))
        };
        self.open.values().filter_map(over).collect()
    }

    fn why_forsaken(&self, alert: &Alert, rule: Option<&Rule>) -> Option<AlertReason> {
        let Some(rule) = rule else { return Some(AlertReason::RuleDeleted) };
        if !rule.enabled {
            return Some(AlertReason::RuleDisabled);
        }
        let is_meant = match alert.subject {
            Subject::Pool(id) => {
                self.pools.contains_key(&id).then(|| rule.spec.selector.pool_id.is_none_or(|pool| pool == id))
            }
            Subject::Server(id) => self.servers.get(&id).map(|server| rule.spec.selector.meets(server)),
        };
        match is_meant {
            None => Some(AlertReason::SubjectDeleted),
            Some(false) => Some(AlertReason::NotSelected),
            Some(true) => {
                let server = alert.subject.server().and_then(|id| self.servers.get(&id));
                let silent = server.is_some_and(|server| is_silent(server));
                (silent && alert.state == AlertState::Pending).then_some(AlertReason::Maintenance)
            }
        }
    }

    /// What rules about the state of servers and pools say.
    pub(super) fn states(&self) -> Judged {
        let mut judged = Judged::new();
        for rule in self.in_force() {
            match rule.spec.condition {
                Condition::Metric { .. } => {}
                Condition::ServerStatus => {
                    for server in self.heard(rule) {
                        let watched = self.watched(rule, Subject::Server(server.id), server.name.as_str());
                        judged.extend(judge(&watched, &self.presence(server, watched.open)));
                    }
                }
                Condition::PoolSaturation => {
                    let selected = |id: &PoolId| rule.spec.selector.pool_id.is_none_or(|pool| pool == *id);
                    for (id, pool) in self.pools.iter().filter(|(id, _)| selected(id)) {
                        let watched = self.watched(rule, Subject::Pool(*id), pool.pool.name.as_str());
                        judged.extend(judge(&watched, &[saturation(pool, self.now)]));
                    }
                }
            }
        }
        judged
    }

    /// The servers that a rule watches, and that are not silent.
    fn heard<'a>(&'a self, rule: &'a Rule) -> impl Iterator<Item = &'a RosterEntry> {
        let servers = self.servers.values().map(AsRef::as_ref);
        servers.filter(|server| rule.spec.selector.meets(server) && !is_silent(server))
    }

    /// Whether a server is there, and since when it is not, if nobody has noticed yet.
    fn presence(&self, server: &RosterEntry, open: Option<&Alert>) -> Vec<Reading> {
        let away = is_missed(server);
        let level = if away { Level::Loud } else { Level::Quiet };
        let reading = |at| Reading { at, value: if away { 1.0 } else { 0.0 }, level };
        let since = server.inventory.last_seen_at.map_or(server.updated_at, |seen| seen.max(server.updated_at));
        let before = (away && open.is_none() && since < self.now).then(|| reading(since));
        before.into_iter().chain([reading(self.now)]).collect()
    }

    /// Those of whom samples are wanted, where the newest ones say that something may be different.
    pub(super) fn looks(&self, judged: &JudgedUntil) -> Vec<Look> {
        let mut looks = Vec::new();
        for rule in self.in_force() {
            let servers = self.heard(rule);
            looks.extend(servers.filter_map(|server| self.look(rule, server.id, judged)));
        }
        looks
    }

    fn look(&self, rule: &Rule, server: ServerId, judged: &JudgedUntil) -> Option<Look> {
        let newest = self.newest.get(&server)?;
        let value = newest.readings.get(rule.spec.condition.metric()?)?;
        // What is old says nothing of now, neither that it is well nor that it is not.
        if self.now - newest.at > STALE {
            return None;
        }
        let look = |from, alone| Some(Look { rule: rule.id, server, from, alone });
        let before = judged.get(&(rule.id, rule.revision, server)).copied();
        let seen = before == Some(newest.at);
        match self.alert(rule.id, Subject::Server(server)) {
            None if seen || rule.spec.condition.level(value) == Level::Quiet => None,
            None => look(before.unwrap_or(newest.at - (rule.hold() + STALE).max(UNSEEN)), false),
            // Whether the hours are quiet may be different although nothing was measured.
            Some(_) if seen => look(newest.at, true),
            Some(alert) if alert.state == AlertState::Pending => look(alert.since, false),
            Some(alert) => {
                // What came before it fired says nothing of whether it is over.
                let fired = alert.fired_at.unwrap_or(alert.since);
                look(before.unwrap_or(newest.at - UNSEEN).max(fired), false)
            }
        }
    }

    /// What a rule says of a server, by what was measured after [`Look::from`], in the order of times; the newest sample
    /// belongs to that, whether it is among the others or not. What was measured in maintenance does not count.
    pub(super) fn judge(&self, look: &Look, samples: &[(Timestamp, f64)], spans: &[Span]) -> Judged {
        let (Some(rule), Some(server)) = (self.rules.get(&look.rule), self.servers.get(&look.server)) else {
            return Judged::new();
        };
        let newest = self.newest.get(&look.server);
        let newest = newest.and_then(|sample| Some((sample.at, sample.readings.get(rule.spec.condition.metric()?)?)));
        let anew = spans.iter().map(|span| span.until).filter(|until| *until <= self.now).max();
        let counts = |at: Timestamp| {
            at > look.from
                && anew.is_none_or(|anew| at >= anew)
                && !spans.iter().any(|span| span.from <= at && at < span.until)
        };
        let before = samples.iter().copied().filter(|(at, _)| newest.is_none_or(|(newest, _)| *at < newest));
        let reading = |(at, value)| Reading { at, value, level: rule.spec.condition.level(value) };
        let readings: Vec<Reading> = before.chain(newest).filter(|(at, _)| counts(*at)).map(reading).collect();
        judge(&self.watched(rule, Subject::Server(look.server), server.name.as_str()), &readings)
    }

    /// Up to where everything is judged now that can be; where nothing could be, that is where it was.
    pub(super) fn judged_until(&self, before: &JudgedUntil) -> JudgedUntil {
        let mut until = JudgedUntil::new();
        for rule in self.in_force() {
            let Some(metric) = rule.spec.condition.metric() else { continue };
            for server in self.heard(rule) {
                let key = (rule.id, rule.revision, server.id);
                let fresh = |sample: &&Sample| self.now - sample.at <= STALE && sample.readings.get(metric).is_some();
                let newest = self.newest.get(&server.id).filter(fresh).map(|sample| sample.at);
                if let Some(at) = newest.or_else(|| before.get(&key).copied()) {
                    until.insert(key, at);
                }
            }
        }
        until
    }
}

/// A server that was only registered, and of which nothing was ever heard or said since, is not missed: it is still to come.
fn is_missed(server: &RosterEntry) -> bool {
    server.status == ServerStatus::Offline && (server.inventory.last_seen_at.is_some() || server.revision > 1)
}

/// How full a pool is, by that of its resources which is furthest towards its watermark.
fn saturation(summary: &PoolSummary, now: Timestamp) -> Reading {
    let (marks, capacity) = (&summary.pool.watermarks, &summary.capacity);
    let (total, held) = (capacity.total, capacity.reserved);
    let resources = [
        (marks.cpu, total.cpu_millis, held.cpu_millis),
        (marks.memory, total.memory_mib, held.memory_mib),
        (marks.storage, total.storage_mib, held.storage_mib),
        (marks.gpu, total.gpus, held.gpus),
    ];
    let mut reading = Reading { at: now, value: 0.0, level: Level::Quiet };
    let rank = |level| match level {
        Level::Quiet => 0,
        Level::Between => 1,
        Level::Loud => 2,
    };
    for (mark, total, held) in resources {
        let Some(mark) = mark.or(marks.all).filter(|_| total > 0) else { continue };
        let percent = percent(held, total);
        let level = match percent {
            percent if percent > mark.high => Level::Loud,
            percent if percent > mark.low => Level::Between,
            _ => Level::Quiet,
        };
        if (rank(level), percent) > (rank(reading.level), reading.value) {
            reading = Reading { value: percent, level, ..reading };
        }
    }
    if summary.pool.state == PoolState::Saturated {
        reading.level = Level::Loud;
    }
    reading
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a percentage needs no more digits")]
fn percent(part: i64, whole: i64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

#[cfg(test)]
#[path = "scene_tests.rs"]
mod tests;
