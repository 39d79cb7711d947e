//! What is said between a program in a container and whoever runs it.
//!
//! The two directions wait for nothing of each other. Either is slowed down by whoever does not take what it brings, and
//! little lies in between.

use super::closings::{NOT_RUNNING, plain};
use crate::rooms::{
    fleet::{Cause, Sent, Told},
    output::{self, UNKNOWN_WORK, Vigil, WRONG_QUERY, Watched, silent},
};
use actix_web::web::Bytes;
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Session};
use domain::containers::wire::{ExecSaying, ExecWish, TerminalSize};
use futures_util::{StreamExt, stream::BoxStream};
use serde::{Deserialize, Serialize};
use std::{
    future::pending,
    pin::{Pin, pin},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

/// A client is asked this often whether it is still there.
const PING: Duration = Duration::from_secs(15);
/// A client of which nothing was heard for so long, not even an answer to a ping, has gone.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a client may take to read what is left, and to hear of the end.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// The longest reason that the end of a WebSocket carries, in bytes.
const LONGEST_REASON: usize = 120;
/// What cannot be understood.
const MISUNDERSTOOD: u16 = 4400;

/// What a client says in words.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Saying {
    Resize { rows: u16, columns: u16 },
    EndInput {},
    Input { text: String },
}

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    /// The program has ended with this.
    Exited(Option<i64>),
    /// Nobody knows how it ended, because of this.
    Lost { code: u16, reason: String },
}

impl End {
    fn lost(code: u16, reason: impl AsRef<str>) -> Self {
        Self::Lost { code, reason: plain(reason.as_ref()) }
    }

    /// The same for the audit log.
    pub(super) fn told(&self) -> Result<Option<i64>, String> {
        match self {
            Self::Exited(code) => Ok(*code),
            Self::Lost { reason, .. } => Err(reason.clone()),
        }
    }
}

impl From<Cause> for End {
    fn from(cause: Cause) -> Self {
        let ours = matches!(cause.code, WRONG_QUERY | UNKNOWN_WORK | NOT_RUNNING);
        Self::lost(if ours { cause.code } else { CloseCode::Error.into() }, cause.reason)
    }
}

/// Passes on everything until the program has ended, or either side has gone.
pub(super) async fn talk(
    session: &Session,
    messages: AggregatedMessageStream,
    (mut ordered, teller): (BoxStream<'static, Sent>, mpsc::Sender<Told>),
    mut vigil: Vigil,
) -> End {
    let first = {
        let mut opening = pin!(output::opened(&mut ordered));
        loop {
            match vigil.over(&mut opening).await {
                Watched::Ready(Ok(first)) => break first,
                Watched::Ready(Err(cause)) => return cause.into(),
                Watched::Over(why) => return over(why, &vigil),
                Watched::Quiet => {}
            }
        }
    };
    let messages = pin!(messages);
    let end = tokio::select! {
        why = watch(&mut vigil) => over(why, &vigil),
        end = outgoing(session.clone(), ordered, first) => end,
        end = incoming(session.clone(), messages, teller) => end,
        end = ping(session.clone()) => end,
    };
    match end {
        // The agent's end closes as well then, and may be the first to do so.
        End::Lost { .. } if vigil.is_stopping() => over(output::STOPPING, &vigil),
        end => end,
    }
}

/// Tells the client how it ended.
pub(super) async fn close(mut session: Session, end: End) {
    let telling = async {
        let (code, reason) = match end {
            End::Exited(code) => {
                // Whoever has gone is not told.
                let _ = session.text(json(&ExecSaying::Exited { code })).await;
                (CloseCode::Normal, None)
            }
            End::Lost { code, mut reason } => {
                reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
                (CloseCode::from(code), Some(reason))
            }
        };
        let _ = session.close(Some(CloseReason { code, description: reason })).await;
    };
    let _ = timeout(LAST_WORDS, telling).await;
}

fn over(why: &str, vigil: &Vigil) -> End {
    let code = if vigil.is_stopping() { CloseCode::Away } else { CloseCode::Policy };
    End::lost(code.into(), why)
}

/// Ends when there is no going on.
async fn watch(vigil: &mut Vigil) -> &'static str {
    loop {
        if let Watched::Over(why) = vigil.over(pending::<()>()).await {
            return why;
        }
    }
}

/// What the program writes, and how it ends.
async fn outgoing(mut session: Session, mut ordered: BoxStream<'static, Sent>, first: Sent) -> End {
    let mut next = Some(first);
    loop {
        let sent = match next.take() {
            Some(first) => Some(first),
            None => ordered.next().await,
        };
        let passed = match sent {
            Some(Sent::Opened) => Ok(()),
            Some(Sent::Binary(bytes)) => session.binary(bytes).await,
            Some(Sent::Message(text)) => match serde_json::from_str(&text) {
                Ok(ExecSaying::Exited { code }) => return End::Exited(code),
                Ok(started @ ExecSaying::Started) => session.text(json(&started)).await,
                // An agent that is newer than this.
                Err(_) => Ok(()),
            },
            Some(Sent::End(Some(cause))) => return cause.into(),
            Some(Sent::End(None)) => {
                let reason = "the agent closed the stream without saying how the program ended";
                return End::lost(CloseCode::Error.into(), reason);
            }
            None => return silent().into(),
        };
        if passed.is_err() {
            return gone();
        }
    }
}

/// What the client says.
async fn incoming(
    mut session: Session,
    mut messages: Pin<&mut AggregatedMessageStream>,
    teller: mpsc::Sender<Told>,
) -> End {
    let mut has_ended = false;
    loop {
        let told = match timeout(SILENCE, messages.next()).await {
            Ok(Some(Ok(AggregatedMessage::Binary(bytes)))) => Told::Binary(bytes),
            Ok(Some(Ok(AggregatedMessage::Text(text)))) => match read(&text) {
                Ok(told) => told,
                Err(end) => return end,
            },
            Ok(Some(Ok(AggregatedMessage::Ping(bytes)))) => {
                let _ = session.pong(&bytes).await;
                continue;
            }
            Ok(Some(Ok(AggregatedMessage::Pong(_)))) => continue,
            Ok(Some(Ok(AggregatedMessage::Close(_)) | Err(_)) | None) => return gone(),
            Err(_elapsed) => return End::lost(CloseCode::Policy.into(), "the client did not answer any more"),
        };
        let is_input = matches!(told, Told::Binary(_));
        if is_input && has_ended {
            continue;
        }
        has_ended |= matches!(&told, Told::Message(text) if *text == json(&ExecWish::EndInput));
        if teller.send(told).await.is_err() {
            // What the agent sends tells why.
            pending::<()>().await;
        }
    }
}

fn read(text: &str) -> Result<Told, End> {
    let misunderstood = |error: serde_json::Error| End::lost(MISUNDERSTOOD, format!("cannot be understood: {error}"));
    Ok(match serde_json::from_str(text).map_err(misunderstood)? {
        Saying::Input { text } => Told::Binary(Bytes::from(text)),
        Saying::EndInput {} => Told::Message(json(&ExecWish::EndInput)),
        Saying::Resize { rows: 0, .. } | Saying::Resize { columns: 0, .. } => {
            return Err(End::lost(MISUNDERSTOOD, "a terminal has at least one line of one character"));
        }
        Saying::Resize { rows, columns } => Told::Message(json(&ExecWish::Resize(TerminalSize { rows, columns }))),
    })
}

/// Asks whether the client is there; ends when it is not.
async fn ping(mut session: Session) -> End {
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pings.tick().await;
        if session.ping(b"").await.is_err() {
            return gone();
        }
    }
}

fn gone() -> End {
    End::lost(CloseCode::Normal.into(), "the client closed the connection")
}

/// What can be written as JSON, as all of this can.
fn json(what: &impl Serialize) -> String {
    serde_json::to_string(what).unwrap_or_default()
}
