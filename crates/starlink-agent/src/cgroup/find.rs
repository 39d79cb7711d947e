//! Finds out where groups can be made, and what they can bound.

use super::{
    Controller,
    group::{Folder, Group},
    mounts::{self, Own},
};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Where the agent itself is, where its own group bounds others: the kernel wants processes in leaves only.
const LEAF: &str = "starlink-agent";

/// What of a task's demand is enforced on this machine.
#[expect(clippy::struct_excessive_bools, reason = "each of them is enforced or is not, whatever the others are")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Whether a program gets no more of the processors.
    pub cpu: bool,
    /// Whether a program gets no more memory.
    pub memory: bool,
    /// Whether the number of its processes is bounded.
    pub processes: bool,
    /// Whether its processes are still known when its shim was killed, also those that became daemons.
    pub tree: bool,
    /// Why something is not enforced, in sentences.
    pub missing: Vec<String>,
}

/// Where groups can be made.
#[derive(Debug, Clone, Default)]
pub struct Hierarchies {
    /// The folders in which they can.
    folders: Vec<Folder>,
    missing: Vec<String>,
}

impl Hierarchies {
    /// Those of this process. On the new kind, where its own group is to bound others, it moves to a leaf of it.
    #[must_use]
    pub fn find() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::prepare(mounts::own(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo")))
    }

    /// None, because the owner of the machine does not want any.
    #[must_use]
    pub fn none() -> Self {
        Self { folders: Vec::new(), missing: vec!["control groups are switched off".to_owned()] }
    }

    fn prepare(own: Vec<Own>) -> Self {
        let mut found = Self::default();
        // The old kind first: a controller is of one kind only.
        let (old, new): (Vec<_>, Vec<_>) = own.into_iter().partition(|own| own.old.is_some());
        for Own { path, old } in old {
            let controllers = old.unwrap_or_default();
            found.offer(Folder { path, new: false, controllers });
        }
        for Own { path, .. } in new {
            let base = if path.ends_with(LEAF) { path.parent().unwrap_or(&path).to_owned() } else { path };
            let wanted: Vec<_> = Controller::LIMITING.into_iter().filter(|it| !found.has(*it)).collect();
            let controllers = found.enable(&base, &wanted);
            found.offer(Folder { path: base, new: true, controllers });
        }
        for controller in Controller::LIMITING {
            if !found.has(controller) && !found.missing.iter().any(|text| text.contains(controller.name())) {
                found.missing.push(format!("this machine has no control groups for {}", controller.name()));
            }
        }
        found
    }

    /// What is enforced with them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            cpu: self.has(Controller::Cpu),
            memory: self.has(Controller::Memory),
            processes: self.has(Controller::Pids),
            tree: !self.folders.is_empty(),
            missing: self.missing.clone(),
        }
    }

    /// The group of this name, which need not be there.
    #[must_use]
    pub fn group(&self, name: &str) -> Group {
        let below = |folder: &Folder| Folder { path: folder.path.join(name), ..folder.clone() };
        Group::new(self.folders.iter().map(below).collect())
    }

    fn has(&self, controller: Controller) -> bool {
        self.folders.iter().any(|folder| folder.controllers.contains(&controller))
    }

    /// Takes a folder, if groups can be made in it.
    fn offer(&mut self, folder: Folder) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let probe = folder.path.join(format!("starlink-probe-{}-{number}", std::process::id()));
        match fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)) {
            Ok(()) => self.folders.push(folder),
            Err(error) => {
                let names: Vec<_> = folder.controllers.iter().map(|controller| controller.name()).collect();
                let names = if names.is_empty() { "anything".to_owned() } else { names.join(", ") };
                self.missing.push(format!("no group for {names} can be made in {}: {error}", folder.path.display()));
            }
        }
    }

    /// Has a group of the new kind bound those below it, and tells which of the wanted controllers do.
    fn enable(&mut self, base: &Path, wanted: &[Controller]) -> Vec<Controller> {
        let offered = words(&base.join("cgroup.controllers"));
        let wanted: Vec<_> = wanted.iter().copied().filter(|it| offered.contains(it.name())).collect();
        let control = base.join("cgroup.subtree_control");
        let enable = |controller: Controller| fs::write(&control, format!("+{}", controller.name()));
        let mut moved: Option<io::Result<()>> = None;
        for controller in &wanted {
            let mut enabled = enable(*controller);
            if enabled.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
                let moved = moved.get_or_insert_with(|| move_to_leaf(base));
                if moved.is_ok() {
                    enabled = enable(*controller);
                }
            }
            if let Err(error) = enabled {
                let help = "other processes may be in it: run the agent as a service of its own";
                self.missing.push(format!("{} cannot hand on {}: {error}; {help}", base.display(), controller.name()));
            }
        }
        let enabled = words(&control);
        wanted.into_iter().filter(|controller| enabled.contains(controller.name())).collect()
    }
}

/// Moves this process out of the way: a group that bounds others has none of its own.
fn move_to_leaf(base: &Path) -> io::Result<()> {
    let leaf = base.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(leaf.join("cgroup.procs"), std::process::id().to_string())
}

fn words(path: &PathBuf) -> BTreeSet<String> {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_none_every_limit_is_told_as_missing() {
        let limits = Hierarchies::prepare(Vec::new()).limits();
        assert!(!limits.cpu && !limits.memory && !limits.processes && !limits.tree);
        assert_eq!(limits.missing.len(), 3, "{:?}", limits.missing);
        assert_eq!(Hierarchies::none().limits().missing, ["control groups are switched off"]);
    }

    #[test]
    fn a_folder_that_may_not_be_written_offers_nothing() {
        let own = Own { path: "/proc/1".into(), old: Some(vec![Controller::Memory]) };
        let limits = Hierarchies::prepare(vec![own]).limits();
        assert!(!limits.memory && !limits.tree);
        assert!(limits.missing[0].contains("no group for memory can be made in /proc/1"), "{:?}", limits.missing);
    }

    #[test]
    fn the_new_kind_hands_on_what_it_has() {
        // Files stand in for the kernel's: what is written can be read.
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        fs::write(base.path().join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        let enabled = Hierarchies::default().enable(base.path(), &[Controller::Memory]);
        assert_eq!(enabled, []);
        assert_eq!(fs::read_to_string(base.path().join("cgroup.subtree_control")).unwrap(), "+memory");
        let enabled = Hierarchies::default().enable(Path::new("/nonexistent"), &[Controller::Memory]);
        assert_eq!(enabled, []);
    }
}
