//! Processors, memory, disk and operating system.

use super::InventoryError;
use std::{fs, path::Path};

const KIB_PER_MIB: i64 = 1024;
const BYTES_PER_MIB: u128 = 1024 * 1024;

/// A thousand for each processor that is online, whatever share of them the agent itself may use.
pub(super) fn cpu_millis(root: &Path) -> Result<i64, InventoryError> {
    let online = fs::read_to_string(root.join("sys/devices/system/cpu/online"));
    if let Some(count) = online.ok().and_then(|text| ranges(&text)) {
        return Ok(count * 1000);
    }
    let path = root.join("proc/cpuinfo");
    let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    let count = i64::try_from(count).ok().filter(|count| *count > 0);
    count.map(|count| count * 1000).ok_or(InventoryError::Silent { path, what: "how many processors there are" })
}

/// How many numbers there are in `0-3,8,10-11`.
fn ranges(text: &str) -> Option<i64> {
    let mut sum = 0;
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (i64, i64) = (first.parse().ok()?, last.parse().ok()?);
        sum += (last - first).checked_add(1).filter(|count| *count > 0)?;
    }
    Some(sum)
}

pub(super) fn memory_mib(root: &Path) -> Result<i64, InventoryError> {
    let path = root.join("proc/meminfo");
    let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
    total_memory(&text).ok_or(InventoryError::Silent { path, what: "MemTotal" })
}

fn total_memory(meminfo: &str) -> Option<i64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / KIB_PER_MIB)
}

/// The size of the disk that `path` is on, or will be on once it is made; nothing, if it cannot be told.
pub(super) fn storage_mib(path: &Path) -> i64 {
    let Some(disk) = path.ancestors().find_map(|folder| nix::sys::statvfs::statvfs(folder).ok()) else { return 0 };
    let bytes = u128::from(disk.blocks()) * u128::from(disk.fragment_size());
    i64::try_from(bytes / BYTES_PER_MIB).unwrap_or(i64::MAX)
}

/// What the operating system calls itself.
pub(super) fn os(root: &Path) -> Option<String> {
    let texts = ["etc/os-release", "usr/lib/os-release"].iter().map(|path| fs::read_to_string(root.join(path)));
    texts.flatten().find_map(|text| pretty_name(&text))
}

/// `PRETTY_NAME` of an `os-release`, which is quoted as a shell would.
fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("PRETTY_NAME="))?.trim();
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let plain = match (quoted('"'), quoted('\'')) {
        (Some(inner), _) => unescaped(inner),
        (None, Some(inner)) => inner.to_owned(),
        (None, None) => unescaped(value),
    };
    Some(plain.trim().to_owned()).filter(|name| !name.is_empty())
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    plain
}

fn unreadable(path: &Path, error: std::io::Error) -> InventoryError {
    InventoryError::Unreadable { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_by_their_ranges() {
        for (text, expected) in [
            ("0\n", Some(1)),
            ("0-1\n", Some(2)),
            ("0-3,8,10-11\n", Some(7)),
            ("0-127\n", Some(128)),
            ("\n", None),
            ("3-1\n", None),
            ("0-", None),
        ] {
            assert_eq!(ranges(text), expected, "{text:?}");
        }
    }

    #[test]
    fn memory_is_rounded_down() {
        let text = "MemTotal:        8047123 kB\nMemFree:          123456 kB\n";
        assert_eq!(total_memory(text), Some(7858));
        assert_eq!(total_memory("MemTotal: 1023 kB"), Some(0));
        assert_eq!(total_memory("MemFree: 1 kB"), None);
        assert_eq!(total_memory("MemTotal: many kB"), None);
    }

    #[test]
    fn names_of_systems_are_unquoted() {
        for (text, expected) in [
            ("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n", Some("Debian GNU/Linux 12 (bookworm)")),
            ("PRETTY_NAME='Alpine Linux v3.20'", Some("Alpine Linux v3.20")),
            ("PRETTY_NAME=Arch\\ Linux", Some("Arch Linux")),
            ("PRETTY_NAME=\"The \\\"best\\\"\"", Some("The \"best\"")),
            ("PRETTY_NAME=\"\"", None),
            ("NAME=x", None),
        ] {
            assert_eq!(pretty_name(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_disk_is_that_of_the_nearest_folder() {
        let folder = tempfile::tempdir().unwrap();
        let size = storage_mib(folder.path());
        assert!(size > 0);
        assert_eq!(storage_mib(&folder.path().join("not/yet/there")), size);
    }
}
