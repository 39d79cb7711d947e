//! Carries out operations: each in a task of its own, from its delivery until the server knows how it ended.
//!
//! An operation is begun at most once. [`crate::journal::Entry::Begun`] is on disk before the driver is told anything,
//! and nothing stands between the two; what only waits for its turn is not written down, since the server delivers it
//! again. After a crash, what was begun is never begun anew: the driver goes on with what it finds, and what it does
//! not find is reported as [`Ending::Unknown`](domain::fleet::protocol::Ending::Unknown), even where it may never have
//! run, because nobody can tell that from work that ran and was removed by hand.
//!
//! Nothing is touched that this agent did not make: work that is found and that the journal does not know is an orphan
//! only if its folder is in this agent's state directory, since another agent of the same installation may use the same
//! engine.

mod drivers;
mod ends;
mod operation;
mod shared;
mod sweep;

pub use drivers::Drivers;

use crate::{
    containers::Look,
    journal::{Journal, Record},
    session::Link,
    state::StateDir,
    work::WorkId,
};
use domain::{
    clock::Clock,
    fleet::protocol::{Delivery, Order},
    ids::OperationId,
};
use operation::{Orders, Stage, Wish};
use shared::Shared;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// How long the runner waits for what.
#[derive(Debug, Clone, Copy)]
pub struct RunnerPeriods {
    /// How long work has to end by itself once it was asked to, where its task does not say.
    pub grace: Duration,
    /// How often at most the server is told what a start is at.
    pub progress: Duration,
    /// How often to look for orphans.
    pub sweep: Duration,
    /// How long a driver may take to say what there is.
    pub find: Duration,
    /// How long a start may go on once the agent is to stop.
    pub leave: Duration,
    /// From how much to how much is waited before something is tried again.
    pub patience: crate::session::Patience,
}

/// Asks whoever reports containers to look at one, and waits until what was seen is told.
pub(crate) type Looks = mpsc::Sender<Look>;

/// What the runner works with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) state: StateDir,
    pub(crate) journal: Arc<Journal>,
    pub(crate) drivers: Arc<Drivers>,
    pub(crate) link: Arc<Link>,
    pub(crate) looks: Looks,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) periods: RunnerPeriods,
}

/// Whether something was news to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    New,
    Known,
}

/// Carries out operations. Dropped, it leaves everything as it is at that moment, as a crash would.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Runner {
    /// Carries out operations of this installation.
    pub(crate) fn new(tools: Tools, installation: Arc<str>) -> Self {
        Self { shared: Arc::new(Shared::new(tools, installation)), tasks: JoinSet::new() }
    }

    /// Attends to everything that the journal knows and the server does not know the end of.
    pub(crate) fn attend(&mut self) {
        for (id, record) in self.shared.journal.open_records() {
            self.go_on(id, record, Wish::Run);
        }
    }

    /// Looks for orphans from now on, if it does not do so already.
    pub(crate) fn sweep(&mut self) {
        if self.shared.begin_sweeping() {
            for slot in self.shared.drivers.slots() {
                self.tasks.spawn(sweep::forever(self.shared.clone(), slot.clone()));
            }
        }
    }

    /// Reports on operations that the server believes to run here. Those that nothing is known of are lost.
    pub(crate) fn account_for(&mut self, begun: &[OperationId]) {
        for id in begun {
            match self.shared.journal.record(*id) {
                Some(record) => self.go_on(*id, record, Wish::Run),
                None => self.spawn(*id, None, Wish::Run, Instant::now(), Stage::Lost),
            };
        }
    }

    /// Takes an order that was delivered just now.
    pub(crate) fn deliver(&mut self, delivery: Delivery) -> News {
        let deadline = Instant::now() + Duration::from_secs(delivery.expires_in_seconds.min(FOREVER));
        let Delivery { id, order, .. } = delivery;
        if self.shared.delivered_again(id, deadline) {
            return News::Known;
        }
        let work = match &order {
            Order::RunTask(order) => Some(self.shared.name(order)),
            _ => None,
        };
        match self.shared.journal.record(id) {
            None => self.spawn(id, work, Wish::Run, deadline, Stage::New(order)),
            Some(record) if record.work == work && record.deed == operation::deed_of(&order) => {
                self.go_on(id, record, Wish::Run)
            }
            Some(record) => self.spawn(id, None, Wish::Run, deadline, Stage::Mistaken(record.work)),
        }
    }

    /// Ends an operation, or does not begin it.
    pub(crate) fn cancel(&mut self, id: OperationId) -> News {
        if let Some(news) = self.shared.wish(id, Wish::Cancel) {
            return news;
        }
        match self.shared.journal.record(id) {
            Some(record) => self.go_on(id, record, Wish::Cancel),
            None => self.spawn(id, None, Wish::Cancel, Instant::now(), Stage::NeverSeen),
        }
    }

    /// Takes out what has ended; and writes down what there was no room for.
    pub(crate) async fn tidy(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!("an operation's task has panicked; it goes on when the server speaks of it again");
            }
        }
        if let Err(error) = self.shared.journal.catch_up().await {
            tracing::warn!(%error, "the journal still has no room");
        }
    }

    /// Stops attending. What runs goes on; what is just being started has a moment to get that far.
    pub(crate) async fn stop(mut self) {
        self.shared.stop();
        while self.tasks.join_next().await.is_some() {}
    }

    fn go_on(&mut self, id: OperationId, record: Record, wish: Wish) -> News {
        let work = record.work.clone();
        let wish = if record.ending { wish.max(Wish::Cancel) } else { wish };
        self.spawn(id, work, wish, Instant::now(), Stage::Known(record))
    }

    fn spawn(&mut self, id: OperationId, work: Option<WorkId>, wish: Wish, deadline: Instant, stage: Stage) -> News {
        let orders = Orders { wish, deadline };
        let Some(operation) = operation::Operation::seated(&self.shared, id, work, orders) else { return News::Known };
        self.tasks.spawn(operation.drive(stage));
        News::New
    }
}

/// The longest time until something expires, in seconds: far enough, and no overflow.
const FOREVER: u64 = 365 * 86_400;
