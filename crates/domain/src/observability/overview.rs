//! What is to be seen at a glance: how many servers there are and how they are, and what is short where.

use super::{
    alerts::{Alert, Seen},
    health::{FRESH, HealthState, ServerHealth, health},
    metric::Metric,
    sample::Sample,
};
use crate::{
    clock::Timestamp,
    fleet::{RosterEntry, ServerStatus},
    ids::ServerId,
    text::Name,
};
use std::{collections::BTreeMap, sync::Arc};

/// From how many percent on a resource is a bottleneck.
pub const BOTTLENECK: f64 = 85.0;
/// The most bottlenecks that are told.
pub const MOST_BOTTLENECKS: usize = 50;
/// What can be one.
const RESOURCES: [Metric; 4] =
    [Metric::CpuUsage, Metric::MemoryUsage, Metric::StorageUsage, Metric::GpuMemoryUtilization];
/// What the fleet has an average of.
pub const AVERAGED: [Metric; 3] = [Metric::CpuUsage, Metric::MemoryUsage, Metric::StorageUsage];

/// What is to be seen at a glance.
#[derive(Debug, Clone)]
pub struct Overview {
    /// When it was so.
    pub at: Timestamp,
    /// In numbers.
    pub summary: Summary,
    /// Each server, in the order of their ids.
    pub servers: Vec<Standing>,
    /// Alerts that fire, whether anybody is on them or not.
    pub alerts: Vec<Seen>,
    /// What is short, worst first.
    pub bottlenecks: Vec<Bottleneck>,
}

/// Servers in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// How many there are.
    pub servers: usize,
    /// How many are in each status.
    pub statuses: BTreeMap<ServerStatus, usize>,
    /// How many are how well.
    pub health: BTreeMap<HealthState, usize>,
    /// The mean of [`AVERAGED`], of those of whom it was measured of late.
    pub averages: BTreeMap<Metric, f64>,
    /// The server with the highest temperature.
    pub hottest: Option<Peak>,
    /// The server with the busiest processors.
    pub busiest: Option<Peak>,
}

/// The server that has most of something.
#[derive(Debug, Clone, PartialEq)]
pub struct Peak {
    /// Which.
    pub server: ServerId,
    /// What it is called.
    pub name: Name,
    /// How much it has.
    pub value: f64,
}

/// How a server stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The server.
    pub server: Arc<RosterEntry>,
    /// What was measured last.
    pub newest: Option<Sample>,
    /// How well it is.
    pub health: ServerHealth,
}

impl Standing {
    /// How old what was measured last is, in seconds.
    #[must_use]
    pub fn age_seconds(&self, now: Timestamp) -> Option<i64> {
        self.newest.as_ref().map(|newest| (now - newest.at).num_seconds().max(0))
    }

    fn fresh(&self, now: Timestamp) -> Option<&Sample> {
        self.newest.as_ref().filter(|newest| now - newest.at <= FRESH)
    }

    fn peak(&self, metric: Metric, now: Timestamp) -> Option<Peak> {
        let value = self.fresh(now)?.readings.get(metric)?;
        Some(Peak { server: self.server.id, name: self.server.name.clone(), value })
    }
}

/// Something that is short on a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Bottleneck {
    /// Where.
    pub server: ServerId,
    /// What that is called.
    pub name: Name,
    /// What.
    pub metric: Metric,
    /// How much of it is in use, in percent.
    pub value: f64,
}

/// Puts together what is known of these servers at `now`.
#[must_use]
pub fn overview(
    servers: Vec<Arc<RosterEntry>>,
    newest: &BTreeMap<ServerId, Sample>,
    alerts: Vec<Alert>,
    now: Timestamp,
) -> Overview {
    let stand = |server: Arc<RosterEntry>| {
        let newest = newest.get(&server.id).copied();
        Standing { health: health(&server, newest.as_ref(), now), newest, server }
    };
    let servers: Vec<Standing> = servers.into_iter().map(stand).collect();
    let alerts = alerts.into_iter().map(|alert| Seen::of(alert, newest, now)).collect();
    Overview { at: now, summary: summary(&servers, now), alerts, bottlenecks: bottlenecks(&servers, now), servers }
}

fn summary(servers: &[Standing], now: Timestamp) -> Summary {
    let mut summary = Summary { servers: servers.len(), ..Summary::default() };
    for standing in servers {
        *summary.statuses.entry(standing.server.status).or_default() += 1;
        *summary.health.entry(standing.health.state).or_default() += 1;
    }
    for metric in AVERAGED {
        let values = servers.iter().filter_map(|standing| standing.fresh(now)?.readings.get(metric));
        let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
        if count > 0 {
            summary.averages.insert(metric, sum / f64::from(count));
        }
    }
    let most = |metric| {
        let peaks = servers.iter().filter_map(|standing| standing.peak(metric, now));
        peaks.max_by(|a, b| a.value.total_cmp(&b.value).then(b.server.cmp(&a.server)))
    };
    summary.hottest = most(Metric::Temperature);
    summary.busiest = most(Metric::CpuUsage);
    summary
}

fn bottlenecks(servers: &[Standing], now: Timestamp) -> Vec<Bottleneck> {
    let of = |standing: &Standing| {
        let peaks = RESOURCES.map(|metric| standing.peak(metric, now).map(|peak| (metric, peak)));
        peaks.into_iter().flatten().filter(|(_, peak)| peak.value >= BOTTLENECK)
    };
    let mut found: Vec<Bottleneck> = servers
        .iter()
        .flat_map(of)
        .map(|(metric, Peak { server, name, value })| Bottleneck { server, name, metric, value })
        .collect();
    found.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.server.cmp(&b.server)));
    found.truncate(MOST_BOTTLENECKS);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fleet::Server,
        observability::{Readings, fixtures::server},
        testing::START,
    };
    use chrono::TimeDelta;

    /// Of a server, how long ago, what.
    type Told<'a> = (i64, TimeDelta, &'a [(Metric, f64)]);

    fn seen(samples: &[Told<'_>]) -> Overview {
        let servers = (1..=4).map(|id| {
            let status = if id == 4 { ServerStatus::Offline } else { ServerStatus::Online };
            Arc::new(RosterEntry::new(Arc::new(Server { status, ..server(id) })))
        });
        let newest = samples.iter().map(|(id, age, told)| {
            let mut readings = Readings::default();
            for (metric, value) in *told {
                readings.set(*metric, Some(*value));
            }
            (ServerId(*id), Sample { at: START - *age, readings })
        });
        overview(servers.collect(), &newest.collect(), Vec::new(), START)
    }

    #[test]
    fn what_is_old_counts_for_nothing_but_its_age() {
        let minute = TimeDelta::minutes(1);
        let all = seen(&[
            (1, minute, &[(Metric::CpuUsage, 90.0), (Metric::Temperature, 60.0)]),
            (2, minute, &[(Metric::CpuUsage, 10.0), (Metric::StorageUsage, 99.0)]),
            (3, minute * 6, &[(Metric::CpuUsage, 100.0), (Metric::Temperature, 99.0)]),
        ]);
        let Summary { servers, averages, hottest, busiest, health, statuses } = all.summary;
        assert_eq!((servers, averages[&Metric::CpuUsage], averages.get(&Metric::MemoryUsage)), (4, 50.0, None));
        assert_eq!((hottest.unwrap().server, busiest.unwrap().server), (ServerId(1), ServerId(1)));
        assert_eq!(health[&HealthState::Unknown], 1);
        assert_eq!((statuses[&ServerStatus::Online], statuses[&ServerStatus::Offline]), (3, 1));
        let short: Vec<_> = all.bottlenecks.iter().map(|found| (found.server.0, found.metric)).collect();
        assert_eq!(short, [(2, Metric::StorageUsage), (1, Metric::CpuUsage)]);
        let ages: Vec<_> = all.servers.iter().map(|standing| standing.age_seconds(START)).collect();
        assert_eq!(ages, [Some(60), Some(60), Some(360), None]);
    }

    #[test]
    fn nobody_has_nothing() {
        let nothing = overview(Vec::new(), &BTreeMap::new(), Vec::new(), START);
        assert_eq!(nothing.summary, Summary::default());
        assert!(nothing.servers.is_empty() && nothing.bottlenecks.is_empty());
    }
}
