//! What a real engine does not send when it is told to, played.

use super::stand::{Stand, everything, following, shown};
use crate::engine::fake::{Fake, Response};
use domain::containers::EngineId;
use serde_json::json;
use std::time::Duration;

const EARLY: &str = "2026-11-25T09:00:00.000000001Z";

fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

fn stamped(bytes: &[u8]) -> Vec<u8> {
    [EARLY.as_bytes(), b" ", bytes].concat()
}

/// An engine with a container that writes these pieces, with a pause between two.
fn engine(tty: bool, output: Vec<Vec<u8>>, stays_open: bool) -> Fake {
    Fake::start(move |request| {
        if request.line.contains("/logs?") && request.line.contains("tail=1&") {
            Response { status: 200, pieces: Vec::new(), pause: Duration::ZERO, stays_open: false }
        } else if request.line.contains("/logs?") {
            let pieces = output.clone();
            Response { status: 200, pieces, pause: Duration::from_millis(100), stays_open }
        } else if request.line.contains("/containers/") {
            let state = json!({ "Status": "running", "Running": true, "StartedAt": EARLY });
            Response::json(200, &json!({ "Id": "0a1b", "State": state, "Config": { "Tty": tty } }))
        } else {
            Response { status: 200, pieces: Vec::new(), pause: Duration::ZERO, stays_open: false }
        }
    })
}

async fn check(tty: bool, output: Vec<Vec<u8>>, expected: &[&str]) {
    let id = EngineId::parse("0a1b").unwrap();
    let fake = engine(tty, output.clone(), false);
    let mut stand = Stand::at(&fake.socket()).await;
    assert_eq!(shown(&stand.all(everything(&id)).await), expected);
    let fake = engine(tty, output, true);
    let mut stand = Stand::at(&fake.socket()).await;
    let mut stream = stand.logs(following(&id)).await;
    stream.until("all", |lines| lines.len() >= expected.len()).await;
    assert_eq!(shown(&stream.lines), expected);
}

#[tokio::test]
async fn fc_11_a_character_and_a_header_in_pieces_come_through() {
    let rocket = |stamp: fn(&[u8]) -> Vec<u8>| {
        let (first, second, third) =
            (frame(1, &stamp(b"\xf0\x9f")), frame(2, &stamp(b"err\n")), frame(1, &stamp(b"\x9a\x80\n")));
        vec![[&first[..], &second[..5]].concat(), second[5..8].to_vec(), second[8..].to_vec(), third]
    };
    let expected = ["stderr: err", "stdout: \u{1f680}"];
    check(false, rocket(stamped), &expected).await;
    // The same from an engine that tells no times.
    check(false, rocket(<[u8]>::to_vec), &expected).await;
}

#[tokio::test]
async fn a_line_that_has_not_ended_is_shown_after_a_while() {
    let output = vec![frame(1, &stamped(b"10 %\r20 %")), frame(1, &stamped(b"\r30 %")), frame(1, &stamped(b"\n"))];
    let paused: Vec<Vec<u8>> = output.into_iter().flat_map(|piece| [piece, Vec::new(), Vec::new()]).collect();
    let paused: Vec<Vec<u8>> =
        paused.into_iter().map(|piece| if piece.is_empty() { frame(1, b"") } else { piece }).collect();
    check(false, paused, &["stdout: 10 %\r20 %…", "stdout: \r30 %…", "stdout: "]).await;
}

#[tokio::test]
async fn what_is_no_output_is_refused_with_the_engine_s_words() {
    let id = EngineId::parse("0a1b").unwrap();
    let fake = engine(false, vec![frame(3, b"Error grabbing logs: the disk is on fire\n")], false);
    let mut stand = Stand::at(&fake.socket()).await;
    let (code, reason) = stand.logs(everything(&id)).await.end().await;
    assert_eq!((code, reason.as_str()), (1011, "Error grabbing logs: the disk is on fire"));
}

#[tokio::test]
async fn an_engine_that_is_away_is_said_to_be() {
    let id = EngineId::parse("0a1b").unwrap();
    let mut stand = Stand::at(std::path::Path::new("/nonexistent/engine.sock")).await;
    let (code, reason) = stand.logs(everything(&id)).await.end().await;
    assert!(code == 4504 && reason.starts_with("engine_away: there is no socket"), "{code} {reason}");
}
