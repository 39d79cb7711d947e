use super::*;
use crate::{
    observability::{
        Metric,
        alerts::{Comparison, Condition},
    },
    testing::START,
};
use proptest::prelude::*;

/// `cpu_usage > 90`, over at 80.
fn condition() -> Condition {
    let (threshold, clear_threshold) = (90.0, Some(80.0));
    Condition::Metric { metric: Metric::CpuUsage, comparison: Comparison::Gt, threshold, clear_threshold }
}

fn reading(minute: i64, value: f64) -> Reading {
    Reading { at: START + TimeDelta::minutes(minute), value, level: condition().level(value) }
}

fn machine(hold: i64) -> Machine {
    Machine::new(TimeDelta::minutes(hold), Some(STALE), Phase::Quiet, None)
}

/// Fails unless these values, a minute apart, do this; a negative value stands for a minute without one.
fn check(hold: i64, values: &[f64], expected: &[(i64, Step)]) {
    let mut machine = machine(hold);
    let mut seen = Vec::new();
    for (minute, value) in (0_i64..).zip(values).filter(|(_, value)| **value >= 0.0) {
        seen.extend(machine.step(&reading(minute, *value)).into_iter().map(|step| (minute, step)));
    }
    assert_eq!(seen, expected, "{values:?} for {hold} minutes");
}

#[test]
fn it_fires_when_it_has_held_for_long_enough() {
    use Step::{End, Fire, Pend};
    let cleared = End(AlertReason::Cleared);
    check(0, &[50.0, 91.0, 91.0], &[(1, Pend), (1, Fire)]);
    check(2, &[91.0, 91.0], &[(0, Pend)]);
    check(2, &[91.0, 91.0, 91.0, 91.0], &[(0, Pend), (2, Fire)]);
    check(2, &[91.0, 91.0, 80.0, 91.0], &[(0, Pend), (2, cleared), (3, Pend)]);
    check(1, &[91.0, 91.0, 79.0], &[(0, Pend), (1, Fire), (2, cleared)]);
    // Exactly the threshold is not above it.
    check(0, &[90.0], &[]);
}

#[test]
fn what_is_between_the_thresholds_changes_nothing() {
    use Step::{End, Fire, Pend};
    check(0, &[85.0, 85.0], &[]);
    check(0, &[91.0, 85.0, 91.0, 85.0, 80.0], &[(0, Pend), (0, Fire), (4, End(AlertReason::Cleared))]);
    // It neither ends what is pending nor makes it fire.
    check(2, &[91.0, 85.0, 85.0, 91.0], &[(0, Pend), (3, Fire)]);
}

#[test]
fn no_data_is_no_time_in_which_it_held() {
    use Step::{End, Fire, Pend};
    let gap = [91.0, -1.0, -1.0, -1.0, -1.0, -1.0, 91.0, 91.0];
    check(3, &gap, &[(0, Pend), (6, End(AlertReason::NoData)), (6, Pend)]);
    check(3, &[91.0, -1.0, -1.0, -1.0, -1.0, 91.0], &[(0, Pend), (5, Fire)]);
    // What fires does so until something says that it is over.
    let fired = [91.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 91.0, 80.0];
    check(0, &fired, &[(0, Pend), (0, Fire), (8, End(AlertReason::Cleared))]);
}

#[test]
fn the_same_reading_counts_once() {
    let mut machine = machine(1);
    assert_eq!(machine.step(&reading(5, 95.0)), [Step::Pend]);
    for minute in [5, 4, 0] {
        assert_eq!(machine.step(&reading(minute, 10.0)), []);
    }
    assert_eq!(machine.step(&reading(6, 95.0)), [Step::Fire]);
}

proptest! {
    #[test]
    fn steps_come_in_their_order_and_only_for_good_reason(
        hold in 0..10_i64,
        values in prop::collection::vec((1..9_i64, prop::sample::select(vec![70.0, 80.0, 85.0, 90.0, 91.0])), 0..60),
    ) {
        let (mut machine, mut minute, mut phase, mut since) = (machine(hold), 0, 0, 0);
        for (apart, value) in values {
            minute += apart;
            for step in machine.step(&reading(minute, value)) {
                match step {
                    Step::Pend => {
                        prop_assert!(phase == 0 && value > 90.0);
                        (phase, since) = (1, minute);
                    }
                    Step::Fire => {
                        prop_assert!(phase == 1 && value > 90.0 && minute - since >= hold);
                        phase = 2;
                    }
                    Step::End(AlertReason::Cleared) => {
                        prop_assert!(phase != 0 && value <= 80.0);
                        phase = 0;
                    }
                    Step::End(reason) => {
                        prop_assert!(reason == AlertReason::NoData && phase == 1 && apart > 5);
                        phase = 0;
                    }
                }
            }
        }
    }

    #[test]
    fn it_does_not_matter_when_somebody_looks(
        hold in 0..10_i64,
        values in prop::collection::vec((1..9_i64, prop::sample::select(vec![70.0, 85.0, 95.0])), 1..40),
        cut in 0..40_usize,
    ) {
        let mut minute = 0;
        let readings: Vec<Reading> = values.iter().map(|(apart, value)| { minute += apart; reading(minute, *value) }).collect();
        let mut whole = machine(hold);
        let steps: Vec<Step> = readings.iter().flat_map(|reading| whole.step(reading)).collect();
        let (before, after) = readings.split_at(cut.min(readings.len()));
        let mut first = machine(hold);
        let mut parts: Vec<Step> = before.iter().flat_map(|reading| first.step(reading)).collect();
        // All that is kept is how far it was, and the reading that was judged last.
        let last = before.last().map(|reading| reading.at);
        let mut second = Machine::new(TimeDelta::minutes(hold), Some(STALE), first.phase(), last);
        parts.extend(after.iter().flat_map(|reading| second.step(reading)));
        prop_assert_eq!(steps, parts);
    }
}
