use super::*;
use crate::logs::Writer;
use chrono::DateTime;
use domain::fleet::protocol::LogStream;

#[test]
fn a_record_is_read_once_all_of_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 1024 * 1024);
    writer.append(LogStream::Stdout, DateTime::default(), b"one\n");
    let log = folder.path().join("log");
    let path = segment::list(&log).unwrap().remove(0).path;
    let before = std::fs::read(&path).unwrap();
    writer.append(LogStream::Stdout, DateTime::default(), b"two\n");
    let whole = std::fs::read(&path).unwrap();

    std::fs::write(&path, &before).unwrap();
    let mut tape = Tape::new(&log, 0);
    assert!(matches!(tape.next().unwrap(), Step::Record(0, Record { bytes: b"one", ends: true, .. })));
    for end in before.len()..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert!(matches!(tape.next().unwrap(), Step::Nothing), "{end} bytes");
    }
    // Its writer began it anew, with other bytes.
    std::fs::write(&path, &before).unwrap();
    assert!(matches!(tape.next().unwrap(), Step::Nothing));
    std::fs::write(&path, &whole).unwrap();
    assert!(matches!(tape.next().unwrap(), Step::Record(4, Record { bytes: b"two", ends: true, .. })));
    assert!(matches!(tape.next().unwrap(), Step::Nothing));
    assert_eq!(tape.place(), 8);
}

#[test]
fn reading_begins_with_the_record_that_has_the_place_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 16 * 1024);
    for _ in 0..200 {
        writer.append(LogStream::Stdout, DateTime::default(), b"123456789\n");
    }
    let log = folder.path().join("log");
    assert!(segment::list(&log).unwrap().len() > 2);
    for from in 0..1999 {
        let mut tape = Tape::new(&log, from);
        let Step::Record(place, _) = tape.next().unwrap() else { panic!("nothing at {from}") };
        assert_eq!(place, from / 10 * 10);
    }
    assert!(matches!(Tape::new(&log, 2000).next().unwrap(), Step::Nothing));
}
