use super::{
    Looks, News, RunnerPeriods, Tools,
    drivers::Drivers,
    operation::{Orders, Wish},
};
use crate::{
    journal::{Entry, Journal},
    session::Link,
    state::StateDir,
    work::{Work, WorkId},
};
use domain::{
    clock::{Clock, Timestamp},
    fleet::protocol::RunTask,
    ids::OperationId,
    scheduling::TaskSpec,
    text::Name,
    units::Resources,
};
use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::watch, time::Instant};

/// The most operations that are attended to at once. More than a machine can carry; what is beyond waits at the server.
const MOST: usize = 4096;
/// The most orphans that are remembered.
const MOST_ORPHANS: usize = 4096;

/// What the tasks of a runner share.
pub(super) struct Shared {
    pub(super) installation: Arc<str>,
    pub(super) state: StateDir,
    pub(super) journal: Arc<Journal>,
    pub(super) drivers: Arc<Drivers>,
    pub(super) link: Arc<Link>,
    pub(super) looks: Looks,
    pub(super) periods: RunnerPeriods,
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
    stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct Table {
    /// What is attended to.
    seats: HashMap<OperationId, Seat>,
    /// Work that was found and belonged to nobody: what it is called must not run again.
    orphans: BTreeSet<WorkId>,
    sweeping: bool,
}

struct Seat {
    work: Option<WorkId>,
    orders: watch::Sender<Orders>,
}

impl Shared {
    pub(super) fn new(tools: Tools, installation: Arc<str>) -> Self {
        let Tools { state, journal, drivers, link, looks, clock, periods } = tools;
        let (table, stopping) = (Mutex::default(), watch::Sender::new(false));
        Self { installation, state, journal, drivers, link, looks, periods, clock, table, stopping }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What the work of an order is called.
    pub(super) fn name(&self, order: &RunTask) -> WorkId {
        WorkId { installation: self.installation.clone(), task: order.task_id, attempt: order.attempt }
    }

    pub(super) fn folder(&self, id: &WorkId) -> PathBuf {
        self.state.work_folder(id)
    }

    /// Work of which only the name is known: enough to end and remove it.
    pub(super) fn nameless(&self, id: WorkId) -> Work {
        let spec = TaskSpec::new(Name::trusted(id.to_string()), Resources::default());
        Work { folder: self.folder(&id), spec: Arc::new(spec), id }
    }

    /// Takes a seat for an operation, unless it has one, or all are taken.
    pub(super) fn seat(
        &self,
        id: OperationId,
        work: Option<WorkId>,
        orders: Orders,
    ) -> Option<watch::Receiver<Orders>> {
        let mut table = self.table();
        if table.seats.contains_key(&id) || table.seats.len() >= MOST {
            return None;
        }
        let (sender, receiver) = watch::channel(orders);
        table.seats.insert(id, Seat { work, orders: sender });
        Some(receiver)
    }

    pub(super) fn unseat(&self, id: OperationId) {
        self.table().seats.remove(&id);
    }

    /// Asks for the end of an operation that has a seat.
    pub(super) fn wish(&self, id: OperationId, wish: Wish) -> Option<News> {
        let table = self.table();
        let seat = table.seats.get(&id)?;
        let is_new = seat.orders.send_if_modified(|orders| {
            let is_new = orders.wish < wish;
            orders.wish = orders.wish.max(wish);
            is_new
        });
        Some(if is_new { News::New } else { News::Known })
    }

    /// Whether an operation that was delivered has a seat already. What waits there may wait anew.
    pub(super) fn delivered_again(&self, id: OperationId, deadline: Instant) -> bool {
        let table = self.table();
        let Some(seat) = table.seats.get(&id) else { return false };
        seat.orders.send_modify(|orders| orders.deadline = orders.deadline.max(deadline));
        true
    }

    /// Whether nobody looks for orphans yet, which changes by this.
    pub(super) fn begin_sweeping(&self) -> bool {
        !std::mem::replace(&mut self.table().sweeping, true)
    }

    /// Whether work that was found is an orphan of this agent; if so, it is remembered as one.
    pub(super) fn is_orphan(&self, work: &WorkId) -> bool {
        // Without a folder it is another agent's, or not there any more.
        if !self.folder(work).is_dir() {
            return false;
        }
        let mut table = self.table();
        if table.seats.values().any(|seat| seat.work.as_ref() == Some(work)) {
            return false;
        }
        if let Some(record) = self.journal.record_of(work) {
            // It could not be removed when it had ended.
            return record.reported;
        }
        if table.orphans.len() >= MOST_ORPHANS {
            table.orphans.pop_first();
        }
        table.orphans.insert(work.clone());
        true
    }

    /// Whether work of that name was found and belonged to nobody.
    pub(super) fn was_orphan(&self, work: &WorkId) -> bool {
        self.table().orphans.contains(work)
    }

    /// Whether any work was found that belonged to nobody.
    pub(super) fn had_orphans(&self) -> bool {
        !self.table().orphans.is_empty()
    }

    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Returns once the agent is to stop.
    pub(super) async fn stopping(&self) {
        self.stopping.subscribe().wait_for(|stopping| *stopping).await.ok();
    }

    /// Writes down what has happened already, so that it is true whether that succeeds or not.
    pub(super) async fn note(&self, entry: Entry) {
        if let Err(error) = self.journal.write(entry).await {
            tracing::warn!(%error, "the journal cannot be written; it is kept in memory, and tried again");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
