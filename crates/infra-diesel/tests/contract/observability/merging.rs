//! What is promised of readings of one time that come apart: of each metric the first is kept, wherever the others are.

use super::{ONE, TWO, open, read, read_metric, sample, seal, value};
use crate::{on_both, store::Store};
use domain::{
    ids::ServerId,
    observability::{Kept, Metric, Readings, Sample, Samples},
    page::PageRequest,
};
use infra_diesel::DieselSamples;
use std::sync::Arc;

on_both!(
    of_each_metric_the_first_is_kept,
    readings_are_added_to_what_is_sealed,
    what_comes_whole_is_a_duplicate_of_what_was_merged,
    a_request_may_have_many_servers_and_times,
    many_at_once_are_merged_like_one_after_the_other,
    the_newest_has_all_that_was_added,
    sealing_loses_nothing_that_is_added_meanwhile,
    merged_samples_are_there_after_a_restart,
);

fn hot(minutes: i64, celsius: f64) -> Sample {
    Sample { readings: Readings::default().with(Metric::Temperature, celsius), ..sample(minutes, 0.0) }
}

async fn merge(samples: &DieselSamples, some: impl IntoIterator<Item = Sample>) -> Vec<usize> {
    samples.merge(some.into_iter().map(|sample| (ONE, sample)).collect()).await.unwrap()
}

async fn heat(samples: &DieselSamples, from: i64, to: i64) -> Vec<(i64, f64)> {
    read_metric(samples, ONE, from, to, Metric::Temperature).await
}

async fn count(samples: &DieselSamples, server: ServerId) -> i64 {
    samples.list(server, PageRequest::default()).await.unwrap().total
}

async fn of_each_metric_the_first_is_kept(store: Store) {
    let samples = open(&store);
    assert_eq!(merge(&samples, [sample(1, 10.0)]).await, [1]);
    let both = Sample { readings: sample(1, 11.0).readings.with(Metric::Temperature, 40.0), ..sample(1, 0.0) };
    assert_eq!(merge(&samples, [both, hot(1, 41.0), hot(2, 50.0)]).await, [1, 0, 1]);
    assert_eq!(merge(&samples, [both, hot(1, 41.0), hot(2, 50.0)]).await, [0, 0, 0]);
    assert_eq!(read(&samples, ONE, 0, 10).await, [(1, 10.0)]);
    assert_eq!(heat(&samples, 0, 10).await, [(1, 40.0), (2, 50.0)]);
    assert_eq!(count(&samples, ONE).await, 2);
}

async fn readings_are_added_to_what_is_sealed(store: Store) {
    let samples = open(&store);
    merge(&samples, (0..100).map(|minute| sample(minute, value(minute)))).await;
    assert_eq!(seal(&samples).await, 1);
    // Two of times that are sealed, one of a time that is not.
    assert_eq!(merge(&samples, [hot(5, 1.0), sample(6, 99.0), hot(200, 3.0), hot(7, 2.0)]).await, [1, 0, 1, 1]);
    for _ in 0..2 {
        assert_eq!(heat(&samples, 0, 1000).await, [(5, 1.0), (7, 2.0), (200, 3.0)]);
        let cpu = read(&samples, ONE, -1, 1000).await;
        assert_eq!((cpu.len(), cpu[6]), (100, (6, value(6))));
        assert_eq!(count(&samples, ONE).await, 101);
        seal(&samples).await;
    }
}

async fn what_comes_whole_is_a_duplicate_of_what_was_merged(store: Store) {
    let samples = open(&store);
    merge(&samples, [hot(1, 40.0)]).await;
    assert_eq!(samples.store(ONE, vec![sample(1, 1.0), sample(2, 2.0)]).await.unwrap(), [Kept::Duplicate, Kept::New]);
    assert_eq!(merge(&samples, [sample(1, 5.0), hot(2, 50.0)]).await, [1, 1]);
    assert_eq!(read(&samples, ONE, 0, 10).await, [(1, 5.0), (2, 2.0)]);
}

async fn a_request_may_have_many_servers_and_times(store: Store) {
    let samples = open(&store);
    merge(&samples, [sample(0, 1.0)]).await;
    seal(&samples).await;
    let all: Vec<(ServerId, Sample)> = (0..3000_i64)
        .flat_map(|n| {
            let server = ServerId(n % 10 + 1);
            [(server, sample(n / 10, value(n))), (server, hot(n / 10, 1.0))]
        })
        .collect();
    let added = samples.merge(all.clone()).await.unwrap();
    // The first of all was there.
    assert_eq!((added[0], added.iter().sum::<usize>()), (0, 5999));
    assert_eq!(samples.merge(all).await.unwrap().iter().sum::<usize>(), 0);
    for server in 1..=10 {
        assert_eq!(read(&samples, ServerId(server), -1, 1000).await.len(), 300);
        assert_eq!(count(&samples, ServerId(server)).await, 300);
    }
    assert_eq!(read(&samples, TWO, -1, 1).await, [(0, value(1)), (1, value(11))]);
}

async fn many_at_once_are_merged_like_one_after_the_other(store: Store) {
    let samples = open(&store);
    merge(&samples, (0..50).map(|minute| sample(minute, 1.0))).await;
    let many = (-1440..1440).map(|minute| Sample {
        readings: hot(minute, value(minute)).readings.with(Metric::CpuUsage, 2.0),
        ..sample(minute, 0.0)
    });
    let added = merge(&samples, many).await;
    assert_eq!(added.iter().sum::<usize>(), 2 * 2880 - 50);
    assert_eq!((added[1439], added[1440], added[1490]), (2, 1, 2));
    let cpu = read(&samples, ONE, -2000, 2000).await;
    assert_eq!(cpu.iter().filter(|(_, cpu)| *cpu < 1.5).count(), 50);
    assert_eq!(heat(&samples, -2000, 2000).await.len(), 2880);
}

async fn the_newest_has_all_that_was_added(store: Store) {
    let samples = open(&store);
    let newest = async || samples.newest(vec![ONE]).await.unwrap()[&ONE];
    merge(&samples, [sample(10, 1.0)]).await;
    merge(&samples, [hot(10, 40.0), hot(9, 39.0)]).await;
    let both = Sample { readings: sample(10, 1.0).readings.with(Metric::Temperature, 40.0), ..sample(10, 0.0) };
    assert_eq!(newest().await, both);
    seal(&samples).await;
    let load = Sample { readings: Readings::default().with(Metric::NodeLoad1, 0.5), ..sample(10, 0.0) };
    merge(&samples, [load, sample(10, 7.0)]).await;
    assert_eq!(newest().await, Sample { readings: both.readings.with(Metric::NodeLoad1, 0.5), ..both });
    // A duplicate of it, among so many that they go into columns at once, changes nothing.
    let mut many: Vec<Sample> = (-300..0).map(|minute| sample(minute, 1.0)).collect();
    many.extend((0..=10).map(|minute| sample(minute, 99.0)));
    samples.store(ONE, many).await.unwrap();
    assert_eq!(newest().await.readings.get(Metric::CpuUsage), Some(1.0));
}

async fn sealing_loses_nothing_that_is_added_meanwhile(store: Store) {
    const METRICS: [Metric; 8] = [
        Metric::CpuUsage,
        Metric::MemoryUsage,
        Metric::StorageUsage,
        Metric::NodeLoad1,
        Metric::NodeLoad5,
        Metric::NodeLoad15,
        Metric::NetworkIn,
        Metric::Temperature,
    ];
    let samples = Arc::new(open(&store));
    let mut sending = tokio::task::JoinSet::new();
    for metric in METRICS {
        let samples = samples.clone();
        sending.spawn(async move {
            let mut added = 0;
            for minute in 0..40 {
                let one = Sample { readings: Readings::default().with(metric, 1.0), ..sample(minute, 0.0) };
                added += merge(&samples, [one]).await[0];
                if minute % 5 == 0 {
                    samples.seal(super::at(10_000)).await.unwrap();
                }
            }
            added
        });
    }
    while let Some(added) = sending.join_next().await {
        assert_eq!(added.unwrap(), 40);
    }
    for metric in METRICS {
        assert_eq!(read_metric(&samples, ONE, -1, 100, metric).await.len(), 40, "{metric}");
    }
    assert_eq!(count(&samples, ONE).await, 40);
}

async fn merged_samples_are_there_after_a_restart(store: Store) {
    let samples = open(&store);
    merge(&samples, [sample(1, 1.0)]).await;
    merge(&samples, [hot(1, 40.0)]).await;
    samples.close().await;
    let samples = open(&store);
    assert_eq!(merge(&samples, [sample(1, 1.0), hot(1, 40.0)]).await, [0, 0]);
    assert_eq!((read(&samples, ONE, 0, 5).await.len(), heat(&samples, 0, 5).await.len()), (1, 1));
}
