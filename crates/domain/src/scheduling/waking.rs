//! What a class finds that is ready, when a class sleeps, and what wakes it.

use super::{
    amounts::{self, Amounts},
    engine::Engine,
    queue::Class,
    rank::Rank,
    ranking::Look,
    rules::{Gist, Need},
    sets::{ArchitectureSet, DriverSet},
    snapshot::FleetSnapshot,
};
use crate::{fleet::ServerStatus, ids::ServerId};

impl Engine {
    /// The best server for a ready class. If there is none, the class sleeps.
    pub(super) fn find(&mut self, at: usize) -> Option<Rank> {
        let (Class { gist, spec, seen, history, .. }, rankings) = self.queue.class_to_look(at)?;
        let need = Need::new(&self.fleet, *gist, spec);
        let mut look = Look::new(&self.fleet, &need, &self.moved);
        let anew = *seen == 0;
        let scan = if anew { self.fleet.server_count() } else { 0 };
        let ranking = rankings.of(at, history, scan, &mut look);
        let whole = anew || ranking.is_some();
        let found = if let Some(ranking) = ranking {
            ranking.best(&mut look)
        } else {
            let found = if anew { look.among_all() } else { look.among(self.changes.since(*seen)) };
            history.judged += look.judged;
            found
        };
        let Look { judged, refused, .. } = look;
        self.judgements += u64::try_from(judged).unwrap_or(u64::MAX);
        if found.is_none() {
            self.sleep(at, whole, refused);
        }
        found
    }

    /// Lets a class sleep that found nothing, among the whole fleet or among what had become better, because of these
    /// pools if not for want of servers.
    fn sleep(&mut self, at: usize, whole: bool, mut pools: Vec<usize>) {
        for pool in &pools {
            self.waiting_on.entry(*pool).or_default().insert(at);
        }
        if let Some(class) = self.queue.class_mut(at) {
            if !whole {
                pools.extend(class.waits_on.iter().filter(|pool| !pools.contains(pool)).copied().collect::<Vec<_>>());
            }
            class.waits_on = pools;
        }
        self.queue.sleep(at, self.changes.now());
    }

    /// Wakes the classes that what became better may help.
    pub(super) fn wake(&mut self) {
        let (improved, reordered) = (self.fleet.take_improved(), self.fleet.take_reordered());
        // A ranking that is made later is made of what is so by then.
        if !self.queue.rankings.is_empty() {
            for server in improved.servers.iter().copied().chain(reordered) {
                self.moved.mark(server);
            }
        }
        for server in improved.servers {
            self.note_server(server);
        }
        for pool in improved.pools {
            self.note_pool(pool);
        }
        let now = self.changes.now();
        if self.woken < now {
            let since = std::mem::replace(&mut self.woken, now);
            let offer = Offer::of(&self.fleet, self.changes.since(since));
            let helped = self.queue.asleep_within(&offer.free).filter_map(|at| {
                let class = self.queue.class(at).filter(|class| offer.may_help(&class.gist))?;
                // What changed before did not help, or it would have been awake since.
                Some((at, class.seen.max(since)))
            });
            for (class, seen) in helped.collect::<Vec<_>>() {
                self.queue.wake(class, seen);
            }
        }
        for pool in std::mem::take(&mut self.improved_pools) {
            self.wake_for_pool(pool);
        }
    }

    fn wake_for_pool(&mut self, pool: usize) {
        let row = &self.fleet.pools[pool];
        let Some(classes) = self.waiting_on.get_mut(&pool) else { return };
        let queue = &self.queue;
        classes.retain(|class| queue.class(*class).is_some_and(|class| class.waits_on.contains(&pool)));
        let helped = |class: &usize| {
            row.is_open() && queue.class(*class).is_some_and(|class| amounts::fits(&class.gist.demand, &row.left))
        };
        for class in classes.extract_if(.., helped).collect::<Vec<_>>() {
            self.queue.wake(class, 0);
        }
    }
}

/// The best of everything that became better: what asks for more than that is not helped by it.
struct Offer {
    free: Amounts,
    architectures: ArchitectureSet,
    drivers: DriverSet,
}

impl Offer {
    fn of(fleet: &FleetSnapshot, servers: impl Iterator<Item = ServerId>) -> Self {
        let nothing =
            Self { free: [i64::MIN; 4], architectures: ArchitectureSet::default(), drivers: DriverSet::default() };
        let rows = servers.filter_map(|id| fleet.row(id)).map(|(_, row)| row);
        rows.filter(|row| row.status == ServerStatus::Online && !row.cordoned).fold(nothing, |offer, row| Self {
            free: std::array::from_fn(|i| offer.free[i].max(row.free[i])),
            architectures: offer.architectures.with(row.native).with(row.emulated),
            drivers: offer.drivers.with(row.drivers),
        })
    }

    fn may_help(&self, gist: &Gist) -> bool {
        gist.architectures.meets(self.architectures) && self.drivers.has_all(gist.drivers())
    }
}
