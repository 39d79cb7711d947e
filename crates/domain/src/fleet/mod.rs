//! Servers: what they are, what they have, whether they take work, and when they are maintained.
//!
//! Invariants: a name belongs to one server; a server's pool is changed by moving it, never by editing it; a server
//! that holds reservations cannot be removed; while a maintenance window is in progress its server is in maintenance.

mod agent_ports;
mod agent_service;
mod deeds;
mod enrollment;
mod joining;
mod mailbox;
mod maintenance;
mod maintenance_ports;
mod maintenance_service;
mod maintenance_ward;
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
pub use maintenance::{
    MAX_DURATION_MINUTES, NewWindow, Span, Window, WindowFilter, WindowPatch, WindowStatus, parse_duration_minutes,
};
pub use maintenance_ports::MaintenanceWindows;
pub use maintenance_service::{MaintenancePorts, MaintenanceService};
pub use maintenance_ward::{Reach, Round, Ward};
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
pub use maintenance_ports::MockMaintenanceWindows;
#[cfg(any(test, feature = "mocks"))]
pub use ports::MockServers;
