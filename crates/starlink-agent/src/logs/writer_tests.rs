use super::*;
use crate::logs::{Progress, Reader, segment};
use domain::fleet::protocol::{LogLine, LogQuery};
use std::{fs, process::Command};

const OUT: LogStream = LogStream::Stdout;
const ERR: LogStream = LogStream::Stderr;
const MIB: u64 = 1024 * 1024;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn read(work_folder: &Path) -> Vec<LogLine> {
    let query = LogQuery { task_id: domain::ids::TaskId(1), attempt: 1, follow: false, after: None, tail: None };
    let (mut reader, mut lines) = (Reader::open(work_folder, &query).unwrap(), Vec::new());
    loop {
        let batch = reader.read().unwrap();
        lines.extend(batch.lines);
        if batch.progress != Progress::More {
            return lines;
        }
    }
}

fn texts(work_folder: &Path) -> Vec<String> {
    read(work_folder).into_iter().map(|line| line.text).collect()
}

#[test]
fn a_record_that_was_torn_by_a_kill_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), MIB);
    writer.append(OUT, at(0), b"one\n");
    writer.append(ERR, at(0), b"two");
    let path = segment::list(&folder.path().join("log")).unwrap().remove(0).path;
    let whole = fs::read(&path).unwrap();
    writer.append(OUT, at(0), b"three\n");
    let torn = fs::read(&path).unwrap();
    for end in whole.len()..torn.len() {
        for garbage in [&b""[..], &[0; 40], &[0xff; 40]] {
            fs::write(&path, [&torn[..end], garbage].concat()).unwrap();
            assert_eq!(texts(folder.path()), ["one", "two"], "a reader passes it over");
            let mut writer = Writer::open(folder.path(), MIB);
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {end}");
            writer.append(ERR, at(1), b"!\n");
            assert_eq!(texts(folder.path()), ["one", "two!"]);
        }
    }
}

#[test]
fn a_segment_that_was_torn_at_its_beginning_is_none() {
    let folder = tempfile::tempdir().unwrap();
    Writer::open(folder.path(), MIB).append(OUT, at(0), b"one\nhalf");
    let torn = folder.path().join("log").join(format!("{:020}.log", 8));
    for head in [&b""[..], b"StarLog1", &[0; 64]] {
        fs::write(&torn, head).unwrap();
        assert_eq!(texts(folder.path()), ["one", "half"]);
        let mut writer = Writer::open(folder.path(), MIB);
        assert!(!torn.exists());
        writer.end_lines(at(1));
        writer.append(OUT, at(1), b"more\n");
        assert_eq!(texts(folder.path())[..3], ["one", "half", "more"]);
        fs::remove_dir_all(folder.path().join("log")).unwrap();
        Writer::open(folder.path(), MIB).append(OUT, at(0), b"one\nhalf");
    }
}

#[test]
fn each_chunk_is_there_as_soon_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), MIB);
    for (number, text) in ["a", "b", "c\nd", "e"].into_iter().enumerate() {
        writer.append(OUT, at(0), text.as_bytes());
        let told: String = texts(folder.path()).join("\n");
        assert_eq!(told, "abc\nde"[..=[0, 1, 4, 5][number]]);
    }
    assert_eq!(writer.lost(), 0);
}

#[test]
fn what_has_no_folder_is_lost_and_told_once_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let work_folder = folder.path().join("work");
    let mut writer = Writer::open(&work_folder, MIB);
    writer.append(OUT, at(0), b"nobody\nreads this");
    writer.end_lines(at(0));
    writer.append(OUT, at(0), b"!\n");
    assert_eq!(writer.lost(), 19);
    fs::create_dir(&work_folder).unwrap();
    writer.append(OUT, at(1), b"here\n");
    writer.append(OUT, at(1), b"again\n");
    let told = texts(&work_folder);
    assert_eq!(told[1..], ["here", "again"]);
    assert!(told[0].starts_with("19 bytes of output were lost: No such file"), "{}", told[0]);
}

/// A small disk in memory.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(kib: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={kib}k");
        let mut mount = Command::new("mount");
        assert!(
            mount.args(["-t", "tmpfs", "-o", &options, "starlink-test"]).arg(folder.path()).status().unwrap().success()
        );
        Self(folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_costs_output_but_nothing_else() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let disk = Disk::mount(256);
    let folder = disk.0.path();
    // One segment is larger than the disk.
    let mut writer = Writer::open(folder, 16 * MIB);
    let line = format!("{}\n", "x".repeat(999));
    writer.append(OUT, at(0), b"begin\nhalf a line");
    let mut written = 0;
    while writer.lost() == 0 {
        writer.append(ERR, at(0), line.repeat(5).as_bytes());
        written += 5000;
    }
    for _ in 0..10 {
        writer.append(ERR, at(0), line.as_bytes());
        written += 1000;
    }
    let lost = writer.lost();
    assert!(written > 200_000 && lost >= 10_000 && lost.is_multiple_of(1000), "{written} bytes written, {lost} lost");
    let kept = read(folder).iter().filter(|line| line.stream == ERR && line.text.len() == 999).count();
    assert_eq!(u64::try_from(kept).unwrap() * 1000, written - lost);

    let newest = segment::list(&folder.join("log")).unwrap().pop().unwrap();
    let end = crate::logs::tape::scan(&newest).unwrap().unwrap();
    assert_eq!(fs::metadata(&newest.path).unwrap().len(), end.offset, "no part of a record is left");

    assert!(Command::new("mount").args(["-o", "remount,size=512k"]).arg(folder).status().unwrap().success());
    writer.append(ERR, at(1), b"room again\n");
    writer.append(OUT, at(1), b"new line\n");
    assert_eq!(writer.lost(), 0);
    let told = texts(folder);
    let note = told.iter().position(|line| line.contains("were lost")).unwrap();
    assert_eq!(told[note], format!("{lost} bytes of output were lost: No space left on device (os error 28)"));
    assert_eq!(told[note - 1..], ["half a line", &told[note], "room again", "new line"]);
    assert_eq!(Writer::open(folder, 16 * MIB).lost(), 0);
    assert_eq!(texts(folder), told);
}
