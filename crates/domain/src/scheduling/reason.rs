//! The stable codes that say why a task or attempt is as it is, or why it could not be changed.

/// Its user ended it.
pub const CANCELLED: &str = "cancelled";
/// It was still pending when its deadline passed.
pub const DEADLINE_PASSED: &str = "deadline_passed";
/// Its newest attempt failed.
pub const ATTEMPT_FAILED: &str = "attempt_failed";
/// It is in a state from which this cannot be done.
pub const ILLEGAL_TRANSITION: &str = "illegal_transition";
/// An agent starts and ends it, not its user.
pub const DRIVEN_BY_AGENT: &str = "driven_by_agent";
