use super::*;
use crate::{
    fleet::{MockMaintenanceWindows, MockServers},
    identity::Role,
    observability::{
        MockSamples,
        alerts::{
            Condition, MockAlertRules, MockAlerts, MockDeliveries, Reading, RulePatch, Subject,
            fixtures::{at, cpu, new_rule, rule, watched},
            judge,
        },
        metric::Metric,
        sample::Readings,
    },
    testing::{TestClock, alice},
};
use chrono::TimeDelta;

fn service(rules: MockAlertRules, alerts: MockAlerts, samples: MockSamples) -> AlertService {
    AlertService::new(AlertPorts {
        rules: Arc::new(rules),
        alerts: Arc::new(alerts),
        deliveries: Arc::new(MockDeliveries::new()),
        samples: Arc::new(samples),
        servers: Arc::new(MockServers::new()),
        windows: Arc::new(MockMaintenanceWindows::new()),
        clock: TestClock::start(),
    })
}

fn idle() -> AlertService {
    service(MockAlertRules::new(), MockAlerts::new(), MockSamples::new())
}

#[tokio::test]
async fn who_may_only_read_changes_nothing() {
    let (service, viewer) = (idle(), alice(Role::Viewer));
    let forbidden = |outcome: Result<()>| assert!(matches!(outcome, Err(Error::Forbidden { .. })), "{outcome:?}");
    forbidden(service.rule_create(&viewer, new_rule(cpu(), 0), None).await.map(|_| ()));
    forbidden(service.rule_update(&viewer, RuleId(1), None, RulePatch::default()).await.map(|_| ()));
    forbidden(service.rule_delete(&viewer, RuleId(1), None).await);
    forbidden(service.alert_acknowledge(&viewer, AlertId(1), None, None).await.map(|_| ()));
}

#[tokio::test]
async fn a_preview_is_of_what_is_stored() {
    let (service, viewer) = (idle(), alice(Role::Viewer));
    for (condition, days, field) in
        [(cpu(), 0, "days"), (cpu(), 31, "days"), (Condition::ServerStatus, 1, "condition.kind")]
    {
        let outcome = service.rule_preview(&viewer, new_rule(condition, 0), days).await;
        assert!(matches!(&outcome, Err(Error::Invalid { errors }) if errors[0].field == field), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_change_is_computed_again_when_others_were_faster() {
    let mut rules = MockAlertRules::new();
    let mut revision = 0;
    rules.expect_get().returning(move |_| {
        revision += 1;
        Ok(Rule { revision, ..rule(cpu(), 0) })
    });
    rules.expect_update().returning(|rule, change| {
        if rule.revision < 4 {
            return Err(Error::Stale { what: "alert rule 1".to_owned(), current: rule.revision });
        }
        let AuditEntry { action, target, .. } = change.entry;
        assert_eq!((action.as_str(), target.as_deref()), ("alert_rule.update", Some("alert_rule:1")));
        Ok(Done { value: rule, replayed: false })
    });
    let service = service(rules, MockAlerts::new(), MockSamples::new());
    let patch = RulePatch { for_minutes: Some(7), ..RulePatch::default() };
    let after = service.rule_update(&alice(Role::Operator), RuleId(1), None, patch.clone()).await.unwrap();
    assert_eq!((after.revision, after.spec.for_minutes), (4, 7));
    let stale = service.rule_update(&alice(Role::Operator), RuleId(1), Some(1), patch).await;
    assert!(matches!(stale, Err(Error::Stale { current: 4, .. })), "{stale:?}");
}

#[tokio::test]
async fn an_alert_without_data_says_so() {
    let hot = rule(cpu(), 0);
    let loud = Reading { at: at(0), value: 95.0, level: cpu().level(95.0) };
    let alert = judge(&watched(&hot, None, 0), &[loud]).remove(0).alert;
    let seen = |age: i64, metric| {
        let sample = Sample { at: at(60) - TimeDelta::minutes(age), readings: Readings::default().with(metric, 5.0) };
        let Subject::Server(id) = alert.subject else { panic!("{alert:?}") };
        let seen = Seen::of(alert.clone(), &[(id, sample)].into(), at(60));
        (seen.no_data, seen.last_value())
    };
    assert_eq!(seen(5, Metric::CpuUsage), (false, Some(5.0)));
    assert_eq!(seen(6, Metric::CpuUsage), (true, Some(5.0)));
    assert_eq!(seen(1, Metric::MemoryUsage), (true, None));
    let never = Seen::of(alert, &BTreeMap::new(), at(60));
    assert_eq!((never.no_data, never.newest), (true, None));
}
