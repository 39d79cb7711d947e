//! Servers: what they are, what they have, and whether they take work.
//!
//! Invariants: a name belongs to one server; a server's pool is changed by moving it, never by editing it; a server
//! that holds reservations cannot be removed.

mod model;
mod ports;
mod roster;
mod service;

pub use model::{
    Architecture, Driver, Inventory, NewServer, Server, ServerFilter, ServerPatch, ServerSort, ServerStatus, SortKey,
};
pub use ports::Servers;
pub use roster::{Roster, RosterEntry};
pub use service::ServerService;

#[cfg(any(test, feature = "mocks"))]
pub use ports::MockServers;
