//! Whether the product can do its work.

use crate::Result;
use async_trait::async_trait;

/// A part that the product cannot work without.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Fails with what is wrong, if something is. MUST try what the product needs of it (to read and to write, for a
    /// database), not only whether it answers.
    async fn ready(&self) -> Result<()>;
}
