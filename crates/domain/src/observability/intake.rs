//! Which samples are taken in.

use super::{metric::Metric, sample::Sample};
use crate::clock::Timestamp;
use chrono::{DateTime, TimeDelta};

/// How far the clock of whoever measured may be ahead.
pub const MOST_AHEAD: TimeDelta = TimeDelta::minutes(5);
/// No sample is older: times before it are faults of a clock that was never set.
pub const OLDEST: Timestamp = match DateTime::from_timestamp(946_684_800, 0) {
    Some(at) => at,
    None => Timestamp::MIN_UTC,
};

/// Why a sample is not taken in: the field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which member of the sample.
    pub field: &'static str,
    /// A clause that follows its name.
    pub reason: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.field, self.reason)
    }
}

/// Judges a sample that comes in at `now`. The time comes first, since it tells most about a sender that is wrong.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn judge(sample: &Sample, now: Timestamp) -> Result<(), Refused> {
    let refuse = |field, reason| Err(Refused { field, reason });
    judge_time(sample.at, now)?;
    if sample.readings.is_empty() {
        return refuse("cpu_usage", "and all other metrics are missing: there is nothing to store".to_owned());
    }
    match sample.readings.iter().find_map(|(metric, value)| Some((metric, wrong(metric, value)?))) {
        Some((metric, reason)) => refuse(metric.as_str(), reason),
        None => Ok(()),
    }
}

/// Judges when a sample was measured.
///
/// # Errors
/// What is wrong with it.
pub fn judge_time(at: Timestamp, now: Timestamp) -> Result<(), Refused> {
    let refuse = |reason| Err(Refused { field: "recorded_at", reason });
    let ahead = at - now;
    if ahead > MOST_AHEAD {
        let (at, seconds) = (at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true), ahead.num_seconds());
        return refuse(format!(
            "is {at}, {seconds} seconds in the future: at most 300 are taken; set the clock of whoever measured"
        ));
    }
    if at < OLDEST {
        return refuse("is before the year 2000: set the clock of whoever measured".to_owned());
    }
    Ok(())
}

fn wrong(metric: Metric, value: f64) -> Option<String> {
    let (least, most) = metric.unit().bounds();
    // Neither is NaN in any range.
    (!(least..=most).contains(&value)).then(|| format!("must be from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::Readings;

    const NOW: Timestamp = match DateTime::from_timestamp(1_800_000_000, 0) {
        Some(at) => at,
        None => OLDEST,
    };

    fn check(at: Timestamp, metric: Metric, value: f64, refused: Option<(&str, &str)>) {
        let judged = judge(&Sample { at, readings: Readings::default().with(metric, value) }, NOW);
        match (judged, refused) {
            (Ok(()), None) => {}
            (Err(found), Some((field, reason))) => {
                assert_eq!(found.field, field);
                assert!(found.reason.contains(reason), "{found}");
            }
            (judged, refused) => panic!("{metric} {value} at {at}: {judged:?} is not {refused:?}"),
        }
    }

    #[test]
    fn times_may_be_a_little_ahead_and_long_ago() {
        for at in [NOW, NOW + MOST_AHEAD, NOW - TimeDelta::days(3650), OLDEST] {
            check(at, Metric::CpuUsage, 1.0, None);
        }
        let later = NOW + MOST_AHEAD + TimeDelta::milliseconds(1);
        check(later, Metric::CpuUsage, 1.0, Some(("recorded_at", "300 seconds in the future")));
        check(
            OLDEST - TimeDelta::milliseconds(1),
            Metric::CpuUsage,
            1.0,
            Some(("recorded_at", "before the year 2000")),
        );
    }

    #[test]
    fn values_are_in_the_range_of_their_metric() {
        for metric in Metric::ALL {
            let (least, most) = metric.unit().bounds();
            check(NOW, *metric, least, None);
            check(NOW, *metric, most, None);
            let beyond = [least - 0.001, most + most.abs() * 0.001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
            for value in beyond {
                check(NOW, *metric, value, Some((metric.as_str(), "must be from")));
            }
        }
        check(NOW, Metric::Temperature, -5.5, None);
    }

    #[test]
    fn a_sample_of_nothing_is_none() {
        let judged = judge(&Sample { at: NOW, readings: Readings::default() }, NOW);
        assert!(judged.unwrap_err().to_string().contains("nothing to store"));
    }
}
