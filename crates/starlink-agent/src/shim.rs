//! A small program between the agent and a process: it survives the agent, and writes down what happens.
//!
//! The agent starts it with the folder of one work. It claims the work, so that it is run at most once, starts the
//! program, keeps its output in the log, starts it again if it is to be, ends it when it has to, and leaves the outcome
//! behind. It has one thread, and needs neither the agent nor a clock that is right. To start the program it starts
//! itself once more, see `enter`: that process becomes the program.
//!
//! Invariants: a program is run by the first shim that claims it, or by none; when an outcome is there, nothing of the
//! program runs any more; an outcome is never lost for want of room on the disk.

mod enter;
mod files;
mod policy;
mod process;
mod run;
mod supervise;

pub(crate) use files::{Claim, Files, Identity, Outcome, Plan};
pub(crate) use process::{Mark, descendants, processes, signal};

use chrono::{DateTime, SubsecRound, Utc};
use std::{io::Write, path::Path, process::ExitCode, time::Duration};
use supervise::Supervisor;

/// How long a program has to end by itself unless its task says otherwise.
pub const GRACE: Duration = Duration::from_secs(10);

/// Runs the work with this folder, until it has ended for good. The program that calls it does so first of all: it has no
/// other threads, and nothing open.
#[must_use]
pub fn main(folder: &Path) -> ExitCode {
    if std::env::var_os(enter::STAGE).is_some() {
        return enter::main(folder);
    }
    match Supervisor::begin(folder) {
        Ok(Some(supervisor)) => {
            supervisor.run();
            ExitCode::SUCCESS
        }
        // Another one has claimed it.
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a program of its own, without the agent's clock")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
