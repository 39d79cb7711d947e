mod deed;
mod report;

pub(super) use deed::deed_of;

use super::{drivers::Slot, ends, shared::Shared};
use crate::{
    journal::{Entry, Record},
    session::Backoff,
    work::{Exit, Work, WorkId},
};
use domain::{
    clock::Timestamp,
    fleet::protocol::{End, Order, RunTask},
    ids::OperationId,
};
use std::{
    convert::Infallible,
    fs::{self, DirBuilder},
    future::pending,
    io,
    os::unix::fs::DirBuilderExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{SemaphorePermit, watch},
    time::Instant,
};

/// What is wanted of an operation. A greater wish replaces a smaller one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// That it runs.
    Run,
    /// That it ends.
    Cancel,
    /// That nothing is left of it: the server does not want to hear of it any more.
    Abandon,
}

/// What an operation is told while it is attended to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orders {
    pub(super) wish: Wish,
    /// Until when it may be begun.
    pub(super) deadline: Instant,
}

/// How far an operation is when its task begins to attend to it.
#[derive(Debug)]
pub(super) enum Stage {
    /// It was delivered for the first time.
    New(Order),
    /// The journal knows it.
    Known(Record),
    /// The server believes that it runs here, and nothing is known of it.
    Lost,
    /// It is to be ended, and nothing is known of it.
    NeverSeen,
    /// It has the number of another one, whose work was called so.
    Mistaken(Option<WorkId>),
}

/// How attending to an operation came to its end.
#[derive(Debug)]
enum Outcome {
    /// The server is to be told.
    Ended(End),
    /// The server does not want to know.
    GivenUp,
    /// The agent stops; its next run goes on.
    Left,
}

/// Work and who runs it.
struct Job {
    work: Work,
    slot: Arc<Slot>,
}

/// One operation that is attended to. As long as it is there, its number has a seat.
pub(super) struct Operation {
    id: OperationId,
    /// What it brings about, if it runs no task: see [`Record::deed`].
    deed: Option<String>,
    shared: Arc<Shared>,
    orders: watch::Receiver<Orders>,
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.shared.unseat(self.id);
    }
}

impl Operation {
    /// `None` if it is attended to already, or there is no seat for it.
    pub(super) fn seated(shared: &Arc<Shared>, id: OperationId, work: Option<WorkId>, orders: Orders) -> Option<Self> {
        let orders = shared.seat(id, work, orders)?;
        Some(Self { id, deed: None, shared: shared.clone(), orders })
    }

    /// Sees the operation through.
    pub(super) async fn drive(mut self, stage: Stage) {
        self.deed = match &stage {
            Stage::New(order) => deed_of(order),
            Stage::Known(record) => record.deed.clone(),
            Stage::Lost | Stage::NeverSeen | Stage::Mistaken(_) => None,
        };
        match stage {
            Stage::New(Order::RunTask(order)) => {
                let name = self.shared.name(&order);
                match self.job(name.clone(), &order) {
                    Some(job) => {
                        let outcome = self.begin(&job, Arc::new(*order)).await;
                        self.settle(Some(name), Some(job), outcome).await;
                    }
                    None => self.refuse(Some(name), "this agent has no driver for it").await,
                }
            }
            Stage::New(Order::Unknown) => {
                self.refuse(None, "this agent does not know how to do it; renew it").await;
            }
            Stage::New(order) => {
                let outcome = self.undertake(&order).await;
                self.settle(None, None, outcome).await;
            }
            Stage::Known(record) => self.go_on(record).await,
            Stage::Lost => {
                let outcome = self.after_sweeps(ends::lost("the agent knows nothing of it", self.shared.now())).await;
                self.settle(None, None, outcome).await;
            }
            Stage::NeverSeen => {
                let outcome = self.after_sweeps(ends::cancelled(self.shared.now())).await;
                let outcome = match outcome {
                    Outcome::Ended(_) if self.shared.had_orphans() => {
                        let detail =
                            "the agent knows nothing of it, but has found and ended work that it knew nothing of";
                        Outcome::Ended(ends::lost(detail, self.shared.now()))
                    }
                    outcome => outcome,
                };
                self.settle(None, None, outcome).await;
            }
            // The journal goes on to tell of the other one.
            Stage::Mistaken(before) => _ = self.tell(ends::mistaken(before.as_ref(), self.shared.now())).await,
        }
    }

    fn job(&self, name: WorkId, order: &RunTask) -> Option<Job> {
        let slot = self.shared.drivers.slot(order.spec.driver)?.clone();
        let folder = self.shared.folder(&name);
        Some(Job { work: Work { id: name, spec: Arc::new(order.spec.clone()), folder }, slot })
    }

    async fn refuse(&self, name: Option<WorkId>, detail: &str) {
        let end = ends::unsupported(detail, self.shared.now());
        self.settle(name, None, Outcome::Ended(end)).await;
    }

    /// Goes on with what the journal knows.
    async fn go_on(&self, record: Record) {
        let job = match (&record.work, &record.order) {
            (Some(name), Some(order)) => self.job(name.clone(), order),
            _ => None,
        };
        let outcome = match (&record.end, &job) {
            (Some(end), _) => Outcome::Ended(end.clone()),
            (None, Some(job)) => self.find_again(job, &record).await,
            (None, None) if record.deed.is_some() => Outcome::Ended(ends::lost(deed::CUT_SHORT, self.shared.now())),
            (None, None) => Outcome::Ended(ends::lost("this agent has no driver for it any more", self.shared.now())),
        };
        self.settle(record.work, job, outcome).await;
    }

    /// Waits until orphans of every driver were looked for.
    async fn after_sweeps(&self, end: End) -> Outcome {
        let swept = async {
            for slot in self.shared.drivers.slots() {
                slot.swept().await;
            }
        };
        tokio::select! {
            () = swept => Outcome::Ended(end),
            () = self.shared.stopping() => Outcome::Left,
        }
    }

    /// Begins what was never begun, once it is its turn.
    async fn begin(&self, job: &Job, order: Arc<RunTask>) -> Outcome {
        let permit = tokio::select! {
            biased;
            _ = asked(self.orders.clone()) => return Outcome::Ended(ends::cancelled(self.shared.now())),
            () = passed(self.orders.clone()) => return Outcome::Ended(ends::expired(self.shared.now())),
            () = self.shared.stopping() => return Outcome::Left,
            permit = job.slot.turn() => permit,
        };
        if self.shared.was_orphan(&job.work.id) {
            let detail = "it was found running without being known to the agent, and was ended; it is not begun again";
            return Outcome::Ended(ends::lost(detail, self.shared.now()));
        }
        if let Err(error) = self.write_down(job, order).await {
            tracing::error!(%error, "operation {} is not begun: the agent's state directory cannot be written", self.id);
            return Outcome::Ended(ends::unwritten(&error, self.shared.now()));
        }
        self.start(job, permit, None).await
    }

    async fn write_down(&self, job: &Job, order: Arc<RunTask>) -> io::Result<()> {
        let folder = job.work.folder.clone();
        let make = move || DirBuilder::new().recursive(true).mode(0o700).create(folder);
        tokio::task::spawn_blocking(make).await.map_err(io::Error::other)??;
        let (operation, work, at) = (self.id, job.work.id.clone(), self.shared.now());
        let written = self.shared.journal.write(Entry::Begun { operation, work, order, at }).await;
        if written.is_err() {
            // It is empty; if it cannot be removed, it harms nobody.
            fs::remove_dir(&job.work.folder).ok();
        }
        written
    }

    /// Finds what was begun by an earlier run of the agent, and attends to it.
    async fn find_again(&self, job: &Job, record: &Record) -> Outcome {
        if let Some(since) = record.running_since {
            return self.attend(job, since, record.ending).await;
        }
        let found = tokio::select! {
            found = self.find(job) => found,
            _ = asked(self.orders.clone()) => return self.call_off(job).await,
            () = self.shared.stopping() => return Outcome::Left,
        };
        if found.contains(&job.work.id) {
            // The crash came before the driver was done: it goes on where it is, and runs nothing twice.
            return self.start(job, None, record.begun_at).await;
        }
        let detail = "the agent was ended while it was starting it, and finds nothing of it";
        Outcome::Ended(ends::lost(detail, self.shared.now()))
    }

    /// What the driver finds, as soon as it can look.
    async fn find(&self, job: &Job) -> Vec<WorkId> {
        let mut backoff = Backoff::new(self.shared.periods.patience);
        loop {
            match job.slot.find(&job.work.id.installation, self.shared.periods.find).await {
                Ok(found) => return found,
                Err(failure) => tracing::debug!("{} cannot be looked for: {failure}", job.work.id),
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Has the driver start it, and attends to it.
    async fn start(&self, job: &Job, permit: Option<SemaphorePermit<'_>>, since: Option<Timestamp>) -> Outcome {
        let (said, sayings) = watch::channel(String::new());
        let progress = move |message: String| _ = said.send_replace(message);
        let started = tokio::select! {
            biased;
            _ = asked(self.orders.clone()) => return self.call_off(job).await,
            never = self.tell_progress(sayings) => match never {},
            started = job.slot.driver.start(&job.work, &progress) => started,
            () = self.late_stop() => return self.leave(job).await,
        };
        drop(permit);
        match started {
            Ok(()) => {
                let at = since.unwrap_or_else(|| self.shared.now());
                self.shared.note(Entry::Running { operation: self.id, at }).await;
                self.attend(job, at, false).await
            }
            Err(failure) => {
                tracing::warn!("{} was not started: {failure}", job.work.id);
                // A driver that failed half-way may have left something running.
                let grace = self.grace(job);
                tokio::time::timeout(self.shared.periods.find, job.slot.driver.stop(&job.work, grace)).await.ok();
                let exit = Exit { finished_at: Some(self.shared.now()), ..Exit::failed(failure) };
                Outcome::Ended(exit.told(false))
            }
        }
    }

    /// Waits for its end, and brings it about if that is wanted.
    ///
    /// `was_ending` says whether an earlier run of the agent was about to do so.
    async fn attend(&self, job: &Job, since: Timestamp, was_ending: bool) -> Outcome {
        let stopped = AtomicBool::new(was_ending);
        let ending = async {
            tokio::select! {
                _ = asked(self.orders.clone()) => {}
                () = self.tell_started(since) => {
                    self.shared.wish(self.id, Wish::Abandon);
                }
            }
            stopped.store(true, Ordering::Relaxed);
            self.shared.note(Entry::Ending { operation: self.id }).await;
            self.end(job).await;
            pending::<Infallible>().await
        };
        let exit = tokio::select! {
            biased;
            exit = job.slot.driver.wait(&job.work) => exit,
            () = self.shared.stopping() => return Outcome::Left,
            never = ending => match never {},
        };
        if self.orders.borrow().wish == Wish::Abandon {
            return Outcome::GivenUp;
        }
        let exit = Exit { finished_at: exit.finished_at.or_else(|| Some(self.shared.now())), ..exit };
        Outcome::Ended(exit.told(stopped.load(Ordering::Relaxed)))
    }

    /// Undoes a start that is not wanted any more.
    async fn call_off(&self, job: &Job) -> Outcome {
        tokio::select! {
            () = self.end(job) => {}
            () = self.shared.stopping() => return Outcome::Left,
        }
        // What the driver had ordered when it was interrupted must find nothing to start.
        self.remove(job).await;
        match self.orders.borrow().wish {
            Wish::Abandon => Outcome::GivenUp,
            Wish::Run | Wish::Cancel => Outcome::Ended(ends::cancelled(self.shared.now())),
        }
    }

    /// Ends the work, however often that has to be tried.
    async fn end(&self, job: &Job) {
        let grace = self.grace(job);
        let mut backoff = Backoff::new(self.shared.periods.patience);
        while let Err(failure) = job.slot.driver.stop(&job.work, grace).await {
            tracing::warn!("{} cannot be ended, which is tried again: {failure}", job.work.id);
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// The agent stops while the driver is starting something. If it has made nothing yet, it was not begun.
    async fn leave(&self, job: &Job) -> Outcome {
        let found = job.slot.find(&job.work.id.installation, self.shared.periods.find).await;
        if found.is_ok_and(|found| !found.contains(&job.work.id)) {
            self.shared.note(Entry::Retracted { operation: self.id }).await;
        }
        Outcome::Left
    }

    async fn late_stop(&self) {
        self.shared.stopping().await;
        tokio::time::sleep(self.shared.periods.leave).await;
    }

    fn grace(&self, job: &Job) -> Duration {
        job.work.spec.grace_seconds.map_or(self.shared.periods.grace, Duration::from_secs)
    }
}

/// Returns once the end of the operation is wanted.
async fn asked(mut orders: watch::Receiver<Orders>) -> Wish {
    let wish = orders.wait_for(|orders| orders.wish > Wish::Run).await.map(|orders| orders.wish);
    match wish {
        Ok(wish) => wish,
        // The seat is there as long as the operation.
        Err(_) => pending().await,
    }
}

/// Returns once it is too late to begin.
async fn passed(mut orders: watch::Receiver<Orders>) {
    loop {
        let deadline = orders.borrow_and_update().deadline;
        if deadline <= Instant::now() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {}
            changed = orders.changed() => if changed.is_err() { return pending().await },
        }
    }
}
