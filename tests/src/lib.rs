//! What black-box tests and benchmarks share: a real server process, a client for it, and real databases.
#![expect(clippy::missing_panics_doc, reason = "a harness fails by panicking, everywhere")]

mod agent;
mod client;
mod command;
mod machines;
mod postgres;
mod server;
mod sql;
mod tmpfs;

pub use agent::{Agent, AgentOptions, Leftovers};
pub use client::{Answer, Client};
pub use command::{Finished, run};
pub use machines::{Alone, Machine, Machines, Parts, machines};
pub use postgres::{Cluster, fresh_postgres, shared_postgres};
pub use server::{Server, ServerOptions, eventually, wait_for};
pub use sql::Sql;
pub use tmpfs::Tmpfs;

/// The databases that everything is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A file in the server's data directory.
    Sqlite,
    /// A database of its own in the shared cluster.
    Postgres,
}

impl Backend {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];
}
