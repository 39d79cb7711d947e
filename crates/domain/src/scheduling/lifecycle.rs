use super::{
    model::{Attempt, AttemptStatus, Task, TaskStatus},
    ports::AttemptStep,
    reason,
    reports::began_at,
    sets::ArchitectureSet,
    spec::TaskDriver,
};
use crate::{Error, Result, clock::Timestamp, ids::ServerId};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Success {
    /// Well.
    Yes,
    /// Badly.
    No,
}

impl Task {
    /// This task with a server for its next attempt. Only a pending task is placed.
    ///
    /// # Errors
    /// `illegal_transition`, if it is not pending.
    pub fn placed(&self, server: ServerId, now: Timestamp) -> Result<Self> {
        self.only_from(&[TaskStatus::Pending], "only a pending task can be placed")?;
        Ok(Self {
            attempt: self.attempt.saturating_add(1),
            server_id: Some(server),
            scheduled_at: Some(now),
            ..self.moved(TaskStatus::Scheduled, now)
        })
    }

    /// This task, started by its user. A second start is refused like any other that comes too late, so that of two
    /// users who start it one learns that it was not him.
    ///
    /// # Errors
    /// `driven_by_agent`, if an agent runs it; `illegal_transition`, if it is not scheduled.
    pub fn started(&self, now: Timestamp) -> Result<Self> {
        self.driven_by_user("starts")?;
        self.only_from(&[TaskStatus::Scheduled], "only a scheduled task can be started")?;
        Ok(Self { started_at: Some(now), ..self.moved(TaskStatus::Running, now) })
    }

    /// This task with its attempt ended by its user. A failed attempt is followed by another, for which the task is
    /// pending again, until there were as many as it may have.
    ///
    /// # Errors
    /// `driven_by_agent`, if an agent runs it; `illegal_transition`, if it is not running.
    pub fn completed(&self, success: Success, now: Timestamp) -> Result<Self> {
        self.driven_by_user("ends")?;
        self.only_from(&[TaskStatus::Running], "only a running task can be completed")?;
        let most = self.spec.max_attempts;
        let ended = |status| Self { finished_at: Some(now), ..self.moved(status, now) };
        let next = match success {
            Success::Yes => return Ok(ended(TaskStatus::Completed)),
            Success::No if self.attempt < most => self.waiting(now),
            Success::No => ended(TaskStatus::Failed),
        };
        let detail = format!("attempt {} failed; the task may have {most}", self.attempt);
        Ok(Self { reason: Some(reason::ATTEMPT_FAILED.to_owned()), detail: Some(detail), ..next })
    }

    /// This task, ended by its user, wherever it is.
    ///
    /// # Errors
    /// `illegal_transition`, if it has come to its end.
    pub fn cancelled(&self, now: Timestamp) -> Result<Self> {
        if !self.status.is_live() {
            return Err(self.illegal("only a task that has not ended can be cancelled"));
        }
        Ok(Self {
            finished_at: Some(now),
            reason: Some(reason::CANCELLED.to_owned()),
            ..self.moved(TaskStatus::Cancelled, now)
        })
    }

    /// This task, pending again. It gets at least one more attempt, and as many as it had left; nothing is barred to it
    /// any more, because whoever has it tried again may have mended the machine or the image.
    ///
    /// # Errors
    /// `illegal_transition`, if it neither failed nor was cancelled; `deadline_passed`, if it would fail again at once.
    pub fn retried(&self, now: Timestamp) -> Result<Self> {
        let allowed = "only a failed or cancelled task can be retried";
        self.only_from(&[TaskStatus::Failed, TaskStatus::Cancelled], allowed)?;
        if let Some(deadline) = self.spec.deadline.filter(|deadline| *deadline <= now) {
            let sentence =
                format!("task {} had to start by {}; post it again with a later deadline", self.id, told(deadline));
            return Err(Error::conflict(reason::DEADLINE_PASSED, sentence));
        }
        Ok(Self { barred: ArchitectureSet::default(), ..self.waiting(now) })
    }

    /// This task, given up because its deadline passed while it was pending.
    ///
    /// # Errors
    /// `illegal_transition`, if it is not pending, or its deadline has not passed.
    pub fn expired(&self, now: Timestamp) -> Result<Self> {
        self.only_from(&[TaskStatus::Pending], "only a pending task can expire")?;
        let Some(deadline) = self.spec.deadline.filter(|deadline| *deadline <= now) else {
            return Err(self.illegal("its deadline has not passed"));
        };
        Ok(Self {
            finished_at: Some(now),
            reason: Some(reason::DEADLINE_PASSED.to_owned()),
            detail: Some(format!("no server had room for it before its deadline, {}", told(deadline))),
            ..self.moved(TaskStatus::Failed, now)
        })
    }

    pub(super) fn moved(&self, status: TaskStatus, now: Timestamp) -> Self {
        Self {
            status,
            reason: None,
            detail: None,
            revision: self.revision.saturating_add(1),
            updated_at: now,
            ..self.clone()
        }
    }

    pub(super) fn waiting(&self, now: Timestamp) -> Self {
        Self { scheduled_at: None, started_at: None, finished_at: None, ..self.moved(TaskStatus::Pending, now) }
    }

    pub(super) fn only_from(&self, allowed: &[TaskStatus], rule: &str) -> Result<()> {
        if allowed.contains(&self.status) { Ok(()) } else { Err(self.illegal(rule)) }
    }

    pub(super) fn illegal(&self, rule: &str) -> Error {
        Error::conflict(reason::ILLEGAL_TRANSITION, format!("task {} is {}; {rule}", self.id, self.status))
    }

    fn driven_by_user(&self, verb: &str) -> Result<()> {
        if self.spec.driver == TaskDriver::None {
            return Ok(());
        }
        let sentence = format!(
            "task {} has the driver {}, so its server's agent {verb} it; only tasks with the driver none are started \
             and completed by hand",
            self.id, self.spec.driver
        );
        Err(Error::conflict(reason::DRIVEN_BY_AGENT, sentence))
    }
}

fn told(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

impl Attempt {
    /// The attempt that a task has just been placed for; `None`, if it is not scheduled.
    #[must_use]
    pub fn opened(task: &Task, now: Timestamp) -> Option<Self> {
        let server_id = task.server_id.filter(|_| task.status == TaskStatus::Scheduled)?;
        Some(Self {
            task_id: task.id,
            number: task.attempt,
            server_id,
            demand: task.spec.demand,
            status: AttemptStatus::Scheduled,
            exit_code: None,
            signal: None,
            reason: None,
            started_at: None,
            finished_at: None,
            created_at: now,
            held: true,
        })
    }

    /// This attempt after a step; what has ended has ended, with what it held given back.
    #[must_use]
    pub fn stepped(&self, step: &AttemptStep, now: Timestamp) -> Self {
        if !self.held {
            return self.clone();
        }
        match step {
            AttemptStep::Keep | AttemptStep::AskEnd => self.clone(),
            AttemptStep::Start => {
                Self { status: AttemptStatus::Running, started_at: self.started_at.or(Some(now)), ..self.clone() }
            }
            AttemptStep::Lose => Self { status: AttemptStatus::Unknown, ..self.clone() },
            AttemptStep::Find => Self { status: AttemptStatus::Scheduled, ..self.clone() },
            AttemptStep::End(end) => Self {
                status: end.status,
                started_at: self
                    .started_at
                    .or_else(|| end.told.as_ref().and_then(|told| began_at(told, self.created_at, now))),
                reason: end.reason.clone(),
                exit_code: end.exit_code,
                signal: end.signal,
                finished_at: Some(now),
                held: false,
                ..self.clone()
            },
        }
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
