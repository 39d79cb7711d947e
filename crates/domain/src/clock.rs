//! Time is a port, so that a test can say what time it is.

use chrono::{DateTime, Utc};
use std::time::Duration;

/// A moment in UTC, to the microsecond: what both databases store and the API shows.
pub type Timestamp = DateTime<Utc>;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The current moment. MUST be truncated to whole microseconds, so that what is stored equals what was read.
    fn now(&self) -> Timestamp;

    /// How long ago some moment of the past was. MUST NOT jump when the time of day is set.
    fn uptime(&self) -> Duration;
}
