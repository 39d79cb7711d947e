use super::*;
use crate::state::lines;
use domain::observability::Metric;
use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
};
use tempfile::TempDir;

fn sample(minute: usize, value: f64) -> Sample {
    let at = Timestamp::UNIX_EPOCH + chrono::TimeDelta::minutes(i64::try_from(minute).unwrap());
    Sample { at, readings: Readings::default().with(Metric::CpuUsage, value) }
}

fn samples(minutes: std::ops::Range<usize>) -> Vec<Sample> {
    minutes.map(|minute| sample(minute, 1.5)).collect()
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("samples");
    (directory, path)
}

fn open(path: &Path) -> Arc<Buffer> {
    Arc::new(Buffer::at(path, None))
}

async fn filled(path: &Path, minutes: std::ops::Range<usize>) -> Arc<Buffer> {
    let buffer = open(path);
    for sample in samples(minutes) {
        buffer.keep(&sample).await;
    }
    buffer
}

fn lines_of(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart_oldest_first() {
    let (_directory, path) = place();
    let buffer = open(&path);
    for minute in [3, 1, 2] {
        buffer.keep(&sample(minute, 1.5)).await;
    }
    assert_eq!(open(&path).oldest(2), samples(1..3));
    assert_eq!(open(&path).oldest(10), samples(1..4));
    buffer.forget(&samples(1..4)).await;
    assert_eq!(open(&path).oldest(10), []);
    assert_eq!(lines_of(&path), 0);
}

#[tokio::test]
async fn the_first_sample_of_a_time_is_kept() {
    let (_directory, path) = place();
    let buffer = filled(&path, 1..2).await;
    buffer.keep(&sample(1, 99.0)).await;
    assert_eq!(buffer.oldest(10), samples(1..2));
    assert_eq!((open(&path).oldest(10), lines_of(&path)), (samples(1..2), 1));
}

#[tokio::test]
async fn those_of_a_day_are_kept_and_the_oldest_dropped() {
    let (_directory, path) = place();
    let buffer = filled(&path, 0..MOST + 100).await;
    assert_eq!(buffer.memory().dropped, 100);
    assert_eq!(buffer.oldest(usize::MAX), samples(100..MOST + 100));
    assert_eq!(open(&path).oldest(usize::MAX), samples(100..MOST + 100));
    buffer.forget(&samples(100..101)).await;
    assert_eq!(buffer.memory().dropped, 0, "it is told");
    assert_eq!(buffer.oldest(1), samples(101..102));
}

#[tokio::test]
async fn the_file_stays_short_however_long_the_server_is_away() {
    let (_directory, path) = place();
    let buffer = filled(&path, 0..MOST).await;
    for minute in MOST..3 * MOST {
        buffer.keep(&sample(minute, 1.5)).await;
    }
    let lines = lines_of(&path);
    assert!(lines <= 2 * MOST + 300, "{lines}");
    assert_eq!(open(&path).oldest(usize::MAX), samples(2 * MOST..3 * MOST));
}

#[tokio::test]
async fn what_was_told_is_not_in_the_file_for_long() {
    let (_directory, path) = place();
    let buffer = filled(&path, 0..1_000).await;
    for begin in [0, 400] {
        buffer.forget(&samples(begin..begin + 400)).await;
    }
    assert_eq!(lines_of(&path), 200);
    buffer.keep(&sample(1_000, 1.5)).await;
    assert_eq!(open(&path).oldest(usize::MAX), samples(800..1_001));
}

#[tokio::test]
async fn a_line_that_was_torn_is_ignored_and_the_next_one_is_whole() {
    let (_directory, path) = place();
    let whole = lines::sealed(&sample(3, 1.5)).unwrap();
    for length in 1..whole.len() {
        fs::remove_file(&path).ok();
        drop(filled(&path, 1..3).await);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&whole[..length]).unwrap();
        let buffer = open(&path);
        assert_eq!(buffer.oldest(10), samples(1..3), "{length}");
        buffer.keep(&sample(3, 1.5)).await;
        assert_eq!(open(&path).oldest(10), samples(1..4), "{length}");
    }
}

#[tokio::test]
async fn a_damaged_file_costs_what_is_damaged_and_no_more() {
    let (_directory, path) = place();
    drop(filled(&path, 1..4).await);
    let mut bytes = fs::read(&path).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 20;
    bytes[second] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let buffer = open(&path);
    assert_eq!(buffer.oldest(10), [sample(1, 1.5), sample(3, 1.5)]);
    for garbage in [vec![0; 4096], b"not a line\n".repeat(3), vec![0xff; 17 << 20]] {
        fs::write(&path, garbage).unwrap();
        let buffer = open(&path);
        assert_eq!(buffer.oldest(10), []);
        buffer.keep(&sample(7, 1.5)).await;
        assert_eq!(open(&path).oldest(10), samples(7..8));
    }
}

#[tokio::test]
async fn where_nothing_can_be_written_it_is_kept_in_memory_until_something_can() {
    let (_directory, path) = place();
    // A folder is in the way.
    fs::create_dir_all(path.join("x")).unwrap();
    let buffer = filled(&path, 1..4).await;
    assert_eq!(buffer.oldest(10), samples(1..4));
    buffer.forget(&samples(1..2)).await;
    fs::remove_dir_all(&path).unwrap();
    buffer.keep(&sample(4, 1.5)).await;
    assert_eq!(open(&path).oldest(10), samples(2..5));
    assert!(!buffer.memory().behind);
}

#[tokio::test]
async fn whoever_waits_for_one_is_told() {
    let (_directory, path) = place();
    let buffer = open(&path);
    let waiting = tokio::spawn({
        let buffer = buffer.clone();
        async move { buffer.filled().await }
    });
    tokio::task::yield_now().await;
    buffer.keep(&sample(1, 1.5)).await;
    assert!(!waiting.await.unwrap());
    assert!(buffer.filled().await);
}
