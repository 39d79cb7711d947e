//! Passes on what goes through a stream, either way.
//!
//! The two directions wait for nothing of each other: a reader who is slow does not keep from the agent what it is told.

use super::bells::{AgentsEnd, Cause, Sent, Told};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Session};
use futures_util::StreamExt;
use std::{
    pin::{Pin, pin},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

/// A stream is asked this often whether it is still there.
const PING: Duration = Duration::from_secs(15);
/// An agent of which nothing was heard for so long, not even an answer to a ping, has gone.
const SILENCE: Duration = Duration::from_secs(45);

/// Passes on everything until either side has had enough.
pub(super) async fn relay(
    session: Session,
    messages: AggregatedMessageStream,
    end: AgentsEnd,
    mut stopping: watch::Receiver<bool>,
) {
    let AgentsEnd { sender, told } = end;
    let messages = pin!(messages);
    // Whoever asked may have gone.
    let _ = sender.send(Sent::Opened).await;
    let cause = tokio::select! {
        // Nobody reads any more.
        () = sender.closed() => None,
        _ = stopping.wait_for(|stopping| *stopping) => None,
        cause = incoming(session.clone(), messages, &sender) => cause,
        cause = outgoing(session.clone(), told) => Some(cause),
    };
    // Whoever reads may have gone, and the agent as well.
    let _ = sender.send(Sent::End(cause)).await;
    let _ = session.close(None).await;
}

/// What the agent sends, until it has had enough: why, unless it was the natural end.
async fn incoming(
    mut session: Session,
    mut messages: Pin<&mut AggregatedMessageStream>,
    sender: &mpsc::Sender<Sent>,
) -> Option<Cause> {
    loop {
        let sent = match timeout(SILENCE, messages.next()).await {
            Ok(Some(Ok(AggregatedMessage::Text(text)))) => Sent::Message(text.to_string()),
            Ok(Some(Ok(AggregatedMessage::Binary(bytes)))) => Sent::Binary(bytes),
            Ok(Some(Ok(AggregatedMessage::Ping(bytes)))) => {
                let _ = session.pong(&bytes).await;
                continue;
            }
            Ok(Some(Ok(AggregatedMessage::Pong(_)))) => continue,
            Ok(Some(Ok(AggregatedMessage::Close(reason)))) => return cause_of(reason),
            Ok(Some(Err(_)) | None) | Err(_) => return Some(gone()),
        };
        if sender.send(sent).await.is_err() {
            return None;
        }
    }
}

/// What the agent is sent, and the question whether it is there; ends when it is not.
async fn outgoing(mut session: Session, mut told: mpsc::Receiver<Told>) -> Cause {
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let outcome = tokio::select! {
            Some(told) = told.recv() => match told {
                Told::Message(text) => session.text(text).await,
                Told::Binary(bytes) => session.binary(bytes).await,
            },
            _ = pings.tick() => session.ping(b"").await,
        };
        if outcome.is_err() {
            return gone();
        }
    }
}

fn gone() -> Cause {
    Cause { code: 0, reason: "the agent has gone".to_owned() }
}

fn cause_of(reason: Option<CloseReason>) -> Option<Cause> {
    let reason = reason.filter(|reason| reason.code != CloseCode::Normal)?;
    Some(Cause { code: reason.code.into(), reason: reason.description.unwrap_or_default() })
}
