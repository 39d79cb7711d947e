//! Streams that are ordered of agents.

use super::bells::{Sent, Streams};
use domain::{
    entropy::Entropy,
    fleet::{AgentService, protocol::StreamSource},
    identity::Secret,
    ids::ServerId,
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Orders streams of agents.
#[derive(Clone)]
pub struct Orders {
    /// Where agents bring what was ordered.
    pub streams: Arc<Streams>,
    /// Makes the ids of streams.
    pub entropy: Arc<dyn Entropy>,
}

/// A stream that was ordered; it is not expected any more when this is dropped.
pub(crate) struct Ordered {
    receiver: mpsc::Receiver<Sent>,
    streams: Arc<Streams>,
    agents: Arc<AgentService>,
    server: ServerId,
    id: String,
}

impl Orders {
    /// Asks the agent of a server for a stream.
    pub(crate) fn order(&self, agents: &Arc<AgentService>, server: ServerId, source: StreamSource) -> Ordered {
        let id = Secret::generate("sls", &*self.entropy).expose().to_owned();
        let receiver = self.streams.expect(&id, server);
        agents.mailbox().order_stream(server, id.clone(), source);
        Ordered { receiver, streams: self.streams.clone(), agents: agents.clone(), server, id }
    }
}

impl Ordered {
    /// What the agent sends next; `None` when nothing comes any more.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        self.receiver.recv().await
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        self.streams.forget(&self.id);
        self.agents.mailbox().forget_stream(self.server, &self.id);
    }
}
