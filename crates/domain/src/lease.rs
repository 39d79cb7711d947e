//! Lets one of several server processes do a background job.

use crate::{Result, clock::Timestamp};
use async_trait::async_trait;

/// Leases in the database: a job belongs to one process for a while.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease on `job` for `holder` until `until`, or makes it longer if `holder` has it already. Answers
    /// whether `holder` has it now; somebody else's lease counts until it has expired at `now`.
    ///
    /// MUST let at most one holder have it at a time, whoever asks at once.
    async fn hold(&self, job: &str, holder: &str, now: Timestamp, until: Timestamp) -> Result<bool>;
}
