//! The output of containers and what they use, from an agent that the test plays to whoever watches.

pub(crate) mod agent;
pub(crate) mod exec;

use crate::support::{bearer, check_problem};
use agent::{Event, Events, Site, line, reading};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tests::{Client, eventually};

/// How much memory a process takes, in MiB.
fn memory_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn readers_share_one_stream_of_the_agents_and_see_everything_once() {
    let site = Site::start().await;
    site.agent.shown.write_numbered(100, 10);
    let path = site.path("logs?follow=true");
    let (mut one, mut two) =
        (Events::open(&site.admin, &path, None).await, Events::open(&site.admin, &path, None).await);
    assert_eq!(one.texts(100).await, two.texts(100).await);
    site.agent.shown.write_numbered(100, 10);
    let (of_one, of_two) = (one.texts(100).await, two.texts(100).await);
    assert_eq!(of_one, of_two);
    assert!(of_one[0].starts_with("100 ") && of_one[99].starts_with("199 "), "{of_one:?}");
    assert_eq!(site.agent.shown.follows().len(), 1);
    // Who comes back goes on after the last line that they saw, by either way of saying so.
    let path = site.path("logs");
    let mut again = Events::open(&site.admin, &format!("{path}?tail=3"), Some("64-1-1-0-0")).await;
    assert!(again.texts(100).await[0].starts_with("100 "));
    assert_eq!(
        again.next().await.unwrap(),
        Event { id: None, kind: "end".to_owned(), data: json!({ "reason": null }) }
    );
    let plain = site.admin.get(&format!("{path}?after=c6-1-1-0-0")).await.expect(200);
    assert_eq!(plain.text.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(), ["198", "199"]);
}

#[tokio::test]
async fn who_is_slow_is_told_how_much_is_missing_and_who_is_fast_misses_nothing() {
    const LINES: u64 = 30_000;
    let site = Site::start().await;
    let path = site.path("logs?follow=true&tail=0");
    let mut fast = Events::open(&site.admin, &path, None).await;
    let mut slow = Events::open(&site.admin, &path, None).await;
    let before = memory_mib(site.server.pid());
    // Step by step, so that the one stays ahead of the other, whose connection takes some as well.
    for read in (0..LINES).step_by(500) {
        site.agent.shown.write_numbered(500, 1000);
        assert_eq!(fast.count(read, read + 500).await, 0);
    }
    let dropped = slow.count(0, LINES).await;
    assert!((1000..LINES).contains(&dropped), "{dropped}");
    let taken = memory_mib(site.server.pid()).saturating_sub(before);
    assert!(taken < 64, "{taken} MiB for {LINES} lines of 1 kB");
}

#[tokio::test]
async fn twenty_readers_take_little_memory_and_one_stream() {
    const LINES: u64 = 20_000;
    let site = Site::start().await;
    let path = site.path("logs?follow=true&tail=0");
    let before = memory_mib(site.server.pid());
    let mut readers = Vec::new();
    let viewer = bearer(&site.admin, "viewer", "viewer", None).await;
    for _ in 0..10 {
        readers.push(Events::open(&site.admin, &path, None).await);
        readers.push(Events::open(&viewer, &path, None).await);
    }
    let begun = Instant::now();
    site.agent.shown.write_numbered(usize::try_from(LINES).unwrap(), 100);
    let reading = readers.into_iter().map(|mut reader| async move { reader.count(0, LINES).await });
    let dropped = futures_util::future::join_all(reading).await;
    let (took, taken) = (begun.elapsed(), memory_mib(site.server.pid()).saturating_sub(before));
    assert!(taken < 64, "{taken} MiB");
    assert_eq!(site.agent.shown.follows().len(), 1);
    println!("20 readers of {LINES} lines: {took:?}, {taken} MiB more, dropped {dropped:?}");
}

#[tokio::test]
async fn nobody_shuts_the_others_out() {
    let site = Site::start().await;
    for (name, rest) in [("one", "logs?follow=true&tail=0"), ("other", "logs?follow=true")] {
        let viewer = bearer(&site.admin, name, "viewer", None).await;
        let path = site.path(rest);
        let mut open = Vec::new();
        for _ in 0..16 {
            open.push(Events::open(&viewer, &path, None).await);
        }
        let refused = viewer.get(&path).await;
        check_problem(&refused, 429, rest);
        assert!(refused.header("retry-after").is_some(), "{rest}");
        assert!(refused.text.contains("close one of them"), "{}", refused.text);
        drop(Events::open(&site.admin, &path, None).await);
        drop(open);
        eventually("a place", async || {
            let request = viewer.request(reqwest::Method::GET, &path);
            (request.send().await.unwrap().status() == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_loses_and_repeats_nothing() {
    let site = Site::start().await;
    let shown = &site.agent.shown;
    shown.write_numbered(10, 10);
    let mut reader = Events::open(&site.admin, &site.path("logs?follow=true"), None).await;
    reader.texts(10).await;
    let mut next = 10;
    for cut in 1..=3 {
        eventually("the stream", async || (shown.follows().len() == cut).then_some(())).await;
        shown.write_numbered(5, 10);
        reader.texts(3).await;
        shown.cut();
        shown.write_numbered(5, 10);
        let rest = reader.texts(7).await;
        next += 10;
        assert!(rest[6].starts_with(&format!("{} ", next - 1)), "{rest:?}");
    }
    let follows = shown.follows();
    assert!(follows.iter().all(|source| source["after"].is_string()), "{follows:?}");
    shown.remove();
    let end = reader.next().await.unwrap();
    assert_eq!((end.kind.as_str(), &end.data["reason"]), ("end", &json!("the container was removed")));
    assert_eq!(reader.next().await, None);
}

#[tokio::test]
async fn no_text_can_look_like_an_event_or_a_line_of_its_own() {
    let texts = [
        "\r\n\nevent: end\ndata: {}\n\n",
        "\rid: 1\r\rdata: x",
        "\u{1b}[31mred\u{1b}[0m",
        "a\u{2028}event: x\u{2029}\u{85}",
        "data: {\"text\": \"\"}",
        "\0\u{7}\u{fffd}🚀",
        "",
    ];
    let site = Site::start().await;
    site.agent.shown.write(texts.map(|text| line("stderr", text)));
    let mut reader = Events::open(&site.admin, &site.path("logs?follow=true"), None).await;
    assert_eq!(reader.texts(texts.len()).await, texts);
    // The same while it is followed.
    eventually("the output to be followed", async || (!site.agent.shown.follows().is_empty()).then_some(())).await;
    site.agent.shown.write(texts.map(|text| line("stderr", text)));
    assert_eq!(reader.texts(texts.len()).await, texts);
}

#[tokio::test]
async fn lines_are_shown_as_they_are_asked_for() {
    let site = Site::start().await;
    let mut torn = line("stdout", "be");
    torn["continues"] = json!(true);
    let mark = line("agent", "the container was started again");
    site.agent.shown.write([line("stdout", "out"), line("stderr", "err"), mark, torn, line("stdout", "tween")]);
    let check = async |query: &str, expected: &str| {
        let answer = site.admin.get(&site.path(&format!("logs{query}"))).await.expect(200);
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.text, expected, "{query}");
    };
    let marked = "[starlink] the container was started again";
    check("", &format!("out\nerr\n{marked}\nbetween\n")).await;
    check("?stream=stderr", "err\n").await;
    check("?tail=2", "between\n").await;
    check("?tail=0", "").await;
    check("?since=2027-01-01T00:00:00Z", "").await;
    let at = "2026-01-01T00:00:00.500Z";
    check("?timestamps=true", &format!("{at} out\n{at} err\n{at} {marked}\n{at} between\n")).await;
    let alias = format!("/api/logs/containers/{}?tail=2", site.container);
    assert_eq!(site.admin.get(&alias).await.expect(200).text, "between\n");
    let mut events = Events::open(&site.admin, &site.path("logs"), None).await;
    let mut kinds = Vec::new();
    while let Some(event) = events.next().await {
        kinds.push(event.kind);
    }
    assert_eq!(kinds, ["line", "line", "mark", "line", "line", "end"]);
}

#[tokio::test]
async fn what_cannot_be_shown_is_answered_with_why() {
    let site = Site::start().await;
    let check = async |rest: &str, status: u16, code: &str| {
        let answer = site.admin.get(&site.path(rest)).await;
        check_problem(&answer, status, rest);
        assert_eq!(answer.code(), code, "{}", answer.text);
        answer.at("/detail").as_str().unwrap().to_owned()
    };
    for wrong in ["since=10m", "since=1", "tail=-1", "tail=1000001", "after=x", "after=", "stream=agent", "follow=1"] {
        check(&format!("logs?{wrong}"), 400, "invalid").await;
    }
    let answer = site.admin.get("/api/containers/999/logs").await;
    check_problem(&answer, 404, "unknown");
    for (code, rest, status, problem) in [
        (1011, "logs", 409, "logs_unreadable"),
        (4404, "logs", 404, "not_found"),
        (4400, "logs?after=1-1-1-0-0", 400, "invalid"),
        (4501, "logs", 503, "unavailable"),
        (4504, "logs", 503, "unavailable"),
        (4504, "stats", 503, "unavailable"),
        (4503, "stats", 503, "unavailable"),
        (4409, "stats", 409, "not_running"),
        (4404, "stats", 404, "not_found"),
    ] {
        site.agent.shown.refuse(Some((code, "in the engine's words")));
        for follow in ["", "follow=true"] {
            let with = if rest.contains('?') { "&" } else { "?" };
            let rest =
                if follow.is_empty() || rest == "stats" { rest.to_owned() } else { format!("{rest}{with}{follow}") };
            let detail = check(&rest, status, problem).await;
            let expected = match code {
                4409 => "start it first",
                4404 => "its engine has none",
                4501 => "is too old for this; renew it",
                4503 => "has no place for another stream",
                4504 => "does not answer; see that it runs, then try again: in the engine's words",
                _ => "in the engine's words",
            };
            assert!(detail.contains(expected), "{detail}");
        }
    }
    let agents = Client::send(site.agent.client.request(reqwest::Method::GET, &site.path("logs"))).await;
    check_problem(&agents, 403, "an agent");
}

#[tokio::test]
async fn an_agent_that_is_away_is_said_to_be() {
    let options = tests::ServerOptions {
        program: crate::PROGRAM.into(),
        arguments: ["--agent-grace-seconds", "2"].map(str::to_owned).to_vec(),
        ..tests::ServerOptions::default()
    };
    let site = Site::on(tests::Server::start_with(options)).await;
    site.agent.go();
    eventually("the agent to be missed", async || {
        let answer = site.admin.get(&site.path("logs?follow=true")).await;
        (answer.status == 503 && answer.text.contains("cannot be reached")).then_some(())
    })
    .await;
    check_problem(&site.admin.get(&site.path("stats")).await, 503, "stats");
}

#[tokio::test]
async fn who_may_read_no_more_is_not_shown_any_more() {
    let site = Site::start().await;
    let viewer = bearer(&site.admin, "viewer", "viewer", None).await;
    let mut reader = Events::open(&viewer, &site.path("logs?follow=true"), None).await;
    site.agent.shown.write([line("stdout", "early")]);
    reader.texts(1).await;
    let tokens = site.admin.get("/auth/tokens").await.expect(200);
    let id = tokens.json.as_array().unwrap().iter().find(|token| token["name"] == "viewer").unwrap()["id"].clone();
    site.admin.delete(&format!("/auth/tokens/{id}")).await.expect(204);
    let revoked = Instant::now();
    assert_eq!(reader.next().await, None);
    assert!(revoked.elapsed() < Duration::from_secs(15), "{:?}", revoked.elapsed());
}

#[tokio::test]
async fn what_is_used_is_told_once_or_again_and_again() {
    let site = Site::start().await;
    site.agent.shown.read([reading(None), reading(Some(50.0)), reading(Some(60.0))]);
    let one = site.admin.get(&site.path("stats")).await.expect(200);
    assert_eq!(one.header("content-type"), Some("application/json"));
    let mut members: Vec<&String> = one.json.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(one.at("/cpu_percent"), 50.0, "the first reading that tells the CPU");
    let expected = [
        "at",
        "cpu_percent",
        "disk_read_bytes",
        "disk_write_bytes",
        "machine_cpu_percent",
        "memory_bytes",
        "memory_limit_bytes",
        "memory_percent",
        "network_in_bytes",
        "network_out_bytes",
        "pids",
    ];
    assert_eq!(members, expected);
    site.agent.shown.read((0..3).map(|n| reading(Some(f64::from(n)))));
    let mut events = Events::open(&site.admin, &site.path("stats"), None).await;
    let mut told: Vec<(String, Value)> = Vec::new();
    while let Some(event) = events.next().await {
        told.push((event.kind, event.data["cpu_percent"].clone()));
    }
    assert_eq!(told.last().unwrap().0, "end");
    let usages: Vec<_> = told.iter().filter(|(kind, _)| kind == "usage").map(|(_, cpu)| cpu.clone()).collect();
    assert!(usages.ends_with(&[json!(0.0), json!(1.0), json!(2.0)]), "{told:?}");
}
