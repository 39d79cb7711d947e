use super::{
    chain::Verification,
    events::{RESTORE, goes_on},
    model::{AuditEntry, AuditFilter, AuditRow, Head, HeadMark, MarkKind, Outcome, Refusal},
    ports::{AuditLog, HeadFile},
    refusals::{RefusalMeter, Verdict},
};
use crate::{
    Result,
    clock::{Clock, Timestamp},
    identity::{Actor, Operation},
    page::{Page, PageRequest},
};
use chrono::TimeDelta;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that an export or a watcher reads at a time.
const STEP: u16 = 1000;
/// A log without a noted head is told when its first row is older than this: heads are noted when the server has started
/// and each minute, so a younger log may just have been begun.
const UNNOTED: TimeDelta = TimeDelta::minutes(1);

/// Reads, checks and prunes the log, and records refusals.
pub struct AuditService {
    log: Arc<dyn AuditLog>,
    heads: Arc<dyn HeadFile>,
    clock: Arc<dyn Clock>,
    meter: Mutex<RefusalMeter>,
    noted: Mutex<Head>,
}

impl AuditService {
    /// A service over these ports.
    #[must_use]
    pub fn new(log: Arc<dyn AuditLog>, heads: Arc<dyn HeadFile>, clock: Arc<dyn Clock>) -> Self {
        Self { log, heads, clock, meter: Mutex::default(), noted: Mutex::default() }
    }

    /// Rows, newest first.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] if the actor may not read the log.
    pub async fn audit_log_list(
        &self,
        actor: &Actor,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditRow>> {
        actor.authorize(Operation::AuditLogList)?;
        self.log.list(filter, page).await
    }

    /// Checks the whole chain, down to the heads noted outside the database.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] if the actor may not. A broken chain is no error but a finding.
    pub async fn audit_verify(&self, actor: &Actor) -> Result<Verification> {
        actor.authorize(Operation::AuditVerify)?;
        self.verify().await
    }

    /// What [`Self::audit_verify`] finds, for the start of the server.
    ///
    /// # Errors
    /// If the database or the head file cannot be read.
    pub async fn verify(&self) -> Result<Verification> {
        let marks = self.heads.read().await?;
        self.log.verify(marks).await
    }

    /// Whether the actor may export the log.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] if not.
    pub fn audit_export(&self, actor: &Actor) -> Result<()> {
        actor.authorize(Operation::AuditExport)
    }

    /// The next part of an export, oldest first, after row `seq`; empty at the end.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn export_step(&self, filter: AuditFilter, seq: i64) -> Result<Vec<AuditRow>> {
        self.log.after(filter, seq, STEP).await
    }

    /// Whether the actor may watch changes.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] if not.
    pub fn event_stream(&self, actor: &Actor) -> Result<()> {
        actor.authorize(Operation::EventStream)
    }

    /// The rows that a watcher who has read up to `place` has not seen, and its place after them. Where a restore has
    /// put another log in the place of the one that was read, these are the rows from that restore on.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn event_step(&self, place: &Head) -> Result<(Vec<AuditRow>, Head)> {
        // The row at the place is read once more: its hash tells whether this is still the same log.
        let mut rows = self.log.after(AuditFilter::default(), place.seq - 1, STEP).await?;
        if goes_on(place, &rows) {
            let next = rows.last().map_or_else(|| place.clone(), place_of);
            rows.retain(|row| row.seq > place.seq);
            return Ok((rows, next));
        }
        let restores = AuditFilter { action: Some(RESTORE.to_owned()), ..AuditFilter::default() };
        let last = self.log.list(restores, PageRequest { limit: 1, after: None }).await?;
        // A copy of the files that was put there by hand has no such row; nobody can tell what is new in it.
        let Some(restore) = last.items.first() else { return Ok((Vec::new(), self.log.head().await?)) };
        let rows = self.log.after(AuditFilter::default(), restore.seq - 1, STEP).await?;
        let next = rows.last().map_or_else(|| place_of(restore), place_of);
        Ok((rows, next))
    }

    /// When the log begins, if it was begun a while ago and no head of it is noted outside the database: rows that were
    /// cut off its end would not show then.
    ///
    /// # Errors
    /// If the log or the head file cannot be read.
    pub async fn unnoted_since(&self) -> Result<Option<Timestamp>> {
        if !self.heads.read().await?.is_empty() {
            return Ok(None);
        }
        let first = self.log.after(AuditFilter::default(), 0, 1).await?;
        let began = first.first().map(|row| row.entry.created_at);
        Ok(began.filter(|began| self.clock.now() - *began > UNNOTED))
    }

    /// The last row of the chain.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn head(&self) -> Result<Head> {
        self.log.head().await
    }

    /// Records a refusal, or counts it if one like it was recorded within the last minute.
    ///
    /// # Errors
    /// If the row cannot be written.
    pub async fn refusal_record(&self, refusal: Refusal) -> Result<()> {
        let now = self.clock.now();
        let verdict = self.meter.lock().unwrap_or_else(PoisonError::into_inner).note(&refusal, now);
        match verdict {
            Verdict::Record => self.log.record(refusal_entry(refusal, now, 0)).await,
            Verdict::Counted => Ok(()),
        }
    }

    /// Background job: records the counted repeats whose minute is over, or all of them when the server stops.
    ///
    /// # Errors
    /// If a row cannot be written; what was counted is kept for the next time.
    pub async fn refusals_close(&self, everything: bool) -> Result<()> {
        let now = self.clock.now();
        let mut closed = self.meter.lock().unwrap_or_else(PoisonError::into_inner).close(now, everything).into_iter();
        while let Some((refusal, repeats)) = closed.next() {
            if let Err(error) = self.log.record(refusal_entry(refusal.clone(), now, repeats)).await {
                let unwritten = std::iter::once((refusal, repeats)).chain(closed);
                self.meter.lock().unwrap_or_else(PoisonError::into_inner).reopen(unwritten, now);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Background job: notes the head outside the database, if it moved since the last time.
    ///
    /// # Errors
    /// If the log cannot be read or the file cannot be written.
    pub async fn head_note(&self) -> Result<()> {
        let head = self.log.head().await?;
        if head == *self.noted.lock().unwrap_or_else(PoisonError::into_inner) || head.seq == 0 {
            return Ok(());
        }
        self.heads.append(HeadMark { at: self.clock.now(), kind: MarkKind::Head, head: head.clone() }).await?;
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = head;
        Ok(())
    }

    /// Background job: lets go of rows older than `keep`.
    ///
    /// # Errors
    /// If the log cannot be changed.
    pub async fn prune(&self, keep: TimeDelta) -> Result<i64> {
        let now = self.clock.now();
        let entry = AuditEntry::new(&Actor::system("retention"), "audit.prune", now);
        self.log.prune(now - keep, entry).await
    }
}

fn place_of(row: &AuditRow) -> Head {
    Head { seq: row.seq, hash: row.hash.clone() }
}

fn refusal_entry(refusal: Refusal, now: Timestamp, repeats: u64) -> AuditEntry {
    let times = if repeats == 0 { String::new() } else { format!("; {repeats} more like it within a minute") };
    AuditEntry {
        created_at: now,
        actor: refusal.actor,
        on_behalf_of: None,
        action: refusal.action,
        target: refusal.target,
        outcome: Outcome::Refused,
        before: None,
        after: None,
        message: Some(format!("{} (from {}){times}", refusal.reason, refusal.source)),
        request_id: refusal.request_id,
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
