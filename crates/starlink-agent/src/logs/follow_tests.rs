use super::*;
use crate::logs::{Writer, finish};
use chrono::DateTime;
use domain::fleet::protocol::LogStream;
use std::{sync::atomic::AtomicBool, sync::atomic::Ordering, thread};

fn query() -> LogQuery {
    LogQuery { task_id: domain::ids::TaskId(1), attempt: 1, follow: true, after: None, tail: None }
}

async fn next(lines: &mut Lines) -> Option<LogLine> {
    timeout(Duration::from_secs(20), lines.next()).await.expect("a line, or the end").unwrap()
}

#[tokio::test]
async fn a_follower_misses_nothing_while_another_thread_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let mut lines = Lines::open(&path, query()).await.unwrap();
    let writer = thread::spawn(move || {
        let mut writer = Writer::open(&path, 4 * 1024 * 1024);
        for number in 0..20_000_u32 {
            let line = format!("line {number} of many\n");
            let (begin, end) = line.split_at(usize::try_from(number % 15).unwrap());
            writer.append(LogStream::Stdout, DateTime::default(), begin.as_bytes());
            if number % 100 == 0 {
                writer.append(LogStream::Stderr, DateTime::default(), b"between\n");
            }
            writer.append(LogStream::Stdout, DateTime::default(), end.as_bytes());
        }
        writer.finish(DateTime::default()).unwrap();
    });
    let (mut number, mut between) = (0, 0);
    while let Some(line) = next(&mut lines).await {
        match line.stream {
            LogStream::Stdout => {
                assert_eq!(line.text, format!("line {number} of many"));
                number += 1;
            }
            _ => between += 1,
        }
    }
    writer.join().unwrap();
    assert_eq!((number, between), (20_000, 200));
    assert!(next(&mut lines).await.is_none());
}

#[tokio::test]
async fn asking_for_a_line_and_giving_up_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let mut lines = Lines::open(&path, query()).await.unwrap();
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let done = done.clone();
        move || {
            let mut writer = Writer::open(&path, 1024 * 1024);
            for number in 0..500 {
                writer.append(LogStream::Stdout, DateTime::default(), format!("{number}\n").as_bytes());
            }
            writer.finish(DateTime::default()).unwrap();
            done.store(true, Ordering::Relaxed);
        }
    });
    let mut read = Vec::new();
    loop {
        match timeout(Duration::from_micros(50), lines.next()).await {
            Ok(Ok(Some(line))) => read.push(line.text),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    writer.join().unwrap();
    assert_eq!(read, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_log_that_goes_away_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 1024 * 1024);
    writer.append(LogStream::Stdout, DateTime::default(), b"line\nrest");
    let mut lines = Lines::open(folder.path(), query()).await.unwrap();
    assert_eq!(next(&mut lines).await.unwrap().text, "line");
    assert!(timeout(Duration::from_millis(20), lines.next()).await.is_err());
    std::fs::remove_dir_all(folder.path().join("log")).unwrap();
    assert_eq!(next(&mut lines).await.unwrap().text, "rest");
    assert!(next(&mut lines).await.is_none());
}

#[tokio::test]
async fn without_following_it_ends_with_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = Lines::open(folder.path(), LogQuery { follow: false, ..query() }).await.unwrap();
    assert!(next(&mut lines).await.is_none());
    let nonsense = LogQuery { after: Some("x".to_owned()), ..query() };
    assert!(matches!(Lines::open(folder.path(), nonsense).await, Err(LogError::Cursor(_))));
    finish(folder.path()).unwrap();
    let mut lines = Lines::open(folder.path(), query()).await.unwrap();
    assert!(next(&mut lines).await.is_none());
}
