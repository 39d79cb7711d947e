//! What keeps a task from waiting for ever.
//!
//! Small tasks take every piece of room that becomes free before there is enough for a large one, and urgent tasks go
//! before those that are not. So a task that has waited longer than the engine's patience may hold something: other
//! tasks are refused there, and what becomes free there stays free until it is enough.
//!
//! - It holds one server: of those where only room is missing, and that are large enough, the one where the least is
//!   missing. If there is none because quotas are used up, it holds a pool in the same way.
//! - At most [`MOST_HOLDS`] tasks hold something at a time; the one that has asked longest is next. Each is refused only
//!   where one of longer standing holds, never by a later one, so the first of them is never in anybody's way.
//! - A hold ends when the task is placed or leaves the queue. It also ends if nothing became free there for as long as
//!   the task had waited when it took the hold: what runs there may never end. The task then waits as long again before
//!   it holds something else, so that what waits with it gets its share. Since each hold may last longer than the one
//!   before, one will last longer than what runs there, if that ends at all.

use super::{
    engine::Engine,
    queue::{Target, later},
    rules::{Need, Sink},
    snapshot::{FleetSnapshot, NOT_HELD, ServerRow},
    unfit::Unfit,
};
use crate::{clock::Timestamp, ids::TaskId};
use chrono::TimeDelta;
use std::ops::ControlFlow;

/// How many tasks may hold something at a time.
pub(super) const MOST_HOLDS: usize = 4;
/// How many tasks are considered for a hold each time, so that many that can hold nothing do not delay the others.
const MOST_TRIES: usize = 64;
/// How many times each time all servers are searched for something to hold.
const MOST_SEARCHES: usize = 4;
/// How many tasks wait for a hold of others to end before no more are considered.
const MOST_PARKED: usize = 64;

/// Something that is kept free for a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    task: TaskId,
    target: Target,
    /// What was missing at the last review, in permille.
    missing: u32,
    review_at: Timestamp,
    /// How long it may last without anything becoming free.
    window: TimeDelta,
}

/// Adds up what is missing, as long as it is nothing but room and quota that can become free, or that others hold.
#[derive(Debug, Default)]
struct Shortage {
    missing: u32,
    of_quota: bool,
    held: bool,
}

impl Sink for Shortage {
    fn refuse(&mut self, unfit: impl FnOnce() -> Unfit) -> ControlFlow<()> {
        let unfit = unfit();
        match unfit {
            Unfit::Held(_) | Unfit::PoolHeld(_) => {
                self.held = true;
                return ControlFlow::Continue(());
            }
            Unfit::Room { needs, capacity, .. } if needs <= capacity => {}
            Unfit::Quota { needs, quota, .. } if needs <= quota => self.of_quota = true,
            _ => return ControlFlow::Break(()),
        }
        self.missing = self.missing.saturating_add(unfit.distance_permille());
        ControlFlow::Continue(())
    }
}

/// What a task could hold.
#[derive(Debug, Clone, Copy)]
enum Found {
    /// This, where so much is missing, in permille.
    Free(Target, u32),
    /// Only what others hold.
    Held,
    /// Nothing: more than room is missing everywhere.
    Nothing,
}

impl Engine {
    /// Ends holds that are in vain, and lets those hold something who have waited too long.
    pub(super) fn review_holds(&mut self, now: Timestamp) {
        for hold in self.holds.clone() {
            self.review(hold, now);
        }
        let mut searches = 0;
        for _ in 0..MOST_TRIES {
            let due = self.next_ask().filter(|(at, _)| *at <= now && searches < MOST_SEARCHES);
            let Some((_, task)) = due else { break };
            searches += usize::from(self.try_hold(task, now));
        }
    }

    /// Ends the hold of a task, if it has one.
    pub(super) fn end_hold_of(&mut self, task: TaskId) {
        let Some(place) = self.holds.iter().position(|hold| hold.task == task) else { return };
        match self.holds.remove(place).target {
            Target::Server(id) => {
                self.fleet.hold_server(id, NOT_HELD);
                self.note_server(id);
            }
            Target::Pool(id) => {
                self.fleet.hold_pool(id, NOT_HELD);
                self.note_pool(id);
            }
        }
        self.queue.put_back(task);
        self.queue.unpark();
        self.number_holds();
    }

    /// When the passing of time may begin or end a hold.
    pub(super) fn next_hold_at(&self) -> Option<Timestamp> {
        let ask = self.next_ask().map(|(at, _)| at);
        self.holds.iter().map(|hold| hold.review_at).chain(ask).min()
    }

    /// The task that is next to hold something, and when, as long as more tasks may.
    fn next_ask(&self) -> Option<(Timestamp, TaskId)> {
        let more = self.holds.len() < MOST_HOLDS && self.queue.parked_count() < MOST_PARKED;
        self.queue.next_ask().filter(|_| more)
    }

    fn review(&mut self, hold: Hold, now: Timestamp) {
        let due = hold.review_at <= now;
        // Whether a server can still be held is one look; for a pool it is a look at all of its servers.
        if !due && matches!(hold.target, Target::Pool(_)) {
            return;
        }
        match self.missing_at(hold) {
            None => {
                self.end_hold_of(hold.task);
                self.queue.ask_later(hold.task, now, None);
            }
            Some(missing) if due && missing < hold.missing => {
                let place = self.holds.iter_mut().find(|other| other.task == hold.task);
                if let Some(place) = place {
                    *place = Hold { missing, review_at: later(now, hold.window), ..hold };
                }
            }
            Some(_) if due => {
                self.end_hold_of(hold.task);
                self.queue.ask_later(hold.task, later(now, hold.window), Some(hold.target));
            }
            Some(_) => {}
        }
    }

    /// What is missing where a task holds something; `None` if more than room and quota is.
    fn missing_at(&mut self, hold: Hold) -> Option<u32> {
        let class = self.queue.class(self.queue.class_of(hold.task)?)?;
        let need = Need::new(&self.fleet, class.gist, &class.spec);
        match hold.target {
            Target::Server(id) => {
                self.judgements += 1;
                shortage(&self.fleet, &need, self.fleet.row(id)?).filter(|it| !it.held).map(|it| it.missing)
            }
            Target::Pool(id) => {
                let pool = self.fleet.pool_slot(id)?;
                let servers = self.fleet.rows().filter(|(_, row)| row.pool == pool);
                servers
                    .filter_map(|server| shortage(&self.fleet, &need, server))
                    .filter(|it| !it.held)
                    .map(|it| it.missing)
                    .min()
            }
        }
    }

    /// Lets a task hold something, if there is something that it can hold. Says whether it had to search for it.
    fn try_hold(&mut self, task: TaskId, now: Timestamp) -> bool {
        let Some((class, waiting)) = self.queue.class_of(task).zip(self.queue.get(task)) else { return false };
        let waited = now.signed_duration_since(waiting.since).max(self.patience);
        let hopeless_until = self.queue.class(class).map_or(now, |class| class.hopeless_until);
        if hopeless_until > now {
            self.queue.ask_later(task, hopeless_until, None);
            return false;
        }
        let mut found = self.search(task);
        if matches!(found, Found::Nothing) && self.queue.get(task).is_some_and(|waiting| !waiting.tried.is_empty()) {
            self.queue.forget_tried(task);
            found = self.search(task);
        }
        let (target, missing) = match found {
            Found::Free(target, missing) => (target, missing),
            Found::Held => {
                self.queue.park(task);
                return true;
            }
            Found::Nothing => {
                let until = later(now, self.patience);
                if let Some(class) = self.queue.class_mut(class) {
                    class.hopeless_until = until;
                }
                self.queue.ask_later(task, until, None);
                return true;
            }
        };
        self.holds.push(Hold { task, target, missing, review_at: later(now, waited), window: waited });
        self.queue.set_apart(task);
        self.number_holds();
        true
    }

    /// What a task would hold.
    fn search(&mut self, task: TaskId) -> Found {
        let class = self.queue.class_of(task).and_then(|class| self.queue.class(class));
        let Some((class, waiting)) = class.zip(self.queue.get(task)) else { return Found::Nothing };
        let mut need = Need::new(&self.fleet, class.gist, &class.spec);
        // It would be the last of the holders: what others hold is not to be had.
        need.gist.seniority = seniority(self.holds.len());
        self.judgements += u64::try_from(self.fleet.server_count()).unwrap_or(u64::MAX);
        let mut held = false;
        let targets = self.fleet.rows().filter_map(|(slot, row)| {
            let shortage = shortage(&self.fleet, &need, (slot, row))?;
            held |= shortage.held;
            let target = match self.fleet.pools[row.pool].id.filter(|_| shortage.of_quota) {
                Some(pool) => Target::Pool(pool),
                None => Target::Server(row.id),
            };
            Some((shortage.of_quota, shortage.missing, target)).filter(|_| !shortage.held)
        });
        match targets.filter(|(.., target)| !waiting.tried.contains(target)).min() {
            Some((_, missing, target)) => Found::Free(target, missing),
            None if held => Found::Held,
            None => Found::Nothing,
        }
    }

    /// Brings the fleet and the queue in line with the list of holds.
    fn number_holds(&mut self) {
        self.fleet.holders = self.holds.iter().map(|hold| hold.task).collect();
        for (place, hold) in self.holds.iter().enumerate() {
            match hold.target {
                Target::Server(id) => self.fleet.hold_server(id, seniority(place)),
                Target::Pool(id) => self.fleet.hold_pool(id, seniority(place)),
            }
            self.queue.set_seniority(hold.task, seniority(place));
        }
    }
}

fn seniority(place: usize) -> u8 {
    u8::try_from(place).unwrap_or(NOT_HELD)
}

fn shortage(fleet: &FleetSnapshot, need: &Need<'_>, server: (usize, &ServerRow)) -> Option<Shortage> {
    let mut shortage = Shortage::default();
    need.judge(fleet, server, &mut shortage).is_continue().then_some(shortage)
}

#[cfg(test)]
#[path = "holds_tests.rs"]
mod tests;
