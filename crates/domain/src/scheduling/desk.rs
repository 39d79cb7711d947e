//! The engine at work: it follows what commits, is asked by many at once, and calls out when there is something to do.

use super::{
    engine::{Decision, Engine},
    model::{Task, TaskStatus},
    ports::Placement,
};
use crate::{
    audit::AuditEntry,
    clock::Timestamp,
    feed::{Fact, Follower, State},
    ids::{ServerId, TaskId},
    units::Resources,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What is told when there may be something to do.
pub type Bell = Box<dyn Fn() + Send + Sync>;

/// The engine with the tasks that it decides about. Shared by everybody who asks.
pub struct Desk {
    inner: Mutex<Inner>,
    bell: Bell,
}

#[derive(Default)]
struct Inner {
    engine: Engine,
    pending: BTreeMap<TaskId, Arc<Task>>,
}

/// Room that was claimed for somebody who is about to have it written. It is given back when this goes, also if they
/// hang up half-way; what was committed by then has taken the place of the claim, and stays.
pub struct Claimed<'a> {
    desk: &'a Desk,
    claim: Claim,
}

enum Claim {
    Task(TaskId),
    Room(ServerId, Resources),
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.desk.with(|engine| match self.claim {
            Claim::Task(id) => engine.unclaim(id),
            Claim::Room(server, demand) => engine.unclaim_room(server, demand),
        });
        (self.desk.bell)();
    }
}

impl Desk {
    /// Watches over what was decided about this task.
    #[must_use]
    pub fn claimed(&self, task: TaskId) -> Claimed<'_> {
        Claimed { desk: self, claim: Claim::Task(task) }
    }

    /// Watches over what [`Engine::claim_for`] claimed.
    #[must_use]
    pub fn claimed_room(&self, server: ServerId, demand: Resources) -> Claimed<'_> {
        Claimed { desk: self, claim: Claim::Room(server, demand) }
    }

    /// A desk that knows nothing yet. `bell` is rung on the thread that commits, so it MUST NOT wait.
    #[must_use]
    pub fn new(engine: Engine, bell: Bell) -> Self {
        Self { inner: Mutex::new(Inner { engine, ..Inner::default() }), bell }
    }

    /// Asks the engine something, or has it change what it claims.
    pub fn with<T>(&self, ask: impl FnOnce(&mut Engine) -> T) -> T {
        self.locked(|inner| ask(&mut inner.engine))
    }

    /// Asks the engine about a task that somebody has read; `None` if it is not pending at that revision, as far as is
    /// known here. What was read may be older than what is known, and must not be taken for news.
    pub fn with_pending<T>(&self, task: &Task, ask: impl FnOnce(&mut Engine) -> T) -> Option<T> {
        self.locked(|inner| {
            let known = inner.pending.get(&task.id).is_some_and(|known| known.revision == task.revision);
            known.then(|| ask(&mut inner.engine))
        })
    }

    /// Decides about some tasks, in the order of the queue, and makes of each decision what is to be written.
    pub fn next(&self, now: Timestamp, limit: usize, entry: impl Fn(&Task, &Task) -> AuditEntry) -> Vec<Placement> {
        self.locked(|inner| {
            let decisions = inner.engine.next(now, limit);
            let mut placements = Vec::with_capacity(decisions.len());
            for decision in decisions {
                match inner.placement(&decision, now, &entry) {
                    Some(placement) => placements.push(placement),
                    None => inner.engine.task_gone(decision.task),
                }
            }
            placements
        })
    }

    /// Pending tasks whose deadline has passed.
    #[must_use]
    pub fn expired(&self, now: Timestamp, limit: usize) -> Vec<Arc<Task>> {
        self.locked(|inner| {
            let ids = inner.engine.expired(now, limit);
            ids.iter().filter_map(|id| inner.pending.get(id).cloned()).collect()
        })
    }

    fn locked<T>(&self, ask: impl FnOnce(&mut Inner) -> T) -> T {
        ask(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn placement(
        &self,
        decision: &Decision,
        now: Timestamp,
        entry: impl Fn(&Task, &Task) -> AuditEntry,
    ) -> Option<Placement> {
        let before = self.pending.get(&decision.task).filter(|task| task.revision == decision.revision)?;
        Placement::of(before, decision.server, now, entry)
    }

    fn reset(&mut self, state: &State) {
        self.pending = state.pending.iter().map(|task| (task.id, task.clone())).collect();
        self.engine.reset(
            state.servers.iter().map(|server| &**server),
            state.pools.iter().map(|(pool, reserved)| (&**pool, *reserved)),
            state.pending.iter().map(|task| &**task),
        );
    }

    /// In whatever order facts are told: what became better is looked at when the next decision is made.
    fn follow(&mut self, facts: &[Fact]) {
        for fact in facts {
            match fact {
                Fact::Server(server) => self.engine.server(server),
                Fact::ServerGone(id) => self.engine.server_gone(*id),
                Fact::Pool(pool) => {
                    let reserved = self.engine.fleet().pool_reserved(pool.id);
                    self.engine.pool(pool, reserved);
                }
                Fact::PoolGone(id) => self.engine.pool_gone(*id),
                Fact::ServerReserved(id, reserved) => self.engine.server_reserved(*id, *reserved),
                Fact::PoolReserved(id, reserved) => self.engine.pool_reserved(*id, *reserved),
                Fact::Task(task) => self.task(task),
                Fact::ServerSeen(..) | Fact::Operation(_) => {}
                Fact::TaskGone(id) => {
                    self.pending.remove(id);
                    self.engine.task_gone(*id);
                }
            }
        }
    }

    fn task(&mut self, task: &Arc<Task>) {
        if task.status == TaskStatus::Pending {
            self.pending.insert(task.id, task.clone());
        } else {
            self.pending.remove(&task.id);
        }
        self.engine.task(task);
    }
}

impl Follower for Desk {
    fn reset(&self, state: &State) {
        self.locked(|inner| inner.reset(state));
        (self.bell)();
    }

    fn follow(&self, facts: &[Fact]) {
        self.locked(|inner| inner.follow(facts));
        (self.bell)();
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
