use super::{
    desk::Desk,
    model::Task,
    ports::{AttemptStep, Placed, Tasks},
    service::moved,
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::Change,
    clock::{Clock, Timestamp},
    identity::{Actor, Operation},
    ids::TaskId,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// The most tasks that are placed in one transaction.
const BATCH: usize = 256;

/// The background job that places what is pending. It has no input, looks at the whole state, and may be run at any
/// time and more than once.
pub struct Scheduler {
    tasks: Arc<dyn Tasks>,
    desk: Arc<Desk>,
    clock: Arc<dyn Clock>,
    actor: Actor,
    /// What had to be given up in the last run.
    given_up: Mutex<BTreeSet<TaskId>>,
}

/// When the scheduler has to be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// At once.
    Now,
    /// When something changes, or at this time.
    At(Option<Timestamp>),
    /// After a while: what is stored does not agree with what is known, and was read anew.
    Later,
}

impl Scheduler {
    /// A scheduler over these ports.
    #[must_use]
    pub fn new(tasks: Arc<dyn Tasks>, desk: Arc<Desk>, clock: Arc<dyn Clock>) -> Self {
        Self { tasks, desk, clock, actor: Actor::system("scheduler"), given_up: Mutex::default() }
    }

    /// Places some of what is pending and fits, and fails what waited past its deadline.
    ///
    /// # Errors
    /// Whatever the database says; then nothing is claimed any more, and the same is decided again at the next run.
    pub async fn run(&self) -> Result<Again> {
        self.tasks.catch_up().await?;
        let now = self.clock.now();
        let mut moved = self.expire(now).await?;
        moved.extend(self.place(now).await?);
        if self.is_stuck(&moved) {
            self.tasks.tell_anew().await?;
            return Ok(Again::Later);
        }
        Ok(self.desk.with(|engine| if engine.has_work() { Again::Now } else { Again::At(engine.wake_at(now)) }))
    }

    /// Fails what waited past its deadline; the tasks that others changed first, who were right.
    async fn expire(&self, now: Timestamp) -> Result<BTreeSet<TaskId>> {
        let mut overtaken = BTreeSet::new();
        for task in self.desk.expired(now, BATCH) {
            let after = task.expired(now)?;
            let entry = moved(&self.actor, "task.expire", now, &task, &after);
            match self.tasks.update(after, AttemptStep::Keep, Change::from(entry)).await {
                Ok(_) => {}
                Err(Error::Stale { .. }) => _ = overtaken.insert(task.id),
                Err(Error::NotFound { .. }) => self.desk.with(|engine| engine.task_gone(task.id)),
                Err(error) => return Err(error),
            }
        }
        Ok(overtaken)
    }

    /// The tasks whose placements had to be given up.
    async fn place(&self, now: Timestamp) -> Result<BTreeSet<TaskId>> {
        let placements = self.desk.next(now, BATCH, |before, after| self.entry(now, before, after));
        if placements.is_empty() {
            return Ok(BTreeSet::new());
        }
        let ids: Vec<TaskId> = placements.iter().map(|placement| placement.task.id).collect();
        let placed = match self.tasks.place(placements).await {
            Ok(placed) => placed,
            Err(error) => {
                self.give_up(ids);
                return Err(error);
            }
        };
        let moved = ids.into_iter().zip(placed).filter(|(_, placed)| *placed == Placed::Moved);
        let moved: BTreeSet<TaskId> = moved.map(|(id, _)| id).collect();
        self.give_up(moved.iter().copied());
        Ok(moved)
    }

    /// That something moved while it was decided about is nothing special, and is known by now. What has to be given up
    /// twice in a row is known wrongly.
    fn is_stuck(&self, moved: &BTreeSet<TaskId>) -> bool {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = !given_up.is_disjoint(moved);
        given_up.clone_from(moved);
        stuck
    }

    fn give_up(&self, ids: impl IntoIterator<Item = TaskId>) {
        self.desk.with(|engine| ids.into_iter().for_each(|id| engine.unclaim(id)));
    }

    fn entry(&self, now: Timestamp, before: &Task, after: &Task) -> AuditEntry {
        moved(&self.actor, Operation::TaskDispatch.action(), now, before, after)
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
