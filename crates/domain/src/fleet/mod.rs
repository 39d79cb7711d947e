//! Servers: what they are, what they have, and whether they take work.
//!
//! Invariants: a name belongs to one server; a server's pool is changed by moving it, never by editing it; a server
//! that holds reservations cannot be removed.

mod agent_ports;
mod agent_service;
mod deeds;
mod enrollment;
mod joining;
mod mailbox;
mod model;
pub mod operations;
mod ports;
mod presence;
pub mod protocol;
mod reported;
mod roster;
mod service;

pub use agent_ports::{AgentAccount, Agents, Enrollments, NewAgent, Operations};
pub use agent_service::{AgentPorts, AgentService};
pub use enrollment::{ENROLLMENT_HOURS, Enrollment, EnrollmentRequest, EnrollmentService, MAX_USES, NewEnrollment};
pub use joining::Namesake;
pub use mailbox::{AgentBell, Due, Mailbox, Reached};
pub use model::{
    Architecture, Driver, Inventory, NewServer, Server, ServerFilter, ServerPatch, ServerSort, ServerStatus, SortKey,
};
pub use ports::Servers;
pub use presence::{Presence, Seated};
pub use roster::{Roster, RosterEntry};
pub use service::ServerService;

#[cfg(any(test, feature = "mocks"))]
pub use agent_ports::{MockAgents, MockEnrollments, MockOperations};
#[cfg(any(test, feature = "mocks"))]
pub use ports::MockServers;
