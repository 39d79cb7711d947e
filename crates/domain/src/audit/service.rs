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
mod tests {
    use super::*;
    use crate::{
        Error,
        audit::{MockAuditLog, MockHeadFile},
        identity::{Role, Room, Scopes},
        testing::{START, TestClock, alice},
    };

    fn service(log: MockAuditLog, heads: MockHeadFile) -> (Arc<TestClock>, AuditService) {
        let clock = TestClock::start();
        (clock.clone(), AuditService::new(Arc::new(log), Arc::new(heads), clock))
    }

    fn refusal(reason: &str) -> Refusal {
        Refusal {
            actor: "user:bob".to_owned(),
            proven: true,
            source: "10.0.0.1".to_owned(),
            action: "server.delete".to_owned(),
            target: Some("server:7".to_owned()),
            reason: reason.to_owned(),
            request_id: Some("r-1".to_owned()),
        }
    }

    fn head(seq: i64) -> Head {
        Head { seq, hash: format!("hash-{seq}") }
    }

    /// Keeps what is recorded; the writes at these places fail.
    fn recording(failing: &'static [usize]) -> (MockAuditLog, Arc<Mutex<Vec<AuditEntry>>>) {
        let (mut log, kept) = (MockAuditLog::new(), Arc::new(Mutex::new(Vec::new())));
        let (keep, mut writes) = (Arc::clone(&kept), 0);
        log.expect_record().returning(move |entry| {
            writes += 1;
            if failing.contains(&(writes - 1)) {
                return Err(Error::unavailable("the database does not answer", "down"));
            }
            keep.lock().unwrap().push(entry);
            Ok(())
        });
        (log, kept)
    }

    fn messages(kept: &Mutex<Vec<AuditEntry>>) -> Vec<String> {
        kept.lock().unwrap().iter().map(|entry| entry.message.clone().unwrap()).collect()
    }

    #[tokio::test]
    async fn who_is_not_scoped_to_the_log_reads_nothing() {
        let actor = Actor { scopes: Scopes::only([Room::Fleet]), ..alice(Role::Admin) };
        let (_, audit) = service(MockAuditLog::new(), MockHeadFile::new());
        let listed = audit.audit_log_list(&actor, AuditFilter::default(), PageRequest::default()).await;
        assert!(matches!(listed, Err(Error::Forbidden { .. })));
        assert!(matches!(audit.audit_verify(&actor).await, Err(Error::Forbidden { .. })));
        assert!(matches!(audit.audit_export(&actor), Err(Error::Forbidden { .. })));
        assert!(audit.event_stream(&actor).is_ok());
    }

    #[tokio::test]
    async fn a_check_goes_down_to_the_heads_noted_outside() {
        let mark = HeadMark { at: START, kind: MarkKind::Head, head: head(3) };
        let (mut log, mut heads) = (MockAuditLog::new(), MockHeadFile::new());
        let noted = mark.clone();
        heads.expect_read().returning(move || Ok(vec![noted.clone()]));
        log.expect_verify()
            .times(1)
            .withf(move |marks| *marks == [mark.clone()])
            .returning(|_| Ok(Verification { valid: true, checked: 3, head: head(3), broken_at: None, reason: None }));
        let (_, audit) = service(log, heads);
        assert!(audit.audit_verify(&alice(Role::Viewer)).await.unwrap().valid);
    }

    #[tokio::test]
    async fn a_refusal_is_recorded_once_and_its_repeats_are_counted() {
        let (log, kept) = recording(&[]);
        let (clock, audit) = service(log, MockHeadFile::new());
        for _ in 0..3 {
            audit.refusal_record(refusal("needs the role operator")).await.unwrap();
        }
        audit.refusals_close(false).await.unwrap();
        assert_eq!(messages(&kept), ["needs the role operator (from 10.0.0.1)"]);
        let entry = kept.lock().unwrap()[0].clone();
        assert_eq!((entry.outcome, entry.actor.as_str()), (Outcome::Refused, "user:bob"));
        assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("server.delete", Some("server:7")));
        assert_eq!((entry.created_at, entry.request_id.as_deref()), (START, Some("r-1")));

        clock.advance(TimeDelta::minutes(1));
        audit.refusals_close(false).await.unwrap();
        audit.refusals_close(true).await.unwrap();
        let last = "needs the role operator (from 10.0.0.1); 2 more like it within a minute";
        assert_eq!(messages(&kept)[1..], [last]);
    }

    #[tokio::test]
    async fn counted_repeats_survive_a_database_that_does_not_answer() {
        // The third and fourth writes are those of the first close.
        let (log, kept) = recording(&[2, 3]);
        let (_, audit) = service(log, MockHeadFile::new());
        for reason in ["one", "other", "one", "other"] {
            audit.refusal_record(refusal(reason)).await.unwrap();
        }
        assert!(audit.refusals_close(true).await.is_err());
        audit.refusal_record(refusal("one")).await.unwrap();
        while kept.lock().unwrap().len() < 4 {
            let _ = audit.refusals_close(true).await;
        }
        let mut told = messages(&kept).split_off(2);
        told.sort();
        let line = |text: &str| format!("{text} more like it within a minute");
        assert_eq!(told, [line("one (from 10.0.0.1); 2"), line("other (from 10.0.0.1); 1")]);
    }

    #[tokio::test]
    async fn a_head_is_noted_when_it_moved() {
        let (mut log, mut heads) = (MockAuditLog::new(), MockHeadFile::new());
        let mut answers = [0, 3, 3, 5].map(|seq| if seq == 0 { Head::default() } else { head(seq) }).into_iter();
        log.expect_head().returning(move || Ok(answers.next().unwrap()));
        let noted = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&noted);
        heads.expect_append().returning(move |mark| {
            note.lock().unwrap().push(mark);
            Ok(())
        });
        let (_, audit) = service(log, heads);
        for _ in 0..4 {
            audit.head_note().await.unwrap();
        }
        let mark = |seq| HeadMark { at: START, kind: MarkKind::Head, head: head(seq) };
        assert_eq!(*noted.lock().unwrap(), [mark(3), mark(5)]);
    }

    #[tokio::test]
    async fn a_head_that_could_not_be_noted_is_noted_next_time() {
        let (mut log, mut heads) = (MockAuditLog::new(), MockHeadFile::new());
        log.expect_head().times(2).returning(|| Ok(head(3)));
        let mut tries = 0;
        heads.expect_append().times(2).returning(move |_| {
            tries += 1;
            if tries == 1 { Err(Error::unavailable("the disk is gone", "gone")) } else { Ok(()) }
        });
        let (_, audit) = service(log, heads);
        assert!(audit.head_note().await.is_err());
        audit.head_note().await.unwrap();
    }

    #[tokio::test]
    async fn pruning_lets_go_of_what_is_older_than_asked() {
        let mut log = MockAuditLog::new();
        log.expect_prune().times(1).returning(|before, entry| {
            assert_eq!(before, START - TimeDelta::days(30));
            assert_eq!((entry.actor.as_str(), entry.action.as_str()), ("system:retention", "audit.prune"));
            Ok(12)
        });
        let (_, audit) = service(log, MockHeadFile::new());
        assert_eq!(audit.prune(TimeDelta::days(30)).await.unwrap(), 12);
    }
}
