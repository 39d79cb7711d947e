//! The fleet as placement sees it: small rows in one array, so that ten thousand servers are judged in microseconds.
//!
//! Invariants: servers are sorted by id, each with its details at the same index; what is free on a server, and left in
//! a pool, is always what it has less what is reserved and what is claimed.

use super::{
    amounts::{self, Amounts, amounts},
    rank::Scale,
    sets::{ArchitectureSet, DriverSet},
};
use crate::{
    fleet::{Server, ServerStatus},
    ids::{PoolId, ServerId, TaskId},
    pools::{Pool, PoolState, PoolStrategy, Quotas},
    text::{Name, Tags},
    units::Resources,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The seniority of a task that holds nothing; see [`ServerRow::hold`].
pub(super) const NO_HOLDER: u8 = 254;
/// The hold on what nobody holds.
pub(super) const NOT_HELD: u8 = 255;
/// Stands for a quota that is not set.
pub(super) const UNLIMITED: i64 = i64::MAX;
/// Less than ever is free: whatever there is then is an improvement.
const NOTHING: Amounts = [i64::MIN; 4];
/// The slot of the pool that servers without a pool belong to: without a name, quotas or an end.
const NO_POOL: usize = 0;

/// What the rules look at, of one server.
#[derive(Debug, Clone)]
pub(super) struct ServerRow {
    pub(super) id: ServerId,
    /// Where its pool stands in the snapshot.
    pub(super) pool: usize,
    /// A bit for each of its tags, several of which may share one.
    pub(super) marks: u64,
    pub(super) free: Amounts,
    pub(super) scale: Scale,
    /// [`Scale::weight`].
    pub(super) weight: u8,
    pub(super) native: ArchitectureSet,
    pub(super) emulated: ArchitectureSet,
    pub(super) drivers: DriverSet,
    pub(super) status: ServerStatus,
    pub(super) cordoned: bool,
    /// The place of the task that holds it among those that hold something; those with a greater one are kept out.
    pub(super) hold: u8,
}

/// What is only looked at once a server is to be spoken of, or its tags matter.
#[derive(Debug, Clone)]
pub(super) struct ServerDetails {
    pub(super) name: Arc<Name>,
    pub(super) tags: Arc<Tags>,
    pub(super) capacity: Amounts,
    reserved: Amounts,
    claimed: Amounts,
}

/// One pool; also the one that stands for no pool.
#[derive(Debug, Clone)]
pub(super) struct PoolRow {
    pub(super) id: Option<PoolId>,
    /// How sentences name it.
    pub(super) name: Arc<str>,
    /// Whether the snapshot was told of it, rather than only of servers in it.
    pub(super) known: bool,
    pub(super) saturated: bool,
    pub(super) strategy: PoolStrategy,
    /// As for a server.
    pub(super) hold: u8,
    pub(super) quota: Amounts,
    pub(super) left: Amounts,
    reserved: Amounts,
    claimed: Amounts,
}

/// What became better for tasks that did not fit before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Improved {
    /// These have more room, or differ in more than their room.
    pub servers: Vec<ServerId>,
    /// More is left of the quotas of these, or they take new work again.
    pub pools: Vec<PoolId>,
}

/// The servers and pools as they are at one moment, with what is claimed by decisions that are not committed yet.
#[derive(Debug, Clone)]
pub struct FleetSnapshot {
    pub(super) servers: Vec<ServerRow>,
    pub(super) details: Vec<ServerDetails>,
    pub(super) pools: Vec<PoolRow>,
    pool_slots: BTreeMap<PoolId, usize>,
    /// The tasks that hold something, those of longest standing first.
    pub(super) holders: Vec<TaskId>,
    /// What was free on servers that were changed, before the first change since [`FleetSnapshot::take_improved`].
    touched: BTreeMap<ServerId, Amounts>,
    /// What was left of pools that were changed, and whether they took new work.
    touched_pools: BTreeMap<usize, (Amounts, bool)>,
    /// Servers that may rank better, or take more, although they have no more room.
    reordered: BTreeSet<ServerId>,
    /// Raised by what may change the order of all servers.
    pub(super) generation: u64,
    /// How many times something was claimed.
    pub(super) claims: u64,
}

impl Default for FleetSnapshot {
    fn default() -> Self {
        let nowhere = PoolRow { known: true, ..PoolRow::unknown(None) };
        Self {
            servers: Vec::new(),
            details: Vec::new(),
            pools: vec![nowhere],
            pool_slots: BTreeMap::new(),
            holders: Vec::new(),
            touched: BTreeMap::new(),
            touched_pools: BTreeMap::new(),
            reordered: BTreeSet::new(),
            generation: 0,
            claims: 0,
        }
    }
}

impl FleetSnapshot {
    /// How many servers there are.
    #[must_use]
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// What is neither reserved nor claimed of a server; negative where it is overcommitted.
    #[must_use]
    pub fn free(&self, id: ServerId) -> Option<Resources> {
        self.slot(id).map(|slot| amounts::resources(self.servers[slot].free))
    }

    /// The pool of a server.
    #[must_use]
    pub fn pool_of(&self, id: ServerId) -> Option<PoolId> {
        self.slot(id).and_then(|slot| self.pools[self.servers[slot].pool].id)
    }

    /// What the allocations on a pool's servers hold, without what is claimed.
    #[must_use]
    pub fn pool_reserved(&self, id: PoolId) -> Resources {
        self.pool_slot(id).map(|slot| amounts::resources(self.pools[slot].reserved)).unwrap_or_default()
    }

    /// What is left of a pool's quotas; `None` for a resource that has no quota.
    #[must_use]
    pub fn left(&self, id: PoolId) -> Option<Quotas> {
        let pool = &self.pools[*self.pool_slots.get(&id)?];
        let [cpu_millis, memory_mib, storage_mib, gpus] = pool.left.map(|left| (left != UNLIMITED).then_some(left));
        Some(Quotas { cpu_millis, memory_mib, storage_mib, gpus })
    }

    /// Takes a server as it is now; what is claimed on it stays claimed.
    pub fn upsert_server(&mut self, server: &Server) {
        let pool = server.pool_id.map_or(NO_POOL, |id| self.pool_slot_or_new(id));
        let at = self.servers.binary_search_by_key(&server.id, |row| row.id);
        let claimed = at.map_or([0; 4], |slot| self.details[slot].claimed);
        let details = ServerDetails {
            name: Arc::new(server.name.clone()),
            tags: Arc::new(server.tags.clone()),
            capacity: amounts(server.capacity),
            reserved: amounts(server.reserved),
            claimed,
        };
        let mut row = ServerRow { free: details.free(), ..ServerRow::of(server, pool) };
        match at {
            Err(slot) => {
                self.touched.insert(server.id, NOTHING);
                // One that comes last moves no other.
                self.generation += u64::from(slot < self.servers.len());
                self.servers.insert(slot, row);
                self.details.insert(slot, details);
            }
            Ok(slot) => {
                let old = &self.servers[slot];
                row.hold = old.hold;
                if row.differs(old) || self.details[slot].tags != details.tags {
                    self.touched.insert(server.id, NOTHING);
                } else {
                    self.touched.entry(server.id).or_insert(old.free);
                }
                if row.scale != old.scale || self.pools[pool].strategy == PoolStrategy::Binpack {
                    self.reordered.insert(server.id);
                }
                if old.pool != pool {
                    self.alter_pool(old.pool, |pool| pool.give_back(claimed));
                    self.alter_pool(pool, |pool| pool.claimed = amounts::plus(pool.claimed, claimed));
                }
                self.servers[slot] = row;
                self.details[slot] = details;
            }
        }
    }

    /// Forgets a server, and what is claimed on it.
    pub fn remove_server(&mut self, id: ServerId) {
        let Some(slot) = self.slot(id) else { return };
        let (row, details) = (self.servers.remove(slot), self.details.remove(slot));
        self.touched.remove(&id);
        self.reordered.remove(&id);
        self.generation += 1;
        self.alter_pool(row.pool, |pool| pool.give_back(details.claimed));
    }

    /// Takes a pool as it is now, with what the allocations on its servers hold; what is claimed in it stays claimed.
    pub fn upsert_pool(&mut self, pool: &Pool, reserved: Resources) {
        let slot = self.pool_slot_or_new(pool.id);
        self.alter_pool(slot, |row| {
            row.name = pool.name.as_str().into();
            row.known = true;
            row.saturated = pool.state == PoolState::Saturated;
            row.strategy = pool.strategy;
            row.quota = quota(pool.quotas);
            row.reserved = amounts(reserved);
        });
    }

    /// Forgets a pool. Servers that are still in it take no work until they are elsewhere.
    pub fn remove_pool(&mut self, id: PoolId) {
        let Some(slot) = self.pool_slot(id) else { return };
        self.alter_pool(slot, |row| {
            let PoolRow { hold, claimed, .. } = *row;
            *row = PoolRow { hold, claimed, ..PoolRow::unknown(Some(id)) };
        });
    }

    /// Takes what the allocations on a server hold now.
    pub fn set_server_reserved(&mut self, id: ServerId, reserved: Resources) {
        self.alter_server(id, |details| details.reserved = amounts(reserved));
    }

    /// Takes what the allocations on a pool's servers hold now.
    pub fn set_pool_reserved(&mut self, id: PoolId, reserved: Resources) {
        if let Some(slot) = self.pool_slot(id) {
            self.alter_pool(slot, |pool| pool.reserved = amounts(reserved));
        }
    }

    /// Takes `demand` on a server and in its pool for a decision that is not committed yet.
    pub fn claim(&mut self, id: ServerId, demand: Resources) {
        let Some(slot) = self.slot(id) else { return };
        let (row, details, demand) = (&mut self.servers[slot], &mut self.details[slot], amounts(demand));
        details.claimed = amounts::plus(details.claimed, demand);
        row.free = details.free();
        let pool = &mut self.pools[row.pool];
        pool.claimed = amounts::plus(pool.claimed, demand);
        pool.left = pool.left();
        self.claims += 1;
        self.note_fuller(slot);
    }

    /// Gives back what [`FleetSnapshot::claim`] took.
    pub fn unclaim(&mut self, id: ServerId, demand: Resources) {
        let Some(slot) = self.slot(id) else { return };
        let demand = amounts(demand);
        self.alter_server(id, |details| details.claimed = amounts::minus(details.claimed, demand));
        self.alter_pool(self.servers[slot].pool, |pool| pool.give_back(demand));
    }

    /// What became better since this was asked last, taken together: room that was given back and taken again in
    /// between is no improvement.
    pub fn take_improved(&mut self) -> Improved {
        let improved = Improved { servers: self.improved_servers().collect(), pools: self.improved_pools().collect() };
        self.touched.clear();
        self.touched_pools.clear();
        improved
    }

    /// Whether anything did.
    #[must_use]
    pub fn has_improved(&self) -> bool {
        self.improved_servers().next().is_some() || self.improved_pools().next().is_some()
    }

    /// What may rank better, or take more, since this was asked last, beside what [`FleetSnapshot::take_improved`] says.
    pub(super) fn take_reordered(&mut self) -> BTreeSet<ServerId> {
        std::mem::take(&mut self.reordered)
    }

    fn improved_servers(&self) -> impl Iterator<Item = ServerId> {
        let exceeds = |id, old| self.row(id).is_some_and(|(_, row)| amounts::exceeds(&row.free, old));
        self.touched.iter().filter(move |(id, old)| exceeds(**id, old)).map(|(id, _)| *id)
    }

    fn improved_pools(&self) -> impl Iterator<Item = PoolId> {
        let touched = self.touched_pools.iter().map(|(slot, old)| (&self.pools[*slot], old));
        let better = |(pool, (left, was_open)): &(&PoolRow, &(Amounts, bool))| {
            pool.is_open() && (!was_open || amounts::exceeds(&pool.left, left))
        };
        touched.filter(better).filter_map(|(pool, _)| pool.id)
    }

    /// Keeps a server for the task in this place among [`FleetSnapshot::holders`], or for none.
    pub(super) fn hold_server(&mut self, id: ServerId, hold: u8) {
        if let Some(slot) = self.slot(id) {
            let before = std::mem::replace(&mut self.servers[slot].hold, hold);
            if hold > before {
                self.reordered.insert(id);
            }
        }
    }

    /// Keeps a pool for the task in this place among [`FleetSnapshot::holders`], or for none.
    pub(super) fn hold_pool(&mut self, id: PoolId, hold: u8) {
        if let Some(slot) = self.pool_slot(id) {
            self.pools[slot].hold = hold;
        }
    }

    /// Every server with its slot, by id.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, &ServerRow)> {
        self.servers.iter().enumerate()
    }

    pub(super) fn row(&self, id: ServerId) -> Option<(usize, &ServerRow)> {
        self.slot(id).map(|slot| (slot, &self.servers[slot]))
    }

    pub(super) fn slot(&self, id: ServerId) -> Option<usize> {
        self.servers.binary_search_by_key(&id, |row| row.id).ok()
    }

    pub(super) fn pool_slot(&self, id: PoolId) -> Option<usize> {
        self.pool_slots.get(&id).copied()
    }

    fn pool_slot_or_new(&mut self, id: PoolId) -> usize {
        let next = self.pools.len();
        let slot = *self.pool_slots.entry(id).or_insert(next);
        if slot == next {
            self.pools.push(PoolRow::unknown(Some(id)));
        }
        slot
    }

    fn alter_server(&mut self, id: ServerId, change: impl FnOnce(&mut ServerDetails)) {
        let Some(slot) = self.slot(id) else { return };
        let (row, details) = (&mut self.servers[slot], &mut self.details[slot]);
        self.touched.entry(id).or_insert(row.free);
        change(details);
        row.free = details.free();
        self.note_fuller(slot);
    }

    /// What is fuller is better where a pool packs, and nowhere else.
    fn note_fuller(&mut self, slot: usize) {
        let row = &self.servers[slot];
        if self.pools[row.pool].strategy == PoolStrategy::Binpack {
            self.reordered.insert(row.id);
        }
    }

    fn alter_pool(&mut self, slot: usize, change: impl FnOnce(&mut PoolRow)) {
        let pool = &mut self.pools[slot];
        self.touched_pools.entry(slot).or_insert((pool.left, pool.is_open()));
        let strategy = pool.strategy;
        change(pool);
        pool.left = pool.left();
        if pool.strategy != strategy {
            self.generation += 1;
        }
    }
}

impl ServerRow {
    fn of(server: &Server, pool: usize) -> Self {
        let capacity = amounts(server.capacity);
        let scale = Scale::of(&capacity);
        Self {
            id: server.id,
            pool,
            marks: marks(&server.tags),
            free: capacity,
            weight: scale.weight(),
            scale,
            native: server.architecture.into(),
            emulated: server.inventory.emulated_architectures.iter().copied().collect(),
            drivers: server.inventory.drivers.iter().copied().collect(),
            status: server.status,
            cordoned: server.cordoned,
            hold: NOT_HELD,
        }
    }

    /// Whether more than its room differs; of its tags, only the marks are compared.
    fn differs(&self, other: &Self) -> bool {
        let facts = |row: &Self| (row.pool, row.marks, row.native, row.emulated, row.drivers, row.status, row.cordoned);
        facts(self) != facts(other)
    }
}

impl ServerDetails {
    fn free(&self) -> Amounts {
        amounts::minus(self.capacity, amounts::plus(self.reserved, self.claimed))
    }
}

impl PoolRow {
    fn unknown(id: Option<PoolId>) -> Self {
        Self {
            id,
            name: id.map(|id| id.to_string()).unwrap_or_default().into(),
            known: false,
            saturated: false,
            strategy: PoolStrategy::Spread,
            hold: NOT_HELD,
            quota: [UNLIMITED; 4],
            left: [UNLIMITED; 4],
            reserved: [0; 4],
            claimed: [0; 4],
        }
    }

    fn left(&self) -> Amounts {
        std::array::from_fn(|i| match self.quota[i] {
            UNLIMITED => UNLIMITED,
            quota => quota.saturating_sub(self.reserved[i]).saturating_sub(self.claimed[i]),
        })
    }

    /// Whether it takes new work, as far as there is quota.
    pub(super) fn is_open(&self) -> bool {
        self.known && !self.saturated
    }

    fn give_back(&mut self, claimed: Amounts) {
        self.claimed = amounts::minus(self.claimed, claimed);
    }
}

fn quota(quotas: Quotas) -> Amounts {
    [quotas.cpu_millis, quotas.memory_mib, quotas.storage_mib, quotas.gpus].map(|quota| quota.unwrap_or(UNLIMITED))
}

/// One bit for each pair. A server without all the bits of a selector lacks one of its pairs; one that has them all
/// may still lack one, because pairs share bits. A pair is hashed with FNV-1a (Fowler, Noll and Vo), and once more with
/// a step of `MurmurHash3`'s finish (Appleby), or its last letter would not reach the bits that count; both are in the
/// public domain.
pub(super) fn marks(tags: &Tags) -> u64 {
    tags.iter().fold(0, |marks, (key, value)| {
        let bytes = key.bytes().chain([0]).chain(value.bytes());
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        marks | 1 << (mixed >> 58)
    })
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
