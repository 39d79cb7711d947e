//! What agents have to be told: their open operations, kept in memory as they commit.
//!
//! An agent that waits costs nothing but its place here. What was told is told again after [`AGAIN`], or to a new
//! session, until the agent has reported.

use super::{
    operations::{Operation, OperationState},
    protocol::{StreamOrder, StreamSource},
};
use crate::{
    feed::{Fact, Follower, State},
    ids::{OperationId, ServerId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// After how long an agent is told again what it has not reported on: it may have lost the answer.
const AGAIN: Duration = Duration::from_secs(30);
/// The most operations in one answer: an order is up to a MiB long, and an agent takes 64 MiB.
const MOST: usize = 32;

/// Is told which server's agent there is something for. Called on the thread that commits, so it MUST NOT wait.
pub type AgentBell = Box<dyn Fn(ServerId) + Send + Sync>;

/// Everything that agents have to be told.
pub struct Mailbox {
    boxes: Mutex<BTreeMap<ServerId, Items>>,
    bell: AgentBell,
}

#[derive(Default)]
struct Items {
    operations: BTreeMap<OperationId, Item>,
    streams: Vec<(StreamOrder, Option<Told>)>,
}

struct Item {
    operation: Arc<Operation>,
    /// To which session it was told, and when.
    told: Option<Told>,
    reached: Reached,
}

/// Whether an agent may know of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It was never told.
    No,
    /// It was told, or another process may have done so.
    Maybe,
}

#[derive(Clone)]
struct Told {
    session: String,
    at: Duration,
    cancelling: bool,
}

/// What an agent is to be told now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// What it has to begin.
    pub begin: Vec<Arc<Operation>>,
    /// What it has to end.
    pub cancel: Vec<OperationId>,
    /// Streams that it has to open.
    pub streams: Vec<StreamOrder>,
}

impl Due {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.begin.is_empty() && self.cancel.is_empty() && self.streams.is_empty()
    }
}

impl Mailbox {
    /// An empty one.
    #[must_use]
    pub fn new(bell: AgentBell) -> Self {
        Self { boxes: Mutex::default(), bell }
    }

    /// What a server's agent is to be told in this session at this moment; from then on it counts as told.
    #[must_use]
    pub fn take(&self, server: ServerId, session: &str, now: Duration) -> Due {
        let mut boxes = self.boxes();
        let Some(items) = boxes.get_mut(&server) else { return Due::default() };
        let mut due = Due::default();
        for (stream, told) in &mut items.streams {
            if told.as_ref().is_none_or(|told| !told.is_fresh(session, now)) {
                *told = Some(Told { session: session.to_owned(), at: now, cancelling: false });
                due.streams.push(stream.clone());
            }
        }
        let waiting = items.operations.values_mut().filter(|item| item.is_due(session, now));
        for item in waiting.take(MOST) {
            let cancelling = item.operation.cancel_requested;
            item.told = Some(Told { session: session.to_owned(), at: now, cancelling });
            item.reached = Reached::Maybe;
            if cancelling {
                due.cancel.push(item.operation.id);
            } else {
                due.begin.push(item.operation.clone());
            }
        }
        due
    }

    /// The operations of a server that its agent said it had begun.
    #[must_use]
    pub fn begun(&self, server: ServerId) -> Vec<OperationId> {
        let boxes = self.boxes();
        let items = boxes.get(&server).map(|items| items.operations.values()).into_iter().flatten();
        items.filter(|item| item.operation.state == OperationState::Running).map(|item| item.operation.id).collect()
    }

    /// Every operation that is open, and whether its agent may have been told of it.
    #[must_use]
    pub fn open(&self) -> Vec<(Arc<Operation>, Reached)> {
        let boxes = self.boxes();
        let items = boxes.values().flat_map(|items| items.operations.values());
        items.map(|item| (item.operation.clone(), item.reached)).collect()
    }

    /// Asks a server's agent for a stream.
    pub fn order_stream(&self, server: ServerId, id: String, source: StreamSource) {
        self.boxes().entry(server).or_default().streams.push((StreamOrder { id, source }, None));
        (self.bell)(server);
    }

    /// Asks for a stream no more: it is open, or nobody waits for it.
    pub fn forget_stream(&self, server: ServerId, id: &str) {
        if let Some(items) = self.boxes().get_mut(&server) {
            items.streams.retain(|(stream, _)| stream.id != id);
        }
    }

    fn boxes(&self) -> MutexGuard<'_, BTreeMap<ServerId, Items>> {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Item {
    fn is_due(&self, session: &str, now: Duration) -> bool {
        let Operation { state, cancel_requested, .. } = *self.operation;
        if state == OperationState::Running && !cancel_requested {
            return false;
        }
        let lately = |told: &Told| told.is_fresh(session, now) && told.cancelling == cancel_requested;
        !self.told.as_ref().is_some_and(lately)
    }
}

impl Told {
    /// Whether it was told in this session, and not so long ago that it has to be told again.
    fn is_fresh(&self, session: &str, now: Duration) -> bool {
        self.session == session && now < self.at + AGAIN
    }
}

impl Items {
    fn put(&mut self, operation: &Arc<Operation>) {
        if operation.state.is_open() {
            let known = self.operations.get(&operation.id);
            let (told, reached) = known.map_or((None, Reached::No), |item| (item.told.clone(), item.reached));
            self.operations.insert(operation.id, Item { operation: operation.clone(), told, reached });
        } else {
            self.operations.remove(&operation.id);
        }
    }
}

impl Follower for Mailbox {
    fn reset(&self, state: &State) {
        let mut boxes = self.boxes();
        let mut told: BTreeMap<OperationId, Told> = BTreeMap::new();
        for items in boxes.values_mut() {
            let known = std::mem::take(&mut items.operations);
            told.extend(known.into_iter().filter_map(|(id, item)| Some((id, item.told?))));
        }
        let there: BTreeSet<ServerId> = state.servers.iter().map(|server| server.id).collect();
        boxes.retain(|server, _| there.contains(server));
        for operation in &state.operations {
            let told = told.remove(&operation.id);
            let item = Item { operation: operation.clone(), told, reached: Reached::Maybe };
            boxes.entry(operation.server_id).or_default().operations.insert(operation.id, item);
        }
        let servers: Vec<ServerId> = boxes.keys().copied().collect();
        drop(boxes);
        servers.into_iter().for_each(&self.bell);
    }

    fn follow(&self, facts: &[Fact]) {
        for fact in facts {
            match fact {
                Fact::Operation(operation) => {
                    self.boxes().entry(operation.server_id).or_default().put(operation);
                    (self.bell)(operation.server_id);
                }
                Fact::ServerGone(id) => {
                    self.boxes().remove(id);
                    // Its agent is not to wait for what cannot come any more.
                    (self.bell)(*id);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
