//! Tasks, and where they run: their states, the rules of placement, and the queue of those that wait.
//!
//! Invariants: what is placed on a server never exceeds its capacity or the quota of its pool; a task runs only on an
//! architecture that it was compiled for, or one that emulates it if the task allows that; a task that waits is not
//! passed over for ever; the values of a task's environment are in the store and with its agent, nowhere else.

mod amounts;
mod bars;
mod cancelling;
mod changes;
mod desk;
mod engine;
mod environment;
mod explain;
#[cfg(test)]
pub(crate) mod fixtures;
mod holds;
pub mod ledger;
mod lifecycle;
mod model;
mod placement;
mod plan_token;
mod ports;
mod queue;
mod rank;
mod ranking;
pub mod reason;
mod reports;
mod rules;
mod scheduler;
mod service;
mod sets;
mod snapshot;
mod spec;
mod standings;
mod unfit;
mod waking;
#[cfg(test)]
mod world;

pub use amounts::Resource;
pub use desk::{Bell, Claimed, Desk};
pub use engine::{Decision, Engine, PATIENCE};
pub use environment::Environment;
pub use explain::{PendingReason, explain};
pub use lifecycle::Success;
pub use model::{Attempt, AttemptStatus, NewTask, Task, TaskFilter, TaskStatus};
pub use placement::{Candidate, Plan, Reason, place, plan};
pub use plan_token::plan_stale;
pub use ports::{AttemptEnd, AttemptStep, Placed, Placement, Tasks};
pub use rank::Rank;
pub use reports::WorkReports;
pub use scheduler::{Again, Scheduler};
pub use service::{DryRun, TaskDetails, TaskPorts, TaskService};
pub use sets::{ArchitectureSet, DriverSet};
pub use snapshot::{FleetSnapshot, Improved};
pub use spec::{
    ArchitectureNeed, MAX_ATTEMPTS, Mount, PortMapping, Priority, Protocol, RestartPolicy, TaskDriver, TaskKind,
    TaskSpec,
};
pub use unfit::Unfit;

#[cfg(any(test, feature = "mocks"))]
pub use ports::MockTasks;
