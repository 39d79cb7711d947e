use super::{
    agent_ports::{Agents, Enrollments, NewAgent, Operations},
    enrollment::Enrollment,
    mailbox::Mailbox,
    model::Server,
    operations::{Operation, OperationFilter},
    ports::Servers,
    presence::{Presence, Seated},
    protocol::{
        Deliveries, Delivery, EnrollRequest, Enrolled, InventoryReport, Order, PROTOCOLS, RunTask, SessionOpened,
        SessionRequest, negotiate,
    },
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, TRIES},
    clock::Clock,
    entropy::Entropy,
    identity::{self, Actor, Principal, Secret},
    ids::{OperationId, ServerId, TaskId},
    page::{Page, PageRequest},
    scheduling::{Tasks, WorkReports},
};
use std::{sync::Arc, time::Duration};

/// How long an operation may be begun after it was delivered. An agent that was frozen for longer asks again.
const EXPIRES_SECONDS: u64 = 600;
/// Within what time an agent whose connection broke has certainly asked again, unless it is out of reach.
const TO_ASK_AGAIN: Duration = Duration::from_secs(20);

/// What an [`AgentService`] needs.
pub struct AgentPorts {
    /// The servers in the database.
    pub servers: Arc<dyn Servers>,
    /// Their agents.
    pub agents: Arc<dyn Agents>,
    /// Join tokens.
    pub enrollments: Arc<dyn Enrollments>,
    /// What agents are told.
    pub operations: Arc<dyn Operations>,
    /// The tasks in the database.
    pub tasks: Arc<dyn Tasks>,
    /// What agents have to be told, in memory; it must follow the same database.
    pub mailbox: Arc<Mailbox>,
    /// Which agents are there.
    pub presence: Arc<Presence>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes tokens.
    pub entropy: Arc<dyn Entropy>,
    /// Names this installation on machines.
    pub installation: Arc<str>,
}

/// Speaks with agents.
pub struct AgentService {
    ports: AgentPorts,
    reports: WorkReports,
}

impl AgentService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: AgentPorts) -> Self {
        let AgentPorts { tasks, servers, operations, clock, .. } = &ports;
        let reports = WorkReports::new(tasks.clone(), servers.clone(), operations.clone(), clock.clone());
        Self { ports, reports }
    }

    /// Makes a server of the machine whose agent has this join token. An agent whose answer was lost on the way may ask
    /// again from the same place: it gets another token, and uses up no more of the join token.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if the token is not good; `architecture_unsupported`; `protocol_unsupported`;
    /// `name_taken`.
    pub async fn agent_enroll(&self, request: EnrollRequest, request_id: Option<String>) -> Result<Enrolled> {
        speak(&request.protocols)?;
        let digest = Secret::from(request.join_token).digest();
        let enrollment = self.ports.enrollments.find(&digest).await?.ok_or_else(Enrollment::unknown)?;
        let now = self.ports.clock.now();
        request.inventory.check()?;
        let server = request.inventory.new_server(request.name)?;
        let secret = Secret::generate("sla", &*self.ports.entropy);
        let agent = NewAgent { token_digest: secret.digest(), place: request.place };
        let actor = Actor { request_id, ..Actor::system("enrollment") };
        let actor = Actor { on_behalf_of: Some(enrollment.created_by.clone()), ..actor };
        let entry = AuditEntry::new(&actor, identity::Operation::AgentEnroll.action(), now)
            .because(format!("joined with the join token \"{}\"", enrollment.name));
        let inventory = request.inventory.inventory(Some(now));
        let join = self.ports.enrollments.join(enrollment.id, server, inventory, agent, entry.into());
        let server = join.await?.value;
        Ok(Enrolled { server_id: server.id, token: secret.expose().to_owned() })
    }

    /// Lets an agent that has started speak for its server, and takes what it says of the machine.
    ///
    /// # Errors
    /// `agent_already_running` if another one does, with the same token, from another place; `protocol_unsupported`;
    /// `architecture_unsupported`.
    pub async fn agent_session(&self, actor: &Actor, request: SessionRequest) -> Result<SessionOpened> {
        let server_id = self.server_of(actor, identity::Operation::AgentSession)?;
        let protocol = speak(&request.protocols)?;
        request.inventory.check()?;
        let account = self.ports.agents.get(server_id).await?;
        let account = account.ok_or_else(|| Error::not_found("agent of server", server_id))?;
        let (now, at) = (self.ports.clock.uptime(), self.ports.clock.now());
        if !self.ports.presence.open(server_id, &request.session, &request.place, now, at) {
            let reason = "another agent with this token is running on another state directory: one of the two is a \
                          copy; stop one, and join the other anew";
            return Err(Error::conflict("agent_already_running", reason));
        }
        let place = (account.place != request.place).then_some(request.place);
        let server = self.take_in(actor, server_id, &request.inventory, place).await?;
        self.ports.operations.catch_up().await?;
        self.reports.found_again(actor, server_id).await?;
        Ok(SessionOpened {
            server_id,
            name: server.name,
            protocol,
            installation: self.ports.installation.to_string(),
            begun: self.ports.mailbox.begun(server_id),
        })
    }

    /// Takes what an agent found out about its machine.
    ///
    /// # Errors
    /// `session_gone`; `architecture_unsupported`.
    pub async fn agent_inventory(&self, actor: &Actor, session: &str, report: &InventoryReport) -> Result<()> {
        let server = self.heard(actor, identity::Operation::AgentInventory, session)?;
        report.check()?;
        self.take_in(actor, server, report, None).await.map(|_| ())
    }

    /// Notes that an agent was heard of, and for which server it speaks.
    ///
    /// # Errors
    /// `session_gone` if it has to open a session.
    pub fn heard(&self, actor: &Actor, operation: identity::Operation, session: &str) -> Result<ServerId> {
        let server = self.server_of(actor, operation)?;
        let (now, at) = (self.ports.clock.uptime(), self.ports.clock.now());
        match self.ports.presence.hear(server, session, now, at) {
            Seated::Yes => Ok(server),
            Seated::No => Err(session_gone()),
        }
    }

    /// What a server's agent, which was heard of in this session, has to be told at this moment; nothing most of the
    /// time. It is no sign of life: whoever asked may have gone since.
    ///
    /// # Errors
    /// `session_gone`, and whatever the database says.
    pub async fn due(&self, server: ServerId, session: &str) -> Result<Deliveries> {
        if !self.ports.presence.is_seated(server, session, self.ports.clock.uptime()) {
            return Err(session_gone());
        }
        let due = self.ports.mailbox.take(server, session, self.ports.clock.uptime());
        let mut operations = Vec::with_capacity(due.begin.len());
        for operation in due.begin {
            operations.extend(self.delivery(&operation).await?);
        }
        Ok(Deliveries { operations, cancel: due.cancel, streams: due.streams })
    }

    async fn delivery(&self, operation: &Operation) -> Result<Option<Delivery>> {
        if let Some(deed) = &operation.deed {
            return Ok(self.deed_delivery(operation, deed));
        }
        let (Some(task_id), Some(attempt)) = (operation.task_id, operation.attempt) else { return Ok(None) };
        let task = match self.ports.tasks.get(task_id).await {
            Ok(task) if task.attempt == attempt && task.status.holds() => task,
            // It went on since: the operation is closed, or about to be.
            Ok(_) | Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let order = Order::RunTask(Box::new(RunTask { task_id, attempt, spec: task.spec.pinned() }));
        Ok(Some(Delivery { id: operation.id, expires_in_seconds: EXPIRES_SECONDS, order }))
    }

    pub(super) fn ports(&self) -> &AgentPorts {
        &self.ports
    }

    /// What an agent says of an operation.
    #[must_use]
    pub fn reports(&self) -> &WorkReports {
        &self.reports
    }

    /// Notes what an operation is at.
    ///
    /// # Errors
    /// `session_gone`; [`Error::NotFound`] if it is not this agent's.
    pub async fn agent_progress(&self, actor: &Actor, session: &str, id: OperationId, message: String) -> Result<()> {
        let server = self.heard(actor, identity::Operation::AgentProgress, session)?;
        let operation = self.ports.operations.get(id).await?;
        if operation.server_id != server {
            return Err(Error::not_found("operation", id));
        }
        let message = message.chars().filter(|c| !c.is_control()).take(500).collect();
        self.ports.operations.progress(id, message).await
    }

    /// Background job: puts servers out of use whose agents are silent, and says of what runs there that nobody knows.
    ///
    /// # Errors
    /// Whatever the database says; the same is found again at the next run.
    pub async fn agents_watch(&self) -> Result<()> {
        let now = self.ports.clock.uptime();
        for server in self.ports.agents.servers().await? {
            if self.ports.presence.is_missed(server, now) {
                self.miss(server).await?;
            }
        }
        self.deeds_expire().await
    }

    /// Background job: writes down when agents were last heard of.
    ///
    /// # Errors
    /// If it cannot be written; the next run writes it.
    pub async fn agents_touch(&self) -> Result<()> {
        let heard = self.ports.presence.last_heard();
        if heard.is_empty() { Ok(()) } else { self.ports.agents.touch(heard).await }
    }

    async fn miss(&self, id: ServerId) -> Result<()> {
        let actor = Actor::system("fleet");
        for _ in 0..TRIES {
            let now = self.ports.clock.now();
            let before = match self.ports.servers.get(id).await {
                Err(Error::NotFound { .. }) => return Ok(()),
                found => found?,
            };
            if self.ports.presence.is_there_elsewhere(&before, now) {
                return Ok(());
            }
            let Some(after) = before.out_of_reach(now) else { break };
            let grace = self.ports.presence.grace().as_secs();
            let entry = AuditEntry::new(&actor, "server.lost", now)
                .moved(&after, before.condition(), after.condition())
                .because(format!("its agent was silent for {grace} s"));
            match self.ports.agents.report(after, None, entry.into()).await {
                Err(Error::Stale { .. }) => {}
                Err(Error::NotFound { .. }) => return Ok(()),
                outcome => {
                    outcome?;
                    break;
                }
            }
        }
        self.reports.lose(&actor, id).await?;
        self.deeds_lose(id).await
    }

    /// The server after what its agent said.
    async fn take_in(
        &self,
        actor: &Actor,
        id: ServerId,
        report: &InventoryReport,
        place: Option<String>,
    ) -> Result<Server> {
        for _ in 0..TRIES {
            let before = self.ports.servers.get(id).await?;
            let now = self.ports.clock.now();
            let Some(after) = before.reported(report, now)? else {
                if let Some(place) = place {
                    let entry = AuditEntry::new(actor, "agent.move", now)
                        .because("its state directory is in another place than before");
                    let entry = entry.moved(&before, serde_json::Value::Null, serde_json::Value::Null);
                    self.ports.agents.moved(id, place, entry.into()).await?;
                }
                return Ok(before);
            };
            let entry =
                AuditEntry::new(actor, "server.report", now).moved(&after, before.condition(), after.condition());
            let entry = if before.architecture == after.architecture {
                entry
            } else {
                entry.because(format!(
                    "its architecture was {} and is {}",
                    before.architecture.as_str(),
                    after.architecture.as_str()
                ))
            };
            match self.ports.agents.report(after, place.clone(), Change::from(entry)).await {
                Err(Error::Stale { .. }) => {}
                outcome => return outcome.map(|done| done.value),
            }
        }
        Err(Error::busy("server", id))
    }

    /// The server whose agent asks.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if it is somebody else.
    pub fn server_of(&self, actor: &Actor, operation: identity::Operation) -> Result<ServerId> {
        actor.authorize(operation)?;
        match actor.principal {
            Principal::Agent { server, .. } => Ok(server),
            _ => Err(Error::Forbidden { reason: "only the agent of a server may".to_owned() }),
        }
    }

    /// Makes sure that the agent of a server can be asked for something now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot.
    pub fn check_there(&self, server: ServerId) -> Result<()> {
        self.ports.presence.check_there(server, self.ports.clock.uptime())
    }

    /// The servers whose agents can be reached at this moment.
    #[must_use]
    pub fn there(&self) -> Vec<ServerId> {
        self.ports.presence.there(self.ports.clock.uptime())
    }

    /// Where streams are ordered.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.ports.mailbox
    }

    /// How long an agent's question may be left open: so much less than the time after which it would be missed that it
    /// can ask again if the answer is lost.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        let grace = self.ports.presence.grace();
        (grace / 2).max(grace.saturating_sub(TO_ASK_AGAIN))
    }

    /// What agents were told, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn operation_list(
        &self,
        actor: &Actor,
        filter: OperationFilter,
        page: PageRequest,
    ) -> Result<Page<Operation>> {
        actor.authorize(identity::Operation::OperationList)?;
        self.ports.operations.list(filter, page).await
    }

    /// The same of one server.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such server.
    pub async fn server_operation_list(
        &self,
        actor: &Actor,
        server: ServerId,
        page: PageRequest,
    ) -> Result<Page<Operation>> {
        actor.authorize(identity::Operation::ServerOperationList)?;
        self.ports.servers.get(server).await?;
        let filter = OperationFilter { server_id: Some(server), ..OperationFilter::default() };
        self.ports.operations.list(filter, page).await
    }

    /// The operation that runs this attempt of a task, for whoever may see the task.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn operation_of(&self, task: TaskId, attempt: u32) -> Result<Option<Operation>> {
        let filter = OperationFilter { task_id: Some(task), ..OperationFilter::default() };
        let found = self.ports.operations.list(filter, PageRequest::default()).await?;
        Ok(found.items.into_iter().find(|operation| operation.attempt == Some(attempt)))
    }

    /// One thing that an agent was told.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn operation_get(&self, actor: &Actor, id: OperationId) -> Result<Operation> {
        let whole = actor.authorize(identity::Operation::OperationGet);
        if whole.is_err() {
            // Whoever may see containers is told what is done to them.
            actor.authorize(identity::Operation::ContainerGet)?;
        }
        let operation = self.ports.operations.get(id).await?;
        if operation.deed.is_none() {
            whole?;
        }
        Ok(operation)
    }

    /// One, for who may cancel it ([`crate::scheduling::TaskService::operation_cancel`]).
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn operation_to_cancel(&self, actor: &Actor, id: OperationId) -> Result<Operation> {
        let whole = actor.authorize(identity::Operation::OperationCancel);
        if whole.is_err() {
            actor.authorize(identity::Operation::ContainerAct)?;
        }
        let operation = self.ports.operations.get(id).await?;
        if operation.deed.is_none() {
            whole?;
        }
        Ok(operation)
    }
}

fn speak(theirs: &[u32]) -> Result<u32> {
    negotiate(PROTOCOLS, theirs).ok_or_else(|| {
        let reason = format!(
            "this server speaks the versions {PROTOCOLS:?} of the agents' protocol, the agent {theirs:?}; install an \
             agent of the server's version"
        );
        Error::conflict("protocol_unsupported", reason)
    })
}

fn session_gone() -> Error {
    Error::conflict("session_gone", "the session is not known any more; open one with POST /agent/session")
}

#[cfg(test)]
#[path = "agent_service_tests.rs"]
mod tests;
