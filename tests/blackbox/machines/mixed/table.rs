//! What became of each task, to be read and to be checked.

use super::{
    fleet::Server,
    tasks::{Demand, KINDS},
};
use std::fmt::Write;

/// When a task was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// While nothing had ended yet. Which servers had room then is known, and that natives went first was checked.
    AtOnce,
    /// Once there was room.
    AfterWaiting,
}

/// A task, where it ran, and as what.
pub(super) struct Row<'a> {
    pub(super) task: i64,
    pub(super) demand: Demand,
    pub(super) server: &'a Server,
    pub(super) outcome: Outcome,
    /// What its program was told by the kernel that it runs on.
    pub(super) said: String,
}

impl Row<'_> {
    pub(super) fn is_emulated(&self) -> bool {
        self.said != self.server.kind.machine
    }

    /// It ran as something that its image has and that it may run as, natively if the server is that.
    pub(super) fn check(&self) {
        let Self { task, demand, server, .. } = self;
        let ran_as = KINDS.into_iter().find(|kind| kind.machine == self.said);
        let ran_as = ran_as.unwrap_or_else(|| panic!("task {task} says {:?}", self.said));
        assert!(demand.image.kinds().contains(&ran_as), "task {task} ran as what its image lacks");
        assert!(demand.kinds().contains(&ran_as), "task {task} ran as what it did not ask for");
        if demand.kinds().contains(&server.kind) {
            assert_eq!(ran_as, server.kind, "task {task} was emulated on a server that it runs on natively");
        } else {
            assert!(demand.allow_emulation, "task {task} was emulated, which it does not allow");
            assert!(server.emulates.contains(&ran_as), "task {task} ran on {}, which cannot emulate it", server.name);
        }
    }
}

/// The rows as a table, and their sums.
pub(super) fn told(rows: &[Row<'_>]) -> String {
    let mut text = String::from(
        "task image's platforms                      stated  emulation server        its kind placed  ran      uname -m\n",
    );
    for row in rows {
        let Row { task, demand, server, .. } = row;
        let (platforms, stated) = (demand.image.told(), demand.stated.map_or("-", |kind| kind.word));
        let emulation = if demand.allow_emulation { "allowed" } else { "no" };
        let placed = if row.outcome == Outcome::AtOnce { "at once" } else { "waited" };
        let (ran, name, kind) = (ran(row.is_emulated()), server.name, server.kind.word);
        let _ = writeln!(
            text,
            "{task:>4} {platforms:<39} {stated:<7} {emulation:<9} {name:<13} {kind:<8} {placed:<7} {ran:<8} {}",
            row.said
        );
    }
    for (server, said, emulated, count) in sums(rows) {
        let _ = writeln!(text, "{count:>4} ran on {server} as {said}, {}", ran(emulated));
    }
    text
}

fn ran(emulated: bool) -> &'static str {
    if emulated { "emulated" } else { "natively" }
}

fn sums<'a>(rows: &'a [Row<'_>]) -> impl Iterator<Item = (&'a str, &'a str, bool, usize)> {
    let mut sums = std::collections::BTreeMap::new();
    for row in rows {
        *sums.entry((row.server.name, &*row.said, row.is_emulated())).or_default() += 1;
    }
    sums.into_iter().map(|((server, said, emulated), count)| (server, said, emulated, count))
}
