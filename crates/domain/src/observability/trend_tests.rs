use super::*;
use crate::observability::hours_of;
use chrono::TimeDelta;
use proptest::prelude::*;

/// The last `minutes` before `END`.
fn range(minutes: i64) -> Range {
    Range::between(END - TimeDelta::minutes(minutes), Some(END), END).unwrap()
}

/// A day that begins at midnight.
const END: Timestamp = chrono::DateTime::from_timestamp(40 * 86_400, 0).unwrap();

/// One sample a minute, the last of them at the end.
fn minutely(values: &[f64]) -> Column {
    let end = END.timestamp_micros();
    let count = i64::try_from(values.len()).unwrap();
    Column { times: (0..count).map(|n| end - (count - 1 - n) * MINUTE_US).collect(), values: values.to_vec() }
}

fn exact(range: Range, points: u16, column: Column) -> Trend {
    let mut builder = TrendBuilder::exact(Shape::of(range, points));
    builder.server(&[Piece::Samples(column)], &[]);
    builder.finish()
}

#[test]
fn buckets_are_as_fine_as_the_points_allow() {
    let check = |minutes, points, seconds| {
        let shape = Shape::of(range(minutes), points);
        assert_eq!(shape.resolution_seconds(), seconds, "{minutes} minutes in {points} points: {shape:?}");
        assert!(shape.buckets <= usize::from(points), "{shape:?}");
    };
    check(60, 61, 60);
    check(60, 60, 120);
    check(720 * 60, 2000, 1800);
    check(720 * 60, 1000, 3600);
    check(720 * 60, 100, 28800 / 2 * 3);
    check(720 * 60, 31, 86400);
    check(720 * 60, 2, 21 * 86400);
}

#[test]
fn what_spreads_over_a_point_is_in_it() {
    let trend = exact(range(10), 2, minutely(&[1.0, 2.0, 3.0, 90.0, 5.0]));
    assert_eq!(trend.resolution_seconds, 600);
    let [point, last] = trend.points.as_slice() else { panic!("{trend:?}") };
    assert_eq!((point.at, point.min, point.max), (END - TimeDelta::minutes(10), 1.0, 90.0));
    assert_eq!((last.at, last.value), (END, 5.0));
    assert!((point.value - 24.0).abs() < 1e-9);
    assert_eq!((trend.samples, trend.coverage, trend.exact), (5, 0.5, true));
}

#[test]
fn a_gap_stays_a_gap() {
    let mut column = minutely(&[1.0; 60]);
    column.times.drain(10..50);
    column.values.drain(10..50);
    let trend = exact(range(60), 100, column);
    assert_eq!(trend.points.len(), 20);
    assert!((trend.coverage - 20.0 / 60.0).abs() < 1e-9, "{}", trend.coverage);
}

#[test]
fn nothing_has_no_percentiles() {
    let trend = exact(range(60), 100, Column::default());
    assert_eq!((trend.points.len(), trend.percentiles, trend.samples, trend.coverage), (0, None, 0, 0.0));
}

#[test]
fn samples_outside_of_the_range_do_not_count() {
    let trend = exact(range(5), 100, minutely(&[100.0, 100.0, 1.0, 1.0, 1.0, 1.0, 1.0]));
    assert_eq!((trend.samples, trend.coverage), (5, 1.0));
    assert!((trend.percentiles.unwrap().p99 - 1.0).abs() < 1e-9);
}

#[test]
fn what_is_excluded_is_drawn_but_not_in_the_percentiles() {
    let end = END.timestamp_micros();
    let mut builder = TrendBuilder::exact(Shape::of(range(10), 100));
    let overlapping = [(end - 5 * MINUTE_US, end - 2 * MINUTE_US), (end - 6 * MINUTE_US, end - 4 * MINUTE_US)];
    builder.server(&[Piece::Samples(minutely(&[1.0, 1.0, 1.0, 50.0, 50.0, 50.0, 50.0, 2.0, 1.0, 1.0]))], &overlapping);
    let trend = builder.finish();
    assert_eq!((trend.points.len(), trend.samples, trend.coverage), (10, 6, 1.0));
    let found = trend.percentiles.unwrap();
    assert!((found.p99 - 1.95).abs() < 1e-9, "{found:?}");
    assert!(trend.points.iter().any(|point| point.max > 49.0));
}

#[test]
fn servers_are_taken_together_whether_by_samples_or_by_hours() {
    let range = range(48 * 60);
    let column = minutely(&(0..48 * 60).map(|n| f64::from(n % 97) + 1.0).collect::<Vec<_>>());
    let shape = Shape::of(range, 49);
    assert!(shape.takes_hours());
    let (mut by_samples, mut by_hours) = (TrendBuilder::sketched(shape), TrendBuilder::sketched(shape));
    let hours = hours_of(&column.times, &column.values);
    for _ in 0..3 {
        by_samples.server(&[Piece::Samples(column.clone())], &[]);
        by_hours.server(&[Piece::Hours(hours.clone())], &[]);
    }
    let (by_samples, by_hours) = (by_samples.finish(), by_hours.finish());
    assert_eq!(by_samples, by_hours);
    assert_eq!((by_hours.samples, by_hours.coverage, by_hours.exact), (3 * 48 * 60, 1.0, false));
}

#[test]
fn an_hour_makes_it_inexact() {
    let column = minutely(&[3.0; 120]);
    let mut builder = TrendBuilder::exact(Shape::of(range(180), 4));
    builder.server(&[Piece::Samples(column.clone()), Piece::Hours(hours_of(&column.times, &column.values))], &[]);
    let trend = builder.finish();
    assert!(!trend.exact);
    assert!((trend.percentiles.unwrap().p50 - 3.0).abs() <= 0.03);
}

proptest! {
    #[test]
    fn no_range_has_more_points_than_were_asked_for(minutes in 1_i64..43_200, offset in 0_i64..86_400_000_000, points in 1_u16..2000) {
        let to = END + TimeDelta::microseconds(offset);
        let range = Range::between(to - TimeDelta::minutes(minutes), Some(to), to).unwrap();
        let shape = Shape::of(range, points);
        prop_assert!(shape.buckets <= usize::from(points) && shape.buckets > 0, "{shape:?}");
        // Every time of the range has a bucket.
        prop_assert!(shape.start_us <= range.start_us() + 1);
        prop_assert_eq!(shape.bucket_of(range.end_us()), shape.buckets - 1);
    }

    #[test]
    fn no_spike_disappears(values in prop::collection::vec(0.0..100.0_f64, 1..600), points in 1_u16..200) {
        let trend = exact(range(600), points, minutely(&values));
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        prop_assert!(trend.points.iter().any(|point| point.max >= most) && trend.points.iter().all(|point| point.max <= most));
        prop_assert!(trend.points.iter().any(|point| point.min <= least) && trend.points.iter().all(|point| point.min >= least));
        prop_assert!(trend.points.iter().all(|point| point.min <= point.value && point.value <= point.max));
        prop_assert_eq!(trend.samples, u64::try_from(values.len()).unwrap());
    }
}
