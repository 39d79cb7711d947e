//! Where a task goes: the only placement logic there is. Dry run, dispatch, moves between pools and the question why a
//! task is pending all come here.

use super::{
    model::Task,
    rank::{Rank, Score},
    rules::{First, Gist, Need},
    snapshot::{FleetSnapshot, ServerRow},
    spec::{ArchitectureNeed, TaskSpec},
    unfit::{Subject, Unfit, Wanted},
};
use crate::{ids::ServerId, text::Name};

/// Finds the best server for a task, without saying what is wrong with the others. Takes time in proportion to the
/// number of servers.
#[must_use]
pub fn place(fleet: &FleetSnapshot, task: &TaskSpec) -> Option<(ServerId, Rank)> {
    let need = Need::new(fleet, Gist::of(task), task);
    best_of_all(fleet, &need, &mut |_| {}).map(|rank| (rank.server, rank))
}

/// Whether this one server takes a task.
pub(super) fn fits(fleet: &FleetSnapshot, server: ServerId, task: &Task) -> bool {
    let need = Need::new(fleet, Gist::of_task(task), &task.spec);
    fleet.row(server).is_some_and(|server| need.judge(fleet, server, &mut First).is_continue())
}

/// Judges every server for a task, with every reason; its placement is always that of [`place`].
#[must_use]
pub fn plan(fleet: &FleetSnapshot, task: &TaskSpec) -> Plan {
    plan_as(fleet, Gist::of(task), task)
}

/// Every server, judged for one task.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the task goes.
    pub placement: Option<(ServerId, Rank)>,
    /// Every server: those that fit first, best first; then the others, the nearest miss first.
    pub candidates: Vec<Candidate>,
    wanted: Wanted,
}

/// One server, judged for one task.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The server.
    pub server_id: ServerId,
    /// How good it is, if it fits.
    pub rank: Option<Rank>,
    /// Everything that is in the way; nothing, if it fits.
    pub reasons: Vec<Unfit>,
    subject: Subject,
}

/// Why a server does not take a task, to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The stable code, such as `insufficient_cpu`.
    pub code: &'static str,
    /// The rest of a sentence that begins with the server's name, such as `needs 4 cores, 2.5 free`.
    pub detail: String,
}

impl Plan {
    /// Why a server of this plan does not take the task: one reason for each rule, and for room and quota one for each
    /// resource; nothing, if it fits.
    #[must_use]
    pub fn reasons(&self, candidate: &Candidate) -> Vec<Reason> {
        candidate.reasons.iter().map(|unfit| self.reason(candidate, *unfit)).collect()
    }

    pub(super) fn reason(&self, candidate: &Candidate, unfit: Unfit) -> Reason {
        Reason { code: unfit.code(), detail: candidate.subject.told(unfit, &self.wanted) }
    }
}

impl Candidate {
    /// Whether it takes the task.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.rank.is_some()
    }

    /// The server's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.subject.name
    }
}

/// The best of all servers. `refused` is told of each server where nothing but the pool is in the way.
pub(super) fn best_of_all(
    fleet: &FleetSnapshot,
    need: &Need<'_>,
    refused: &mut impl FnMut(&ServerRow),
) -> Option<Rank> {
    // There are many more servers than pools, so each pool is judged once.
    let open: Vec<bool> =
        fleet.pools.iter().map(|pool| need.judge_pool(fleet, pool, &mut First).is_continue()).collect();
    best(fleet, need, fleet.rows(), |pool| open[pool], refused)
}

/// The best of these servers, likewise.
pub(super) fn best_of<'a>(
    fleet: &FleetSnapshot,
    need: &Need<'_>,
    servers: impl Iterator<Item = (usize, &'a ServerRow)>,
    refused: &mut impl FnMut(&ServerRow),
) -> Option<Rank> {
    let open = |pool: usize| need.judge_pool(fleet, &fleet.pools[pool], &mut First).is_continue();
    best(fleet, need, servers, open, refused)
}

#[inline]
fn best<'a>(
    fleet: &FleetSnapshot,
    need: &Need<'_>,
    servers: impl Iterator<Item = (usize, &'a ServerRow)>,
    open: impl Fn(usize) -> bool,
    refused: &mut impl FnMut(&ServerRow),
) -> Option<Rank> {
    let mut best: Option<(Score, ServerId)> = None;
    for (slot, row) in servers {
        if need.judge_server(fleet, (slot, row), &mut First).is_break() {
            continue;
        }
        if !open(row.pool) {
            refused(row);
            continue;
        }
        let scored = (need.score(row, fleet.pools[row.pool].strategy), row.id);
        if best.is_none_or(|best| scored < best) {
            best = Some(scored);
        }
    }
    best.map(|(score, server)| score.rank(server))
}

/// [`plan`], for a task that may hold something.
pub(super) fn plan_as(fleet: &FleetSnapshot, gist: Gist, task: &TaskSpec) -> Plan {
    let need = Need::new(fleet, gist, task);
    let mut candidates: Vec<Candidate> = fleet.rows().map(|server| candidate(fleet, &need, server)).collect();
    // What fits has no refusals, so it comes before what does not.
    candidates.sort_by_cached_key(|candidate| (miss(&candidate.reasons), candidate.rank, candidate.server_id));
    let pool = task.pool_id.map(|id| match fleet.pool_slot(id) {
        Some(slot) => fleet.pools[slot].name.clone(),
        None => id.to_string().into(),
    });
    Plan {
        placement: candidates.first().and_then(|candidate| candidate.rank).map(|rank| (rank.server, rank)),
        candidates,
        wanted: Wanted {
            architectures: gist.architectures.with(gist.barred),
            barred: gist.barred,
            platforms: platforms(task),
            driver: task.driver,
            pool,
            labels: task.labels.clone(),
        },
    }
}

/// What the image of a task was built for, unless the task says for itself what it needs.
fn platforms(task: &TaskSpec) -> Option<String> {
    let truth = task.image_truth.as_ref().filter(|truth| !truth.platforms.is_empty())?;
    (task.architecture == ArchitectureNeed::Universal).then(|| truth.told())
}

fn candidate(fleet: &FleetSnapshot, need: &Need<'_>, (slot, row): (usize, &ServerRow)) -> Candidate {
    let mut reasons = Vec::new();
    let _ = need.judge(fleet, (slot, row), &mut reasons);
    let pool = &fleet.pools[row.pool];
    Candidate {
        server_id: row.id,
        rank: reasons.is_empty().then(|| need.score(row, pool.strategy).rank(row.id)),
        reasons,
        subject: Subject::new(row, &fleet.details[slot], pool),
    }
}

/// How near a miss is: by the number of refusals, then by what is missing, in permille.
fn miss(reasons: &[Unfit]) -> (usize, u32) {
    (reasons.len(), reasons.iter().map(|unfit| unfit.distance_permille()).sum())
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "placement_bars.rs"]
mod bars;
