//! Ending tasks before their time: those that users run, those that agents run, and those whose agent is gone.

use super::{
    model::{AttemptStatus, Task},
    ports::{AttemptEnd, AttemptStep},
    reason,
    service::TaskService,
};
use crate::{
    Error, Result,
    change::{Done, Once},
    clock::Timestamp,
    fleet::operations::Operation as Order,
    identity::{Actor, Operation},
    ids::TaskId,
};

impl TaskService {
    /// Ends a task, wherever it is. What an agent runs goes on, marked as `cancelling`, until its agent says that it has
    /// ended: what it holds is not given to others before.
    ///
    /// # Errors
    /// `illegal_transition` if it has come to its end.
    pub async fn task_cancel(&self, actor: &Actor, id: TaskId, once: Option<Once>) -> Result<Done<Task>> {
        self.change(actor, Operation::TaskCancel, id, once, cancel).await
    }

    /// Ends a task whose agent is not heard of, without waiting for that: what it holds is given back, though it may run
    /// on until the agent is back and ends it. Other tasks are ended as by [`Self::task_cancel`].
    ///
    /// # Errors
    /// `illegal_transition` if it has come to its end, or if its agent can be reached.
    pub async fn task_give_up(&self, actor: &Actor, id: TaskId, once: Option<Once>) -> Result<Done<Task>> {
        let step = |task: &Task, now| {
            if !task.status.holds() || task.spec.driver.needs().is_none() {
                return cancel(task, now);
            }
            let end = AttemptEnd::by_hand(AttemptStatus::Cancelled, Some(reason::CONTACT_LOST));
            Ok((task.given_up(now)?, AttemptStep::End(end)))
        };
        self.change(actor, Operation::TaskCancel, id, once, step).await
    }

    /// Ends what an operation runs, and with it the task, as [`Self::task_cancel`] does.
    ///
    /// # Errors
    /// `illegal_transition` if it has come to its end.
    pub async fn operation_cancel(&self, actor: &Actor, order: &Order, once: Option<Once>) -> Result<Done<Task>> {
        actor.authorize(Operation::OperationCancel)?;
        let over = || {
            let sentence = format!("operation {} has ended; only one that has not can be cancelled", order.id);
            Error::conflict(reason::ILLEGAL_TRANSITION, sentence)
        };
        let id = order.task_id.ok_or_else(over)?;
        let step = |task: &Task, now| {
            let runs = task.status.holds() && order.attempt == Some(task.attempt);
            if runs { cancel(task, now) } else { Err(over()) }
        };
        self.change(actor, Operation::TaskCancel, id, once, step).await
    }
}

/// What a task becomes whose end is asked for, and what that does to its newest attempt.
fn cancel(task: &Task, now: Timestamp) -> Result<(Task, AttemptStep)> {
    let by_agent = task.spec.driver.needs().is_some();
    Ok(match task.status.holds() {
        true if by_agent => (task.cancelling(now)?, AttemptStep::AskEnd),
        true => {
            let end = AttemptEnd::by_hand(AttemptStatus::Cancelled, Some(reason::CANCELLED));
            (task.cancelled(now)?, AttemptStep::End(end))
        }
        // The newest attempt of a pending task has come to its own end before.
        false => (task.cancelled(now)?, AttemptStep::Keep),
    })
}
