//! Following the output of a container, whatever is restarted.

use super::stand::{Made, Stand, Stream, everything, following, shown};
use crate::engine::{own, shared};
use domain::{
    containers::wire::ContainerLogQuery,
    fleet::protocol::{LogLine, LogStream},
};
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(300);

fn said(lines: &[LogLine], text: &str) -> usize {
    lines.iter().filter(|line| line.text == text).count()
}

fn marks(lines: &[LogLine]) -> usize {
    lines.iter().filter(|line| line.stream == LogStream::Agent).count()
}

/// A line of each run, and a mark between two.
fn check_runs(lines: &[LogLine], line: &str) {
    let line = format!("stdout: {line}");
    let expected: Vec<&str> =
        (0..lines.len()).map(|index| if index % 2 == 0 { line.as_str() } else { "agent" }).collect();
    assert_eq!(shown(lines), expected);
}

async fn reconnect(stand: &mut Stand, made: &Made, stream: &Stream) -> Stream {
    stand.logs(ContainerLogQuery { after: stream.cursor(), ..following(&made.id) }).await
}

#[tokio::test]
async fn fc_13_each_run_is_told_once_with_a_mark_between_two() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::restarting(engine.client(), "echo hello; sleep 1").await;
    let mut stream = stand.logs(following(&made.id)).await;
    assert!(stream.is_quiet(MOMENT).await);
    made.start().await;
    stream.until_said("hello", 6).await;
    check_runs(&stream.lines, "hello");
    // Whoever goes on from there, or from any line before, sees the rest once.
    let mut again = reconnect(&mut stand, &made, &stream).await;
    let fourth = stream.lines.get(3).unwrap().cursor.clone();
    let mut earlier = stand.logs(ContainerLogQuery { after: Some(fourth), ..following(&made.id) }).await;
    for later in [&mut again, &mut earlier] {
        later.until_said("hello", 1).await;
    }
    stream.until_said("hello", 7).await;
    assert_eq!(shown(&again.lines)[..2], ["agent", "stdout: hello"]);
    earlier.until_said("hello", 5).await;
    check_runs(&earlier.lines, "hello");
    assert!(stream.lines.iter().any(|line| line.text == "the container ended with code 0, and was started again"));
    made.remove().await;
    assert_eq!(stream.end().await, (1000, "end".to_owned()));
}

#[tokio::test]
async fn fc_13_a_stream_stays_open_over_restarts_by_hand() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::shell(engine.client(), "echo up; exec sleep 60").await;
    made.start().await;
    let mut stream = stand.logs(following(&made.id)).await;
    for runs in 1..=3 {
        stream.until_said("up", runs).await;
        check_runs(&stream.lines, "up");
        if runs < 3 {
            made.restart().await;
        }
    }
    let mut again = reconnect(&mut stand, &made, &stream).await;
    assert!(again.is_quiet(MOMENT).await && stream.is_quiet(Duration::from_millis(1)).await);
    // Stopped, and started a good while later.
    made.client.kill_container(made.id.as_str(), None).await.unwrap();
    made.ended().await;
    assert!(stream.is_quiet(MOMENT).await);
    made.start().await;
    for stream in [&mut stream, &mut again] {
        stream
            .until("a mark and a line", |lines| lines.last().is_some_and(|line| line.text == "up") && marks(lines) > 0)
            .await;
    }
    stream.until_said("up", 4).await;
    check_runs(&stream.lines, "up");
    assert_eq!(shown(&again.lines), ["agent", "stdout: up"]);
    // Whoever comes later sees the same.
    assert_eq!(shown(&stand.all(everything(&made.id)).await), shown(&stream.lines));
    made.remove().await;
}

#[tokio::test]
async fn runs_that_say_nothing_have_their_marks_too() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::shell(engine.client(), "exec sleep 60").await;
    made.start().await;
    let mut stream = stand.logs(following(&made.id)).await;
    assert!(stream.is_quiet(MOMENT).await);
    for runs in 1..=2 {
        made.restart().await;
        stream.until("a mark", |lines| marks(lines) == runs).await;
    }
    let mut again = reconnect(&mut stand, &made, &stream).await;
    assert!(again.is_quiet(MOMENT).await && stream.is_quiet(Duration::from_millis(1)).await);
    made.restart().await;
    again.until("a mark", |lines| marks(lines) == 1).await;
    made.remove().await;
    assert_eq!(again.end().await.0, 1000);
    assert_eq!(shown(&again.lines), ["agent"]);
}

#[tokio::test]
async fn runs_that_were_missed_have_their_marks_too() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::shell(engine.client(), "echo up; exec sleep 60").await;
    made.start().await;
    let mut stream = stand.logs(following(&made.id)).await;
    stream.until_said("up", 1).await;
    drop(stream.socket);
    made.restart().await;
    made.restart().await;
    let query = ContainerLogQuery { after: stream.lines.last().map(|line| line.cursor.clone()), ..following(&made.id) };
    let mut again = stand.logs(query).await;
    again.until_said("up", 2).await;
    assert_eq!(shown(&again.lines), ["agent", "stdout: up", "agent", "stdout: up"]);
    made.remove().await;
}

#[tokio::test]
async fn a_run_that_ends_within_a_line_ends_it() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::shell(engine.client(), "printf 'no end'; exit 3").await.run().await;
    let mut stream = stand.logs(following(&made.id)).await;
    stream.until("the line", |lines| !lines.is_empty()).await;
    made.start().await;
    stream.until("the second run", |lines| lines.len() == 3).await;
    assert_eq!(shown(&stream.lines), ["stdout: no end", "agent", "stdout: no end"]);
    assert_eq!(stream.lines.get(1).unwrap().text, "the container ended with code 3, and was started again");
    made.ended().await;
    assert_eq!(shown(&stand.all(everything(&made.id)).await), shown(&stream.lines));
    made.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_goes_away_is_waited_for() {
    let Some(mut engine) = own(&[]) else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::restarting(engine.client(), "echo up; exec sleep 60").await;
    made.start().await;
    let mut stream = stand.logs(following(&made.id)).await;
    stream.until_said("up", 1).await;
    for (runs, crash) in [(2, false), (3, true)] {
        tokio::task::block_in_place(|| if crash { engine.crash() } else { engine.stop() });
        tokio::task::block_in_place(|| engine.start_again());
        stream.until_said("up", runs).await;
    }
    assert_eq!(said(&stream.lines, "up"), 3);
    assert!((1..=2).contains(&marks(&stream.lines)), "{:?}", shown(&stream.lines));
    made.remove().await;
    assert_eq!(stream.end().await.0, 1000);
}
