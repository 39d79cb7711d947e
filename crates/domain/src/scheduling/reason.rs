//! The stable codes that say why a task or attempt is as it is, or why it could not be changed.

/// Its user ended it.
pub const CANCELLED: &str = "cancelled";
/// It was still pending when its deadline passed.
pub const DEADLINE_PASSED: &str = "deadline_passed";
/// Its newest attempt failed.
pub const ATTEMPT_FAILED: &str = "attempt_failed";
/// Its program ended with another code than 0.
pub const EXIT_CODE: &str = "exit_code";
/// A signal ended its program.
pub const SIGNAL: &str = "signal";
/// It used more memory than it had asked for.
pub const OUT_OF_MEMORY: &str = "out_of_memory";
/// It ran longer than it may.
pub const TIMED_OUT: &str = "timed_out";
/// Its image is not there, or may not be had.
pub const IMAGE_MISSING: &str = "image_missing";
/// Its program is compiled for another architecture.
pub const EXEC_FORMAT: &str = "exec_format";
/// It could not be started: no such program, no such user, a port that is taken.
pub const START_FAILED: &str = "start_failed";
/// What it asks for is not allowed by the owner of its server, such as a folder that may not be mounted.
pub const NOT_ALLOWED: &str = "not_allowed";
/// The container engine could not be reached, or its container was gone.
pub const ENGINE_GONE: &str = "engine_gone";
/// Its container was removed by somebody else.
pub const CONTAINER_GONE: &str = "container_gone";
/// Its server's disk is full.
pub const DISK_FULL: &str = "disk_full";
/// Its server's agent does not know how to do it.
pub const UNSUPPORTED: &str = "unsupported";
/// It was not begun in time.
pub const EXPIRED: &str = "expired";
/// Its server's agent lost its memory of it.
pub const AGENT_LOST: &str = "agent_lost";
/// Contact with its server is lost.
pub const CONTACT_LOST: &str = "contact_lost";
/// Its user asked for its end, and its server has not said yet that it has ended.
pub const CANCELLING: &str = "cancelling";
/// It is in a state from which this cannot be done.
pub const ILLEGAL_TRANSITION: &str = "illegal_transition";
/// An agent starts and ends it, not its user.
pub const DRIVEN_BY_AGENT: &str = "driven_by_agent";
