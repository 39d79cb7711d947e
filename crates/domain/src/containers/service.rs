use super::{
    action::{ContainerAction, Insistence, judge},
    image::Engines,
    model::{Container, ContainerFilter},
    ports::Containers,
    report::check,
    wire::{ContainerOrder, ContainerReport, ExecQuery},
};
use crate::{
    Error, Result,
    audit::{AuditEntry, AuditLog, Seal},
    change::{Change, Done, Once, Recorded},
    clock::{Clock, Timestamp},
    fleet::{
        Operations, Presence, Servers,
        operations::{Deed, Operation},
    },
    identity::{self, Actor},
    ids::{ContainerId, OperationId, ServerId},
    page::{Page, PageRequest},
};
use serde_json::json;
use std::sync::Arc;

/// What a [`ContainerService`] needs.
pub struct ContainerPorts {
    /// What engines have.
    pub containers: Arc<dyn Containers>,
    /// What agents are told.
    pub operations: Arc<dyn Operations>,
    /// The container engines of the fleet.
    pub engines: Arc<dyn Engines>,
    /// The servers in the database.
    pub servers: Arc<dyn Servers>,
    /// Which agents are there.
    pub presence: Arc<Presence>,
    /// Where it is written who looked into a container.
    pub log: Arc<dyn AuditLog>,
    /// Makes plan tokens.
    pub seal: Seal,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Shows containers, and has agents do something to them and to images.
pub struct ContainerService {
    pub(super) ports: ContainerPorts,
}

impl ContainerService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: ContainerPorts) -> Self {
        Self { ports }
    }

    /// What engines have, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn container_list(
        &self,
        actor: &Actor,
        filter: ContainerFilter,
        page: PageRequest,
    ) -> Result<Page<Container>> {
        actor.authorize(identity::Operation::ContainerList)?;
        self.ports.containers.list(filter, page).await
    }

    /// One container.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, or none any more.
    pub async fn container_get(&self, actor: &Actor, id: ContainerId) -> Result<Container> {
        actor.authorize(identity::Operation::ContainerGet)?;
        self.ports.containers.get(id).await
    }

    /// One container, for whoever was allowed to ask for something about it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none any more.
    pub async fn container_now(&self, id: ContainerId) -> Result<Container> {
        self.ports.containers.get(id).await
    }

    /// How far an order is, for whoever gave it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn order_now(&self, id: OperationId) -> Result<Operation> {
        self.ports.operations.get(id).await
    }

    /// One container whose agent can be asked for what is to be watched: its output, or what it uses.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`] if the agent cannot be reached.
    pub async fn container_watch(
        &self,
        actor: &Actor,
        operation: identity::Operation,
        id: ContainerId,
    ) -> Result<Container> {
        actor.authorize(operation)?;
        let container = self.ports.containers.get(id).await?;
        self.check_there(container.server_id)?;
        Ok(container)
    }

    /// Has a container's agent do something to it. The agent's word of how it ended follows; until then the operation is
    /// open.
    ///
    /// # Errors
    /// As [`judge`]; [`Error::Unavailable`] if the agent cannot be reached, since nobody wants to see it done when it is
    /// back.
    pub async fn container_act(
        &self,
        actor: &Actor,
        id: ContainerId,
        action: ContainerAction,
        insistence: Insistence,
        once: Option<Once>,
    ) -> Result<Done<Operation>> {
        actor.authorize(identity::Operation::ContainerAct)?;
        let container = match self.ports.containers.get(id).await {
            // The first request may have removed it.
            Err(Error::NotFound { what }) if once.is_some() => return self.repeated(once, what).await,
            found => found?,
        };
        let judged = judge(&container.observed, &action, insistence);
        if let Err(refusal) = judged.and_then(|()| self.check_there(container.server_id)) {
            // A request that is repeated gets the answer of the first, whatever has become of the container.
            return self.answered(once).await?.ok_or(refusal);
        }
        let recorded = action.recorded();
        let is_foreign = container.observed.runs.is_none();
        let order = ContainerOrder { engine_id: container.observed.engine_id.clone(), action };
        let name = container.observed.name.clone();
        let entry = AuditEntry::new(actor, recorded, self.ports.clock.now());
        let entry = AuditEntry {
            target: Some(container.target()),
            before: Some(json!({ "state": container.observed.state })),
            after: Some(json!({
                "name": name, "server_id": container.server_id, "engine_id": order.engine_id,
                "image": container.observed.image, "task": container.observed.runs.map(|runs| runs.task_id),
                "order": order.action, "force": insistence == Insistence::Force,
            })),
            ..entry
        };
        let entry = if is_foreign { entry.because("forced: StarLink had not started this container") } else { entry };
        let deed = Deed::Container { container_id: id, name, order };
        self.order(container.server_id, deed, entry, once).await
    }

    async fn repeated(&self, once: Option<Once>, what: String) -> Result<Done<Operation>> {
        self.answered(once).await?.ok_or(Error::NotFound { what })
    }

    pub(super) async fn answered(&self, once: Option<Once>) -> Result<Option<Done<Operation>>> {
        match once {
            Some(once) => {
                let answer = self.ports.operations.answered(once, self.ports.clock.now()).await?;
                Ok(answer.map(|value| Done { value, replayed: true }))
            }
            None => Ok(None),
        }
    }

    /// Notes that somebody runs a program in a container, before it is run.
    ///
    /// # Errors
    /// [`Error::NotFound`]; `container_foreign` if `StarLink` did not start it and nobody insists;
    /// [`Error::Unavailable`] if its agent cannot be reached. Whether it runs is its engine's to say.
    pub async fn exec_begin(
        &self,
        actor: &Actor,
        id: ContainerId,
        exec: &ExecQuery,
        insistence: Insistence,
    ) -> Result<()> {
        let container = self.container_watch(actor, identity::Operation::ContainerExec, id).await?;
        let observed = &container.observed;
        if observed.runs.is_none() && insistence == Insistence::None {
            let reason = format!(
                "container \"{}\" was not started by StarLink: ask with force=true to run a program in it all the \
                 same, which is recorded",
                observed.name
            );
            return Err(Error::conflict("container_foreign", reason));
        }
        let entry = self.exec_entry(actor, identity::Operation::ContainerExec.action(), &container);
        let after = json!({
            "name": observed.name, "server_id": container.server_id, "engine_id": observed.engine_id,
            "command": exec.command, "user": exec.user, "tty": exec.tty, "force": insistence == Insistence::Force,
        });
        self.ports.log.record(AuditEntry { after: Some(after), ..entry }).await
    }

    /// Notes how such a program ended: with a code, or with the sentence why nobody knows.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn exec_end(
        &self,
        actor: &Actor,
        container: &Container,
        exec: &ExecQuery,
        end: std::result::Result<Option<i64>, String>,
    ) -> Result<()> {
        let entry = self.exec_entry(actor, "container.exec_end", container);
        let (code, message) = match end {
            Ok(code) => (code, None),
            Err(why) => (None, Some(why)),
        };
        let after = json!({ "name": container.observed.name, "command": exec.command, "exit_code": code });
        self.ports.log.record(AuditEntry { after: Some(after), message, ..entry }).await
    }

    fn exec_entry(&self, actor: &Actor, action: &str, container: &Container) -> AuditEntry {
        let entry = AuditEntry::new(actor, action, self.ports.clock.now());
        AuditEntry { target: Some(container.target()), ..entry }
    }

    pub(super) async fn order(
        &self,
        server: ServerId,
        deed: Deed,
        entry: AuditEntry,
        once: Option<Once>,
    ) -> Result<Done<Operation>> {
        let operation = Operation::to_do(server, deed, entry.created_at);
        self.ports.operations.create(operation, Change::new(entry, once)).await
    }

    pub(super) fn check_there(&self, server: ServerId) -> Result<()> {
        self.ports.presence.check_there(server, self.ports.clock.uptime())
    }

    /// Takes in what a server's agent says of its containers.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is more than agents may say; [`Error::NotFound`] if the server is gone.
    pub async fn containers_reported(&self, server: ServerId, report: ContainerReport) -> Result<()> {
        check(&report)?;
        let at: Timestamp = self.ports.clock.now();
        self.ports.containers.report(server, report.sane(), at).await
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
