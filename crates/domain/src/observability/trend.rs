//! A series of at most so many points, and the percentiles of all samples behind them.

use super::{
    hours::{HOUR_US, Hour, MINUTE_US},
    percentile::{Percentiles, percentiles},
    ports::{Column, Piece},
    range::Range,
    sketch::Sketch,
};
use crate::clock::Timestamp;
use chrono::DateTime;

/// Widths of buckets that people can read off a clock, in minutes: up to a day. Then come whole days.
const STEPS: [i64; 12] = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440];
/// Whole days up to what the longest range fits into twice.
const DAYS: std::ops::RangeInclusive<i64> = 2..=31;

/// How a range is cut into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    range: Range,
    step_us: i64,
    /// Where the first bucket begins: at or before the range.
    start_us: i64,
    buckets: usize,
}

impl Shape {
    /// The finest buckets of which `points` are enough. They begin at whole minutes, hours and days of UTC, so that the
    /// same bucket has the same samples whenever it is asked for; where so few are wanted that this cannot be, at the
    /// beginning of the range.
    #[must_use]
    pub fn of(range: Range, points: u16) -> Self {
        let points = usize::from(points.max(1));
        let minutes = STEPS.into_iter().chain(DAYS.map(|days| days * 1440));
        let aligned = minutes.map(|minutes| Self::aligned(range, minutes * MINUTE_US));
        aligned.into_iter().find(|shape| shape.buckets <= points).unwrap_or_else(|| Self::cut(range, points))
    }

    fn aligned(range: Range, step_us: i64) -> Self {
        // What belongs to the range comes after its beginning.
        let start_us = (range.start_us() + 1).div_euclid(step_us) * step_us;
        Self::with(range, step_us, start_us)
    }

    fn cut(range: Range, points: usize) -> Self {
        let start_us = range.start_us() + 1;
        let parts = i64::try_from(points).unwrap_or(i64::MAX);
        Self::with(range, (range.end_us() - range.start_us()).max(1).div_euclid(parts) + 1, start_us)
    }

    fn with(range: Range, step_us: i64, start_us: i64) -> Self {
        let buckets = (range.end_us() - start_us).div_euclid(step_us) + 1;
        Self { range, step_us, start_us, buckets: usize::try_from(buckets).unwrap_or_default() }
    }

    /// How long a bucket is, in seconds.
    #[must_use]
    pub fn resolution_seconds(&self) -> i64 {
        self.step_us / 1_000_000
    }

    /// How many buckets there are, those that may stay empty included.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.buckets
    }

    /// Whether an hour is never cut by a bucket, so that hours may be taken whole.
    #[must_use]
    pub fn takes_hours(&self) -> bool {
        self.step_us % HOUR_US == 0 && self.start_us % HOUR_US == 0
    }

    fn bucket_of(&self, time: i64) -> usize {
        usize::try_from((time - self.start_us).div_euclid(self.step_us)).unwrap_or_default()
    }

    /// The minute of the range that a time is in, from 0.
    fn minute_of(&self, time: i64) -> usize {
        usize::try_from((time - self.range.start_us() - 1).div_euclid(MINUTE_US)).unwrap_or_default()
    }

    fn minutes(&self) -> usize {
        self.minute_of(self.range.end_us()) + 1
    }
}

/// What was measured in a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When the bucket begins.
    pub at: Timestamp,
    /// The mean.
    pub value: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// A series.
#[derive(Debug, Clone, PartialEq)]
pub struct Trend {
    /// How long a bucket is, in seconds.
    pub resolution_seconds: i64,
    /// The buckets that have samples, in the order of time.
    pub points: Vec<Point>,
    /// Of all samples; `None` of none.
    pub percentiles: Option<Percentiles>,
    /// How many samples the percentiles are of.
    pub samples: u64,
    /// Minutes with a sample over minutes in the range, of all servers: 0 to 1.
    pub coverage: f64,
    /// Whether the percentiles are exact. Otherwise they are within [`Sketch::ERROR`].
    pub exact: bool,
}

/// Makes a series out of what is stored.
#[derive(Debug)]
pub struct TrendBuilder {
    shape: Shape,
    buckets: Vec<Bucket>,
    spread: Spread,
    /// The minutes of the current server that have a sample.
    covered: Vec<u64>,
    minutes: u64,
    servers: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

/// How values are spread.
#[derive(Debug)]
enum Spread {
    Exact(Vec<f64>),
    Sketched(Sketch),
}

impl Bucket {
    const EMPTY: Self = Self { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    fn add(&mut self, count: u64, sum: f64, min: f64, max: f64) {
        self.count += count;
        self.sum += sum;
        self.min = self.min.min(min);
        self.max = self.max.max(max);
    }
}

impl TrendBuilder {
    /// Of one server: exact.
    #[must_use]
    pub fn exact(shape: Shape) -> Self {
        Self::new(shape, Spread::Exact(Vec::new()))
    }

    /// Of many servers together: within [`Sketch::ERROR`].
    #[must_use]
    pub fn sketched(shape: Shape) -> Self {
        Self::new(shape, Spread::Sketched(Sketch::default()))
    }

    fn new(shape: Shape, spread: Spread) -> Self {
        Self {
            shape,
            buckets: vec![Bucket::EMPTY; shape.buckets],
            spread,
            covered: vec![0; shape.minutes().div_ceil(64)],
            minutes: 0,
            servers: 0,
        }
    }

    /// Takes in all that is stored of one server. Samples in `excluded` are in the points, and not in the percentiles;
    /// those are pairs of beginning and end in microseconds since 1970, and the end does not belong to them.
    pub fn server(&mut self, pieces: &[Piece], excluded: &[(i64, i64)]) {
        let excluded = merged(excluded);
        for piece in pieces {
            match piece {
                Piece::Samples(column) => self.samples(column, &excluded),
                Piece::Hours(hours) => hours.iter().for_each(|hour| self.hour(hour)),
            }
        }
        self.minutes += self.covered.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        self.covered.fill(0);
        self.servers += 1;
    }

    fn samples(&mut self, column: &Column, excluded: &[(i64, i64)]) {
        let (from, to) = (self.shape.range.start_us(), self.shape.range.end_us());
        let first = column.times.partition_point(|time| *time <= from);
        let last = column.times.partition_point(|time| *time <= to);
        let times = column.times.get(first..last).unwrap_or_default();
        let values = column.values.get(first..last).unwrap_or_default();
        self.points(times, values);
        self.spread(times, values, excluded);
    }

    /// Goes from bucket to bucket, not from sample to sample: a loop over the samples of one is quick.
    fn points(&mut self, times: &[i64], values: &[f64]) {
        for time in times {
            let minute = self.shape.minute_of(*time);
            if let Some(word) = self.covered.get_mut(minute / 64) {
                *word |= 1 << (minute % 64);
            }
        }
        let (mut times, mut values) = (times, values);
        while let Some(time) = times.first() {
            let place = self.shape.bucket_of(*time);
            let end = self.shape.start_us + (i64::try_from(place).unwrap_or_default() + 1) * self.shape.step_us;
            let count = times.iter().take_while(|time| **time < end).count();
            let (here, later) = values.split_at(count);
            if let Some(bucket) = self.buckets.get_mut(place) {
                let count = u64::try_from(count).unwrap_or_default();
                let least = here.iter().copied().fold(f64::INFINITY, f64::min);
                let most = here.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                bucket.add(count, here.iter().sum(), least, most);
            }
            values = later;
            times = times.get(count..).unwrap_or_default();
        }
    }

    /// What is excluded is in order, and does not overlap.
    fn spread(&mut self, times: &[i64], values: &[f64], excluded: &[(i64, i64)]) {
        let mut after = 0;
        for (from, to) in excluded.iter().chain(&[(i64::MAX, i64::MAX)]) {
            let before = times.partition_point(|time| time < from);
            let some = values.get(after..before).unwrap_or_default();
            match &mut self.spread {
                Spread::Exact(all) => all.extend_from_slice(some),
                Spread::Sketched(sketch) => some.iter().for_each(|value| sketch.add(*value)),
            }
            after = times.partition_point(|time| time < to);
        }
    }

    fn hour(&mut self, hour: &Hour) {
        let count = hour.sketch.count();
        if let Some(bucket) = self.buckets.get_mut(self.shape.bucket_of(hour.start_us)) {
            bucket.add(count, hour.sum, hour.min, hour.max);
        }
        self.minutes += u64::from(hour.minutes);
        if let Spread::Exact(all) = &self.spread {
            // Hours do not tell their samples: from here on nothing is exact.
            let mut sketch = Sketch::default();
            for value in all {
                sketch.add(*value);
            }
            self.spread = Spread::Sketched(sketch);
        }
        if let Spread::Sketched(sketch) = &mut self.spread {
            sketch.merge(&hour.sketch);
        }
    }

    /// The series.
    #[must_use]
    pub fn finish(self) -> Trend {
        let Shape { start_us, step_us, .. } = self.shape;
        let starts = (0_i64..).map(|place| DateTime::from_timestamp_micros(start_us + place * step_us));
        let filled = starts.zip(&self.buckets).filter(|(_, bucket)| bucket.count > 0);
        let point = |(at, bucket): (Option<Timestamp>, &Bucket)| {
            let mean = (bucket.sum / float(bucket.count)).clamp(bucket.min, bucket.max);
            Some(Point { at: at?, value: mean, min: bucket.min, max: bucket.max })
        };
        let points = filled.filter_map(point).collect();
        let all = float(u64::try_from(self.shape.minutes()).unwrap_or_default() * self.servers);
        let coverage = if all > 0.0 { (float(self.minutes) / all).min(1.0) } else { 0.0 };
        let (exact, samples, percentiles) = match self.spread {
            Spread::Exact(mut all) => (true, u64::try_from(all.len()).unwrap_or_default(), percentiles(&mut all)),
            Spread::Sketched(sketch) => (false, sketch.count(), sketch.percentiles()),
        };
        let resolution_seconds = self.shape.resolution_seconds();
        Trend { resolution_seconds, points, percentiles, samples, coverage, exact }
    }
}

/// Counts are far below what a number of that precision can tell apart.
fn float(count: u64) -> f64 {
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "no fleet has 2^53 samples")]
    let float = count as f64;
    float
}

/// The same parts of time in order, those that overlap as one.
fn merged(parts: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut parts: Vec<(i64, i64)> = parts.iter().copied().filter(|(from, to)| from < to).collect();
    parts.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::with_capacity(parts.len());
    for (from, to) in parts {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

#[cfg(test)]
#[path = "trend_tests.rs"]
mod tests;
