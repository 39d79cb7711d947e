//! How quickly output comes through.

use super::stand::{Made, Stand, following};
use crate::{docker::bed::Wall, engine::shared};
use domain::{clock::Clock, containers::wire::ContainerLogQuery, fleet::protocol::LogLine};
use std::time::{Duration, Instant};

fn median(mut delays: Vec<i64>) -> (i64, i64) {
    delays.sort_unstable();
    (delays[delays.len() / 2], delays[delays.len() * 95 / 100])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_arrives_shortly_after_it_was_written() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::shell(engine.client(), "for i in $(seq 100); do echo $i; sleep 0.02; done; exec sleep 60").await;
    made.start().await;
    let mut stream = stand.logs(following(&made.id)).await;
    let mut delays = Vec::new();
    while delays.len() < 100 {
        let before = stream.lines.len();
        stream.until("a line", |lines| lines.len() > before).await;
        let now = Wall.now();
        delays.extend(stream.lines[before..].iter().map(|line| (now - line.at).num_microseconds().unwrap()));
    }
    let (half, most) = median(delays);
    println!("a line comes after {half} µs (half of them), {most} µs (95 %)");
    assert!(half < 20_000 || std::thread::available_parallelism().unwrap().get() < 4, "{half} µs");
    made.remove().await;
}

fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let time = |value: nix::sys::time::TimeVal| {
        Duration::new(u64::try_from(value.tv_sec()).unwrap(), u32::try_from(value.tv_usec() * 1000).unwrap())
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the machine for itself"]
async fn fifty_thousand_lines_a_second_are_carried() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let line = "0123456789".repeat(10);
    // 2000 lines each 30 ms, or as fast as they can be written.
    let script = format!(
        "yes {line} | head -n 2000 > /block; while [ ! -e /go ]; do sleep 0.02; done; \
         for i in $(seq 250); do cat /block; sleep 0.02; done; echo last; exec sleep 60"
    );
    let made = Made::shell(engine.client(), &script).await;
    made.start().await;
    let mut stream = stand.logs(ContainerLogQuery { tail: Some(0), ..following(&made.id) }).await;
    assert!(stream.is_quiet(Duration::from_millis(500)).await);
    super::output::touch(&made, "/go").await;
    stream.until("the first line", |lines| !lines.is_empty()).await;
    let (began, used) = (Instant::now(), cpu());
    stream.until("the last line", |lines| lines.last().is_some_and(|line| line.text == "last")).await;
    let (took, used) = (began.elapsed(), cpu().saturating_sub(used));
    let lines = stream.lines.len();
    println!(
        "{lines} lines in {took:?} ({} a second), {} dropped, {} messages, {used:?} of CPU in agent and reader together",
        u128::try_from(lines).unwrap() * 1000 / took.as_millis(),
        stream.dropped,
        stream.batches,
    );
    let count = |lines: &[LogLine]| u64::try_from(lines.len()).unwrap();
    assert_eq!(count(&stream.lines) + stream.dropped, 500_001);
    made.remove().await;
}
