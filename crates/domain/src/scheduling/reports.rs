//! What agents say of the attempts that they run, and what their silence says.

use super::{
    model::{AttemptStatus, Task, TaskStatus},
    ports::{AttemptEnd, AttemptStep, Tasks},
    reason,
    service::moved,
};
use crate::{
    Error, Result,
    change::{Change, TRIES},
    clock::{Clock, Timestamp},
    fleet::{
        Operations, Server, Servers,
        protocol::{End, Ending},
    },
    identity::Actor,
    ids::{OperationId, ServerId},
};
use chrono::SubsecRound;
use std::sync::Arc;

/// Takes in what agents say of operations.
pub struct WorkReports {
    tasks: Arc<dyn Tasks>,
    servers: Arc<dyn Servers>,
    operations: Arc<dyn Operations>,
    clock: Arc<dyn Clock>,
}

impl WorkReports {
    /// Over these ports.
    #[must_use]
    pub fn new(
        tasks: Arc<dyn Tasks>,
        servers: Arc<dyn Servers>,
        operations: Arc<dyn Operations>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { tasks, servers, operations, clock }
    }

    /// An attempt runs. Hearing it twice changes nothing.
    ///
    /// # Errors
    /// `operation_closed` if the attempt has come to its end, as far as the server is concerned; [`Error::NotFound`] if
    /// the operation is not of this server.
    pub async fn started(&self, actor: &Actor, server: ServerId, id: OperationId) -> Result<()> {
        self.report(actor, server, id, "task.started", |task, now| {
            if task.status == TaskStatus::Running {
                return Ok(None);
            }
            Ok(Some((task.found_running(now)?, AttemptStep::Start)))
        })
        .await
    }

    /// An attempt has ended. Hearing it twice changes nothing.
    ///
    /// # Errors
    /// As [`WorkReports::started`].
    pub async fn ended(&self, actor: &Actor, server: ServerId, id: OperationId, end: &End) -> Result<()> {
        let end = &end.bounded();
        let operation = self.operations.get(id).await?;
        // The answer to the first report was lost.
        if operation.server_id == server && operation.result.as_ref() == Some(end) {
            return Ok(());
        }
        let asked = operation.cancel_requested;
        let misfit = self.misfit(server, end).await?;
        self.report(actor, server, id, "task.ended", |task, now| {
            let after = task.ended_by(end, asked, now)?;
            let after = match &misfit {
                Some(server) => after.barring(server),
                None => after,
            };
            Ok(Some((after, AttemptStep::End(AttemptEnd::told_by(end, asked)))))
        })
        .await
    }

    /// The server, if this end says that the programs are not for its architecture.
    async fn misfit(&self, server: ServerId, end: &End) -> Result<Option<Server>> {
        if code_of(end) != reason::EXEC_FORMAT {
            return Ok(None);
        }
        match self.servers.get(server).await {
            Err(Error::NotFound { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Contact with a server is lost: nobody knows what becomes of its tasks.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn lose(&self, actor: &Actor, server: ServerId) -> Result<()> {
        for task in self.tasks.held_on(server).await? {
            if task.spec.driver.needs().is_none() || task.status == TaskStatus::Unknown {
                continue;
            }
            self.change(actor, "task.lost", &task, |task, now| {
                Ok(task.lost(now).map(|task| (task, AttemptStep::Lose)))
            })
            .await?;
        }
        Ok(())
    }

    /// An agent is back: what it had not begun may still be begun. What it has begun it tells by itself.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn found_again(&self, actor: &Actor, server: ServerId) -> Result<()> {
        for task in self.tasks.held_on(server).await? {
            if task.status != TaskStatus::Unknown || task.started_at.is_some() {
                continue;
            }
            self.change(actor, "task.found", &task, |task, now| {
                Ok(task.found(now).map(|task| (task, AttemptStep::Find)))
            })
            .await?;
        }
        Ok(())
    }

    async fn report(
        &self,
        actor: &Actor,
        server: ServerId,
        id: OperationId,
        action: &str,
        compute: impl Fn(&Task, Timestamp) -> Result<Option<(Task, AttemptStep)>>,
    ) -> Result<()> {
        let operation = self.operations.get(id).await?;
        if operation.server_id != server {
            return Err(Error::not_found("operation", id));
        }
        let (Some(task_id), Some(attempt)) = (operation.task_id, operation.attempt) else {
            return Err(operation.closed());
        };
        if !operation.state.is_open() {
            return Err(operation.closed());
        }
        let task = match self.tasks.get(task_id).await {
            Err(Error::NotFound { .. }) => return Err(operation.closed()),
            found => found?,
        };
        self.change(actor, action, &task, |task, now| {
            if task.attempt != attempt || !task.status.holds() {
                return Err(operation.closed());
            }
            compute(task, now)
        })
        .await
    }

    async fn change(
        &self,
        actor: &Actor,
        action: &str,
        task: &Task,
        compute: impl Fn(&Task, Timestamp) -> Result<Option<(Task, AttemptStep)>>,
    ) -> Result<()> {
        let mut before = task.clone();
        for _ in 0..TRIES {
            let now = self.clock.now();
            let Some((after, step)) = compute(&before, now)? else { return Ok(()) };
            let entry = moved(actor, action, now, &before, &after);
            match self.tasks.update(after, step, Change::from(entry)).await {
                Err(Error::Stale { .. }) => before = self.tasks.get(before.id).await?,
                outcome => return outcome.map(|_| ()),
            }
        }
        Err(Error::busy("task", task.id))
    }
}

/// When something began that ended before anybody said so: as its agent says, whose clock may be another's.
pub(super) fn began_at(end: &End, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    end.started_at.map(|at| at.trunc_subsecs(6).clamp(since.min(now), now))
}

impl AttemptEnd {
    /// The end that an agent tells. What ended after its end was asked for was cancelled, whatever it ended with.
    #[must_use]
    pub fn told_by(end: &End, asked: bool) -> Self {
        let status = match end.ending {
            Ending::Completed => AttemptStatus::Completed,
            Ending::Cancelled => AttemptStatus::Cancelled,
            Ending::Failed if asked => AttemptStatus::Cancelled,
            Ending::Failed | Ending::Expired | Ending::Unknown => AttemptStatus::Failed,
        };
        let reason = match status {
            AttemptStatus::Cancelled => Some(reason::CANCELLED.to_owned()),
            AttemptStatus::Completed => None,
            _ => Some(code_of(end)),
        };
        Self {
            status,
            reason,
            exit_code: end.exit_code,
            signal: end.signal,
            ending: Some(end.ending),
            told: Some(end.clone()),
        }
    }
}

/// Why an attempt failed, as its agent says: a word, or what stands for one.
fn code_of(end: &End) -> String {
    const LONGEST: usize = 64;
    let word = |code: &String| {
        !code.is_empty()
            && code.len() <= LONGEST
            && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    match (end.ending, end.reason.clone().filter(word)) {
        (_, Some(code)) => code,
        (Ending::Expired, None) => reason::EXPIRED.to_owned(),
        (Ending::Unknown, None) => reason::AGENT_LOST.to_owned(),
        (_, None) => reason::ATTEMPT_FAILED.to_owned(),
    }
}

impl Task {
    /// This task, of which its agent says that it runs.
    ///
    /// # Errors
    /// `illegal_transition`, if it has neither been placed nor lost.
    pub fn found_running(&self, now: Timestamp) -> Result<Self> {
        self.only_from(&[TaskStatus::Scheduled, TaskStatus::Unknown], "only a placed task can be reported as running")?;
        let after = Self { started_at: self.started_at.or(Some(now)), ..self.moved(TaskStatus::Running, now) };
        Ok(if self.is_cancelling() {
            after.with_end_asked_for("its agent has not said yet that it has ended")
        } else {
            after
        })
    }

    fn is_cancelling(&self) -> bool {
        self.reason.as_deref() == Some(reason::CANCELLING)
    }

    /// That its end was asked for is kept, whatever becomes of it until then.
    fn with_end_asked_for(self, but: &str) -> Self {
        let detail = format!("its end was asked for, and {but}");
        Self { reason: Some(reason::CANCELLING.to_owned()), detail: Some(detail), ..self }
    }

    /// This task with its attempt ended, as its agent says. `asked` says whether its user wanted the end. A failed
    /// attempt is followed by another until there were as many as it may have.
    ///
    /// # Errors
    /// `illegal_transition`, if it holds nothing.
    pub fn ended_by(&self, end: &End, asked: bool, now: Timestamp) -> Result<Self> {
        let placed = [TaskStatus::Scheduled, TaskStatus::Running, TaskStatus::Unknown];
        self.only_from(&placed, "only a placed task can end")?;
        let AttemptEnd { status, reason, .. } = AttemptEnd::told_by(end, asked);
        let detail = end.bounded().detail;
        let since = self.scheduled_at.unwrap_or(now);
        let started_at = self.started_at.or_else(|| began_at(end, since, now));
        let ended = |status| Self { started_at, finished_at: Some(now), ..self.moved(status, now) };
        let after = match status {
            AttemptStatus::Completed => return Ok(ended(TaskStatus::Completed)),
            AttemptStatus::Cancelled => ended(TaskStatus::Cancelled),
            _ if self.attempt < self.spec.max_attempts => self.waiting(now),
            _ => ended(TaskStatus::Failed),
        };
        Ok(Self { reason, detail, ..after })
    }

    /// This task, of which nobody knows what becomes; `None` if it is not on a server.
    #[must_use]
    pub fn lost(&self, now: Timestamp) -> Option<Self> {
        let placed = matches!(self.status, TaskStatus::Scheduled | TaskStatus::Running);
        placed.then(|| {
            let after = self.moved(TaskStatus::Unknown, now);
            if self.is_cancelling() {
                return after.with_end_asked_for("contact with its server is lost; it may be running");
            }
            Self {
                reason: Some(reason::CONTACT_LOST.to_owned()),
                detail: Some("contact with its server is lost; it may be running".to_owned()),
                ..after
            }
        })
    }

    /// This task, still to be begun by the agent that was lost and is back; `None` if that may have begun it.
    #[must_use]
    pub fn found(&self, now: Timestamp) -> Option<Self> {
        let waits = self.status == TaskStatus::Unknown && self.started_at.is_none();
        waits.then(|| {
            let after = self.moved(TaskStatus::Scheduled, now);
            if self.is_cancelling() { after.with_end_asked_for("its agent is back and is told") } else { after }
        })
    }

    /// This task, ended by its user without its agent, which is not heard of.
    ///
    /// # Errors
    /// `illegal_transition`, if contact with its server is not lost.
    pub fn given_up(&self, now: Timestamp) -> Result<Self> {
        let rule = "only what contact is lost with can be given up; cancel it without force, and its agent ends it";
        self.only_from(&[TaskStatus::Unknown], rule)?;
        let detail = "given up while contact with its server was lost; if it runs, its agent ends it when it is back";
        Ok(Self { detail: Some(detail.to_owned()), ..self.cancelled(now)? })
    }

    /// This task, whose end its user wants and its agent has to bring about.
    ///
    /// # Errors
    /// `illegal_transition`, if that is so already, or it is not on a server.
    pub fn cancelling(&self, now: Timestamp) -> Result<Self> {
        let placed = [TaskStatus::Scheduled, TaskStatus::Running, TaskStatus::Unknown];
        self.only_from(&placed, "only a placed task is ended by its agent")?;
        let waiting = "its agent has not said yet that it has ended";
        if self.is_cancelling() {
            return Err(self.illegal(&format!("it is being cancelled already; {waiting}")));
        }
        Ok(self.moved(self.status, now).with_end_asked_for(waiting))
    }
}

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;
