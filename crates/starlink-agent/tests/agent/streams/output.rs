//! What containers write, byte for byte, out of real engines.

use super::stand::{Made, Stand, everything, following, joined, shown};
use crate::{docker::bed::until, engine::shared};
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use domain::{
    containers::{EngineId, wire::ContainerLogQuery},
    fleet::protocol::{LogLine, LogStream},
};
use std::collections::HashMap;

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

fn kept_by(driver: &str, options: &[(&str, &str)]) -> impl FnOnce(&mut ContainerCreateBody) {
    let config: HashMap<_, _> = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let log_config = Some(HostConfigLogConfig { typ: Some(driver.to_owned()), config: Some(config) });
    move |body| body.host_config = Some(HostConfig { log_config, ..HostConfig::default() })
}

#[tokio::test]
async fn fc_11_any_bytes_come_through_and_long_lines_in_pieces() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let script = r"printf 'before-\377\376-after\nnext\n'; printf '\355\253\356\333\003\000\n' >&2;
        for i in 1 2 3 4; do echo 10 %; printf '1 %%\r2 %%\r'; done; echo;
        yes 'é🚀' | tr -d '\n' | head -c 1000000; echo; echo; printf 'no end'";
    // The engine's usual driver keeps JSON, which cannot hold the halves of a character.
    let made = Made::with(engine.client(), script, kept_by("local", &[])).await;
    let mut followed = stand.logs(following(&made.id)).await;
    let made = made.run().await;
    followed.until_said("no end", 1).await;
    let all = stand.all(everything(&made.id)).await;
    for lines in [&all, &followed.lines] {
        let output = joined(lines, LogStream::Stdout);
        let bars = "10 %\n1 %\r2 %\r".repeat(4);
        let long = "é🚀".repeat(1_000_000 / 6);
        // The last character was cut by the program itself.
        let cut = format!("{long}é\u{fffd}");
        let expected = format!("before-\u{fffd}\u{fffd}-after\nnext\n{bars}\n{cut}\n\nno end\n");
        assert!(output == expected, "{} of {}", output.len(), expected.len());
        assert_eq!(joined(lines, LogStream::Stderr), format!("{}\u{3}\u{0}\n", "\u{fffd}".repeat(4)));
        assert!(lines.iter().all(|line| line.text.len() <= 32 << 10));
        assert!(lines.iter().filter(|line| line.continues).count() >= 60);
    }
    made.remove().await;
}

#[tokio::test]
async fn a_terminal_s_output_comes_without_its_line_ends() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let script = r"echo one; echo two >&2; printf '1 %%\r2 %%\n'; yes 0123456789 | tr -d '\n' | head -c 600000; echo; \
            yes 'é🚀' | tr -d '\n' | head -c 60000; echo; echo end";
    let made = Made::with(engine.client(), script, |body| body.tty = Some(true)).await.run().await;
    let lines = stand.all(everything(&made.id)).await;
    let output = joined(&lines, LogStream::Stdout);
    let expected = format!("one\ntwo\n1 %\r2 %\n{}\n", "0123456789".repeat(60_000));
    let differs = output.bytes().zip(expected.bytes()).position(|(one, other)| one != other);
    let rest =
        output.strip_prefix(&expected).unwrap_or_else(|| panic!("{differs:?} {} {:?}", output.len(), output.get(..50)));
    // The engine's usual driver keeps JSON, which cannot hold the halves of a character where a line is cut.
    let whole: Vec<&str> = rest.split('\u{fffd}').filter(|text| !text.is_empty()).collect();
    assert!(
        whole.len() <= 4 && whole.iter().all(|text| text.trim_matches(['é', '🚀']).trim_start().len() < 5),
        "{whole:?}"
    );
    assert!(rest.ends_with("🚀\nend\n"));
    // Long enough to be cut anywhere, it can be gone on with anywhere.
    let middle = lines.get(lines.len() / 2).unwrap();
    let rest = stand.all(ContainerLogQuery { after: Some(middle.cursor.clone()), ..everything(&made.id) }).await;
    assert_eq!(rest, lines[lines.len() / 2 + 1..]);
    made.remove().await;
}

/// Two streams, each in an order of its own.
const CHATTY: &str = "for i in $(seq 20); do for n in $(seq 40); do echo o$i.$n; done; \
                      for n in $(seq 10); do echo e$i.$n >&2; done; done";

#[tokio::test]
async fn reading_goes_on_after_any_line() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::shell(engine.client(), CHATTY).await.run().await;
    let all = stand.all(everything(&made.id)).await;
    assert_eq!(all.len(), 1000);
    for index in (0..all.len()).step_by(37) {
        let after = all.get(index).map(|line| line.cursor.clone());
        let rest = stand.all(ContainerLogQuery { after, ..everything(&made.id) }).await;
        assert_eq!(shown(&rest), shown(&all[index + 1..]), "after {index}");
    }
    // While it is followed, it ends only when the container is removed.
    let after = all.last().map(|line| line.cursor.clone());
    let mut stream = stand.logs(ContainerLogQuery { after, ..following(&made.id) }).await;
    assert!(stream.is_quiet(std::time::Duration::from_millis(200)).await);
    made.remove().await;
    assert_eq!(stream.end().await, (1000, "end".to_owned()));
}

#[tokio::test]
async fn the_last_lines_and_those_since_a_time_can_be_had() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let script = "for i in $(seq 500); do echo $i; done; sleep 0.1; echo late; echo last";
    let made = Made::shell(engine.client(), script).await.run().await;
    let query = everything(&made.id);
    let all = stand.all(query.clone()).await;
    assert_eq!(all.len(), 502);
    for tail in [0, 1, 2, 300, 502, 10_000] {
        let from = all.len().saturating_sub(usize::try_from(tail).unwrap());
        let lines = stand.all(ContainerLogQuery { tail: Some(tail), ..query.clone() }).await;
        // Their cursors, too, are the same.
        assert_eq!(lines, all[from..], "the last {tail}");
    }
    let since = all.get(500).map(|line| line.at);
    let lines = stand.all(ContainerLogQuery { since, ..query.clone() }).await;
    assert_eq!(texts(&lines), ["late", "last"]);
    let lines = stand.all(ContainerLogQuery { since, tail: Some(1), ..query.clone() }).await;
    assert_eq!(texts(&lines), ["last"]);
    let after = all.get(400).map(|line| line.cursor.clone());
    let lines = stand.all(ContainerLogQuery { after, tail: Some(3), ..query }).await;
    assert_eq!(lines, all[499..]);
    made.remove().await;
}

#[tokio::test]
async fn only_what_comes_can_be_followed() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let script = "echo before; while [ ! -e /go ]; do sleep 0.02; done; echo after; exec sleep 60";
    let made = Made::shell(engine.client(), script).await;
    made.start().await;
    let mut all = stand.logs(following(&made.id)).await;
    all.until_said("before", 1).await;
    let mut new = stand.logs(ContainerLogQuery { tail: Some(0), ..following(&made.id) }).await;
    assert!(new.is_quiet(std::time::Duration::from_millis(200)).await);
    touch(&made, "/go").await;
    for stream in [&mut all, &mut new] {
        stream.until_said("after", 1).await;
    }
    assert_eq!((texts(&all.lines), texts(&new.lines)), (vec!["before", "after"], vec!["after"]));
    made.remove().await;
}

pub(super) async fn touch(made: &Made, path: &str) {
    let options =
        bollard::models::ExecConfig { cmd: Some(vec!["touch".to_owned(), path.to_owned()]), ..Default::default() };
    let exec = made.client.create_exec(made.id.as_str(), options).await.unwrap().id;
    let start = bollard::exec::StartExecOptions { detach: true, ..Default::default() };
    made.client.start_exec(&exec, Some(start)).await.unwrap();
}

/// Lines once and in order, with nothing missing after the first of them.
fn check_numbered(lines: &[LogLine], last: usize) -> usize {
    let numbers: Vec<usize> = lines.iter().map(|line| line.text.parse().unwrap()).collect();
    let first = numbers.first().copied().unwrap();
    let differs = numbers.iter().zip(first..).find(|(number, expected)| *number != expected);
    assert_eq!((differs, numbers.last()), (None, Some(&last)));
    first
}

async fn check_rotation(driver: &str, options: &[(&str, &str)]) {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    // Slowly enough for the engine: where it changes files faster than it reads them, it leaves some out.
    let script = "for i in $(seq 1000); do for n in 0 1 2 3 4 5 6 7 8 9; do echo $i$n; done; [ $((i % 10)) = 0 ] && sleep 0.03; done; \
                  exec sleep 60";
    let made = Made::with(engine.client(), script, kept_by(driver, options)).await;
    let mut stream = stand.logs(following(&made.id)).await;
    made.start().await;
    stream.until_said("10009", 1).await;
    assert_eq!(check_numbered(&stream.lines, 10_009), 10);
    // A later reader has what the engine has kept, with the same cursors.
    let kept = stand.all(everything(&made.id)).await;
    let first = check_numbered(&kept, 10_009);
    assert!(first > 10, "nothing was rotated away");
    let middle = stream.lines.get(9500).unwrap().cursor.clone();
    let rest = stand.all(ContainerLogQuery { after: Some(middle), ..everything(&made.id) }).await;
    assert_eq!(rest, stream.lines[9501..]);
    made.remove().await;
}

#[tokio::test]
async fn files_of_json_may_be_rotated_meanwhile() {
    check_rotation("json-file", &[("max-size", "100k"), ("max-file", "2")]).await;
}

#[tokio::test]
async fn files_of_the_local_driver_may_be_rotated_meanwhile() {
    check_rotation("local", &[("max-size", "100k"), ("max-file", "2")]).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_reason() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::with(engine.client(), "echo x", kept_by("none", &[])).await.run().await;
    for query in [everything(&made.id), following(&made.id)] {
        let (code, reason) = stand.logs(query).await.end().await;
        assert!(code == 1011 && reason.contains("does not support reading"), "{code} {reason}");
    }
    let missing = EngineId::parse("nothing-of-this-name").unwrap();
    for query in [everything(&missing), following(&missing)] {
        assert_eq!(stand.logs(query).await.end().await, (4404, "unknown_container".to_owned()));
    }
    let query = ContainerLogQuery { after: Some("nonsense".to_owned()), ..everything(&made.id) };
    assert_eq!(stand.logs(query).await.end().await.0, 4400);
    made.remove().await;
}

#[tokio::test]
async fn a_container_that_removes_itself_is_read_to_its_end() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::with(engine.client(), "for i in $(seq 10 2009); do echo $i; done; sleep 0.5", |body| {
        body.host_config = Some(HostConfig { auto_remove: Some(true), ..HostConfig::default() });
    })
    .await;
    let mut stream = stand.logs(following(&made.id)).await;
    made.start().await;
    assert_eq!(stream.end().await, (1000, "end".to_owned()));
    check_numbered(&stream.lines, 2009);
}

#[tokio::test]
async fn who_reads_slowly_slows_nothing_and_is_told_what_he_misses() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let line = "0123456789".repeat(10);
    let script =
        format!("while [ ! -e /go ]; do sleep 0.02; done; yes {line} | head -n 150000; echo last; exec sleep 60");
    let made = Made::shell(engine.client(), &script).await;
    made.start().await;
    let mut slow = stand.logs(following(&made.id)).await;
    let mut quick = stand.logs(ContainerLogQuery { tail: Some(1), ..following(&made.id) }).await;
    assert!(slow.is_quiet(std::time::Duration::from_millis(100)).await);
    touch(&made, "/go").await;
    // Somebody else sees the end; who does not read until then has missed something.
    quick.until("the end", |lines| lines.last().is_some_and(|line| line.text == "last")).await;
    slow.until("the end", |lines| lines.last().is_some_and(|line| line.text == "last")).await;
    assert!(slow.dropped > 0);
    assert_eq!(u64::try_from(slow.lines.len()).unwrap() + slow.dropped, 150_001);
    // What was there already is never dropped.
    let mut all = stand.logs(everything(&made.id)).await;
    until("some time", async || true).await;
    assert_eq!((all.end().await.0, all.dropped, all.lines.len()), (1000, 0, 150_001));
    made.remove().await;
}
