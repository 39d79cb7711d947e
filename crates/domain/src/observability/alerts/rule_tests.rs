use super::*;
use crate::{
    Error,
    observability::alerts::fixtures::{at, cpu, rule},
};

fn draft() -> ConditionDraft {
    cpu().draft()
}

fn check(draft: &ConditionDraft, wrong: &[&str]) {
    let fields = match Condition::parse(draft) {
        Ok(_) => Vec::new(),
        Err(Error::Invalid { errors }) => errors.into_iter().map(|error| error.field).collect(),
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(fields, wrong, "{draft:?}");
}

#[test]
fn conditions_say_what_is_wrong_with_them() {
    check(&draft(), &[]);
    check(&ConditionDraft::default(), &["kind"]);
    check(&ConditionDraft { kind: Some("cpu".to_owned()), ..draft() }, &["kind"]);
    let kind = |kind: &str| ConditionDraft { kind: Some(kind.to_owned()), ..ConditionDraft::default() };
    check(&kind("metric"), &["metric", "comparison", "threshold"]);
    check(&kind("server_status"), &[]);
    check(&kind("pool_saturation"), &[]);
    check(&ConditionDraft { status: Some("online".to_owned()), ..kind("server_status") }, &["status"]);
    check(&ConditionDraft { threshold: Some(1.0), ..kind("pool_saturation") }, &["threshold"]);
    for wrong in [-1.0, 100.5, f64::NAN, f64::INFINITY] {
        check(&ConditionDraft { threshold: Some(wrong), clear_threshold: None, ..draft() }, &["threshold"]);
    }
}

#[test]
fn the_point_at_which_it_is_over_lies_on_the_quiet_side() {
    let at =
        |comparison, clear| ConditionDraft { comparison: Some(comparison), clear_threshold: Some(clear), ..draft() };
    for comparison in [Comparison::Gt, Comparison::Gte] {
        check(&at(comparison, 90.0), &[]);
        check(&at(comparison, 90.1), &["clear_threshold"]);
    }
    for comparison in [Comparison::Lt, Comparison::Lte] {
        check(&at(comparison, 90.0), &[]);
        check(&at(comparison, 89.9), &["clear_threshold"]);
    }
}

#[test]
fn levels_lie_around_both_thresholds() {
    use Comparison::{Gt, Gte, Lt, Lte};
    use Level::{Between, Loud, Quiet};
    let check = |comparison, clear, value, level| {
        let draft = ConditionDraft { comparison: Some(comparison), clear_threshold: clear, ..draft() };
        assert_eq!(Condition::parse(&draft).unwrap().level(value), level, "{comparison} {clear:?} {value}");
    };
    check(Gt, None, 90.0, Quiet);
    check(Gte, None, 90.0, Loud);
    check(Gt, Some(80.0), 90.0, Between);
    check(Gte, Some(80.0), 80.0, Quiet);
    check(Lt, None, 90.0, Quiet);
    check(Lte, None, 90.0, Loud);
    check(Lt, Some(95.0), 94.9, Between);
    check(Lt, Some(95.0), 95.0, Quiet);
}

#[test]
fn a_patch_merges() {
    let before = rule(cpu(), 5);
    let patch =
        ConditionPatch { threshold: Patch::Set(95.0), clear_threshold: Patch::Clear, ..ConditionPatch::default() };
    let after = before.patched(RulePatch { condition: Some(patch), ..RulePatch::default() }, at(1)).unwrap();
    let expected = ConditionDraft { threshold: Some(95.0), clear_threshold: None, ..draft() };
    assert_eq!((after.spec.condition.draft(), after.spec.for_minutes, after.revision), (expected, 5, 2));
    assert_eq!(before.ends(Some(&after)), None);

    let patch = ConditionPatch { kind: Patch::Set("server_status".to_owned()), ..ConditionPatch::default() };
    let other = before.patched(RulePatch { condition: Some(patch), ..RulePatch::default() }, at(1)).unwrap();
    assert_eq!(other.spec.condition, Condition::ServerStatus);
    assert_eq!(before.ends(Some(&other)), Some(AlertReason::RuleChanged));

    let off = before.patched(RulePatch { enabled: Some(false), ..RulePatch::default() }, at(1)).unwrap();
    assert_eq!(
        (before.ends(Some(&off)), before.ends(None)),
        (Some(AlertReason::RuleDisabled), Some(AlertReason::RuleDeleted))
    );

    let wrong = ConditionPatch { threshold: Patch::Set(70.0), ..ConditionPatch::default() };
    let refused = before.patched(RulePatch { condition: Some(wrong), ..RulePatch::default() }, at(1));
    assert!(
        matches!(&refused, Err(Error::Invalid { errors }) if errors[0].field == "condition.clear_threshold"),
        "{refused:?}"
    );
}

#[test]
fn pools_are_selected_by_their_id_alone() {
    let mut spec = rule(Condition::PoolSaturation, 0).spec;
    spec.selector.pool_id = Some(PoolId(3));
    assert!(spec.check().is_ok());
    spec.selector.zone = Some("a".to_owned());
    assert!(matches!(spec.check(), Err(Error::Invalid { errors }) if errors[0].field == "selector.zone"));
}

#[test]
fn the_rules_that_are_there_from_the_start_make_sense() {
    for (name, spec) in crate::observability::alerts::default_rules() {
        assert!(Name::parse(name).is_ok() && spec.check().is_ok());
        assert_eq!(Condition::parse(&spec.condition.draft()).unwrap(), spec.condition);
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<RuleSpec>(&text).unwrap(), spec);
        println!("{name}|{}|{text}", spec.severity);
    }
}
