//! Messages to targets: a row each, written with the change that they tell of, and one for each try.
//!
//! Whoever sends one has it to himself for a while; if nothing is heard of it by then, it is tried again. So a message is
//! sent at least once, also where a process ends in the middle.

use super::targets::{Row as TargetRow, give_up};
use crate::{
    connection::AnyConnection,
    database::Database,
    failure::Failure,
    schema::{alert_deliveries as deliveries, alert_targets as targets, alert_tries as tries_table},
    values::{corrupt, from_json, from_us, to_json, to_us, word},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done},
    clock::Timestamp,
    ids::{AlertId, DeliveryId, TargetId},
    observability::alerts::{Deliveries, Delivery, DeliveryState, Errand, Message, MessageKind, Target, Try},
};

#[derive(Queryable)]
struct Row {
    id: i64,
    alert_id: Option<i64>,
    target_id: i64,
    target_name: String,
    event: String,
    message: String,
    state: String,
    tries: i64,
    due_at_us: Option<i64>,
    created_at_us: i64,
    finished_at_us: Option<i64>,
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = tries_table)]
#[diesel(treat_none_as_default_value = false)]
struct TryRow {
    delivery_id: i64,
    number: i64,
    at_us: i64,
    status: Option<i64>,
    error: Option<String>,
}

impl TryFrom<TryRow> for Try {
    type Error = Failure;

    fn try_from(row: TryRow) -> Result<Self, Failure> {
        let status = row.status.map(u16::try_from).transpose().map_err(|error| corrupt(error.to_string()))?;
        Ok(Self { at: from_us(row.at_us)?, status, error: row.error })
    }
}

impl Row {
    fn with_tries(self, tries: Vec<Try>) -> Result<Delivery, Failure> {
        Ok(Delivery {
            id: DeliveryId(self.id),
            alert_id: self.alert_id.map(AlertId),
            target_id: TargetId(self.target_id),
            target_name: self.target_name,
            event: word(&self.event, MessageKind::parse)?,
            state: word(&self.state, DeliveryState::parse)?,
            due_at: self.due_at_us.map(from_us).transpose()?,
            created_at: from_us(self.created_at_us)?,
            finished_at: self.finished_at_us.map(from_us).transpose()?,
            tries,
        })
    }
}

fn complete(connection: &mut AnyConnection, rows: Vec<Row>) -> Result<Vec<Delivery>, Failure> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let tries: Vec<TryRow> = tries_table::table
            .filter(tries_table::delivery_id.eq(row.id))
            .order(tries_table::number.asc())
            .load(connection)?;
        let tries = tries.into_iter().map(Try::try_from).collect::<Result<Vec<_>, _>>()?;
        found.push(row.with_tries(tries)?);
    }
    Ok(found)
}

fn is_due(connection: &mut AnyConnection, now: Timestamp) -> Result<bool, Failure> {
    let due = deliveries::table.filter(deliveries::due_at_us.le(to_us(now)));
    Ok(diesel::select(diesel::dsl::exists(due)).get_result(connection)?)
}

fn claim(
    connection: &mut AnyConnection,
    now: Timestamp,
    until: Timestamp,
    most: usize,
) -> Result<Vec<Errand>, Failure> {
    let limit = i64::try_from(most).map_err(|error| corrupt(error.to_string()))?;
    let due: Vec<Row> = deliveries::table
        .filter(deliveries::due_at_us.le(to_us(now)))
        .order((deliveries::due_at_us.asc(), deliveries::id.asc()))
        .limit(limit)
        .load(connection)?;
    let mut errands = Vec::with_capacity(due.len());
    for row in due {
        let target: Option<TargetRow> =
            targets::table.find(row.target_id).filter(targets::enabled.eq(true)).first(connection).optional()?;
        let Some(target) = target else {
            give_up(connection, TargetId(row.target_id), now)?;
            continue;
        };
        diesel::update(deliveries::table.find(row.id))
            .set(deliveries::due_at_us.eq(Some(to_us(until))))
            .execute(connection)?;
        let secret = target.secret()?;
        errands.push(Errand {
            id: DeliveryId(row.id),
            created_at: from_us(row.created_at_us)?,
            tries: u32::try_from(row.tries).map_err(|error| corrupt(error.to_string()))?,
            message: from_json(&row.message)?,
            spec: Target::try_from(target)?.spec,
            secret,
        });
    }
    Ok(errands)
}

fn tried(
    connection: &mut AnyConnection,
    id: DeliveryId,
    one: &Try,
    state: DeliveryState,
    due_at: Option<Timestamp>,
) -> Result<(), Failure> {
    let row = deliveries::table.find(id.0).select(deliveries::tries);
    let before: Option<i64> = row.first(connection).optional()?;
    let Some(before) = before else { return Ok(()) };
    let number = before + 1;
    let row = TryRow {
        delivery_id: id.0,
        number,
        at_us: to_us(one.at),
        status: one.status.map(i64::from),
        error: one.error.clone(),
    };
    diesel::insert_into(tries_table::table).values(row).execute(connection)?;
    diesel::update(deliveries::table.find(id.0))
        .set((
            deliveries::tries.eq(number),
            deliveries::state.eq(state.as_str()),
            deliveries::due_at_us.eq(due_at.map(to_us)),
            deliveries::finished_at_us.eq(due_at.is_none().then(|| to_us(one.at))),
        ))
        .execute(connection)?;
    Ok(())
}

fn begin(
    connection: &mut AnyConnection,
    target: &Target,
    message: &Message,
    until: Timestamp,
    entry: AuditEntry,
) -> Result<(DeliveryId, AuditEntry), Failure> {
    let id: i64 = diesel::insert_into(deliveries::table)
        .values((
            deliveries::target_id.eq(target.id.0),
            deliveries::target_name.eq(target.name.as_str()),
            deliveries::event.eq(message.event.as_str()),
            deliveries::message.eq(to_json(message)?),
            deliveries::state.eq("pending"),
            deliveries::tries.eq(0_i64),
            deliveries::due_at_us.eq(to_us(until)),
            deliveries::created_at_us.eq(to_us(entry.created_at)),
        ))
        .returning(deliveries::id)
        .get_result(connection)?;
    let told = serde_json::json!({ "delivery_id": id });
    let entry = AuditEntry { target: Some(domain::change::Recorded::target(target)), after: Some(told), ..entry };
    Ok((DeliveryId(id), entry))
}

/// The messages in the database.
pub struct DieselDeliveries {
    database: Database,
}

impl DieselDeliveries {
    /// The messages of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Deliveries for DieselDeliveries {
    async fn is_due(&self, now: Timestamp) -> Result<bool> {
        self.database.read(move |connection| is_due(connection, now)).await
    }

    async fn claim(&self, now: Timestamp, until: Timestamp, most: usize) -> Result<Vec<Errand>> {
        self.database.write_silently(move |connection| claim(connection, now, until, most)).await
    }

    async fn tried(&self, id: DeliveryId, one: Try, state: DeliveryState, due_at: Option<Timestamp>) -> Result<()> {
        self.database.write_silently(move |connection| tried(connection, id, &one, state, due_at)).await
    }

    async fn begin(
        &self,
        target: Target,
        message: Message,
        until: Timestamp,
        change: Change,
    ) -> Result<Done<DeliveryId>> {
        self.database.write(change, move |connection, entry| begin(connection, &target, &message, until, entry)).await
    }

    async fn get(&self, id: DeliveryId) -> Result<Delivery> {
        self.database
            .read(move |connection| {
                let row: Option<Row> = deliveries::table.find(id.0).first(connection).optional()?;
                let row = row.ok_or_else(|| Failure::from(Error::not_found("delivery", id)))?;
                let found = complete(connection, vec![row])?.pop();
                found.ok_or_else(|| Error::not_found("delivery", id).into())
            })
            .await
    }

    async fn of_alert(&self, id: AlertId) -> Result<Vec<Delivery>> {
        self.database
            .read(move |connection| {
                let of_alert = deliveries::table.filter(deliveries::alert_id.eq(id.0)).order(deliveries::id.asc());
                let rows: Vec<Row> = of_alert.load(connection)?;
                complete(connection, rows)
            })
            .await
    }
}
