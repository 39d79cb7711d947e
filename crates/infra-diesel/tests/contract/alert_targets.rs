//! What is promised of targets of alerts and of messages to them: secrets stay apart, and a message is sent at least once.

use crate::{
    alerts, on_both,
    store::{Process, Store, at, change, check_conflict, check_not_found, check_stale, name, once},
};
use domain::{
    change::Change,
    ids::TargetId,
    observability::alerts::{
        Alert, AlertRules, AlertTargets, Deliveries, DeliveryState, Message, MessageKind, NewTarget, Rule, RulePatch,
        Target, TargetPatch, TargetSecret, TargetSpec, Try,
    },
    page::PageRequest,
};

on_both!(
    a_target_is_read_back_without_its_secret,
    a_target_that_a_rule_tells_is_not_removed,
    a_message_is_written_with_what_it_tells_of,
    a_message_is_in_one_hand_at_a_time,
    what_is_on_its_way_ends_with_its_target,
);

fn new_target(text: &str) -> NewTarget {
    let secret = TargetSecret { url: Some("https://a/SECRET".to_owned()), key: Some("KEY".to_owned()), password: None };
    NewTarget { name: name(text), enabled: true, spec: TargetSpec::Webhook { origin: "https://a".to_owned() }, secret }
}

async fn target(process: &Process, text: &str) -> Target {
    process.targets.create(new_target(text), change("alert_target.create")).await.unwrap().value
}

/// A rule that tells a target, and an alert of it that fires since 10 seconds after the beginning.
async fn told(process: &Process, target: TargetId) -> (Rule, Alert) {
    let rule = alerts::rule(process, "hot").await;
    let patch = RulePatch { target_ids: Some(vec![target]), ..RulePatch::default() };
    let rule = rule.patched(patch, at(1)).unwrap();
    process.rules.update(rule.clone(), change("alert_rule.update")).await.unwrap();
    let alert = alerts::fired(process, &rule, 1, 10).await;
    (rule, alert)
}

async fn a_target_is_read_back_without_its_secret(store: Store) {
    let attempt = || store.targets.create(new_target("ops"), once("alert_target.create", "k-1", 0));
    let (first, second) = (attempt().await.unwrap(), attempt().await.unwrap());
    assert_eq!((first.value.clone(), first.replayed, second.replayed), (second.value, false, true));
    let made = first.value;
    assert_eq!(store.targets.get(made.id).await.unwrap(), made);
    assert_eq!(store.targets.reach(made.id).await.unwrap(), (made.clone(), new_target("ops").secret));
    assert_eq!(store.targets.list(PageRequest::default()).await.unwrap().items, std::slice::from_ref(&made));
    check_conflict(store.targets.create(new_target("ops"), change("alert_target.create")).await, "name_taken");
    let patch = TargetPatch { enabled: Some(false), ..TargetPatch::default() };
    let (after, secret) = made.patched(&new_target("ops").secret, patch, at(1)).unwrap();
    let update = || store.targets.update(after.clone(), secret.clone(), change("alert_target.update"));
    assert_eq!(update().await.unwrap().value, after);
    check_stale(update().await, 2);
    check_stale(store.targets.delete(made, change("alert_target.delete")).await, 2);
    store.targets.delete(after.clone(), change("alert_target.delete")).await.unwrap();
    check_not_found(store.targets.get(after.id).await);
    let log = format!("{:?}", store.log().await);
    assert!(log.contains("https://a") && !log.contains("SECRET") && !log.contains("KEY"));
}

async fn a_target_that_a_rule_tells_is_not_removed(store: Store) {
    let ops = target(&store, "ops").await;
    told(&store, ops.id).await;
    let reason = check_conflict(store.targets.delete(ops, change("alert_target.delete")).await, "target_in_use");
    assert!(reason.contains("\"hot\""), "{reason}");
}

async fn a_message_is_written_with_what_it_tells_of(store: Store) {
    let ops = target(&store, "ops").await;
    let (_, alert) = told(&store, ops.id).await;
    let [delivery] = store.deliveries.of_alert(alert.id).await.unwrap().try_into().unwrap();
    assert_eq!((delivery.state, delivery.event), (DeliveryState::Pending, MessageKind::Firing));
    assert_eq!((delivery.due_at, delivery.tries.len(), alert.notified_at), (Some(at(10)), 0, Some(at(10))));
    let [errand] = store.deliveries.claim(at(10), at(99), 9).await.unwrap().try_into().unwrap();
    assert_eq!((errand.message.alert, errand.secret), (Some(alert.id), new_target("ops").secret));
}

async fn a_message_is_in_one_hand_at_a_time(store: Store) {
    let ops = target(&store, "ops").await;
    let entry = crate::store::entry_at("alert_target.test", 10);
    let begun = store.deliveries.begin(ops, Message::test(at(10)), at(60), Change::from(entry)).await.unwrap();
    assert!(!store.deliveries.is_due(at(59)).await.unwrap() && store.deliveries.is_due(at(60)).await.unwrap());
    let claim = async |now: i64| store.deliveries.claim(at(now), at(now + 60), 9).await.unwrap().len();
    assert_eq!((claim(60).await, claim(61).await, claim(120).await), (1, 0, 1));
    let failed = Try { at: at(121), status: Some(503), error: Some("it failed there".to_owned()) };
    store.deliveries.tried(begun.value, failed.clone(), DeliveryState::Pending, Some(at(130))).await.unwrap();
    let [errand] = store.deliveries.claim(at(130), at(190), 9).await.unwrap().try_into().unwrap();
    assert_eq!((errand.id, errand.tries), (begun.value, 1));
    let good = Try { at: at(131), status: Some(204), error: None };
    store.deliveries.tried(begun.value, good.clone(), DeliveryState::Delivered, None).await.unwrap();
    let delivery = store.deliveries.get(begun.value).await.unwrap();
    assert_eq!((delivery.state, delivery.finished_at), (DeliveryState::Delivered, Some(at(131))));
    assert_eq!(delivery.tries, [failed, good]);
    assert!(!store.deliveries.is_due(at(9999)).await.unwrap());
    store.check_log(&["alert_target.create", "alert_target.test"]).await;
}

async fn what_is_on_its_way_ends_with_its_target(store: Store) {
    let ops = target(&store, "ops").await;
    let (rule, alert) = told(&store, ops.id).await;
    let patch = RulePatch { target_ids: Some(Vec::new()), ..RulePatch::default() };
    store.rules.update(rule.patched(patch, at(11)).unwrap(), change("alert_rule.update")).await.unwrap();
    store.targets.delete(ops, change("alert_target.delete")).await.unwrap();
    assert_eq!(store.deliveries.of_alert(alert.id).await.unwrap()[0].state, DeliveryState::Failed);
    assert_eq!(store.deliveries.claim(at(99), at(199), 9).await.unwrap().len(), 0);
}
