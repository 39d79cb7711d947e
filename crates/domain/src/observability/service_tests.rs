use super::*;
use crate::{
    clock::Timestamp,
    fleet::{MockMaintenanceWindows, MockServers, ServerFilter, WindowStatus},
    identity::{Role, Room, Scopes},
    ids::WindowId,
    observability::{FRESH, MockSamples, Readings, alerts::MockAlerts, fixtures::server},
    pools::MockPools,
    testing::{TestClock, alice, name},
};
use chrono::TimeDelta;

const ID: ServerId = ServerId(7);
/// In the year 2000.
const DAYS: i64 = 11_000;

fn now() -> Timestamp {
    chrono::DateTime::from_timestamp(DAYS * 86_400, 0).unwrap()
}

/// A service of the servers 1 to `count`, whose samples are asked of this mock.
fn service(count: i64, samples: MockSamples) -> SampleService {
    service_with(count, samples, Vec::new())
}

/// The same with these maintenance windows.
fn service_with(count: i64, samples: MockSamples, planned: Vec<Window>) -> SampleService {
    let mut windows = MockMaintenanceWindows::new();
    windows.expect_overlapping().returning(move |servers, from, until| {
        let meant = |window: &&Window| {
            servers.contains(&window.server_id) && window.span().is_some_and(|span| span.overlaps(from, until))
        };
        Ok(planned.iter().filter(meant).cloned().collect())
    });
    let mut servers = MockServers::new();
    servers.expect_get().returning(move |id| {
        if (1..=count).contains(&id.0) { Ok(server(id.0)) } else { Err(Error::not_found("server", id)) }
    });
    servers
        .expect_check_there()
        .returning(move |id| if (1..=count).contains(&id.0) { Ok(()) } else { Err(Error::not_found("server", id)) });
    servers.expect_list().returning(move |filter: ServerFilter, _, page| {
        let all = (1..=count).map(server).filter(|server| {
            filter.cluster.as_ref().is_none_or(|cluster| server.cluster.as_ref() == Some(cluster))
                && page.after.as_ref().is_none_or(|after| server.id.0 > after.id)
        });
        let all = all.map(|server| Arc::new(RosterEntry::new(Arc::new(server)))).collect();
        let cursor = |server: &Arc<RosterEntry>| crate::page::Cursor {
            sort: "id".to_owned(),
            key: String::new(),
            id: server.id.0,
        };
        Ok(Page::cut(all, page.limit, count, cursor))
    });
    let clock = TestClock::start();
    clock.advance(TimeDelta::days(DAYS));
    let mut pools = MockPools::new();
    pools.expect_list().returning(|_, _| Ok(Page { items: Vec::new(), next: None, total: 0 }));
    SampleService::new(SamplePorts {
        samples: Arc::new(samples),
        servers: Arc::new(servers),
        windows: Arc::new(windows),
        pools: Arc::new(pools),
        alerts: Arc::new(MockAlerts::new()),
        clock,
    })
}

fn sample(minutes: i64, cpu: f64) -> Sample {
    Sample { at: now() + TimeDelta::minutes(minutes), readings: Readings::default().with(Metric::CpuUsage, cpu) }
}

/// Stores everything as new, but what is of the same time as one before.
fn storing() -> MockSamples {
    let mut samples = MockSamples::new();
    samples.expect_store().returning(|_, samples| {
        let mut seen = std::collections::BTreeSet::new();
        Ok(samples.iter().map(|sample| if seen.insert(sample.at) { Kept::New } else { Kept::Duplicate }).collect())
    });
    samples
}

#[tokio::test]
async fn who_may_not_measure_stores_nothing() {
    // The mocks fail the test if they are asked for anything.
    let fleet_only = Actor { scopes: Scopes::only([Room::Fleet]), ..alice(Role::Operator) };
    for actor in [alice(Role::Viewer), fleet_only] {
        let service = service(9, MockSamples::new());
        let one = service.sample_create(&actor, ID, sample(0, 1.0)).await;
        let many = service.samples_create(&actor, ID, vec![Ok(sample(0, 1.0))]).await;
        assert!(matches!(one, Err(Error::Forbidden { .. })) && matches!(many, Err(Error::Forbidden { .. })));
    }
}

#[tokio::test]
async fn fc_18_what_is_wrong_is_named_and_the_rest_is_stored() {
    let told = vec![
        Ok(sample(-10, 10.0)),
        Ok(sample(-10, 11.0)),
        Ok(sample(-70, 9.0)),
        Ok(sample(10, 50.0)),
        Err("cpu_usage must be a number".to_owned()),
        Ok(sample(-9, 12.0)),
        Ok(sample(-8, 100.5)),
    ];
    let taken = service(9, storing()).samples_create(&alice(Role::Operator), ID, told).await.unwrap();
    assert_eq!((taken.accepted, taken.duplicate), (3, 1));
    let indices: Vec<usize> = taken.rejected.iter().map(|rejected| rejected.index).collect();
    assert_eq!(indices, [3, 4, 6]);
    assert!(taken.rejected[0].reason.starts_with("recorded_at is"), "{taken:?}");
    assert_eq!(taken.rejected[2].reason, "cpu_usage must be from 0 to 100");
}

#[tokio::test]
async fn a_server_that_is_not_there_has_no_samples() {
    let service = service(3, MockSamples::new());
    let actor = alice(Role::Operator);
    assert!(matches!(service.sample_create(&actor, ID, sample(0, 1.0)).await, Err(Error::NotFound { .. })));
    assert!(matches!(service.sample_list(&actor, ID, PageRequest::default()).await, Err(Error::NotFound { .. })));
    assert!(matches!(service.sample_latest(&actor, ID).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_time_is_kept_to_the_microsecond() {
    let at = now() - TimeDelta::nanoseconds(1_500);
    let stored = service(9, storing()).sample_create(&alice(Role::Operator), ID, Sample { at, ..sample(0, 1.0) }).await;
    assert_eq!(stored.unwrap().at, now() - TimeDelta::nanoseconds(2_000));
}

fn request(points: u16, together: bool) -> TrendRequest {
    TrendRequest {
        metric: Metric::CpuUsage,
        range: Range::last(1, now()).unwrap(),
        points,
        together,
        exclude_maintenance: false,
    }
}

/// Hands each server one sample, whose value is its id.
fn measured() -> MockSamples {
    let mut samples = MockSamples::new();
    samples.expect_read().returning(|wanted, visitor| {
        for server in wanted.servers.iter().rev() {
            let value = f64::from(i32::try_from(server.0).unwrap());
            let times = vec![wanted.range.to().timestamp_micros()];
            visitor.visit(*server, vec![Piece::Samples(Column { times, values: vec![value] })]);
        }
        Ok(())
    });
    samples
}

#[tokio::test]
async fn each_server_has_a_series_in_the_order_that_was_asked_for() {
    let check = async |scope: Scope, expected: &[i64]| {
        let series = service(5, measured()).trend_get(&alice(Role::Viewer), &scope, &request(60, false)).await.unwrap();
        let found: Vec<i64> = series.iter().map(|series| series.server.unwrap().0).collect();
        assert_eq!(found, expected);
        for series in series {
            assert!((series.trend.percentiles.unwrap().p50 - series.trend.points[0].value).abs() < 1e-9);
        }
    };
    check(Scope::default(), &[1, 2, 3, 4, 5]).await;
    check(Scope { servers: vec![ServerId(4), ServerId(1)], ..Scope::default() }, &[4, 1]).await;
    check(Scope { cluster: Some("odd".to_owned()), ..Scope::default() }, &[1, 3, 5]).await;
    check(Scope { cluster: Some("none".to_owned()), ..Scope::default() }, &[]).await;
}

#[tokio::test]
async fn a_scope_that_cannot_be_is_refused() {
    let service = service(5, MockSamples::new());
    let scope = Scope { servers: vec![ServerId(6)], ..Scope::default() };
    let missing = service.trend_get(&alice(Role::Viewer), &scope, &request(60, false)).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    let scope = Scope { servers: vec![ServerId(2)], cluster: Some("odd".to_owned()), ..Scope::default() };
    let elsewhere = service.trend_get(&alice(Role::Viewer), &scope, &request(60, false)).await;
    assert!(matches!(elsewhere, Err(Error::Invalid { .. })), "{elsewhere:?}");
}

#[tokio::test]
async fn all_together_are_one_series() {
    let series = service(3, measured()).trend_get(&alice(Role::Viewer), &Scope::default(), &request(60, true)).await;
    let series = series.unwrap();
    let [Series { server: None, trend, .. }] = series.as_slice() else { panic!("{series:?}") };
    assert_eq!((trend.samples, trend.exact), (3, false));
    assert_eq!((trend.points[0].min, trend.points[0].value, trend.points[0].max), (1.0, 2.0, 3.0));
}

#[tokio::test]
async fn nobody_is_given_more_points_than_can_be_looked_at() {
    let many = service(1500, measured());
    let viewer = alice(Role::Viewer);
    let long = TrendRequest { range: Range::last(720, now()).unwrap(), ..request(2000, false) };
    let refused = many.trend_get(&viewer, &Scope::default(), &long).await;
    let Err(Error::Invalid { errors }) = refused else { panic!("{refused:?}") };
    assert_eq!(errors[0].field, "points");
    assert!(errors[0].reason.contains("at most 133 each"), "{errors:?}");
    assert_eq!(many.trend_get(&viewer, &Scope::default(), &request(60, false)).await.unwrap().len(), 1500);
    for points in [0, 2001] {
        assert!(many.trend_get(&viewer, &Scope::default(), &request(points, true)).await.is_err());
    }
}

#[tokio::test]
async fn an_export_has_the_samples_of_its_range_in_order() {
    let mut samples = MockSamples::new();
    samples.expect_read().returning(|wanted, visitor| {
        let end = wanted.range.to().timestamp_micros();
        let columns =
            [(vec![end - 3_600_000_000, end - 1, end + 1], vec![0.0, 2.0, 9.0]), (vec![end - 2, end], vec![1.0, 3.0])];
        let pieces = columns.map(|(times, values)| Piece::Samples(Column { times, values }));
        visitor.visit(wanted.servers[0], pieces.to_vec());
        Ok(())
    });
    let service = service(1, samples);
    let range = Range::last(1, now()).unwrap();
    let selection =
        service.trend_export(&alice(Role::Viewer), &Scope::default(), Metric::CpuUsage, range).await.unwrap();
    let column = service.export_step(&selection, ServerId(1)).await.unwrap();
    assert_eq!(column.values, [1.0, 2.0, 3.0]);
}

#[tokio::test]
async fn samples_of_servers_that_are_gone_go_as_well() {
    let mut samples = MockSamples::new();
    let keep = TimeDelta::days(30);
    samples.expect_forget_before().withf(move |before| *before == now() - keep).times(1).returning(|_| Ok(3));
    samples.expect_servers().returning(|| Ok(vec![ServerId(2), ID]));
    samples.expect_forget_server().withf(|server| *server == ID).times(1).returning(|_| Ok(()));
    service(3, samples).samples_forget(keep).await.unwrap();
}

#[tokio::test]
async fn all_that_waits_long_enough_is_sealed() {
    let mut samples = MockSamples::new();
    let mut left = 3;
    samples.expect_seal().withf(|before| *before == now() - NEWEST).times(3).returning(move |_| {
        left -= 1;
        Ok(left)
    });
    service(3, samples).samples_seal().await.unwrap();
}

fn window(id: i64, server: i64, minutes_ago: i64, duration_minutes: u32) -> Window {
    let scheduled_for = now() - TimeDelta::minutes(minutes_ago);
    Window {
        id: WindowId(id),
        server_id: ServerId(server),
        title: name("new disks"),
        description: None,
        scheduled_for,
        duration_minutes,
        status: WindowStatus::Completed,
        started_at: Some(scheduled_for),
        ended_at: Some(scheduled_for + TimeDelta::minutes(i64::from(duration_minutes))),
        back_to: None,
        revision: 3,
        created_by: "user:alice".to_owned(),
        created_at: scheduled_for,
        updated_at: scheduled_for,
    }
}

/// Each server has a sample of 10 a minute ago and one of 90 ten minutes ago.
fn busy_before() -> MockSamples {
    let mut samples = MockSamples::new();
    samples.expect_read().returning(|wanted, visitor| {
        let end = wanted.range.to().timestamp_micros();
        for server in wanted.servers {
            let times = vec![end - 600_000_000, end - 60_000_000];
            visitor.visit(server, vec![Piece::Samples(Column { times, values: vec![90.0, 10.0] })]);
        }
        Ok(())
    });
    samples
}

#[tokio::test]
async fn maintenance_is_shown_and_left_out_of_the_percentiles_if_that_is_asked_for() {
    let planned = vec![window(1, 1, 15, 10), window(2, 2, 500, 10)];
    for (exclude_maintenance, together, samples) in
        [(false, false, vec![2, 2]), (true, false, vec![1, 2]), (false, true, vec![4]), (true, true, vec![3])]
    {
        let request = TrendRequest { exclude_maintenance, ..request(61, together) };
        let series = service_with(2, busy_before(), planned.clone());
        let series = series.trend_get(&alice(Role::Viewer), &Scope::default(), &request).await.unwrap();
        let found: Vec<u64> = series.iter().map(|series| series.trend.samples).collect();
        assert_eq!(found, samples, "{request:?}");
        let shown: Vec<WindowId> = series[0].windows.iter().map(|window| window.id).collect();
        assert_eq!(shown, [WindowId(1)]);
        assert_eq!(series[0].trend.points.len(), 2, "what is left out of the percentiles is drawn");
    }
}

#[tokio::test]
async fn what_was_measured_long_ago_is_not_told_as_if_it_were_now() {
    let mut samples = MockSamples::new();
    samples.expect_newest().returning(|servers| {
        assert_eq!(servers, [ServerId(1), ServerId(2), ServerId(3)]);
        let old = Sample { at: now() - FRESH - TimeDelta::milliseconds(1), ..sample(0, 2.0) };
        Ok([(ServerId(1), Sample { at: now() - FRESH, ..sample(0, 1.0) }), (ServerId(2), old)].into())
    });
    let told = service(3, samples).metrics_get(&alice(Role::Viewer)).await.unwrap();
    let cpu: Vec<Option<f64>> = told.iter().map(|server| server.readings.get(Metric::CpuUsage)).collect();
    assert_eq!(cpu, [Some(1.0), None, None]);
    let measured: Vec<bool> = told.iter().map(|server| server.measured_at.is_some()).collect();
    assert_eq!(measured, [true, true, false]);
}

#[tokio::test]
async fn a_token_without_the_scope_is_told_of_no_server() {
    let fleet_only = Actor { scopes: Scopes::only([Room::Fleet]), ..alice(Role::Admin) };
    assert!(service(3, MockSamples::new()).metrics_get(&fleet_only).await.unwrap().is_empty());
}
