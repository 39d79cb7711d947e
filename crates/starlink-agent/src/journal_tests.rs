use super::*;
use domain::{
    clock::Timestamp,
    fleet::protocol::{End, Ending, RunTask},
    ids::TaskId,
    scheduling::{Environment, TaskSpec},
    text::Name,
    units::Resources,
};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

struct Place {
    _directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        // What is tested is not the disk.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { path: directory.path().join("journal"), _directory: directory }
    }

    fn open(&self) -> Journal {
        Journal::at(&self.path, None).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }
}

fn id(number: i64) -> OperationId {
    OperationId(number)
}

fn work(number: i64) -> WorkId {
    WorkId { installation: "abc".into(), task: TaskId(number), attempt: 1 }
}

fn begun(number: i64) -> Entry {
    let mut spec = TaskSpec::new(Name::parse("job").unwrap(), Resources::default());
    spec.env = Environment::parse([("PASSWORD".to_owned(), "hunter-55".to_owned())].into()).unwrap();
    let order = Arc::new(RunTask { task_id: TaskId(number), attempt: 1, spec });
    Entry::Begun { operation: id(number), work: work(number), order, at: NOW }
}

fn ended(number: i64) -> Entry {
    let end = End {
        ending: Ending::Failed,
        exit_code: Some(number),
        signal: None,
        reason: None,
        detail: None,
        outcome: None,
        started_at: None,
        finished_at: Some(NOW),
    };
    Entry::Ended { operation: id(number), work: Some(work(number)), deed: None, end }
}

fn reported(number: i64) -> Entry {
    Entry::Reported { operation: id(number) }
}

fn write(journal: &Journal, entries: impl IntoIterator<Item = Entry>) {
    entries.into_iter().for_each(|entry| journal.write_blocking(entry).unwrap());
}

/// What is known of operations 1 to 9: `b`egun, `r`unning, `e`nded, reported (`t`old), or `-`.
fn known(journal: &Journal) -> String {
    let letter = |number| match journal.record(id(number)) {
        None => '-',
        Some(record) if record.reported => 't',
        Some(record) if record.end.is_some() => 'e',
        Some(record) if record.running_since.is_some() => 'r',
        Some(_) => 'b',
    };
    (1..10).map(letter).collect::<String>().trim_end_matches('-').to_owned()
}

#[test]
fn it_is_known_again_after_a_restart() {
    let place = Place::new();
    let journal = place.open();
    journal.begin_anew("abc").unwrap();
    write(&journal, [begun(1), begun(2), Entry::Running { operation: id(2), at: NOW }, begun(3), ended(3)]);
    write(&journal, [begun(4), ended(4), reported(4), begun(5), Entry::Retracted { operation: id(5) }, ended(6)]);
    for _ in 0..3 {
        let journal = place.open();
        assert_eq!(known(&journal), "bret-e");
        assert_eq!(journal.installation().as_deref(), Some("abc"));
        let order = journal.record(id(1)).unwrap().order.unwrap();
        assert_eq!(order.spec.env.iter().collect::<Vec<_>>(), [("PASSWORD", "hunter-55")]);
        assert_eq!(journal.record(id(4)).unwrap().end.unwrap().exit_code, Some(4));
        assert_eq!(journal.record(id(6)).unwrap().work, Some(work(6)));
        assert_eq!(journal.record_of(&work(3)).unwrap().order.unwrap().task_id, TaskId(3));
        let open: Vec<i64> = journal.open_records().iter().map(|(id, _)| id.0).collect();
        assert_eq!(open, [1, 2, 3, 6]);
    }
}

#[test]
fn a_line_torn_anywhere_is_as_if_it_had_never_been_written() {
    let place = Place::new();
    let journal = place.open();
    write(&journal, [begun(1), ended(1), begun(2)]);
    let (whole, mut states) = (fs::read(&place.path).unwrap(), Vec::new());
    for length in 0..=whole.len() {
        fs::write(&place.path, whole.get(..length).unwrap()).unwrap();
        let journal = place.open();
        states.push(known(&journal));
        // What is written next does not end up in what was torn.
        write(&journal, [begun(9)]);
        assert!(place.open().record(id(9)).is_some(), "{length}");
    }
    states.dedup();
    assert_eq!(states, ["", "b", "e", "eb"]);
}

#[test]
fn a_damaged_line_takes_no_other_line_with_it() {
    let place = Place::new();
    write(&place.open(), [begun(1), begun(2), begun(3)]);
    let damaged = place.text().replacen("\"operation\":2", "\"operation\":7", 1);
    fs::write(&place.path, damaged).unwrap();
    assert_eq!(known(&place.open()), "b-b");
}

#[test]
fn what_a_newer_agent_wrote_is_passed_over() {
    let place = Place::new();
    write(&place.open(), [begun(1)]);
    let json = r#"{"entry":"paused","operation":1}"#;
    let digest = domain::digest::sha256_hex(json.as_bytes());
    let text = format!("{}{} {json}\n", place.text(), digest.get(..8).unwrap());
    fs::write(&place.path, text).unwrap();
    assert_eq!(known(&place.open()), "b");
}

#[test]
fn environments_are_for_its_owner_and_forgotten_once_they_are_not_needed() {
    let place = Place::new();
    let journal = place.open();
    write(&journal, [begun(1)]);
    assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(place.text().contains("hunter-55"));
    assert!(!format!("{journal:?}").contains("hunter-55"));
    write(&journal, [ended(1), reported(1)]);
    assert_eq!(known(&place.open()), "t");
    assert!(!place.text().contains("hunter-55"));
}

#[test]
fn it_stays_small_and_remembers_the_newest() {
    let place = Place::new();
    let journal = place.open();
    let count = i64::try_from(REMEMBERED).unwrap() * 3;
    for number in 1..=count {
        write(&journal, [begun(number), ended(number), reported(number)]);
    }
    let (size, journal) = (fs::metadata(&place.path).unwrap().len(), place.open());
    assert!(size < 500 << 10, "{size}");
    let remembered = (1..=count).filter(|number| journal.record(id(*number)).is_some()).count();
    assert_eq!(remembered, REMEMBERED);
    assert!(journal.record(id(count)).is_some() && journal.record(id(1)).is_none());
}

#[test]
fn another_installations_operations_are_put_away() {
    let place = Place::new();
    let journal = place.open();
    journal.begin_anew("abc").unwrap();
    write(&journal, [begun(1)]);
    journal.begin_anew("abc").unwrap();
    assert_eq!(known(&journal), "b");
    journal.begin_anew("def").unwrap();
    assert_eq!(known(&journal), "");
    assert_eq!(known(&place.open()), "");
    assert_eq!(place.open().installation().as_deref(), Some("def"));
    assert_eq!(known(&Journal::at(&place.path.with_file_name("journal.abc"), None).unwrap()), "b");
}
