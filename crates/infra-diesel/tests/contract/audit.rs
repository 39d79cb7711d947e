//! The port `AuditLog`.

use crate::{
    on_both,
    store::{Store, at, entry, entry_at, start, walk},
};
use domain::{
    audit::{AuditEntry, AuditFilter, AuditLog, AuditRow, Head, HeadMark, MarkKind, Outcome},
    page::PageRequest,
};
use serde_json::json;
use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

on_both!(
    an_entry_is_read_back_as_it_was_recorded,
    a_recorded_row_is_there_for_everybody,
    filters_must_all_match,
    actions_of_a_noun_are_found_together,
    pages_neither_repeat_nor_skip,
    rows_after_one_come_oldest_first,
    an_edit_in_the_database_shows,
    a_cut_tail_shows,
    verification_holds_up_no_writer,
    pruned_rows_leave_a_checkpoint,
    pruning_keeps_the_last_row,
    pruning_nothing_records_nothing,
    pruning_stops_at_the_first_row_that_is_young,
    a_forged_checkpoint_shows,
);

fn full() -> AuditEntry {
    AuditEntry {
        on_behalf_of: Some("user:\"bob\" \\ 🦀".to_owned()),
        target: Some("server:7".to_owned()),
        outcome: Outcome::Refused,
        before: Some(json!({"a": [1, 2.5, null, "ü"], "z": {"b": 1_i64 << 60}})),
        after: Some(json!("text")),
        message: Some("line one\nline two\t'quoted'".to_owned()),
        request_id: Some("r-1".to_owned()),
        ..entry("server.create")
    }
}

/// Records so many rows, a second apart.
async fn record(store: &Store, count: i64) {
    for n in 1..=count {
        store.audit.record(entry_at("test.note", n)).await.unwrap();
    }
}

async fn an_entry_is_read_back_as_it_was_recorded(store: Store) {
    for (index, entry) in [full(), entry("test.note")].into_iter().enumerate() {
        store.audit.record(entry.clone()).await.unwrap();
        let row = store.last_row().await;
        assert_eq!((row.seq, row.entry), (i64::try_from(index).unwrap() + 1, entry));
        assert_eq!(store.audit.head().await.unwrap(), Head { seq: row.seq, hash: row.hash });
    }
    store.check_log(&["server.create", "test.note"]).await;
}

async fn a_recorded_row_is_there_for_everybody(store: Store) {
    assert_eq!(store.audit.head().await.unwrap(), Head::default());
    let mut head = store.database.head();
    store.audit.record(entry("test.note")).await.unwrap();
    assert!(head.has_changed().unwrap());
    let there = store.second_process().audit.head().await.unwrap();
    assert_eq!((there.seq, there), (1, head.borrow_and_update().clone()));
}

async fn filters_must_all_match(store: Store) {
    store.audit.record(full()).await.unwrap();
    store.audit.record(entry_at("pool.delete", 10)).await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    let none = AuditFilter::default();
    let all = AuditFilter {
        actor: text("system:test"),
        action: text("server.create"),
        target: text("server:7"),
        outcome: Some(Outcome::Refused),
        from: Some(start()),
        to: Some(at(1)),
    };
    let cases: [(AuditFilter, &[i64]); 13] = [
        (none.clone(), &[2, 1]),
        (AuditFilter { actor: text("system:test"), ..none.clone() }, &[2, 1]),
        (AuditFilter { actor: text("system"), ..none.clone() }, &[]),
        (AuditFilter { actor: text("\0"), ..none.clone() }, &[]),
        (AuditFilter { action: text("pool.delete"), ..none.clone() }, &[2]),
        (AuditFilter { action: text("pool"), ..none.clone() }, &[]),
        (AuditFilter { target: text("server:7"), ..none.clone() }, &[1]),
        (AuditFilter { outcome: Some(Outcome::Success), ..none.clone() }, &[2]),
        (AuditFilter { from: Some(at(10)), ..none.clone() }, &[2]),
        (AuditFilter { to: Some(at(10)), ..none.clone() }, &[1]),
        (AuditFilter { from: Some(at(1)), to: Some(at(10)), ..none }, &[]),
        (all.clone(), &[1]),
        (AuditFilter { outcome: Some(Outcome::Failed), ..all }, &[]),
    ];
    for (filter, expected) in cases {
        let page = store.audit.list(filter.clone(), PageRequest::default()).await.unwrap();
        assert_eq!(page.items.iter().map(|row| row.seq).collect::<Vec<_>>(), expected, "{filter:?}");
        assert_eq!(page.total, i64::try_from(expected.len()).unwrap());
        let mut after: Vec<i64> = store.audit.after(filter, 0, 10).await.unwrap().iter().map(|row| row.seq).collect();
        after.reverse();
        assert_eq!(after, expected);
    }
}

async fn actions_of_a_noun_are_found_together(store: Store) {
    let actions = ["server.create", "server.delete", "server", "serverless.create", "pool.create", "SERVER.create"];
    for action in actions {
        store.audit.record(entry(action)).await.unwrap();
    }
    let of = async |noun: &str| {
        let filter = AuditFilter { action: Some(noun.to_owned()), ..AuditFilter::default() };
        let rows = store.audit.after(filter, 0, 10).await.unwrap();
        rows.into_iter().map(|row| row.entry.action).collect::<Vec<_>>()
    };
    assert_eq!(of("server.").await, ["server.create", "server.delete"]);
    assert_eq!(of("pool.").await, ["pool.create"]);
    assert_eq!(of("user.").await, [""; 0]);
    assert_eq!(of("%.").await, [""; 0]);
}

async fn pages_neither_repeat_nor_skip(store: Store) {
    record(&store, 5).await;
    for limit in [1, 2, 5] {
        let list = |page| store.audit.list(AuditFilter::default(), page);
        let there = list(PageRequest::default()).await.unwrap().items;
        assert!(there.windows(2).all(|pair| pair[0].seq > pair[1].seq), "newest first");
        let n = Cell::new(0);
        let meanwhile = || async {
            n.set(n.get() + 1);
            store.audit.record(entry("test.note")).await.unwrap();
        };
        assert_eq!(walk(limit, list, meanwhile).await, there, "{limit} at a time");
    }
}

async fn rows_after_one_come_oldest_first(store: Store) {
    record(&store, 5).await;
    let after = async |seq, limit| {
        let rows = store.audit.after(AuditFilter::default(), seq, limit).await.unwrap();
        rows.iter().map(|row| row.seq).collect::<Vec<_>>()
    };
    assert_eq!(after(0, 2).await, [1, 2]);
    assert_eq!(after(2, 1000).await, [3, 4, 5]);
    assert_eq!(after(5, 10).await, [0; 0]);
    assert_eq!(after(-1, 1).await, [1]);
}

async fn an_edit_in_the_database_shows(store: Store) {
    record(&store, 5).await;
    let edits = [
        ("UPDATE audit_logs SET actor = 'user:mallory' WHERE seq = 3", 3),
        ("UPDATE audit_logs SET actor = 'system:test', created_at_us = created_at_us + 1 WHERE seq = 2", 2),
        ("DELETE FROM audit_logs WHERE seq = 1", 1),
    ];
    for (edit, broken_at) in edits {
        store.sql(edit);
        let verdict = store.audit.verify(Vec::new()).await.unwrap();
        assert_eq!((verdict.valid, verdict.broken_at), (false, Some(broken_at)), "{edit}: {verdict:?}");
    }
}

async fn a_cut_tail_shows(store: Store) {
    record(&store, 5).await;
    let row = store.log().await.remove(3);
    let cut = format!("DELETE FROM audit_logs WHERE seq > 4; UPDATE audit_head SET seq = 4, hash = '{}'", row.hash);
    let head = store.audit.head().await.unwrap();
    store.sql(&cut);
    let verdict = store.audit.verify(Vec::new()).await.unwrap();
    assert_eq!((verdict.valid, verdict.broken_at), (false, Some(5)), "this process knows what it wrote");
    let other = store.second_process();
    assert!(other.audit.verify(Vec::new()).await.unwrap().valid, "another cannot know");
    let mark = HeadMark { at: start(), kind: MarkKind::Head, head };
    let verdict = other.audit.verify(vec![mark]).await.unwrap();
    assert_eq!((verdict.valid, verdict.broken_at), (false, Some(5)), "but for the mark beside the database");
}

async fn verification_holds_up_no_writer(store: Store) {
    record(&store, 20).await;
    let (store, done) = (Arc::new(store), Arc::new(AtomicBool::new(false)));
    let checks = Arc::new(AtomicU32::new(0));
    let checking = {
        let (store, done, checks) = (Arc::clone(&store), Arc::clone(&done), Arc::clone(&checks));
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let verdict = store.audit.verify(Vec::new()).await.unwrap();
                assert!(verdict.valid && verdict.checked >= 20, "{verdict:?}");
                assert_eq!(verdict.checked, verdict.head.seq, "one view: the rows and the head of the same moment");
                checks.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut rows = 20;
    while checks.load(Ordering::Relaxed) < 2 && !checking.is_finished() {
        record(&store, 100).await;
        rows += 100;
    }
    done.store(true, Ordering::Relaxed);
    checking.await.unwrap();
    store.check_chain(rows).await;
}

async fn prune(store: &Store, before: i64) -> i64 {
    store.audit.prune(at(before), entry_at("audit.prune", 100)).await.unwrap()
}

async fn seqs(store: &Store) -> Vec<i64> {
    store.log().await.iter().map(|row: &AuditRow| row.seq).collect()
}

async fn check_verifies(store: &Store, checked: i64) {
    let verdict = store.audit.verify(Vec::new()).await.unwrap();
    assert!(verdict.valid && verdict.checked == checked, "{verdict:?}");
}

async fn pruned_rows_leave_a_checkpoint(store: Store) {
    record(&store, 6).await;
    let heads: Vec<Head> = store.log().await.into_iter().map(|row| Head { seq: row.seq, hash: row.hash }).collect();
    let marks: Vec<HeadMark> =
        heads.into_iter().map(|head| HeadMark { at: start(), kind: MarkKind::Head, head }).collect();
    assert_eq!(prune(&store, 4).await, 3);
    assert_eq!(seqs(&store).await, [4, 5, 6, 7]);
    let row = store.last_row().await;
    assert_eq!(row.entry.action, "audit.prune");
    assert!(row.entry.message.unwrap().contains("3 rows up to row 3"));
    check_verifies(&store, 4).await;
    assert!(store.audit.verify(marks.clone()).await.unwrap().valid, "marks of rows that went do no harm");
    assert_eq!(prune(&store, 6).await, 2);
    record(&store, 1).await;
    assert_eq!(seqs(&store).await, [6, 7, 8, 9]);
    check_verifies(&store, 4).await;
    assert!(store.second_process().audit.verify(marks).await.unwrap().valid);
}

async fn pruning_keeps_the_last_row(store: Store) {
    record(&store, 3).await;
    assert_eq!(prune(&store, 1000).await, 2);
    assert_eq!(seqs(&store).await, [3, 4]);
    assert_eq!(prune(&store, 1000).await, 1);
    assert_eq!(seqs(&store).await, [4, 5]);
    check_verifies(&store, 2).await;
    record(&store, 1).await;
    check_verifies(&store, 3).await;
}

async fn pruning_nothing_records_nothing(store: Store) {
    assert_eq!(prune(&store, 1000).await, 0);
    record(&store, 1).await;
    assert_eq!(prune(&store, 1000).await, 0, "the last row stays");
    record(&store, 1).await;
    assert_eq!(prune(&store, 1).await, 0, "a row of that very moment is not older");
    store.check_log(&["test.note", "test.note"]).await;
}

async fn pruning_stops_at_the_first_row_that_is_young(store: Store) {
    for seconds in [1, 50, 2, 3, 60] {
        store.audit.record(entry_at("test.note", seconds)).await.unwrap();
    }
    assert_eq!(prune(&store, 10).await, 1, "the clock had been set back after row 2");
    assert_eq!(seqs(&store).await, [2, 3, 4, 5, 6]);
    check_verifies(&store, 5).await;
}

async fn a_forged_checkpoint_shows(store: Store) {
    record(&store, 6).await;
    prune(&store, 4).await;
    store.sql("UPDATE audit_checkpoints SET created_at_us = created_at_us + 1");
    let verdict = store.audit.verify(Vec::new()).await.unwrap();
    assert_eq!((verdict.valid, verdict.broken_at), (false, Some(3)), "{verdict:?}");
    store.sql("DELETE FROM audit_checkpoints");
    let verdict = store.audit.verify(Vec::new()).await.unwrap();
    assert_eq!((verdict.valid, verdict.broken_at), (false, Some(1)), "{verdict:?}");
}
