use super::{
    maintenance::{NewWindow, Window, WindowFilter},
    maintenance_ward::Reach,
    model::Server,
};
use crate::{
    Result,
    audit::AuditEntry,
    change::{Change, Done},
    clock::Timestamp,
    ids::{ServerId, WindowId},
    page::{Page, PageRequest},
};
use async_trait::async_trait;

/// The maintenance windows in the database. They go with their server.
///
/// What a window does to its server is decided by [`super::Ward`], on rows that nobody else changes until it is written.
/// The windows, the server and what is recorded of each MUST be written together, and those who follow MUST be told of
/// the server.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait MaintenanceWindows: Send + Sync {
    /// Plans a window of a server at the time of the change's entry, and has it begin if its time has come
    /// ([`super::Ward::changed`]).
    ///
    /// MUST fail with [`crate::Error::NotFound`] if there is no such server, and with [`crate::Error::Invalid`] if the
    /// window is over already ([`NewWindow::check`]); neither, if it was planned before under the change's key.
    async fn create(&self, server: ServerId, window: NewWindow, change: Change) -> Result<Done<Window>>;

    /// Windows that match, newest first. Pages MUST neither repeat nor skip rows when others are inserted meanwhile.
    async fn list(&self, filter: WindowFilter, page: PageRequest) -> Result<Page<Window>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: WindowId) -> Result<Window>;

    /// Writes `window`, whose revision is one above that of the row it replaces, with what that does to its server
    /// ([`super::Ward::changed`]).
    ///
    /// MUST fail with [`crate::Error::Stale`] if the row is at another revision, and with [`crate::Error::NotFound`] if
    /// it is gone.
    async fn update(&self, window: Window, reach: Reach, change: Change) -> Result<Done<Window>>;

    /// The servers with a window that is to begin or to end by now.
    async fn due(&self, now: Timestamp) -> Result<Vec<ServerId>>;

    /// Has the windows of a server begin and end that are to, at the time of `by` and in its actor's name
    /// ([`super::Ward::turned`]); the server, if that made it different. MUST do nothing if nothing is due, or the server
    /// is gone.
    async fn turn(&self, server: ServerId, reach: Reach, by: AuditEntry) -> Result<Option<Server>>;

    /// The windows of these servers whose time ([`Window::span`]) has a part in that from `from` until just before
    /// `until`, by server and then by when they were to begin.
    async fn overlapping(&self, servers: Vec<ServerId>, from: Timestamp, until: Timestamp) -> Result<Vec<Window>>;
}
