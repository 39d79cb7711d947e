use super::*;
use crate::logs::{Writer, finish};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap() + TimeDelta::seconds(seconds)
}

fn query() -> LogQuery {
    LogQuery { task_id: domain::ids::TaskId(1), attempt: 1, follow: false, after: None, tail: None }
}

fn after(line: &LogLine) -> LogQuery {
    LogQuery { after: Some(line.cursor.clone()), ..query() }
}

fn rest(mut reader: Reader) -> Result<Vec<LogLine>, LogError> {
    let mut lines = Vec::new();
    loop {
        let batch = reader.read()?;
        lines.extend(batch.lines);
        if batch.progress != Progress::More {
            return Ok(lines);
        }
    }
}

fn read(folder: &TempDir, query: &LogQuery) -> Vec<LogLine> {
    rest(Reader::open(folder.path(), query).unwrap()).unwrap()
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

fn size(folder: &TempDir) -> u64 {
    fs::read_dir(folder.path().join("log")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

const OUT: LogStream = LogStream::Stdout;
const ERR: LogStream = LogStream::Stderr;
const MIB: u64 = 1024 * 1024;

#[test]
fn a_character_cut_across_chunks_and_streams_is_whole_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), MIB);
    for (second, (stream, bytes)) in
        [(OUT, &b"\xf0\x9f"[..]), (ERR, b"err\n"), (OUT, b"\x9a\x80\n")].into_iter().enumerate()
    {
        writer.append(stream, at(second.try_into().unwrap()), bytes);
    }
    writer.append(OUT, at(9), b"before-\xff\xfe-after\nnext\n\xed\xab\xee\xdb\x03\x00\n\n");
    let lines = read(&folder, &query());
    let told: Vec<_> =
        lines.iter().map(|line| (line.stream, line.text.as_str(), (line.at - at(0)).num_seconds())).collect();
    assert_eq!(
        told,
        [
            (ERR, "err", 1),
            (OUT, "\u{1f680}", 0),
            (OUT, "before-\u{fffd}\u{fffd}-after", 9),
            (OUT, "next", 9),
            (OUT, "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{3}\0", 9),
            (OUT, "", 9),
        ]
    );
}

#[test]
fn a_long_line_comes_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 16 * MIB);
    let line = "x€".repeat(700_000);
    writer.append(OUT, at(0), line.as_bytes());
    writer.append(ERR, at(1), b"between\n");
    writer.append(OUT, at(2), b"!\nnext\n");
    let lines = read(&folder, &query());
    let pieces: Vec<_> = lines.iter().filter(|line| line.stream == OUT).collect();
    let continued: Vec<_> = pieces.iter().map(|line| line.continues).collect();
    assert_eq!(continued, [true, true, false, false]);
    assert!(pieces.iter().all(|piece| piece.text.len() <= LONGEST_PIECE));
    assert_eq!(pieces[..3].iter().map(|piece| piece.text.as_str()).collect::<String>(), line + "!");
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(read(&folder, &after(line)), lines[index + 1..]);
    }
}

#[test]
fn the_last_line_needs_no_line_feed() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), MIB);
    writer.append(OUT, at(0), "whole\nPassword: \u{e9}".as_bytes());
    let lines = read(&folder, &query());
    assert_eq!(texts(&lines), ["whole", "Password: \u{e9}"]);
    assert!(lines[1].continues, "it may go on");
    writer.append(OUT, at(1), b"secret\n");
    assert_eq!(texts(&read(&folder, &after(&lines[1]))), ["secret"]);
    writer.append(OUT, at(1), b"end");
    writer.finish(at(2)).unwrap();
    let lines = read(&folder, &query());
    assert_eq!(texts(&lines), ["whole", "Password: \u{e9}secret", "end"]);
    assert!(!lines[2].continues);
    assert!(read(&folder, &after(&lines[2])).is_empty());
}

#[test]
fn a_new_run_begins_a_new_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), MIB);
    writer.append(OUT, at(0), b"no line feed");
    writer.end_lines(at(1));
    writer.end_lines(at(1));
    writer.mark(at(1), "started again (run 2)\nreally");
    writer.append(OUT, at(2), b"hello\n");
    assert_eq!(texts(&read(&folder, &query())), ["no line feed", "started again (run 2) really", "hello"]);
}

#[test]
fn the_last_lines_are_the_last_lines() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 64 * 1024);
    // Standard error begins in the first segment with a line that ends in the last one.
    writer.append(ERR, at(0), b"from the ");
    for number in 0..1500 {
        writer.append(OUT, at(number), format!("line {number} {}\n", "x".repeat(5)).as_bytes());
    }
    writer.append(ERR, at(0), b"beginning\n");
    writer.append(OUT, at(0), b"a\nb\n");
    writer.finish(at(0)).unwrap();
    let lines = read(&folder, &query());
    assert!(segment::list(&folder.path().join("log")).unwrap().len() > 4);
    assert_eq!(lines.len(), 1503);
    for tail in [0, 1, 2, 3, 4, 10, 100, 500, 1000, 1502, 1503, 1504, u64::MAX] {
        let wanted = usize::try_from(tail).map_or(lines.len(), |tail| tail.min(lines.len()));
        let told = read(&folder, &LogQuery { tail: Some(tail), ..query() });
        assert_eq!(told, lines[lines.len() - wanted..], "the last {tail}");
    }
    let told = read(&folder, &LogQuery { tail: Some(5), ..after(&lines[1490]) });
    assert_eq!(told, lines[1498..]);
    let told = read(&folder, &LogQuery { tail: Some(50), ..after(&lines[1490]) });
    assert_eq!(told, lines[1491..]);
}

#[test]
fn old_output_is_dropped_and_that_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let limit = 32 * 1024;
    let mut writer = Writer::open(folder.path(), limit);
    let mut early = None;
    for number in 0..4000 {
        writer.append(OUT, at(number), format!("{number:06}\n").as_bytes());
        assert!(size(&folder) <= limit);
        if number == 100 {
            early = read(&folder, &query()).pop();
        }
    }
    let lines = read(&folder, &query());
    let kept = u64::try_from(lines.len() - 1).unwrap();
    assert!(kept * 25 > limit / 2, "{kept} lines");
    assert_eq!(
        (lines[0].stream, lines[0].text.clone()),
        (LogStream::Agent, format!("{} bytes of older output were dropped", (4000 - kept) * 7))
    );
    assert_eq!(lines.last().unwrap().text, "003999");
    assert_eq!(read(&folder, &after(&lines[0])), lines[1..], "it is told once");

    let since = read(&folder, &after(&early.unwrap()));
    assert_eq!(since[0].text, format!("{} bytes of older output were dropped", (4000 - kept - 101) * 7));
    assert_eq!(since[1..], lines[1..]);
}

#[test]
fn a_reader_that_is_overtaken_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 16 * 1024);
    writer.append(OUT, at(0), b"first\nhalf a li");
    let mut reader = Reader::open(folder.path(), &LogQuery { follow: true, ..query() }).unwrap();
    assert_eq!(texts(&reader.read().unwrap().lines), ["first"]);
    writer.append(OUT, at(0), b"ne\n");
    for number in 0..4000 {
        writer.append(OUT, at(1), format!("{number:06}\n").as_bytes());
    }
    writer.finish(at(2)).unwrap();
    let lines = rest(reader).unwrap();
    let gaps: Vec<_> = lines.iter().filter(|line| line.stream == LogStream::Agent).collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0].text.ends_with("bytes of older output were dropped"));
    let told: usize = lines.iter().filter(|line| line.stream == OUT).map(|line| line.text.len() + 1).sum();
    let dropped: usize = gaps[0].text.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(told + dropped, "half a line\n".len() + 4000 * 7);
    assert_eq!(lines.last().unwrap().text, "003999");
}

#[test]
fn a_line_whose_end_was_dropped_is_not_joined_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 16 * 1024);
    writer.append(OUT, at(0), b"half");
    let mut reader = Reader::open(folder.path(), &LogQuery { follow: true, ..query() }).unwrap();
    assert!(reader.read().unwrap().lines.is_empty());
    for number in 0..4000 {
        writer.append(ERR, at(1), format!("{number:06}\n").as_bytes());
    }
    writer.append(OUT, at(2), b"end\n");
    writer.finish(at(2)).unwrap();
    let told = rest(reader).unwrap();
    let told: Vec<_> = told.iter().filter(|line| line.stream != ERR).map(|line| line.text.as_str()).collect();
    assert_eq!((told[0], told[2], told.len()), ("half", "end", 3), "{told:?}");
    assert!(told[1].ends_with("bytes of older output were dropped"));
}

#[test]
fn a_cursor_of_something_else_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = Writer::open(folder.path(), MIB);
    writer.append(OUT, at(0), b"a\nb\n");
    Writer::open(other.path(), MIB).append(OUT, at(1), b"a\nb\nc\n");
    let [foreign, line] = [&other, &folder].map(|folder| read(folder, &query()).remove(0));
    let beyond = line.cursor.replace("-2-", "-fff-");
    for follow in [false, true] {
        for cursor in ["", "garbage", "0-0-0-0", &foreign.cursor, &beyond] {
            let query = LogQuery { after: Some(cursor.to_owned()), follow, ..query() };
            let refused = Reader::open(folder.path(), &query).and_then(rest);
            let error = refused.map(|_| cursor).unwrap_err();
            assert!(error.to_string().contains("is none of this log"), "{cursor}: {error}");
        }
    }
    assert_eq!(texts(&read(&folder, &after(&line))), ["b"]);
}

#[test]
fn what_cannot_be_read_does_not_hide_what_can() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 16 * 1024);
    for number in 0..150 {
        writer.append(OUT, at(0), format!("{number:06}\n").as_bytes());
    }
    let first = segment::list(&folder.path().join("log")).unwrap().remove(0);
    let mut bytes = fs::read(&first.path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&first.path, bytes).unwrap();
    let lines = read(&folder, &query());
    let gap = lines.iter().position(|line| line.stream == LogStream::Agent).unwrap();
    assert!(lines[gap].text.ends_with("bytes of output cannot be read"), "{}", lines[gap].text);
    assert!(gap > 10 && lines.len() > gap + 10 && lines.last().unwrap().text == "000149");
}

#[test]
fn following_waits_until_the_log_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = Reader::open(folder.path(), &LogQuery { follow: true, ..query() }).unwrap();
    assert_eq!(reader.read().unwrap().progress, Progress::Nothing, "before the first line");
    let mut writer = Writer::open(folder.path(), MIB);
    writer.append(OUT, at(0), b"hello\nwor");
    let batch = reader.read().unwrap();
    assert_eq!((texts(&batch.lines), batch.progress), (vec!["hello"], Progress::Nothing));
    writer.append(OUT, at(0), b"ld");
    finish(folder.path()).unwrap();
    let batch = reader.read().unwrap();
    assert_eq!((texts(&batch.lines), batch.progress), (vec!["world"], Progress::End));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select("a\né🚀\u{ff}".as_bytes().to_vec()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read_and_every_cursor_goes_on_from_its_line(
        chunks in prop::collection::vec((any::<bool>(), bytes()), 0..20),
        reopen in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(folder.path(), 32 * 1024);
        let mut streams = [Vec::new(), Vec::new()];
        for (second, (error, bytes)) in chunks.iter().enumerate() {
            if reopen {
                writer = Writer::open(folder.path(), 32 * 1024);
            }
            writer.append(if *error { ERR } else { OUT }, at(second.try_into().unwrap()), bytes);
            streams[usize::from(*error)].extend_from_slice(bytes);
        }
        finish(folder.path()).unwrap();
        let read = |query: &LogQuery| rest(Reader::cut(folder.path(), query, 20).unwrap()).unwrap();
        let lines = read(&query());
        for (stream, bytes) in [OUT, ERR].into_iter().zip(streams) {
            let mut told = String::new();
            for line in lines.iter().filter(|line| line.stream == stream) {
                told.push_str(&line.text);
                told.push_str(if line.continues { "" } else { "\n" });
            }
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            let missing = if whole.is_empty() || whole.ends_with('\n') { "" } else { "\n" };
            prop_assert_eq!(told, whole + missing);
        }
        for (index, line) in lines.iter().enumerate() {
            prop_assert_eq!(&read(&after(line)), &lines[index + 1..], "after line {}", index);
        }
    }
}
