//! What is counted of each hour, so that many servers over many days need not be read sample by sample.

use super::sketch::Sketch;

/// An hour in microseconds.
pub(super) const HOUR_US: i64 = 3_600_000_000;
/// A minute in microseconds.
pub(super) const MINUTE_US: i64 = 60_000_000;

/// A metric of a server in one hour.
#[derive(Debug, Clone, PartialEq)]
pub struct Hour {
    /// When it begins, in microseconds since 1970.
    pub start_us: i64,
    /// In how many of its minutes there is a sample.
    pub minutes: u32,
    /// The least value.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// All together.
    pub sum: f64,
    /// How they are spread; it has their number.
    pub sketch: Sketch,
}

/// The hours of samples that are in the order of their times, which are in microseconds since 1970.
#[must_use]
pub fn hours_of(times: &[i64], values: &[f64]) -> Vec<Hour> {
    let mut hours: Vec<Hour> = Vec::new();
    let mut minute = None;
    for (time, value) in times.iter().zip(values) {
        let start_us = time.div_euclid(HOUR_US) * HOUR_US;
        if hours.last().is_none_or(|hour| hour.start_us != start_us) {
            let (min, max, sketch) = (f64::INFINITY, f64::NEG_INFINITY, Sketch::default());
            hours.push(Hour { start_us, minutes: 0, min, max, sum: 0.0, sketch });
        }
        let Some(hour) = hours.last_mut() else { continue };
        let of = time.div_euclid(MINUTE_US);
        if minute != Some(of) {
            minute = Some(of);
            hour.minutes += 1;
        }
        hour.min = hour.min.min(*value);
        hour.max = hour.max.max(*value);
        hour.sum += value;
        hour.sketch.add(*value);
    }
    hours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_counts_what_is_in_it() {
        let times = [-1, 0, MINUTE_US - 1, HOUR_US - 1, HOUR_US, 3 * HOUR_US];
        let hours = hours_of(&times, &[9.0, 1.0, 3.0, 2.0, 5.0, 7.0]);
        let told: Vec<_> =
            hours.iter().map(|h| (h.start_us, h.minutes, h.min, h.max, h.sum, h.sketch.count())).collect();
        let expected = [
            (-HOUR_US, 1, 9.0, 9.0, 9.0, 1),
            (0, 2, 1.0, 3.0, 6.0, 3),
            (HOUR_US, 1, 5.0, 5.0, 5.0, 1),
            (3 * HOUR_US, 1, 7.0, 7.0, 7.0, 1),
        ];
        assert_eq!(told, expected);
        assert_eq!(hours_of(&[], &[]), []);
    }
}
