//! The rules of placement. There is one set of them: finding a server, explaining and holding differ only in the
//! [`Sink`] that takes the refusals, so they cannot disagree.

use super::{
    amounts::{Amounts, Resource, amounts},
    model::Task,
    rank::Score,
    sets::{ArchitectureSet, DriverSet},
    snapshot::{FleetSnapshot, NO_HOLDER, PoolRow, ServerRow, marks},
    spec::TaskSpec,
    unfit::{Unfit, missing},
};
use crate::{
    fleet::ServerStatus,
    ids::{PoolId, ServerId},
    pools::PoolStrategy,
    text::Tags,
};
use std::ops::ControlFlow;

/// Takes refusals, and says whether it wants to hear more.
pub(super) trait Sink {
    /// The refusal itself is only made if it is wanted.
    fn refuse(&mut self, unfit: impl FnOnce() -> Unfit) -> ControlFlow<()>;
}

/// Stops at the first refusal.
#[derive(Debug)]
pub(super) struct First;

impl Sink for First {
    #[inline]
    fn refuse(&mut self, _: impl FnOnce() -> Unfit) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// Keeps them all.
impl Sink for Vec<Unfit> {
    #[inline]
    fn refuse(&mut self, unfit: impl FnOnce() -> Unfit) -> ControlFlow<()> {
        self.push(unfit());
        ControlFlow::Continue(())
    }
}

/// What the rules look at, of a task. Its labels are apart because most tasks have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Gist {
    pub(super) demand: Amounts,
    /// What it may run on.
    pub(super) architectures: ArchitectureSet,
    /// What it might run on as well, had attempts not ended there with an exec format error.
    pub(super) barred: ArchitectureSet,
    pub(super) emulation: bool,
    pub(super) driver: Option<crate::fleet::Driver>,
    pub(super) pool: Option<PoolId>,
    /// As for a server: the bits of its labels.
    marks: u64,
    /// Its place among the tasks that hold something.
    pub(super) seniority: u8,
}

impl Gist {
    pub(super) fn of(spec: &TaskSpec) -> Self {
        Self {
            demand: amounts(spec.demand),
            architectures: spec.architectures(),
            barred: ArchitectureSet::default(),
            emulation: spec.allow_emulation,
            driver: spec.driver.needs(),
            pool: spec.pool_id,
            marks: marks(&spec.labels),
            seniority: NO_HOLDER,
        }
    }

    /// The same of a task that is stored.
    pub(super) fn of_task(task: &Task) -> Self {
        Self::of(&task.spec).barring(task.barred)
    }

    /// The same without these architectures.
    pub(super) fn barring(self, barred: ArchitectureSet) -> Self {
        let all = self.architectures;
        Self { architectures: all.without(barred), barred: all.common(barred), ..self }
    }

    /// Whether it runs on a server if it may run on these architectures.
    #[inline]
    fn runs(&self, on: ArchitectureSet, row: &ServerRow) -> bool {
        on.meets(row.native) || (self.emulation && on.meets(row.emulated))
    }

    /// Why it does not run on a server whose architectures are not its own.
    fn mismatch(&self, row: &ServerRow) -> Unfit {
        let all = self.architectures.with(self.barred);
        if self.runs(all, row) {
            Unfit::Barred
        } else if all.meets(row.emulated) {
            Unfit::Emulation
        } else {
            Unfit::Architecture
        }
    }

    pub(super) fn drivers(&self) -> DriverSet {
        self.driver.map_or(DriverSet::default(), DriverSet::from)
    }
}

/// A task, ready to be judged against many servers of one snapshot.
pub(super) struct Need<'a> {
    pub(super) gist: Gist,
    pub(super) labels: &'a Tags,
    /// In order; nothing where any will do.
    servers: &'a [ServerId],
    /// The only one that will do, if its user says so.
    server: Option<ServerId>,
    /// The slot of its pool; `None` if it may run in any.
    pool: Option<usize>,
    /// All ones for a resource that it does not ask for.
    not_asked: [u64; 4],
}

impl<'a> Need<'a> {
    pub(super) fn new(fleet: &FleetSnapshot, gist: Gist, spec: &'a TaskSpec) -> Self {
        // No server is in a slot that there is not, so a pool that is not known is one that no server is in.
        let pool = gist.pool.map(|id| fleet.pool_slot(id).unwrap_or(usize::MAX));
        let not_asked = gist.demand.map(|demand| if demand > 0 { 0 } else { u64::MAX });
        let (servers, server) = (spec.image_servers(), spec.required_server_id);
        Self { gist, labels: &spec.labels, servers, server, pool, not_asked }
    }

    /// Evaluates every rule for the server in `slot`, which is `row`, as far as `sink` wants to hear. `Continue` means
    /// that it heard of every refusal; where there was none, the task fits.
    pub(super) fn judge(
        &self,
        fleet: &FleetSnapshot,
        (slot, row): (usize, &ServerRow),
        sink: &mut impl Sink,
    ) -> ControlFlow<()> {
        self.judge_server(fleet, (slot, row), sink)?;
        self.judge_pool(fleet, &fleet.pools[row.pool], sink)
    }

    /// The rules that look at the server.
    #[inline]
    pub(super) fn judge_server(
        &self,
        fleet: &FleetSnapshot,
        (slot, row): (usize, &ServerRow),
        sink: &mut impl Sink,
    ) -> ControlFlow<()> {
        self.kind(row, sink)?;
        availability(row, sink)?;
        if self.server.is_some_and(|server| server != row.id) {
            sink.refuse(|| Unfit::Server)?;
        }
        if !self.servers.is_empty() && self.servers.binary_search(&row.id).is_err() {
            sink.refuse(|| Unfit::Image)?;
        }
        if self.pool.is_some_and(|pool| pool != row.pool) {
            sink.refuse(|| Unfit::Pool)?;
        }
        for (i, resource) in Resource::ALL.into_iter().enumerate() {
            // Where more is reserved than there is, what asks for none of it is refused as well, here and in the pool:
            // the sum of the allocations must not be above either.
            let (needs, free) = (self.gist.demand[i], row.free[i]);
            if needs > free {
                let capacity = || fleet.details[slot].capacity[i];
                sink.refuse(|| Unfit::Room { resource, needs, free, capacity: capacity() })?;
            }
        }
        if self.gist.marks & row.marks != self.gist.marks
            || (self.gist.marks != 0 && missing(self.labels, &fleet.details[slot].tags).next().is_some())
        {
            sink.refuse(|| Unfit::Labels)?;
        }
        if row.hold < self.gist.seniority {
            sink.refuse(|| Unfit::Held(fleet.holders[usize::from(row.hold)]))?;
        }
        ControlFlow::Continue(())
    }

    /// Scores a server on which the task fits.
    #[inline]
    pub(super) fn score(&self, row: &ServerRow, strategy: PoolStrategy) -> Score {
        let emulated = !self.gist.architectures.meets(row.native);
        Score::of(row, emulated, (&self.gist.demand, &self.not_asked), strategy)
    }

    /// What the server's kind decides: its architecture and the drivers of its agent.
    #[inline]
    fn kind(&self, row: &ServerRow, sink: &mut impl Sink) -> ControlFlow<()> {
        if !self.gist.runs(self.gist.architectures, row) {
            sink.refuse(|| self.gist.mismatch(row))?;
        }
        match self.gist.driver {
            Some(driver) if !row.drivers.has_all(driver.into()) => sink.refuse(|| Unfit::Driver(driver)),
            _ => ControlFlow::Continue(()),
        }
    }

    /// The rules that look at the pool: if they refuse, no change of a server helps.
    pub(super) fn judge_pool(&self, fleet: &FleetSnapshot, pool: &PoolRow, sink: &mut impl Sink) -> ControlFlow<()> {
        if !pool.known {
            sink.refuse(|| Unfit::PoolUnknown)?;
        }
        if pool.saturated {
            sink.refuse(|| Unfit::PoolSaturated)?;
        }
        for (i, resource) in Resource::ALL.into_iter().enumerate() {
            let (needs, left) = (self.gist.demand[i], pool.left[i]);
            if needs > left {
                let quota = pool.quota[i];
                sink.refuse(|| Unfit::Quota { resource, needs, left, quota })?;
            }
        }
        if pool.hold < self.gist.seniority {
            sink.refuse(|| Unfit::PoolHeld(fleet.holders[usize::from(pool.hold)]))?;
        }
        ControlFlow::Continue(())
    }
}

#[inline]
fn availability(row: &ServerRow, sink: &mut impl Sink) -> ControlFlow<()> {
    let refusal = match row.status {
        ServerStatus::Online => None,
        ServerStatus::Offline => Some(Unfit::Offline),
        ServerStatus::Maintenance => Some(Unfit::Maintenance),
        ServerStatus::Provisioning => Some(Unfit::Provisioning),
    };
    if let Some(unfit) = refusal {
        sink.refuse(|| unfit)?;
    }
    if row.cordoned { sink.refuse(|| Unfit::Cordoned) } else { ControlFlow::Continue(()) }
}
