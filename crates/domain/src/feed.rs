//! What commits, told at once to those who keep a part of the state in memory.
//!
//! Invariants: facts are told in the order in which they were committed, before whoever asked for the change gets an
//! answer; what was not committed is not told. A fact carries the state after the change, so that hearing one twice
//! changes nothing. Where somebody else changed the database, everything is told anew.

use crate::{
    clock::Timestamp,
    fleet::{Server, operations::Operation},
    ids::{PoolId, ServerId, TaskId},
    pools::Pool,
    scheduling::Task,
    units::Resources,
};
use std::sync::Arc;

/// One thing that is so from now on.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A server is new or changed.
    Server(Arc<Server>),
    /// A server is gone.
    ServerGone(ServerId),
    /// A server's agent was last heard of then. Nothing else is different, and other processes are not told.
    ServerSeen(ServerId, Timestamp),
    /// A pool is new or changed.
    Pool(Arc<Pool>),
    /// A pool is gone.
    PoolGone(PoolId),
    /// This is what allocations hold on a server.
    ServerReserved(ServerId, Resources),
    /// This is what allocations hold on a pool's servers.
    PoolReserved(PoolId, Resources),
    /// A task is new or changed.
    Task(Arc<Task>),
    /// A task is gone.
    TaskGone(TaskId),
    /// What an agent is told to do is new or changed.
    Operation(Arc<Operation>),
}

/// Everything that facts are about, as it is at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Every server, by id.
    pub servers: Vec<Arc<Server>>,
    /// Every pool with what allocations hold on its servers, by id.
    pub pools: Vec<(Arc<Pool>, Resources)>,
    /// Every task that is pending, by id.
    pub pending: Vec<Arc<Task>>,
    /// Every operation that is open, by id.
    pub operations: Vec<Arc<Operation>>,
}

/// Somebody who keeps up with the state in memory. All methods are called on the thread that commits: they MUST be
/// quick and MUST NOT wait for it.
pub trait Follower: Send + Sync {
    /// Forgets what was known: this is how everything is now.
    fn reset(&self, state: &State);

    /// Takes in what one transaction changed.
    fn follow(&self, facts: &[Fact]);

    /// Nothing is told for a while: what is known may not be so any more, until everything is told anew.
    fn lose(&self) {}
}
