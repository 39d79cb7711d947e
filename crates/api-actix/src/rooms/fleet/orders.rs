//! Streams that are ordered of agents.

use super::bells::{ReadersEnd, Sent, Streams, Told};
use domain::{
    entropy::Entropy,
    fleet::{AgentService, protocol::StreamSource},
    identity::Secret,
    ids::ServerId,
};
use futures_util::Stream;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
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
    end: ReadersEnd,
    streams: Arc<Streams>,
    agents: Arc<AgentService>,
    server: ServerId,
    id: String,
}

impl Orders {
    /// Asks the agent of a server for a stream.
    pub(crate) fn order(&self, agents: &Arc<AgentService>, server: ServerId, source: StreamSource) -> Ordered {
        let id = Secret::generate("sls", &*self.entropy).expose().to_owned();
        let end = self.streams.expect(&id, server, &source);
        agents.mailbox().order_stream(server, id.clone(), source);
        Ordered { end, streams: self.streams.clone(), agents: agents.clone(), server, id }
    }
}

impl Ordered {
    /// What the agent sends next; `None` when nothing comes any more.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        self.end.receiver.recv().await
    }

    /// Where goes what the agent is sent.
    pub(crate) fn teller(&self) -> mpsc::Sender<Told> {
        self.end.teller.clone()
    }
}

impl Stream for Ordered {
    type Item = Sent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Sent>> {
        self.end.receiver.poll_recv(context)
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        self.streams.forget(&self.id);
        self.agents.mailbox().forget_stream(self.server, &self.id);
    }
}
