//! What is promised of samples: each is stored once, and is read the same, whether it is a row or in a column.

mod merging;

use crate::{on_both, store::Store};
use chrono::{DateTime, TimeDelta};
use domain::{
    clock::Timestamp,
    ids::ServerId,
    observability::{Column, Detail, Kept, Metric, Piece, Range, Readings, Sample, Samples, Visitor, Wanted},
    page::PageRequest,
};
use infra_diesel::{DatabaseOptions, DieselSamples};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

on_both!(
    a_sample_is_stored_once,
    the_first_of_a_time_wins_whether_it_is_a_row_or_not,
    sealing_changes_nothing_that_is_read,
    late_samples_land_in_their_place,
    many_at_once_are_stored_like_one_after_the_other,
    many_senders_at_once_lose_and_repeat_nothing,
    a_metric_that_was_not_always_measured_is_read_as_it_was,
    days_are_told_by_their_hours_where_that_is_enough,
    pages_go_through_rows_and_columns_newest_first,
    the_newest_is_the_latest_in_time,
    old_days_are_forgotten_and_no_others,
    a_server_that_is_forgotten_has_nothing_left,
    what_was_stored_is_there_after_a_restart,
    reading_while_sealing_reads_everything_once,
    a_day_that_cannot_be_read_keeps_no_other_from_being_sealed,
    whoever_waits_is_told_that_the_database_is_away,
);

const ONE: ServerId = ServerId(1);
const TWO: ServerId = ServerId(2);

/// A midnight.
fn start() -> Timestamp {
    DateTime::from_timestamp(1_800_000_000 / 86_400 * 86_400, 0).unwrap()
}

fn at(minutes: i64) -> Timestamp {
    start() + TimeDelta::minutes(minutes)
}

fn sample(minutes: i64, cpu: f64) -> Sample {
    Sample { at: at(minutes), readings: Readings::default().with(Metric::CpuUsage, cpu) }
}

fn open(store: &Store) -> DieselSamples {
    DieselSamples::open(&store.url, DatabaseOptions::default()).unwrap()
}

/// A value that is different in each minute of a week.
fn value(minute: i64) -> f64 {
    f64::from(i32::try_from(minute * 7919 % 10_000).unwrap()) / 100.0
}

fn minutes(range: std::ops::Range<i64>) -> Vec<Sample> {
    range.map(|minute| sample(minute, value(minute))).collect()
}

#[derive(Default)]
struct Seen(Mutex<BTreeMap<ServerId, Vec<Piece>>>);

impl Visitor for Seen {
    fn visit(&self, server: ServerId, pieces: Vec<Piece>) {
        let before = self.0.lock().unwrap().insert(server, pieces);
        assert!(before.is_none(), "{server} is handed over twice");
    }
}

async fn pieces(samples: &DieselSamples, server: ServerId, range: Range, metric: Metric, detail: Detail) -> Vec<Piece> {
    let seen = Arc::<Seen>::default();
    let wanted = Wanted { servers: vec![server], metric, range, detail };
    samples.read(wanted, seen.clone()).await.unwrap();
    seen.0.lock().unwrap().remove(&server).unwrap()
}

fn range(from: i64, to: i64) -> Range {
    Range::between(at(from), Some(at(to)), at(to)).unwrap()
}

/// The minutes and values of a range, in order. Fails if a time comes twice.
async fn read_metric(samples: &DieselSamples, server: ServerId, from: i64, to: i64, metric: Metric) -> Vec<(i64, f64)> {
    let mut found = BTreeMap::new();
    for piece in pieces(samples, server, range(from, to), metric, Detail::Samples).await {
        let Piece::Samples(Column { times, values }) = piece else { panic!("nobody asked for hours") };
        assert!(times.is_sorted(), "{times:?}");
        for (time, value) in times.into_iter().zip(values) {
            let minute = (time - start().timestamp_micros()) / 60_000_000;
            if from < minute && minute <= to {
                assert!(found.insert(minute, value).is_none(), "minute {minute} comes twice");
            }
        }
    }
    found.into_iter().collect()
}

async fn read(samples: &DieselSamples, server: ServerId, from: i64, to: i64) -> Vec<(i64, f64)> {
    read_metric(samples, server, from, to, Metric::CpuUsage).await
}

/// Seals everything.
async fn seal(samples: &DieselSamples) -> usize {
    let mut days = 0;
    loop {
        match samples.seal(at(60 * 24 * 365)).await.unwrap() {
            0 => return days,
            some => days += some,
        }
    }
}

async fn a_sample_is_stored_once(store: Store) {
    let samples = open(&store);
    let told = vec![sample(1, 10.0), sample(1, 11.0), sample(-60, 9.0), sample(2, 12.0)];
    let kept = samples.store(ONE, told.clone()).await.unwrap();
    assert_eq!(kept, [Kept::New, Kept::Duplicate, Kept::New, Kept::New]);
    assert_eq!(samples.store(ONE, told.clone()).await.unwrap(), [Kept::Duplicate; 4]);
    // The same times of another server are others.
    assert_eq!(samples.store(TWO, told).await.unwrap(), kept);
    assert_eq!(read(&samples, ONE, -100, 100).await, [(-60, 9.0), (1, 10.0), (2, 12.0)]);
    assert_eq!(samples.list(ONE, PageRequest::default()).await.unwrap().total, 3);
}

async fn the_first_of_a_time_wins_whether_it_is_a_row_or_not(store: Store) {
    let samples = open(&store);
    samples.store(ONE, minutes(0..10)).await.unwrap();
    assert_eq!(seal(&samples).await, 1);
    let again = vec![sample(5, 99.0), sample(10, 1.0), sample(10, 2.0)];
    assert_eq!(samples.store(ONE, again).await.unwrap(), [Kept::Duplicate, Kept::New, Kept::Duplicate]);
    assert_eq!(seal(&samples).await, 1);
    let found = read(&samples, ONE, -1, 20).await;
    assert_eq!((found[5], found[10]), ((5, value(5)), (10, 1.0)));
    assert_eq!(found.len(), 11);
}

async fn sealing_changes_nothing_that_is_read(store: Store) {
    let samples = open(&store);
    let all: Vec<Sample> = minutes(-700..700);
    for some in all.chunks(100) {
        samples.store(ONE, some.to_vec()).await.unwrap();
    }
    let before = (read(&samples, ONE, -1000, 1000).await, samples.list(ONE, PageRequest::default()).await.unwrap());
    // Only what has waited is moved.
    assert_eq!(samples.seal(at(-1000)).await.unwrap(), 0);
    assert_eq!(samples.seal(at(-699)).await.unwrap(), 1);
    assert_eq!(seal(&samples).await, 1);
    let after = (read(&samples, ONE, -1000, 1000).await, samples.list(ONE, PageRequest::default()).await.unwrap());
    assert_eq!(after, before);
    assert_eq!(before.0.len(), 1400);
    assert_eq!(read(&samples, ONE, 100, 110).await.len(), 10);
}

async fn late_samples_land_in_their_place(store: Store) {
    let samples = open(&store);
    let (odd, even): (Vec<Sample>, Vec<Sample>) =
        minutes(0..400).into_iter().partition(|sample| sample.at.timestamp() / 60 % 2 == 1);
    samples.store(ONE, odd).await.unwrap();
    seal(&samples).await;
    samples.store(ONE, even).await.unwrap();
    let expected: Vec<(i64, f64)> = (0..400).map(|minute| (minute, value(minute))).collect();
    assert_eq!(read(&samples, ONE, -1, 500).await, expected);
    seal(&samples).await;
    assert_eq!(read(&samples, ONE, -1, 500).await, expected);
}

async fn many_at_once_are_stored_like_one_after_the_other(store: Store) {
    let samples = open(&store);
    samples.store(ONE, minutes(100..110)).await.unwrap();
    samples.store(ONE, vec![sample(-5, 1.0)]).await.unwrap();
    let mut many = minutes(-1440..2000);
    many.push(sample(0, 77.0));
    let kept = samples.store(ONE, many).await.unwrap();
    let duplicates = kept.iter().filter(|kept| **kept == Kept::Duplicate).count();
    assert_eq!((kept.len(), duplicates), (3441, 12));
    let found = read(&samples, ONE, -2000, 3000).await;
    assert_eq!(found.len(), 3440);
    assert!(
        found.iter().all(|(minute, found)| (found - if *minute == -5 { 1.0 } else { value(*minute) }).abs() < 1e-9)
    );
    let newest = samples.newest(vec![ONE]).await.unwrap();
    assert_eq!(newest[&ONE], sample(1999, value(1999)));
    assert_eq!(samples.list(ONE, PageRequest::default()).await.unwrap().total, 3440);
}

async fn many_senders_at_once_lose_and_repeat_nothing(store: Store) {
    let samples = Arc::new(open(&store));
    let mut sending = tokio::task::JoinSet::new();
    for sender in 0..16_i64 {
        let samples = samples.clone();
        sending.spawn(async move {
            let mut new = 0;
            for n in 0..20 {
                // Every time is sent by two of them, and one of them sends so many that they are sealed at once.
                let some = if sender == 15 && n == 10 {
                    minutes(0..300)
                } else {
                    minutes(sender / 2 * 20 + n..sender / 2 * 20 + n + 1)
                };
                new += samples.store(ONE, some).await.unwrap().iter().filter(|kept| **kept == Kept::New).count();
                if n % 7 == 0 {
                    samples.seal(at(10_000)).await.unwrap();
                }
            }
            new
        });
    }
    let mut new = 0;
    while let Some(some) = sending.join_next().await {
        new += some.unwrap();
    }
    assert_eq!(new, 300);
    assert_eq!(read(&samples, ONE, -1, 1000).await.len(), 300);
}

async fn a_metric_that_was_not_always_measured_is_read_as_it_was(store: Store) {
    let samples = open(&store);
    let hot = |minute: i64| Sample {
        readings: sample(minute, 1.0).readings.with(Metric::Temperature, value(minute) - 50.0),
        ..sample(minute, 1.0)
    };
    let some: Vec<Sample> =
        (0..100).map(|minute| if minute % 3 == 0 { hot(minute) } else { sample(minute, 1.0) }).collect();
    samples.store(ONE, some).await.unwrap();
    let expected: Vec<(i64, f64)> =
        (0..100).filter(|minute| minute % 3 == 0).map(|minute| (minute, value(minute) - 50.0)).collect();
    for _ in 0..2 {
        assert_eq!(read_metric(&samples, ONE, -1, 1000, Metric::Temperature).await, expected);
        assert_eq!(read(&samples, ONE, -1, 1000).await.len(), 100);
        assert_eq!(read_metric(&samples, ONE, -1, 1000, Metric::DiskRead).await, []);
        seal(&samples).await;
    }
}

async fn days_are_told_by_their_hours_where_that_is_enough(store: Store) {
    const DAY: i64 = 1440;
    let samples = open(&store);
    samples.store(ONE, minutes(0..4 * DAY)).await.unwrap();
    // One that is not in the columns yet.
    samples.store(ONE, vec![sample(4 * DAY, 5.0)]).await.unwrap();
    let told = async |from, to| {
        let pieces = pieces(&samples, ONE, range(from, to), Metric::CpuUsage, Detail::Hours).await;
        let (mut hours, mut samples) = (0, 0);
        for piece in pieces {
            match piece {
                Piece::Hours(some) => {
                    assert!(some.iter().all(|hour| hour.minutes == 60 && hour.sketch.count() == 60));
                    hours += some.len();
                }
                Piece::Samples(column) => samples += column.times.len(),
            }
        }
        (hours, samples)
    };
    // A range begins after its first minute, so that the first day is not whole in the first one.
    assert_eq!(told(0, 4 * DAY).await, (72, 1441));
    assert_eq!(told(-1, 4 * DAY).await, (96, 1));
    assert_eq!(told(10, 4 * DAY - 10).await, (48, 2880));
    assert_eq!(told(10, 20).await, (0, 1440));
}

async fn pages_go_through_rows_and_columns_newest_first(store: Store) {
    let samples = open(&store);
    samples.store(ONE, minutes(0..2000)).await.unwrap();
    // Late ones, between those that are in columns; and newer ones.
    samples
        .store(ONE, (0..5).map(|n| Sample { at: at(500) + TimeDelta::seconds(n + 1), ..sample(500, 1.0) }).collect())
        .await
        .unwrap();
    samples.store(ONE, minutes(2000..2010)).await.unwrap();
    let (mut found, mut page) = (Vec::new(), PageRequest { limit: 333, after: None });
    loop {
        let some = samples.list(ONE, page).await.unwrap();
        assert_eq!(some.total, 2015);
        found.extend(some.items);
        let Some(next) = some.next else { break };
        page = PageRequest { limit: 333, after: Some(next) };
    }
    assert_eq!(found.len(), 2015);
    assert!(found.is_sorted_by(|a, b| a.at > b.at));
    assert_eq!(samples.list(TWO, PageRequest::default()).await.unwrap().total, 0);
}

async fn the_newest_is_the_latest_in_time(store: Store) {
    let samples = open(&store);
    samples.store(ONE, vec![sample(5, 5.0), sample(9, 9.0), sample(7, 7.0)]).await.unwrap();
    samples.store(ONE, vec![sample(8, 8.0)]).await.unwrap();
    samples.store(ONE, minutes(-2000..0)).await.unwrap();
    samples.store(TWO, minutes(-2000..0)).await.unwrap();
    let newest = samples.newest(vec![ONE, TWO, ServerId(3)]).await.unwrap();
    assert_eq!(newest, BTreeMap::from([(ONE, sample(9, 9.0)), (TWO, sample(-1, value(-1)))]));
}

async fn old_days_are_forgotten_and_no_others(store: Store) {
    let samples = open(&store);
    samples.store(ONE, minutes(-2000..3000)).await.unwrap();
    samples.store(TWO, minutes(-100..-90)).await.unwrap();
    assert_eq!(samples.forget_before(at(100)).await.unwrap(), 2);
    assert_eq!(read(&samples, ONE, -3000, 4000).await.len(), 3000);
    assert_eq!(read(&samples, TWO, -3000, 4000).await, []);
    assert_eq!(samples.newest(vec![ONE, TWO]).await.unwrap().len(), 1);
    assert_eq!(samples.forget_before(at(100)).await.unwrap(), 0);
}

async fn a_server_that_is_forgotten_has_nothing_left(store: Store) {
    let samples = open(&store);
    samples.store(ONE, minutes(-2000..3000)).await.unwrap();
    samples.store(ONE, minutes(3000..3010)).await.unwrap();
    samples.store(TWO, minutes(0..10)).await.unwrap();
    assert_eq!(samples.servers().await.unwrap(), [ONE, TWO]);
    samples.forget_server(ONE).await.unwrap();
    assert_eq!(samples.servers().await.unwrap(), [TWO]);
    assert_eq!(read(&samples, ONE, -3000, 4000).await, []);
    assert_eq!(read(&samples, TWO, -3000, 4000).await.len(), 10);
}

async fn what_was_stored_is_there_after_a_restart(store: Store) {
    let samples = open(&store);
    samples.store(ONE, minutes(0..1000)).await.unwrap();
    samples.store(ONE, minutes(1000..1010)).await.unwrap();
    samples.close().await;
    assert!(samples.store(ONE, minutes(0..1)).await.is_err());
    assert_eq!(read(&open(&store), ONE, -1, 4000).await.len(), 1010);
}

async fn reading_while_sealing_reads_everything_once(store: Store) {
    let samples = Arc::new(open(&store));
    for day in 0..6 {
        for hour in 0..6 {
            samples.store(ONE, minutes(day * 1440 + hour * 60..day * 1440 + hour * 60 + 60)).await.unwrap();
        }
    }
    let sealing = tokio::spawn({
        let samples = samples.clone();
        async move { seal(&samples).await }
    });
    while !sealing.is_finished() {
        assert_eq!(read(&samples, ONE, -1, 10_000).await.len(), 2160);
    }
    assert_eq!(sealing.await.unwrap(), 6);
    assert_eq!(read(&samples, ONE, -1, 10_000).await.len(), 2160);
}

async fn a_day_that_cannot_be_read_keeps_no_other_from_being_sealed(store: Store) {
    let samples = open(&store);
    samples.store(ONE, minutes(0..300)).await.unwrap();
    for server in [ONE, TWO] {
        samples.store(server, minutes(300..310)).await.unwrap();
    }
    crate::store::execute(&store.url.of_samples(), "UPDATE sample_days SET times = readings FROM samples");
    assert_eq!(seal(&samples).await, 1);
    assert_eq!(read(&samples, TWO, -1, 1000).await.len(), 10);
    assert_eq!(samples.list(ONE, PageRequest { limit: 5, after: None }).await.unwrap().items.len(), 5);
}

async fn whoever_waits_is_told_that_the_database_is_away(store: Store) {
    let samples = Arc::new(open(&store));
    crate::store::execute(&store.url.of_samples(), "DROP TABLE samples");
    let mut waiting = tokio::task::JoinSet::new();
    for minute in 0..20 {
        let samples = samples.clone();
        waiting.spawn(async move { samples.store(ONE, vec![sample(minute, 1.0)]).await });
    }
    let answers = tokio::time::timeout(std::time::Duration::from_secs(20), waiting.join_all()).await.unwrap();
    assert!(answers.iter().all(Result::is_err) && answers.len() == 20, "{answers:?}");
}
