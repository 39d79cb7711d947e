//! How well a server is, as a number that anybody can work out again.

use super::{metric::Metric, sample::Sample};
use crate::{
    clock::Timestamp,
    fleet::{Server, ServerStatus},
    words::words,
};
use chrono::TimeDelta;

/// A sample that is older says nothing about now.
pub const FRESH: TimeDelta = TimeDelta::minutes(5);
/// From here on a server is healthy.
pub const HEALTHY: f64 = 80.0;
/// From here on it is degraded; below it is critical.
pub const DEGRADED: f64 = 50.0;

words! {
    /// How well a server is.
    HealthState {
        /// Nothing is short.
        Healthy = "healthy",
        /// Something is getting short.
        Degraded = "degraded",
        /// Something is all but used up, or the server is not there.
        Critical = "critical",
        /// Nobody knows: nothing was measured of late.
        Unknown = "unknown",
    }
}

/// How well a server is, and why not better.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerHealth {
    /// 0 to 100; `None` if nobody knows.
    pub score: Option<f64>,
    /// What that means.
    pub state: HealthState,
    /// What takes points off, worst first, in words.
    pub reasons: Vec<String>,
}

/// What a metric takes off: nothing up to `from`, `most` points at `to`, and in between in proportion.
struct Toll {
    metric: Metric,
    name: &'static str,
    unit: &'static str,
    from: f64,
    to: f64,
    most: f64,
}

const TOLLS: [Toll; 6] = [
    Toll { metric: Metric::CpuUsage, name: "CPU", unit: " %", from: 70.0, to: 100.0, most: 40.0 },
    Toll { metric: Metric::MemoryUsage, name: "memory", unit: " %", from: 75.0, to: 100.0, most: 60.0 },
    Toll { metric: Metric::StorageUsage, name: "storage", unit: " %", from: 80.0, to: 100.0, most: 60.0 },
    Toll { metric: Metric::GpuMemoryUtilization, name: "GPU memory", unit: " %", from: 90.0, to: 100.0, most: 20.0 },
    Toll { metric: Metric::Temperature, name: "temperature", unit: " °C", from: 75.0, to: 100.0, most: 40.0 },
    Toll { metric: Metric::SloViolation, name: "SLO violations", unit: "", from: 0.0, to: 1.0, most: 30.0 },
];

/// Judges a server by its newest sample, at `now`.
///
/// A server begins with 100 points, each metric takes off as many as its row of the table in the documentation says, and
/// what whoever measured it gave it is the most that it can have. Who is offline has 0. Of whom nothing was measured within
/// [`FRESH`], nobody knows anything: that is never healthy.
#[must_use]
pub fn health(server: &Server, newest: Option<&Sample>, now: Timestamp) -> ServerHealth {
    if server.status == ServerStatus::Offline {
        return ServerHealth { score: Some(0.0), state: HealthState::Critical, reasons: vec!["is offline".to_owned()] };
    }
    let unknown = |reason: String| ServerHealth { score: None, state: HealthState::Unknown, reasons: vec![reason] };
    let Some(sample) = newest else { return unknown("nothing was measured yet".to_owned()) };
    let age = now - sample.at;
    if age > FRESH {
        return unknown(format!("the newest sample is {} minutes old", age.num_minutes()));
    }
    let mut taken: Vec<(f64, String)> = TOLLS.iter().filter_map(|toll| toll.of(sample)).collect();
    taken.sort_by(|a, b| b.0.total_cmp(&a.0));
    let lost: f64 = taken.iter().map(|(points, _)| points).sum();
    let mut score = (100.0 - lost).max(0.0);
    let mut reasons: Vec<String> = taken.into_iter().map(|(_, reason)| reason).collect();
    if let Some(given) = sample.readings.get(Metric::HealthScore).filter(|given| *given < score) {
        score = given;
        reasons.push(format!("whoever measured it gave it {given}"));
    }
    // Nobody needs more, and sums of fractions have strange last digits.
    let score = (score * 10.0).round() / 10.0;
    let state = match score {
        score if score >= HEALTHY => HealthState::Healthy,
        score if score >= DEGRADED => HealthState::Degraded,
        _ => HealthState::Critical,
    };
    ServerHealth { score: Some(score), state, reasons }
}

impl Toll {
    fn of(&self, sample: &Sample) -> Option<(f64, String)> {
        let value = sample.readings.get(self.metric)?;
        let part = ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        (part > 0.0).then(|| (part * self.most, format!("{} at {value:.1}{}", self.name, self.unit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observability::Readings, observability::fixtures::server, testing::START};

    fn sample(readings: &[(Metric, f64)], age: TimeDelta) -> Sample {
        let mut all = Readings::default();
        for (metric, value) in readings {
            all.set(*metric, Some(*value));
        }
        Sample { at: START - age, readings: all }
    }

    fn check(readings: &[(Metric, f64)], score: f64, state: HealthState, reasons: &[&str]) {
        let found = health(&server(1), Some(&sample(readings, TimeDelta::zero())), START);
        assert!((found.score.unwrap() - score).abs() < 1e-9, "{found:?} has not {score}");
        assert_eq!((found.state, found.reasons), (state, reasons.iter().map(|reason| (*reason).to_owned()).collect()));
    }

    #[test]
    fn what_is_short_takes_points_off() {
        use HealthState::{Critical, Degraded, Healthy};
        use Metric::{CpuUsage, HealthScore, MemoryUsage, SloViolation, StorageUsage, Temperature};
        check(&[(CpuUsage, 70.0), (MemoryUsage, 75.0), (StorageUsage, 80.0)], 100.0, Healthy, &[]);
        check(&[(CpuUsage, 85.0)], 80.0, Healthy, &["CPU at 85.0 %"]);
        check(&[(CpuUsage, 100.0)], 60.0, Degraded, &["CPU at 100.0 %"]);
        check(&[(CpuUsage, 85.0), (StorageUsage, 90.0)], 50.0, Degraded, &["storage at 90.0 %", "CPU at 85.0 %"]);
        check(&[(MemoryUsage, 100.0)], 40.0, Critical, &["memory at 100.0 %"]);
        check(&[(Temperature, -5.5)], 100.0, Healthy, &[]);
        check(&[(SloViolation, 1.0)], 70.0, Degraded, &["SLO violations at 1.0"]);
        let all = [(CpuUsage, 100.0), (MemoryUsage, 100.0), (StorageUsage, 100.0)];
        check(&all, 0.0, Critical, &["memory at 100.0 %", "storage at 100.0 %", "CPU at 100.0 %"]);
        check(&[(HealthScore, 30.0)], 30.0, Critical, &["whoever measured it gave it 30"]);
        check(&[(HealthScore, 99.0), (CpuUsage, 85.0)], 80.0, Healthy, &["CPU at 85.0 %"]);
    }

    #[test]
    fn what_nobody_knows_is_never_healthy() {
        let at_rest = [(Metric::CpuUsage, 1.0)];
        let judged = |status, sample: Option<Sample>| {
            let found = health(&Server { status, ..server(1) }, sample.as_ref(), START);
            (found.score, found.state)
        };
        let old = sample(&at_rest, FRESH + TimeDelta::milliseconds(1));
        assert_eq!(judged(ServerStatus::Online, None), (None, HealthState::Unknown));
        assert_eq!(judged(ServerStatus::Online, Some(old)), (None, HealthState::Unknown));
        assert_eq!(judged(ServerStatus::Online, Some(sample(&at_rest, FRESH))), (Some(100.0), HealthState::Healthy));
        let fresh = sample(&at_rest, TimeDelta::zero());
        assert_eq!(judged(ServerStatus::Offline, Some(fresh)), (Some(0.0), HealthState::Critical));
    }
}
