//! What readings make of the alerts of a rule. Pure: whoever runs it says what was read, and what time it is.

use super::{
    alert::{Alert, AlertState, Subject, Verdict},
    machine::{Machine, Phase, Reading, STALE, Step},
    rule::{Condition, Rule},
};
use crate::{clock::Timestamp, ids::AlertId};
use chrono::TimeDelta;

/// A rule and one of those whom it watches.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Whom it watches.
    pub subject: Subject,
    /// What that is called.
    pub name: &'a str,
    /// The alert that has not ended, if there is one.
    pub open: Option<&'a Alert>,
    /// When the reading before those that come now was.
    pub last: Option<Timestamp>,
    /// What time it is.
    pub now: Timestamp,
    /// Who judges, as audit rows name them.
    pub actor: &'a str,
}

/// What is to be written of one that is watched: alerts that end, and at most one that does not.
pub type Judged = Vec<Verdict>;

impl Rule {
    /// A machine for this rule that is so far.
    #[must_use]
    pub fn machine(&self, phase: Phase, last: Option<Timestamp>) -> Machine {
        let patience = match self.spec.condition {
            Condition::Metric { .. } => Some(STALE),
            // What these say is so until they say something else.
            Condition::ServerStatus | Condition::PoolSaturation => None,
        };
        Machine::new(self.hold(), patience, phase, last)
    }

    /// How long it must hold.
    #[must_use]
    pub fn hold(&self) -> TimeDelta {
        TimeDelta::minutes(self.spec.for_minutes.into())
    }
}

fn phase(alert: Option<&Alert>) -> Phase {
    match alert {
        None => Phase::Quiet,
        Some(alert) => match alert.state {
            AlertState::Pending => Phase::Pending { since: alert.since },
            AlertState::Firing | AlertState::Acknowledged => Phase::Firing,
            AlertState::Resolved => Phase::Quiet,
        },
    }
}

/// Judges readings, in the order of their times.
///
/// Where no alert is open they may be older than what was judged before: of what they tell, only an occurrence that has not
/// ended by the last of them becomes an alert, so that nothing is told twice.
#[must_use]
pub fn judge(watched: &Watched<'_>, readings: &[Reading]) -> Judged {
    let mut machine = watched.rule.machine(phase(watched.open), watched.last);
    let mut done: Judged = Vec::new();
    let mut current = watched.open.cloned().map(Alert::unchanged);
    for reading in readings {
        for step in machine.step(reading) {
            match (step, &mut current) {
                (Step::Pend, current) => *current = Some(begun(watched, reading)),
                (Step::Fire, Some(verdict)) => {
                    verdict.turn(AlertState::Firing, reading.at, reading.value, watched.actor, None);
                    verdict.alert.fired_at = Some(reading.at);
                }
                (Step::End(reason), current) => {
                    if let Some(mut verdict) = current.take() {
                        verdict.end(reason, reading.at, reading.value, watched.actor);
                        done.push(verdict);
                    }
                }
                (Step::Fire, None) => {}
            }
        }
    }
    // What began and ended between two looks was nothing that anybody could have attended to.
    done.retain(|verdict| verdict.before.is_some());
    done.extend(current);
    for verdict in &mut done {
        if !verdict.changes.is_empty() {
            verdict.stamp(watched.now);
        }
        verdict.tell(watched.rule, watched.now);
    }
    done.retain(|verdict| !verdict.is_idle());
    done
}

fn begun(watched: &Watched<'_>, reading: &Reading) -> Verdict {
    let Watched { rule, subject, now, .. } = *watched;
    let alert = Alert {
        id: AlertId(0),
        rule_id: rule.id,
        rule_name: rule.name.to_string(),
        severity: rule.spec.severity,
        metric: rule.spec.condition.metric(),
        subject,
        subject_name: watched.name.to_owned(),
        state: AlertState::Pending,
        since: reading.at,
        fired_at: None,
        acknowledged_at: None,
        acknowledged_by: None,
        note: None,
        ended_at: None,
        reason: None,
        value: reading.value,
        notified_at: None,
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    let mut verdict = alert.unchanged();
    verdict.turn(AlertState::Pending, reading.at, reading.value, watched.actor, None);
    verdict
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
