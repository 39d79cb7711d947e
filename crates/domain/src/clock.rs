//! Time is a port, so that a test can say what time it is.

use chrono::{DateTime, Utc};

/// A moment in UTC, to the microsecond: what both databases store and the API shows.
pub type Timestamp = DateTime<Utc>;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The current moment. MUST be truncated to whole microseconds, so that what is stored equals what was read.
    fn now(&self) -> Timestamp;
}
