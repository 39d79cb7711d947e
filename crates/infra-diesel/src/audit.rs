//! The audit log: rows that are only ever appended, the head that numbers them, and checkpoints for pruned ones.

use crate::{
    connection::{AnyConnection, insert_all, update},
    database::Database,
    failure::Failure,
    paging::{self, newest_first},
    schema::{audit_checkpoints, audit_head, audit_logs},
    values::{from_us, sought, to_us},
};
use async_trait::async_trait;
use diesel::{connection::SimpleConnection, prelude::*};
use domain::{
    Error, Result,
    audit::{
        AuditEntry, AuditFilter, AuditLog, AuditRow, ChainVerifier, Checkpoint, Head, HeadMark, MarkKind, Seal,
        StoredRow, Verification,
    },
    change::Change,
    clock::Timestamp,
    page::{Page, PageRequest},
};

/// Rows that a check of the chain holds in memory at a time.
const STEP: i64 = 2000;

#[derive(Insertable, Queryable)]
#[diesel(table_name = audit_logs)]
#[diesel(treat_none_as_default_value = false)]
struct Row {
    seq: i64,
    created_at_us: i64,
    actor: String,
    action: String,
    target: Option<String>,
    outcome: String,
    canonical: String,
    hash: String,
}

impl From<StoredRow> for Row {
    fn from(row: StoredRow) -> Self {
        Self {
            seq: row.seq,
            created_at_us: to_us(row.created_at),
            actor: row.actor,
            action: row.action,
            target: row.target,
            outcome: row.outcome,
            canonical: row.canonical,
            hash: row.hash,
        }
    }
}

impl From<Row> for StoredRow {
    fn from(row: Row) -> Self {
        Self {
            seq: row.seq,
            // A time out of range was not written by us; it differs from the sealed text, which is what is reported.
            created_at: from_us(row.created_at_us).unwrap_or_default(),
            actor: row.actor,
            action: row.action,
            target: row.target,
            outcome: row.outcome,
            canonical: row.canonical,
            hash: row.hash,
        }
    }
}

/// Numbers, seals and inserts the entries after `head`, which is as [`lock_head`] gave it in this transaction.
pub(crate) fn append(
    connection: &mut AnyConnection,
    seal: &Seal,
    mut head: Head,
    entries: &[AuditEntry],
) -> Result<Head, Failure> {
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        let row = seal.row(&head, entry);
        head = Head { seq: row.seq, hash: row.hash.clone() };
        rows.push(Row::from(row));
    }
    insert_all!(connection, audit_logs::table, &rows);
    let set = (audit_head::seq.eq(head.seq), audit_head::hash.eq(&head.hash));
    update!(connection, diesel::update(audit_head::table.find(1_i64)).set(set))?;
    Ok(head)
}

/// The last row, which nobody else changes until the transaction ends.
pub(crate) fn lock_head(connection: &mut AnyConnection) -> Result<Head, Failure> {
    let query = audit_head::table.find(1_i64).select((audit_head::seq, audit_head::hash));
    let (seq, hash) = match connection {
        // BEGIN IMMEDIATE has locked the whole database.
        AnyConnection::Sqlite(c) => query.first(c)?,
        AnyConnection::Postgresql(c) => query.for_update().first(c)?,
    };
    Ok(Head { seq, hash })
}

/// The last row at this moment.
pub(crate) fn read_head(connection: &mut AnyConnection) -> Result<Head, Failure> {
    let (seq, hash) = audit_head::table.find(1_i64).select((audit_head::seq, audit_head::hash)).first(connection)?;
    Ok(Head { seq, hash })
}

fn read_checkpoint(connection: &mut AnyConnection) -> Result<Option<Checkpoint>, Failure> {
    let row: Option<(i64, String, i64, String)> =
        audit_checkpoints::table.order(audit_checkpoints::seq.desc()).first(connection).optional()?;
    row.map(|(seq, hash, created_at_us, mac)| {
        Ok(Checkpoint { head: Head { seq, hash }, created_at: from_us(created_at_us)?, mac })
    })
    .transpose()
}

/// The log in the database.
pub struct DieselAuditLog {
    database: Database,
}

impl DieselAuditLog {
    /// The log of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

/// The rows that match a filter, as a boxed query.
macro_rules! matching {
    ($filter:expr) => {{
        let filter: &AuditFilter = $filter;
        let mut query = audit_logs::table.into_boxed();
        if let Some(actor) = &filter.actor {
            query = query.filter(audit_logs::actor.eq(sought(actor)));
        }
        match filter.action.as_deref().map(sought) {
            Some(noun) if noun.ends_with('.') => {
                let last = format!("{noun}\u{7f}");
                query = query.filter(audit_logs::action.between(noun, last));
            }
            Some(action) => query = query.filter(audit_logs::action.eq(action)),
            None => {}
        }
        if let Some(target) = &filter.target {
            query = query.filter(audit_logs::target.eq(sought(target)));
        }
        if let Some(outcome) = filter.outcome {
            query = query.filter(audit_logs::outcome.eq(outcome.as_str()));
        }
        if let Some(from) = filter.from {
            query = query.filter(audit_logs::created_at_us.ge(to_us(from)));
        }
        if let Some(to) = filter.to {
            query = query.filter(audit_logs::created_at_us.lt(to_us(to)));
        }
        query
    }};
}

#[async_trait]
impl AuditLog for DieselAuditLog {
    async fn record(&self, entry: AuditEntry) -> Result<()> {
        self.database.write(entry.into(), |_, entry| Ok(((), Some(entry)))).await.map(|done| done.value)
    }

    async fn list(&self, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditRow>> {
        self.database
            .read(move |connection| {
                let (rows, total): (Vec<Row>, _) = newest_first!(connection, page, audit_logs::seq, matching!(&filter));
                let rows = rows.into_iter().map(|row| StoredRow::from(row).read()).collect::<Result<Vec<_>>>()?;
                Ok(paging::page(rows, &page, total, "-seq", |row| row.seq))
            })
            .await
    }

    async fn after(&self, filter: AuditFilter, seq: i64, limit: u16) -> Result<Vec<AuditRow>> {
        self.database
            .read(move |connection| {
                let query = matching!(&filter).filter(audit_logs::seq.gt(seq));
                let rows: Vec<Row> = query.order(audit_logs::seq.asc()).limit(i64::from(limit)).load(connection)?;
                Ok(rows.into_iter().map(|row| StoredRow::from(row).read()).collect::<Result<Vec<_>>>()?)
            })
            .await
    }

    async fn head(&self) -> Result<Head> {
        self.database.read(read_head).await
    }

    async fn verify(&self, marks: Vec<HeadMark>) -> Result<Verification> {
        let seal = self.database.seal().clone();
        let written = self.database.written();
        self.database.read(move |connection| verify_snapshot(connection, &seal, marks.clone(), written.clone())).await
    }

    async fn prune(&self, before: Timestamp, entry: AuditEntry) -> Result<i64> {
        let seal = self.database.seal().clone();
        let work = move |connection: &mut AnyConnection, entry: AuditEntry| prune(connection, &seal, before, entry);
        self.database.write(Change::from(entry), work).await.map(|done| done.value)
    }
}

/// Checks the chain against one view of the database that later writes do not change.
fn verify_snapshot(
    connection: &mut AnyConnection,
    seal: &Seal,
    marks: Vec<HeadMark>,
    written: Option<HeadMark>,
) -> Result<Verification, Failure> {
    let begin = match connection {
        AnyConnection::Sqlite(_) => "BEGIN",
        AnyConnection::Postgresql(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    };
    connection.batch_execute(begin)?;
    let outcome = verify(connection, seal, marks, written);
    connection.batch_execute("ROLLBACK")?;
    outcome
}

fn verify(
    connection: &mut AnyConnection,
    seal: &Seal,
    mut marks: Vec<HeadMark>,
    written: Option<HeadMark>,
) -> Result<Verification, Failure> {
    let head = read_head(connection)?;
    // What this process wrote itself is as good as a line in the head file that is due within the minute, unless a
    // restore replaced it since.
    let restored = marks.iter().rfind(|mark| mark.kind == MarkKind::Restore).map(|mark| mark.at);
    marks.extend(written.filter(|written| restored.is_none_or(|restored| written.at > restored)));
    let checkpoint = read_checkpoint(connection)?;
    let mut at = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.head.seq);
    // A row below the checkpoint would be one that was put back or made up; it is met first, and out of order.
    let lowest: Option<i64> = audit_logs::table.select(diesel::dsl::min(audit_logs::seq)).first(connection)?;
    at = at.min(lowest.map_or(at, |seq| seq - 1));
    let mut verifier = ChainVerifier::new(seal.clone(), checkpoint.as_ref(), marks);
    while !verifier.is_broken() {
        let rows: Vec<Row> = audit_logs::table
            .filter(audit_logs::seq.gt(at))
            .order(audit_logs::seq.asc())
            .limit(STEP)
            .load(connection)?;
        let Some(last) = rows.last() else { break };
        at = last.seq;
        for row in rows {
            verifier.push(&row.into());
        }
    }
    Ok(verifier.finish(head))
}

/// The value is how many rows went.
fn prune(
    connection: &mut AnyConnection,
    seal: &Seal,
    before: Timestamp,
    entry: AuditEntry,
) -> Result<(i64, Option<AuditEntry>), Failure> {
    let head = lock_head(connection)?;
    // Times need not be in order (clocks are set back), so the first row that stays decides, not the last that is old.
    let first_kept: Option<i64> = audit_logs::table
        .filter(audit_logs::created_at_us.ge(to_us(before)))
        .select(diesel::dsl::min(audit_logs::seq))
        .first(connection)?;
    let up_to = first_kept.unwrap_or(head.seq) - 1;
    let hash: Option<String> = audit_logs::table.find(up_to).select(audit_logs::hash).first(connection).optional()?;
    let Some(hash) = hash else { return Ok((0, None)) };
    let gone = diesel::delete(audit_logs::table.filter(audit_logs::seq.le(up_to))).execute(connection)?;
    let gone = i64::try_from(gone).map_err(Error::internal)?;
    let checkpoint = seal.checkpoint(Head { seq: up_to, hash }, entry.created_at);
    diesel::delete(audit_checkpoints::table).execute(connection)?;
    diesel::insert_into(audit_checkpoints::table)
        .values((
            audit_checkpoints::seq.eq(checkpoint.head.seq),
            audit_checkpoints::hash.eq(&checkpoint.head.hash),
            audit_checkpoints::created_at_us.eq(to_us(checkpoint.created_at)),
            audit_checkpoints::mac.eq(&checkpoint.mac),
        ))
        .execute(connection)?;
    Ok((gone, Some(entry.because(format!("{gone} rows up to row {up_to} were older than the retention allows")))))
}
