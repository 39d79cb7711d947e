//! How alerts and their changes stand in columns.

use crate::{
    connection::AnyConnection,
    failure::Failure,
    schema::{alert_changes as changes, alert_deliveries as deliveries, alert_tries as tries, alerts},
    values::{from_us, to_us, word},
};
use diesel::prelude::*;
use domain::{
    ids::{AlertId, RuleId},
    observability::{
        Metric,
        alerts::{Alert, AlertChange, AlertReason, AlertState, Severity, Subject, SubjectKind},
    },
};

#[derive(Queryable)]
pub(super) struct Row {
    id: i64,
    rule_id: i64,
    rule_name: String,
    severity: String,
    metric: Option<String>,
    subject_kind: String,
    subject_id: i64,
    subject_name: String,
    state: String,
    since_us: i64,
    fired_at_us: Option<i64>,
    acknowledged_at_us: Option<i64>,
    acknowledged_by: Option<String>,
    note: Option<String>,
    ended_at_us: Option<i64>,
    reason: Option<String>,
    value: f64,
    notified_at_us: Option<i64>,
    revision: i64,
    created_at_us: i64,
    updated_at_us: i64,
}

impl TryFrom<Row> for Alert {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        Ok(Self {
            id: AlertId(row.id),
            rule_id: RuleId(row.rule_id),
            rule_name: row.rule_name,
            severity: word(&row.severity, Severity::parse)?,
            metric: row.metric.map(|text| word(&text, Metric::parse)).transpose()?,
            subject: Subject::new(word(&row.subject_kind, SubjectKind::parse)?, row.subject_id),
            subject_name: row.subject_name,
            state: word(&row.state, AlertState::parse)?,
            since: from_us(row.since_us)?,
            fired_at: row.fired_at_us.map(from_us).transpose()?,
            acknowledged_at: row.acknowledged_at_us.map(from_us).transpose()?,
            acknowledged_by: row.acknowledged_by,
            note: row.note,
            ended_at: row.ended_at_us.map(from_us).transpose()?,
            reason: row.reason.map(|text| word(&text, AlertReason::parse)).transpose()?,
            value: row.value,
            notified_at: row.notified_at_us.map(from_us).transpose()?,
            revision: row.revision,
            created_at: from_us(row.created_at_us)?,
            updated_at: from_us(row.updated_at_us)?,
        })
    }
}

/// An alert as columns, but for its id and when it was made; inserted and updated alike.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = alerts)]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct Columns {
    rule_id: i64,
    rule_name: String,
    severity: &'static str,
    metric: Option<String>,
    subject_kind: &'static str,
    subject_id: i64,
    subject_name: String,
    state: &'static str,
    since_us: i64,
    fired_at_us: Option<i64>,
    acknowledged_at_us: Option<i64>,
    acknowledged_by: Option<String>,
    note: Option<String>,
    ended_at_us: Option<i64>,
    reason: Option<String>,
    value: f64,
    notified_at_us: Option<i64>,
    revision: i64,
    updated_at_us: i64,
}

impl From<&Alert> for Columns {
    fn from(alert: &Alert) -> Self {
        Self {
            rule_id: alert.rule_id.0,
            rule_name: alert.rule_name.clone(),
            severity: alert.severity.as_str(),
            metric: alert.metric.map(|metric| metric.as_str().to_owned()),
            subject_kind: alert.subject.kind().as_str(),
            subject_id: alert.subject.id(),
            subject_name: alert.subject_name.clone(),
            state: alert.state.as_str(),
            since_us: to_us(alert.since),
            fired_at_us: alert.fired_at.map(to_us),
            acknowledged_at_us: alert.acknowledged_at.map(to_us),
            acknowledged_by: alert.acknowledged_by.clone(),
            note: alert.note.clone(),
            ended_at_us: alert.ended_at.map(to_us),
            reason: alert.reason.map(|reason| reason.as_str().to_owned()),
            value: alert.value,
            notified_at_us: alert.notified_at.map(to_us),
            revision: alert.revision,
            updated_at_us: to_us(alert.updated_at),
        }
    }
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = changes)]
#[diesel(treat_none_as_default_value = false)]
pub(super) struct ChangeRow {
    alert_id: i64,
    number: i64,
    at_us: i64,
    from_state: Option<String>,
    to_state: String,
    value: f64,
    actor: String,
    note: Option<String>,
}

impl ChangeRow {
    pub(super) fn of(alert: AlertId, number: i64, change: &AlertChange) -> Self {
        Self {
            alert_id: alert.0,
            number,
            at_us: to_us(change.at),
            from_state: change.from.map(|state| state.as_str().to_owned()),
            to_state: change.to.as_str().to_owned(),
            value: change.value,
            actor: change.actor.clone(),
            note: change.note.clone(),
        }
    }
}

impl TryFrom<ChangeRow> for AlertChange {
    type Error = Failure;

    fn try_from(row: ChangeRow) -> Result<Self, Failure> {
        Ok(Self {
            at: from_us(row.at_us)?,
            from: row.from_state.map(|text| word(&text, AlertState::parse)).transpose()?,
            to: word(&row.to_state, AlertState::parse)?,
            value: row.value,
            actor: row.actor,
            note: row.note,
        })
    }
}

/// Removes alerts. Not left to the cascade, whatever a database is told about foreign keys.
pub(super) fn forget(connection: &mut AnyConnection, alerts: &[i64]) -> Result<(), Failure> {
    let of_alerts = deliveries::alert_id.eq_any(alerts.to_vec());
    let sent: Vec<i64> = deliveries::table.filter(of_alerts).select(deliveries::id).load(connection)?;
    diesel::delete(tries::table.filter(tries::delivery_id.eq_any(sent.clone()))).execute(connection)?;
    diesel::delete(deliveries::table.filter(deliveries::id.eq_any(sent))).execute(connection)?;
    diesel::delete(changes::table.filter(changes::alert_id.eq_any(alerts.to_vec()))).execute(connection)?;
    diesel::delete(alerts::table.filter(alerts::id.eq_any(alerts.to_vec()))).execute(connection)?;
    Ok(())
}
