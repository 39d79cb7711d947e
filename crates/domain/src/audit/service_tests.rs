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

fn row(seq: i64, action: &str, hash: &str) -> AuditRow {
    AuditRow { seq, entry: AuditEntry::new(&alice(Role::Admin), action, START), hash: hash.to_owned() }
}

fn place(seq: i64, hash: &str) -> Head {
    Head { seq, hash: hash.to_owned() }
}

/// A log of these rows.
fn holding(rows: Vec<AuditRow>) -> MockAuditLog {
    let (mut log, last, found) = (MockAuditLog::new(), rows.last().map(place_of), rows.clone());
    log.expect_head().returning(move || Ok(last.clone().unwrap_or_default()));
    log.expect_after().returning(move |_, seq, limit| {
        Ok(rows.iter().filter(|row| row.seq > seq).take(limit.into()).cloned().collect())
    });
    log.expect_list().returning(move |filter, _| {
        let matching = found.iter().rev().find(|row| Some(&row.entry.action) == filter.action.as_ref());
        Ok(Page { items: matching.cloned().into_iter().collect(), total: 1, next: None })
    });
    log
}

/// What a watcher at `place` is given from a log of these rows, and where it is then.
async fn check_step(rows: &[AuditRow], at: &Head, expected: &[i64], then: Head) {
    let (_, audit) = service(holding(rows.to_vec()), MockHeadFile::new());
    let (given, next) = audit.event_step(at).await.unwrap();
    assert_eq!((given.iter().map(|row| row.seq).collect::<Vec<_>>(), next), (expected.to_vec(), then), "{at:?}");
}

#[tokio::test]
async fn a_watcher_is_given_what_it_has_not_read() {
    let log = [row(1, "pool.create", "a"), row(2, "pool.delete", "b"), row(3, "pool.create", "c")];
    check_step(&log, &Head::default(), &[1, 2, 3], place(3, "c")).await;
    check_step(&log, &place(1, "a"), &[2, 3], place(3, "c")).await;
    check_step(&log, &place(3, "c"), &[], place(3, "c")).await;
    // A reader that comes again names the row alone; from then on its hash is known.
    check_step(&log, &place(3, ""), &[], place(3, "c")).await;
    check_step(&log[2..], &place(1, "a"), &[3], place(3, "c")).await;
}

#[tokio::test]
async fn a_watcher_of_a_log_that_was_replaced_goes_on_at_the_restore() {
    let log = [row(1, "pool.create", "a"), row(2, RESTORE, "x"), row(3, "pool.create", "y")];
    for at in [place(2, "b"), place(3, "c"), place(9, "i"), place(9, "")] {
        check_step(&log, &at, &[2, 3], place(3, "y")).await;
    }
    check_step(&log, &place(1, "a"), &[2, 3], place(3, "y")).await;
    let by_hand = [row(1, "pool.create", "a"), row(2, "pool.create", "z")];
    check_step(&by_hand, &place(2, "b"), &[], place(2, "z")).await;
    check_step(&by_hand, &place(9, ""), &[], place(2, "z")).await;
}

#[tokio::test]
async fn a_log_of_which_no_head_is_noted_is_told_once_it_is_not_new() {
    let mark = HeadMark { at: START, kind: MarkKind::Head, head: head(1) };
    for (rows, marks, age, expected) in [
        (vec![], vec![], TimeDelta::hours(1), None),
        (vec![row(4, "pool.create", "d")], vec![], TimeDelta::minutes(1), None),
        (vec![row(4, "pool.create", "d")], vec![], TimeDelta::seconds(61), Some(START)),
        (vec![row(4, "pool.create", "d")], vec![mark], TimeDelta::hours(1), None),
    ] {
        let mut heads = MockHeadFile::new();
        heads.expect_read().return_once(move || Ok(marks));
        let (clock, audit) = service(holding(rows), heads);
        clock.advance(age);
        assert_eq!(audit.unnoted_since().await.unwrap(), expected);
    }
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
