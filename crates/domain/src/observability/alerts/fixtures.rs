//! What tests of alerts share.

use super::{
    alert::{Alert, Subject},
    judge::Watched,
    rule::{Comparison, Condition, NewRule, Rule, RuleSpec, Selector, Severity},
};
use crate::{
    clock::Timestamp,
    ids::{RuleId, ServerId, TargetId},
    observability::metric::Metric,
    testing::{START, name},
};
use chrono::TimeDelta;

pub(super) fn at(minute: i64) -> Timestamp {
    START + TimeDelta::minutes(minute)
}

/// `cpu_usage > 90`, over at 80.
pub(super) fn cpu() -> Condition {
    let (threshold, clear_threshold) = (90.0, Some(80.0));
    Condition::Metric { metric: Metric::CpuUsage, comparison: Comparison::Gt, threshold, clear_threshold }
}

pub(super) fn spec(condition: Condition, for_minutes: u32) -> RuleSpec {
    RuleSpec {
        condition,
        for_minutes,
        severity: Severity::Warning,
        selector: Selector::default(),
        quiet_hours: Vec::new(),
        target_ids: Vec::new(),
    }
}

pub(super) fn new_rule(condition: Condition, for_minutes: u32) -> NewRule {
    NewRule { name: name("hot"), enabled: true, spec: spec(condition, for_minutes) }
}

/// Rule 1 of these.
pub(super) fn rule(condition: Condition, for_minutes: u32) -> Rule {
    new_rule(condition, for_minutes).into_rule(RuleId(1), "user:alice".to_owned(), START)
}

/// The same rule, which tells target 1.
pub(super) fn telling(rule: Rule) -> Rule {
    Rule { spec: RuleSpec { target_ids: vec![TargetId(1)], ..rule.spec.clone() }, ..rule }
}

/// Server 1, watched at some minute.
pub(super) fn watched<'a>(rule: &'a Rule, open: Option<&'a Alert>, minute: i64) -> Watched<'a> {
    let (subject, name) = (Subject::Server(ServerId(1)), "edge-1");
    Watched { rule, subject, name, open, last: None, now: at(minute), actor: "system:alerts" }
}
