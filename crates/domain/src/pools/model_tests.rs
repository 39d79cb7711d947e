use super::*;
use crate::{
    Error,
    testing::{START, name},
};
use chrono::TimeDelta;

fn pool(all: Option<Watermark>) -> Pool {
    let new = NewPool {
        name: name("edge"),
        kind: PoolType::Compute,
        quotas: Quotas { cpu_millis: Some(8000), memory_mib: Some(1024), storage_mib: None, gpus: Some(2) },
        watermarks: Watermarks { all, cpu: Some(mark(95.0, 90.0)), ..Watermarks::default() },
        strategy: PoolStrategy::Spread,
        labels: Tags::parse([("env".to_owned(), "prod".to_owned())].into()).unwrap(),
        description: Some("At the edge".to_owned()),
    };
    new.into_pool(PoolId(3), START)
}

fn mark(high: f64, low: f64) -> Watermark {
    Watermark::parse(high, low).unwrap()
}

#[track_caller]
fn check(patch: PoolPatch, expected: impl FnOnce(Pool) -> Pool) {
    let (before, now) =
        (Pool { state: PoolState::Saturated, ..pool(Some(mark(80.0, 60.0))) }, START + TimeDelta::minutes(1));
    let after = before.patched(patch, now).unwrap();
    assert_eq!(after, expected(Pool { revision: 2, updated_at: now, ..before }));
}

#[test]
fn a_patch_keeps_what_it_does_not_mention() {
    check(PoolPatch::default(), |before| before);
    let patch = PoolPatch {
        name: Some(name("core")),
        kind: Some(PoolType::Gpu),
        strategy: Some(PoolStrategy::Binpack),
        ..PoolPatch::default()
    };
    check(patch, |before| Pool { name: name("core"), kind: PoolType::Gpu, strategy: PoolStrategy::Binpack, ..before });
    let patch = PoolPatch {
        quotas: Patch::Set(QuotasPatch::default()),
        watermarks: Patch::Set(WatermarksPatch::default()),
        labels: Patch::Set(BTreeMap::new()),
        ..PoolPatch::default()
    };
    check(patch, |before| before);
}

#[test]
fn null_clears_whole_members() {
    let patch = PoolPatch {
        quotas: Patch::Clear,
        watermarks: Patch::Clear,
        labels: Patch::Clear,
        description: Patch::Clear,
        ..PoolPatch::default()
    };
    check(patch, |before| Pool {
        quotas: Quotas::default(),
        watermarks: Watermarks::default(),
        labels: Tags::default(),
        description: None,
        ..before
    });
}

#[test]
fn quotas_and_labels_are_merged() {
    let quotas = QuotasPatch { cpu_millis: Patch::Set(0), memory_mib: Patch::Clear, ..QuotasPatch::default() };
    let patch = PoolPatch { quotas: Patch::Set(quotas), ..PoolPatch::default() };
    let expected = Quotas { cpu_millis: Some(0), memory_mib: None, storage_mib: None, gpus: Some(2) };
    check(patch, |before| Pool { quotas: expected, ..before });
    let labels = [("env".to_owned(), None), ("team".to_owned(), Some("core".to_owned()))];
    let patch = PoolPatch { labels: Patch::Set(labels.into()), ..PoolPatch::default() };
    let expected = Tags::parse([("team".to_owned(), "core".to_owned())].into()).unwrap();
    check(patch, |before| Pool { labels: expected, ..before });
}

#[test]
fn a_watermark_of_a_resource_is_replaced_as_a_whole() {
    let changes =
        WatermarksPatch { cpu: Patch::Clear, gpu: Patch::Set(mark(50.0, 10.0)), ..WatermarksPatch::default() };
    let patch = PoolPatch { watermarks: Patch::Set(changes), ..PoolPatch::default() };
    check(patch, |before| Pool {
        watermarks: Watermarks { cpu: None, gpu: Some(mark(50.0, 10.0)), ..before.watermarks },
        ..before
    });
}

#[test]
fn the_ends_of_the_common_watermark_can_be_given_alone() {
    use Patch::{Clear, Keep, Set};
    let check = |before: Option<Watermark>, high: Patch<f64>, low: Patch<f64>, expected: Option<Option<Watermark>>| {
        let case = format!("{before:?} with high {high:?} and low {low:?}");
        let changes = WatermarksPatch { high, low, ..WatermarksPatch::default() };
        let patch = PoolPatch { watermarks: Patch::Set(changes), ..PoolPatch::default() };
        match (pool(before).patched(patch, START), expected) {
            (Ok(after), Some(expected)) => assert_eq!(after.watermarks.all, expected, "{case}"),
            (Err(Error::Invalid { errors }), None) => assert_eq!(errors[0].field, "watermarks", "{case}"),
            (outcome, _) => panic!("{case}: {outcome:?}"),
        }
    };
    let some = Some(mark(80.0, 60.0));
    check(some, Keep, Keep, Some(some));
    check(some, Set(90.0), Keep, Some(Some(mark(90.0, 60.0))));
    check(some, Keep, Set(70.0), Some(Some(mark(80.0, 70.0))));
    check(some, Keep, Clear, Some(Some(mark(80.0, 80.0))));
    check(some, Clear, Keep, Some(None));
    check(some, Clear, Clear, Some(None));
    check(some, Set(50.0), Keep, None);
    check(some, Keep, Set(80.5), None);
    check(some, Clear, Set(10.0), None);
    check(None, Set(80.0), Keep, Some(Some(mark(80.0, 80.0))));
    check(None, Set(80.0), Set(60.0), Some(Some(mark(80.0, 60.0))));
    check(None, Keep, Set(60.0), None);
    check(None, Keep, Clear, Some(None));
}

#[test]
fn a_watermark_has_percentages_with_low_not_above_high() {
    for (high, low) in [(0.0, 0.0), (100.0, 0.0), (100.0, 100.0), (80.5, 80.5)] {
        assert_eq!(Watermark::parse(high, low), Ok(Watermark { high, low }));
    }
    for (high, low) in [(80.0, 80.1), (100.1, 50.0), (50.0, -0.1), (-1.0, -2.0), (f64::NAN, 0.0), (50.0, f64::NAN)] {
        assert!(Watermark::parse(high, low).is_err(), "high {high}, low {low}");
    }
    assert!(Watermarks::pair(None, Some(50.0)).unwrap_err().contains("must have high"));
}

#[test]
fn every_fault_of_a_patch_is_named() {
    let changes = WatermarksPatch { low: Patch::Set(99.0), ..WatermarksPatch::default() };
    let patch = PoolPatch {
        watermarks: Patch::Set(changes),
        labels: Patch::Set([("not a key".to_owned(), Some(String::new()))].into()),
        ..PoolPatch::default()
    };
    let refused = pool(Some(mark(80.0, 60.0))).patched(patch, START);
    let Err(Error::Invalid { errors }) = refused else { panic!("{refused:?}") };
    assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["watermarks", "labels"]);
}

#[test]
fn words_read_back() {
    for word in ["compute", "gpu", "storage", "network"] {
        assert_eq!(PoolType::parse(word).unwrap().as_str(), word);
    }
    for word in ["spread", "binpack"] {
        assert_eq!(PoolStrategy::parse(word).unwrap().as_str(), word);
    }
    for word in ["", "Compute", "random"] {
        assert!(PoolType::parse(word).is_none() && PoolStrategy::parse(word).is_none());
    }
}
