use super::*;
use crate::cgroup::Hierarchies;
use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

const BOUNDS: Bounds = Bounds { cpu_millis: 1500, memory_mib: 64, processes: 99 };

#[test]
fn quotas_are_exact_or_as_short_as_they_can_be() {
    assert_eq!(quota(1500), (150_000, 100_000));
    assert_eq!(quota(10), (1000, 100_000));
    assert_eq!(quota(9), (9000, 1_000_000));
    assert_eq!(quota(1), (1000, 1_000_000));
}

/// Files that stand in for the kernel's.
fn stand_in(new: bool, files: &[&str]) -> (tempfile::TempDir, Group) {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(root.path().join(file), "").unwrap();
    }
    let controllers = Controller::LIMITING.to_vec();
    let group = Group::new(vec![Folder { path: root.path().to_owned(), new, controllers }]);
    (root, group)
}

fn written(root: &tempfile::TempDir) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(root.path()).unwrap().map(Result::unwrap).collect();
    files.sort_by_key(fs::DirEntry::path);
    let told =
        |file: &fs::DirEntry| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap());
    files.iter().map(told).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn bounds_are_written_as_each_kind_wants_them() {
    let (root, group) = stand_in(true, &["memory.swap.max"]);
    assert_eq!(group.make(BOUNDS).unwrap(), [""; 0]);
    let new = [("cpu.max", "150000 100000"), ("memory.max", "67108864"), ("memory.swap.max", "0"), ("pids.max", "99")];
    assert_eq!(written(&root), pairs(&new));

    let (root, group) = stand_in(false, &[]);
    assert_eq!(group.make(BOUNDS).unwrap(), [""; 0]);
    let old = [
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "150000"),
        ("memory.limit_in_bytes", "67108864"),
        ("pids.max", "99"),
    ];
    assert_eq!(written(&root), pairs(&old));

    let (root, group) = stand_in(true, &[]);
    group.make(Bounds { cpu_millis: 0, memory_mib: 0, processes: 5 }).unwrap();
    assert_eq!(written(&root), pairs(&[("pids.max", "5")]));
}

#[test]
fn what_cannot_be_bounded_is_told() {
    let told = Group::default().make(BOUNDS).unwrap();
    let why = "is not limited: it has no control group here";
    assert_eq!(told, [format!("CPU time {why}"), format!("memory {why}")]);
    let nothing = Bounds { cpu_millis: 0, memory_mib: 0, processes: 5 };
    assert_eq!(Group::default().make(nothing).unwrap(), [""; 0]);
}

#[test]
fn a_kill_for_want_of_memory_is_read_from_either_kind() {
    let (root, group) = stand_in(true, &[]);
    assert_eq!(group.out_of_memory(), 0);
    fs::write(root.path().join("memory.events"), "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n")
        .unwrap();
    assert_eq!(group.out_of_memory(), 2);
    let (root, group) = stand_in(false, &[]);
    fs::write(root.path().join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n").unwrap();
    assert_eq!(group.out_of_memory(), 7);
}

/// A group of the kernel's own, which goes with the value; `None` where none can be made.
struct Real(Group);

impl Real {
    fn make() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("starlink-unit-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let group = Hierarchies::find().group(&name);
        if group.folders.is_empty() {
            return None;
        }
        assert_eq!(group.make(BOUNDS).unwrap(), [""; 0]);
        Some(Self(group))
    }

    fn put(&self, child: &Child) {
        for folder in &self.0.folders {
            fs::write(folder.path.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.0.kill();
        let _ = self.0.remove();
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap()
}

fn check_kill(group: &Real) {
    let mut children = [sleeper(), sleeper()];
    for child in &children {
        group.put(child);
    }
    let mut pids: Vec<_> = children.iter().map(|child| Pid::from_raw(child.id().try_into().unwrap())).collect();
    pids.sort();
    assert_eq!(group.0.processes(), pids);
    group.0.kill();
    for child in &mut children {
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    assert_eq!(group.0.processes(), []);
    group.0.remove().unwrap();
    group.0.remove().unwrap();
    assert!(group.0.folders.iter().all(|folder| !folder.path.exists()));
}

#[test]
fn a_group_ends_with_everything_in_it() {
    let Some(group) = Real::make() else { return };
    check_kill(&group);
}

/// A group in those folders only for which this is so.
fn with_only(keep: impl Fn(&Folder) -> bool) -> Option<Real> {
    let mut group = Real::make()?;
    let (kept, other) = group.0.folders.drain(..).partition::<Vec<_>, _>(keep);
    for folder in other {
        fs::remove_dir(folder.path).unwrap();
    }
    group.0.folders = kept;
    (!group.0.folders.is_empty()).then_some(group)
}

#[test]
fn the_old_kind_alone_ends_everything_too() {
    let keeps: [fn(&Folder) -> bool; 3] = [
        |folder| !folder.new,
        |folder| folder.controllers == [Controller::Pids],
        |folder| folder.controllers == [Controller::Memory],
    ];
    for keep in keeps {
        if let Some(group) = with_only(keep) {
            check_kill(&group);
        }
    }
}
