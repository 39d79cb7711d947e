//! What connects those who wait: agents that ask what there is to do, and readers of what agents send.

use actix_web::web::Bytes;
use domain::{fleet::protocol::StreamSource, ids::ServerId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, mpsc};

/// How many messages of a stream may lie here until its reader takes them; then the agent waits.
fn room(source: &StreamSource) -> usize {
    match source {
        // One line each.
        StreamSource::Logs(_) => 256,
        // Many lines each, or as much as was written at once.
        StreamSource::ContainerLogs(_)
        | StreamSource::ContainerStats(_)
        | StreamSource::ContainerExec(_)
        | StreamSource::Image(_)
        | StreamSource::Images
        | StreamSource::Unknown => 8,
    }
}
/// How many messages to an agent may lie here until the agent takes them; then whoever sends them waits.
const ROOM_TO_AGENT: usize = 8;

/// Wakes agents that wait.
#[derive(Debug, Default)]
pub struct Bells(Mutex<HashMap<ServerId, Arc<Notify>>>);

impl Bells {
    /// Wakes the agent of a server, if it waits.
    pub fn ring(&self, server: ServerId) {
        if let Some(bell) = self.bells().get(&server) {
            bell.notify_waiters();
        }
    }

    /// What wakes the agent of a server.
    pub(super) fn of(&self, server: ServerId) -> Arc<Notify> {
        self.bells().entry(server).or_default().clone()
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<ServerId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a stream has ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// The code with which the agent closed it; 0 if it did not.
    pub(crate) code: u16,
    /// The same in words.
    pub(crate) reason: String,
}

/// What an agent sends through a stream.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The agent is there.
    Opened,
    /// A message.
    Message(String),
    /// A message that is no text.
    Binary(Bytes),
    /// The end, with the reason if it is not the natural one.
    End(Option<Cause>),
}

/// What is sent to an agent through a stream.
#[derive(Debug)]
pub(crate) enum Told {
    /// A message.
    Message(String),
    /// A message that is no text.
    Binary(Bytes),
}

/// The end of a stream that belongs to the agent's connection.
#[derive(Debug)]
pub(super) struct AgentsEnd {
    /// Where goes what the agent sends.
    pub(super) sender: mpsc::Sender<Sent>,
    /// From where comes what it is sent; it ends when nobody has anything to say any more.
    pub(super) told: mpsc::Receiver<Told>,
}

/// The end that belongs to whoever asked.
#[derive(Debug)]
pub(crate) struct ReadersEnd {
    /// What the agent sends.
    pub(crate) receiver: mpsc::Receiver<Sent>,
    /// Where goes what it is sent.
    pub(crate) teller: mpsc::Sender<Told>,
}

/// Streams that were asked for, by id, until an agent opens them.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<String, Expected>>);

#[derive(Debug)]
struct Expected {
    server: ServerId,
    end: AgentsEnd,
}

impl Streams {
    /// Expects a stream of this from the agent of a server.
    pub(crate) fn expect(&self, id: &str, server: ServerId, source: &StreamSource) -> ReadersEnd {
        let (sender, receiver) = mpsc::channel(room(source));
        let (teller, told) = mpsc::channel(ROOM_TO_AGENT);
        let mut streams = self.streams();
        // Those whose readers have hung up.
        streams.retain(|_, expected| !expected.end.sender.is_closed());
        streams.insert(id.to_owned(), Expected { server, end: AgentsEnd { sender, told } });
        ReadersEnd { receiver, teller }
    }

    /// What the agent of a server gets of a stream that it was asked for; once for each.
    pub(super) fn take(&self, id: &str, server: ServerId) -> Option<AgentsEnd> {
        let mut streams = self.streams();
        let ours = streams.get(id).is_some_and(|expected| expected.server == server);
        if ours { streams.remove(id).map(|expected| expected.end) } else { None }
    }

    /// Expects it no more.
    pub(crate) fn forget(&self, id: &str) {
        self.streams().remove(id);
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<String, Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_opened_once_and_by_its_own_agent() {
        let streams = Streams::default();
        let expect = |id| streams.expect(id, ServerId(1), &StreamSource::Unknown);
        let receiver = expect("a");
        assert!(streams.take("a", ServerId(2)).is_none());
        assert!(streams.take("a", ServerId(1)).is_some());
        assert!(streams.take("a", ServerId(1)).is_none());
        drop(receiver);
        let gone = expect("b");
        drop(gone);
        let _other = expect("c");
        assert!(streams.take("b", ServerId(1)).is_none(), "nobody reads it any more");
    }
}
