//! Operations that run no task, from the order to what their agents say of them.
//!
//! They are for now: one that was not begun soon after it was ordered is given up, so that nothing happens when an agent
//! comes back that nobody expects any more.

use super::{
    agent_service::AgentService,
    mailbox::Reached,
    operations::{Deed, Operation, OperationState},
    protocol::{Delivery, End, Ending},
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once, TRIES},
    clock::Timestamp,
    identity::{self, Actor},
    ids::{OperationId, ServerId},
};
use chrono::TimeDelta;
use serde_json::json;

/// How long an order waits to be begun.
const PATIENCE: TimeDelta = TimeDelta::seconds(120);

impl AgentService {
    /// Takes in that something has begun: an attempt, or what runs no task. Hearing it twice changes nothing.
    ///
    /// # Errors
    /// `operation_closed` if it has come to its end, as far as the server is concerned; [`Error::NotFound`] if the
    /// operation is not of this server.
    pub async fn operation_started(&self, actor: &Actor, server: ServerId, id: OperationId) -> Result<()> {
        let operation = self.operation_of_server(server, id).await?;
        if operation.deed.is_none() {
            return self.reports().started(actor, server, id).await;
        }
        self.change_deed(actor, operation, |operation, now| Ok(operation.begun(now))).await
    }

    /// Takes in how something ended: an attempt, or what runs no task. Hearing it twice changes nothing.
    ///
    /// # Errors
    /// As [`AgentService::operation_started`].
    pub async fn operation_ended(&self, actor: &Actor, server: ServerId, id: OperationId, end: &End) -> Result<()> {
        let operation = self.operation_of_server(server, id).await?;
        if operation.deed.is_none() {
            return self.reports().ended(actor, server, id, end).await;
        }
        let end = &end.bounded();
        if operation.result.as_ref() == Some(end) {
            return Ok(());
        }
        self.change_deed(actor, operation, |operation, now| {
            Ok((operation.state.is_open() || operation.is_given_up()).then(|| operation.ended(end, now)))
        })
        .await
    }

    /// Asks for the end of what runs no task.
    ///
    /// # Errors
    /// `illegal_transition` if it has ended, or its end was asked for before.
    pub async fn deed_cancel(&self, actor: &Actor, id: OperationId, once: Option<Once>) -> Result<Done<Operation>> {
        actor.authorize(identity::Operation::ContainerAct)?;
        let operations = &self.ports().operations;
        for _ in 0..TRIES {
            let (before, now) = (operations.get(id).await?, self.ports().clock.now());
            if !before.state.is_open() || before.cancel_requested {
                if let Some(once) = once.clone()
                    && let Some(value) = operations.answered(once, now).await?
                {
                    return Ok(Done { value, replayed: true });
                }
                let reason =
                    format!("operation {id} has ended, or is being cancelled; only one that runs can be cancelled");
                return Err(Error::conflict("illegal_transition", reason));
            }
            let after = Operation { cancel_requested: true, ..before.clone() };
            let entry = deed_entry(actor, identity::Operation::OperationCancel.action(), &before, &after, now);
            match operations.update(before, after, Change::new(entry, once.clone())).await {
                Err(Error::Stale { .. }) => {}
                outcome => return outcome,
            }
        }
        Err(Error::busy("operation", id))
    }

    /// What an agent is told of an operation that runs no task; nothing, if it has waited for too long.
    pub(super) fn deed_delivery(&self, operation: &Operation, deed: &Deed) -> Option<Delivery> {
        let left = PATIENCE - self.ports().clock.now().signed_duration_since(operation.created_at);
        let expires_in_seconds = u64::try_from(left.num_seconds()).ok().filter(|seconds| *seconds > 0)?;
        Some(Delivery { id: operation.id, expires_in_seconds, order: deed.order() })
    }

    /// Gives up what its agent has not begun in time. What the agent may know of it may have done.
    ///
    /// # Errors
    /// The first that there was; the others were given up all the same.
    pub(super) async fn deeds_expire(&self) -> Result<()> {
        let (now, mut outcome) = (self.ports().clock.now(), Ok(()));
        for (operation, reached) in self.mailbox().open() {
            if !operation.is_late(now) {
                continue;
            }
            let end = match reached {
                Reached::No => {
                    End::without_code(Ending::Expired, "its agent was not told of it in time; nothing was done")
                }
                Reached::Maybe => End::without_code(
                    Ending::Unknown,
                    "its agent was told, and has not said whether it has done it; look at what has become of it",
                ),
            };
            outcome = outcome.and(self.give_up(&operation, &end, Operation::is_late).await);
        }
        outcome
    }

    /// Gives up what the agent of a server was doing, which is not heard of any more.
    ///
    /// # Errors
    /// As [`AgentService::deeds_expire`].
    pub(super) async fn deeds_lose(&self, server: ServerId) -> Result<()> {
        let detail = "contact with its server was lost while it was done; look at what has become of it";
        let (end, mut outcome) = (End::without_code(Ending::Unknown, detail), Ok(()));
        for (operation, _) in self.mailbox().open() {
            if operation.server_id == server && operation.deed.is_some() && operation.state == OperationState::Running {
                outcome = outcome.and(self.give_up(&operation, &end, |_, _| true).await);
            }
        }
        outcome
    }

    /// Ends an operation without its agent's word.
    async fn give_up(
        &self,
        operation: &Operation,
        end: &End,
        is_due: impl Fn(&Operation, Timestamp) -> bool,
    ) -> Result<()> {
        let compute = |operation: &Operation, now| Ok(is_due(operation, now).then(|| operation.ended(end, now)));
        match self.change_deed(&Actor::system("fleet"), operation.clone(), compute).await {
            // Its agent was quicker, or its server is gone.
            Err(Error::Conflict { code: "operation_closed", .. } | Error::NotFound { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    async fn operation_of_server(&self, server: ServerId, id: OperationId) -> Result<Operation> {
        let operation = self.ports().operations.get(id).await?;
        if operation.server_id == server { Ok(operation) } else { Err(Error::not_found("operation", id)) }
    }

    async fn change_deed(
        &self,
        actor: &Actor,
        operation: Operation,
        compute: impl Fn(&Operation, Timestamp) -> Result<Option<Operation>>,
    ) -> Result<()> {
        let mut before = operation;
        for _ in 0..TRIES {
            let now = self.ports().clock.now();
            let after = compute(&before, now)?;
            if !before.state.is_open() && after.is_none() {
                return Err(before.closed());
            }
            let Some(after) = after else { return Ok(()) };
            let action = if after.state.is_open() { "operation.started" } else { "operation.ended" };
            let entry = deed_entry(actor, action, &before, &after, now);
            let id = before.id;
            match self.ports().operations.update(before, after, entry.into()).await {
                Err(Error::Stale { .. }) => before = self.ports().operations.get(id).await?,
                outcome => return outcome.map(|_| ()),
            }
        }
        Err(Error::busy("operation", before.id))
    }
}

impl Operation {
    /// Whether it runs no task, and should have been begun by now.
    fn is_late(&self, now: Timestamp) -> bool {
        self.deed.is_some()
            && self.state == OperationState::Queued
            && now.signed_duration_since(self.created_at) >= PATIENCE
    }

    /// Whether it was ended without its agent's word, which is still worth hearing.
    fn is_given_up(&self) -> bool {
        let without_word = matches!(self.state, OperationState::Expired | OperationState::Unknown);
        without_word && self.result.as_ref().is_some_and(|end| end.finished_at.is_none())
    }
}

fn deed_entry(actor: &Actor, action: &str, before: &Operation, after: &Operation, now: Timestamp) -> AuditEntry {
    let state = |operation: &Operation| {
        json!({
            "state": operation.state, "kind": operation.kind, "cancel_requested": operation.cancel_requested,
            "result": operation.result,
        })
    };
    AuditEntry::new(actor, action, now).moved(before, state(before), state(after))
}

#[cfg(test)]
#[path = "deeds_tests.rs"]
mod tests;
