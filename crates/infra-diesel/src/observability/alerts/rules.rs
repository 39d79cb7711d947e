//! Rules that make alerts: one row each; what a rule says is JSON, which nothing but the domain reads.

use super::end_of;
use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::{Failure, Kind},
    feed::Trace,
    paging::{self, newest_first},
    pools,
    schema::{alert_rules as rules, alert_targets as targets},
    values::{from_json, from_us, to_json, to_us},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done},
    error::Checks,
    ids::RuleId,
    observability::alerts::{AlertReason, AlertRules, NewRule, Rule, RuleSpec},
    page::{Page, PageRequest},
    text::Name,
};

#[derive(Queryable)]
struct Row {
    id: i64,
    name: String,
    enabled: bool,
    spec: String,
    revision: i64,
    created_by: String,
    created_at_us: i64,
    updated_at_us: i64,
}

impl TryFrom<Row> for Rule {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        Ok(Self {
            id: RuleId(row.id),
            name: Name::trusted(row.name),
            enabled: row.enabled,
            spec: from_json(&row.spec)?,
            revision: row.revision,
            created_by: row.created_by,
            created_at: from_us(row.created_at_us)?,
            updated_at: from_us(row.updated_at_us)?,
        })
    }
}

/// What changes of a rule, as columns; inserted and updated alike.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = rules)]
struct Columns {
    name: String,
    enabled: bool,
    spec: String,
    revision: i64,
    updated_at_us: i64,
}

impl TryFrom<&Rule> for Columns {
    type Error = Failure;

    fn try_from(rule: &Rule) -> Result<Self, Failure> {
        Ok(Self {
            name: rule.name.as_str().to_owned(),
            enabled: rule.enabled,
            spec: to_json(&rule.spec)?,
            revision: rule.revision,
            updated_at_us: to_us(rule.updated_at),
        })
    }
}

fn name_taken(rule: &Rule) -> impl FnOnce() -> Error {
    let name = rule.name.clone();
    move || {
        Error::conflict("name_taken", format!("there is an alert rule named \"{name}\" already; choose another name"))
    }
}

fn converted(rows: Vec<Row>) -> Result<Vec<Rule>, Failure> {
    rows.into_iter().map(Rule::try_from).collect()
}

pub(super) fn all(connection: &mut AnyConnection) -> Result<Vec<Rule>, Failure> {
    converted(rules::table.order(rules::id.asc()).load(connection)?)
}

fn load(connection: &mut AnyConnection, id: RuleId) -> Result<Rule, Failure> {
    let row: Option<Row> = rules::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found("alert rule", id)))?.try_into()
}

/// Refuses unless the row is at the revision that the change was computed from.
fn guard(connection: &mut AnyConnection, id: RuleId, revision: i64) -> Result<Rule, Failure> {
    let rule = load(connection, id)?;
    if rule.revision == revision {
        return Ok(rule);
    }
    Err(Error::Stale { what: format!("alert rule {id}"), current: rule.revision }.into())
}

/// Refuses what a rule refers to and did not before, where there is no such thing.
fn check_there(connection: &mut AnyConnection, spec: &RuleSpec, before: Option<&RuleSpec>) -> Result<(), Failure> {
    let mut checks = Checks::default();
    let pool = spec.selector.pool_id.filter(|pool| before.and_then(|spec| spec.selector.pool_id) != Some(*pool));
    if let Some(pool) = pool
        && !pools::is_there(connection, pool)?
    {
        checks.note("selector.pool_id", format!("there is no pool {pool}"));
    }
    for target in &spec.target_ids {
        let known = before.is_some_and(|before| before.target_ids.contains(target));
        let found = diesel::dsl::exists(targets::table.find(target.0));
        if !known && !diesel::select(found).get_result::<bool>(connection)? {
            checks.note("target_ids", format!("there is no target {target}"));
        }
    }
    Ok(checks.finish()?)
}

fn create(connection: &mut AnyConnection, new: NewRule, entry: AuditEntry) -> Result<(Rule, Trace), Failure> {
    check_there(connection, &new.spec, None)?;
    let rule = new.into_rule(RuleId(0), entry.actor.clone(), entry.created_at);
    let id: i64 = diesel::insert_into(rules::table)
        .values((
            Columns::try_from(&rule)?,
            rules::created_by.eq(&rule.created_by),
            rules::created_at_us.eq(to_us(rule.created_at)),
        ))
        .returning(rules::id)
        .get_result(connection)
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(&rule)))?;
    let rule = Rule { id: RuleId(id), ..rule };
    let trace = entry.created(&rule).into();
    Ok((rule, trace))
}

fn change(connection: &mut AnyConnection, rule: &Rule, entry: AuditEntry) -> Result<(Rule, Trace), Failure> {
    let before = guard(connection, rule.id, rule.revision - 1)?;
    check_there(connection, &rule.spec, Some(&before.spec))?;
    update!(connection, diesel::update(rules::table.find(rule.id.0)).set(Columns::try_from(rule)?))
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(rule)))?;
    let ended = match before.ends(Some(rule)) {
        Some(reason) => end_of(connection, rule.id, reason, &before, &entry)?,
        None => Trace::default(),
    };
    let mut trace = Trace::from(entry);
    trace.append(ended);
    Ok((rule.clone(), trace))
}

fn delete(connection: &mut AnyConnection, rule: &Rule, entry: AuditEntry) -> Result<Trace, Failure> {
    guard(connection, rule.id, rule.revision)?;
    let reason = rule.ends(None).unwrap_or(AlertReason::RuleDeleted);
    let ended = end_of(connection, rule.id, reason, rule, &entry)?;
    diesel::delete(rules::table.find(rule.id.0)).execute(connection)?;
    let mut trace = Trace::from(entry);
    trace.append(ended);
    Ok(trace)
}

fn list(connection: &mut AnyConnection, page: &PageRequest) -> Result<Page<Rule>, Failure> {
    let (rows, total): (Vec<Row>, _) = newest_first!(connection, page, rules::id, rules::table.into_boxed());
    Ok(paging::page(converted(rows)?, page, total, "-id", |rule| rule.id.0))
}

/// The rules in the database.
pub struct DieselAlertRules {
    database: Database,
}

impl DieselAlertRules {
    /// The rules of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl AlertRules for DieselAlertRules {
    async fn create(&self, rule: NewRule, change: Change) -> Result<Done<Rule>> {
        self.database.write(change, move |connection, entry| create(connection, rule.clone(), entry)).await
    }

    async fn list(&self, page: PageRequest) -> Result<Page<Rule>> {
        self.database.read(move |connection| list(connection, &page)).await
    }

    async fn all(&self) -> Result<Vec<Rule>> {
        self.database.read(all).await
    }

    async fn get(&self, id: RuleId) -> Result<Rule> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn update(&self, rule: Rule, change: Change) -> Result<Done<Rule>> {
        self.database.write(change, move |connection, entry| self::change(connection, &rule, entry)).await
    }

    async fn delete(&self, rule: Rule, change: Change) -> Result<Done<()>> {
        self.database.write(change, move |connection, entry| Ok(((), delete(connection, &rule, entry)?))).await
    }
}
