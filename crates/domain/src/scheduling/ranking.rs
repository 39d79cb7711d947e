//! The servers that take a class of tasks, best first, so that not every task of a long queue has all servers judged.
//!
//! What stands in a [`Ranking`] is not corrected when a server gets worse for its class, as it does with each task that
//! it is given; only when it comes first. What got better is told by [`Look::moved`], and put where it belongs by then.
//! Pools are judged at each look, so it does not matter how they change.
//!
//! Invariants: each server that passes all rules but those about pools stands among those of its pool, at a place no
//! worse than its own, or is still to be told of. So the first one that is at its own place is the best, ties included.
//! Nothing depends on a ranking: whoever has none judges all servers, and finds the same.

use super::{
    changes::Changes,
    placement::{best_of, best_of_all},
    rank::{Rank, Standing},
    rules::{First, Gist, Need},
    snapshot::{FleetSnapshot, ServerRow},
    standings::{Standings, most},
};
use crate::ids::ServerId;
use std::collections::BTreeMap;

/// What rankings may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Judging fewer servers than these takes no longer than a ranking.
    pub(super) least_servers: usize,
    /// A class has a ranking while no more than one server in so many changes from one look to the next: to correct
    /// what changed takes several times as long as to judge what did not.
    pub(super) share: usize,
    /// How many entries of eight bytes all rankings may have.
    pub(super) most_entries: usize,
    /// As how many entries a ranking counts that has fewer; this bounds how many rankings there are.
    pub(super) least_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { least_servers: 256, share: 16, most_entries: 1 << 22, least_entries: 1 << 12 }
    }
}

impl Limits {
    /// How many servers may change between two looks.
    fn few(&self, servers: usize) -> usize {
        servers / self.share.max(1)
    }

    /// How many entries a ranking may come to have in which so many servers stand.
    fn room(&self, standing: usize, servers: usize) -> usize {
        (most(standing) + self.few(servers)).max(self.least_entries)
    }
}

/// How a class was looked at, as long as it had no ranking.
#[derive(Debug, Default)]
pub(super) struct History {
    /// How often something had been claimed at the latest look, with a ranking or without.
    looked: Option<u64>,
    /// How many servers were judged.
    pub(super) judged: usize,
}

/// One look for the best server.
pub(super) struct Look<'a> {
    fleet: &'a FleetSnapshot,
    need: &'a Need<'a>,
    /// The servers that may have become better for some class.
    moved: &'a Changes,
    /// How many servers were judged.
    pub(super) judged: usize,
    /// The pools that alone kept the class from a server.
    pub(super) refused: Vec<usize>,
}

/// The rankings that there are, by class.
#[derive(Debug, Default)]
pub(super) struct Rankings {
    pub(super) limits: Limits,
    all: BTreeMap<usize, Ranking>,
}

/// The servers that take one class.
#[derive(Debug)]
pub(super) struct Ranking {
    /// What it was made for.
    gist: Gist,
    /// The generation of the fleet for which it was made.
    generation: u64,
    /// The latest move that it knows of.
    position: u64,
    /// How often something had been claimed when it was used last.
    looked: u64,
    /// How many entries it may have.
    room: usize,
    pools: BTreeMap<usize, Standings>,
}

impl Rankings {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Drops the ranking of a class that has come to its end.
    pub(super) fn forget(&mut self, class: usize) {
        self.all.remove(&class);
    }

    /// The ranking of a class that is looked at, if it has one or is worth one. `scan` is how many servers have to be
    /// judged if it has none, as far as that is known.
    pub(super) fn of(
        &mut self,
        class: usize,
        history: &mut History,
        scan: usize,
        look: &mut Look<'_>,
    ) -> Option<&mut Ranking> {
        let (servers, claims) = (look.fleet.server_count(), look.fleet.claims);
        let few = wide(self.limits.few(servers));
        let looked = history.looked.replace(claims).filter(|looked| claims - looked <= few);
        if looked.is_some() && self.all.get(&class).is_some_and(|ranking| ranking.is_usable(look, few)) {
            return self.all.get_mut(&class);
        }
        if self.all.remove(&class).is_some() {
            history.judged = 0;
        }
        // To make one is to judge all servers. So it is made when as much has been done without it, and is about to be.
        let worth = servers >= self.limits.least_servers && history.judged + scan >= 2 * servers;
        if !self.make_room(self.limits.room(servers, servers), looked.filter(|_| worth)?) {
            return None;
        }
        history.judged = 0;
        let ranking = Ranking::new(look, self.limits);
        Some(self.all.entry(class).or_insert(ranking))
    }

    /// Makes room for so many entries, at the cost of rankings that were not used since `looked`. At the cost of others,
    /// classes that take turns would each time take it from the next.
    fn make_room(&mut self, room: usize, looked: u64) -> bool {
        while self.room() + room > self.limits.most_entries {
            let oldest = self.all.iter().min_by_key(|(_, ranking)| ranking.looked);
            let Some((class, _)) = oldest.filter(|(_, ranking)| ranking.looked < looked) else { return false };
            let class = *class;
            self.all.remove(&class);
        }
        true
    }

    fn room(&self) -> usize {
        self.all.values().map(|ranking| ranking.room).sum()
    }
}

impl Ranking {
    fn new(look: &mut Look<'_>, limits: Limits) -> Self {
        let mut pools: BTreeMap<usize, Vec<Standing>> = BTreeMap::new();
        let servers = look.fleet.server_count();
        for (pool, standing) in (0..servers).filter_map(|slot| look.judge(slot)) {
            pools.entry(pool).or_default().push(standing);
        }
        Self {
            gist: look.need.gist,
            generation: look.fleet.generation,
            position: look.moved.now(),
            looked: look.fleet.claims,
            room: limits.room(pools.values().map(Vec::len).sum(), servers),
            pools: pools.into_iter().map(|(pool, standing)| (pool, standing.into())).collect(),
        }
    }

    /// Whether it can be brought up to date, with less than it takes to make it.
    fn is_usable(&self, look: &Look<'_>, few: u64) -> bool {
        let behind = look.moved.now() - self.position;
        let room = wide(self.entries()).saturating_add(behind) <= wide(self.room);
        let same = (self.generation, self.gist) == (look.fleet.generation, look.need.gist);
        same && behind <= few && room
    }

    fn entries(&self) -> usize {
        self.pools.values().map(Standings::len).sum()
    }

    /// The best server. If there is none, the look knows all pools that refused one.
    pub(super) fn best(&mut self, look: &mut Look<'_>) -> Option<Rank> {
        self.looked = look.fleet.claims;
        self.catch_up(look);
        let mut best = None;
        for (pool, standings) in &mut self.pools {
            if look.is_open(*pool) {
                best = first(standings, *pool, best, look).or(best);
            }
        }
        if best.is_none() {
            // In those that are open, nothing is left.
            for (pool, standings) in &mut self.pools {
                if first(standings, *pool, None, look).is_some() {
                    look.refused.push(*pool);
                }
            }
        }
        best.and_then(|best| look.fleet.servers.get(best.slot()).map(|row| best.rank(row.id)))
    }

    /// Puts what has moved where it belongs now; where it was, it is found to be worse in time.
    fn catch_up(&mut self, look: &mut Look<'_>) {
        for id in look.moved.since(self.position) {
            if let Some((pool, standing)) = look.fleet.slot(id).and_then(|slot| look.judge(slot)) {
                self.pools.entry(pool).or_default().add(standing);
            }
        }
        self.position = look.moved.now();
    }
}

/// The best of a pool's servers, if it is better than `than`.
fn first(standings: &mut Standings, pool: usize, than: Option<Standing>, look: &mut Look<'_>) -> Option<Standing> {
    while let Some(stood) = standings.best().filter(|stood| than.is_none_or(|than| *stood < than)) {
        let stands = look.judge(stood.slot()).filter(|(its, _)| *its == pool).map(|(_, stands)| stands);
        if stands == Some(stood) {
            return stands;
        }
        standings.drop_best();
        if let Some(stands) = stands {
            standings.add(stands);
        }
    }
    None
}

impl<'a> Look<'a> {
    pub(super) fn new(fleet: &'a FleetSnapshot, need: &'a Need<'a>, moved: &'a Changes) -> Self {
        Self { fleet, need, moved, judged: 0, refused: Vec::new() }
    }

    /// The best of all servers.
    pub(super) fn among_all(&mut self) -> Option<Rank> {
        self.judged += self.fleet.server_count();
        best_of_all(self.fleet, self.need, &mut |row| refuse(&mut self.refused, row))
    }

    /// The best of these.
    pub(super) fn among(&mut self, servers: impl Iterator<Item = ServerId>) -> Option<Rank> {
        let servers = servers.filter_map(|id| self.fleet.row(id)).inspect(|_| self.judged += 1);
        best_of(self.fleet, self.need, servers, &mut |row| refuse(&mut self.refused, row))
    }

    /// Where a server stands, and its pool, if it passes all rules but those about pools.
    fn judge(&mut self, slot: usize) -> Option<(usize, Standing)> {
        self.judged += 1;
        let row = self.fleet.servers.get(slot)?;
        if self.need.judge_server(self.fleet, (slot, row), &mut First).is_break() {
            return None;
        }
        let score = self.need.score(row, self.fleet.pools.get(row.pool)?.strategy);
        Some((row.pool, Standing::of(score, u32::try_from(slot).ok()?)))
    }

    fn is_open(&self, pool: usize) -> bool {
        let pool = self.fleet.pools.get(pool);
        pool.is_some_and(|pool| self.need.judge_pool(self.fleet, pool, &mut First).is_continue())
    }
}

fn refuse(refused: &mut Vec<usize>, row: &ServerRow) {
    if !refused.contains(&row.pool) {
        refused.push(row.pool);
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "ranking_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "ranking_invariants.rs"]
mod invariants;
