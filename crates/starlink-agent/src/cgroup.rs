//! Control groups: what bounds the work of the exec driver, and what nothing escapes that belongs to it.
//!
//! Groups are made below the agent's own, so that its owner decides what all work together may take. Both versions of the
//! kernel's interface are used, also side by side: limits where their controller is, and a group without limits of the
//! new kind where that is all there is, because it ends every process in it at once.
//!
//! Invariants: nothing above the agent's own group is touched, and no group that is not called after work; a limit that
//! cannot be set is told, never passed over.

mod find;
mod group;
mod mounts;

pub use find::{Hierarchies, Limits};
pub use group::{Bounds, Group};

use serde::{Deserialize, Serialize};

/// What a hierarchy can bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// Time on processors.
    Cpu,
    /// Memory.
    Memory,
    /// The number of processes and threads.
    Pids,
    /// None of these: stops every process in it, so that none can run away. Only of the old kind; the new kind always
    /// can.
    Freezer,
}

impl Controller {
    /// Those that bound something.
    const LIMITING: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// The kernel's name of it.
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Cpu, Self::Memory, Self::Pids, Self::Freezer].into_iter().find(|controller| controller.name() == name)
    }
}
