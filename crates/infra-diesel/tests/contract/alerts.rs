//! What is promised of rules and alerts: whatever is written of one is written with all that belongs to it.

use crate::{
    on_both,
    store::{
        Process, Store, at, change, check_conflict, check_not_found, check_stale, entry, entry_at, name, once, start,
    },
};
use chrono::TimeDelta;
use domain::{
    Error,
    audit::AuditEntry,
    change::Done,
    clock::Timestamp,
    identity::Actor,
    ids::{AlertId, PoolId, RuleId, ServerId, TargetId},
    observability::{
        Metric,
        alerts::{
            Alert, AlertFilter, AlertReason, AlertRules, AlertState, Alerts, Comparison, Condition, NewRule, Reading,
            Rule, RulePatch, RuleSpec, Selector, Severity, Subject, Verdict, Watched, default_rules, judge,
        },
    },
    page::PageRequest,
};

on_both!(
    the_default_rules_are_there_and_do_not_come_back,
    a_rule_is_read_back_as_it_was_made,
    a_rule_is_made_once_under_its_key,
    names_and_what_a_rule_refers_to_are_checked,
    rules_at_other_revisions_are_not_changed,
    an_alert_is_written_with_its_history_and_what_is_recorded,
    there_is_one_open_alert_of_a_rule_and_subject,
    what_was_decided_of_another_revision_is_left_out,
    somebody_is_on_an_alert_once,
    alerts_end_with_their_rule,
    alerts_are_found_by_what_they_are_of,
    old_alerts_are_forgotten,
    racing_judges_open_one_alert,
);

const CPU: Condition =
    Condition::Metric { metric: Metric::CpuUsage, comparison: Comparison::Gt, threshold: 90.0, clear_threshold: None };

pub(crate) fn new_rule(text: &str) -> NewRule {
    let spec = RuleSpec {
        condition: CPU,
        for_minutes: 0,
        severity: Severity::Warning,
        selector: Selector::default(),
        quiet_hours: Vec::new(),
        target_ids: Vec::new(),
    };
    NewRule { name: name(text), enabled: true, spec }
}

pub(crate) async fn rule(process: &Process, text: &str) -> Rule {
    process.rules.create(new_rule(text), change("alert_rule.create")).await.unwrap().value
}

fn by(seconds: i64) -> AuditEntry {
    AuditEntry::new(&Actor::system("alerts"), "alert.update", at(seconds))
}

fn verdicts(rule: &Rule, server: i64, open: Option<&Alert>, readings: &[(i64, f64)]) -> Vec<Verdict> {
    let subject = Subject::Server(ServerId(server));
    let now = readings.last().map_or(start(), |(seconds, _)| at(*seconds));
    let reading = |(seconds, value): &(i64, f64)| Reading { at: at(*seconds), value: *value, level: CPU.level(*value) };
    let readings: Vec<Reading> = readings.iter().map(reading).collect();
    judge(&Watched { rule, subject, name: "edge-1", open, last: None, now, actor: "system:alerts" }, &readings)
}

/// Has a rule fire on a server, so many seconds after the beginning.
pub(crate) async fn fired(process: &Process, rule: &Rule, server: i64, seconds: i64) -> Alert {
    let verdicts = verdicts(rule, server, None, &[(seconds, 95.0)]);
    assert_eq!(process.alerts.settle(verdicts, by(seconds)).await.unwrap(), 1);
    let open = process.alerts.open().await.unwrap();
    open.into_iter().find(|alert| alert.rule_id == rule.id && alert.subject.id() == server).unwrap()
}

async fn the_default_rules_are_there_and_do_not_come_back(store: Store) {
    let rules = store.rules.all().await.unwrap();
    let found: Vec<_> = rules.iter().map(|rule| (rule.name.as_str(), rule.spec.clone())).collect();
    assert_eq!(found, default_rules());
    assert!(rules.iter().all(|rule| rule.enabled && rule.revision == 1 && rule.created_by == "system:alerts"));
    assert!(rules.iter().all(|rule| rule.created_at > start() - TimeDelta::days(3650)));
    let gone = rules[0].clone();
    store.rules.delete(gone.clone(), change("alert_rule.delete")).await.unwrap();
    let there = store.second_process().rules.all().await.unwrap();
    assert_eq!(there, rules[1..]);
    infra_diesel::migrate(&store.url, &std::env::temp_dir()).unwrap();
    assert_eq!(store.rules.all().await.unwrap(), there);
    store.check_log(&["alert_rule.delete"]).await;
}

async fn a_rule_is_read_back_as_it_was_made(store: Store) {
    let pool = store.pool("edge").await;
    let mut new = new_rule("hot");
    new.enabled = false;
    new.spec.selector = Selector { pool_id: Some(pool.id), zone: Some("a".to_owned()), ..Selector::default() };
    let done = store.rules.create(new.clone(), entry_at("alert_rule.create", 5).into()).await.unwrap();
    let expected = new.into_rule(done.value.id, "system:test".to_owned(), at(5));
    assert_eq!(done, Done { value: expected.clone(), replayed: false });
    assert_eq!(store.rules.get(expected.id).await.unwrap(), expected);
    let row = store.last_row().await;
    assert_eq!(row.entry.target, Some(format!("alert_rule:{}", expected.id)));
    assert_eq!(row.entry.after, Some(serde_json::to_value(&expected).unwrap()));
    let page = PageRequest { limit: 1, after: None };
    let first = store.rules.list(page).await.unwrap();
    assert_eq!((first.items, first.total), (vec![expected], 10));
    check_not_found(store.rules.get(RuleId(99)).await);
    store.check_log(&["pool.create", "alert_rule.create"]).await;
}

async fn a_rule_is_made_once_under_its_key(store: Store) {
    let make = || store.rules.create(new_rule("hot"), once("alert_rule.create", "k-1", 0));
    let (first, second) = (make().await.unwrap(), make().await.unwrap());
    assert_eq!((first.replayed, second.replayed), (false, true));
    assert_eq!(first.value, second.value);
    store.check_log(&["alert_rule.create"]).await;
}

async fn names_and_what_a_rule_refers_to_are_checked(store: Store) {
    let hot = rule(&store, "hot").await;
    check_conflict(store.rules.create(new_rule("hot"), change("alert_rule.create")).await, "name_taken");
    let mut new = new_rule("other");
    new.spec.target_ids = vec![TargetId(7)];
    new.spec.selector.pool_id = Some(PoolId(7));
    let refused = store.rules.create(new, change("alert_rule.create")).await;
    let Err(Error::Invalid { errors }) = refused else { panic!("{refused:?}") };
    assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), ["selector.pool_id", "target_ids"]);
    let other = rule(&store, "other").await;
    let renamed = RulePatch { name: Some(hot.name.clone()), ..RulePatch::default() };
    let renamed = other.patched(renamed, at(1)).unwrap();
    check_conflict(store.rules.update(renamed, change("alert_rule.update")).await, "name_taken");
    store.check_log(&["alert_rule.create", "alert_rule.create"]).await;
}

async fn rules_at_other_revisions_are_not_changed(store: Store) {
    let before = rule(&store, "hot").await;
    let patch = RulePatch { for_minutes: Some(9), ..RulePatch::default() };
    let after = before.patched(patch, at(1)).unwrap();
    assert_eq!(store.rules.update(after.clone(), change("alert_rule.update")).await.unwrap().value, after);
    assert_eq!(store.rules.get(after.id).await.unwrap(), after);
    check_stale(store.rules.update(after.clone(), change("alert_rule.update")).await, 2);
    check_stale(store.rules.delete(before, change("alert_rule.delete")).await, 2);
    store.rules.delete(after.clone(), change("alert_rule.delete")).await.unwrap();
    check_not_found(store.rules.delete(after, change("alert_rule.delete")).await);
    store.check_log(&["alert_rule.create", "alert_rule.update", "alert_rule.delete"]).await;
}

async fn an_alert_is_written_with_its_history_and_what_is_recorded(store: Store) {
    use AlertState::{Firing, Pending, Resolved};
    let rule = rule(&store, "hot").await;
    let alert = fired(&store, &rule, 1, 10).await;
    assert_eq!((alert.state, alert.since, alert.fired_at), (AlertState::Firing, at(10), Some(at(10))));
    assert_eq!((alert.revision, alert.rule_name.as_str(), alert.value), (1, "hot", 95.0));
    assert_eq!(store.alerts.get(alert.id).await.unwrap(), alert);
    let ended = verdicts(&rule, 1, Some(&alert), &[(20, 96.5), (30, 10.25)]);
    assert_eq!(store.alerts.settle(ended, by(31)).await.unwrap(), 1);
    let after = store.alerts.get(alert.id).await.unwrap();
    assert_eq!(
        (after.state, after.ended_at, after.reason),
        (AlertState::Resolved, Some(at(30)), Some(AlertReason::Cleared))
    );
    assert_eq!((after.revision, after.value), (2, 10.25));
    assert_eq!(store.alerts.open().await.unwrap(), []);
    let history = store.alerts.history(alert.id).await.unwrap();
    let told: Vec<_> = history.iter().map(|change| (change.from, change.to, change.at, change.value)).collect();
    let expected =
        [(None, Pending, at(10), 95.0), (Some(Pending), Firing, at(10), 95.0), (Some(Firing), Resolved, at(30), 10.25)];
    assert_eq!(told, expected);
    store.check_log(&["alert_rule.create", "alert.fire", "alert.resolve"]).await;
    let row = store.last_row().await;
    assert_eq!((row.entry.actor.as_str(), row.entry.target), ("system:alerts", Some(format!("alert:{}", alert.id))));
    let state = |value: Option<serde_json::Value>| value.unwrap()["state"].clone();
    assert_eq!((state(row.entry.before), state(row.entry.after)), ("firing".into(), "resolved".into()));
    check_not_found(store.alerts.get(AlertId(99)).await);
}

async fn there_is_one_open_alert_of_a_rule_and_subject(store: Store) {
    let rule = rule(&store, "hot").await;
    fired(&store, &rule, 1, 10).await;
    assert_eq!(store.alerts.settle(verdicts(&rule, 1, None, &[(20, 95.0)]), by(20)).await.unwrap(), 0);
    // The other one of the same round is written.
    let mut round = verdicts(&rule, 1, None, &[(20, 95.0)]);
    round.extend(verdicts(&rule, 2, None, &[(20, 95.0)]));
    assert_eq!(store.alerts.settle(round, by(20)).await.unwrap(), 1);
    assert_eq!(store.alerts.open().await.unwrap().len(), 2);
    // No rule, no alert.
    let gone = Rule { id: RuleId(99), ..rule.clone() };
    assert_eq!(store.alerts.settle(verdicts(&gone, 3, None, &[(20, 95.0)]), by(20)).await.unwrap(), 0);
    let off = rule.patched(RulePatch { enabled: Some(false), ..RulePatch::default() }, at(30)).unwrap();
    store.rules.update(off, change("alert_rule.update")).await.unwrap();
    assert_eq!(store.alerts.settle(verdicts(&rule, 3, None, &[(40, 95.0)]), by(40)).await.unwrap(), 0);
}

async fn what_was_decided_of_another_revision_is_left_out(store: Store) {
    let rule = rule(&store, "hot").await;
    let alert = fired(&store, &rule, 1, 10).await;
    let ended = verdicts(&rule, 1, Some(&alert), &[(30, 10.0)]);
    let change = entry_at("alert.acknowledge", 20).into();
    let acknowledged = store.alerts.acknowledge(alert.id, None, change).await.unwrap().value;
    assert_eq!(store.alerts.settle(ended, by(31)).await.unwrap(), 0);
    let again = verdicts(&rule, 1, Some(&acknowledged), &[(30, 10.0)]);
    assert_eq!(store.alerts.settle(again.clone(), by(31)).await.unwrap(), 1);
    assert_eq!(store.alerts.settle(again, by(32)).await.unwrap(), 0);
    store.check_log(&["alert_rule.create", "alert.fire", "alert.acknowledge", "alert.resolve"]).await;
}

async fn somebody_is_on_an_alert_once(store: Store) {
    let rule = rule(&store, "hot").await;
    let alert = fired(&store, &rule, 1, 10).await;
    let note = || Some("on it".to_owned());
    let take = || store.alerts.acknowledge(alert.id, note(), once("alert.acknowledge", "k-1", 20));
    let first = take().await.unwrap();
    assert_eq!((first.value.state, first.value.acknowledged_at), (AlertState::Acknowledged, Some(at(20))));
    assert_eq!((first.value.acknowledged_by.as_deref(), first.value.note), (Some("system:test"), note()));
    assert!(take().await.unwrap().replayed, "the same key");
    let other = store.alerts.acknowledge(alert.id, None, entry("alert.acknowledge").into()).await;
    check_conflict(other, "illegal_transition");
    check_not_found(store.alerts.acknowledge(AlertId(99), None, entry("alert.acknowledge").into()).await);
    store.check_log(&["alert_rule.create", "alert.fire", "alert.acknowledge"]).await;
}

async fn alerts_end_with_their_rule(store: Store) {
    let hot = rule(&store, "hot").await;
    let (first, second) = (fired(&store, &hot, 1, 10).await, fired(&store, &hot, 2, 10).await);
    let change = entry_at("alert_rule.update", 20);
    let off = hot.patched(RulePatch { enabled: Some(false), ..RulePatch::default() }, at(20)).unwrap();
    store.rules.update(off.clone(), change.into()).await.unwrap();
    for id in [first.id, second.id] {
        let alert = store.alerts.get(id).await.unwrap();
        assert_eq!((alert.ended_at, alert.reason), (Some(at(20)), Some(AlertReason::RuleDisabled)));
        assert_eq!(store.alerts.history(id).await.unwrap().pop().unwrap().actor, "system:test");
    }
    let on = off.patched(RulePatch { enabled: Some(true), ..RulePatch::default() }, at(30)).unwrap();
    store.rules.update(on.clone(), entry("alert_rule.update").into()).await.unwrap();
    let third = fired(&store, &on, 1, 40).await;
    store.rules.delete(on, entry_at("alert_rule.delete", 50).into()).await.unwrap();
    assert_eq!(store.alerts.get(third.id).await.unwrap().reason, Some(AlertReason::RuleDeleted));
    assert_eq!(store.alerts.open().await.unwrap(), []);
    let expected = [
        "alert_rule.create",
        "alert.fire",
        "alert.fire",
        "alert_rule.update",
        "alert.resolve",
        "alert.resolve",
        "alert_rule.update",
        "alert.fire",
        "alert_rule.delete",
        "alert.resolve",
    ];
    store.check_log(&expected).await;
}

async fn alerts_are_found_by_what_they_are_of(store: Store) {
    let (hot, cold) = (rule(&store, "hot").await, rule(&store, "cold").await);
    let mut ids = Vec::new();
    for (rule, server) in [(&hot, 1), (&hot, 2), (&cold, 1)] {
        ids.push(fired(&store, rule, server, 10).await.id);
    }
    store.alerts.acknowledge(ids[1], None, entry("alert.acknowledge").into()).await.unwrap();
    let check = async |filter: AlertFilter, expected: &[usize]| {
        let page = store.alerts.list(filter.clone(), PageRequest::default()).await.unwrap();
        let found: Vec<AlertId> = page.items.iter().map(|alert| alert.id).collect();
        let expected: Vec<AlertId> = expected.iter().map(|index| ids[*index]).collect();
        assert_eq!((found.len(), page.total), (expected.len(), i64::try_from(expected.len()).unwrap()));
        assert_eq!(found, expected, "{filter:?}");
    };
    check(AlertFilter::default(), &[2, 1, 0]).await;
    check(AlertFilter { states: vec![AlertState::Firing], ..AlertFilter::default() }, &[2, 0]).await;
    let both = vec![AlertState::Firing, AlertState::Acknowledged];
    check(AlertFilter { states: both, ..AlertFilter::default() }, &[2, 1, 0]).await;
    check(AlertFilter { rule_id: Some(hot.id), ..AlertFilter::default() }, &[1, 0]).await;
    check(AlertFilter { server_id: Some(ServerId(1)), ..AlertFilter::default() }, &[2, 0]).await;
    check(AlertFilter { pool_id: Some(PoolId(1)), ..AlertFilter::default() }, &[]).await;
    check(AlertFilter { severity: Some(Severity::Critical), ..AlertFilter::default() }, &[]).await;
    let first = store.alerts.list(AlertFilter::default(), PageRequest { limit: 2, after: None }).await.unwrap();
    fired(&store, &cold, 9, 20).await;
    let page = PageRequest { limit: 2, after: first.next };
    let rest = store.alerts.list(AlertFilter::default(), page).await.unwrap();
    assert_eq!(rest.items.iter().map(|alert| alert.id).collect::<Vec<_>>(), [ids[0]]);
}

async fn old_alerts_are_forgotten(store: Store) {
    let day = |days: i64| -> Timestamp { start() + TimeDelta::days(days) };
    let rule = rule(&store, "hot").await;
    let old = fired(&store, &rule, 1, 0).await;
    store.alerts.settle(verdicts(&rule, 1, Some(&old), &[(60, 1.0)]), by(60)).await.unwrap();
    let open = fired(&store, &rule, 2, 0).await;
    let slow = Rule { spec: RuleSpec { for_minutes: 9, ..rule.spec.clone() }, ..rule.clone() };
    let pending = fired(&store, &slow, 3, 0).await;
    store.alerts.settle(verdicts(&slow, 3, Some(&pending), &[(60, 1.0)]), by(60)).await.unwrap();
    assert_eq!(store.alerts.forget(day(0), day(1)).await.unwrap(), 1);
    check_not_found(store.alerts.get(pending.id).await);
    assert_eq!(store.alerts.forget(day(1), day(1)).await.unwrap(), 1);
    check_not_found(store.alerts.get(old.id).await);
    assert_eq!(store.alerts.history(old.id).await.unwrap(), []);
    assert_eq!(store.alerts.open().await.unwrap(), [open]);
}

async fn racing_judges_open_one_alert(store: Store) {
    let rule = rule(&store, "hot").await;
    let processes: Vec<Process> = (0..4).map(|_| store.second_process()).collect();
    let racing = processes.into_iter().map(|process| {
        let verdicts = verdicts(&rule, 1, None, &[(10, 95.0)]);
        async move { process.alerts.settle(verdicts, by(10)).await.unwrap() }
    });
    let written: usize = crate::store::at_once(racing).await.into_iter().sum();
    assert_eq!((written, store.alerts.open().await.unwrap().len()), (1, 1));
    let rows: Vec<_> = store.log().await.into_iter().map(|row| row.entry.action).collect();
    assert_eq!(rows, ["alert_rule.create", "alert.fire"]);
}
