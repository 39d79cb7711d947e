use super::*;
use crate::{
    Error,
    fleet::{Architecture, MockMaintenanceWindows, MockServers, NewServer, RosterEntry, Server, ServerStatus},
    identity::{Role, Room, Scopes},
    observability::{MockSamples, alerts::MockAlerts},
    page::Page,
    pools::MockPools,
    testing::{TestClock, alice, name},
    text::Tags,
    units::Resources,
};
use chrono::TimeDelta;
use std::sync::Arc;

fn now() -> Timestamp {
    DateTime::from_timestamp(1_000_000_000, 0).unwrap()
}

fn server() -> Server {
    NewServer {
        name: name("edge-1"),
        architecture: Architecture::Arm64,
        status: ServerStatus::Online,
        capacity: Resources::default(),
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        pool_id: None,
        tags: Tags::default(),
    }
    .into_server(ServerId(7), now())
}

fn service(samples: MockSamples) -> RemoteWriteService {
    let mut servers = MockServers::new();
    servers.expect_list().returning(|_, _, _| {
        Ok(Page { items: vec![Arc::new(RosterEntry::new(Arc::new(server())))], next: None, total: 1 })
    });
    let clock = TestClock::start();
    clock.advance(now() - Timestamp::UNIX_EPOCH);
    RemoteWriteService::new(SamplePorts {
        samples: Arc::new(samples),
        servers: Arc::new(servers),
        windows: Arc::new(MockMaintenanceWindows::new()),
        pools: Arc::new(MockPools::new()),
        alerts: Arc::new(MockAlerts::new()),
        clock,
    })
}

/// A series of the server, with a value so many seconds ago.
fn series(called: &str, seconds_ago: i64, value: f64) -> Series {
    let at_ms = (now() - TimeDelta::seconds(seconds_ago)).timestamp_millis();
    Series::new([("__name__", called), ("instance", "edge-1:9100")], vec![Point::new(at_ms, value)])
}

/// Stores everything as new.
fn storing() -> MockSamples {
    let mut samples = MockSamples::new();
    samples
        .expect_merge()
        .returning(|samples| Ok(samples.iter().map(|(_, sample)| sample.readings.iter().count()).collect()));
    samples
}

#[tokio::test]
async fn who_may_not_write_stores_nothing() {
    let fleet_only = Actor { scopes: Scopes::only([Room::Fleet]), ..alice(Role::Operator) };
    for actor in [alice(Role::Viewer), fleet_only] {
        let outcome = service(MockSamples::new()).sample_write(&actor, &[series("cpu_usage", 0, 1.0)]).await;
        assert!(matches!(outcome, Err(Error::Forbidden { .. })));
    }
}

#[tokio::test]
async fn fc_18_what_is_refused_is_named_and_the_rest_is_stored() {
    let told = [
        series("cpu_usage", 60, 10.0),
        series("memory_usage", 60, 20.0),
        series("temperature", -600, 30.0),
        series("storage_usage", 60, 101.0),
        series("node_memory_MemTotal_bytes", 60, -1.0),
        series("up", 60, 1.0),
        Series::new([("__name__", "cpu_usage"), ("instance", "other:9100")], vec![Point::new(0, 1.0)]),
        Series { points: vec![Point::stale(0)], ..series("cpu_usage", 0, 1.0) },
    ];
    let written = service(storing()).sample_write(&alice(Role::Operator), &told).await.unwrap();
    assert_eq!((written.stored, written.duplicate, written.refused), (2, 0, 3));
    assert_eq!((written.unknown_metric, written.unknown_server, written.left_out), (1, 1, 1));
    let refused: Vec<&str> = written.refused_series.iter().map(|(series, _)| series.as_str()).collect();
    let of = |name: &str| format!("{name}{{instance=\"edge-1:9100\"}}");
    assert_eq!(refused, [of("temperature"), of("storage_usage"), of("node_memory_MemTotal_bytes")]);
    assert!(written.refused_series[0].1.contains("600 seconds in the future"), "{written:?}");
    assert_eq!(written.unknown_servers, ["other".to_owned()].into());
    assert_eq!(written.unknown_metrics, ["up".to_owned()].into());
}

#[tokio::test]
async fn metrics_of_one_time_are_one_sample() {
    let mut samples = MockSamples::new();
    samples.expect_merge().returning(|samples| {
        let [(server, sample)] = samples.as_slice() else { panic!("{samples:?}") };
        assert_eq!((*server, sample.at), (ServerId(7), now()));
        let expected = Readings::default().with(Metric::CpuUsage, 1.0).with(Metric::NodeLoad1, 2.0);
        assert_eq!(sample.readings, expected);
        Ok(vec![1])
    });
    let told = [series("cpu_usage", 0, 1.0), series("node_load1", 0, 2.0), series("starlink_cpu_usage", 0, 3.0)];
    let written = service(samples).sample_write(&alice(Role::Operator), &told).await.unwrap();
    assert_eq!((written.stored, written.duplicate), (1, 2));
}

#[tokio::test]
async fn what_was_computed_is_stored_with_the_next_request_if_the_database_was_away() {
    let mut samples = MockSamples::new();
    let mut calls = 0;
    samples.expect_merge().returning(move |samples| {
        calls += 1;
        if calls == 1 {
            return Err(Error::Unavailable { reason: "away".to_owned(), source: None });
        }
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].1.readings.get(Metric::MemoryUsage), Some(75.0));
        Ok(vec![1])
    });
    let service = service(samples);
    let told = [series("node_memory_MemTotal_bytes", 5, 100.0), series("node_memory_MemAvailable_bytes", 5, 25.0)];
    service.sample_write(&alice(Role::Operator), &told).await.unwrap_err();
    let written = service.sample_write(&alice(Role::Operator), &told).await.unwrap();
    assert_eq!((written.computed, written.gathered), (1, 2));
}
