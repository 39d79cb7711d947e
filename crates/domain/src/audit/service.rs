use super::{
    chain::Verification,
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

/// Rows that an export reads at a time.
const EXPORT_STEP: u16 = 1000;

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
    pub async fn audit_log_list(&self, actor: &Actor, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditRow>> {
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
        self.log.after(filter, seq, EXPORT_STEP).await
    }

    /// Whether the actor may watch changes.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] if not.
    pub fn event_stream(&self, actor: &Actor) -> Result<()> {
        actor.authorize(Operation::EventStream)
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
    /// If a row cannot be written.
    pub async fn refusals_close(&self, everything: bool) -> Result<()> {
        let now = self.clock.now();
        let closed = self.meter.lock().unwrap_or_else(PoisonError::into_inner).close(now, everything);
        for (refusal, repeats) in closed {
            self.log.record(refusal_entry(refusal, now, repeats)).await?;
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
