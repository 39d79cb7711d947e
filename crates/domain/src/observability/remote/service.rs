use super::{
    gather::{Computed, Gatherer, Part},
    mapping::{Family, Key, Meaning, Names, meaning},
    series::{Point, Series},
};
use crate::{
    Result,
    clock::Timestamp,
    identity::{Actor, Operation},
    ids::ServerId,
    observability::{Metric, Readings, Sample, SamplePorts, Scope, judge, judge_time},
};
use chrono::DateTime;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

/// So many of each kind are told by name; all are counted.
const MOST_NAMED: usize = 20;

/// Takes in what Prometheus sends.
pub struct RemoteWriteService {
    ports: SamplePorts,
    gatherer: Mutex<Gatherer>,
}

/// What became of the samples of a request. None of them needs to be sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Stored by it.
    pub stored: usize,
    /// Of a server, time and metric that something was stored of before.
    pub duplicate: usize,
    /// Kept in memory until what they are a part of is whole, such as counters until they have grown.
    pub gathered: usize,
    /// Computed of such parts and stored by it; these are no samples of the request.
    pub computed: usize,
    /// Ends of series, and parts that are left out on purpose.
    pub left_out: usize,
    /// Refused: of the future, or out of range.
    pub refused: usize,
    /// Of servers that are not known.
    pub unknown_server: usize,
    /// Of metrics that are not known.
    pub unknown_metric: usize,
    /// Some of the series that were refused, with the first reason.
    pub refused_series: Vec<(String, String)>,
    /// Some of the servers that are not known, as they were called.
    pub unknown_servers: BTreeSet<String>,
    /// Some of the metrics that are not known.
    pub unknown_metrics: BTreeSet<String>,
}

/// A request, taken apart.
#[derive(Default)]
struct Sorted {
    written: Written,
    /// Of what is told as a whole.
    whole: BTreeMap<(ServerId, Timestamp), Readings>,
    parts: Vec<Part>,
}

impl RemoteWriteService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: SamplePorts) -> Self {
        Self { ports, gatherer: Mutex::default() }
    }

    /// Stores what series say of servers, each sample at its own time, and what can be computed of them by now. Of each
    /// server, time and metric the first value is kept, so that any request may be repeated. What is refused or not known
    /// says nothing against the others.
    ///
    /// # Errors
    /// If the database does not store it; the same request again stores the rest.
    pub async fn sample_write(&self, actor: &Actor, series: &[Series]) -> Result<Written> {
        actor.authorize(Operation::SampleWrite)?;
        let servers = Scope::default().find(&*self.ports.servers).await?;
        let now = self.ports.clock.now();
        let mut sorted = Sorted::default();
        let names = Names::of(&servers);
        for one in series {
            sorted.sort(one, &names, now);
        }
        let Sorted { mut written, whole, parts } = sorted;
        let computed = self.gather(parts, now);
        let mut samples: Vec<(ServerId, Sample)> =
            whole.into_iter().map(|((server, at), readings)| (server, Sample { at, readings })).collect();
        let told = samples.len();
        samples.extend(computed.iter().filter_map(|computed| sample(computed, now)));
        if samples.is_empty() {
            return Ok(written);
        }
        let wanted: usize = samples.iter().take(told).map(|(_, sample)| sample.readings.iter().count()).sum();
        let added = match self.ports.samples.merge(samples).await {
            Ok(added) => added,
            Err(error) => {
                // What they were computed of will not be taken for new again.
                self.gatherer.lock().unwrap_or_else(PoisonError::into_inner).owe(computed);
                return Err(error);
            }
        };
        written.stored = added.iter().take(told).sum();
        written.computed = added.iter().skip(told).sum();
        written.duplicate += wanted - written.stored;
        Ok(written)
    }

    fn gather(&self, parts: Vec<Part>, now: Timestamp) -> Vec<Computed> {
        self.gatherer.lock().unwrap_or_else(PoisonError::into_inner).take(parts, now)
    }
}

/// What was computed as it is stored. It is in the range of its metric, or nobody believes what it was computed of.
fn sample(computed: &Computed, now: Timestamp) -> Option<(ServerId, Sample)> {
    let at = DateTime::from_timestamp_millis(computed.at_ms)?;
    let sample = Sample { at, readings: Readings::default().with(computed.metric, computed.value) };
    judge(&sample, now).is_ok().then_some((computed.server, sample))
}

impl Sorted {
    fn sort(&mut self, series: &Series, names: &Names<'_>, now: Timestamp) {
        let Some(meaning) = meaning(series) else {
            self.written.unknown_metric += series.points.len();
            name(&mut self.written.unknown_metrics, series.name());
            return;
        };
        let server = match names.owner(series) {
            Ok(server) => server,
            Err(called) => {
                self.written.unknown_server += series.points.len();
                return name(&mut self.written.unknown_servers, called.unwrap_or_default());
            }
        };
        let mut refused = None;
        for point in &series.points {
            let outcome = match meaning {
                Meaning::LeftOut => {
                    self.written.left_out += 1;
                    Ok(())
                }
                Meaning::Whole(metric) => self.whole(server, metric, *point, now),
                Meaning::Part(family, key) => self.part(server, family, key, *point, now),
            };
            if let Err(reason) = outcome {
                self.written.refused += 1;
                refused.get_or_insert(reason);
            }
        }
        if let Some(reason) = refused
            && self.written.refused_series.len() < MOST_NAMED
        {
            self.written.refused_series.push((series.to_string(), reason));
        }
    }

    fn whole(
        &mut self,
        server: ServerId,
        metric: Metric,
        point: Point,
        now: Timestamp,
    ) -> std::result::Result<(), String> {
        if point.is_stale() {
            self.written.left_out += 1;
            return Ok(());
        }
        let readings = Readings::default().with(metric, point.value);
        judge(&Sample { at: point.at(), readings }, now).map_err(|refused| refused.to_string())?;
        let known = self.whole.entry((server, point.at())).or_default();
        if known.get(metric).is_some() {
            self.written.duplicate += 1;
        } else {
            known.set(metric, Some(point.value));
        }
        Ok(())
    }

    fn part(
        &mut self,
        server: ServerId,
        family: Family,
        key: Key,
        point: Point,
        now: Timestamp,
    ) -> std::result::Result<(), String> {
        let part = |value| Part { server, family, key, at_ms: point.at_ms, value };
        if point.is_stale() {
            self.written.left_out += 1;
            self.parts.push(part(None));
            return Ok(());
        }
        judge_time(point.at(), now).map_err(|refused| refused.to_string())?;
        let can_be = match family {
            Family::Temperature => -273.15..=1000.0,
            _ => 0.0..=f64::MAX,
        };
        if !can_be.contains(&point.value) {
            return Err(format!("the value {} cannot be", point.value));
        }
        self.written.gathered += 1;
        self.parts.push(part(Some(point.value)));
        Ok(())
    }
}

/// Notes a name, if there is room; cut where it is too long for a message.
fn name(names: &mut BTreeSet<String>, name: &str) {
    if names.len() < MOST_NAMED {
        names.insert(name.chars().take(200).collect());
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
