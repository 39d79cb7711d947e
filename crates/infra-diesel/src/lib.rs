//! `StarLink`'s repositories on `SQLite` and `PostgreSQL`.
//!
//! [`Database`] hides pools, threads, transactions and the differences between the two; a room's file holds its
//! queries and nothing that decides. Every write goes through one writer per process, which lets waiting commands
//! share a durable transaction and appends their audit rows last.

mod audit;
mod connection;
mod containers;
mod database;
mod failure;
mod feed;
mod fleet;
mod idempotency;
mod identity;
mod leases;
mod migrate;
mod observability;
mod paging;
mod pools;
mod scheduling;
mod schema;
mod store;
mod transfer;
mod url;
mod values;
mod writer;

pub use audit::DieselAuditLog;
pub use containers::DieselContainers;
pub use database::{Database, DatabaseOptions};
pub use fleet::{DieselAgents, DieselEnrollments, DieselMaintenanceWindows, DieselOperations, DieselServers};
pub use identity::{DieselSessions, DieselTokens, DieselUsers};
pub use leases::DieselLeases;
pub use migrate::{MigrationReport, SchemaState, migrate, schema_state};
pub use observability::{DieselAlertRules, DieselAlertTargets, DieselAlerts, DieselDeliveries, DieselSamples};
pub use pools::DieselPools;
pub use scheduling::DieselTasks;
pub use transfer::{CopyReport, backup, copy, restore, samples_beside};
pub use url::DatabaseUrl;
