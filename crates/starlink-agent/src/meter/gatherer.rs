//! Makes samples of readings. Pure.

use chrono::DateTime;
use domain::{
    clock::Timestamp,
    observability::{Metric, Readings, Sample},
};
use std::{collections::BTreeMap, time::Duration};

/// Of these the highest reading is kept besides the mean.
const PEAKS: [(Metric, Metric); 2] =
    [(Metric::CpuUsage, Metric::CpuUsagePeak), (Metric::MemoryUsage, Metric::MemoryUsagePeak)];

/// Gathers readings until the period that they belong to is over.
///
/// A period is named by its end, and begins and ends at whole multiples of its length, so that the samples of a server
/// are as far apart as they should be. A reading belongs to the period that it is in by the time of day. If the clock is
/// set meanwhile, the period that was under way ends with what there is of it; if it is set back, a period may be told
/// twice, and the server keeps the first.
#[derive(Debug)]
pub(super) struct Gatherer {
    period: i64,
    under_way: Option<(i64, BTreeMap<Metric, Tally>)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    count: u32,
    sum: f64,
    most: Option<f64>,
}

impl Gatherer {
    /// Makes one sample for each of these periods in which there was a reading.
    pub(super) fn new(period: Duration) -> Self {
        let period = i64::try_from(period.as_micros()).unwrap_or(i64::MAX).max(1);
        Self { period, under_way: None }
    }

    /// Adds what was read at `now`. Gives the sample of the period before, if that was the first reading of another one.
    pub(super) fn add(&mut self, now: Timestamp, readings: &Readings) -> Option<Sample> {
        let end = self.end_of(now);
        let over = self.under_way.take_if(|(under_way, _)| *under_way != end);
        let (_, tallies) = self.under_way.get_or_insert_with(|| (end, BTreeMap::new()));
        for (metric, value) in readings.iter() {
            let (least, most) = metric.unit().bounds();
            // The server would refuse the whole sample for a value that cannot be.
            if (least..=most).contains(&value) {
                tallies.entry(metric).or_default().add(value);
            }
        }
        let (end, tallies) = over?;
        sample(end, &tallies)
    }

    /// The end of the period, in microseconds. What is read just then is the last of it.
    fn end_of(&self, now: Timestamp) -> i64 {
        let at = now.timestamp_micros();
        let begun = at.div_euclid(self.period).saturating_mul(self.period);
        if begun == at { at } else { begun.saturating_add(self.period) }
    }
}

impl Tally {
    fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.sum += value;
        self.most = Some(self.most.map_or(value, |most| most.max(value)));
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

fn sample(end: i64, tallies: &BTreeMap<Metric, Tally>) -> Option<Sample> {
    let mut readings = Readings::default();
    for (metric, tally) in tallies {
        readings.set(*metric, tally.mean().map(rounded));
    }
    for (metric, peak) in PEAKS {
        readings.set(peak, tallies.get(&metric).and_then(|tally| tally.most).map(rounded));
    }
    let at = DateTime::from_timestamp_micros(end)?;
    (!readings.is_empty()).then_some(Sample { at, readings })
}

/// To two decimals: nothing is measured finer, and what is short is stored in less room.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    const MINUTE: Duration = Duration::from_mins(1);

    fn at(text: &str) -> Timestamp {
        format!("2026-03-01T{text}Z").parse().unwrap()
    }

    fn cpu(value: f64) -> Readings {
        Readings::default().with(Metric::CpuUsage, value)
    }

    /// What comes of readings of the CPU at these times.
    fn check(readings: &[(&str, f64)], expected: &[(&str, f64, f64)]) {
        let mut gatherer = Gatherer::new(MINUTE);
        let samples: Vec<Sample> =
            readings.iter().filter_map(|(time, value)| gatherer.add(at(time), &cpu(*value))).collect();
        let expected: Vec<Sample> = expected
            .iter()
            .map(|(time, mean, peak)| Sample { at: at(time), readings: cpu(*mean).with(Metric::CpuUsagePeak, *peak) })
            .collect();
        assert_eq!(samples, expected, "{readings:?}");
    }

    #[test]
    fn a_minute_is_the_mean_of_its_readings_named_by_its_end() {
        check(&[("10:00:10", 10.0), ("10:00:20", 20.0), ("10:00:30", 60.0)], &[]);
        check(
            &[("10:00:10", 10.0), ("10:00:20", 20.0), ("10:00:30", 60.0), ("10:01:00.5", 1.0), ("10:02:01", 1.0)],
            &[("10:01:00", 30.0, 60.0), ("10:02:00", 1.0, 1.0)],
        );
        // What is read at the very end belongs to what it ends.
        check(&[("10:00:50", 10.0), ("10:01:00", 20.0), ("10:01:10", 1.0)], &[("10:01:00", 15.0, 20.0)]);
    }

    #[test]
    fn a_gap_stays_a_gap() {
        // The agent is started, the machine is suspended.
        check(
            &[("10:00:59", 5.0), ("10:01:30", 7.0), ("13:30:30", 9.0), ("13:31:30", 9.0)],
            &[("10:01:00", 5.0, 5.0), ("10:02:00", 7.0, 7.0), ("13:31:00", 9.0, 9.0)],
        );
    }

    #[test]
    fn a_clock_that_is_set_back_ends_what_was_under_way() {
        check(
            &[("10:00:10", 4.0), ("09:00:20", 6.0), ("09:01:20", 8.0), ("10:00:30", 9.0), ("10:01:30", 1.0)],
            &[("10:01:00", 4.0, 4.0), ("09:01:00", 6.0, 6.0), ("09:02:00", 8.0, 8.0), ("10:01:00", 9.0, 9.0)],
        );
    }

    #[test]
    fn values_have_two_decimals() {
        check(
            &[("10:00:10", 1.0), ("10:00:20", 1.0), ("10:00:30", 0.0), ("10:02:00", 0.0)],
            &[("10:01:00", 0.67, 1.0)],
        );
    }

    #[test]
    fn what_cannot_be_is_left_out_and_nothing_is_no_sample() {
        let mut gatherer = Gatherer::new(MINUTE);
        let begin = at("10:00:10");
        for (index, value) in [f64::NAN, 100.01, -1.0, f64::INFINITY].into_iter().enumerate() {
            let now = begin + TimeDelta::seconds(i64::try_from(index).unwrap());
            assert_eq!(gatherer.add(now, &cpu(value)), None);
        }
        assert_eq!(gatherer.add(at("10:01:10"), &Readings::default()), None);
        assert_eq!(gatherer.add(at("10:02:10"), &cpu(1.0)), None);
        // A metric that is there in some readings is the mean of those.
        gatherer.add(at("10:02:20"), &Readings::default().with(Metric::Temperature, -5.5));
        let sample = gatherer.add(at("10:03:10"), &Readings::default()).unwrap();
        assert_eq!((sample.readings.get(Metric::CpuUsage), sample.at), (Some(1.0), at("10:03:00")));
        assert_eq!(sample.readings.get(Metric::Temperature), Some(-5.5));
        assert_eq!(sample.readings.get(Metric::MemoryUsagePeak), None);
    }

    #[test]
    fn times_before_1970_and_short_periods_do() {
        let mut gatherer = Gatherer::new(Duration::from_millis(20));
        let begin = Timestamp::UNIX_EPOCH - TimeDelta::milliseconds(30);
        gatherer.add(begin, &cpu(1.0));
        let sample = gatherer.add(begin + TimeDelta::milliseconds(20), &cpu(1.0)).unwrap();
        assert_eq!(sample.at, Timestamp::UNIX_EPOCH - TimeDelta::milliseconds(20));
    }
}
