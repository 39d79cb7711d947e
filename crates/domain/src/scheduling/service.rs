use super::{
    desk::Desk,
    explain::{PendingReason, explain},
    ledger::Discrepancy,
    lifecycle::Success,
    model::{Attempt, AttemptStatus, NewTask, Task, TaskFilter, TaskStatus},
    placement::Plan,
    plan_token::{plan_stale, token_of},
    ports::{AttemptEnd, AttemptStep, Placement, Tasks},
    reason,
    spec::TaskSpec,
};
use crate::{
    Error, Result,
    audit::{AuditEntry, Seal},
    change::{Change, Done, Once, TRIES},
    clock::{Clock, Timestamp},
    containers::ImageService,
    digest::same_secret,
    identity::{Actor, Operation, at_revision},
    ids::{ServerId, TaskId},
    page::{Page, PageRequest},
};
use std::sync::Arc;

/// What a task service needs.
pub struct TaskPorts {
    /// The tasks in the database.
    pub tasks: Arc<dyn Tasks>,
    /// What is known in memory; it must follow the same database.
    pub desk: Arc<Desk>,
    /// Says what images are.
    pub images: Arc<ImageService>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes plan tokens.
    pub seal: Seal,
}

/// Posts, shows, places and ends tasks.
pub struct TaskService {
    ports: TaskPorts,
}

/// A task, and why it is pending if it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDetails {
    /// The task.
    pub task: Task,
    /// Why no server takes it, nearest miss first; nothing if it is not pending, or about to be placed.
    pub pending_reasons: Vec<PendingReason>,
}

/// Where a task would go.
#[derive(Debug, Clone)]
pub struct DryRun {
    /// Every server, judged.
    pub plan: Plan,
    /// Proves to the real call what was seen here.
    pub plan_token: String,
}

impl TaskService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: TaskPorts) -> Self {
        Self { ports }
    }

    /// Stores a task, which is placed as soon as it fits. With a plan token it is placed at once, as planned, or not
    /// stored at all.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming what makes no valid task; `plan_stale` if the token is not of this task and this state
    /// of the fleet; as [`ImageService::identify`] says.
    pub async fn task_create(
        &self,
        actor: &Actor,
        spec: TaskSpec,
        plan_token: Option<&str>,
        once: Option<Once>,
    ) -> Result<Done<Task>> {
        actor.authorize(Operation::TaskCreate)?;
        let now = self.ports.clock.now();
        check_deadline(&spec, now)?;
        let mut entry = AuditEntry::new(actor, Operation::TaskCreate.action(), now);
        if spec.image.is_some() && !spec.verify_image {
            entry = entry.because("what its image was built for was not looked up: verify_image is false");
        }
        let change = Change::new(entry, once.clone());
        if plan_token.is_none() && spec.image.is_none() {
            return self.ports.tasks.create(NewTask { spec }, change).await;
        }
        self.answered_or(once.as_ref(), async {
            let spec = self.ports.images.identify(spec).await?;
            match plan_token {
                Some(plan_token) => self.create_as_planned(spec, plan_token, change).await,
                None => self.ports.tasks.create(NewTask { spec }, change).await,
            }
        })
        .await
    }

    async fn create_as_planned(&self, spec: TaskSpec, plan_token: &str, change: Change) -> Result<Done<Task>> {
        self.ports.tasks.catch_up().await?;
        match self.claim_as_planned(&spec, plan_token)? {
            None => self.ports.tasks.create(NewTask { spec }, change).await,
            Some(server) => {
                let _claimed = self.ports.desk.claimed_room(server, spec.demand);
                self.ports.tasks.create_placed(NewTask { spec }, server, change).await
            }
        }
    }

    /// What the same request was answered before, or what `work` answers. It is asked before the state is judged, which
    /// has gone on since, and again where that refuses: a twin of this request may have been faster.
    async fn answered_or(
        &self,
        once: Option<&Once>,
        work: impl Future<Output = Result<Done<Task>>>,
    ) -> Result<Done<Task>> {
        if let Some(done) = self.answered(once).await? {
            return Ok(done);
        }
        match work.await {
            Err(refusal @ (Error::Conflict { .. } | Error::Capacity { .. })) => {
                self.answered(once).await?.ok_or(refusal)
            }
            outcome => outcome,
        }
    }

    async fn answered(&self, once: Option<&Once>) -> Result<Option<Done<Task>>> {
        let Some(once) = once else { return Ok(None) };
        let kept = self.ports.tasks.answered(once.clone(), self.ports.clock.now()).await?;
        Ok(kept.map(|value| Done { value, replayed: true }))
    }

    /// Claims the server of a plan if the plan would still be the same; `None` if nothing fitted, and nothing does.
    fn claim_as_planned(&self, spec: &TaskSpec, plan_token: &str) -> Result<Option<ServerId>> {
        self.ports.desk.with(|engine| {
            let plan = engine.plan_for(spec);
            if !same_secret(&token_of(&self.ports.seal, spec, &plan, engine.fleet()), plan_token) {
                return Err(plan_stale());
            }
            Ok(engine.claim_for(spec).map(|(server, _)| server))
        })
    }

    /// Where a task would go that is not stored. Writes nothing.
    ///
    /// # Errors
    /// As for posting it; [`Error::Forbidden`] if its image would have to be looked up for somebody who may not post it.
    pub async fn task_dry_run(&self, actor: &Actor, spec: TaskSpec) -> Result<DryRun> {
        actor.authorize(Operation::TaskDryRun)?;
        check_deadline(&spec, self.ports.clock.now())?;
        if spec.image.is_some() && spec.verify_image {
            // Asking registries and machines, some of them with a login, is for those who may have images run.
            actor.authorize(Operation::TaskCreate)?;
        }
        let spec = self.ports.images.identify(spec).await?;
        self.ports.tasks.catch_up().await?;
        Ok(self.ports.desk.with(|engine| {
            let plan = engine.plan_for(&spec);
            let plan_token = token_of(&self.ports.seal, &spec, &plan, engine.fleet());
            DryRun { plan, plan_token }
        }))
    }

    /// Where a task that is stored would go now. Writes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; `illegal_transition` if it is not pending.
    pub async fn task_plan(&self, actor: &Actor, id: TaskId) -> Result<DryRun> {
        actor.authorize(Operation::TaskPlan)?;
        let task = self.ports.tasks.get(id).await?;
        // Says why not, in the words of the real call.
        task.placed(ServerId(0), self.ports.clock.now())?;
        self.ports.tasks.catch_up().await?;
        Ok(self.ports.desk.with(|engine| {
            let plan = engine.plan_of(&task);
            let plan_token = token_of(&self.ports.seal, &task.spec, &plan, engine.fleet());
            DryRun { plan, plan_token }
        }))
    }

    /// Tasks that match, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn task_list(&self, actor: &Actor, filter: TaskFilter, page: PageRequest) -> Result<Page<Task>> {
        actor.authorize(Operation::TaskList)?;
        self.ports.tasks.list(filter, page).await
    }

    /// One task, and why it is pending if it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn task_get(&self, actor: &Actor, id: TaskId) -> Result<TaskDetails> {
        actor.authorize(Operation::TaskGet)?;
        let task = self.ports.tasks.get(id).await?;
        if task.status != TaskStatus::Pending {
            return Ok(TaskDetails { task, pending_reasons: Vec::new() });
        }
        self.ports.tasks.catch_up().await?;
        let pending_reasons = self.ports.desk.with(|engine| {
            // What is decided about keeps itself out of its own room.
            if engine.is_decided(id) { Vec::new() } else { explain(&engine.plan_of(&task)) }
        });
        Ok(TaskDetails { task, pending_reasons })
    }

    /// Where the output of an attempt is, and which attempt that is: the newest, if none is named.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such task or attempt; `no_output` if nothing was kept of it.
    pub async fn task_output(&self, actor: &Actor, id: TaskId, attempt: Option<u32>) -> Result<(ServerId, u32)> {
        actor.authorize(Operation::TaskLogs)?;
        let task = self.ports.tasks.get(id).await?;
        if task.spec.driver.needs().is_none() {
            let reason = format!("task {id} has the driver none: its user runs it, and its output is not kept here");
            return Err(Error::conflict("no_output", reason));
        }
        if task.attempt == 0 {
            let reason = format!("task {id} has not been placed yet, so there is no output");
            return Err(Error::conflict("no_output", reason));
        }
        let number = attempt.unwrap_or(task.attempt);
        let attempts = self.ports.tasks.attempts(id).await?;
        let found = attempts.into_iter().find(|attempt| attempt.number == number);
        let found = found.ok_or_else(|| Error::not_found("attempt of this task with the number", number))?;
        Ok((found.server_id, number))
    }

    /// The attempts of a task, newest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such task.
    pub async fn task_attempt_list(&self, actor: &Actor, id: TaskId) -> Result<Vec<Attempt>> {
        actor.authorize(Operation::TaskAttemptList)?;
        self.ports.tasks.attempts(id).await
    }

    /// Places a pending task now, whatever is before it in the queue. A task that is scheduled already stays as it is.
    ///
    /// # Errors
    /// [`Error::Capacity`] with the reasons if it fits nowhere; `plan_stale` if the token is not of this state;
    /// `illegal_transition` if it is neither pending nor scheduled.
    pub async fn task_dispatch(
        &self,
        actor: &Actor,
        id: TaskId,
        plan_token: Option<&str>,
        once: Option<Once>,
    ) -> Result<Done<Task>> {
        actor.authorize(Operation::TaskDispatch)?;
        self.answered_or(once.as_ref(), self.dispatch(actor, id, plan_token, once.as_ref())).await
    }

    async fn dispatch(
        &self,
        actor: &Actor,
        id: TaskId,
        plan_token: Option<&str>,
        once: Option<&Once>,
    ) -> Result<Done<Task>> {
        for _ in 0..TRIES {
            let task = self.ports.tasks.get(id).await?;
            let now = self.ports.clock.now();
            if task.status == TaskStatus::Scheduled {
                match self.confirm(actor, task, once, now).await {
                    Err(Error::Stale { .. }) => continue,
                    outcome => return outcome,
                }
            }
            task.placed(ServerId(0), now)?;
            self.ports.tasks.catch_up().await?;
            let Some(server) = self.decide(&task, plan_token)? else { continue };
            let _claimed = self.ports.desk.claimed(id);
            let entry =
                |before: &Task, after: &Task| moved(actor, Operation::TaskDispatch.action(), now, before, after);
            let placement = Placement::of(&task, server, now, entry).ok_or_else(|| Error::internal("not pending"))?;
            match self.ports.tasks.place_one(placement, once.cloned()).await {
                Err(Error::Stale { .. }) => {}
                outcome => return outcome,
            }
        }
        Err(Error::busy("task", id))
    }

    /// Answers with a task that is scheduled already. Under a key, the answer is kept like that of any other dispatch.
    async fn confirm(&self, actor: &Actor, task: Task, once: Option<&Once>, now: Timestamp) -> Result<Done<Task>> {
        let Some(once) = once else { return Ok(Done { value: task, replayed: false }) };
        let entry = AuditEntry::new(actor, Operation::TaskDispatch.action(), now);
        self.ports.tasks.confirm(task, Change::new(entry, Some(once.clone()))).await
    }

    /// The server for a task, claimed, or why there is none; nothing, if the task has moved since it was read.
    fn decide(&self, task: &Task, plan_token: Option<&str>) -> Result<Option<ServerId>> {
        let decided = self.ports.desk.with_pending(task, |engine| {
            if let Some(given) = plan_token {
                let plan = engine.plan_of(task);
                if !same_secret(&token_of(&self.ports.seal, &task.spec, &plan, engine.fleet()), given) {
                    return Err(plan_stale());
                }
            }
            match engine.dispatch(task) {
                Some(decision) => Ok(decision.server),
                None => Err(self.refusal(task, &explain(&engine.plan_of(task)))),
            }
        });
        decided.transpose()
    }

    /// Why a task is not placed. One that is late is not, though there were room: it fails in a moment.
    fn refusal(&self, task: &Task, reasons: &[PendingReason]) -> Error {
        match task.expired(self.ports.clock.now()) {
            Ok(Task { detail, .. }) => {
                let detail = detail.unwrap_or_default();
                Error::conflict(reason::DEADLINE_PASSED, format!("task {} is too late: {detail}", task.id))
            }
            Err(_) => no_capacity(task, reasons),
        }
    }

    /// Says that a task with the driver `none` runs.
    ///
    /// # Errors
    /// `illegal_transition`, `driven_by_agent`.
    pub async fn task_start(&self, actor: &Actor, id: TaskId, once: Option<Once>) -> Result<Done<Task>> {
        let step = |task: &Task, now| Ok((task.started(now)?, AttemptStep::Start));
        self.change(actor, Operation::TaskStart, id, once, step).await
    }

    /// Says that a task with the driver `none` ended. After a failure it is pending again while it has attempts left.
    ///
    /// # Errors
    /// `illegal_transition`, `driven_by_agent`.
    pub async fn task_complete(
        &self,
        actor: &Actor,
        id: TaskId,
        success: Success,
        once: Option<Once>,
    ) -> Result<Done<Task>> {
        let step = |task: &Task, now| {
            let end = match success {
                Success::Yes => AttemptEnd::by_hand(AttemptStatus::Completed, None),
                Success::No => AttemptEnd::by_hand(AttemptStatus::Failed, Some(reason::ATTEMPT_FAILED)),
            };
            Ok((task.completed(success, now)?, AttemptStep::End(end)))
        };
        self.change(actor, Operation::TaskComplete, id, once, step).await
    }

    /// Has a task that failed or was cancelled run again, also on architectures on which attempts of it ended with an
    /// exec format error: its user may have installed an emulator meanwhile, or mended the machine.
    ///
    /// # Errors
    /// `illegal_transition`, `deadline_passed`.
    pub async fn task_retry(&self, actor: &Actor, id: TaskId, once: Option<Once>) -> Result<Done<Task>> {
        let step = |task: &Task, now| Ok((task.retried(now)?, AttemptStep::Keep));
        self.change(actor, Operation::TaskRetry, id, once, step).await
    }

    /// Removes a task and its attempts.
    ///
    /// # Errors
    /// `task_is_live` while it holds room on a server; [`Error::Stale`] if it is not at `revision` any more.
    pub async fn task_delete(&self, actor: &Actor, id: TaskId, revision: Option<i64>) -> Result<()> {
        actor.authorize(Operation::TaskDelete)?;
        let task = self.ports.tasks.get(id).await?;
        at_revision("task", id, task.revision, revision)?;
        let entry = AuditEntry::new(actor, Operation::TaskDelete.action(), self.ports.clock.now()).deleted(&task);
        self.ports.tasks.delete(task, entry.into()).await.map(|done| done.value)
    }

    /// Compares what servers and pools say is reserved with what tasks hold.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn ledger_check(&self, actor: &Actor) -> Result<Vec<Discrepancy>> {
        actor.authorize(Operation::LedgerCheck)?;
        self.ports.tasks.ledger_check().await
    }

    /// Sets what servers and pools say to what tasks hold, and tells what was different.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn ledger_mend(&self, actor: &Actor, once: Option<Once>) -> Result<Done<Vec<Discrepancy>>> {
        actor.authorize(Operation::LedgerMend)?;
        let entry = AuditEntry::new(actor, Operation::LedgerMend.action(), self.ports.clock.now());
        self.ports.tasks.ledger_mend(Change::new(entry, once)).await
    }

    /// Computes what the task becomes and writes it; again from the newest state if it moved meanwhile.
    pub(super) async fn change(
        &self,
        actor: &Actor,
        operation: Operation,
        id: TaskId,
        once: Option<Once>,
        compute: impl Fn(&Task, Timestamp) -> Result<(Task, AttemptStep)>,
    ) -> Result<Done<Task>> {
        actor.authorize(operation)?;
        let action = operation.action();
        self.answered_or(once.as_ref(), self.change_newest(actor, action, id, once.as_ref(), compute)).await
    }

    async fn change_newest(
        &self,
        actor: &Actor,
        action: &str,
        id: TaskId,
        once: Option<&Once>,
        compute: impl Fn(&Task, Timestamp) -> Result<(Task, AttemptStep)>,
    ) -> Result<Done<Task>> {
        for _ in 0..TRIES {
            let before = self.ports.tasks.get(id).await?;
            let now = self.ports.clock.now();
            let (after, step) = compute(&before, now)?;
            let entry = moved(actor, action, now, &before, &after);
            match self.ports.tasks.update(after, step, Change::new(entry, once.cloned())).await {
                Err(Error::Stale { .. }) => {}
                outcome => return outcome,
            }
        }
        Err(Error::busy("task", id))
    }
}

fn check_deadline(spec: &TaskSpec, now: Timestamp) -> Result<()> {
    match spec.deadline {
        Some(deadline) if deadline <= now => Err(Error::invalid("deadline", "has passed already")),
        _ => Ok(()),
    }
}

/// What is recorded of a task that only went on: where it was, and where it is.
pub(super) fn moved(actor: &Actor, action: &str, now: Timestamp, before: &Task, after: &Task) -> AuditEntry {
    AuditEntry::new(actor, action, now).moved(after, before.position(), after.position())
}

fn no_capacity(task: &Task, reasons: &[PendingReason]) -> Error {
    let told = reasons.iter().map(|reason| match &reason.nearest {
        Some((_, name)) => {
            format!("{} ({} of the servers; \"{name}\" {})", reason.code, reason.servers, reason.detail)
        }
        None => format!("{} ({})", reason.code, reason.detail),
    });
    let told: Vec<String> = told.collect();
    let reason = format!("no server takes task {} \"{}\" now: {}", task.id, task.spec.name, told.join(", "));
    Error::Capacity { reason }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
