use super::{
    ledger::Discrepancy,
    model::{Attempt, AttemptStatus, NewTask, Task, TaskFilter},
};
use crate::{
    Result,
    audit::AuditEntry,
    change::{Change, Done, Once},
    clock::Timestamp,
    fleet::protocol::{End, Ending},
    ids::{ServerId, TaskId},
    page::{Page, PageRequest},
};
use async_trait::async_trait;

/// A task with the server that was found for it, to be written if the world is still as it was then.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The task as placed, at a revision one above that of its row.
    pub task: Task,
    /// The attempt that this opens, and what it takes.
    pub attempt: Attempt,
    /// What is recorded.
    pub entry: AuditEntry,
}

impl Placement {
    /// The placement of a pending task on a server; `None` if it is not pending. `entry` makes what is recorded of the
    /// task before and after.
    pub fn of(
        before: &Task,
        server: ServerId,
        now: Timestamp,
        entry: impl FnOnce(&Task, &Task) -> AuditEntry,
    ) -> Option<Self> {
        let task = before.placed(server, now).ok()?;
        let attempt = Attempt::opened(&task, now)?;
        let entry = entry(before, &task);
        Some(Self { task, attempt, entry })
    }
}

/// What became of a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// The attempt holds its room.
    Held,
    /// The task, its server or its pool is not any more as it was planned for; nothing was changed.
    Moved,
}

/// What a change of a task does to its newest attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptStep {
    /// Nothing; also where there is none.
    Keep,
    /// It runs from now on.
    Start,
    /// Its user asked for its end; the agent that runs it has to bring that about.
    AskEnd,
    /// Contact with its agent is lost.
    Lose,
    /// Its agent is back, and may still begin it.
    Find,
    /// It ended, and what it held is given back.
    End(AttemptEnd),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnd {
    /// How.
    pub status: AttemptStatus,
    /// Why, as a code of [`super::reason`].
    pub reason: Option<String>,
    /// What its program ended with.
    pub exit_code: Option<i64>,
    /// The signal that ended its program.
    pub signal: Option<i64>,
    /// What its agent calls it; `None` if no agent was asked.
    pub ending: Option<Ending>,
    /// Everything that its agent said.
    pub told: Option<End>,
}

impl AttemptEnd {
    /// An end that no agent told.
    #[must_use]
    pub fn by_hand(status: AttemptStatus, reason: Option<&str>) -> Self {
        Self { status, reason: reason.map(str::to_owned), exit_code: None, signal: None, ending: None, told: None }
    }
}

/// The tasks in the database, their attempts, and what these hold on servers and in pools.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Tasks: Send + Sync {
    /// Stores a pending task at the time of the change's entry, which it completes with the task's id and state.
    ///
    /// MUST fail with [`crate::Error::Invalid`] for `pool_id` if there is no such pool.
    async fn create(&self, task: NewTask, change: Change) -> Result<Done<Task>>;

    /// Stores a task that is placed on `server` from the start: both, or neither.
    ///
    /// MUST fail with `plan_stale` where [`Tasks::place`] answers [`Placed::Moved`]; otherwise as [`Tasks::create`].
    async fn create_placed(&self, task: NewTask, server: ServerId, change: Change) -> Result<Done<Task>>;

    /// Tasks that match, newest first. Pages MUST neither repeat nor skip rows when others are inserted meanwhile.
    async fn list(&self, filter: TaskFilter, page: PageRequest) -> Result<Page<Task>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: TaskId) -> Result<Task>;

    /// The attempts of a task, newest first. MUST fail with [`crate::Error::NotFound`] if there is no such task.
    async fn attempts(&self, id: TaskId) -> Result<Vec<Attempt>>;

    /// Takes room for each of these, in one transaction, where there still is: the task is at the revision before, the
    /// server takes work and has the room free, and its pool takes work and has it left in its quota. The answers are in
    /// the order of the placements; what MUST NOT be written is told as moved, and takes nothing else with it.
    ///
    /// MUST NOT take twice for one attempt. Where an agent runs the attempt, its operation is stored with it
    /// ([`crate::fleet::operations::Operation::to_run`]).
    async fn place(&self, placements: Vec<Placement>) -> Result<Vec<Placed>>;

    /// The same for one, under an idempotency key. MUST fail with [`crate::Error::Stale`] if it moved.
    async fn place_one(&self, placement: Placement, once: Option<Once>) -> Result<Done<Task>>;

    /// Tasks that hold something on a server.
    async fn held_on(&self, server: ServerId) -> Result<Vec<Task>>;

    /// Writes `task`, whose revision is one above that of the row it replaces, what that does to its newest attempt, and
    /// to the operation by which an agent runs that.
    ///
    /// MUST fail with [`crate::Error::Stale`] if the row is at another revision, and with [`crate::Error::NotFound`] if
    /// it is gone. MUST give back what an attempt holds when it ends, and only once.
    async fn update(&self, task: Task, step: AttemptStep, change: Change) -> Result<Done<Task>>;

    /// Answers with `task` as it is, because what was asked for is so already. The answer is kept under the change's key;
    /// nothing is recorded. MUST fail as `update` does if the row is not at the revision of `task`.
    async fn confirm(&self, task: Task, change: Change) -> Result<Done<Task>>;

    /// Removes `task` and its attempts if its row is still at that revision; errors as for `update`.
    ///
    /// MUST fail with `task_is_live` if an attempt of it holds anything.
    async fn delete(&self, task: Task, change: Change) -> Result<Done<()>>;

    /// The task that an earlier request under this key was answered with, if there was one at `now`. MUST fail with
    /// `idempotency_key_reused` if that was another request.
    async fn answered(&self, once: Once, now: Timestamp) -> Result<Option<Task>>;

    /// Sees to it that what was committed by now, by whomever, is known to those who follow.
    async fn catch_up(&self) -> Result<()>;

    /// The same, with everything told anew: what is known does not agree with what is stored.
    async fn tell_anew(&self) -> Result<()>;

    /// Counts what attempts hold and compares it with what servers and pools say is reserved.
    async fn ledger_check(&self) -> Result<Vec<Discrepancy>>;

    /// Sets what servers and pools say to what attempts hold. MUST record the differences that it found in the change's
    /// entry, and nothing if there are none.
    async fn ledger_mend(&self, change: Change) -> Result<Done<Vec<Discrepancy>>>;
}
