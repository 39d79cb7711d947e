//! What runs on a machine: it says what the machine is, carries out what the server decided, and tells how it ended.
//!
//! Invariants: an operation is begun at most once, whatever is killed; what runs survives the agent and is found again;
//! nothing is touched that another installation made.

pub mod agent;
pub mod cgroup;
pub mod cli;
pub mod client;
pub mod containers;
pub mod drivers;
pub mod inventory;
pub mod journal;
pub mod logs;
pub mod meter;
pub mod runner;
pub mod session;
pub mod shim;
pub mod state;
pub mod streams;
pub mod work;
