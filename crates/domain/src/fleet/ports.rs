use super::{
    model::{NewServer, Server, ServerFilter, ServerSort},
    roster::RosterEntry,
};
use crate::{
    Result,
    change::{Change, Done, Once},
    clock::Timestamp,
    ids::ServerId,
    page::{Page, PageRequest},
};
use async_trait::async_trait;
use std::sync::Arc;

/// The servers in the database.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Servers: Send + Sync {
    /// Registers a server at the time of the change's entry, which it completes with the server's id and state.
    ///
    /// MUST fail with `name_taken` if there is a server of that name, and with [`crate::Error::Invalid`] for
    /// `pool_id` if there is no such pool.
    async fn create(&self, server: NewServer, change: Change) -> Result<Done<Server>>;

    /// Servers that match, as they are now: MUST show what was committed before the call, by whomever; only when an agent
    /// of another process was last heard of may show later. Pages MUST neither repeat nor skip rows when others are
    /// inserted meanwhile.
    async fn list(&self, filter: ServerFilter, sort: ServerSort, page: PageRequest) -> Result<Page<Arc<RosterEntry>>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: ServerId) -> Result<Server>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none; one that another process has just removed may still be
    /// taken for there. It is for those who come very often.
    async fn check_there(&self, id: ServerId) -> Result<()>;

    /// Writes `server`, whose revision is one above that of the row it replaces.
    ///
    /// MUST fail with [`crate::Error::Stale`] if the row is at another revision, with [`crate::Error::NotFound`] if it
    /// is gone, and with `name_taken` as for creation. MUST NOT touch what is reserved or what the agent reported. MUST
    /// fail with `maintenance_in_progress` if that would change the status while a maintenance window of the server is in
    /// progress ([`super::Window::holds`]).
    async fn update(&self, server: Server, change: Change) -> Result<Done<Server>>;

    /// Answers with `server` as it is, because the change that was asked for is there already. The answer is kept under
    /// the change's key, so that a repetition after others changed the server gets it too; nothing is recorded.
    ///
    /// MUST fail as `update` does if the row is not at the revision of `server`.
    async fn confirm(&self, server: Server, change: Change) -> Result<Done<Server>>;

    /// The server that an earlier request under this key was answered with, if there was one at `now`. MUST fail with
    /// `idempotency_key_reused` if that was another request.
    async fn answered(&self, once: Once, now: Timestamp) -> Result<Option<Server>>;

    /// Removes `server` if its row is still at that revision and nothing is reserved on it; errors as for `update`,
    /// and `server_in_use` where something is reserved. Its agent and its maintenance windows go with it.
    async fn delete(&self, server: Server, change: Change) -> Result<Done<()>>;
}
