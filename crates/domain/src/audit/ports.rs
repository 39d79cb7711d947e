use super::{
    chain::Verification,
    model::{AuditEntry, AuditFilter, AuditRow, Head, HeadMark},
};
use crate::{
    Result,
    clock::Timestamp,
    page::{Page, PageRequest},
};
use async_trait::async_trait;

/// The log in the database. Rows that go with a change are not written through this port but by the change itself.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Writes a row of its own, for what changes nothing else: a refusal, a remark. MUST be durable when it returns.
    async fn record(&self, entry: AuditEntry) -> Result<()>;

    /// Rows, newest first.
    async fn list(&self, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditRow>>;

    /// Up to `limit` rows that come after row `seq`, oldest first.
    async fn after(&self, filter: AuditFilter, seq: i64, limit: u16) -> Result<Vec<AuditRow>>;

    /// The last row.
    async fn head(&self) -> Result<Head>;

    /// Checks every row against one consistent view of the log. MUST NOT hold up writers while it does.
    async fn verify(&self, marks: Vec<HeadMark>) -> Result<Verification>;

    /// Lets go of the oldest rows, up to the first that is not older than `before`, and leaves a sealed checkpoint in
    /// their place; `entry` is recorded in the same transaction. MUST keep at least the last row, and record nothing
    /// if there is nothing to let go. Returns how many rows went.
    async fn prune(&self, before: Timestamp, entry: AuditEntry) -> Result<i64>;
}

/// The file beside the database in which heads are noted, so that a cut tail shows.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait HeadFile: Send + Sync {
    /// Adds a line. MUST be durable when it returns.
    async fn append(&self, mark: HeadMark) -> Result<()>;

    /// All marks, oldest first. MUST leave out, and report in the log, lines that were not written with our key.
    async fn read(&self) -> Result<Vec<HeadMark>>;
}
