use super::*;
use crate::observability::alerts::fixtures::{at, cpu, rule};

fn samples(values: &[f64]) -> Vec<(Timestamp, f64)> {
    (0..).zip(values).map(|(minute, value)| (at(minute), *value)).collect()
}

fn check(for_minutes: u32, values: &[f64], silent: &[Span], expected: &[(i64, i64, Option<i64>, f64)]) {
    let periods = replay(&rule(cpu(), for_minutes), &samples(values), silent);
    let expected: Vec<Period> = expected
        .iter()
        .map(|(from, fired, to, peak)| Period { from: at(*from), fired_at: at(*fired), to: to.map(at), peak: *peak })
        .collect();
    assert_eq!(periods, expected);
}

#[test]
fn periods_have_a_peak_and_an_end_where_there_is_one() {
    check(0, &[10.0, 20.0], &[], &[]);
    check(
        1,
        &[95.0, 99.0, 85.0, 97.0, 70.0, 95.0, 20.0, 91.0, 92.0],
        &[],
        &[(0, 1, Some(4), 99.0), (7, 8, None, 92.0)],
    );
}

#[test]
fn what_was_measured_in_maintenance_does_not_count() {
    let span = Span { from: at(1), until: at(3) };
    check(0, &[10.0, 99.0, 99.0, 10.0], &[span], &[]);
    check(2, &[95.0, 95.0, 95.0, 95.0, 95.0], &[span], &[]);
    check(1, &[95.0, 95.0, 95.0, 95.0, 95.0], &[span], &[(3, 4, None, 95.0)]);
}
