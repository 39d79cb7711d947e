//! Processes, as `/proc` tells of them.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) parent: Pid,
    pub(crate) session: Pid,
    /// When it was started, in ticks since the machine was.
    pub(crate) started: u64,
    /// Whether it has ended, and only waits for its parent to notice.
    pub(crate) ended: bool,
}

impl Process {
    fn read(pid: Pid) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads a line such as `7 (a (strange) name) S 1 7 7 …`.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(" (")?;
        let (_, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse().ok().map(Pid::from_raw);
        Some(Self {
            pid: Pid::from_raw(pid.parse().ok()?),
            parent: number(1)?,
            session: number(3)?,
            started: fields.get(19)?.parse().ok()?,
            ended: matches!(fields.first(), Some(&("Z" | "X"))),
        })
    }
}

/// A process that is told from every other one, also from one that has got its number since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) pid: i32,
    /// When it was started, in ticks since the machine was.
    pub(crate) started: u64,
    /// Which start of the machine that was.
    pub(crate) boot: String,
}

impl Mark {
    /// This process.
    pub(crate) fn own() -> io::Result<Self> {
        let own = Process::read(Pid::this()).ok_or_else(|| io::Error::other("/proc does not tell of this process"))?;
        Ok(Self { pid: own.pid.as_raw(), started: own.started, boot: boot()? })
    }

    /// The process, if it still runs.
    pub(crate) fn find(&self) -> Option<Process> {
        let same = |process: &Process| process.started == self.started && !process.ended;
        if self.is_of_this_boot() { Process::read(Pid::from_raw(self.pid)).filter(same) } else { None }
    }

    /// Whether the machine was not started again since.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        boot().is_ok_and(|boot| boot == self.boot)
    }
}

/// Names this start of the machine.
fn boot() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// Every process that has not ended.
pub(crate) fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Process::read(Pid::from_raw(pid))).filter(|process| !process.ended).collect()
}

/// What a process has started, and what that has, as the kernel lists it: much quicker than looking at every process of
/// the machine, so that it finds what has another process go on in its place all the time. It may miss what is started
/// meanwhile. Nothing, where the kernel does not list it.
pub(crate) fn offspring(of: Pid) -> BTreeSet<Pid> {
    let mut found = BTreeSet::new();
    let mut next = vec![of];
    while let Some(pid) = next.pop() {
        next.extend(children(pid).into_iter().filter(|child| found.insert(*child)));
    }
    found
}

/// What the threads of a process have started, or have been given because its parent has ended.
fn children(pid: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = |list: String| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>();
    lists.flat_map(pids).map(Pid::from_raw).collect()
}

/// What these processes have started, and what those have.
pub(crate) fn descendants(all: &[Process], of: impl IntoIterator<Item = Pid>) -> BTreeSet<Pid> {
    let mut children: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process.pid);
    }
    let mut found = BTreeSet::new();
    let mut next: Vec<Pid> = of.into_iter().collect();
    while let Some(pid) = next.pop() {
        next.extend(children.remove(&pid).unwrap_or_default().into_iter().filter(|child| found.insert(*child)));
    }
    found
}

/// Sends a signal to processes; those that are gone do not mind.
pub(crate) fn signal<'a>(pids: impl IntoIterator<Item = &'a Pid>, signal: Signal) {
    for pid in pids {
        let _ = kill(*pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name() {
        let numbers = (0..40).map(|number| format!("{}", number + 100)).collect::<Vec<_>>().join(" ");
        let process = Process::parse(&format!("7 (a) S (b) Z 1 2 3 {numbers}\n")).unwrap();
        assert_eq!(
            (process.pid, process.parent, process.session),
            (Pid::from_raw(7), Pid::from_raw(1), Pid::from_raw(3))
        );
        assert_eq!((process.started, process.ended), (115, true));
        assert_eq!(Process::parse("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_is_told_from_one_that_has_its_number() {
        let own = Mark::own().unwrap();
        assert_eq!(own.find().map(|process| process.pid), Some(Pid::this()));
        assert_eq!(Mark { started: own.started + 1, ..own.clone() }.find(), None);
        assert_eq!(Mark { boot: "another".to_owned(), ..own }.find(), None);
    }

    #[test]
    fn a_tree_is_found_without_going_round_in_circles() {
        let process = |pid: i32, parent: i32| Process {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(parent),
            session: Pid::from_raw(1),
            started: 0,
            ended: false,
        };
        let all = [process(2, 1), process(3, 2), process(4, 3), process(5, 1), process(6, 7), process(7, 6)];
        let below = |pid: i32| descendants(&all, [Pid::from_raw(pid)]).into_iter().map(Pid::as_raw).collect::<Vec<_>>();
        assert_eq!(below(2), [3, 4]);
        assert_eq!(below(6), [6, 7]);
        assert_eq!(below(4), [0; 0]);
    }
}
