//! Where a process is in the hierarchies of control groups, from what `/proc` says. Pure.

use super::Controller;
use std::path::{Component, Path, PathBuf};

/// The group of a process in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    /// Its folder.
    pub(super) path: PathBuf,
    /// The controllers of the old kind; `None` for the hierarchy of the new kind.
    pub(super) old: Option<Vec<Controller>>,
}

/// The groups of a process, from its `/proc/<pid>/cgroup` and `/proc/<pid>/mountinfo`.
pub(super) fn own(groups: &str, mounts: &str) -> Vec<Own> {
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    groups.lines().filter_map(|line| own_of(line, &mounts)).collect()
}

/// Reads a line such as `4:cpu,cpuacct:/system.slice/x.service`, or `0::/x` for the new kind.
fn own_of(line: &str, mounts: &[Mount]) -> Option<Own> {
    let mut parts = line.splitn(3, ':');
    let (number, names, group) = (parts.next()?, parts.next()?, parts.next()?);
    let old = (number != "0").then(|| names.split(',').filter_map(Controller::parse).collect::<Vec<_>>());
    if old.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let fits = |mount: &&Mount| match old.as_deref() {
        None => mount.new,
        Some(old) => !mount.new && old.iter().all(|controller| mount.controllers.contains(controller)),
    };
    mounts.iter().filter(fits).find_map(|mount| mount.folder(group)).map(|path| Own { path, old })
}

/// A hierarchy that is mounted.
#[derive(Debug)]
struct Mount {
    /// The group that is seen at `point`.
    root: PathBuf,
    point: PathBuf,
    new: bool,
    controllers: Vec<Controller>,
}

impl Mount {
    /// Reads a line such as `36 35 0:30 / /sys/fs/cgroup/cpu rw,relatime shared:11 - cgroup cgroup rw,cpu`.
    fn parse(line: &str) -> Option<Self> {
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut what = what.split(' ');
        let new = match what.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let controllers = what.nth(1)?.split(',').filter_map(Controller::parse).collect();
        Some(Self { root: unescaped(place.next()?), point: unescaped(place.next()?), new, controllers })
    }

    /// Where a group is seen, if it is within what is mounted.
    fn folder(&self, group: &str) -> Option<PathBuf> {
        let below = Path::new(group).strip_prefix(&self.root).ok()?;
        let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        plain.then(|| if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) })
    }
}

/// The kernel writes a space in a path as `\040`.
fn unescaped(text: &str) -> PathBuf {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Controller::{Cpu, Freezer, Memory, Pids};

    fn check(groups: &str, mounts: &str, expected: &[(&str, Option<&[Controller]>)]) {
        let own: Vec<_> = own(groups, mounts).into_iter().map(|own| (own.path, own.old)).collect();
        let expected: Vec<_> =
            expected.iter().map(|(path, old)| (PathBuf::from(path), old.map(<[_]>::to_vec))).collect();
        assert_eq!(own, expected);
    }

    #[test]
    fn a_service_of_systemd_on_the_new_kind() {
        check(
            "0::/system.slice/starlink-agent.service\n",
            "25 30 0:23 / /sys rw - sysfs sysfs rw\n\
             35 25 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
            &[("/sys/fs/cgroup/system.slice/starlink-agent.service", None)],
        );
    }

    #[test]
    fn the_old_kind_beside_the_new_one() {
        check(
            "9:name=systemd:/\n8:pids:/\n7:blkio:/\n6:freezer:/\n4:memory:/process_api/5e27\n2:cpu,cpuacct:/a b\n0::/\n",
            "34 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             36 31 0:31 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
             37 31 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
             38 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            &[
                ("/sys/fs/cgroup/pids", Some(&[Pids])),
                ("/sys/fs/cgroup/freezer", Some(&[Freezer])),
                ("/sys/fs/cgroup/memory/process_api/5e27", Some(&[Memory])),
                ("/sys/fs/cgroup/cpu,cpuacct/a b", Some(&[Cpu])),
                ("/sys/fs/cgroup/unified", None),
            ],
        );
    }

    #[test]
    fn within_a_container() {
        // The old kind: what is mounted is the container's own group.
        check(
            "4:memory:/docker/abc\n",
            "35 31 0:30 /docker/abc /sys/fs/cgroup/memory\\040x ro - cgroup cgroup rw,memory\n",
            &[("/sys/fs/cgroup/memory x", Some(&[Memory]))],
        );
        // What lies outside of what is seen cannot be used.
        check("0::/../other\n", "35 31 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", &[]);
        check("4:memory:/other\n", "35 31 0:30 /docker/abc /m rw - cgroup cgroup rw,memory\n", &[]);
    }

    #[test]
    fn without_any() {
        check("", "25 30 0:23 / /sys rw - sysfs sysfs rw\n", &[]);
        check("4:memory:/\n0::/\nnonsense\n", "", &[]);
    }
}
