//! The processes of a container, as the machine's own `/proc` tells of them: engines have no way to end a program that
//! they run in a container besides its own.
//!
//! Invariant: what does not belong to the container, by its control group, is never touched, whatever its number.

use crate::shim::{descendants, processes, signal};
use nix::{sys::signal::Signal, unistd::Pid};
use std::{collections::BTreeMap, fs};

/// A program in a container, and what it has started.
#[derive(Debug, Clone)]
pub(super) struct Family {
    /// The engine's own name of the container, which is in the name of its control group.
    container: String,
    session: Pid,
    /// When each of them was started: numbers are used again.
    members: BTreeMap<Pid, u64>,
}

impl Family {
    /// That of the process which the engine calls `pid`. `None` if it cannot be seen from here: it has ended, or the
    /// engine is elsewhere.
    pub(super) fn of(container: &str, pid: i64) -> Option<Self> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1)?;
        let mut candidates = processes();
        candidates.retain(|process| belongs(process.pid, container));
        let numbered = candidates.iter().map(|process| (process.pid, numbers(process.pid))).collect::<Vec<_>>();
        let leader = named(&numbered, pid)?;
        let leader = candidates.into_iter().find(|process| process.pid == leader)?;
        let members = BTreeMap::from([(leader.pid, leader.started)]);
        Some(Self { container: container.to_owned(), session: leader.session, members })
    }

    /// Looks for what it has started meanwhile, and forgets what has ended. Whether anything is left.
    pub(super) fn look(&mut self) -> bool {
        let mut all = processes();
        all.retain(|process| belongs(process.pid, &self.container));
        let known = |pid: Pid, started: u64| self.members.get(&pid) == Some(&started);
        let of_session = |process: &Pid, session: Pid| session == self.session || *process == self.session;
        let mut found: BTreeMap<Pid, u64> = all
            .iter()
            .filter(|process| known(process.pid, process.started) || of_session(&process.pid, process.session))
            .map(|process| (process.pid, process.started))
            .collect();
        let below = descendants(&all, found.keys().copied());
        found.extend(
            all.iter().filter(|process| below.contains(&process.pid)).map(|process| (process.pid, process.started)),
        );
        self.members = found;
        !self.members.is_empty()
    }

    /// Sends a signal to all of it that is known.
    pub(super) fn signal(&self, number: Signal) {
        signal(self.members.keys(), number);
    }
}

/// Which of these processes an engine calls `pid`. One with processes of its own numbering sees the same one under a
/// number between ours and the container's.
fn named(processes: &[(Pid, Vec<i32>)], pid: i32) -> Option<Pid> {
    let between = |numbers: &[i32]| numbers.split_last().is_some_and(|(_, outer)| outer.contains(&pid));
    let ours = processes.iter().find(|(process, _)| process.as_raw() == pid);
    ours.or_else(|| processes.iter().find(|(_, numbers)| between(numbers))).map(|(process, _)| *process)
}

fn belongs(pid: Pid, container: &str) -> bool {
    !container.is_empty() && text(pid, "cgroup").contains(container)
}

/// What a process is called, from our numbering to its own.
fn numbers(pid: Pid) -> Vec<i32> {
    let status = text(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

fn text(pid: Pid, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(processes: &[&[i32]], pid: i32, expected: Option<i32>) {
        let processes: Vec<_> = processes.iter().map(|numbers| (Pid::from_raw(numbers[0]), numbers.to_vec())).collect();
        assert_eq!(named(&processes, pid).map(Pid::as_raw), expected, "{pid} of {processes:?}");
    }

    #[test]
    fn a_process_is_known_by_the_number_that_its_engine_has_for_it() {
        check(&[&[100, 1], &[200, 20]], 200, Some(200));
        check(&[&[100, 1], &[200, 20]], 20, None);
        // The engine has a numbering of its own, and the container another one in that.
        check(&[&[1100, 100, 1], &[1201, 201, 200], &[1200, 200, 20]], 200, Some(1200));
        // The container has none.
        check(&[&[100], &[200]], 200, Some(200));
    }

    #[test]
    fn what_is_no_process_of_the_container_is_none() {
        let own = i64::from(std::process::id());
        assert!(Family::of("4f5e6d0123456789", own).is_none() && Family::of("", own).is_none());
    }
}
