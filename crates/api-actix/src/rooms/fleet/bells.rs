//! What connects those who wait: agents that ask what there is to do, and readers of what agents send.

use domain::ids::ServerId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, mpsc};

/// How many messages of a stream may lie here until its reader takes them; then the agent waits.
const BUFFER: usize = 256;

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
    /// The end, with the reason if it is not the natural one.
    End(Option<Cause>),
}

/// Streams that were asked for, by id, until an agent opens them.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<String, Expected>>);

#[derive(Debug)]
struct Expected {
    server: ServerId,
    sender: mpsc::Sender<Sent>,
}

impl Streams {
    /// Expects a stream from the agent of a server.
    pub(crate) fn expect(&self, id: &str, server: ServerId) -> mpsc::Receiver<Sent> {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let mut streams = self.streams();
        // Those whose readers have hung up.
        streams.retain(|_, expected| !expected.sender.is_closed());
        streams.insert(id.to_owned(), Expected { server, sender });
        receiver
    }

    /// Where the agent of a server sends what it was asked for; once for each stream.
    pub(super) fn take(&self, id: &str, server: ServerId) -> Option<mpsc::Sender<Sent>> {
        let mut streams = self.streams();
        let ours = streams.get(id).is_some_and(|expected| expected.server == server);
        if ours { streams.remove(id).map(|expected| expected.sender) } else { None }
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
        let receiver = streams.expect("a", ServerId(1));
        assert!(streams.take("a", ServerId(2)).is_none());
        assert!(streams.take("a", ServerId(1)).is_some());
        assert!(streams.take("a", ServerId(1)).is_none());
        drop(receiver);
        let gone = streams.expect("b", ServerId(1));
        drop(gone);
        let _other = streams.expect("c", ServerId(1));
        assert!(streams.take("b", ServerId(1)).is_none(), "nobody reads it any more");
    }
}
