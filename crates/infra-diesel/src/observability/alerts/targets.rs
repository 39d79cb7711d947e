//! Who is told of alerts: one row each. What it takes to reach them has a column of its own, which stands in nothing that
//! is recorded or kept as an answer.

use super::rules;
use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::{Failure, Kind},
    paging::{self, newest_first},
    schema::{alert_deliveries as deliveries, alert_targets as targets},
    values::{from_json, from_us, to_json, to_us},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done},
    ids::TargetId,
    observability::alerts::{AlertTargets, NewTarget, Target, TargetSecret, TargetSpec},
    page::{Page, PageRequest},
    text::Name,
};

#[derive(Queryable)]
pub(super) struct Row {
    id: i64,
    name: String,
    _kind: String,
    enabled: bool,
    spec: String,
    secret: Option<String>,
    revision: i64,
    created_by: String,
    created_at_us: i64,
    updated_at_us: i64,
}

impl Row {
    pub(super) fn secret(&self) -> Result<TargetSecret, Failure> {
        self.secret.as_deref().map_or_else(|| Ok(TargetSecret::default()), from_json)
    }
}

impl TryFrom<Row> for Target {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        Ok(Self {
            id: TargetId(row.id),
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

/// What changes of a target, as columns; inserted and updated alike.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = targets)]
struct Columns {
    name: String,
    kind: &'static str,
    enabled: bool,
    spec: String,
    secret: String,
    revision: i64,
    updated_at_us: i64,
}

impl Columns {
    fn of(target: &Target, secret: &TargetSecret) -> Result<Self, Failure> {
        let kind = match target.spec {
            TargetSpec::Webhook { .. } => "webhook",
            TargetSpec::Slack { .. } => "slack",
            TargetSpec::Email { .. } => "email",
        };
        Ok(Self {
            name: target.name.as_str().to_owned(),
            kind,
            enabled: target.enabled,
            spec: to_json(&target.spec)?,
            secret: to_json(secret)?,
            revision: target.revision,
            updated_at_us: to_us(target.updated_at),
        })
    }
}

fn name_taken(target: &Target) -> impl FnOnce() -> Error {
    let name = target.name.clone();
    move || {
        Error::conflict("name_taken", format!("there is an alert target named \"{name}\" already; choose another name"))
    }
}

fn row(connection: &mut AnyConnection, id: TargetId) -> Result<Row, Failure> {
    let row: Option<Row> = targets::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Error::not_found("alert target", id).into())
}

fn reach(connection: &mut AnyConnection, id: TargetId) -> Result<(Target, TargetSecret), Failure> {
    let row = row(connection, id)?;
    let secret = row.secret()?;
    Ok((row.try_into()?, secret))
}

/// Refuses unless the row is at the revision that the change was computed from.
fn guard(connection: &mut AnyConnection, id: TargetId, revision: i64) -> Result<(), Failure> {
    let current = row(connection, id)?.revision;
    if current == revision {
        return Ok(());
    }
    Err(Error::Stale { what: format!("alert target {id}"), current }.into())
}

fn create(connection: &mut AnyConnection, new: NewTarget, entry: AuditEntry) -> Result<(Target, AuditEntry), Failure> {
    let secret = new.secret.clone();
    let target = new.into_target(TargetId(0), entry.actor.clone(), entry.created_at);
    let id: i64 = diesel::insert_into(targets::table)
        .values((
            Columns::of(&target, &secret)?,
            targets::created_by.eq(&target.created_by),
            targets::created_at_us.eq(to_us(target.created_at)),
        ))
        .returning(targets::id)
        .get_result(connection)
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(&target)))?;
    let target = Target { id: TargetId(id), ..target };
    let entry = entry.created(&target);
    Ok((target, entry))
}

fn change(connection: &mut AnyConnection, target: &Target, secret: &TargetSecret) -> Result<(), Failure> {
    guard(connection, target.id, target.revision - 1)?;
    let set = Columns::of(target, secret)?;
    update!(connection, diesel::update(targets::table.find(target.id.0)).set(set))
        .map_err(|error| Failure::from(error).when(Kind::Unique, name_taken(target)))?;
    Ok(())
}

fn delete(connection: &mut AnyConnection, target: &Target, entry: &AuditEntry) -> Result<(), Failure> {
    guard(connection, target.id, target.revision)?;
    let told = rules::all(connection)?.into_iter().filter(|rule| rule.spec.target_ids.contains(&target.id));
    let names: Vec<String> = told.map(|rule| format!("\"{}\"", rule.name)).take(4).collect();
    if !names.is_empty() {
        let reason = format!(
            "target \"{}\" is told of alerts by {}; take it out of target_ids there first",
            target.name,
            names.join(", ")
        );
        return Err(Error::conflict("target_in_use", reason).into());
    }
    give_up(connection, target.id, entry.created_at)?;
    diesel::delete(targets::table.find(target.id.0)).execute(connection)?;
    Ok(())
}

/// What is on its way to a target is not tried any more.
pub(super) fn give_up(
    connection: &mut AnyConnection,
    target: TargetId,
    now: domain::clock::Timestamp,
) -> Result<(), Failure> {
    let pending =
        deliveries::table.filter(deliveries::target_id.eq(target.0)).filter(deliveries::due_at_us.is_not_null());
    let set = (
        deliveries::state.eq("failed"),
        deliveries::due_at_us.eq(None::<i64>),
        deliveries::finished_at_us.eq(Some(to_us(now))),
    );
    diesel::update(pending).set(set).execute(connection)?;
    Ok(())
}

fn list(connection: &mut AnyConnection, page: &PageRequest) -> Result<Page<Target>, Failure> {
    let (rows, total): (Vec<Row>, _) = newest_first!(connection, page, targets::id, targets::table.into_boxed());
    let found = rows.into_iter().map(Target::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(paging::page(found, page, total, "-id", |target| target.id.0))
}

/// The targets in the database.
pub struct DieselAlertTargets {
    database: Database,
}

impl DieselAlertTargets {
    /// The targets of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl AlertTargets for DieselAlertTargets {
    async fn create(&self, target: NewTarget, change: Change) -> Result<Done<Target>> {
        self.database.write(change, move |connection, entry| create(connection, target.clone(), entry)).await
    }

    async fn list(&self, page: PageRequest) -> Result<Page<Target>> {
        self.database.read(move |connection| list(connection, &page)).await
    }

    async fn get(&self, id: TargetId) -> Result<Target> {
        self.database.read(move |connection| row(connection, id)?.try_into()).await
    }

    async fn reach(&self, id: TargetId) -> Result<(Target, TargetSecret)> {
        self.database.read(move |connection| reach(connection, id)).await
    }

    async fn update(&self, target: Target, secret: TargetSecret, change: Change) -> Result<Done<Target>> {
        self.database
            .write(change, move |connection, entry| {
                self::change(connection, &target, &secret)?;
                Ok((target.clone(), entry))
            })
            .await
    }

    async fn delete(&self, target: Target, change: Change) -> Result<Done<()>> {
        self.database
            .write(change, move |connection, entry| {
                delete(connection, &target, &entry)?;
                Ok(((), entry))
            })
            .await
    }
}
