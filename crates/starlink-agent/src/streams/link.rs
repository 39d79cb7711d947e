//! One stream's connection to the server.

use crate::client::Socket;
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::{
    self, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// How long the other side may take to accept what is sent, or to close.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest reason of a closing that a WebSocket carries, in bytes.
const LONGEST_REASON: usize = 120;

/// Why a stream is closed.
pub(super) struct Closing {
    code: CloseCode,
    reason: String,
}

impl Closing {
    pub(super) fn new(code: u16, reason: impl std::fmt::Display) -> Self {
        let mut reason = reason.to_string();
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        Self { code: CloseCode::from(code), reason }
    }

    /// All was sent.
    pub(super) fn end() -> Self {
        Self::new(1000, "end")
    }
}

/// Why there is nobody to send to any more.
pub(super) enum Gone {
    /// The other side has closed.
    Closed,
    /// It does not answer.
    Silent,
    /// The connection is broken.
    Broken(tungstenite::Error),
}

impl From<tungstenite::Error> for Gone {
    fn from(error: tungstenite::Error) -> Self {
        Self::Broken(error)
    }
}

/// A connection, which is asked now and then whether the other side is still there.
pub(super) struct Link {
    socket: Socket,
    pings: Interval,
    unanswered: u32,
}

impl Link {
    pub(super) fn new(socket: Socket, ping: Duration) -> Self {
        let mut pings = interval_at(Instant::now() + ping, ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { socket, pings, unanswered: 0 }
    }

    /// Puts something after what is to be sent next.
    pub(super) async fn feed(&mut self, what: &impl Serialize) -> Result<(), Gone> {
        in_time(self.socket.feed(message(what))).await
    }

    /// Sends what was put together.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        in_time(self.socket.flush()).await
    }

    /// Sends something at once.
    pub(super) async fn send(&mut self, what: &impl Serialize) -> Result<(), Gone> {
        self.send_message(message(what)).await
    }

    /// Sends a message at once.
    pub(super) async fn send_message(&mut self, message: Message) -> Result<(), Gone> {
        in_time(self.socket.send(message)).await
    }

    /// The next text or bytes from the other side; that is there as long as this does not return. It may be given up at
    /// any time.
    pub(super) async fn attend(&mut self) -> Result<Message, Gone> {
        loop {
            tokio::select! {
                heard = self.socket.next() => {
                    self.unanswered = 0;
                    match heard {
                        None | Some(Ok(Message::Close(_))) => return Err(Gone::Closed),
                        Some(Err(error)) => return Err(error.into()),
                        Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => return Ok(message),
                        Some(Ok(_)) => {}
                    }
                }
                _ = self.pings.tick() => {
                    if self.unanswered > 1 {
                        return Err(Gone::Silent);
                    }
                    in_time(self.socket.send(Message::Ping(Vec::new().into()))).await?;
                    self.unanswered += 1;
                }
            }
        }
    }

    /// The same while nothing is taken from the other side, which then need not answer: returns when it is gone.
    pub(super) async fn watch(&mut self) -> Gone {
        loop {
            self.pings.tick().await;
            if let Err(gone) = in_time(self.socket.send(Message::Ping(Vec::new().into()))).await {
                return gone;
            }
        }
    }

    /// Closes, and waits for the other side to do so too, so that nothing that was sent is thrown away.
    pub(super) async fn close(mut self, closing: Closing) {
        let frame = CloseFrame { code: closing.code, reason: closing.reason.into() };
        let closed = async {
            self.socket.close(Some(frame)).await?;
            while let Some(heard) = self.socket.next().await {
                heard?;
            }
            Ok::<_, tungstenite::Error>(())
        };
        if let Ok(Err(error)) = timeout(PATIENCE, closed).await {
            tracing::debug!(%error, "a stream broke off while it was closed");
        }
    }
}

fn message(what: &impl Serialize) -> Message {
    // Nothing that is sent can fail to be written as JSON.
    Message::text(serde_json::to_string(what).unwrap_or_default())
}

async fn in_time(sending: impl Future<Output = Result<(), tungstenite::Error>>) -> Result<(), Gone> {
    match timeout(PATIENCE, sending).await {
        Ok(sent) => sent.map_err(Gone::from),
        Err(_) => Err(Gone::Silent),
    }
}
