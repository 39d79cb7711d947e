//! A type per id, so that a server's id is never taken for a pool's.

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

ids!(
    /// Identifies a server.
    ServerId,
    /// Identifies a resource pool.
    PoolId,
    /// Identifies a task; tasks are numbered in the order in which they were posted.
    TaskId,
    /// Identifies a user.
    UserId,
    /// Identifies an API token.
    TokenId,
    /// Identifies a console session.
    SessionId,
    /// Identifies a thing that an agent is told to do.
    OperationId,
    /// Identifies a container of a server's engine.
    ContainerId,
    /// Identifies a join token.
    EnrollmentId,
    /// Identifies a maintenance window.
    WindowId,
    /// Identifies a rule that makes alerts.
    RuleId,
    /// Identifies an alert.
    AlertId,
    /// Identifies somebody who is told of alerts.
    TargetId,
    /// Identifies a message to one of them.
    DeliveryId,
);
