//! The group of one work: made, bounded, entered, ended and removed.

use super::Controller;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long the kernel gets to forget a process that has ended.
const FORGET: Duration = Duration::from_secs(2);
/// How long the kernel gets to stop processes, and how long it is left alone meanwhile.
const FREEZE: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(1);
/// Microseconds in which a quota of processor time is counted, and the shortest quota that the kernel takes.
const PERIOD: i64 = 100_000;
const LONG_PERIOD: i64 = 1_000_000;
const SHORTEST_QUOTA: i64 = 1000;

/// A folder that stands for a group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Whether it is of the new kind.
    pub(super) new: bool,
    /// What can be bounded there.
    pub(super) controllers: Vec<Controller>,
}

/// What the processes of a group may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Processor time, in millicores; 0 for no bound.
    pub cpu_millis: i64,
    /// Memory, in MiB; 0 for no bound.
    pub memory_mib: i64,
    /// Processes and threads.
    pub processes: u64,
}

/// The group of one work, in every hierarchy that can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Group {
    folders: Vec<Folder>,
}

impl Group {
    pub(super) fn new(folders: Vec<Folder>) -> Self {
        Self { folders }
    }

    /// Makes it and bounds it. Making it again changes nothing. Tells in sentences which bounds could not be set.
    ///
    /// # Errors
    /// What the kernel says, if it cannot be made.
    pub fn make(&self, bounds: Bounds) -> io::Result<Vec<String>> {
        for folder in &self.folders {
            match fs::create_dir(&folder.path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let mut unbounded = Vec::new();
        let mut note = |what: &str, bound: Result<(), String>| {
            unbounded.extend(bound.err().map(|why| format!("{what} is not limited: {why}")));
        };
        if bounds.cpu_millis > 0 {
            note("CPU time", self.bound_cpu(bounds.cpu_millis));
        }
        if bounds.memory_mib > 0 {
            note("memory", self.bound_memory(bounds.memory_mib));
        }
        // Nobody has asked for this bound, so nobody misses it where it cannot be had.
        if let Some(folder) = self.folder(Controller::Pids) {
            note("the number of processes", set(folder, "pids.max", &bounds.processes.to_string()));
        }
        Ok(unbounded)
    }

    /// Puts this process, and what it starts from now on, into it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn enter(&self) -> io::Result<()> {
        let pid = std::process::id().to_string();
        self.folders.iter().try_for_each(|folder| fs::write(folder.path.join("cgroup.procs"), &pid))
    }

    /// How often the kernel has ended a process in it because memory had run out.
    #[must_use]
    pub fn out_of_memory(&self) -> u64 {
        let Some(folder) = self.folder(Controller::Memory) else { return 0 };
        let file = if folder.new { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(folder.path.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Whether there is any: what is in it can be found then.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !self.folders.is_empty()
    }

    /// The processes in it.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let mut pids = BTreeSet::new();
        for folder in &self.folders {
            collect(&folder.path, &mut pids);
        }
        pids.into_iter().map(Pid::from_raw).collect()
    }

    /// Ends every process in it, at once. They need a moment to be gone, see [`Self::processes`].
    pub fn kill(&self) {
        let at_once = |folder: &Folder| folder.new && fs::write(folder.path.join("cgroup.kill"), "1").is_ok();
        if self.folders.iter().any(at_once) {
            return;
        }
        // Where the kernel does not do it at once, none of them may be quicker than this with new ones: they are halted,
        // or, where that cannot be, they are refused new ones.
        if let Some(folder) = self.folder(Controller::Freezer) {
            let state = folder.path.join("freezer.state");
            freeze(&state);
            self.kill_one_by_one();
            let _ = fs::write(state, "THAWED");
        } else if let Some(folder) = self.folder(Controller::Pids) {
            let limit = folder.path.join("pids.max");
            let most = fs::read_to_string(&limit).unwrap_or_default();
            let _ = fs::write(&limit, "0");
            self.kill_one_by_one();
            let _ = fs::write(limit, most.trim());
        } else {
            self.kill_one_by_one();
        }
    }

    fn kill_one_by_one(&self) {
        for pid in self.processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// Removes it, if no process is in it any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + FORGET;
        self.folders.iter().try_for_each(|folder| {
            loop {
                match remove(&folder.path) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                        thread::sleep(PAUSE);
                    }
                    removed => return removed,
                }
            }
        })
    }

    fn folder(&self, controller: Controller) -> Option<&Folder> {
        self.folders.iter().find(|folder| folder.controllers.contains(&controller))
    }

    fn bounding(&self, controller: Controller) -> Result<&Folder, String> {
        self.folder(controller).ok_or_else(|| "it has no control group here".to_owned())
    }

    fn bound_cpu(&self, millis: i64) -> Result<(), String> {
        let folder = self.bounding(Controller::Cpu)?;
        let (quota, period) = quota(millis);
        if folder.new {
            return set(folder, "cpu.max", &format!("{quota} {period}"));
        }
        // The period first, because a quota is checked against it.
        set(folder, "cpu.cfs_period_us", &period.to_string())?;
        set(folder, "cpu.cfs_quota_us", &quota.to_string())
    }

    fn bound_memory(&self, mib: i64) -> Result<(), String> {
        let folder = self.bounding(Controller::Memory)?;
        let bytes = mib.saturating_mul(1024 * 1024).to_string();
        let (limit, swap, with_swap) = if folder.new {
            ("memory.max", "memory.swap.max", "0")
        } else {
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", bytes.as_str())
        };
        set(folder, limit, &bytes)?;
        // Only there if the kernel accounts for swap.
        if folder.path.join(swap).exists() { set(folder, swap, with_swap) } else { Ok(()) }
    }
}

/// The processor time in a period, both in microseconds.
fn quota(millis: i64) -> (i64, i64) {
    let within = |period: i64| millis.saturating_mul(period / 1000);
    if within(PERIOD) >= SHORTEST_QUOTA {
        return (within(PERIOD), PERIOD);
    }
    (within(LONG_PERIOD).max(SHORTEST_QUOTA), LONG_PERIOD)
}

fn set(folder: &Folder, file: &str, value: &str) -> Result<(), String> {
    let path = folder.path.join(file);
    fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
}

/// Stops every process of an old group, as well as it goes.
fn freeze(state: &Path) {
    let deadline = Instant::now() + FREEZE;
    while fs::write(state, "FROZEN").is_ok() && Instant::now() < deadline {
        if fs::read_to_string(state).is_ok_and(|state| state.trim() == "FROZEN") {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// The processes in a folder and below it.
fn collect(folder: &Path, into: &mut BTreeSet<i32>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process that cannot be seen from here.
    into.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 1));
    for below in below(folder) {
        collect(&below, into);
    }
}

/// The groups in a group. Work may make some, if it may run as root.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn remove(folder: &Path) -> io::Result<()> {
    for below in below(folder) {
        remove(&below)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
