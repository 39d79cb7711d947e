use super::*;
use crate::{
    audit::Outcome,
    identity::{Actor, Role},
    testing::{START, alice},
};
use chrono::TimeDelta;
use proptest::prelude::*;

const ROWS: i64 = 6;

fn ours() -> Seal {
    Seal::new(&[7; 32])
}

fn theirs() -> Seal {
    Seal::new(&[8; 32])
}

/// What somebody without our key writes who knows which key is ours.
fn disguised() -> Seal {
    Seal { key_id: ours().key_id, ..theirs() }
}

fn time(seq: i64) -> Timestamp {
    START + TimeDelta::seconds(seq) + TimeDelta::microseconds(seq)
}

/// Entries differ from row to row in every field that a column copies.
fn entry(seq: i64, story: &str) -> AuditEntry {
    AuditEntry {
        actor: format!("user:alice-{seq}"),
        target: (seq % 3 != 0).then(|| format!("server:{seq}")),
        outcome: [Outcome::Success, Outcome::Refused, Outcome::Failed][usize::try_from(seq % 3).unwrap()],
        before: Some(serde_json::json!({ "cpu": 1.5, "name": "Knoten ü" })),
        message: Some(format!("{story} {seq}")),
        ..AuditEntry::new(&alice(Role::Admin), &format!("server.update-{seq}"), time(seq))
    }
}

/// A log as a database and the file beside it hold it.
#[derive(Clone, Default)]
struct Log {
    rows: Vec<StoredRow>,
    head: Head,
    checkpoint: Option<Checkpoint>,
    marks: Vec<HeadMark>,
}

impl Log {
    fn of(rows: i64) -> Self {
        let mut log = Self::default();
        log.write(rows, &ours(), "as it was");
        log
    }

    fn write(&mut self, rows: i64, seal: &Seal, story: &str) {
        for _ in 0..rows {
            let row = seal.row(&self.head, &entry(self.head.seq + 1, story));
            self.head = Head { seq: row.seq, hash: row.hash.clone() };
            self.rows.push(row);
        }
    }

    fn row(&mut self, seq: i64) -> &mut StoredRow {
        self.rows.iter_mut().find(|row| row.seq == seq).unwrap()
    }

    fn remove(&mut self, seq: i64) {
        self.rows.retain(|row| row.seq != seq);
    }

    /// Removes the rows above `seq` and makes the head row say so.
    fn cut(&mut self, seq: i64) {
        self.head = self.head_at(seq);
        self.rows.retain(|row| row.seq <= seq);
    }

    fn head_at(&self, seq: i64) -> Head {
        let row = self.rows.iter().find(|row| row.seq == seq);
        row.map(|row| Head { seq, hash: row.hash.clone() }).unwrap_or_default()
    }

    fn prune(&mut self, seq: i64) {
        self.checkpoint = Some(ours().checkpoint(self.head_at(seq), time(ROWS)));
        self.rows.retain(|row| row.seq > seq);
    }

    fn note(&mut self, kind: MarkKind) {
        self.marks.push(HeadMark { at: time(self.head.seq), kind, head: self.head.clone() });
    }

    /// Reads the rows in the order of their numbers, as a database does.
    fn verify(&self) -> Verification {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|row| row.seq);
        let mut verifier = ChainVerifier::new(ours(), self.checkpoint.as_ref(), self.marks.clone());
        for row in &rows {
            verifier.push(row);
        }
        verifier.finish(self.head.clone())
    }
}

#[track_caller]
fn check_sound(log: &Log) {
    let verdict = log.verify();
    assert_eq!((verdict.valid, verdict.broken_at, verdict.reason), (true, None, None));
    assert_eq!(verdict.checked, i64::try_from(log.rows.len()).unwrap());
}

#[track_caller]
fn check_broken(log: &Log, at: i64, reason: &str) {
    let verdict = log.verify();
    assert!(!verdict.valid, "nothing was found");
    let found = verdict.reason.unwrap();
    assert_eq!(verdict.broken_at, Some(at), "{found}");
    assert!(found.contains(reason), "{found:?} does not say {reason:?}");
}

/// An edit of one column, and what the finding says about it.
type Edit = (&'static str, fn(&mut StoredRow));

const EDITS: [Edit; 12] = [
    ("column created_at_us", |row| row.created_at += TimeDelta::microseconds(1)),
    ("column actor", |row| row.actor.push('x')),
    ("column actor", |row| row.actor.clear()),
    ("column action", |row| row.action = "server.list".to_owned()),
    ("column target", |row| row.target = Some("server:99".to_owned())),
    ("column target", |row| row.target = if row.target.is_some() { None } else { Some(String::new()) }),
    ("column outcome", |row| row.outcome = "fine".to_owned()),
    ("its text", |row| row.canonical = row.canonical.replace("as it was", "as it wasn't")),
    ("its text", |row| row.canonical.push(' ')),
    ("canonical text", |row| row.canonical.clear()),
    ("canonical text", |row| row.canonical = row.canonical.replacen("\"actor\"", "\"aktor\"", 1)),
    ("its hash", |row| row.hash = theirs().over(&[&row.hash])),
];

#[test]
fn a_chain_as_it_was_written_verifies() {
    for rows in 0..=ROWS {
        check_sound(&Log::of(rows));
    }
}

#[test]
fn rows_read_back_what_was_recorded() {
    let row = Log::of(ROWS).rows.remove(4);
    let read = row.clone().read().unwrap();
    assert_eq!((read.seq, &read.hash), (5, &row.hash));
    assert_eq!(read.entry, entry(5, "as it was"));
}

#[test]
fn an_edited_column_is_found_at_its_row() {
    for seq in 1..=ROWS {
        for (reason, edit) in EDITS {
            let mut log = Log::of(ROWS);
            edit(log.row(seq));
            check_broken(&log, seq, reason);
        }
    }
}

#[test]
fn an_edit_that_was_sealed_without_the_key_is_found() {
    for seq in 1..=ROWS {
        let mut log = Log::of(ROWS);
        let forged = disguised().row(&log.head_at(seq - 1), &entry(seq, "as it never was"));
        *log.row(seq) = forged;
        if seq == ROWS {
            log.head = log.head_at(ROWS);
        }
        check_broken(&log, seq, "its seal does not fit");
    }
}

#[test]
fn a_removed_row_is_found_by_its_number() {
    for seq in 1..ROWS {
        let mut log = Log::of(ROWS);
        log.remove(seq);
        check_broken(&log, seq, &format!("row {seq} is missing"));
    }
    let mut log = Log::of(ROWS);
    log.remove(ROWS);
    check_broken(&log, ROWS, "missing at the end");
    log.rows.clear();
    check_broken(&log, 1, "rows 1 to 6 are missing at the end");
}

#[test]
fn a_cut_tail_with_an_adjusted_head_is_found_through_the_head_file() {
    for left in 0..ROWS {
        let mut log = Log::of(ROWS);
        log.cut(left);
        check_sound(&log);
        log.marks = vec![HeadMark { at: time(ROWS), kind: MarkKind::Head, head: Log::of(ROWS).head }];
        check_broken(&log, left + 1, &format!("rows {} to {ROWS} were cut off", left + 1));
    }
}

#[test]
fn an_edited_head_row_is_found() {
    let mut log = Log::of(ROWS);
    log.head.hash = log.head_at(1).hash;
    check_broken(&log, ROWS, "the head of the chain was edited");
    let mut log = Log::of(ROWS);
    log.head = log.head_at(ROWS - 1);
    check_broken(&log, ROWS, "the head of the chain was edited");
    log.head = Head::default();
    check_broken(&log, ROWS, "the head of the chain was edited");
}

#[test]
fn two_swapped_rows_are_found_at_the_first_of_them() {
    for (low, high) in (1..=ROWS).flat_map(|low| (low + 1..=ROWS).map(move |high| (low, high))) {
        let log = Log::of(ROWS);
        let (first, second) = (log.clone().row(low).clone(), log.clone().row(high).clone());
        let reason = format!("it holds the content of row {high}: rows were swapped");

        let mut whole = log.clone();
        *whole.row(low) = StoredRow { seq: low, ..second.clone() };
        *whole.row(high) = StoredRow { seq: high, ..first.clone() };
        check_broken(&whole, low, &reason);

        let mut contents = log.clone();
        *contents.row(low) = StoredRow { seq: low, hash: first.hash.clone(), ..second.clone() };
        *contents.row(high) = StoredRow { seq: high, hash: second.hash.clone(), ..first.clone() };
        check_broken(&contents, low, &reason);

        let mut columns = log;
        columns.row(low).actor.clone_from(&second.actor);
        columns.row(high).actor = first.actor;
        check_broken(&columns, low, "column actor");
    }
}

#[test]
fn rows_renumbered_over_a_gap_are_found() {
    for gap in 1..ROWS {
        let mut log = Log::of(ROWS);
        log.remove(gap);
        log.rows.iter_mut().filter(|row| row.seq > gap).for_each(|row| row.seq -= 1);
        log.head = log.head_at(ROWS - 1);
        check_broken(&log, gap, &format!("it holds the content of row {}", gap + 1));
    }
}

#[test]
fn a_row_numbered_outside_the_chain_is_found() {
    let mut log = Log::of(ROWS);
    log.row(3).seq = ROWS + 1;
    check_broken(&log, 3, "row 3 is missing");
    log.row(ROWS + 1).seq = 0;
    check_broken(&log, 0, "row 0 does not belong there");
}

#[test]
fn a_row_put_back_below_the_checkpoint_is_found() {
    let mut log = Log::of(ROWS);
    let gone = log.row(2).clone();
    log.prune(3);
    log.rows.push(gone);
    check_broken(&log, 2, "row 2 does not belong there");
}

#[test]
fn a_repeated_row_is_found() {
    let log = Log::of(2);
    let mut verifier = ChainVerifier::new(ours(), None, Vec::new());
    for index in [0, 0, 1] {
        verifier.push(&log.rows[index]);
    }
    assert!(verifier.is_broken());
    let verdict = verifier.finish(log.head);
    assert_eq!((verdict.broken_at, verdict.checked), (Some(1), 2));
}

#[test]
fn a_tail_rewritten_with_another_key_is_told_as_such() {
    for kept in 0..ROWS {
        let mut log = Log::of(ROWS);
        log.cut(kept);
        log.write(ROWS - kept, &theirs(), "as they tell it");
        let keys =
            format!("sealed with the audit key {}, but this server has the key {}", theirs().key_id, ours().key_id);
        check_broken(&log, kept + 1, &keys);

        log.cut(kept);
        log.write(ROWS - kept, &disguised(), "as they tell it");
        check_broken(&log, kept + 1, "its seal does not fit");
    }
}

#[test]
fn a_tail_rewritten_with_our_own_key_is_found_through_the_head_file() {
    let mut log = Log::of(ROWS);
    log.note(MarkKind::Head);
    log.cut(3);
    log.write(ROWS, &ours(), "as we would like it");
    check_broken(&log, ROWS, "another row 6 was noted in the head file at 1970-01-01T00:00:06.000006Z");
}

#[test]
fn a_pruned_log_verifies_from_its_checkpoint() {
    for last in 1..ROWS {
        let mut log = Log::of(ROWS);
        log.note(MarkKind::Head);
        log.prune(last);
        check_sound(&log);
        log.row(last + 1).actor.clear();
        check_broken(&log, last + 1, "column actor");
    }
}

#[test]
fn a_checkpoint_voids_the_marks_below_it() {
    let mut log = Log::of(2);
    log.note(MarkKind::Head);
    log.write(ROWS - 2, &ours(), "as it was");
    log.prune(4);
    check_sound(&log);
}

#[test]
fn a_checkpoint_that_is_not_genuine_is_found() {
    let mut log = Log::of(ROWS);
    let (earlier, later) = (log.head_at(2), log.head_at(3));
    log.prune(3);
    let genuine = log.checkpoint.clone().unwrap();
    let forgeries = [
        Checkpoint { head: Head { seq: 4, ..later.clone() }, ..genuine.clone() },
        Checkpoint { head: Head { seq: 3, ..earlier }, ..genuine.clone() },
        Checkpoint { created_at: time(1), ..genuine.clone() },
        Checkpoint { mac: String::new(), ..genuine.clone() },
        theirs().checkpoint(later.clone(), time(ROWS)),
        disguised().checkpoint(later, time(ROWS)),
    ];
    for forged in forgeries {
        let at = forged.head.seq;
        log.checkpoint = Some(forged);
        check_broken(&log, at, "the checkpoint after the last pruned row was edited or forged");
    }
    log.checkpoint = None;
    check_broken(&log, 1, "row 1 is missing");
}

#[test]
fn an_old_checkpoint_does_not_hide_what_was_removed_since() {
    let mut log = Log::of(ROWS);
    log.prune(2);
    log.remove(3);
    check_broken(&log, 3, "row 3 is missing");
    log.rows.clear();
    log.head = log.checkpoint.clone().unwrap().head;
    check_sound(&log);
    log.marks = vec![HeadMark { at: time(ROWS), kind: MarkKind::Head, head: Log::of(ROWS).head }];
    check_broken(&log, 3, "rows 3 to 6 were cut off");
}

#[test]
fn a_restore_voids_earlier_marks_and_counts_itself() {
    let mut log = Log::of(ROWS);
    log.note(MarkKind::Head);
    log.cut(3);
    log.note(MarkKind::Restore);
    check_sound(&log);
    log.write(ROWS, &ours(), "after the restore");
    log.note(MarkKind::Head);
    check_sound(&log);
    let mut shorter = log.clone();
    shorter.cut(2);
    check_broken(&shorter, 3, "cut off");
    log.cut(2);
    log.write(7, &ours(), "rewritten");
    check_broken(&log, 3, "another row 3 was noted");
}

#[test]
fn marks_read_back_and_edited_ones_do_not() {
    for kind in [MarkKind::Head, MarkKind::Restore] {
        let mark = HeadMark { at: time(5), kind, head: Log::of(ROWS).head };
        let line = ours().mark_line(&mark);
        assert_eq!(ours().read_mark(&line), Some(mark));
        assert_eq!(theirs().read_mark(&line), None);
        for at in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(ours().read_mark(&String::from_utf8(bytes).unwrap()), None, "byte {at} of {line}");
            assert_eq!(ours().read_mark(&line[..at]), None, "the first {at} bytes of {line}");
        }
    }
    assert_eq!(ours().read_mark(""), None);
}

#[test]
fn a_row_seal_does_not_pass_for_a_mark_or_a_checkpoint() {
    let head = Log::of(1).head;
    let text = format!("{} head {} {}", rfc3339(time(1)), head.seq, head.hash);
    assert_eq!(ours().read_mark(&format!("{text} {}", ours().over(&[&text]))), None);
    let forged = Checkpoint { mac: head.hash.clone(), head, created_at: time(1) };
    assert!(ChainVerifier::new(ours(), Some(&forged), Vec::new()).is_broken());
}

#[test]
fn parts_do_not_run_into_each_other() {
    assert_ne!(ours().over(&["checkpoint", "1", "23"]), ours().over(&["checkpoint", "12", "3"]));
    let checkpoint = ours().checkpoint(Head { seq: 1, hash: "23".to_owned() }, START);
    let shifted = Checkpoint { head: Head { seq: 12, hash: "3".to_owned() }, ..checkpoint };
    assert!(ChainVerifier::new(ours(), Some(&shifted), Vec::new()).is_broken());
}

#[test]
fn the_key_is_never_printed() {
    assert_eq!(format!("{:?}", ours()), format!("Seal {{ key_id: {:?}, .. }}", ours().key_id()));
}

/// The texts of a row, and `None` where its target is absent.
fn text(row: &mut StoredRow, column: usize) -> Option<&mut String> {
    match column {
        0 => Some(&mut row.actor),
        1 => Some(&mut row.action),
        2 => row.target.as_mut(),
        3 => Some(&mut row.outcome),
        4 => Some(&mut row.canonical),
        _ => Some(&mut row.hash),
    }
}

proptest! {
    #[test]
    fn any_edited_byte_is_found_at_its_row(
        rows in 1_i64..8, row in any::<prop::sample::Index>(), column in 0_usize..6,
        at in any::<prop::sample::Index>(), flip in 1_u8..128,
    ) {
        let mut log = Log::of(rows);
        let seq = i64::try_from(row.index(log.rows.len())).unwrap() + 1;
        let Some(text) = text(log.row(seq), column) else { return Ok(()) };
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let Ok(edited) = String::from_utf8(bytes) else { return Ok(()) };
        *text = edited;
        let verdict = log.verify();
        prop_assert_eq!(verdict.broken_at, Some(seq), "{:?}", verdict.reason);
    }

    #[test]
    fn whatever_is_recorded_verifies_and_reads_back(
        words in prop::collection::vec(("\\PC*", any::<Option<String>>(), any::<Option<String>>(), any::<f64>()), 1..6),
    ) {
        let (mut log, mut entries) = (Log::default(), Vec::new());
        for (actor, target, message, number) in words {
            let entry = AuditEntry {
                actor, target, message,
                after: Some(serde_json::json!({ "number": number })),
                ..AuditEntry::new(&Actor::system("test"), "a.b", START)
            };
            let row = ours().row(&log.head, &entry);
            log.head = Head { seq: row.seq, hash: row.hash.clone() };
            log.rows.push(row);
            entries.push(entry);
        }
        prop_assert!(log.verify().valid);
        let read: Vec<_> = log.rows.into_iter().map(|row| row.read().unwrap().entry).collect();
        // A number may lose its last bit on the way back through JSON; what is sealed is the text.
        for (read, entry) in read.iter().zip(&entries) {
            prop_assert_eq!((&read.actor, &read.target, &read.message), (&entry.actor, &entry.target, &entry.message));
        }
    }
}
