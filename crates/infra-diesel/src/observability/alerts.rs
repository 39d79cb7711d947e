//! Alerts: a row for each occurrence, which outlives its rule and whom it is of, and one for each change of its state.
//!
//! Whatever is written of an alert is written with its changes, with what is recorded of them and with what is to be sent,
//! on a row of which the writer has seen that it is as it was when that was decided.

mod deliveries;
mod rows;
mod rules;
mod targets;

pub use deliveries::DieselDeliveries;
pub use rules::DieselAlertRules;
pub use targets::DieselAlertTargets;

use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::Failure,
    feed::Trace,
    paging::{self, newest_first},
    schema::{alert_changes as changes, alert_deliveries, alert_rules as rules_table, alert_targets, alerts},
    values::{to_json, to_us},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Recorded},
    clock::Timestamp,
    ids::{AlertId, RuleId},
    observability::alerts::{Alert, AlertChange, AlertFilter, AlertReason, Alerts, Notice, Rule, SubjectKind, Verdict},
    page::{Page, PageRequest},
};
use rows::{ChangeRow, Columns, Row};
use serde_json::json;

/// Alerts that are forgotten by one statement.
const STEP: i64 = 500;

fn converted(rows: Vec<Row>) -> Result<Vec<Alert>, Failure> {
    rows.into_iter().map(Alert::try_from).collect()
}

fn load(connection: &mut AnyConnection, id: AlertId) -> Result<Alert, Failure> {
    let row: Option<Row> = alerts::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found(Alert::KIND, id)))?.try_into()
}

fn open(connection: &mut AnyConnection) -> Result<Vec<Alert>, Failure> {
    converted(alerts::table.filter(alerts::ended_at_us.is_null()).order(alerts::id.asc()).load(connection)?)
}

/// Whether things are as they were when this was decided.
fn applies(connection: &mut AnyConnection, verdict: &Verdict) -> Result<bool, Failure> {
    let alert = &verdict.alert;
    if let Some(before) = verdict.before {
        let row = alerts::table.find(alert.id.0).filter(alerts::revision.eq(before));
        return Ok(diesel::select(diesel::dsl::exists(row)).get_result(connection)?);
    }
    let rule = rules_table::table.find(alert.rule_id.0).filter(rules_table::enabled.eq(true));
    let other = alerts::table
        .filter(alerts::ended_at_us.is_null())
        .filter(alerts::rule_id.eq(alert.rule_id.0))
        .filter(alerts::subject_kind.eq(alert.subject.kind().as_str()))
        .filter(alerts::subject_id.eq(alert.subject.id()));
    let in_force: bool = diesel::select(diesel::dsl::exists(rule)).get_result(connection)?;
    let is_there: bool = diesel::select(diesel::dsl::exists(other)).get_result(connection)?;
    Ok(in_force && !is_there)
}

/// Writes a verdict that applies; the alert as it is stored, and what is recorded of it.
fn write(connection: &mut AnyConnection, verdict: &Verdict, by: &AuditEntry) -> Result<(Alert, Trace), Failure> {
    let columns = Columns::from(&verdict.alert);
    let id = if verdict.before.is_some() {
        update!(connection, diesel::update(alerts::table.find(verdict.alert.id.0)).set(columns))?;
        verdict.alert.id
    } else {
        let created = alerts::created_at_us.eq(to_us(verdict.alert.created_at));
        let inserted = diesel::insert_into(alerts::table).values((columns, created)).returning(alerts::id);
        AlertId(inserted.get_result(connection)?)
    };
    let alert = Alert { id, ..verdict.alert.clone() };
    add_changes(connection, id, &verdict.changes)?;
    for notice in &verdict.notices {
        enqueue(connection, id, notice, by.created_at)?;
    }
    let entries = verdict.deeds().into_iter().map(|(deed, change)| recorded(by, deed, &alert, &change)).collect();
    Ok((alert, Trace { entries, ..Trace::default() }))
}

fn recorded(by: &AuditEntry, deed: &str, alert: &Alert, change: &AlertChange) -> AuditEntry {
    let (mut before, mut after) = (alert.position(), alert.position());
    before["state"] = json!(change.from);
    after["state"] = json!(change.to);
    let entry = by.beside(deed).moved(alert, before, after);
    match &change.note {
        Some(note) => entry.because(note.clone()),
        None => entry,
    }
}

fn add_changes(connection: &mut AnyConnection, alert: AlertId, new: &[AlertChange]) -> Result<(), Failure> {
    let last: Option<i64> = changes::table
        .filter(changes::alert_id.eq(alert.0))
        .select(diesel::dsl::max(changes::number))
        .first(connection)?;
    for (number, change) in (last.unwrap_or_default() + 1..).zip(new) {
        diesel::insert_into(changes::table).values(ChangeRow::of(alert, number, change)).execute(connection)?;
    }
    Ok(())
}

/// Has a message be sent, unless nobody is there any more who would get it.
fn enqueue(connection: &mut AnyConnection, alert: AlertId, notice: &Notice, now: Timestamp) -> Result<(), Failure> {
    let target = alert_targets::table.find(notice.target_id.0).filter(alert_targets::enabled.eq(true));
    let name: Option<String> = target.select(alert_targets::name).first(connection).optional()?;
    let Some(name) = name else { return Ok(()) };
    let mut message = notice.message.clone();
    message.alert = Some(alert);
    diesel::insert_into(alert_deliveries::table)
        .values((
            alert_deliveries::alert_id.eq(alert.0),
            alert_deliveries::target_id.eq(notice.target_id.0),
            alert_deliveries::target_name.eq(name),
            alert_deliveries::event.eq(message.event.as_str()),
            alert_deliveries::message.eq(to_json(&message)?),
            alert_deliveries::state.eq("pending"),
            alert_deliveries::tries.eq(0),
            alert_deliveries::due_at_us.eq(to_us(notice.due_at)),
            alert_deliveries::created_at_us.eq(to_us(now)),
        ))
        .execute(connection)?;
    Ok(())
}

/// Ends the alerts of a rule, as a part of what `by` records.
fn end_of(
    connection: &mut AnyConnection,
    rule: RuleId,
    reason: AlertReason,
    told_by: &Rule,
    by: &AuditEntry,
) -> Result<Trace, Failure> {
    let of_rule = alerts::table.filter(alerts::ended_at_us.is_null()).filter(alerts::rule_id.eq(rule.0));
    let mut trace = Trace::default();
    for alert in converted(of_rule.order(alerts::id.asc()).load(connection)?)? {
        let verdict = alert.over(reason, Some(told_by), &by.actor, by.created_at);
        trace.append(write(connection, &verdict, by)?.1);
    }
    Ok(trace)
}

fn settle(connection: &mut AnyConnection, verdicts: &[Verdict], by: &AuditEntry) -> Result<(usize, Trace), Failure> {
    let (mut written, mut trace) = (0, Trace::default());
    for verdict in verdicts {
        if applies(connection, verdict)? {
            trace.append(write(connection, verdict, by)?.1);
            written += 1;
        }
    }
    Ok((written, trace))
}

fn acknowledge(
    connection: &mut AnyConnection,
    id: AlertId,
    note: Option<String>,
    entry: &AuditEntry,
) -> Result<(Alert, Trace), Failure> {
    let verdict = load(connection, id)?.acknowledged(&entry.actor, note, entry.created_at)?;
    write(connection, &verdict, entry)
}

fn list(connection: &mut AnyConnection, filter: &AlertFilter, page: &PageRequest) -> Result<Page<Alert>, Failure> {
    macro_rules! matching {
        () => {{
            let mut query = alerts::table.into_boxed();
            if !filter.states.is_empty() {
                let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
                query = query.filter(alerts::state.eq_any(states));
            }
            if let Some(severity) = filter.severity {
                query = query.filter(alerts::severity.eq(severity.as_str()));
            }
            if let Some(rule) = filter.rule_id {
                query = query.filter(alerts::rule_id.eq(rule.0));
            }
            let server = filter.server_id.map(|id| (SubjectKind::Server, id.0));
            for (kind, id) in server.into_iter().chain(filter.pool_id.map(|id| (SubjectKind::Pool, id.0))) {
                query = query.filter(alerts::subject_kind.eq(kind.as_str()).and(alerts::subject_id.eq(id)));
            }
            query
        }};
    }
    let (rows, total): (Vec<Row>, _) = newest_first!(connection, page, alerts::id, matching!());
    Ok(paging::page(converted(rows)?, page, total, "-id", |alert| alert.id.0))
}

fn history(connection: &mut AnyConnection, id: AlertId) -> Result<Vec<AlertChange>, Failure> {
    let rows: Vec<ChangeRow> =
        changes::table.filter(changes::alert_id.eq(id.0)).order(changes::number.asc()).load(connection)?;
    rows.into_iter().map(AlertChange::try_from).collect()
}

/// A step: alerts that ended long ago go with all that is about them.
fn forget(connection: &mut AnyConnection, before: Timestamp, unfired: Timestamp) -> Result<usize, Failure> {
    let old = alerts::ended_at_us.lt(to_us(before));
    let never = alerts::ended_at_us.lt(to_us(unfired)).and(alerts::fired_at_us.is_null());
    let ids: Vec<i64> =
        alerts::table.filter(old.or(never)).order(alerts::id.asc()).limit(STEP).select(alerts::id).load(connection)?;
    rows::forget(connection, &ids)?;
    Ok(ids.len())
}

/// The alerts in the database.
pub struct DieselAlerts {
    database: Database,
}

impl DieselAlerts {
    /// The alerts of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Alerts for DieselAlerts {
    async fn open(&self) -> Result<Vec<Alert>> {
        self.database.read(open).await
    }

    async fn settle(&self, verdicts: Vec<Verdict>, by: AuditEntry) -> Result<usize> {
        self.database.submit(move |connection| settle(connection, &verdicts, &by)).await
    }

    async fn list(&self, filter: AlertFilter, page: PageRequest) -> Result<Page<Alert>> {
        self.database.read(move |connection| list(connection, &filter, &page)).await
    }

    async fn get(&self, id: AlertId) -> Result<Alert> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn history(&self, id: AlertId) -> Result<Vec<AlertChange>> {
        self.database.read(move |connection| history(connection, id)).await
    }

    async fn acknowledge(&self, id: AlertId, note: Option<String>, change: Change) -> Result<Done<Alert>> {
        self.database.write(change, move |connection, entry| acknowledge(connection, id, note.clone(), &entry)).await
    }

    async fn forget(&self, before: Timestamp, unfired: Timestamp) -> Result<usize> {
        let mut forgotten = 0;
        loop {
            match self.database.write_silently(move |connection| forget(connection, before, unfired)).await? {
                0 => return Ok(forgotten),
                step => forgotten += step,
            }
        }
    }
}
