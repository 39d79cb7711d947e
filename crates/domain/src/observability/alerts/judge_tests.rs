use super::*;
use crate::{
    Error,
    ids::AlertId,
    observability::alerts::{
        AlertReason, Day, MessageKind, QuietHours, RuleSpec,
        fixtures::{at, cpu, rule, telling, watched},
    },
};

fn readings(values: &[(i64, f64)]) -> Vec<Reading> {
    let reading = |(minute, value): &(i64, f64)| Reading { at: at(*minute), value: *value, level: cpu().level(*value) };
    values.iter().map(reading).collect()
}

/// What becomes of an alert that is stored.
fn stored(verdict: &Verdict) -> Alert {
    Alert { id: AlertId(7), ..verdict.alert.clone() }
}

/// An alert of the rule that fires since minute 0.
fn firing(rule: &Rule) -> Alert {
    let judged = judge(&watched(rule, None, 0), &readings(&[(0, 95.0)]));
    stored(&judged[0])
}

fn states(verdict: &Verdict) -> Vec<AlertState> {
    verdict.changes.iter().map(|change| change.to).collect()
}

fn told(verdict: &Verdict) -> Vec<MessageKind> {
    verdict.notices.iter().map(|notice| notice.message.event).collect()
}

#[test]
fn an_alert_has_the_times_of_samples() {
    let rule = rule(cpu(), 2);
    let judged = judge(&watched(&rule, None, 10), &readings(&[(5, 95.0), (6, 96.0), (7, 97.0), (8, 98.0)]));
    let [verdict] = judged.as_slice() else { panic!("{judged:?}") };
    assert_eq!((verdict.before, states(verdict)), (None, vec![AlertState::Pending, AlertState::Firing]));
    let alert = &verdict.alert;
    assert_eq!((alert.since, alert.fired_at, alert.value), (at(5), Some(at(7)), 97.0));
    assert_eq!((alert.created_at, alert.revision), (at(10), 1));
    let deeds: Vec<_> = verdict.deeds().into_iter().map(|(deed, change)| (deed, change.at)).collect();
    assert_eq!(deeds, [("alert.fire", at(7))]);
}

#[test]
fn an_alert_ends_and_the_next_one_begins() {
    let rule = rule(cpu(), 0);
    let open = firing(&rule);
    let judged = judge(&watched(&rule, Some(&open), 4), &readings(&[(1, 95.0), (2, 80.0), (3, 85.0), (4, 91.0)]));
    let [ended, begun] = judged.as_slice() else { panic!("{judged:?}") };
    assert_eq!((ended.before, ended.alert.revision, states(ended)), (Some(1), 2, vec![AlertState::Resolved]));
    assert_eq!((ended.alert.ended_at, ended.alert.reason), (Some(at(2)), Some(AlertReason::Cleared)));
    assert_eq!((begun.alert.id, begun.alert.since, begun.before), (AlertId(0), at(4), None));
}

#[test]
fn what_began_and_ended_unseen_is_no_alert() {
    let rule = rule(cpu(), 1);
    assert_eq!(judge(&watched(&rule, None, 9), &readings(&[(1, 95.0), (2, 95.0), (3, 10.0)])), []);
    let judged = judge(&watched(&rule, None, 9), &readings(&[(1, 95.0), (2, 95.0), (3, 10.0), (4, 95.0)]));
    assert_eq!(judged.iter().map(|verdict| verdict.alert.since).collect::<Vec<_>>(), [at(4)]);
}

#[test]
fn nothing_read_changes_nothing() {
    let rule = rule(cpu(), 0);
    let open = firing(&rule);
    assert_eq!(judge(&watched(&rule, None, 60), &[]), []);
    assert_eq!(judge(&watched(&rule, Some(&open), 60), &[]), []);
}

#[test]
fn what_never_fired_ends_without_an_entry() {
    let rule = telling(rule(cpu(), 5));
    let pending = stored(&judge(&watched(&rule, None, 0), &readings(&[(0, 95.0)]))[0]);
    let judged = judge(&watched(&rule, Some(&pending), 1), &readings(&[(1, 10.0)]));
    assert_eq!(states(&judged[0]), [AlertState::Resolved]);
    assert_eq!((judged[0].deeds().len(), judged[0].notices.len()), (0, 0));
}

#[test]
fn somebody_is_on_what_fires_and_on_nothing_else() {
    let rule = rule(cpu(), 1);
    let check = |alert: &Alert, allowed: bool| {
        let outcome = alert.clone().acknowledged("user:alice", Some("on it".to_owned()), at(3));
        match (outcome, allowed) {
            (Ok(verdict), true) => {
                assert_eq!(
                    (verdict.alert.state, verdict.alert.revision),
                    (AlertState::Acknowledged, alert.revision + 1)
                );
                assert_eq!(verdict.deeds()[0].0, "alert.acknowledge");
                verdict.alert
            }
            (Err(Error::Conflict { code: "illegal_transition", .. }), false) => alert.clone(),
            (outcome, _) => panic!("{outcome:?}"),
        }
    };
    let pending = stored(&judge(&watched(&rule, None, 0), &readings(&[(0, 95.0)]))[0]);
    check(&pending, false);
    let judged = judge(&Watched { last: Some(at(0)), ..watched(&rule, Some(&pending), 1) }, &readings(&[(1, 95.0)]));
    let acknowledged = check(&stored(&judged[0]), true);
    check(&acknowledged, false);
    let judged = judge(&watched(&rule, Some(&acknowledged), 5), &readings(&[(4, 95.0), (5, 10.0)]));
    assert_eq!(states(&judged[0]), [AlertState::Resolved]);
    assert_eq!(judged[0].deeds()[0].0, "alert.resolve");
    check(&stored(&judged[0]), false);
}

#[test]
fn targets_are_told_once_that_it_fires_and_once_that_it_ended() {
    let rule = telling(rule(cpu(), 0));
    let fired = judge(&watched(&rule, None, 0), &readings(&[(0, 95.0)]));
    assert_eq!(told(&fired[0]), [MessageKind::Firing]);
    let open = stored(&fired[0]);
    assert_eq!(judge(&watched(&rule, Some(&open), 1), &readings(&[(1, 96.0)])), []);
    let ended = judge(&watched(&rule, Some(&open), 2), &readings(&[(2, 10.0)]));
    assert_eq!((told(&ended[0]), ended[0].notices[0].due_at), (vec![MessageKind::Resolved], at(2)));
    let over = open.over(AlertReason::RuleDeleted, Some(&rule), "user:alice", at(3));
    assert_eq!(told(&over), [MessageKind::Resolved]);
}

#[test]
fn nobody_is_told_in_quiet_hours_and_then_only_of_what_still_fires() {
    // Tests begin on a Thursday.
    let hours = QuietHours::parse(vec![Day::Thursday], "00:00", "01:00", "Z").unwrap();
    let rule = telling(rule(cpu(), 0));
    let quiet = Rule { spec: RuleSpec { quiet_hours: vec![hours], ..rule.spec.clone() }, ..rule.clone() };
    let fired = judge(&watched(&quiet, None, 0), &readings(&[(0, 95.0)]));
    assert_eq!((states(&fired[0]).len(), told(&fired[0]).len()), (2, 0));
    let open = stored(&fired[0]);
    assert_eq!(judge(&watched(&quiet, Some(&open), 59), &[]), []);
    let late = judge(&watched(&quiet, Some(&open), 60), &[]);
    assert_eq!((told(&late[0]), late[0].changes.len()), (vec![MessageKind::Firing], 0));
    assert_eq!((late[0].before, late[0].alert.revision), (Some(1), 2));
    // It ended before.
    let ended = judge(&watched(&quiet, Some(&open), 30), &readings(&[(30, 10.0)]));
    assert_eq!((states(&ended[0]), told(&ended[0]).len()), (vec![AlertState::Resolved], 0));
    // Somebody is on it.
    let acknowledged = open.acknowledged("user:alice", None, at(10)).unwrap().alert;
    assert_eq!(judge(&watched(&quiet, Some(&acknowledged), 60), &[]), []);
    // It was told before, so its end is told as well, later.
    let known = firing(&rule);
    let ended = judge(&watched(&quiet, Some(&known), 30), &readings(&[(30, 10.0)]));
    assert_eq!((told(&ended[0]), ended[0].notices[0].due_at), (vec![MessageKind::Resolved], at(60)));
}
