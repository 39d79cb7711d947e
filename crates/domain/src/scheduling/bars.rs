//! What a task is not tried on again: an attempt ended there with an exec format error, and another one would as well.
//!
//! A bar is about an architecture rather than a server, because that is what the programs turned out not to be for,
//! whatever their image or their user says. It lasts until somebody has the task tried again.

use super::{
    model::{Task, TaskStatus},
    reason,
    sets::ArchitectureSet,
};
use crate::fleet::Server;

impl Task {
    /// What its programs may still be for, as far as anybody knows.
    #[must_use]
    pub fn architectures(&self) -> ArchitectureSet {
        self.spec.architectures().without(self.barred)
    }

    /// This task, which waits for its next attempt after one on `server`: if that ended with an exec format error, what
    /// it ran as is barred.
    pub(super) fn barring(self, server: &Server) -> Self {
        if self.status != TaskStatus::Pending || self.reason.as_deref() != Some(reason::EXEC_FORMAT) {
            return self;
        }
        Self { barred: self.barred.with(self.runs_as(server)), ..self }
    }

    /// What it runs as on a server: natively where it can, otherwise as whatever would be emulated for it.
    fn runs_as(&self, server: &Server) -> ArchitectureSet {
        let (all, native) = (self.architectures(), ArchitectureSet::from(server.architecture));
        if all.meets(native) {
            return native;
        }
        let emulated = server.inventory.emulated_architectures.iter().copied();
        if self.spec.allow_emulation { all.common(emulated.collect()) } else { ArchitectureSet::default() }
    }
}

#[cfg(test)]
#[path = "bars_tests.rs"]
mod tests;
