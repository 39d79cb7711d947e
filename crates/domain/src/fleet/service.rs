use super::{
    model::{NewServer, Server, ServerFilter, ServerPatch, ServerSort},
    ports::Servers,
    roster::RosterEntry,
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once, TRIES},
    clock::Clock,
    identity::{Actor, Operation, at_revision},
    ids::ServerId,
    page::{Page, PageRequest},
};
use std::sync::Arc;

/// Registers, shows and changes servers.
pub struct ServerService {
    servers: Arc<dyn Servers>,
    clock: Arc<dyn Clock>,
}

impl ServerService {
    /// A service over these ports.
    #[must_use]
    pub fn new(servers: Arc<dyn Servers>, clock: Arc<dyn Clock>) -> Self {
        Self { servers, clock }
    }

    /// Registers a server.
    ///
    /// # Errors
    /// As [`Servers::create`].
    pub async fn server_create(&self, actor: &Actor, server: NewServer, once: Option<Once>) -> Result<Done<Server>> {
        actor.authorize(Operation::ServerCreate)?;
        let entry = AuditEntry::new(actor, Operation::ServerCreate.action(), self.clock.now());
        self.servers.create(server, Change::new(entry, once)).await
    }

    /// Servers that match, a page at a time.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn server_list(
        &self,
        actor: &Actor,
        filter: ServerFilter,
        sort: ServerSort,
        page: PageRequest,
    ) -> Result<Page<Arc<RosterEntry>>> {
        actor.authorize(Operation::ServerList)?;
        self.servers.list(filter, sort, page).await
    }

    /// One server.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn server_get(&self, actor: &Actor, id: ServerId) -> Result<Server> {
        actor.authorize(Operation::ServerGet)?;
        self.servers.get(id).await
    }

    /// Changes a server. Where the caller names no revision, the patch is applied to the newest one.
    ///
    /// # Errors
    /// [`Error::Stale`] if the server is not at `revision` any more; [`Error::Invalid`] if the patch makes no valid
    /// server; `name_taken`.
    pub async fn server_update(
        &self,
        actor: &Actor,
        id: ServerId,
        revision: Option<i64>,
        patch: ServerPatch,
    ) -> Result<Server> {
        actor.authorize(Operation::ServerUpdate)?;
        let change = |before: &Server, now| before.patched(patch.clone(), now).map(Some);
        self.change(actor, Operation::ServerUpdate, id, revision, None, change).await.map(|done| done.value)
    }

    /// Removes a server.
    ///
    /// # Errors
    /// `server_in_use` while something is reserved on it; [`Error::Stale`] as for a change.
    pub async fn server_delete(&self, actor: &Actor, id: ServerId, revision: Option<i64>) -> Result<()> {
        actor.authorize(Operation::ServerDelete)?;
        let server = self.servers.get(id).await?;
        at_revision("server", id, server.revision, revision)?;
        let entry = AuditEntry::new(actor, Operation::ServerDelete.action(), self.clock.now()).deleted(&server);
        self.servers.delete(server, entry.into()).await.map(|done| done.value)
    }

    /// Takes a server out of scheduling; what runs there keeps running. Without effect if it is out already.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn server_cordon(&self, actor: &Actor, id: ServerId, once: Option<Once>) -> Result<Done<Server>> {
        actor.authorize(Operation::ServerCordon)?;
        self.change(actor, Operation::ServerCordon, id, None, once, |server, now| Ok(server.with_cordon(true, now)))
            .await
    }

    /// Puts a server back into scheduling. Without effect if it is in already.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn server_uncordon(&self, actor: &Actor, id: ServerId, once: Option<Once>) -> Result<Done<Server>> {
        actor.authorize(Operation::ServerUncordon)?;
        self.change(actor, Operation::ServerUncordon, id, None, once, |server, now| Ok(server.with_cordon(false, now)))
            .await
    }

    /// Computes what the server becomes and writes it; again from the newest state if it moved meanwhile and the
    /// caller did not insist on a revision. `None` from `compute` means that there is nothing to change.
    async fn change(
        &self,
        actor: &Actor,
        operation: Operation,
        id: ServerId,
        revision: Option<i64>,
        once: Option<Once>,
        compute: impl Fn(&Server, crate::clock::Timestamp) -> Result<Option<Server>>,
    ) -> Result<Done<Server>> {
        // Asked before the server is looked at, which may be gone since.
        if let Some(once) = &once
            && let Some(value) = self.servers.answered(once.clone(), self.clock.now()).await?
        {
            return Ok(Done { value, replayed: true });
        }
        for _ in 0..TRIES {
            let before = self.servers.get(id).await?;
            at_revision("server", id, before.revision, revision)?;
            let now = self.clock.now();
            let entry = AuditEntry::new(actor, operation.action(), now);
            let outcome = match compute(&before, now)? {
                Some(after) => {
                    let entry = entry.changed(&before, &after);
                    self.servers.update(after, Change::new(entry, once.clone())).await
                }
                None if once.is_some() => self.servers.confirm(before, Change::new(entry, once.clone())).await,
                None => return Ok(Done { value: before, replayed: false }),
            };
            match outcome {
                Err(Error::Stale { .. }) if revision.is_none() => {}
                outcome => return outcome,
            }
        }
        Err(Error::busy("server", id))
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
