//! The scheduler in memory: it follows the fleet and the queue, and decides which task goes where next.
//!
//! It writes nothing. What it decides it claims, so that the next decision counts with it, until the decision is
//! committed ([`Engine::task`]) or given up ([`Engine::unclaim`]). Whoever commits checks again.
//!
//! A task that fits nowhere sleeps. Only servers that became better (new, more room, taken into use again) and pools
//! that did (more of the quota left, open again) can wake it, and it is then judged against those alone: all others can
//! only have become fuller since it was judged against them.
//!
//! Nothing waits for ever, see [`super::holds`].

use super::{
    changes::Changes,
    holds::Hold,
    model::{Task, TaskStatus},
    placement::{Plan, best_of_all, plan, plan_as},
    queue::{Queue, Waiting},
    rank::Rank,
    rules::{Gist, Need},
    snapshot::FleetSnapshot,
    spec::TaskSpec,
};
use crate::{
    clock::Timestamp,
    fleet::Server,
    ids::{PoolId, ServerId, TaskId},
    pools::Pool,
    units::Resources,
};
use chrono::TimeDelta;
use std::collections::{BTreeMap, BTreeSet};

/// How long a task waits until something is kept free for it, if nobody says.
pub const PATIENCE: TimeDelta = TimeDelta::minutes(10);
/// How many servers one call of [`Engine::next`] judges at most, give or take one task: about ten milliseconds.
const MOST_JUDGEMENTS: u64 = 1_000_000;

/// Which task goes where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The task.
    pub task: TaskId,
    /// The revision of the task that this was decided for.
    pub revision: i64,
    /// The number of the attempt that this opens.
    pub attempt: u32,
    /// The server.
    pub server: ServerId,
    /// What it takes there.
    pub demand: Resources,
}

#[derive(Debug)]
struct Claim {
    decision: Decision,
    waiting: Waiting,
}

/// The scheduler in memory.
#[derive(Debug)]
pub struct Engine {
    pub(super) fleet: FleetSnapshot,
    pub(super) queue: Queue,
    pub(super) holds: Vec<Hold>,
    pub(super) patience: TimeDelta,
    pub(super) judgements: u64,
    claims: BTreeMap<TaskId, Claim>,
    /// What is claimed for tasks that are not stored yet.
    rooms: Vec<(ServerId, Resources)>,
    /// The servers that became better for classes that sleep.
    pub(super) changes: Changes,
    /// These, and those that may rank better for classes that do not, as long as any is ranked.
    pub(super) moved: Changes,
    /// The latest change that sleeping classes were woken for, where it could help.
    pub(super) woken: u64,
    pub(super) improved_pools: BTreeSet<usize>,
    /// The classes that wait on a pool. One that does so no more may still be listed.
    pub(super) waiting_on: BTreeMap<usize, BTreeSet<usize>>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new(PATIENCE)
    }
}

impl Engine {
    /// An empty one. After a task has waited for `patience`, something is kept free for it.
    #[must_use]
    pub fn new(patience: TimeDelta) -> Self {
        Self {
            fleet: FleetSnapshot::default(),
            queue: Queue::default(),
            holds: Vec::new(),
            patience,
            judgements: 0,
            claims: BTreeMap::new(),
            rooms: Vec::new(),
            changes: Changes::default(),
            moved: Changes::default(),
            woken: 0,
            improved_pools: BTreeSet::new(),
            waiting_on: BTreeMap::new(),
        }
    }

    /// Forgets everything and takes this instead: at start, and whenever what changed meanwhile is not known. Claims of
    /// tasks that are still pending as they were are kept, and those of tasks that are not stored yet.
    pub fn reset<'a>(
        &mut self,
        servers: impl IntoIterator<Item = &'a Server>,
        pools: impl IntoIterator<Item = (&'a Pool, Resources)>,
        tasks: impl IntoIterator<Item = &'a Task>,
    ) {
        let old = std::mem::replace(self, Self::new(self.patience));
        self.judgements = old.judgements;
        for (pool, reserved) in pools {
            self.pool(pool, reserved);
        }
        for server in servers {
            self.server(server);
        }
        for (server, demand) in old.rooms {
            self.fleet.claim(server, demand);
            self.rooms.push((server, demand));
        }
        let mut claims = old.claims;
        for task in tasks {
            match claims.remove(&task.id) {
                Some(claim) if task.status == TaskStatus::Pending && claim.decision.revision == task.revision => {
                    self.keep(claim.decision, claim.waiting);
                }
                _ => self.task(task),
            }
        }
    }

    /// Takes a server as it is now, with what allocations hold of it.
    pub fn server(&mut self, server: &Server) {
        self.fleet.upsert_server(server);
    }

    /// Forgets a server.
    pub fn server_gone(&mut self, id: ServerId) {
        self.fleet.remove_server(id);
        self.changes.forget(id);
        self.moved.forget(id);
    }

    /// Takes a pool as it is now, with what the allocations on its servers hold.
    pub fn pool(&mut self, pool: &Pool, reserved: Resources) {
        self.fleet.upsert_pool(pool, reserved);
    }

    /// Forgets a pool.
    pub fn pool_gone(&mut self, id: PoolId) {
        self.fleet.remove_pool(id);
    }

    /// Takes what the allocations on a server hold, as committed.
    pub fn server_reserved(&mut self, id: ServerId, reserved: Resources) {
        self.fleet.set_server_reserved(id, reserved);
    }

    /// Takes what the allocations on a pool's servers hold, as committed.
    pub fn pool_reserved(&mut self, id: PoolId, reserved: Resources) {
        self.fleet.set_pool_reserved(id, reserved);
    }

    /// Takes a task as it is now: it waits if it is pending, else it is forgotten, with its claim. An older revision
    /// than what is known changes nothing, and neither does the one that a claim was made for.
    pub fn task(&mut self, task: &Task) {
        let pending = task.status == TaskStatus::Pending;
        let known = self.waiting(task.id).map(|known| (known.revision, known.attempt, known.since));
        if known.is_some_and(|(revision, ..)| revision > task.revision || (revision == task.revision && pending)) {
            return;
        }
        self.task_gone(task.id);
        if pending {
            let mut waiting = Waiting::of(task, self.patience);
            // Whatever else changed: if it is the same wait, it goes on.
            if let Some((_, _, since)) = known.filter(|(_, attempt, _)| *attempt == task.attempt) {
                waiting.since = since;
                waiting.ask_at = super::queue::later(since, self.patience);
            }
            self.queue.enter(task.id, waiting);
        }
    }

    /// Forgets a task, with its claim.
    pub fn task_gone(&mut self, id: TaskId) {
        self.end_hold_of(id);
        self.queue.leave(id);
        if let Some(claim) = self.claims.remove(&id) {
            self.fleet.unclaim(claim.decision.server, claim.decision.demand);
        }
    }

    /// Decides about as many tasks as `limit`, in the order of the queue, and claims what it decides.
    ///
    /// It stops early after much work, so that nobody waits long for it: if [`Engine::has_work`] then still says so, it
    /// goes on at the next call.
    pub fn next(&mut self, now: Timestamp, limit: usize) -> Vec<Decision> {
        self.pass_deadlines(now);
        self.review_holds(now);
        let mut holds = self.holds.len();
        let (mut decisions, most) = (Vec::new(), self.judgements.saturating_add(MOST_JUDGEMENTS));
        while decisions.len() < limit && self.judgements < most {
            self.wake();
            let Some((class, task)) = self.queue.next_ready() else { break };
            let Some(rank) = self.find(class) else { continue };
            decisions.extend(self.decide(task, rank.server));
            // What a hold leaves behind goes to who has waited next to longest, before others take it.
            if self.holds.len() < holds {
                self.review_holds(now);
            }
            holds = self.holds.len();
        }
        decisions
    }

    /// Decides about one pending task now, whatever is before it in the queue. `None` if it fits nowhere, or is not
    /// pending. If it is decided about already, that decision stands.
    pub fn dispatch(&mut self, task: &Task) -> Option<Decision> {
        self.task(task);
        if let Some(claim) = self.claims.get(&task.id) {
            return Some(claim.decision);
        }
        let class = self.queue.class(self.queue.class_of(task.id)?)?;
        let need = Need::new(&self.fleet, class.gist, &class.spec);
        let rank = best_of_all(&self.fleet, &need, &mut |_| {})?;
        self.decide(task.id, rank.server)
    }

    /// Finds a server for a task that is not stored yet, and claims the room. What it claimed has to be given back with
    /// [`Engine::unclaim_room`], whether the task is stored or not.
    pub fn claim_for(&mut self, spec: &TaskSpec) -> Option<(ServerId, Rank)> {
        let placement = super::place(&self.fleet, spec)?;
        self.fleet.claim(placement.0, spec.demand);
        self.rooms.push((placement.0, spec.demand));
        Some(placement)
    }

    /// Gives back what [`Engine::claim_for`] claimed.
    pub fn unclaim_room(&mut self, server: ServerId, demand: Resources) {
        if let Some(place) = self.rooms.iter().position(|room| *room == (server, demand)) {
            self.rooms.swap_remove(place);
            self.fleet.unclaim(server, demand);
        }
    }

    /// Gives a decision up that could not be committed: the task waits again, at its old place. Whoever gives it up
    /// because the world had moved takes what moved first, or the same will be decided again.
    pub fn unclaim(&mut self, task: TaskId) {
        if let Some(claim) = self.claims.remove(&task) {
            self.fleet.unclaim(claim.decision.server, claim.decision.demand);
            self.queue.enter(task, claim.waiting);
        }
    }

    /// Tasks whose deadline has passed while they waited, at most `limit`. They are not placed any more, and are told
    /// again each time until [`Engine::task`] or [`Engine::task_gone`] says what became of them.
    pub fn expired(&mut self, now: Timestamp, limit: usize) -> Vec<TaskId> {
        self.pass_deadlines(now);
        self.queue.overdue().take(limit).collect()
    }

    /// When time alone gives [`Engine::next`] or [`Engine::expired`] something to do: a deadline, or the end of some
    /// task's patience. Never before `now`.
    #[must_use]
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let overdue = self.queue.overdue().next().map(|_| now);
        [overdue, self.queue.next_deadline(), self.next_hold_at()].into_iter().flatten().min().map(|at| at.max(now))
    }

    /// Whether [`Engine::next`] has something to do, whatever the time.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let noted = self.woken < self.changes.now() || !self.improved_pools.is_empty();
        let changed = noted || self.fleet.has_improved();
        self.queue.next_ready().is_some() || (changed && self.queue.len() > 0)
    }

    /// Whether a task is decided about, and the decision neither committed nor given up.
    #[must_use]
    pub fn is_decided(&self, task: TaskId) -> bool {
        self.claims.contains_key(&task)
    }

    /// Every server, judged for a task that is not in the queue.
    #[must_use]
    pub fn plan_for(&self, spec: &TaskSpec) -> Plan {
        plan(&self.fleet, spec)
    }

    /// Every server, judged for a task: something may be kept free for it.
    #[must_use]
    pub fn plan_of(&self, task: &Task) -> Plan {
        let class = self.queue.class_of(task.id).and_then(|class| self.queue.class(class));
        plan_as(&self.fleet, class.map_or_else(|| Gist::of_task(task), |class| class.gist), &task.spec)
    }

    /// The fleet as it is known, with what is claimed.
    #[must_use]
    pub fn fleet(&self) -> &FleetSnapshot {
        &self.fleet
    }

    /// How many tasks wait, without those that are decided about.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.queue.len()
    }

    /// How many decisions are claimed and neither committed nor given up.
    #[must_use]
    pub fn claim_count(&self) -> usize {
        self.claims.len()
    }

    /// How many times a server was judged for a task that waits: what the work of this engine is measured by.
    #[must_use]
    pub fn judgements(&self) -> u64 {
        self.judgements
    }

    /// Notes that a server became better in a way that the fleet does not see.
    pub(super) fn note_server(&mut self, id: ServerId) {
        if self.fleet.slot(id).is_some() {
            self.changes.mark(id);
        }
    }

    /// Notes that a pool became better in a way that the fleet does not see.
    pub(super) fn note_pool(&mut self, id: PoolId) {
        self.improved_pools.extend(self.fleet.pool_slot(id));
    }

    fn waiting(&self, id: TaskId) -> Option<&Waiting> {
        self.queue.get(id).or_else(|| self.claims.get(&id).map(|claim| &claim.waiting))
    }

    fn pass_deadlines(&mut self, now: Timestamp) {
        for task in self.queue.pass_deadlines(now) {
            self.end_hold_of(task);
        }
    }

    fn decide(&mut self, task: TaskId, server: ServerId) -> Option<Decision> {
        self.end_hold_of(task);
        let waiting = self.queue.leave(task)?;
        let decision = Decision {
            task,
            revision: waiting.revision,
            attempt: waiting.attempt.saturating_add(1),
            server,
            demand: waiting.spec.demand,
        };
        self.keep(decision, waiting);
        Some(decision)
    }

    fn keep(&mut self, decision: Decision, waiting: Waiting) {
        self.fleet.claim(decision.server, decision.demand);
        self.claims.insert(decision.task, Claim { decision, waiting });
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "engine_invariants.rs"]
mod invariants;
