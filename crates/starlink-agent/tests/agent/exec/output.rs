use super::rig::{Machine, heard, in_time, lines, out, query, said};
use domain::{
    fleet::protocol::{LogQuery, LogStream},
    scheduling::RestartPolicy,
};
use starlink_agent::logs::Lines;
use std::time::Duration;

#[tokio::test]
async fn both_streams_are_kept_apart() {
    let mut machine = Machine::new();
    let work = machine.shell("echo one; echo two >&2; printf three");
    machine.run(&work).await;
    assert_eq!(out(&work).await, ["one", "three"]);
    assert_eq!(said(&work, LogStream::Stderr).await, ["two"]);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_replaced_one_by_one() {
    let mut machine = Machine::new();
    let work = machine.work(&["printf", "before-\\377\\376-after\\nnext\\n"]);
    machine.run(&work).await;
    assert_eq!(out(&work).await, ["before-\u{fffd}\u{fffd}-after", "next"]);
    let work = machine.work(&["printf", "\\355\\253\\356\\333\\003\\000\\n"]);
    machine.run(&work).await;
    assert_eq!(out(&work).await, ["\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{3}\0"]);
}

#[tokio::test]
async fn a_character_that_is_torn_by_the_other_stream_is_whole_again() {
    let mut machine = Machine::new();
    let work = machine.shell("printf '\\360\\237'; sleep 0.1; echo err >&2; sleep 0.1; printf '\\232\\200\\n'");
    machine.run(&work).await;
    let told: Vec<_> = lines(&work, query()).await.into_iter().map(|line| (line.stream, line.text)).collect();
    assert_eq!(told, [(LogStream::Stderr, "err".to_owned()), (LogStream::Stdout, "\u{1f680}".to_owned())]);
}

#[tokio::test]
async fn a_line_of_a_million_bytes_is_kept() {
    let mut machine = Machine::new();
    let work = machine.shell("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end");
    machine.run(&work).await;
    let told = lines(&work, query()).await;
    let continued: Vec<_> = told.iter().map(|line| line.continues).collect();
    assert_eq!(continued, [true, true, false, false]);
    assert_eq!(told[..3].iter().map(|line| line.text.len()).sum::<usize>(), 3_000_000);
    assert_eq!(told[3].text, "end");
}

#[tokio::test]
async fn output_is_not_held_back_by_a_reader_that_does_not_read() {
    let mut machine = Machine::new();
    let work = machine.work_with(&["sh", "-c", "head -c 200000 /dev/zero | tr '\\0' '\\n'; echo end"], |spec| {
        spec.log_limit_mib = Some(1);
    });
    let mut slow = None;
    machine.start(&work).await.unwrap();
    if let Ok(lines) = Lines::open(&work.folder, LogQuery { follow: true, ..query() }).await {
        slow = Some(lines);
    }
    assert_eq!(machine.wait(&work).await.code, Some(0));
    let told = lines(&work, query()).await;
    assert!(told[0].text.ends_with("bytes of older output were dropped"), "{}", told[0].text);
    assert_eq!(told.last().unwrap().text, "end");
    let size: u64 =
        std::fs::read_dir(work.folder.join("log")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= 1024 * 1024, "{size} bytes");
    let mut slow = slow.unwrap();
    in_time("the slow reader", async { while slow.next().await.unwrap().is_some() {} }).await;
}

#[tokio::test]
async fn following_begins_before_the_first_start_and_stays_over_restarts() {
    let mut machine = Machine::new();
    let work = machine.work_with(&["sh", "-c", "echo hello; sleep 0.02"], |spec| spec.restart = RestartPolicy::Always);
    let mut following = Lines::open(&work.folder, LogQuery { follow: true, ..query() }).await.unwrap();
    machine.start(&work).await.unwrap();
    let mut told = Vec::new();
    in_time("four runs", async {
        while told.iter().filter(|text| *text == "hello").count() < 4 {
            let line = following.next().await.unwrap().unwrap();
            told.push(line.text.clone());
            // Another reader that begins there goes on there.
            following = Lines::open(&work.folder, LogQuery { follow: true, after: Some(line.cursor), ..query() })
                .await
                .unwrap();
        }
    })
    .await;
    let expected = |index: usize| match index % 2 {
        0 => "hello".to_owned(),
        _ => format!("started again (run {}): ended with code 0", index / 2 + 2),
    };
    assert_eq!(told, (0..7).map(expected).collect::<Vec<_>>());
    machine.stop(&work, Duration::ZERO).await;
    in_time("the end of the log", async { while following.next().await.unwrap().is_some() {} }).await;
}

#[tokio::test]
async fn following_is_told_of_each_line_at_once() {
    let mut machine = Machine::new();
    let work = machine.shell("for n in 1 2 3; do echo line $n; until [ -e $n ]; do sleep 0.01; done; done");
    machine.start(&work).await.unwrap();
    for number in 1..=3 {
        heard(&work, &format!("line {number}")).await;
        std::fs::write(work.folder.join("run").join(number.to_string()), "").unwrap();
    }
    assert_eq!(machine.wait(&work).await.code, Some(0));
}
