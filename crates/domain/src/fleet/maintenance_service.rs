use super::{
    agent_ports::Agents,
    maintenance::{NewWindow, Window, WindowFilter, WindowPatch},
    maintenance_ports::MaintenanceWindows,
    maintenance_ward::Reach,
    model::{Server, ServerStatus},
    ports::Servers,
    presence::Presence,
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once, TRIES},
    clock::Clock,
    identity::{Actor, Operation, at_revision},
    ids::{ServerId, WindowId},
    page::{Page, PageRequest},
};
use std::sync::Arc;

/// What errors call a window.
const WHAT: &str = "maintenance window";

/// What a [`MaintenanceService`] needs.
pub struct MaintenancePorts {
    /// The windows in the database.
    pub windows: Arc<dyn MaintenanceWindows>,
    /// The servers in the database.
    pub servers: Arc<dyn Servers>,
    /// Their agents.
    pub agents: Arc<dyn Agents>,
    /// Which agents are there.
    pub presence: Arc<Presence>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Plans maintenance windows, and has them begin and end.
pub struct MaintenanceService {
    ports: MaintenancePorts,
}

impl MaintenanceService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: MaintenancePorts) -> Self {
        Self { ports }
    }

    /// Plans a window of a server. One whose time has come begins at once.
    ///
    /// # Errors
    /// As [`MaintenanceWindows::create`].
    pub async fn maintenance_create(
        &self,
        actor: &Actor,
        server: ServerId,
        window: NewWindow,
        once: Option<Once>,
    ) -> Result<Done<Window>> {
        actor.authorize(Operation::MaintenanceCreate)?;
        let entry = AuditEntry::new(actor, Operation::MaintenanceCreate.action(), self.ports.clock.now());
        self.ports.windows.create(server, window, Change::new(entry, once)).await
    }

    /// Windows that match, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn maintenance_list(
        &self,
        actor: &Actor,
        filter: WindowFilter,
        page: PageRequest,
    ) -> Result<Page<Window>> {
        actor.authorize(Operation::MaintenanceList)?;
        self.ports.windows.list(filter, page).await
    }

    /// One window.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn maintenance_get(&self, actor: &Actor, id: WindowId) -> Result<Window> {
        actor.authorize(Operation::MaintenanceGet)?;
        self.ports.windows.get(id).await
    }

    /// Changes a window, ends it or calls it off. Where the caller names no revision, the patch is applied to the newest
    /// one.
    ///
    /// # Errors
    /// [`Error::Stale`] if the window is not at `revision` any more; as [`Window::patched`].
    pub async fn maintenance_update(
        &self,
        actor: &Actor,
        id: WindowId,
        revision: Option<i64>,
        patch: WindowPatch,
    ) -> Result<Window> {
        actor.authorize(Operation::MaintenanceUpdate)?;
        for _ in 0..TRIES {
            let before = self.ports.windows.get(id).await?;
            at_revision(WHAT, id, before.revision, revision)?;
            let now = self.ports.clock.now();
            let after = before.patched(patch.clone(), now)?;
            let entry = AuditEntry::new(actor, after.deed_since(&before), now).changed(&before, &after);
            let reach = self.reach(before.server_id).await?;
            match self.ports.windows.update(after, reach, entry.into()).await {
                Err(Error::Stale { .. }) if revision.is_none() => {}
                Err(error) => return Err(error),
                Ok(done) => {
                    if before.is_in_progress() && !done.value.is_in_progress() {
                        self.welcome_back(before.server_id, reach).await?;
                    }
                    return Ok(done.value);
                }
            }
        }
        Err(Error::busy(WHAT, id))
    }

    /// Whether a window is to begin or to end by now.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn maintenance_is_due(&self) -> Result<bool> {
        Ok(!self.ports.windows.due(self.ports.clock.now()).await?.is_empty())
    }

    /// Background job: has windows begin and end.
    ///
    /// # Errors
    /// Whatever the database says; the same is due at the next run.
    pub async fn maintenance_turn(&self) -> Result<()> {
        let actor = Actor::system("fleet");
        for server in self.ports.windows.due(self.ports.clock.now()).await? {
            let reach = match self.reach(server).await {
                // Its windows went with it.
                Err(Error::NotFound { .. }) => continue,
                reach => reach?,
            };
            let by = AuditEntry::new(&actor, Operation::MaintenanceUpdate.action(), self.ports.clock.now());
            if self.ports.windows.turn(server, reach, by).await?.is_some() {
                self.welcome_back(server, reach).await?;
            }
        }
        Ok(())
    }

    async fn reach(&self, id: ServerId) -> Result<Reach> {
        let server = self.ports.servers.get(id).await?;
        if self.ports.agents.get(id).await?.is_none() {
            return Ok(Reach::NoAgent);
        }
        let ports = &self.ports;
        let heard = ports.presence.is_there(id, ports.clock.uptime())
            || ports.presence.is_there_elsewhere(&server, ports.clock.now());
        Ok(if heard { Reach::Heard } else { Reach::Silent })
    }

    /// Looks again for the agent of a server that has come out of maintenance without it: if that has come in between, it
    /// had no reason to say anything of its server, and nobody else would notice that it is there.
    async fn welcome_back(&self, id: ServerId, reach: Reach) -> Result<()> {
        if reach == Reach::Heard {
            return Ok(());
        }
        for _ in 0..TRIES {
            if !self.ports.presence.is_there(id, self.ports.clock.uptime()) {
                return Ok(());
            }
            let before = self.ports.servers.get(id).await?;
            let Some(after) = self.back_in_reach(&before) else { return Ok(()) };
            let entry = AuditEntry::new(&Actor::system("fleet"), "server.report", after.updated_at)
                .moved(&after, before.condition(), after.condition())
                .because("its agent was heard of while it came out of maintenance");
            match self.ports.agents.report(after, None, entry.into()).await {
                Err(Error::Stale { .. }) => {}
                outcome => return outcome.map(|_| ()),
            }
        }
        Err(Error::busy("server", id))
    }

    fn back_in_reach(&self, server: &Server) -> Option<Server> {
        let offline = server.status == ServerStatus::Offline;
        offline.then(|| server.with_status(ServerStatus::Online, self.ports.clock.now())).flatten()
    }
}

#[cfg(test)]
#[path = "maintenance_service_tests.rs"]
mod tests;
