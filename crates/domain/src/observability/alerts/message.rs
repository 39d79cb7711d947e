//! What targets are told, and in which words.

use super::{
    alert::{Alert, AlertReason, AlertState, Subject},
    rule::{Condition, Rule, Severity},
};
use crate::{
    clock::Timestamp,
    ids::{AlertId, RuleId, TargetId},
    words::words,
};
use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

words! {
    /// What a message is about.
    MessageKind {
        /// An alert fires.
        Firing = "alert.firing",
        /// An alert has ended.
        Resolved = "alert.resolved",
        /// Somebody tries whether messages come through.
        Test = "test",
    }
}

/// What a target is told: how things were when that was decided, however late it gets there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// What it is about.
    pub event: MessageKind,
    /// The alert; nothing, for a test.
    pub alert: Option<AlertId>,
    /// The rule.
    pub rule_id: Option<RuleId>,
    /// What the rule is called.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// Whom it is of.
    pub subject: Option<Subject>,
    /// What that is called.
    pub subject_name: String,
    /// What the rule looks for.
    pub condition: Option<Condition>,
    /// What was measured.
    pub value: Option<f64>,
    /// When it began to hold.
    pub since: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why.
    pub reason: Option<AlertReason>,
}

/// A message to a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Whom.
    pub target_id: TargetId,
    /// What.
    pub message: Message,
    /// Not before.
    pub due_at: Timestamp,
}

fn shown(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Message {
    /// What is to be said of an alert as it is now.
    #[must_use]
    pub fn of(alert: &Alert, rule: &Rule) -> Self {
        let event = match alert.state {
            AlertState::Resolved => MessageKind::Resolved,
            AlertState::Pending | AlertState::Firing | AlertState::Acknowledged => MessageKind::Firing,
        };
        Self {
            event,
            alert: Some(alert.id),
            rule_id: Some(rule.id),
            rule: rule.name.to_string(),
            severity: alert.severity,
            subject: Some(alert.subject),
            subject_name: alert.subject_name.clone(),
            condition: Some(rule.spec.condition),
            value: Some(alert.value),
            since: alert.since,
            ended_at: alert.ended_at,
            reason: alert.reason,
        }
    }

    /// A message that says nothing but that it has come through.
    #[must_use]
    pub fn test(now: Timestamp) -> Self {
        Self {
            event: MessageKind::Test,
            alert: None,
            rule_id: None,
            rule: "test".to_owned(),
            severity: Severity::Info,
            subject: None,
            subject_name: String::new(),
            condition: None,
            value: None,
            since: now,
            ended_at: None,
            reason: None,
        }
    }

    /// It in one line.
    #[must_use]
    pub fn headline(&self) -> String {
        let subject = match self.subject {
            Some(Subject::Server(_)) => format!("server {}", self.subject_name),
            Some(Subject::Pool(_)) => format!("pool {}", self.subject_name),
            None => String::new(),
        };
        match self.event {
            MessageKind::Test => "StarLink: a test message; nothing is wrong".to_owned(),
            MessageKind::Firing => format!("[{}] {}: {subject}", self.severity, self.rule),
            MessageKind::Resolved => format!("[resolved] {}: {subject}", self.rule),
        }
    }

    /// It in a few lines.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![self.headline()];
        if let (Some(Condition::Metric { metric, threshold, .. }), Some(value)) = (self.condition, self.value) {
            lines.push(format!("{metric} is {value}, the threshold {threshold}"));
        }
        if self.event != MessageKind::Test {
            lines.push(format!("since {}", shown(self.since)));
        }
        if let (Some(ended), Some(reason)) = (self.ended_at, self.reason) {
            lines.push(format!("until {} ({reason})", shown(ended)));
        }
        lines.join("\n")
    }

    /// It as programs read it, under the id of its delivery, which is the same however often it is sent.
    #[must_use]
    pub fn body(&self, delivery: i64) -> Value {
        json!({
            "id": delivery,
            "event": self.event,
            "alert_id": self.alert,
            "rule": { "id": self.rule_id, "name": self.rule },
            "severity": self.severity,
            "subject": self.subject.map(|subject| json!({
                "kind": subject.kind(), "id": subject.id(), "name": self.subject_name,
            })),
            "condition": self.condition,
            "value": self.value,
            "since": self.since,
            "ended_at": self.ended_at,
            "reason": self.reason,
            "text": self.text(),
        })
    }
}
