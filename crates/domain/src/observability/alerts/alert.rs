use super::{
    message::{Message, Notice},
    quiet::quiet_until,
    rule::{Rule, Severity},
};
use crate::{
    Error, Result,
    change::Recorded,
    clock::Timestamp,
    ids::{AlertId, PoolId, RuleId, ServerId},
    observability::metric::Metric,
    words::words,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

words! {
    /// How far an alert is.
    AlertState {
        /// It holds, and not for long enough.
        Pending = "pending",
        /// It holds.
        Firing = "firing",
        /// It holds, and somebody is on it.
        Acknowledged = "acknowledged",
        /// It has ended.
        Resolved = "resolved",
    }
}

words! {
    /// Why an alert ended.
    AlertReason {
        /// It was measured to be over.
        Cleared = "cleared",
        /// Nothing was measured for so long that what was pending begins anew.
        NoData = "no_data",
        /// Its server is in maintenance, and it was only pending.
        Maintenance = "maintenance",
        /// Its rule is not in force any more.
        RuleDisabled = "rule_disabled",
        /// Its rule is gone.
        RuleDeleted = "rule_deleted",
        /// Its rule is about something else now.
        RuleChanged = "rule_changed",
        /// Its rule does not watch this server or pool any more.
        NotSelected = "not_selected",
        /// Its server or pool is gone.
        SubjectDeleted = "subject_deleted",
    }
}

words! {
    /// What an alert is of.
    SubjectKind {
        /// A server.
        Server = "server",
        /// A pool.
        Pool = "pool",
    }
}

/// Whom an alert is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A server.
    Server(ServerId),
    /// A pool.
    Pool(PoolId),
}

impl Subject {
    /// The subject with this id.
    #[must_use]
    pub fn new(kind: SubjectKind, id: i64) -> Self {
        match kind {
            SubjectKind::Server => Self::Server(ServerId(id)),
            SubjectKind::Pool => Self::Pool(PoolId(id)),
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(self) -> SubjectKind {
        match self {
            Self::Server(_) => SubjectKind::Server,
            Self::Pool(_) => SubjectKind::Pool,
        }
    }

    /// Which one.
    #[must_use]
    pub fn id(self) -> i64 {
        match self {
            Self::Server(id) => id.0,
            Self::Pool(id) => id.0,
        }
    }

    /// The server, if it is one.
    #[must_use]
    pub fn server(self) -> Option<ServerId> {
        match self {
            Self::Server(id) => Some(id),
            Self::Pool(_) => None,
        }
    }
}

/// One occurrence of a rule on a server or pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Its id; 0 until it is stored.
    pub id: AlertId,
    /// The rule.
    pub rule_id: RuleId,
    /// What the rule was called.
    pub rule_name: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is measured, where its rule looks at a metric.
    pub metric: Option<Metric>,
    /// Whom it is of.
    pub subject: Subject,
    /// What that was called.
    pub subject_name: String,
    /// How far it is.
    pub state: AlertState,
    /// When it began to hold.
    pub since: Timestamp,
    /// When it had held for long enough.
    pub fired_at: Option<Timestamp>,
    /// When somebody said to be on it.
    pub acknowledged_at: Option<Timestamp>,
    /// Who, as audit rows name them.
    pub acknowledged_by: Option<String>,
    /// What they said.
    pub note: Option<String>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why.
    pub reason: Option<AlertReason>,
    /// What was measured when it changed last.
    pub value: f64,
    /// When its targets were told that it fires.
    pub notified_at: Option<Timestamp>,
    /// Counts changes.
    pub revision: i64,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Recorded for Alert {
    const KIND: &'static str = "alert";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// A change of an alert's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertChange {
    /// When: of what was measured, when it was.
    pub at: Timestamp,
    /// What it was; nothing, if it is new.
    pub from: Option<AlertState>,
    /// What it became.
    pub to: AlertState,
    /// What was measured.
    pub value: f64,
    /// Who did it, as audit rows name them.
    pub actor: String,
    /// Why, or what they said.
    pub note: Option<String>,
}

/// What is to be written of an alert, all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The alert as it is from now on; with the id 0, it is new.
    pub alert: Alert,
    /// The revision that this was computed from; nothing, if it is new.
    pub before: Option<i64>,
    /// What happened, in order.
    pub changes: Vec<AlertChange>,
    /// Who is told what.
    pub notices: Vec<Notice>,
}

impl Alert {
    /// Whether it has not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != AlertState::Resolved
    }

    /// Whether it fires, also where somebody is on it.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        matches!(self.state, AlertState::Firing | AlertState::Acknowledged)
    }

    /// Where it is, as audit rows tell it.
    #[must_use]
    pub fn position(&self) -> Value {
        json!({
            "rule_id": self.rule_id, "rule_name": self.rule_name, "severity": self.severity, "subject": self.subject,
            "subject_name": self.subject_name, "state": self.state, "value": self.value, "reason": self.reason,
        })
    }

    /// What it is a verdict of that nothing has been decided of it.
    pub(super) fn unchanged(self) -> Verdict {
        let before = (self.id.0 != 0).then_some(self.revision);
        Verdict { alert: self, before, changes: Vec::new(), notices: Vec::new() }
    }

    /// This alert with somebody on it, who says so as `actor`.
    ///
    /// # Errors
    /// `illegal_transition` unless it fires, and nobody is on it yet.
    pub fn acknowledged(self, actor: &str, note: Option<String>, now: Timestamp) -> Result<Verdict> {
        let why = match (&self.state, &self.acknowledged_by) {
            (AlertState::Firing, _) => None,
            (AlertState::Acknowledged, Some(by)) => Some(format!("it was acknowledged by {by} already")),
            (AlertState::Acknowledged, None) => Some("it was acknowledged already".to_owned()),
            (AlertState::Pending, _) => Some("it is pending, and may never fire".to_owned()),
            (AlertState::Resolved, _) => Some("it has ended".to_owned()),
        };
        if let Some(why) = why {
            let reason = format!("alert {} cannot be acknowledged: {why}", self.id);
            return Err(Error::conflict("illegal_transition", reason));
        }
        let value = self.value;
        let mut verdict = self.unchanged();
        verdict.turn(AlertState::Acknowledged, now, value, actor, note.clone());
        verdict.alert.acknowledged_at = Some(now);
        verdict.alert.acknowledged_by = Some(actor.to_owned());
        verdict.alert.note = note;
        verdict.stamp(now);
        Ok(verdict)
    }

    /// This alert at an end that was not measured. Who was told that it fires is told that it does not any more.
    #[must_use]
    pub fn over(self, reason: AlertReason, rule: Option<&Rule>, actor: &str, now: Timestamp) -> Verdict {
        let value = self.value;
        let mut verdict = self.unchanged();
        verdict.end(reason, now, value, actor);
        verdict.stamp(now);
        if let Some(rule) = rule {
            verdict.tell(rule, now);
        }
        verdict
    }
}

impl Verdict {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.changes.is_empty() && self.notices.is_empty()
    }

    /// The states that it went through, as audit actions, each with the alert's state before.
    #[must_use]
    pub fn deeds(&self) -> Vec<(&'static str, AlertChange)> {
        let deed = |change: &AlertChange| match (change.from, change.to) {
            (_, AlertState::Firing) => Some("alert.fire"),
            (_, AlertState::Acknowledged) => Some("alert.acknowledge"),
            // What never fired is no more worth an entry than a sample.
            (Some(AlertState::Firing | AlertState::Acknowledged), AlertState::Resolved) => Some("alert.resolve"),
            (_, AlertState::Pending | AlertState::Resolved) => None,
        };
        self.changes.iter().filter_map(|change| Some((deed(change)?, change.clone()))).collect()
    }

    pub(super) fn turn(&mut self, to: AlertState, at: Timestamp, value: f64, actor: &str, note: Option<String>) {
        let new = self.alert.id.0 == 0 && self.changes.is_empty();
        let from = (!new).then_some(self.alert.state);
        self.changes.push(AlertChange { at, from, to, value, actor: actor.to_owned(), note });
        self.alert.state = to;
        self.alert.value = value;
    }

    pub(super) fn end(&mut self, reason: AlertReason, at: Timestamp, value: f64, actor: &str) {
        self.turn(AlertState::Resolved, at, value, actor, Some(reason.as_str().to_owned()));
        self.alert.ended_at = Some(at);
        self.alert.reason = Some(reason);
    }

    /// Counts the change.
    pub(super) fn stamp(&mut self, now: Timestamp) {
        if let Some(before) = self.before {
            self.alert.revision = before + 1;
        }
        self.alert.updated_at = now;
    }

    /// Tells the rule's targets what they do not know yet. What fires in quiet hours is told when they end, if it still
    /// does and nobody is on it; of what ended in them, those who know that it fired hear then.
    pub(super) fn tell(&mut self, rule: &Rule, now: Timestamp) {
        let quiet = quiet_until(&rule.spec.quiet_hours, now);
        let told = self.alert.notified_at.is_some();
        let due_at = match self.alert.state {
            AlertState::Firing if !told && quiet.is_none() && !rule.spec.target_ids.is_empty() => {
                self.alert.notified_at = Some(now);
                now
            }
            AlertState::Resolved if told => quiet.unwrap_or(now),
            _ => return,
        };
        let message = Message::of(&self.alert, rule);
        let notice = |target_id: &_| Notice { target_id: *target_id, message: message.clone(), due_at };
        self.notices.extend(rule.spec.target_ids.iter().map(notice));
        self.stamp(now);
    }
}

/// Which alerts are wanted; all that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// In one of these states.
    pub states: Vec<AlertState>,
    /// Of this severity.
    pub severity: Option<Severity>,
    /// Of this server.
    pub server_id: Option<ServerId>,
    /// Of this pool.
    pub pool_id: Option<PoolId>,
    /// Of this rule.
    pub rule_id: Option<RuleId>,
}
